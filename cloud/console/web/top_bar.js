// The strip on top: open alarms by level, what runs, whether anything is missing. Also the ear: it rings.
export default {
  props: { brand: Object, levels: Array, facts: Array, safe: Object, live: Object, words: Object, muted: Boolean, operator: Object },
  emits: ["theme", "lang", "mute", "logout", "password"],
  data: () => ({ menu: false, blocked: false }),
  mounted() {
    this.away = (e) => { if (this.menu && !this.$el.contains(e.target)) this.menu = false; };
    document.addEventListener("click", this.away);
    // Browsers keep sound off until somebody has touched the page once.
    this.wake = () => { if (this.audio && this.audio.state === "suspended") this.audio.resume(); this.blocked = false; };
    document.addEventListener("pointerdown", this.wake);
    document.addEventListener("keydown", this.wake);
  },
  unmounted() { document.removeEventListener("click", this.away); document.removeEventListener("pointerdown", this.wake); document.removeEventListener("keydown", this.wake); },
  methods: {
    // Two-tone for red, falling pair for orange, one soft note below: to be told apart without looking.
    ring(level) {
      document.documentElement.dataset.rang = level;
      if (this.muted) return;
      try {
        this.audio = this.audio || new AudioContext();
        if (this.audio.state === "suspended") { this.blocked = true; this.audio.resume(); }
        const tunes = { red: [[880, 0], [660, 0.22], [880, 0.44], [660, 0.66], [880, 0.88], [660, 1.1]], orange: [[740, 0], [554, 0.26], [740, 0.7], [554, 0.96]], yellow: [[587, 0], [740, 0.2]], blue: [[523, 0]] };
        const base = this.audio.currentTime + 0.03, gain = { red: 0.28, orange: 0.2, yellow: 0.12, blue: 0.07 }[level] || 0.07;
        for (const [hz, after] of tunes[level] || tunes.blue) {
          const osc = this.audio.createOscillator(), amp = this.audio.createGain();
          osc.type = level === "red" ? "square" : "sine";
          osc.frequency.value = hz;
          amp.gain.setValueAtTime(0, base + after);
          amp.gain.linearRampToValueAtTime(level === "red" ? gain * 0.5 : gain, base + after + 0.02);
          amp.gain.exponentialRampToValueAtTime(0.0001, base + after + 0.2);
          osc.connect(amp).connect(this.audio.destination);
          osc.start(base + after);
          osc.stop(base + after + 0.22);
        }
      } catch (error) { console.warn("no sound", error); }
    },
  },
  template: `
  <div class="cb-top">
    <a class="cb-brand" href="/">
      <svg class="mark" viewBox="0 0 40 40" fill="none" aria-hidden="true"><rect x="1" y="1" width="38" height="38" rx="10" fill="#12332f"/><path d="M6 27c4-3 8-3 11 0s7 3 11 0 4-2 6-2" stroke="#52c7b3" stroke-width="2.2" stroke-linecap="round"/><path d="M9 21V12l5-3v12M17 21V7l6 4v10M26 21v-8h5v8" stroke="#d9e5e4" stroke-width="2" stroke-linejoin="round"/></svg>
      <span><b>{{ brand.name }}</b><small>{{ brand.city }}</small></span>
    </a>
    <div class="cb-levels" role="group" :aria-label="words.open">
      <a v-for="l in levels" :key="l.level" class="cb-lv" :class="[l.level, l.open ? 'has' : '', l.waiting ? 'wait' : '']" :href="'/alarms?level=' + l.level" :title="l.title" :data-level="l.level">
        <i></i><span>{{ l.label }}</span><b>{{ l.open }}</b><em v-if="l.waiting">{{ l.waiting }} {{ words.waiting }}</em>
      </a>
    </div>
    <div class="cb-facts">
      <div v-for="f in facts" :key="f.label" class="cb-fact" :class="{ opt: f.optional }"><small>{{ f.label }}</small><b :class="f.tone">{{ f.value }}</b></div>
    </div>
    <a class="cb-tools" style="margin-left:auto" href="/gateways" :title="safe.title">
      <span class="cb-safe" :class="safe.tone" data-safe><svg class="i" viewBox="0 0 24 24"><path d="M12 3 5 6v5c0 4.5 3 8 7 10 4-2 7-5.5 7-10V6z"/><path v-if="safe.tone !== 'bad'" d="m9 12 2.2 2.2L15.5 10"/><path v-else d="M12 8v5m0 3v.01"/></svg>
      <div><b>{{ safe.head }}</b><small>{{ safe.line }}</small></div></span>
    </a>
    <div class="cb-tools" style="margin-left:0">
      <div class="cb-live" :class="{ down: !live.ok }" :title="live.label"><i></i><span>{{ live.label }}</span></div>
      <button class="cb-tool" data-tool="mute" :class="{ on: muted || blocked }" :title="muted ? words.unmute : words.mute" :aria-label="muted ? words.unmute : words.mute" @click="$emit('mute')">
        <svg class="i" viewBox="0 0 24 24"><path d="M5 9.500v5h3.500l4.5 4v-13l-4.5 4z"/><path v-if="muted" d="m16.5 9.5 5 5m0-5-5 5"/><path v-else d="M16.5 9a4.2 4.2 0 0 1 0 6M19 6.500a8 8 0 0 1 0 11"/></svg>
      </button>
      <button class="cb-tool" data-tool="theme" :title="words.theme" :aria-label="words.theme" @click="$emit('theme')">
        <svg class="i" viewBox="0 0 24 24"><path d="M20 14.500A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.500z"/></svg>
      </button>
      <button class="cb-tool" data-tool="lang" :title="words.lang" @click="$emit('lang')">{{ words.langShort }}</button>
      <button class="cb-tool" data-tool="user" :aria-expanded="menu" @click="menu = !menu">
        <svg class="i" viewBox="0 0 24 24"><circle cx="12" cy="8.5" r="3.7"/><path d="M4.5 20c1.2-3.8 4-5.5 7.5-5.500s6.3 1.7 7.5 5.5"/></svg>
      </button>
    </div>
    <div v-if="menu" class="cb-menu">
      <header><b>{{ operator.name }}</b><small>{{ operator.role }}</small></header>
      <a v-if="operator.admin" href="/operators" @click="menu = false">{{ words.operators }}</a>
      <a href="/security" data-tool="security" @click="menu = false">{{ words.security }}</a>
      <button data-tool="password" @click="$emit('password')">{{ words.password }}</button>
      <button data-tool="logout" @click="$emit('logout')">{{ words.logout }}</button>
    </div>
  </div>`,
};
