"""Who did what: the audit log, filtered by who, what and when, with the line up to which it is sealed and signed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from nicegui import ui

from cloud.audit.reads import Logged
from cloud.audit.web import Sealed, entries, sealed
from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable, FilterBar
from cloud.console.words import Words, number
from cloud.query.cursor import Page

_PAGE = 60
_FAMILIES = (
    "login", "case", "alarm", "command", "twin", "evidence", "gateway", "device", "operator", "token", "update",
    "fleet", "audit",
)  # fmt: skip
_LONGEST = 300  # characters of one entry's content; all of it is in the export
_SPANS = {"": None, "hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class _Shown:
    page: Page[Logged]
    sealed: Sealed


def build(tab: Tab) -> None:
    words = tab.words
    if not tab.may("audit.read"):
        tab.no_view()
        with ui.element("div").classes("cb-page"):
            ui.html(marks.empty("audit", words("audit.not_allowed"), ""), sanitize=False)
        return
    chosen = {"who": "", "family": "", "what": "", "span": ""}
    size = {"limit": _PAGE}
    with ui.element("div").classes("cb-page"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("audit.title"), words("audit.hint")), sanitize=False)
            state = ui.html("", sanitize=False).classes("cb-sub right").props("data-sealed")
        bar = FilterBar(
            [
                {"key": "who", "kind": "search", "placeholder": words("audit.who_hint")},
                {"key": "what", "kind": "search", "placeholder": words("audit.what_hint")},
                {
                    "key": "family",
                    "kind": "select",
                    "placeholder": words("audit.all_actions"),
                    "options": [{"value": name, "label": words(f"audit.{name}")} for name in _FAMILIES],
                },
                {
                    "key": "span",
                    "kind": "seg",
                    "value": "",
                    "options": [
                        {"value": name, "label": words(f"audit.span_{name}" if name else "common.all")}
                        for name in _SPANS
                    ],
                },
            ]
        )
        table = DataTable(
            [
                {"key": "no", "label": "#", "kind": "two", "width": "110px"},
                {"key": "at", "label": words("audit.at"), "kind": "at", "width": "170px"},
                {"key": "who", "label": words("audit.who"), "width": "150px"},
                {"key": "action", "label": words("audit.action"), "kind": "two", "width": "170px"},
                {"key": "what", "label": words("audit.what"), "kind": "mono"},
                {"key": "detail", "label": words("audit.detail")},
                {"key": "seal", "label": words("audit.seal"), "kind": "state", "width": "120px"},
            ],
            empty=words("audit.empty"),
        ).classes("cb-panel cb-grow")

    async def changed(values: dict[str, str]) -> None:
        chosen.update({key: str(value)[:120] for key, value in values.items() if key in chosen})
        size["limit"] = _PAGE
        tab.reload()

    async def more(_: Any) -> None:
        size["limit"] = min(size["limit"] + _PAGE, 600)
        tab.reload()

    async def load(_: Changes) -> _Shown:
        span = _SPANS.get(chosen["span"])
        family = chosen["family"]
        async with tab.services.pool.connection() as conn:
            page = await entries(
                conn,
                who=chosen["who"].strip(),
                action=f"{family}.*" if family else "",
                what=chosen["what"].strip(),
                since=datetime.now(UTC) - span if span else None,
                limit=size["limit"],
            )
            return _Shown(page, await sealed(conn))

    def show(found: _Shown) -> None:
        state.set_content(_sealed(tab, found.sealed))
        table.put(
            rows=[_row(tab, entry, found.sealed) for entry in found.page.items],
            loading=False,
            more=words("common.more") if found.page.next_cursor else "",
        )

    bar.listen("change", changed)
    table.listen("more", more)
    tab.set_view(load, show, every_s=5)


def _sealed(tab: Tab, state: Sealed) -> str:
    if state.signed_at is None:
        return marks.esc(tab.words("audit.nothing_signed"))
    text = tab.words("audit.signed_up_to", n=number(state.signed), root=state.root[:12])
    waiting = tab.words("audit.waiting", n=number(state.unsealed)) if state.unsealed else ""
    return f"{marks.esc(text)} · {marks.age(state.signed_at)} {marks.esc(waiting)}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _who(words: Words, who: str) -> str:
    """A person by name; a machine as what it is."""
    if who == "system":
        return words("audit.system")
    kind, colon, name = who.partition(":")
    return f"{words('audit.gateway_word')} {name}" if colon and kind == "gateway" else who


def _family(words: Words, action: str) -> str:
    first = action.partition(".")[0]
    return words(f"audit.{first}") if first in _FAMILIES else action


def _row(tab: Tab, entry: Logged, state: Sealed) -> dict[str, Any]:
    words = tab.words
    signed = entry.leaf_index is not None and entry.leaf_index < state.signed
    detail = " · ".join(f"{name}: {_plain(value)}" for name, value in entry.detail.items() if value not in ("", None))
    return {
        "id": str(entry.entry_id),
        "open": False,
        "cells": {
            "no": [str(entry.entry_id), "" if entry.leaf_index is None else words("audit.leaf", n=entry.leaf_index)],
            "at": marks.ms(entry.at),
            "who": _who(words, entry.who),
            "action": [words.deed(entry.action) or _family(words, entry.action), entry.action],
            "what": entry.what,
            "detail": detail if len(detail) <= _LONGEST else detail[:_LONGEST] + "…",
            "seal": ["online", words("audit.signed")] if signed else ["stale", words("audit.open")],
        },
    }
