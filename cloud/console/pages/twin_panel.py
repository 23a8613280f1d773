"""A gateway's configuration on its page: what is wanted, what is in force, every version, what changed, back to any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from nicegui import ui

from cloud.console import marks
from cloud.console.tab import Tab
from cloud.console.widgets import DataTable
from cloud.console.words import Words
from cloud.twin import service as twin
from cloud.twin.diff import diff
from cloud.twin.service import TwinState, Version

_MOST = 20
#: How a document's state looks: as the states of devices do.
LOOK = {
    "applied": "online", "pending": "unknown", "received": "unknown", "applying": "unknown", "refused": "offline",
    "failed": "offline", "rolled_back": "stale", "none": "unknown",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Twins:
    state: TwinState | None
    versions: list[Version]


class TwinPanel:
    def __init__(self, tab: Tab) -> None:
        words = self._words = tab.words
        self._tab = tab
        self._gateway_id = ""
        self._versions: dict[int, Version] = {}
        with ui.element("section").classes("cb-panel"):
            self._head = ui.html("", sanitize=False, tag="header")
            self._table = DataTable(
                [
                    {"key": "version", "label": words("twin.version"), "kind": "chip", "width": "80px"},
                    {"key": "state", "label": words("twin.state"), "kind": "state"},
                    {"key": "changes", "label": words("twin.changes")},
                    {"key": "who", "label": words("twin.author"), "kind": "two"},
                    {"key": "at", "label": words("orders.at"), "kind": "at", "align": "r"},
                    {"key": "acts", "label": "", "kind": "acts", "align": "r"},
                ],
                empty=words("twin.none"),
                hint=words("twin.none_hint"),
            )
        self._table.listen("act", self._acted)

    async def load(self, gateway_id: str) -> Twins:
        def step(conn: psycopg.Connection[Any]) -> Twins:
            states = [one for one in twin.states(conn, gateway_id) if one.name == "config"]
            return Twins(states[0] if states else None, twin.history(conn, gateway_id, "config", _MOST))

        self._gateway_id = gateway_id
        return await self._tab.services.acts.run(step)

    def show(self, found: Twins) -> None:
        words, state = self._words, found.state
        self._versions = {one.version: one for one in found.versions}
        text = marks.esc(words("twin.title"))
        if state is not None:
            look = LOOK.get(state.state, "unknown")
            named = marks.esc(words(f"twin.state_{state.state}"))
            versions = marks.esc(words("twin.both", wanted=state.wanted, have=_have(words, state)))
            told = marks.esc(state.detail[:160])
            text += f'<small>{versions} · <span class="cb-state {look}">{named}</span> {told}</small>'
        self._head.set_content(text)
        self._table.put(rows=[self._row(one, state) for one in found.versions], loading=False)

    def _row(self, one: Version, state: TwinState | None) -> dict[str, Any]:
        words = self._words
        before = self._versions.get(one.version - 1)
        changes = [] if before is None else diff(before.document, one.document)
        shown = ", ".join(change.path for change in changes[:4]) + (" …" if len(changes) > 4 else "")
        mark = None
        if state is not None and one.version == state.wanted:
            mark = [LOOK.get(state.state, "unknown"), words(f"twin.state_{state.state}")]
        newest = state is not None and one.version == state.wanted
        acts = [] if newest or not self._tab.may("twin.write") else [
            {"name": "back", "label": words("twin.back"), "tone": ""}
        ]  # fmt: skip
        return {
            "id": str(one.version),
            "open": False,
            "cells": {
                "version": str(one.version),
                "state": mark,
                "changes": shown or ", ".join(sorted(one.document)) or words("twin.empty"),
                "who": [one.author, one.comment],
                "at": marks.ms(one.at),
                "acts": acts,
            },
        }

    async def _acted(self, event: dict[str, str]) -> None:
        gateway_id, number = self._gateway_id, int(event["id"])
        words = self._words

        async def answered(_: str, __: str) -> None:
            async def step(name: str) -> None:
                await self._tab.services.acts.run(lambda conn: twin.roll_back(conn, gateway_id, "config", number, name))

            await self._tab.act(step, words("twin.asked"), action="twin.write", thing=("gateway", gateway_id))

        self._tab.ask(
            words("twin.ask_back", version=number), words("twin.ask_back_hint"), answered,
            confirm=words("twin.back"), danger=True,
        )  # fmt: skip


def _have(words: Words, state: TwinState) -> str:
    """The version that the gateway said is in force, as far as its last word goes."""
    return str(state.version) if state.state == "applied" and state.version else words("twin.not_known")
