"""One device: what it said last and how old that is, its curves, its events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nicegui import ui

from cloud.console import chart, marks
from cloud.console.pages import orders
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable, FilterBar, Values
from cloud.query import alarms, events, fleet, readings
from cloud.query.rows import Alarm, DeviceDetail, Event, LastValue, Readings

_RANGES = {"1h": 1, "6h": 6, "24h": 24, "7d": 168}
_EVENTS = 40


@dataclass(frozen=True)
class _Data:
    detail: DeviceDetail | None
    open_alarms: list[Alarm]
    events: list[Event]
    curve: Readings | None
    span: tuple[datetime, datetime]


def build(tab: Tab, id: str = "") -> None:
    words = tab.words
    chosen: dict[str, Any] = {"series": None, "range": "1h"}
    with ui.element("div").classes("cb-page"):
        ui.html(f'<a class="cb-back" href="/devices">{marks.icon("back")}{words("devices.title")}</a>', sanitize=False)
        heading = ui.html("", sanitize=False).classes("cb-panel body").style("padding:14px 18px")
        orders_bar = ui.element("div").classes("cb-bar").style("justify-content:flex-start;flex-wrap:wrap")
        body = ui.element("div").classes("cb-stack")
        with body:
            values = Values()
            with ui.element("div").classes("cb-cols").style("grid-template-columns:minmax(0,2.1fr) minmax(330px,1fr)"):
                with ui.element("section").classes("cb-panel"):
                    with ui.element("header"):
                        title = ui.label("")
                        note = ui.html("", sanitize=False, tag="small")
                        ranges = FilterBar(
                            [
                                {
                                    "key": "range",
                                    "kind": "seg",
                                    "value": "1h",
                                    "options": [
                                        {"value": name, "label": words(f"device.range_{name}")} for name in _RANGES
                                    ],
                                }
                            ]
                        )
                    curve = ui.echart(chart.options(tab.dark, words)).classes("cb-chart")
                with ui.element("section").classes("cb-panel").style("display:flex;flex-direction:column"):
                    ui.html(marks.esc(words("device.events")), sanitize=False, tag="header")
                    log = DataTable(
                        [
                            {"key": "level", "label": "", "kind": "stripe", "width": "5px"},
                            {"key": "what", "label": words("alarms.what"), "kind": "two"},
                            {"key": "at", "label": words("alarms.onset"), "kind": "at", "align": "r"},
                        ],
                        empty=words("device.no_events"),
                    ).classes("cb-grow")
                    log.style("max-height:max(360px, calc(100vh - 400px))")
        missing = ui.html("", sanitize=False)
    values.put(values=[], selected=None, stale_word=words.state("stale"))
    drawn: dict[str, Any] = {"key": None}

    def offer(device_type: str) -> None:
        """Buttons of what the device can be told, once its type is known."""
        if drawn.get("type") == device_type or not tab.may("command.send"):
            return
        drawn["type"] = device_type
        orders_bar.clear()
        with orders_bar:
            offered = orders.offered(device_type)
            if offered:
                ui.label(tab.words("orders.give")).classes("cb-sub")
            for kind in offered:
                button = ui.element("button").classes("cb-btn small").props(f'data-order="{kind.name}"')
                with button:
                    ui.html(marks.esc(words.either(kind.zh, kind.en)), sanitize=False, tag="span")
                button.on("click", lambda kind=kind: orders.ask(tab, id, kind))

    async def load(_: Changes) -> _Data:
        now = datetime.now(UTC)
        span = (now - timedelta(hours=_RANGES[chosen["range"]]), now)
        async with tab.services.pool.connection() as conn:
            detail = await fleet.device(conn, id, now, sight=tab.sight)
            if detail is None:
                return _Data(None, [], [], None, span)
            open_alarms = (
                await alarms.alarms(conn, states=("raised", "acknowledged"), device_id=id, sight=tab.sight, limit=20)
            ).items
            happened = (await events.events(conn, device_id=id, sight=tab.sight, limit=_EVENTS)).items
            if chosen["series"] is None and detail.values:
                alarmed = {a.point for a in open_alarms}
                first = next((v for v in detail.values if v.point in alarmed), detail.values[0])
                chosen["series"] = first.series_id
            curve_data = None
            wanted = await readings.series(conn, chosen["series"]) if chosen["series"] is not None else None
            if wanted is not None and wanted.device_id == id:
                curve_data = await readings.readings(conn, wanted, *span, max_points=1600)
        return _Data(detail, open_alarms, happened, curve_data, span)

    def show(data: _Data) -> None:
        body.set_visibility(data.detail is not None)
        heading.set_visibility(data.detail is not None)
        if data.detail is None:
            missing.set_content(marks.empty("find", words("common.not_found", id=id), words("common.not_found_hint")))
            return
        heading.set_content(_heading(tab, data.detail, data.open_alarms))
        offer(data.detail.device.device_type)
        values.put(values=[_value(tab, v) for v in data.detail.values], selected=chosen["series"])
        values.set_visibility(bool(data.detail.values))
        log.put(rows=[_event(tab, e) for e in data.events], loading=False)
        if data.curve is None:
            title.set_text(words("device.no_series"))
            note.set_content(marks.esc(words("device.no_series_hint")))
            curve.set_visibility(False)
            ranges.set_visibility(False)
            return
        series = data.curve.series
        title.set_text(words.point(series.point))
        note.set_content(
            marks.esc(words("device.thinned" if data.curve.thinned else "device.plain", rows=f"{data.curve.rows:,}"))
        )
        key = (series.series_id, chosen["range"], data.curve.rows, data.curve.ts_ms[-1:], len(data.open_alarms))
        if key != drawn["key"]:
            drawn["key"] = key
            limits = [
                (a.level, float(a.values["limit"]))
                for a in data.open_alarms
                if a.point == series.point and isinstance(a.values.get("limit"), int | float)
            ]
            curve.options.clear()
            curve.options.update(chart.options(tab.dark, words, data.curve, data.span, limits))
            curve.update()

    async def pick(series_id: int) -> None:
        chosen["series"] = int(series_id)
        values.put(selected=chosen["series"])
        tab.reload()

    async def changed(picked: dict[str, str]) -> None:
        if picked.get("range") in _RANGES:
            chosen["range"] = picked["range"]
            tab.reload()

    values.listen("pick", pick)
    ranges.listen("change", changed)
    tab.set_view(load, show, every_s=3)


def _heading(tab: Tab, detail: DeviceDetail, open_alarms: list[Alarm]) -> str:
    words, device = tab.words, detail.device
    badges = "".join(
        f'<a href="/alarms?id={marks.esc(a.alarm_id)}">{marks.level(words, a.level)} '
        f"{marks.esc(words.event(a.type))} {marks.age(a.onset_at)}</a>"
        for a in open_alarms[:3]
    )
    detail_text = device.detail
    if device.state == "unknown":
        detail_text = words("device.not_heard" if device.seen_at is None else "device.gateway_down")
    place = f"{device.lon:.5f}, {device.lat:.5f}" if device.lon is not None and device.lat is not None else "–"
    facts = " · ".join(
        part
        for part in (
            f'<span class="cb-mono">{marks.esc(device.device_id)}</span>',
            marks.esc(words.device_type(device.device_type)),
            marks.esc(words.either(device.gateway_zh, device.gateway_en, device.gateway_id)),
            f'<span class="cb-mono">{place}</span>',
        )
        if part
    )
    return (
        '<div class="cb-cardhead"><div style="flex:1;min-width:0">'
        f"<h2>{marks.esc(words.either(device.name_zh, device.name_en, device.device_id))}</h2>"
        f'<div class="cb-sub">{facts}</div></div>'
        f'<div style="display:flex;gap:10px;flex-wrap:wrap;justify-content:flex-end">{badges}</div>'
        f'<div style="text-align:right">{marks.state(words, device.state)}'
        f'<div class="cb-sub">{marks.esc(words("devices.seen"))} {marks.age(device.seen_at)}'
        f"{' · ' + marks.esc(detail_text) if detail_text else ''}</div></div></div>"
    )


def _value(tab: Tab, value: LastValue) -> dict[str, Any]:
    words = tab.words
    return {
        "id": value.series_id,
        "label": words.point(value.point),
        "unit": words.unit(value.unit),
        "text": marks.reading(value.value, value.decimals),
        "at": marks.ms(value.ts),
        "stale": value.stale,
        "odd": value.quality not in (None, 0),
        "quality": words.quality(value.quality),
    }


def _event(tab: Tab, event: Event) -> dict[str, Any]:
    words = tab.words
    change = {"raise": "↑", "clear": "✓", "update": "↻"}.get(event.state, "")
    return {
        "id": event.event_id,
        "open": False,
        "cells": {
            "level": event.level,
            "what": [
                f"{change} {words.event(event.type)}".strip(),
                marks.values_text(words, event.values) or event.type,
            ],
            "at": marks.ms(event.ts),
        },
    }
