// Search, segments and selects over a list; tells the server the whole choice, the search a moment after typing stops.
export default {
  props: { fields: Array },
  emits: ["change"],
  data() { return { values: Object.fromEntries(this.fields.map((f) => [f.key, f.value ?? ""])) }; },
  methods: {
    set(key, value) { this.values[key] = value; clearTimeout(this.wait); this.$emit("change", { ...this.values }); },
    type(key, value) { this.values[key] = value; clearTimeout(this.wait); this.wait = setTimeout(() => this.$emit("change", { ...this.values }), 350); },
  },
  unmounted() { clearTimeout(this.wait); },
  template: `
  <div class="cb-filter">
    <template v-for="f in fields" :key="f.key">
      <label v-if="f.kind === 'search'" class="cb-search">
        <svg class="i" viewBox="0 0 24 24"><circle cx="11" cy="11" r="6.5"/><path d="m16 16 4.5 4.5"/></svg>
        <input type="search" :placeholder="f.placeholder" :aria-label="f.placeholder" :value="values[f.key]" @input="type(f.key, $event.target.value)">
      </label>
      <div v-else-if="f.kind === 'seg'" class="cb-seg" role="group">
        <button v-for="o in f.options" :key="o.value" :data-value="o.value" :class="{ on: values[f.key] === o.value }" :aria-pressed="values[f.key] === o.value" @click="set(f.key, o.value)">
          <i v-if="o.tone" class="lv" :class="o.tone"></i>{{ o.label }}<small v-if="o.count != null">{{ o.count }}</small>
        </button>
      </div>
      <select v-else :aria-label="f.placeholder" :value="values[f.key]" @change="set(f.key, $event.target.value)">
        <option value="">{{ f.placeholder }}</option>
        <option v-for="o in f.options" :key="o.value" :value="o.value">{{ o.label }}</option>
      </select>
    </template>
  </div>`,
};
