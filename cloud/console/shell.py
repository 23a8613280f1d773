"""The frame around every view: strip on top, rail on the left, the view in between, and the sound of an alarm."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
from nicegui import ui

from cloud.console import marks, prefs
from cloud.console.banner import Banner
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import Ask, NavRail, TopBar
from cloud.console.words import compact, number
from cloud.query import alarms
from cloud.query.rows import Summary
from cloud.query.summary import summary as read_summary
from protocols.core.errors import StoreError

LEVELS = ("red", "orange", "yellow", "blue")
_RING_AGAIN_S = 12.0  # while a red alarm waits
_NEWS_S = 90.0  # an alarm older than this does not ring any more when it is heard of


class Shell:
    def __init__(self, tab: Tab, builders: dict[str, Callable[..., Any]]) -> None:
        self._tab = tab
        self._seen_summary = -1
        self._seen_live: bool | None = None
        self._summary: Summary | None = None
        self._rung: set[str] = set()
        self._rang_s = 0.0
        words = tab.words
        with ui.element("div").classes("cb-frame"):
            with ui.element("header").classes("cb-topslot"):
                self._top = TopBar()
            self._rail = NavRail()
            with ui.element("main").classes("cb-main").style("display:flex;flex-direction:column"):
                self._banner = Banner(tab)
                tab.error_box = ui.label("").classes("cb-err").style("margin:12px 20px 0").props('role="alert"')
                tab.error_box.set_visibility(False)
                with ui.element("div").style("flex:1;min-height:0"):
                    _Views(builders, tab)
        tab.ask_box = Ask(words("common.cancel"), words("common.confirm"), words("common.missing_reason"))
        tab.ask_box.listen("answer", tab.answered)
        self._top.put(
            brand={"name": words("top.brand"), "city": self._city()},
            words={
                "open": words("top.open_alarms"),
                "waiting": words("top.waiting"),
                "mute": words("top.mute"),
                "unmute": words("top.unmute"),
                "theme": words("top.theme"),
                "lang": words("top.lang"),
                "langShort": words("top.lang_short"),
                "operators": words("nav.operators"),
                "security": words("top.security"),
                "password": words("top.password"),
                "logout": words("top.logout"),
            },
            operator={
                "name": tab.operator.name,
                "role": words(f"role.{tab.operator.role}"),
                "admin": tab.may("operator.manage"),
            },
            muted=tab.prefs.muted,
        )
        self._show_summary(tab.services.hub.summary if tab.sight.everything else None)
        self._top.listen("theme", self._theme)
        self._top.listen("lang", self._language)
        self._top.listen("mute", self._mute)
        self._top.listen("logout", self._logout)
        self._top.listen("password", self._password)
        self._navigate(tab.client.sub_pages_router.current_path)
        tab.client.sub_pages_router.on_path_changed(self._navigate)
        ui.timer(1.0, self._tick)

    def _city(self) -> str:
        settings = self._tab.services.settings
        return self._tab.words.either(settings.city_zh, settings.city_en)

    def _navigate(self, path: str) -> None:
        first = path.partition("?")[0].strip("/").partition("/")[0]
        self._active = {"": "map", "device": "devices"}.get(first, first)
        self._rail.put(active=self._active)

    async def _tick(self) -> None:
        hub = self._tab.services.hub
        if hub.summary_no != self._seen_summary or hub.connected != self._seen_live:
            self._seen_summary, self._seen_live = hub.summary_no, hub.connected
            self._summary = await self._own_summary()
            self._show_summary(self._summary)
            await self._banner.look()
        changes = await self._tab.tick()
        await self._listen(changes, self._summary)

    async def _own_summary(self) -> Summary | None:
        """The city's figures, or those of the places this operator may see."""
        seen = self._tab.sight
        if seen.everything:
            return self._tab.services.hub.summary
        try:
            async with self._tab.services.pool.connection() as conn:
                return await read_summary(conn, datetime.now(UTC), sight=seen)
        except (StoreError, psycopg.Error):
            return None  # the view says that the database is away

    async def _listen(self, changes: Changes, summary: Summary | None) -> None:
        """Ring for what is new; ring on while a red alarm waits."""
        new = {c.id for c in changes or [] if c.kind == "alarm"} - self._rung
        worst = ""
        if new:
            try:
                async with self._tab.services.pool.connection() as conn:
                    for alarm_id in sorted(new)[:40]:
                        alarm = await alarms.alarm(conn, alarm_id, sight=self._tab.sight)
                        if alarm is None or alarm.state != "raised" or alarm.level not in LEVELS:
                            continue
                        self._rung.add(alarm_id)
                        fresh = time.time() - alarm.raised_at.timestamp() < _NEWS_S
                        if fresh and (not worst or LEVELS.index(alarm.level) < LEVELS.index(worst)):
                            worst = alarm.level
            except (StoreError, psycopg.Error):
                return  # the view says that the database is away
        red_waits = summary is not None and summary.waiting_by_level.get("red", 0) > 0
        if not worst and red_waits and time.monotonic() - self._rang_s > _RING_AGAIN_S:
            worst = "red"
        if worst:
            self._rang_s = time.monotonic()
            self._top.run_method("ring", worst)

    def _show_summary(self, summary: Summary | None) -> None:
        words, hub = self._tab.words, self._tab.services.hub
        opened = summary.open_by_level if summary else {}
        waiting = summary.waiting_by_level if summary else {}
        self._top.put(
            levels=[
                {
                    "level": name,
                    "label": words.level(name),
                    "open": opened.get(name, 0),
                    "waiting": waiting.get(name, 0),
                    "title": words(
                        "top.level_title",
                        level=words.level(name),
                        open=opened.get(name, 0),
                        waiting=waiting.get(name, 0),
                    ),
                }
                for name in LEVELS
            ],
            live={"ok": hub.connected, "label": words("top.live" if hub.connected else "top.live_down")},
            facts=self._facts(summary),
            safe=self._safe(summary),
        )
        cases = summary.open_cases if summary else 0
        pressing = waiting.get("red", 0) + waiting.get("orange", 0)
        self._rail.put(
            items=[
                self._item("map", "/"),
                self._item("alarms", "/alarms", sum(waiting.values()), calm=not pressing),
                self._item("cases", "/cases", cases, calm=not (summary and summary.overdue_cases)),
                self._item("devices", "/devices"),
                self._item("gateways", "/gateways"),
                *([self._item("identity", "/identity")] if self._tab.may("gateway.enrol") else []),
                *([self._item("ledger", "/ledger")] if self._tab.may("ledger.read") else []),
                *([self._item("orders", "/orders")] if self._tab.may("command.send") else []),
                *([self._item("fleet", "/fleet")] if self._tab.may("fleet.bulk") else []),
                *([self._item("rollouts", "/rollouts")] if self._tab.may("update.manage") else []),
                *([self._item("audit", "/audit")] if self._tab.may("audit.read") else []),
            ]
        )  # fmt: skip

    def _item(self, key: str, href: str, count: int = 0, *, calm: bool = True) -> dict[str, Any]:
        return {
            "key": key,
            "href": href,
            "label": self._tab.words(f"nav.{key}"),
            "icon": marks.ICONS[key],
            "count": count,
            "calm": calm,
        }

    def _facts(self, summary: Summary | None) -> list[dict[str, Any]]:
        words = self._tab.words
        if summary is None:
            return []
        devices = sum(summary.devices_by_state.values())
        online = summary.devices_by_state.get("online", 0)
        overdue = summary.overdue_cases
        return [
            {"label": words("top.devices"), "value": f"{number(online)} / {number(devices)}", "tone": ""},
            {
                "label": words("top.gateways"),
                "value": f"{summary.gateways_online} / {summary.gateways}",
                "tone": "bad" if summary.gateways_online < summary.gateways else "",
                "optional": True,
            },
            {"label": words("top.cases"), "value": number(summary.open_cases), "tone": "", "optional": True},
            {"label": words("top.overdue"), "value": number(overdue), "tone": "bad" if overdue else "dim"},
        ]

    def _safe(self, summary: Summary | None) -> dict[str, str]:
        words = self._tab.words
        if summary is None or summary.committed_at is None:
            return {"tone": "none", "head": words("top.none_head"), "line": words("top.none_line"), "title": ""}
        readings = compact(summary.readings, words.zh)
        title = words(
            "top.safe_title",
            repeats=number(summary.repeats),
            thinned=number(summary.thinned),
            dead=number(summary.dead_letters),
        )
        if summary.lost:
            head, line = words("top.lost_head", lost=summary.lost), words("top.lost_line", readings=readings)
            return {"tone": "bad", "head": head, "line": line, "title": title}
        head, line = words("top.safe_head"), words("top.safe_line", readings=readings)
        return {"tone": "", "head": head, "line": line, "title": title}

    async def _theme(self, _: Any) -> None:
        tab = self._tab
        tab.prefs = msgspec.structs.replace(tab.prefs, theme="light" if tab.dark else "dark")
        await prefs.save(tab.services.pool, tab.operator.name, tab.prefs)
        tab.client.run_javascript("location.reload()")  # charts take their colours when they are made

    async def _language(self, _: Any) -> None:
        tab = self._tab
        await tab.services.accounts.set_language(tab.operator.name, "en" if tab.words.zh else "zh-CN")
        tab.client.run_javascript("location.reload()")

    async def _mute(self, _: Any) -> None:
        tab = self._tab
        tab.prefs = msgspec.structs.replace(tab.prefs, muted=not tab.prefs.muted)
        await prefs.save(tab.services.pool, tab.operator.name, tab.prefs)
        self._top.put(muted=tab.prefs.muted)

    async def _logout(self, _: Any) -> None:
        await self._tab.services.accounts.logout(self._tab.token)
        out = "/login/sso/out" if self._tab.operator.sso else "/login"
        self._tab.client.run_javascript(f"location.href = '{out}'")

    async def _password(self, _: Any) -> None:
        self._tab.client.run_javascript("location.href = '/password'")


class _Views(ui.sub_pages):  # type: ignore[misc]
    """The view the address names; what goes wrong in it is said in our own words."""

    def __init__(self, builders: dict[str, Callable[..., Any]], tab: Tab) -> None:
        self._tab = tab
        super().__init__(builders, data={"tab": tab})

    def _render_404(self) -> None:
        self._tab.no_view()
        words = self._tab.words
        with ui.element("div").classes("cb-page"):
            title = words("common.not_found", id=self._router.current_path)
            ui.html(marks.empty("find", title, words("common.not_found_hint")), sanitize=False)

    def _render_error(self, error: Exception) -> None:
        self._tab.no_view()
        with ui.element("div").classes("cb-page"):
            ui.label(self._tab.words("common.failed", error=type(error).__name__)).classes("cb-err")
