// Shared by the console's components: the server's clock, one tick a second, how ages and durations are said.
(() => {
  const doc = document.documentElement.dataset;
  const listeners = new Set();
  const cb = {
    offset: 0, // server minus this computer, ms: a wrong clock on the desk must not make data look fresh
    now: () => Date.now() + cb.offset,
    zh: () => doc.lang !== "en",
    onTick(f) { listeners.add(f); return () => listeners.delete(f); },
    pad: (n) => String(n).padStart(2, "0"),
    // 3 s, 4 min 10 s, 2 h 05 min, 3 d 4 h
    dur(ms) {
      const zh = cb.zh(), s = Math.max(0, Math.floor(Math.abs(ms) / 1000));
      const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60, r = s % 60;
      if (d) return zh ? `${d} 天 ${h} 小时` : `${d} d ${h} h`;
      if (h) return zh ? `${h} 小时 ${cb.pad(m)} 分` : `${h} h ${cb.pad(m)} min`;
      if (m) return zh ? `${m} 分 ${cb.pad(r)} 秒` : `${m} min ${cb.pad(r)} s`;
      return zh ? `${r} 秒` : `${r} s`;
    },
    // A countdown that must not change its width: 23:59:08, 04:10
    clock(ms) {
      const s = Math.max(0, Math.floor(Math.abs(ms) / 1000));
      const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
      if (h >= 72) return cb.dur(ms);
      return h ? `${h}:${cb.pad(m)}:${cb.pad(s % 60)}` : `${cb.pad(m)}:${cb.pad(s % 60)}`;
    },
    age(ms) {
      if (ms == null) return cb.zh() ? "从未" : "never";
      return cb.zh() ? `${cb.short(cb.now() - ms)}前` : `${cb.short(cb.now() - ms)} ago`;
    },
    short(ms) {
      const zh = cb.zh(), s = Math.max(0, Math.floor(ms / 1000));
      if (s < 60) return zh ? `${s} 秒` : `${s} s`;
      if (s < 3600) return zh ? `${Math.floor(s / 60)} 分钟` : `${Math.floor(s / 60)} min`;
      if (s < 86400) return zh ? `${Math.floor(s / 3600)} 小时` : `${Math.floor(s / 3600)} h`;
      return zh ? `${Math.floor(s / 86400)} 天` : `${Math.floor(s / 86400)} d`;
    },
    date(ms) {
      const t = new Date(ms), p = cb.pad;
      return `${t.getFullYear()}-${p(t.getMonth() + 1)}-${p(t.getDate())} ${p(t.getHours())}:${p(t.getMinutes())}:${p(t.getSeconds())}`;
    },
    time(ms) {
      const t = new Date(ms), n = new Date(cb.now()), p = cb.pad;
      const clock = `${p(t.getHours())}:${p(t.getMinutes())}:${p(t.getSeconds())}`;
      return t.toDateString() === n.toDateString() ? clock : `${p(t.getMonth() + 1)}-${p(t.getDate())} ${clock}`;
    },
    // How far a deadline is used up: 0 to 1 and beyond.
    share: (start, due, at) => (due > start ? (at - start) / (due - start) : at >= due ? 1 : 0),
    step: (share) => (share >= 1 ? "t100" : share >= 0.8 ? "t80" : share >= 0.5 ? "t50" : ""),
    toast(text, bad) {
      let box = document.querySelector(".cb-toast");
      if (!box) { box = document.createElement("div"); box.className = "cb-toast"; box.setAttribute("role", "status"); document.body.append(box); }
      const line = document.createElement("div");
      line.textContent = text;
      if (bad) line.className = "bad";
      box.append(line);
      setTimeout(() => line.remove(), bad ? 9000 : 4500);
    },
    setTheme(theme) { doc.theme = theme; },
  };
  // Texts that only count: <time data-age="ms"> stays right without the server.
  function tick() {
    document.querySelectorAll("[data-age]").forEach((e) => { e.textContent = cb.age(e.dataset.age === "" ? null : +e.dataset.age); });
    document.querySelectorAll("[data-at]").forEach((e) => { const t = cb.time(+e.dataset.at); if (e.textContent !== t) { e.textContent = t; e.title = cb.date(+e.dataset.at); } });
    listeners.forEach((f) => f());
  }
  setInterval(tick, 1000);
  new MutationObserver((list) => { if (list.some((m) => m.addedNodes.length)) tick0(); }).observe(document.documentElement, { childList: true, subtree: true });
  let queued = false;
  function tick0() {
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => { queued = false; document.querySelectorAll("[data-age],[data-at]").forEach((e) => { if (!e.textContent) e.textContent = e.dataset.at ? cb.time(+e.dataset.at) : cb.age(e.dataset.age === "" ? null : +e.dataset.age); }); });
  }
  window.cb = cb;
})();
