// Asks before something is done, with a field for the reason where the flow wants one.
export default {
  props: { cancel: String, confirm: String, missing: String },
  emits: ["answer"],
  data: () => ({ q: null, text: "", bad: false }),
  methods: {
    ask(q) { this.q = q; this.text = ""; this.bad = false; this.$nextTick(() => (this.$refs.field || this.$refs.ok)?.focus()); },
    close() { this.q = null; },
    ok() {
      if (this.q.reason && !this.text.trim()) { this.bad = true; this.$refs.field.focus(); return; }
      this.$emit("answer", { name: this.q.name, text: this.text.trim() });
      this.q = null;
    },
  },
  template: `
  <div v-if="q" class="cb-veil" @click.self="close" @keydown.esc="close">
    <form class="cb-dialog" role="dialog" aria-modal="true" :aria-label="q.title" @submit.prevent="ok">
      <h2>{{ q.title }}</h2>
      <p class="cb-sub" style="font-size:13px">{{ q.hint }}</p>
      <label v-if="q.field" class="cb-field">{{ q.field }}<textarea ref="field" v-model="text" maxlength="2000" @keydown.ctrl.enter="ok"></textarea><span v-if="bad" class="bad">{{ missing }}</span></label>
      <div class="cb-bar"><button type="button" class="cb-btn" @click="close">{{ cancel }}</button><button ref="ok" type="submit" class="cb-btn primary" data-ok>{{ q.confirm || confirm }}</button></div>
    </form>
  </div>`,
};
