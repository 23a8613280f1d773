"""Orders to devices: who asked, who agreed, where each stands. Consent is given here; asking is on a device's page."""

from __future__ import annotations

import time
from typing import Any

from nicegui import ui

from cloud.commands import service as commands
from cloud.commands.service import CommandRow
from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable, FilterBar
from protocols.core.errors import ConfigError
from protocols.devices import CommandType
from protocols.devices import load as load_type

_MOST = 200
#: How a state looks: as the states of devices do.
LOOK = {
    "waiting": "stale", "queued": "unknown", "sent": "unknown", "received": "unknown", "done": "online",
    "refused": "offline", "failed": "offline", "expired": "offline", "unknown": "stale",
}  # fmt: skip


def build(tab: Tab) -> None:
    words = tab.words
    chosen = {"state": "", "device": ""}
    with ui.element("div").classes("cb-page"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("orders.title"), words("orders.hint")), sanitize=False)
        bar = FilterBar(
            [
                {"key": "device", "kind": "search", "placeholder": words("orders.device_hint")},
                {
                    "key": "state",
                    "kind": "seg",
                    "value": "",
                    "options": [
                        {"value": "", "label": words("common.all")},
                        {"value": "open", "label": words("orders.only_open")},
                    ],
                },
            ]
        )
        table = DataTable(
            [
                {"key": "what", "label": words("orders.what"), "kind": "two"},
                {"key": "device", "label": words("orders.device"), "kind": "mono"},
                {"key": "state", "label": words("orders.state"), "kind": "state"},
                {"key": "detail", "label": words("orders.detail")},
                {"key": "who", "label": words("orders.who"), "kind": "two"},
                {"key": "at", "label": words("orders.at"), "kind": "at", "align": "r"},
                {"key": "acts", "label": "", "kind": "acts", "align": "r"},
            ],
            empty=words("orders.none"),
        ).classes("cb-panel cb-grow")

    async def changed(values: dict[str, str]) -> None:
        chosen.update({key: str(value)[:120] for key, value in values.items() if key in chosen})
        tab.reload()

    async def load(_: Changes) -> list[CommandRow]:
        return await tab.services.acts.run(
            lambda conn: commands.recent(
                conn,
                device_id=chosen["device"].strip(),
                open_only=chosen["state"] == "open",
                limit=_MOST,
                sight=tab.sight,
            )
        )

    def show(found: list[CommandRow]) -> None:
        table.put(rows=[_row(tab, one) for one in found], loading=False)

    async def act(event: dict[str, str]) -> None:
        command_id, what = str(event["id"]), str(event["name"])
        if what == "approve":
            await _approve(tab, command_id)
        elif what == "withdraw":
            tab.ask(
                words("orders.ask_withdraw"), words("orders.ask_withdraw_hint"), withdrawn, name=command_id,
                field=words("orders.reason"), reason=True,
            )  # fmt: skip

    async def withdrawn(command_id: str, reason: str) -> None:
        async def step(name: str) -> None:
            await tab.services.acts.run(lambda conn: commands.withdraw(conn, command_id, name, reason=reason))

        await tab.act(step, words("orders.withdrawn"), action="command.send", thing=("command", command_id))

    bar.listen("change", changed)
    table.listen("act", act)
    tab.set_view(load, show, every_s=2)


async def _approve(tab: Tab, command_id: str) -> None:
    async def step(name: str) -> None:
        now_ms = time.time_ns() // 1_000_000
        await tab.services.acts.run(lambda conn: commands.approve(conn, command_id, name, now_ms=now_ms))

    await tab.act(step, tab.words("orders.approved"), action="command.approve", thing=("command", command_id))


def offered(device_type: str) -> tuple[CommandType, ...]:
    """Commands of a type; none for a camera or a type that this core does not know."""
    try:
        return load_type(device_type).commands if device_type else ()
    except ConfigError:
        return ()


def ask(tab: Tab, device_id: str, kind: CommandType) -> None:
    """Ask for one, with its arguments as ``name=value``."""
    words = tab.words
    wanted = [
        f"{one.name}={'|'.join(one.one_of) or one.kind}" + (f" {one.range[0]:g}…{one.range[1]:g}" if one.range else "")
        for one in kind.argument
    ]

    async def answered(_: str, text: str) -> None:
        try:
            arguments = parsed(text)
        except ValueError:
            tab.toast(words("orders.bad_arguments"), bad=True)
            return

        async def step(name: str) -> None:
            now_ms = time.time_ns() // 1_000_000
            await tab.services.acts.run(
                lambda conn: commands.request(conn, device_id, kind.name, arguments, name, now_ms=now_ms)
            )

        await tab.act(step, words("orders.asked"), action="command.send", thing=("device", device_id))

    hint = words("orders.ask_hint_two" if kind.street else "orders.ask_hint")
    field = f"{words('orders.arguments')}: {', '.join(wanted)}" if wanted else ""
    tab.ask(f"{words.either(kind.zh, kind.en)} · {device_id}", hint, answered, field=field, reason=bool(wanted))


def parsed(text: str) -> dict[str, float | int | str | bool]:
    """``on=true, to=40`` as arguments. Raises ValueError."""
    out: dict[str, float | int | str | bool] = {}
    for part in text.replace("，", ",").split(","):
        if not part.strip():
            continue
        name, equals, value = (item.strip() for item in part.partition("="))
        if not name or not equals:
            raise ValueError(part)
        if value in ("true", "false"):
            out[name] = value == "true"
            continue
        try:
            out[name] = int(value)
        except ValueError:
            try:
                out[name] = float(value)
            except ValueError:
                out[name] = value
    return out


def _row(tab: Tab, row: CommandRow) -> dict[str, Any]:
    words = tab.words
    given = ", ".join(f"{name} = {value}" for name, value in row.arguments.items())
    shown = ", ".join(f"{name} = {value}" for name, value in row.read_back.items())
    acts = []
    if row.state == "waiting" and row.requested_by != tab.operator.name and tab.may("command.approve"):
        acts.append({"name": "approve", "label": words("orders.approve"), "tone": "primary"})
    if row.ended_at is None and row.sent_at is None and tab.may("command.send"):
        acts.append({"name": "withdraw", "label": words("orders.withdraw"), "tone": ""})
    approved = words("orders.approved_by", name=row.approved_by) if row.approved_by else ""
    return {
        "id": row.command_id,
        "open": False,
        "cells": {
            "what": [row.name, given],
            "device": row.device_id,
            "state": [LOOK.get(row.state, "unknown"), words(f"orders.state_{row.state}")],
            "detail": " · ".join(part for part in (row.code, row.detail, shown) if part)[:200],
            "who": [row.requested_by, approved],
            "at": marks.ms(row.created_at),
            "acts": acts,
        },
    }
