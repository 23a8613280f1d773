"""Gateways: is it there, what waits on it, what came, and the proof that nothing is missing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from cloud.console import marks
from cloud.console.pages.twin_panel import TwinPanel, Twins
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable
from cloud.console.words import number
from cloud.query import events, fleet
from cloud.query.cursor import Page
from cloud.query.rows import DeadLetter, Gateway, GatewayDetail, Lane

_PAGE = 60


@dataclass(frozen=True)
class _Data:
    page: Page[Gateway]
    chosen: GatewayDetail | None
    dead: list[DeadLetter]
    twins: Twins | None


def build(tab: Tab, id: str = "") -> None:
    words = tab.words
    wanted = {"id": id, "look": "yes" if id else ""}
    with ui.element("div").classes("cb-page"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("gateways.title"), words("gateways.hint")), sanitize=False)
        cards = ui.element("div").classes("cb-gws")
        with ui.element("div").classes("cb-stack") as below:
            with ui.element("section").classes("cb-panel"):
                lane_head = ui.html("", sanitize=False, tag="header")
                lanes = DataTable(
                    [
                        {"key": "lane", "label": words("gateways.lane"), "kind": "two"},
                        {"key": "seq", "label": words("gateways.seq"), "align": "r"},
                        {"key": "batches", "label": words("gateways.batches"), "align": "r"},
                        {"key": "readings", "label": words("gateways.readings"), "align": "r"},
                        {"key": "events", "label": words("gateways.events"), "align": "r"},
                        {"key": "bytes", "label": words("gateways.bytes"), "align": "r"},
                        {"key": "repeats", "label": words("gateways.repeats"), "align": "r"},
                        {"key": "thinned", "label": words("gateways.thinned"), "kind": "num", "align": "r"},
                        {"key": "dead", "label": words("gateways.dead"), "kind": "num", "align": "r"},
                        {"key": "lost", "label": words("gateways.lost"), "kind": "num", "align": "r"},
                        {"key": "updated", "label": words("gateways.updated"), "kind": "age", "align": "r"},
                    ],
                    empty=words("gateways.empty"),
                )
            with ui.element("div").classes("cb-cols").style("grid-template-columns:minmax(300px,1fr) minmax(0,2fr)"):
                with ui.element("section").classes("cb-panel"):
                    ui.html(marks.esc(words("gateways.heartbeat")), sanitize=False, tag="header")
                    health = ui.html("", sanitize=False).classes("body")
                with ui.element("section").classes("cb-panel"):
                    ui.html(marks.esc(words("gateways.dead")), sanitize=False, tag="header")
                    dead = DataTable(
                        [
                            {"key": "at", "label": words("gateways.received"), "kind": "at"},
                            {"key": "lane", "label": words("gateways.lane"), "kind": "two"},
                            {"key": "reason", "label": words("gateways.reason"), "kind": "two"},
                            {"key": "size", "label": words("gateways.size"), "align": "r"},
                        ],
                        empty=words("gateways.no_dead"),
                        hint=words("gateways.no_dead_hint"),
                    )
            twin_panel = TwinPanel(tab)
    below.set_visibility(False)
    drawn: dict[str, Any] = {"cards": None}

    async def load(_: Changes) -> _Data:
        now = datetime.now(UTC)
        async with tab.services.pool.connection() as conn:
            page = await fleet.gateways(conn, now, sight=tab.sight, limit=_PAGE)
            if not wanted["id"] and page.items:
                wanted["id"] = page.items[0].gateway_id
            chosen = await fleet.gateway(conn, wanted["id"], now, sight=tab.sight) if wanted["id"] else None
            letters = (await events.dead_letters(conn, gateway_id=wanted["id"], limit=50)).items if chosen else []
        twins = await twin_panel.load(wanted["id"]) if chosen and tab.may("twin.read") else None
        return _Data(page, chosen, letters, twins)

    def show(data: _Data) -> None:
        key = [(g, g.gateway_id == wanted["id"]) for g in data.page.items]
        if key != drawn["cards"]:
            drawn["cards"] = key
            cards.clear()
            with cards:
                for gateway in data.page.items:
                    _card(tab, gateway, gateway.gateway_id == wanted["id"], choose)
                if not data.page.items:
                    ui.html(
                        marks.empty("gateways", words("gateways.empty"), words("gateways.empty_hint")), sanitize=False
                    )
        below.set_visibility(data.chosen is not None)
        if data.chosen is None:
            return
        gateway = data.chosen.gateway
        name = words.either(gateway.name_zh, gateway.name_en, gateway.gateway_id)
        lane_head.set_content(f"{marks.esc(words('gateways.lanes'))}<small>{marks.esc(name)}</small>")
        lanes.put(rows=[_lane(tab, lane) for lane in data.chosen.lanes], loading=False)
        dead.put(rows=[_dead(tab, letter) for letter in data.dead], loading=False)
        health.set_content(marks.kv(_health(tab, data.chosen)))
        if data.twins is not None:
            twin_panel.show(data.twins)
        if wanted["look"]:  # below many gateways, it would be opened out of sight
            wanted["look"] = ""
            tab.bring(below)

    async def choose(gateway_id: str) -> None:
        wanted["id"], wanted["look"] = gateway_id, "yes"
        tab.reload()

    tab.set_view(load, show, every_s=5)


def _card(tab: Tab, gateway: Gateway, selected: bool, choose: Any) -> None:
    words = tab.words
    depth = fleet.outbox_depth(gateway.health)
    lost = f'<b class="{"bad" if gateway.lost else "good"}">{gateway.lost}</b>'
    thinned = f'<b class="{"warn" if gateway.thinned else ""}">{number(gateway.thinned)}</b>'
    waiting = f'<b class="{"warn" if depth and depth > 100 else ""}">{number(depth)}</b>'
    card = ui.element("div").classes("cb-panel cb-gw" + (" sel" if selected else ""))
    card.props(f'tabindex="0" role="button" data-gateway="{gateway.gateway_id}"')
    gateway_id = gateway.gateway_id

    async def clicked() -> None:
        await choose(gateway_id)

    card.on("click", clicked)
    card.on("keydown.enter", clicked)
    with card:
        ui.html(
            f'<div class="h"><div><h3>{marks.esc(words.either(gateway.name_zh, gateway.name_en, gateway_id))}</h3>'
            f'<div class="cb-sub"><span class="cb-mono">{marks.esc(gateway_id)}</span> · {gateway.devices} '
            f"{words('map.devices')}</div></div>{marks.state(words, gateway.state)}</div>"
            f'<div class="cb-figs"><div class="cb-fig"><small>{words("gateways.lost")}</small>{lost}</div>'
            f'<div class="cb-fig"><small>{words("gateways.outbox")}</small>{waiting}</div>'
            f'<div class="cb-fig"><small>{words("gateways.thinned")}</small>{thinned}</div>'
            f'<div class="cb-fig"><small>{words("gateways.repeats")}</small><b>{number(gateway.repeats)}</b></div>'
            f'</div><div class="cb-sub" style="display:flex;justify-content:space-between">'
            f"<span>{words('gateways.readings')} "
            f"{number(gateway.readings)}</span><span>{words('gateways.last_commit')} "
            f"{marks.age(gateway.committed_at)}</span></div>",
            sanitize=False,
        )


def _lane(tab: Tab, lane: Lane) -> dict[str, Any]:
    words = tab.words
    known = lane.lane in ("event", "data", "backfill", "evidence")
    return {
        "id": f"{lane.epoch}:{lane.lane}",
        "open": False,
        "cells": {
            "lane": [words(f"gateways.{lane.lane}") if known else lane.lane, f"{words('gateways.epoch')} {lane.epoch}"],
            "seq": number(lane.seq),
            "batches": number(lane.batches),
            "readings": number(lane.readings),
            "events": number(lane.events),
            "bytes": _size(lane.bytes),
            "repeats": number(lane.repeats),
            "thinned": [number(lane.thinned), "cb-state stale" if lane.thinned else "cb-dim"],
            "dead": [number(lane.dead), "cb-state stale" if lane.dead else "cb-dim"],
            "lost": [number(lane.lost), "cb-state offline" if lane.lost else "cb-state online"],
            "updated": marks.ms(lane.updated_at),
        },
    }


def _dead(tab: Tab, letter: DeadLetter) -> dict[str, Any]:
    lane = letter.lane or letter.topic.rpartition("/")[2]
    return {
        "id": str(letter.dead_letter_id),
        "open": False,
        "cells": {
            "at": marks.ms(letter.received_at),
            "lane": [lane, f"#{letter.seq}" if letter.seq is not None else letter.topic],
            "reason": [letter.reason, letter.detail],
            "size": _size(letter.size_bytes),
        },
    }


def _health(tab: Tab, found: GatewayDetail) -> list[tuple[str, str]]:
    words, gateway = tab.words, found.gateway
    health = gateway.health
    facts = [(words("gateways.heartbeat"), marks.age(gateway.health_at))]
    for key, unit in (("cpu_pct", "%"), ("memory_mb", "MB"), ("disk_free_mb", "MB")):
        if isinstance(health.get(key), int | float):
            facts.append((words(f"gateways.{key}"), f"{number(health[key])} {unit}"))
    if isinstance(health.get("outbox_oldest_s"), int | float):
        facts.append((words("gateways.oldest"), f"{number(health['outbox_oldest_s'])} s"))
    for latency in found.latencies:
        if latency.kind in ("sensor_to_commit", "sensor_to_alarm"):
            text = f"{_duration(latency.p50_ms)} / {_duration(latency.p99_ms)}"
            facts.append((words(f"gateways.{latency.kind}"), text))
    facts += [
        (words("gateways.version"), marks.esc(gateway.version or "–")),
        (words("gateways.shard"), str(gateway.shard)),
    ]
    return facts


def _duration(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def _size(count: int) -> str:
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"
