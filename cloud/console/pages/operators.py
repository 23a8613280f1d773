"""Who may log in. For administrators; a case needs two people, because nobody checks his own work."""

from __future__ import annotations

import re
from typing import Any

from nicegui import ui

from cloud.auth.errors import NameTaken
from cloud.auth.operator import ROLES, Operator
from cloud.auth.rules import Grant
from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable

_NAME = re.compile(r"[\w.-]{2,32}")


def build(tab: Tab) -> None:
    words = tab.words
    if not tab.operator.may("admin"):
        tab.no_view()
        with ui.element("div").classes("cb-page"):
            ui.html(marks.empty("operators", words("operators.only_admin"), ""), sanitize=False)
        return
    with ui.element("div").classes("cb-page"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("operators.title"), words("operators.hint")), sanitize=False)
            with ui.element("div").classes("right"):
                for role in ("operator", "viewer", "admin"):
                    button = ui.element("button").classes("cb-btn" + (" primary" if role == "operator" else ""))
                    with button.props(f'data-add="{role}"'):
                        ui.html(f"＋ {words(f'role.{role}')}", sanitize=False, tag="span")
                    button.on("click", lambda role=role: ask_add(role))
        table = DataTable(
            [
                {"key": "name", "label": words("operators.name"), "kind": "two"},
                {"key": "role", "label": words("operators.role"), "kind": "chip"},
                {"key": "state", "label": words("operators.state"), "kind": "state"},
                {"key": "acts", "label": "", "kind": "acts", "align": "r"},
            ],
            empty=words("common.none"),
        ).classes("cb-panel cb-grow")

    async def load(_: Changes) -> list[Operator]:
        return await tab.services.people.operators(tab.operator.rules)

    def show(found: list[Operator]) -> None:
        table.put(rows=[_row(tab, o) for o in found], loading=False)

    def ask_add(role: str) -> None:
        async def answered(_: str, name: str) -> None:
            if not await _admin(tab):
                return
            if not _NAME.fullmatch(name):
                tab.toast(words("operators.bad_name"), bad=True)
                return
            try:
                password = await tab.services.people.add(name, Grant(role), tab.operator.name)
            except NameTaken:
                tab.toast(words("operators.taken"), bad=True)
                return
            _reveal(tab, name, password)

        title = f"{words('operators.add')} · {words(f'role.{role}')}"
        tab.ask(title, words("operators.hint"), answered, field=words("operators.name"), reason=True)

    async def acted(args: dict[str, str]) -> None:
        name = args["id"]

        async def answered(_: str, __: str) -> None:
            if await _admin(tab) and name != tab.operator.name:
                password = await tab.services.people.reset(name, tab.operator.name)
                if password is not None:
                    _reveal(tab, name, password)

        tab.ask(words("operators.ask_reset", name=name), words("operators.ask_reset_hint"), answered)

    table.listen("act", acted)
    tab.set_view(load, show, every_s=30)


async def _admin(tab: Tab) -> bool:
    """Still an administrator, now."""
    operator = await tab.session()
    if operator is not None and operator.may("admin") and not operator.must_change:
        return True
    tab.toast(tab.words("operators.only_admin"), bad=True)
    return False


def _reveal(tab: Tab, name: str, password: str) -> None:
    async def read(_: str, __: str) -> None:
        tab.reload()

    tab.reload()
    tab.ask(
        tab.words("operators.new_password", name=name), f"{password}  —  {tab.words('operators.once')}", read,
        name="password",
    )  # fmt: skip


def _row(tab: Tab, operator: Operator) -> dict[str, Any]:
    words = tab.words
    own = operator.name == tab.operator.name
    state = ["stale", words("operators.must_change")] if operator.must_change else ["online", words("operators.active")]
    return {
        "id": operator.name,
        "open": False,
        "cells": {
            "name": [operator.name, operator.language],
            "role": words(f"role.{operator.role}") if operator.role in ROLES else operator.role,
            "state": state,
            "acts": [] if own else [{"name": "reset", "label": words("operators.reset"), "tone": ""}],
        },
    }
