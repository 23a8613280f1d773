// A table whose ages and deadlines count by themselves. Cells are told by kind; the server sends data, not markup.
export default {
  props: { columns: Array, rows: Array, emptyTitle: String, emptyHint: String, loading: Boolean, selected: String, more: String },
  emits: ["open", "act", "more"],
  data: () => ({ t: 0, fresh: {} }),
  mounted() {
    this.off = window.cb.onTick(() => { this.t++; });
    this.seen = new Set((this.rows || []).map((r) => r.id));
  },
  unmounted() { this.off(); },
  watch: {
    rows(next) {
      const fresh = {};
      if (this.seen && this.seen.size) for (const r of next) if (!this.seen.has(r.id)) fresh[r.id] = true;
      next.forEach((r) => this.seen.add(r.id));
      this.fresh = fresh;
    },
  },
  computed: { first() { return this.columns.findIndex((c) => !["stripe", "thumb", "level"].includes(c.kind)); } },
  methods: {
    bare(v) { return v == null || v === "" || (Array.isArray(v) && (!v.length || v[0] === "")); }, // left out of a card
    age(v) { this.t; return window.cb.age(v); },
    at(v) { this.t; return v == null ? "–" : window.cb.time(v); },
    due(v) {
      this.t;
      const cb = window.cb, now = v.done ?? cb.now(), share = cb.share(v.start, v.due, now), left = v.due - now;
      const text = v.done ? (v.done <= v.due ? v.kept : v.late) : left >= 0 ? cb.clock(left) : `${v.over} ${cb.clock(left)}`;
      return { text, cls: v.done ? "done" : cb.step(share), width: Math.min(100, share * 100) + "%" };
    },
  },
  template: `
  <div class="cb-tablebox">
    <div v-if="loading && !rows.length" class="cb-skel" aria-busy="true"><i v-for="n in 8" :key="n"></i></div>
    <div v-else-if="!rows.length" class="cb-empty">
      <svg class="i" viewBox="0 0 24 24"><path d="M4 13h4l1.5 3h5L16 13h4M4 13l2.5-7h11L20 13v6H4z"/></svg>
      <b>{{ emptyTitle }}</b><span>{{ emptyHint }}</span>
    </div>
    <table v-else class="cb-table">
      <thead><tr><th v-for="c in columns" :key="c.key" :class="[c.align, c.kind]" :style="{ width: c.width }">{{ c.label }}</th></tr></thead>
      <tbody>
        <tr v-for="r in rows" :key="r.id" :data-id="r.id" tabindex="0"
            :class="[r.open === false ? '' : 'click', r.id === selected ? 'sel' : '', fresh[r.id] ? 'new' : '', r.level ? 'lv ' + r.level : '']"
            @click="$emit('open', r.id)" @keydown.enter.self="$emit('open', r.id)">
          <template v-for="(c, n) in columns" :key="c.key">
            <td v-if="c.kind === 'stripe'" class="stripe" :class="'lv ' + (r.cells[c.key] || '')"><i v-if="r.cells[c.key]"></i></td>
            <td v-else :class="[c.align, c.kind, n === first ? 'main' : '', bare(r.cells[c.key]) ? 'none' : '']" :data-label="c.label || null">
              <template v-if="r.cells[c.key] == null"><span class="cb-dim">–</span></template>
              <template v-else-if="c.kind === 'two'"><b class="a">{{ r.cells[c.key][0] }}</b><small v-if="r.cells[c.key][1]">{{ r.cells[c.key][1] }}</small></template>
              <span v-else-if="c.kind === 'level'" class="cb-level lv" :class="r.cells[c.key][0]">{{ r.cells[c.key][1] }}</span>
              <span v-else-if="c.kind === 'state'" class="cb-state" :class="r.cells[c.key][0]">{{ r.cells[c.key][1] }}</span>
              <span v-else-if="c.kind === 'age'" :class="{ 'cb-dim': !r.cells[c.key] }" :title="r.cells[c.key] ? at(r.cells[c.key]) : ''">{{ age(r.cells[c.key] || null) }}</span>
              <span v-else-if="c.kind === 'at'">{{ at(r.cells[c.key]) }}</span>
              <span v-else-if="c.kind === 'chip'" class="cb-chip">{{ r.cells[c.key] }}</span>
              <span v-else-if="c.kind === 'mono'" class="cb-mono">{{ r.cells[c.key] }}</span>
              <span v-else-if="c.kind === 'num'" :class="r.cells[c.key][1]">{{ r.cells[c.key][0] }}</span>
              <img v-else-if="c.kind === 'thumb'" :src="r.cells[c.key]" loading="lazy" alt="">
              <a v-else-if="c.kind === 'link'" class="cb-link" :href="r.cells[c.key][1]" @click.stop>{{ r.cells[c.key][0] }}</a>
              <span v-else-if="c.kind === 'due'" class="cb-due" :class="due(r.cells[c.key]).cls">{{ due(r.cells[c.key]).text }}<u><i :style="{ width: due(r.cells[c.key]).width }"></i></u></span>
              <span v-else-if="c.kind === 'acts'" class="cb-acts"><button v-for="b in r.cells[c.key]" :key="b.name" class="cb-btn small" :class="b.tone" :data-act="b.name" @click.stop="$emit('act', { id: r.id, name: b.name })">{{ b.label }}</button></span>
              <template v-else>{{ r.cells[c.key] }}</template>
            </td>
          </template>
        </tr>
      </tbody>
    </table>
    <div v-if="more && rows.length" class="cb-more"><button class="cb-btn small" @click="$emit('more')">{{ more }}</button></div>
  </div>`,
};
