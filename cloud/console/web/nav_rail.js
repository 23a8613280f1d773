export default {
  props: { items: Array, active: String },
  // On a telephone the rail lies at the bottom and is longer than the screen: the open view's item is brought into it.
  mounted() { this.bring(); },
  updated() { this.bring(); },
  methods: { bring() { requestAnimationFrame(() => this.$el.querySelector("a.on")?.scrollIntoView({ block: "nearest", inline: "nearest" })); } },
  template: `
  <nav class="cb-rail">
    <a v-for="i in items" :key="i.href" :href="i.href" :class="[{ on: i.key === active }, i.end ? 'end' : '']" :data-nav="i.key" :aria-current="i.key === active ? 'page' : null">
      <svg class="i" viewBox="0 0 24 24"><path :d="i.icon"/></svg><span>{{ i.label }}</span>
      <span v-if="i.count" class="n" :class="{ calm: i.calm }">{{ i.count > 99 ? '99+' : i.count }}</span>
    </a>
  </nav>`,
};
