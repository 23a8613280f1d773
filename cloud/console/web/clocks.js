// The three clocks of a case, counting down: green, yellow from 50 %, orange from 80 %, red when the time is up.
export default {
  props: { clocks: Array, paused: String },
  data: () => ({ t: 0 }),
  mounted() { this.off = window.cb.onTick(() => { this.t++; }); },
  unmounted() { this.off(); },
  methods: {
    view(c) {
      this.t;
      const cb = window.cb, now = c.done ?? cb.now(), share = cb.share(c.start, c.due, now), left = c.due - now;
      if (c.void) return { cls: "done", text: c.void, share: 0 };
      if (c.done) return { cls: "done", text: left >= 0 ? c.kept : c.late, share };
      if (this.paused) return { cls: "paused", text: this.paused, share };
      return { cls: cb.step(share), text: (left < 0 ? "−" : "") + cb.clock(left), share };
    },
    at(v) { return window.cb.time(v); },
  },
  template: `
  <div class="cb-clocks">
    <div v-for="c in clocks" :key="c.name" class="cb-clock" :class="view(c).cls" :data-clock="c.name">
      <small><span>{{ c.label }}</span><span>{{ Math.min(999, Math.round(view(c).share * 100)) }} %</span></small>
      <strong>{{ view(c).text }}</strong>
      <div class="bar"><i :style="{ width: Math.min(100, view(c).share * 100) + '%' }"></i></div>
      <div class="ticks"><span style="left:50%">50</span><span style="left:80%">80</span></div>
      <small><span>{{ c.dueLabel }} {{ at(c.due) }}</span></small>
    </div>
  </div>`,
};
