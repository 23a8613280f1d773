// The map: a drawn base layer and markers, panned and zoomed in the browser, no tiles.
// Panning moves one group; zooming lays the markers out again and folds those that would cover one another.
const LON0 = 117.283, LAT0 = 31.8, COS = Math.cos((LAT0 * Math.PI) / 180), UNIT = 10000; // units per degree of latitude
const X = (lon) => (lon - LON0) * COS * UNIT, Y = (lat) => (LAT0 - lat) * UNIT;
const LON = (x) => x / (COS * UNIT) + LON0, LAT = (y) => LAT0 - y / UNIT;
const RANK = { blue: 1, yellow: 2, orange: 3, red: 4 }, STATE = { online: 0, unknown: 1, stale: 2, offline: 3 };
const GLYPH = {
  env: "M-4 2c2-2 3-2 4 0s2 2 4 0M-4-2c2-2 3-2 4 0s2 2 4 0", noise: "M-4-1v2M-1.5-3.5v7M1.5-2v4M4-4v8", crane: "M-1 5V-5M-5-3.5H5M3.5-3.5V0", gas: "M0-5c3 3 4 4.5 4 6.5a4 4 0 0 1-8 0C-4-.5-3-2 0-5z", meter: "M1-5-3 1h3l-1 4 4-6H0z",
  water: "M0-5c2.5 3.2 3.7 5 3.7 6.5a3.7 3.7 0 0 1-7.4 0C-3.7 0-2.5-1.8 0-5z", camera: "M-5-3H2V3H-5zM2-1 5-3V3L2 1", other: "M-3 0h6M0-3v6",
};
const smooth = (p, closed) => {
  const n = p.length, at = (i) => (closed ? p[(i + n) % n] : p[Math.max(0, Math.min(n - 1, i))]);
  let d = `M${p[0][0].toFixed(1)} ${p[0][1].toFixed(1)}`;
  for (let i = 0; i < (closed ? n : n - 1); i++) {
    const a = at(i - 1), b = at(i), c = at(i + 1), e = at(i + 2);
    d += `C${(b[0] + (c[0] - a[0]) / 6).toFixed(1)} ${(b[1] + (c[1] - a[1]) / 6).toFixed(1)} ${(c[0] - (e[0] - b[0]) / 6).toFixed(1)} ${(c[1] - (e[1] - b[1]) / 6).toFixed(1)} ${c[0].toFixed(1)} ${c[1].toFixed(1)}`;
  }
  return d + (closed ? "Z" : "");
};
const straight = (p) => "M" + p.map((q) => `${q[0].toFixed(1)} ${q[1].toFixed(1)}`).join("L") + "Z";
const project = (ring) => ring.map(([lon, lat]) => [X(lon), Y(lat)]);

export default {
  props: { points: Array, words: Object, start: Array, classes: Array },
  emits: ["view", "pick"],
  data: () => ({ base: null, k: 0.5, tx: 0, ty: 0, w: 800, h: 600, drag: null, sel: null, hidden: {}, moved: 0 }),
  async mounted() {
    this.box = new ResizeObserver(() => this.resize());
    this.box.observe(this.$el);
    this.resize();
    this.fit(this.start);
    const raw = await (await fetch("/assets/hefei.json")).json();
    this.base = {
      districts: raw.districts.map((d) => ({ ...d, d: straight(project(d.ring)), at: [X(d.label[0]), Y(d.label[1])] })),
      waters: raw.waters.map((d) => ({ ...d, d: smooth(project(d.ring), true), at: d.label && [X(d.label[0]), Y(d.label[1])] })),
      rivers: raw.rivers.map((d) => ({ ...d, d: smooth(project(d.line), false) })),
      roads: raw.roads.map((d) => ({ ...d, d: smooth(project(d.line), d.closed), at: d.label && [X(d.label[0]), Y(d.label[1])] })),
    };
    this.tell();
  },
  unmounted() { this.box.disconnect(); clearTimeout(this.later); },
  computed: {
    zh() { return window.cb.zh(); },
    shown() { return (this.points || []).filter((p) => !this.hidden[p.cls]); },
    // Cells of about a marker's width; what falls into one cell is one mark.
    marks() {
      const cell = 26, groups = new Map();
      for (const p of this.shown) {
        const x = X(p.lon) * this.k, y = Y(p.lat) * this.k;
        let found = null;
        for (const dx of [0, -1, 1]) for (const dy of [0, -1, 1]) {
          for (const g of groups.get(`${Math.round(x / cell) + dx}:${Math.round(y / cell) + dy}`) || []) if (!found && Math.hypot(g.x - x, g.y - y) < cell) found = g;
        }
        if (found) { found.all.push(p); continue; }
        const key = `${Math.round(x / cell)}:${Math.round(y / cell)}`;
        if (!groups.has(key)) groups.set(key, []);
        groups.get(key).push({ x, y, all: [p] });
      }
      const out = [];
      for (const list of groups.values()) for (const g of list) {
        const worst = g.all.reduce((a, b) => ((RANK[b.level] || 0) > (RANK[a.level] || 0) ? b : a));
        const state = g.all.reduce((a, b) => (STATE[b.state] > STATE[a.state] ? b : a)).state;
        const count = g.all.reduce((n, p) => n + p.count, 0);
        out.push({ key: g.all[0].id || `${g.x.toFixed(0)}:${g.y.toFixed(0)}`, x: g.x, y: g.y, all: g.all, count, level: worst.level || "", state, cls: g.all.length === 1 ? g.all[0].cls : "", waiting: g.all.some((p) => p.waiting), name: count === 1 ? g.all[0].name : `${count} ${this.words.devices}` });
      }
      return out.sort((a, b) => (RANK[a.level] || 0) - (RANK[b.level] || 0));
    },
    tip() {
      if (!this.sel) return null;
      const mark = this.marks.find((m) => m.all.some((p) => p.id && p.id === this.sel)) || this.marks.find((m) => m.key === this.sel);
      return mark ? { ...mark, left: Math.min(this.w - 150, Math.max(150, mark.x + this.tx)), top: mark.y + this.ty } : null;
    },
    scale() {
      const metres = 111320 / UNIT / this.k; // per pixel
      const want = [100, 200, 500, 1000, 2000, 5000, 10000, 20000].find((m) => m / metres > 60) || 50000;
      return { px: want / metres, text: want >= 1000 ? `${want / 1000} km` : `${want} m` };
    },
  },
  methods: {
    glyph: (cls) => (GLYPH[cls] || GLYPH.other),
    resize() {
      const r = this.$el.getBoundingClientRect();
      if (!r.width) return;
      if (this.ready) { this.tx += (r.width - this.w) / 2; this.ty += (r.height - this.h) / 2; }
      this.w = r.width; this.h = r.height; this.ready = true;
    },
    fit(b) {
      const x0 = X(b[0]), x1 = X(b[2]), y0 = Y(b[3]), y1 = Y(b[1]);
      this.k = Math.min(this.w / (x1 - x0), this.h / (y1 - y0));
      this.tx = this.w / 2 - ((x0 + x1) / 2) * this.k;
      this.ty = this.h / 2 - ((y0 + y1) / 2) * this.k;
      this.tell();
    },
    zoom(factor, cx = this.w / 2, cy = this.h / 2) {
      const k = Math.min(12, Math.max(0.045, this.k * factor)), f = k / this.k;
      this.tx = cx - (cx - this.tx) * f; this.ty = cy - (cy - this.ty) * f; this.k = k;
      this.tell();
    },
    wheel(e) { const r = this.$el.getBoundingClientRect(); this.zoom(Math.exp(-e.deltaY * 0.0016), e.clientX - r.left, e.clientY - r.top); },
    down(e) { if (e.button) return; this.drag = { x: e.clientX, y: e.clientY, tx: this.tx, ty: this.ty }; this.moved = 0; },
    move(e) { if (!this.drag) return; const dx = e.clientX - this.drag.x, dy = e.clientY - this.drag.y; this.moved = Math.max(this.moved, Math.hypot(dx, dy)); if (this.moved > 3) { this.tx = this.drag.tx + dx; this.ty = this.drag.ty + dy; } },
    up() { if (this.drag && this.moved > 3) this.tell(); else if (this.drag) this.sel = null; this.drag = null; },
    key(e) {
      const step = 80, moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (moves[e.key]) { this.tx += moves[e.key][0]; this.ty += moves[e.key][1]; this.tell(); e.preventDefault(); }
      else if (e.key === "+" || e.key === "=") this.zoom(1.4);
      else if (e.key === "-") this.zoom(1 / 1.4);
      else if (e.key === "Escape") this.sel = null;
    },
    pick(m) {
      const spread = m.all.length > 1 && (Math.max(...m.all.map((p) => p.lon)) - Math.min(...m.all.map((p) => p.lon)) > 0.0004 || Math.max(...m.all.map((p) => p.lat)) - Math.min(...m.all.map((p) => p.lat)) > 0.0004);
      if ((m.count > m.all.length || (m.all.length > 5 && spread)) && this.k < 11) { this.zoom(2.2, m.x + this.tx, m.y + this.ty); return; }
      this.sel = m.all[0].id || m.key;
    },
    // The server wants to know what is in view, a moment after it stopped moving.
    tell() {
      clearTimeout(this.later);
      this.later = setTimeout(() => this.$emit("view", [LON(-this.tx / this.k), LAT((this.h - this.ty) / this.k), LON((this.w - this.tx) / this.k), LAT(-this.ty / this.k)].map((v) => +v.toFixed(5))), 220);
    },
    toggle(cls) { this.hidden = { ...this.hidden, [cls]: !this.hidden[cls] }; },
    goto(lon, lat, id) { this.k = Math.max(this.k, 2.2); this.tx = this.w / 2 - X(lon) * this.k; this.ty = this.h / 2 - Y(lat) * this.k; this.sel = id; this.tell(); },
    r: (m) => (m.count > 1 ? 13 + Math.min(7, Math.log10(m.count) * 4) : 11),
    href: (id) => "/device?id=" + encodeURIComponent(id),
    age(v) { return window.cb.age(v); },
  },
  template: `
  <div class="cb-map" :class="{ drag }" tabindex="0" role="application" :aria-label="words.map" @pointerdown="down" @pointermove="move" @pointerup="up" @pointerleave="up" @wheel.prevent="wheel" @keydown="key" @dblclick="zoom(1.8, $event.offsetX, $event.offsetY)">
    <svg class="m" aria-hidden="false">
      <g :transform="'translate(' + tx + ' ' + ty + ')'">
        <g v-if="base" :transform="'scale(' + k + ')'">
          <path v-for="d in base.districts" :key="'h' + d.id" class="halo" :d="d.d"/>
          <path v-for="d in base.districts" :key="d.id" :class="d.kind" :d="d.d"/>
          <path v-for="d in base.rivers" :key="d.id" class="river" :class="d.kind" :d="d.d"/>
          <path v-for="d in base.waters" :key="d.id" :class="d.kind" :d="d.d"/>
          <template v-for="d in base.roads" :key="d.id"><path v-if="d.kind === 'ring'" class="ring casing" :d="d.d"/><path v-if="d.kind !== 'street' || k > 0.16" :class="d.kind" :d="d.d"/></template>
        </g>
        <g v-if="base">
          <text v-for="d in base.districts" :key="d.id" class="lb" :class="{ far: d.kind === 'county' }" :x="d.at[0] * k" :y="d.at[1] * k">{{ zh ? d.zh : d.en }}</text>
          <template v-for="d in base.waters" :key="d.id"><text v-if="d.at" class="lb water" :x="d.at[0] * k" :y="d.at[1] * k">{{ zh ? d.zh : d.en }}</text></template>
          <template v-for="d in base.roads" :key="d.id"><text v-if="d.at && k > 0.15" class="lb road" :x="d.at[0] * k" :y="d.at[1] * k">{{ zh ? d.zh : d.en }}</text></template>
        </g>
        <g v-for="m in marks" :key="m.key" class="mk" :class="[m.level || m.state, m.level ? 'alarm' : '', tip && tip.key === m.key ? 'sel' : '']" :transform="'translate(' + m.x.toFixed(1) + ' ' + m.y.toFixed(1) + ')'" tabindex="0" role="button" :aria-label="m.name" :data-device="m.count === 1 ? m.all[0].id : null" :data-level="m.level" @pointerdown.stop @click.stop="pick(m)" @keydown.enter.stop="pick(m)" @dblclick.stop>
          <circle v-if="m.level && m.waiting" class="p" :r="r(m)"/>
          <circle v-if="tip && tip.key === m.key" class="s" :r="r(m) + 5"/>
          <circle class="d" :r="r(m)"/>
          <text v-if="m.count > 1">{{ m.count }}</text><path v-else class="g" :d="glyph(m.cls)"/>
        </g>
      </g>
    </svg>
    <div class="cb-note">{{ words.note }}</div>
    <div class="cb-mapctl">
      <button :aria-label="words.zoomIn" :title="words.zoomIn" @click="zoom(1.6)"><svg class="i" viewBox="0 0 24 24"><path d="M12 5v14M5 12h14"/></svg></button>
      <button :aria-label="words.zoomOut" :title="words.zoomOut" @click="zoom(1 / 1.6)"><svg class="i" viewBox="0 0 24 24"><path d="M5 12h14"/></svg></button>
      <button :aria-label="words.home" :title="words.home" @click="fit(start)"><svg class="i" viewBox="0 0 24 24"><path d="M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"/></svg></button>
    </div>
    <div class="cb-legend" @pointerdown.stop @dblclick.stop>
      <span v-for="s in words.states" :key="s.key"><i :class="{ u: s.key === 'unknown', f: s.key === 'offline' }" :style="{ '--c': s.color }"></i>{{ s.label }}</span>
      <span v-for="c in classes" :key="c.key"><label style="display:inline-flex;gap:5px;align-items:center;cursor:pointer"><input type="checkbox" :checked="!hidden[c.key]" style="accent-color:var(--accent);margin:0" @change="toggle(c.key)">{{ c.label }}</label></span>
    </div>
    <div class="cb-scale">{{ scale.text }}<i :style="{ width: scale.px + 'px' }"></i></div>
    <div v-if="tip" class="cb-tip" :style="{ left: tip.left + 'px', top: tip.top + 'px' }" @pointerdown.stop @dblclick.stop @wheel.stop>
      <template v-if="tip.all.length === 1 && tip.count === 1">
        <b>{{ tip.all[0].name }}</b><span class="cb-sub">{{ tip.all[0].type }}</span>
        <div style="margin-top:6px;display:flex;gap:10px;align-items:center"><span class="cb-state" :class="tip.all[0].state">{{ tip.all[0].stateLabel }}</span><span v-if="tip.all[0].level" class="cb-level lv" :class="tip.all[0].level">{{ tip.all[0].levelLabel }} · {{ tip.all[0].alarms }}</span></div>
        <div class="cb-bar"><a class="cb-btn small primary" :href="href(tip.all[0].id)" data-open-device>{{ words.open }}</a></div>
      </template>
      <template v-else><b>{{ tip.name }}</b><ul><li v-for="p in tip.all" :key="p.id"><a v-if="p.id" :href="href(p.id)"><span class="cb-state" :class="p.state"></span><span>{{ p.name }}</span><span v-if="p.level" class="cb-level lv" :class="p.level" style="margin-left:auto">{{ p.levelLabel }}</span></a></li></ul></template>
    </div>
  </div>`,
};
