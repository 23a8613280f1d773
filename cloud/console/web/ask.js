// Asks before something is done, with a field for the reason where the flow wants one. What is shown only once (a
// password, a token) stands by itself, to be copied, and does not go away by a slip of the mouse.
export default {
  props: { cancel: String, confirm: String, missing: String },
  emits: ["answer"],
  data: () => ({ q: null, text: "", bad: false }),
  methods: {
    away() { if (!this.q.secret) this.close(); },
    enter(e) { if (this.q.line) { e.preventDefault(); this.ok(); } },
    ask(q) { this.q = q; this.text = ""; this.bad = false; this.$nextTick(() => (this.$refs.field || this.$refs.ok)?.focus()); },
    close() { this.q = null; },
    ok() {
      if (this.q.reason && !this.text.trim()) { this.bad = true; this.$refs.field.focus(); return; }
      this.$emit("answer", { name: this.q.name, text: this.text.trim() });
      this.q = null;
    },
  },
  template: `
  <div v-if="q" class="cb-veil" @click.self="away" @keydown.esc="away">
    <form class="cb-dialog" role="dialog" aria-modal="true" :aria-label="q.title" @submit.prevent="ok">
      <h2>{{ q.title }}</h2>
      <output v-if="q.secret" class="cb-secret">{{ q.secret }}</output>
      <p class="cb-sub" style="font-size:13px">{{ q.hint }}</p>
      <label v-if="q.field" class="cb-field">{{ q.field }}<textarea ref="field" v-model="text" maxlength="2000" :rows="q.line ? 1 : 3" :class="{ line: q.line }" @keydown.ctrl.enter="ok" @keydown.enter.exact="enter"></textarea><span v-if="bad" class="bad">{{ missing }}</span></label>
      <div class="cb-bar"><button v-if="!q.secret" type="button" class="cb-btn" @click="close">{{ cancel }}</button><button ref="ok" type="submit" class="cb-btn" :class="q.danger ? 'danger full' : 'primary'" data-ok>{{ q.confirm || confirm }}</button></div>
    </form>
  </div>`,
};
