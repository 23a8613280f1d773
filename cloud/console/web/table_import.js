// A table from the operator's disk: first what would happen (a dry run), then, on his word, the same again for real.
export default {
  props: { kind: String, words: Object, zh: Boolean },
  emits: ["done"],
  data: () => ({ file: null, found: null, problem: "", busy: false }),
  methods: {
    async send(dry) {
      this.busy = true; this.problem = "";
      try {
        const answer = await fetch(`/api/v1/fleet/import/${this.kind}?dry_run=${dry}`, { method: "POST", body: this.file, headers: { "Content-Type": "text/csv" } });
        const body = await answer.json();
        if (!answer.ok) { this.found = null; this.problem = (this.zh && body.zh) || body.detail || body.title; return; }
        this.found = body;
        if (body.written) { this.$emit("done", { changed: body.new + body.changed }); this.file = null; this.$refs.file.value = ""; }
      } catch { this.problem = this.words.failed; } finally { this.busy = false; }
    },
    chosen(event) { this.file = event.target.files[0] || null; this.found = null; this.problem = ""; if (this.file) this.send(true); },
    line(e) { return this.zh ? `第 ${e.row} 行，${e.column}：${e.zh}` : `${this.words.row} ${e.row}, ${e.column}: ${e.en}`; },
  },
  template: `
  <div class="cb-panel" style="padding:12px 16px">
    <label class="cb-field">{{ words.choose }}<span class="cb-file"><i class="cb-btn small">{{ words.pick_file }}</i><span>{{ file ? file.name : "" }}</span><input ref="file" type="file" accept=".csv,.txt,.json,.jsonl" data-import @change="chosen"></span></label>
    <div v-if="problem" class="cb-err" role="alert">{{ problem }}</div>
    <div v-if="found" data-found>
      <b>{{ words.rows }} {{ found.rows }} · {{ words.fresh }} {{ found.new }} · {{ words.changed }} {{ found.changed }} · {{ words.same }} {{ found.same }} · {{ words.wrong }} {{ found.left_out }}</b>
      <span v-if="found.written"> — {{ words.written }}</span>
      <ul v-if="found.errors.length"><li v-for="(e, i) in found.errors.slice(0, 30)" :key="i">{{ line(e) }}</li></ul>
      <button v-if="!found.written && !found.errors.length && found.new + found.changed" class="cb-btn primary" data-write :disabled="busy" @click="send(false)">{{ words.write }}</button>
    </div>
  </div>`,
};
