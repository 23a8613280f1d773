// The desk's left side: one card a case, its tightest clock counting.
export default {
  props: { cases: Array, selected: Number, emptyTitle: String, emptyHint: String, loading: Boolean, more: String },
  emits: ["open", "more"],
  data: () => ({ t: 0 }),
  mounted() { this.off = window.cb.onTick(() => { this.t++; }); },
  unmounted() { this.off(); },
  methods: {
    due(c) {
      this.t;
      if (!c.clock) return { text: c.ended, cls: "done", width: "100%" };
      const cb = window.cb, now = cb.now(), share = cb.share(c.clock.start, c.clock.due, now), left = c.clock.due - now;
      return { text: `${c.clock.label} ${left < 0 ? "−" : ""}${cb.clock(left)}`, cls: c.paused ? "done" : cb.step(share), width: Math.min(100, share * 100) + "%" };
    },
  },
  template: `
  <div>
    <div v-if="loading && !cases.length" class="cb-skel"><i v-for="n in 6" :key="n" style="height:54px"></i></div>
    <div v-else-if="!cases.length" class="cb-empty"><svg class="i" viewBox="0 0 24 24"><path d="M4 8h16v11H4zM9 8V5h6v3M4 13h16"/></svg><b>{{ emptyTitle }}</b><span>{{ emptyHint }}</span></div>
    <div v-else class="cb-cases">
      <div v-for="c in cases" :key="c.id" class="cb-case lv" :class="[c.level, { sel: c.id === selected }]" :data-case="c.id" tabindex="0" role="button" @click="$emit('open', c.id)" @keydown.enter="$emit('open', c.id)">
        <div class="t">{{ c.title }}</div>
        <div class="m"><span class="cb-mono">{{ c.number }}</span><span class="cb-chip">{{ c.state }}</span></div>
        <div class="m"><span>{{ c.department }}</span><span class="cb-due" :class="due(c).cls" style="text-align:right">{{ due(c).text }}<u><i :style="{ width: due(c).width }"></i></u></span></div>
      </div>
      <div v-if="more" class="cb-more"><button class="cb-btn small" @click="$emit('more')">{{ more }}</button></div>
    </div>
  </div>`,
};
