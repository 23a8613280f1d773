"""Orders to devices: who asked, who agreed, where each stands. Consent is given here; asking is on a device's page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
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
#: A second person must be found and log in: the shortest life that orders have otherwise would end before.
_TWO_PERSONS_LIFE_S = 600
#: What an argument looks like, where its type does not list the choices.
_LIKE = {"bool": "true|false", "number": "1.5", "integer": "1", "text": "…"}
#: How a state looks: as the states of devices do.
LOOK = {
    "waiting": "stale", "queued": "unknown", "sent": "unknown", "received": "unknown", "done": "online",
    "refused": "offline", "failed": "offline", "expired": "offline", "unknown": "stale", "done_read": "online",
    "withdrawn": "unknown",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Device:
    type: str
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class _Data:
    orders: list[CommandRow]
    devices: Mapping[str, _Device]


def build(tab: Tab) -> None:
    words = tab.words
    chosen = {"state": "", "device": ""}
    shown: dict[str, tuple[CommandRow, _Device | None]] = {}
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
                {"key": "device", "label": words("orders.device"), "kind": "two"},
                {"key": "state", "label": words("orders.state"), "kind": "state"},
                {"key": "left", "label": words("orders.left"), "kind": "due"},
                {"key": "detail", "label": words("orders.detail")},
                {"key": "who", "label": words("orders.who"), "kind": "two"},
                {"key": "at", "label": words("orders.at"), "kind": "at", "align": "r"},
                {"key": "acts", "label": "", "kind": "acts", "align": "r"},
            ],
            empty=words("orders.none"),
            hint=words("orders.none_hint"),
        ).classes("cb-panel cb-grow")

    async def changed(values: dict[str, str]) -> None:
        chosen.update({key: str(value)[:120] for key, value in values.items() if key in chosen})
        tab.reload()

    async def load(_: Changes) -> _Data:
        def step(conn: Any) -> _Data:
            found = commands.recent(
                conn,
                device_id=chosen["device"].strip(),
                open_only=chosen["state"] == "open",
                limit=_MOST,
                sight=tab.sight,
            )
            named = conn.execute(
                "select device_id, device_type, name_zh, name_en from device where device_id = any(%s)",
                (sorted({one.device_id for one in found}),),
            )
            return _Data(found, {row[0]: _Device(*row[1:]) for row in named})

        return await tab.services.acts.run(step)

    def show(data: _Data) -> None:
        # What waits for a person stands on top, his own decision first; the rest is newest first, as read.
        found = sorted(data.orders, key=lambda one: (one.state != "waiting", not _may_agree(tab, one)))
        shown.clear()
        shown.update({one.command_id: (one, data.devices.get(one.device_id)) for one in found})
        table.put(rows=[_row(tab, *pair) for pair in shown.values()], loading=False)

    async def act(event: dict[str, str]) -> None:
        command_id, what = str(event["id"]), str(event["name"])
        if what == "approve" and command_id in shown:
            _ask_approve(tab, *shown[command_id])
        elif what == "withdraw":
            tab.ask(
                words("orders.ask_withdraw"), words("orders.ask_withdraw_hint"), withdrawn, name=command_id,
                field=words("orders.reason"), reason=True, confirm=words("orders.withdraw"),
            )  # fmt: skip

    async def withdrawn(command_id: str, reason: str) -> None:
        async def step(name: str) -> None:
            await tab.services.acts.run(lambda conn: commands.withdraw(conn, command_id, name, reason=reason))

        await tab.act(step, words("orders.withdrawn"), action="command.send", thing=("command", command_id))

    bar.listen("change", changed)
    table.listen("act", act)
    tab.set_view(load, show, every_s=2)


def _ask_approve(tab: Tab, row: CommandRow, device: _Device | None) -> None:
    """The second person reads once more what will move, and where, before it does."""
    words = tab.words

    async def agreed(_: str, __: str) -> None:
        await _approve(tab, row.command_id)

    name = "" if device is None else words.either(device.zh, device.en)
    parts = (name, row.device_id, _values(row.arguments), words("orders.asked_by", name=row.requested_by))
    told = " · ".join(part for part in parts if part)
    tab.ask(
        words("orders.ask_approve", order=_order_name(tab, row, device)),
        f"{told}{words('orders.ask_approve_hint')}",
        agreed, confirm=words("orders.approve_send"), danger=True,
    )  # fmt: skip


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
        f"{one.name}={'|'.join(one.one_of) or _LIKE[one.kind]}"
        + (f" {one.range[0]:g}…{one.range[1]:g}" if one.range else "")
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
                lambda conn: commands.request(conn, device_id, kind.name, arguments, name, now_ms=now_ms, life_s=life_s)
            )

        await tab.act(step, words("orders.asked"), action="command.send", thing=("device", device_id))

    life_s = _TWO_PERSONS_LIFE_S if kind.street else commands.DEFAULT_LIFE_S
    hint = words("orders.ask_hint_two", minutes=life_s // 60) if kind.street else words("orders.ask_hint")
    field = f"{words('orders.arguments')}: {', '.join(wanted)}" if wanted else ""
    tab.ask(
        f"{words.either(kind.zh, kind.en)} · {device_id}", hint, answered,
        field=field, line=True, reason=bool(wanted), confirm=words("orders.enter"),
    )  # fmt: skip


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


def _may_agree(tab: Tab, row: CommandRow) -> bool:
    return row.state == "waiting" and row.requested_by != tab.operator.name and tab.may("command.approve")


def _values(values: Mapping[str, Any]) -> str:
    """``on = true``: as they are typed."""
    return ", ".join(f"{k} = {str(v).lower() if isinstance(v, bool) else v}" for k, v in values.items())


def _order_name(tab: Tab, row: CommandRow, device: _Device | None) -> str:
    kinds = offered(device.type) if device is not None else ()
    return next((tab.words.either(kind.zh, kind.en) for kind in kinds if kind.name == row.name), row.name)


def _state(row: CommandRow) -> str:
    """An order that its own people took back was refused by nobody; one done without a read-back was not read back."""
    if row.state == "refused" and row.code == "withdrawn":
        return "withdrawn"
    return "done_read" if row.state == "done" and row.read_back else row.state


def _row(tab: Tab, row: CommandRow, device: _Device | None) -> dict[str, Any]:
    words = tab.words
    read = words("orders.read_back", values=_values(row.read_back)) if row.read_back else ""
    state = _state(row)
    left = None
    if row.ended_at is None:
        left = {"start": marks.ms(row.created_at), "due": marks.ms(row.expires_at), "over": words("alarms.over")}
    acts = []
    if _may_agree(tab, row):
        acts.append({"name": "approve", "label": words("orders.approve"), "tone": "primary"})
    if row.ended_at is None and row.sent_at is None and tab.may("command.send"):
        acts.append({"name": "withdraw", "label": words("orders.withdraw"), "tone": ""})
    approved = words("orders.approved_by", name=row.approved_by) if row.approved_by else ""
    return {
        "id": row.command_id,
        "open": False,
        "cells": {
            "what": [_order_name(tab, row, device), _values(row.arguments)],
            "device": [words.either(device.zh, device.en, row.device_id) if device else row.device_id, row.device_id],
            "state": [LOOK.get(state, "unknown"), words(f"orders.state_{state}")],
            "left": left,
            "detail": " · ".join(part for part in (words.order_code(row.code), row.detail, read) if part)[:200],
            "who": [row.requested_by, approved],
            "at": marks.ms(row.created_at),
            "acts": acts,
        },
    }
