"""Ledger: one line a gateway that says whether anything is missing and why; below it the lanes and the ranges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable, FilterBar
from cloud.console.words import number
from cloud.ledger import read
from cloud.ledger.model import STATES, Gap, GatewayLedger, LaneBooks, LedgerDetail, State
from cloud.ledger.verdict import lane_words, reason_words

_PAGE, _MOST = 500, 3000
#: How a verdict looks: as the states of devices do.
_LOOK: dict[State, str] = {
    "complete": "online", "waiting": "unknown", "unknown": "unknown", "explained": "stale", "missing": "offline",
}  # fmt: skip
_CONTENT = {"equal": "online", "differs": "offline", "not_comparable": "stale", "": "unknown"}
_SPANS = {"7": 7, "30": 30, "0": 0}


@dataclass(frozen=True, slots=True)
class _Shown:
    gateways: list[GatewayLedger]
    more: bool
    chosen: LedgerDetail | None


def build(tab: Tab, id: str = "") -> None:
    words = tab.words
    if not tab.may("ledger.read"):
        tab.no_view()
        with ui.element("div").classes("cb-page"):
            ui.html(marks.empty("ledger", words("ledger.not_allowed"), ""), sanitize=False)
        return
    chosen = {"id": id, "span": "7", "look": "yes" if id else ""}
    size = {"limit": _PAGE}
    with ui.element("div").classes("cb-page"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("ledger.title"), words("ledger.hint")), sanitize=False)
        bar = FilterBar(
            [
                {
                    "key": "span",
                    "kind": "seg",
                    "value": "7",
                    "options": [{"value": name, "label": words(f"ledger.days_{name}")} for name in _SPANS],
                }
            ]
        )
        table = DataTable(_gateway_columns(tab), empty=words("gateways.empty")).classes("cb-panel").props("data-ledger")
        with ui.element("div").classes("cb-stack") as below:
            with ui.element("section").classes("cb-panel"):
                head = ui.html("", sanitize=False, tag="header")
                lanes = DataTable(_lane_columns(tab), empty=words("ledger.no_lanes"))
            with ui.element("section").classes("cb-panel"):
                ranges_head = ui.html("", sanitize=False, tag="header")
                ranges = DataTable(
                    _range_columns(tab), empty=words("ledger.no_ranges"), hint=words("ledger.no_ranges_hint")
                ).props("data-ranges")
    below.set_visibility(False)

    async def changed(values: dict[str, str]) -> None:
        if str(values.get("span")) in _SPANS:
            chosen["span"] = str(values["span"])
        tab.reload()

    async def open_gateway(gateway_id: str) -> None:
        chosen["id"] = str(gateway_id)[:63]
        chosen["look"] = "yes"
        tab.reload()

    async def more(_: Any) -> None:
        size["limit"] = min(size["limit"] + _PAGE, _MOST)
        tab.reload()

    async def load(_: Changes) -> _Shown:
        now, days = datetime.now(UTC), _SPANS[chosen["span"]]
        found: list[GatewayLedger] = []
        cursor: str | None = None
        async with tab.services.pool.connection() as conn:
            while len(found) < size["limit"]:
                page = await read.gateways(conn, now, sight=tab.sight, days=days, limit=_PAGE, cursor=cursor)
                found += page.items
                cursor = page.next_cursor
                if cursor is None:
                    break
            detail = await read.detail(conn, chosen["id"], now, sight=tab.sight, days=days) if chosen["id"] else None
        found.sort(key=lambda one: (-STATES.index(one.state), one.gateway_id))
        return _Shown(found, cursor is not None and size["limit"] < _MOST, detail)

    def show(shown: _Shown) -> None:
        table.put(
            rows=[_gateway(tab, one) for one in shown.gateways],
            loading=False,
            selected=chosen["id"],
            more=words("common.more") if shown.more else "",
        )
        below.set_visibility(shown.chosen is not None)
        if shown.chosen is None:
            return
        one = shown.chosen.gateway
        name = words.either(one.name_zh, one.name_en, one.gateway_id)
        head.set_content(f"{marks.esc(words('ledger.lanes'))}<small>{marks.esc(name)}</small>")
        lanes.put(rows=[_lane(tab, lane) for lane in shown.chosen.lanes], loading=False)
        left_out = words("ledger.left_out", n=number(shown.chosen.gaps_left_out)) if shown.chosen.gaps_left_out else ""
        ranges_head.set_content(f"{marks.esc(words('ledger.ranges'))}<small>{marks.esc(left_out)}</small>")
        ranges.put(rows=[_range(tab, gap, n) for n, gap in enumerate(shown.chosen.gaps)], loading=False)
        if chosen["look"]:  # below many gateways, it would be opened out of sight
            chosen["look"] = ""
            tab.bring(below)

    bar.listen("change", changed)
    table.listen("open", open_gateway)
    table.listen("more", more)
    tab.set_view(load, show, every_s=10)


def _gateway_columns(tab: Tab) -> list[dict[str, Any]]:
    words = tab.words
    return [
        {"key": "gateway", "label": words("ledger.gateway"), "kind": "two"},
        {"key": "state", "label": words("ledger.verdict"), "kind": "state", "width": "130px"},
        {"key": "says", "label": words("ledger.says")},
        {"key": "produced", "label": words("ledger.produced"), "align": "r"},
        {"key": "committed", "label": words("ledger.committed"), "align": "r"},
        {"key": "waiting", "label": words("ledger.waiting"), "kind": "num", "align": "r"},
        {"key": "thinned", "label": words("ledger.thinned"), "kind": "num", "align": "r"},
        {"key": "lost", "label": words("ledger.lost"), "kind": "num", "align": "r"},
        {"key": "repeats", "label": words("ledger.repeats"), "align": "r"},
        {"key": "proved", "label": words("ledger.proved"), "kind": "age", "align": "r"},
    ]


def _lane_columns(tab: Tab) -> list[dict[str, Any]]:
    words = tab.words
    return [
        {"key": "lane", "label": words("ledger.lane"), "kind": "two"},
        {"key": "rows", "label": words("ledger.rows_of"), "align": "r"},
        {"key": "waiting", "label": words("ledger.waiting"), "kind": "num", "align": "r"},
        {"key": "lost", "label": words("ledger.lost"), "kind": "num", "align": "r"},
        {"key": "readings", "label": words("ledger.readings"), "align": "r"},
        {"key": "thinned", "label": words("ledger.thinned"), "kind": "num", "align": "r"},
        {"key": "events", "label": words("ledger.events"), "align": "r"},
        {"key": "content", "label": words("ledger.content"), "kind": "state"},
        {"key": "heard", "label": words("ledger.heard"), "kind": "age", "align": "r"},
    ]


def _range_columns(tab: Tab) -> list[dict[str, Any]]:
    words = tab.words
    return [
        {"key": "series", "label": words("ledger.series"), "kind": "two"},
        {"key": "rows", "label": words("ledger.rows"), "align": "r"},
        {"key": "readings", "label": words("ledger.readings"), "align": "r"},
        {"key": "why", "label": words("ledger.why"), "kind": "two"},
        {"key": "from", "label": words("ledger.from"), "kind": "at", "align": "r"},
        {"key": "to", "label": words("ledger.to"), "kind": "at", "align": "r"},
        {"key": "told", "label": words("ledger.told"), "kind": "age", "align": "r"},
    ]


def _gateway(tab: Tab, one: GatewayLedger) -> dict[str, Any]:
    words = tab.words
    said = [finding.zh if words.zh else finding.en for finding in one.findings]
    mark = "；" if words.zh else "; "
    return {
        "id": one.gateway_id,
        "cells": {
            "gateway": [words.either(one.name_zh, one.name_en, one.gateway_id), one.gateway_id],
            "state": [_LOOK[one.state], words(f"ledger.state_{one.state}")],
            "says": mark.join(said[:3]) + (words("ledger.and_more", n=len(said) - 3) if len(said) > 3 else "")
            or words("ledger.all_there"),
            "produced": number(one.produced),
            "committed": number(one.committed),
            "waiting": _count(one.waiting, ""),
            "thinned": _count(one.thinned, "stale"),
            "lost": _count(one.lost, "offline"),
            "repeats": number(one.repeats),
            "proved": marks.ms(one.proved_at),
        },
    }


def _lane(tab: Tab, lane: LaneBooks) -> dict[str, Any]:
    words = tab.words
    when = words("ledger.current") if lane.current else words("ledger.former")
    content = words(f"ledger.content_{lane.content or 'open'}")
    return {
        "id": f"{lane.epoch}:{lane.lane}",
        "open": False,
        "cells": {
            "lane": [lane_words(lane.lane)[0 if words.zh else 1], f"{when} {lane.epoch}"],
            "rows": f"{number(lane.seq)} / {number(lane.produced)}",
            "waiting": _count(lane.waiting, ""),
            "lost": _count(lane.lost + lane.holes, "offline"),
            "readings": number(lane.readings),
            "thinned": _count(lane.thinned, "stale"),
            "events": number(lane.events),
            "content": [
                _CONTENT.get(lane.content, "unknown"),
                content + (f" · {words('ledger.up_to', n=number(lane.checked_seq))}" if lane.checked_seq else ""),
            ],
            "heard": marks.ms(lane.heard_at),
        },
    }


def _range(tab: Tab, gap: Gap, n: int) -> dict[str, Any]:
    words = tab.words
    column = 0 if words.zh else 1
    where = lane_words(gap.lane)[column]
    rows = str(gap.first_seq) if gap.first_seq == gap.last_seq else f"{gap.first_seq}–{gap.last_seq}"
    several = gap.row_count < gap.last_seq - gap.first_seq + 1
    return {
        "id": str(n),
        "open": False,
        "cells": {
            "series": [
                f"{gap.device}/{gap.point}" if gap.device else words("ledger.whole_lane"),
                f"{where} · {gap.epoch}",
            ],
            "rows": rows + (f" ({words('ledger.of_them', n=number(gap.row_count))})" if several else ""),
            "readings": number(gap.readings) if gap.readings else "–",
            "why": [
                words(f"ledger.kind_{gap.kind}"),
                reason_words(gap.reason)[column] + (f" · {gap.source}" if gap.source else ""),
            ],
            "from": marks.ms(gap.first_at),
            "to": marks.ms(gap.last_at),
            "told": marks.ms(gap.told_at),
        },
    }


def _count(count: int, look: str) -> list[str]:
    return [number(count), f"cb-state {look}" if count and look else "" if count else "cb-dim"]
