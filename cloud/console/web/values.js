// Last values of a device: each with its age, and its quality where that is not good.
export default {
  props: { values: Array, selected: Number, staleWord: String },
  emits: ["pick"],
  data: () => ({ t: 0 }),
  mounted() { this.off = window.cb.onTick(() => { this.t++; }); },
  unmounted() { this.off(); },
  methods: { age(v) { this.t; return window.cb.age(v); } },
  template: `
  <div class="cb-values">
    <button v-for="v in values" :key="v.id" class="cb-value" :data-series="v.id" :class="{ on: v.id === selected, stale: v.stale && v.at, odd: v.odd, none: v.text === '–' }" @click="$emit('pick', v.id)">
      <small><span>{{ v.label }}</span></small>
      <div><strong>{{ v.text }}</strong><span>{{ v.unit }}</span></div>
      <small><span :class="{ q: v.stale && v.at }"><template v-if="v.stale && v.at">{{ staleWord }} · </template>{{ age(v.at) }}</span><span v-if="v.odd" class="q">{{ v.quality }}</span></small>
    </button>
  </div>`,
};
