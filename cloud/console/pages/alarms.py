"""The alarm queue: what waits, on top what cannot wait; one alarm in detail beside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from nicegui import ui

from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable, FilterBar
from cloud.query import alarms
from cloud.query.cursor import Page
from cloud.query.rows import Alarm

_PAGE = 60
_LEVELS = ("red", "orange", "yellow", "blue")
_STATES = {"open": ("raised", "acknowledged"), "raised": ("raised",), "cleared": ("cleared",)}


@dataclass(frozen=True)
class _Data:
    page: Page[Alarm]
    chosen: Alarm | None


def build(tab: Tab, id: str = "", level: str = "") -> None:
    words = tab.words
    chosen = {"id": id, "level": level if level in _LEVELS else "", "state": "open"}
    size = {"limit": _PAGE}
    with ui.element("div").classes("cb-page").style("overflow:hidden"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("alarms.title"), words("alarms.hint")), sanitize=False)
            with ui.element("div").classes("right"):
                bar = FilterBar(
                    [
                        {
                            "key": "state",
                            "kind": "seg",
                            "value": "open",
                            "options": [
                                {"value": "open", "label": words("alarms.open")},
                                {"value": "raised", "label": words("alarm_state.raised")},
                                {"value": "cleared", "label": words("alarm_state.cleared")},
                            ],
                        },
                        {
                            "key": "level",
                            "kind": "seg",
                            "value": chosen["level"],
                            "options": [{"value": "", "label": words("common.all")}]
                            + [{"value": n, "label": words.level(n), "tone": n} for n in _LEVELS],
                        },
                    ]
                )
        with ui.element("div").classes("cb-split"):
            table = DataTable(
                [
                    {"key": "stripe", "label": "", "kind": "stripe", "width": "5px"},
                    {"key": "level", "label": words("alarms.level"), "kind": "level", "width": "76px"},
                    {"key": "what", "label": words("alarms.what"), "kind": "two"},
                    {"key": "where", "label": words("alarms.where"), "kind": "two"},
                    {"key": "onset", "label": words("alarms.onset"), "kind": "age", "width": "96px"},
                    {"key": "take", "label": words("alarms.take"), "kind": "due", "width": "104px"},
                    {"key": "acts", "label": "", "kind": "acts", "align": "r", "width": "84px"},
                ],
                empty=words("alarms.empty"),
                hint=words("alarms.empty_hint"),
            ).classes("cb-panel cb-scroll")
            side = ui.element("aside").classes("cb-panel cb-scroll")
    drawn: dict[str, Any] = {"alarm": "nothing"}

    async def load(_: Changes) -> _Data:
        async with tab.services.pool.connection() as conn:
            page = await alarms.alarms(
                conn,
                states=_STATES[chosen["state"]],
                levels=[chosen["level"]] if chosen["level"] else (),
                sight=tab.sight,
                limit=size["limit"],
            )
            if not chosen["id"] and page.items:
                chosen["id"] = page.items[0].alarm_id
            one = next((a for a in page.items if a.alarm_id == chosen["id"]), None)
            if one is None and chosen["id"]:
                one = await alarms.alarm(conn, chosen["id"], sight=tab.sight)
        return _Data(page, one)

    def show(data: _Data) -> None:
        table.put(
            rows=[_row(tab, a) for a in data.page.items],
            loading=False,
            selected=chosen["id"],
            more=words("common.more") if data.page.next_cursor else "",
        )
        if data.chosen != drawn["alarm"]:
            drawn["alarm"] = data.chosen
            side.clear()
            with side:
                _card(tab, data.chosen, take)

    async def open_alarm(alarm_id: str) -> None:
        chosen["id"] = alarm_id
        table.put(selected=alarm_id)
        tab.client.run_javascript(f"history.replaceState(history.state, '', '/alarms?id={quote(alarm_id, safe='')}')")
        tab.reload()

    async def changed(values: dict[str, str]) -> None:
        chosen["level"] = values.get("level", "") if values.get("level") in _LEVELS else ""
        chosen["state"] = values["state"] if values.get("state") in _STATES else "open"
        size["limit"] = _PAGE
        tab.reload()

    async def more(_: Any) -> None:
        size["limit"] = min(size["limit"] + _PAGE, 500)
        tab.reload()

    async def take(alarm_id: str) -> None:
        async def step(who: str) -> None:
            await tab.services.acts.acknowledge(alarm_id, who)

        async with tab.services.pool.connection() as conn:
            alarm = await alarms.alarm(conn, alarm_id, sight=tab.sight)
        what = words.event(alarm.type) if alarm else alarm_id
        await tab.act(
            step, words("alarms.acknowledged", what=what), action="alarm.acknowledge", thing=("alarm", alarm_id)
        )

    async def acted(args: dict[str, str]) -> None:
        if args.get("name") == "take":
            await take(args["id"])

    bar.listen("change", changed)
    table.listen("open", open_alarm)
    table.listen("more", more)
    table.listen("act", acted)
    tab.set_view(load, show, every_s=15)


def _row(tab: Tab, alarm: Alarm) -> dict[str, Any]:
    words = tab.words
    waits = alarm.state == "raised"
    acts = [{"name": "take", "label": words("alarms.acknowledge"), "tone": "primary"}]
    state = words(f"alarm_state.{alarm.state}")
    if alarm.acked_by and not waits:
        state = f"{state} · {alarm.acked_by}"
    return {
        "id": alarm.alarm_id,
        "level": alarm.level,
        "cells": {
            "stripe": alarm.level,
            "level": [alarm.level, words.level(alarm.level)],
            "what": [words.event(alarm.type), marks.values_text(words, alarm.values) or words.scenario(alarm.scenario)],
            "where": [words.either(alarm.device_zh, alarm.device_en, alarm.device_id), state],
            "onset": marks.ms(alarm.onset_at),
            "take": _take(tab, alarm),
            "acts": acts if waits and tab.may("alarm.acknowledge") else [],
        },
    }


def _take(tab: Tab, alarm: Alarm) -> dict[str, Any] | None:
    """The time in which an alarm of its level must be taken, running or as it went."""
    seconds = alarms.TAKE_S.get(alarm.level)
    if seconds is None:
        return None
    due: datetime = alarm.raised_at + timedelta(seconds=seconds)
    words = tab.words
    return {
        "start": marks.ms(alarm.raised_at),
        "due": marks.ms(due),
        "done": marks.ms(alarm.acked_at or alarm.cleared_at) if alarm.state != "raised" else None,
        "kept": words("alarms.kept"),
        "late": words("alarms.late"),
        "over": words("alarms.over"),
    }


def _card(tab: Tab, alarm: Alarm | None, take: Any) -> None:
    words = tab.words
    if alarm is None:
        ui.html(marks.empty("alarms", words("alarms.pick"), words("alarms.pick_hint")), sanitize=False).style(
            "height:100%"
        )
        return
    with ui.element("div").classes("body cb-stack").style("padding:16px"):
        drill = f' <span class="cb-chip drill">{words("alarms.drill")}</span>' if alarm.drill else ""
        ui.html(
            f'<div class="cb-bar" style="margin-bottom:8px">{marks.level(words, alarm.level)}'
            f"{marks.chip(words(f'alarm_state.{alarm.state}'))}{drill}</div>"
            f'<div class="cb-cardhead"><h2>{marks.esc(words.event(alarm.type))}</h2></div>'
            f'<div class="cb-sub">{marks.esc(words.either(alarm.device_zh, alarm.device_en, alarm.device_id))} · '
            f"{marks.esc(words.scenario(alarm.scenario))}</div>",
            sanitize=False,
        )
        measured = _measured(tab, alarm)
        if measured:
            ui.html(measured, sanitize=False)
        address = marks.still(alarm)
        if address:
            ui.html(
                f'<figure style="margin:0"><img class="cb-still" src="{marks.esc(address)}" alt="" loading="lazy">'
                f'<figcaption class="cb-sub" style="margin-top:4px">{words("alarms.still")}</figcaption></figure>',
                sanitize=False,
            )
        with ui.element("div").classes("cb-bar"):
            if alarm.state == "raised" and tab.may("alarm.acknowledge"):

                async def take_it() -> None:
                    await take(alarm.alarm_id)

                with ui.element("button").classes("cb-btn primary").props('data-take="1"').on("click", take_it):
                    ui.html(words("alarms.acknowledge"), sanitize=False, tag="span")
            device = f"/device?id={quote(alarm.device_id, safe='')}"
            links = f'<a class="cb-btn" href="{device}">{words("alarms.open_device")}</a>'
            if alarm.case_id is not None:
                links = (
                    f'<a class="cb-btn" data-open-case href="/cases?id={alarm.case_id}">{words("alarms.open_case")}</a>'
                    + links
                )
            ui.html(links, sanitize=False).classes("cb-bar")
        ui.html(marks.kv(_facts(tab, alarm)), sanitize=False)


def _measured(tab: Tab, alarm: Alarm) -> str:
    words, values = tab.words, alarm.values
    x, limit = values.get("x"), values.get("limit")
    if not isinstance(x, int | float):
        text = marks.values_text(words, values)
        return f'<div class="cb-big" style="font-size:18px">{marks.esc(text)}</div>' if text else ""
    unit = words.unit(str(values.get("unit", "")))
    label = words.point(str(values.get("q", alarm.point)))
    out = f'<div class="cb-sub">{marks.esc(label)}</div><div class="cb-big">{x:g}<small>{marks.esc(unit)}</small></div>'
    if isinstance(limit, int | float) and limit > 0:
        top = max(x, limit) * 1.15
        out += (
            f'<div class="cb-meter lv {marks.esc(alarm.level)}"><i style="width:{min(100.0, x / top * 100):.1f}%"></i>'
            f'<u style="left:{limit / top * 100:.1f}%"></u></div>'
            f'<div class="cb-sub" style="margin-top:4px">{words("alarms.limit")} {limit:g} {marks.esc(unit)}</div>'
        )
    return out


def _facts(tab: Tab, alarm: Alarm) -> list[tuple[str, str]]:
    words = tab.words
    facts = [
        (words("alarms.onset_at"), marks.at(alarm.onset_at)),
        (words("alarms.raised_at"), marks.at(alarm.raised_at)),
    ]
    if alarm.acked_by:
        facts.append((words("alarms.taken_by"), f"{marks.esc(alarm.acked_by)} · {marks.at(alarm.acked_at)}"))
    if alarm.cleared_at:
        facts.append((words("alarms.cleared_at"), marks.at(alarm.cleared_at)))
    if alarm.case_number:
        facts.append((words("alarms.case"), f'<span class="cb-mono">{marks.esc(alarm.case_number)}</span>'))
    if alarm.peak_level != alarm.level:
        facts.append((words("alarms.peak"), marks.level(words, alarm.peak_level)))
    if alarm.repeats:
        facts.append((words("alarms.repeats"), str(alarm.repeats)))
    facts.append((words("device.id"), f'<span class="cb-mono">{marks.esc(alarm.device_id)}</span>'))
    return facts
