"""All devices, the worst first: unknown is grey, stale is amber and says since when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from nicegui import ui

from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable, FilterBar
from cloud.query import fleet
from cloud.query.cursor import Page
from cloud.query.rows import DEVICE_STATES, Device

_PAGE = 60


def build(tab: Tab, state: str = "", gateway: str = "") -> None:
    words = tab.words
    chosen: dict[str, str] = {"text": "", "state": state, "gateway": gateway, "type": ""}
    size = {"limit": _PAGE}
    with ui.element("div").classes("cb-page"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("devices.title"), words("devices.hint")), sanitize=False)
            count = ui.label("").classes("cb-sub right")
        bar = ui.element("div")
        table = DataTable(
            [
                {"key": "level", "label": "", "kind": "stripe", "width": "5px"},
                {"key": "name", "label": words("devices.name"), "kind": "two"},
                {"key": "type", "label": words("devices.type")},
                {"key": "gateway", "label": words("devices.gateway")},
                {"key": "state", "label": words("devices.state"), "kind": "state", "width": "130px"},
                {"key": "seen", "label": words("devices.seen"), "kind": "age", "width": "130px"},
                {"key": "alarm", "label": words("devices.alarms"), "kind": "level", "width": "110px"},
            ],
            empty=words("devices.empty"),
            hint=words("devices.empty_hint"),
        ).classes("cb-panel cb-grow")

    async def filters() -> None:
        async with tab.services.pool.connection() as conn:
            gateways = (await fleet.gateways(conn, datetime.now(UTC), sight=tab.sight, limit=500)).items
            types = await fleet.device_types(conn)
        with bar:
            filter_bar = FilterBar(
                [
                    {"key": "text", "kind": "search", "placeholder": words("common.search_hint")},
                    {
                        "key": "state",
                        "kind": "seg",
                        "value": state,
                        "options": [{"value": "", "label": words("common.all")}]
                        + [{"value": name, "label": words.state(name)} for name in DEVICE_STATES],
                    },
                    {
                        "key": "gateway",
                        "kind": "select",
                        "value": gateway,
                        "placeholder": words("devices.all_gateways"),
                        "options": [
                            {"value": g.gateway_id, "label": words.either(g.name_zh, g.name_en, g.gateway_id)}
                            for g in gateways
                        ],
                    },
                    {
                        "key": "type",
                        "kind": "select",
                        "placeholder": words("devices.all_types"),
                        "options": [{"value": name, "label": words.device_type(name)} for name in types if name],
                    },
                ]
            )
            filter_bar.listen("change", changed)

    async def changed(values: dict[str, str]) -> None:
        chosen.update({key: str(value) for key, value in values.items() if key in chosen})
        size["limit"] = _PAGE
        tab.reload()

    async def more(_: Any) -> None:
        size["limit"] = min(size["limit"] + _PAGE, 600)
        tab.reload()

    async def open_device(device_id: str) -> None:
        tab.go(f"/device?id={quote(device_id, safe='')}")

    async def load(_: Changes) -> Page[Device]:
        async with tab.services.pool.connection() as conn:
            return await fleet.devices(
                conn,
                datetime.now(UTC),
                text=chosen["text"],
                state=chosen["state"],
                gateway_id=chosen["gateway"],
                device_type=chosen["type"],
                order="worst",
                sight=tab.sight,
                limit=size["limit"],
            )

    def show(page: Page[Device]) -> None:
        more_there = page.next_cursor is not None
        count.set_text(words("common.shown_first" if more_there else "common.shown", n=len(page.items)))
        table.put(
            rows=[_row(tab, d) for d in page.items], loading=False, more=words("common.more") if more_there else ""
        )

    table.listen("open", open_device)
    table.listen("more", more)
    ui.timer(0.01, filters, once=True)
    tab.set_view(load, show, every_s=10)


def _row(tab: Tab, device: Device) -> dict[str, Any]:
    words = tab.words
    return {
        "id": device.device_id,
        "cells": {
            "level": device.level or "",
            "name": [words.either(device.name_zh, device.name_en, device.device_id), device.device_id],
            "type": words.device_type(device.device_type) or "–",
            "gateway": words.either(device.gateway_zh, device.gateway_en, device.gateway_id),
            "state": [device.state, words.state(device.state)],
            "seen": marks.ms(device.seen_at) or 0,
            "alarm": [device.level, f"{words.level(device.level)} {device.open_alarms}"] if device.level else None,
        },
    }
