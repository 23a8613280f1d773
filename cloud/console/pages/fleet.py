"""Bulk work: a question picks gateways or devices; tag them, keep the question as a group, tables in and out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from nicegui import ui

from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable, FilterBar, TableImport
from cloud.console.words import number
from cloud.fleet import listing
from cloud.fleet.listing import Group
from cloud.fleet.query import KINDS, Kind, QueryError

_SHOWN = 100


@dataclass(frozen=True, slots=True)
class _Found:
    rows: list[dict[str, Any]]
    picked: int
    groups: list[Group]
    wrong: str = ""  # what is wrong with the question


class _Page:
    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.kind: Kind = "gateways"
        self.query = ""
        self.picked = 0  # as shown last, so that nobody tags a city in the belief that it is a street

    def build(self) -> None:
        words = self.tab.words
        with ui.element("div").classes("cb-page"):
            with ui.element("div").classes("cb-head"):
                ui.html(marks.head(words("fleet.title"), words("fleet.hint")), sanitize=False)
                with ui.element("div").classes("right"):
                    for name, do in (("tag", self._ask_tag), ("group", self._ask_group)):
                        button = ui.element("button").classes("cb-btn").props(f'data-bulk="{name}"')
                        with button:
                            ui.html(marks.esc(words(f"fleet.{name}")), sanitize=False, tag="span")
                        button.on("click", do)
                    self._out = ui.html("", sanitize=False, tag="span")
            bar = FilterBar(
                [
                    {
                        "key": "kind",
                        "kind": "seg",
                        "value": "gateways",
                        "options": [{"value": kind, "label": words(f"nav.{kind}")} for kind in KINDS],
                    },
                    {"key": "query", "kind": "search", "placeholder": words("fleet.query_hint")},
                ]
            )
            self._count = ui.label("").classes("cb-sub").props("data-picked")
            self._groups = ui.html("", sanitize=False).classes("cb-sub")
            self._import = TableImport(self.kind, _words(self.tab), zh=words.zh)
            self._table = DataTable(
                _columns(self.tab, self.kind),
                empty=words("fleet.none"),
                hint=words("fleet.none_hint"),
            ).classes("cb-panel cb-grow")
        bar.listen("change", self._changed)
        self._import.listen("done", self._brought)
        self.tab.set_view(self._load, self._show, every_s=15)

    async def _changed(self, values: dict[str, str]) -> None:
        kind = values.get("kind")
        self.kind = "devices" if kind == "devices" else "gateways"
        self.query = str(values.get("query", ""))[:500]
        self._import.put(kind=self.kind)
        self._table.put(columns=_columns(self.tab, self.kind), rows=[], loading=True)
        self.tab.reload()

    async def _brought(self, _: Any) -> None:
        self.tab.reload()

    async def _load(self, _: Changes) -> _Found:
        kind, query = self.kind, self.query

        def step(conn: Any) -> _Found:
            groups = listing.groups(conn)
            try:
                rows = list(listing.given_out(conn, kind, query, limit=_SHOWN))
                return _Found(rows, listing.count(conn, kind, query), groups)
            except QueryError as error:
                return _Found([], 0, groups, error.zh if self.tab.words.zh else str(error))

        return await self.tab.services.acts.run(step)

    def _show(self, found: _Found) -> None:
        words = self.tab.words
        self.picked = found.picked
        self._count.classes(add="cb-err" if found.wrong else "", remove="" if found.wrong else "cb-err")
        self._count.set_text(found.wrong or words("fleet.picked", n=number(found.picked), shown=len(found.rows)))
        out = {form: marks.esc(words("fleet.out", form=form.upper())) for form in ("csv", "json")}
        links = " ".join(
            f'<a class="cb-btn" data-out="{form}" download href="/api/v1/fleet/export/{self.kind}?form={form}'
            f'&amp;lang={"zh" if words.zh else "en"}&amp;query={quote(self.query, safe="")}">{out[form]}</a>'
            for form in ("csv", "json")
        )
        self._out.set_content("" if found.wrong else links)
        chips = " ".join(marks.chip(f"{g.name} · {g.members} · {g.query}") for g in found.groups[:30])
        self._groups.set_content(f"{marks.esc(words('fleet.groups'))} {chips}" if chips else "")
        self._table.put(rows=[_row(self.tab, self.kind, row) for row in found.rows], loading=False)

    def _ask_tag(self) -> None:
        words = self.tab.words

        async def answered(_: str, text: str) -> None:
            add, remove = _tags(text)
            kind, query = self.kind, self.query

            async def step(who: str) -> None:
                await self.tab.services.acts.run(lambda conn: listing.tag(conn, kind, query, add, remove, who))

            await self.tab.act(step, words("fleet.tagged"), action="fleet.bulk")

        self.tab.ask(words("fleet.tag"), self._hint("tag"), answered, field=words("fleet.tags"), line=True, reason=True)

    def _ask_group(self) -> None:
        words = self.tab.words

        async def answered(_: str, name: str) -> None:
            kind, query = self.kind, self.query

            async def step(who: str) -> None:
                await self.tab.services.acts.run(lambda conn: listing.save_group(conn, name, kind, query, who))

            await self.tab.act(step, words("fleet.kept"), action="fleet.bulk")

        self.tab.ask(
            words("fleet.group"), self._hint("group"), answered, field=words("fleet.name"), line=True, reason=True
        )

    def _hint(self, what: str) -> str:
        words = self.tab.words
        n, kind = number(self.picked), words(f"nav.{self.kind}").lower()
        concerned = words("fleet.concerns" if self.query.strip() else "fleet.concerns_all", n=n, kind=kind)
        return f"{concerned} {words(f'fleet.{what}_hint')}"


def build(tab: Tab) -> None:
    if not tab.may("fleet.bulk"):
        tab.no_view()
        with ui.element("div").classes("cb-page"):
            ui.html(marks.empty("fleet", tab.words("fleet.not_allowed"), ""), sanitize=False)
        return
    _Page(tab).build()


def _tags(text: str) -> tuple[list[str], list[str]]:
    """``winter -test``: what to put on, what to take off."""
    parts = [part for part in re.split(r"[\s,;，；]+", text) if part]
    return [p for p in parts if not p.startswith("-")], [p[1:] for p in parts if p.startswith("-")]


def _columns(tab: Tab, kind: Kind) -> list[dict[str, Any]]:
    words = tab.words
    return [
        {"key": "id", "label": words("fleet.id"), "kind": "two"},
        {"key": "place", "label": words("fleet.place"), "kind": "two"},
        {"key": "tags", "label": words("fleet.tags")},
        {"key": "more", "label": words(f"fleet.more_{kind}"), "kind": "two"},
        {"key": "state", "label": words("devices.state"), "kind": "state", "width": "120px"},
    ]


def _words(tab: Tab) -> dict[str, str]:
    names = ("choose", "pick_file", "failed", "row", "rows", "fresh", "changed", "same", "wrong", "written", "write")
    return {name: tab.words(f"fleet.{name}") for name in names}


def _row(tab: Tab, kind: Kind, row: dict[str, Any]) -> dict[str, Any]:
    words = tab.words
    id_ = row["gateway_id"] if kind == "gateways" else row["device_id"]
    online = {True: "online", False: "offline", None: "unknown"}[row["online"]]
    more = (
        [row["version"] or "–", words("fleet.shard", n=row["shard"])]
        if kind == "gateways"
        else [words.device_type(row["device_type"]), row["gateway_id"]]
    )
    return {
        "id": id_,
        "open": False,
        "cells": {
            "id": [words.either(row["name_zh"], row["name_en"], id_), id_],
            "place": [words.district(row["district"]) or "–", words.department(row["department"])],
            "tags": " ".join(row["tags"]),
            "more": more,
            "state": [online, words.state(online)],
        },
    }
