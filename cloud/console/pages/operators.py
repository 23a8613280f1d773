"""Who may log in, with which role and for which place. For administrators; nobody changes his own account here."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nicegui import ui

from cloud.auth import policy
from cloud.auth.errors import AuthError, NameTaken
from cloud.auth.mine import SessionRow
from cloud.auth.operator import ROLES, Operator
from cloud.auth.rules import ANY, Grant
from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable, FilterBar
from cloud.console.words import Words
from protocols.vocabulary import departments, districts

_NAME = re.compile(r"[\w.-]{2,32}")


@dataclass(slots=True)
class _Choice:
    """What stands in the bar: for somebody new, or for the one who is open."""

    role: str = "operator"
    department: str = ANY
    district: str = ANY

    @property
    def grant(self) -> Grant:
        return Grant(self.role, self.department, self.district)

    def take(self, values: dict[str, str]) -> None:
        if values.get("role") in ROLES:
            self.role = values["role"]
        self.department = values["department"] if values.get("department") in departments() else ANY
        self.district = values["district"] if values.get("district") in districts() else ANY


@dataclass(frozen=True, slots=True)
class _Data:
    operators: list[Operator]
    sessions: list[SessionRow] = field(default_factory=list)


def build(tab: Tab) -> None:
    words = tab.words
    if not policy.allowed(tab.operator, "operator.manage"):
        tab.no_view()
        with ui.element("div").classes("cb-page"):
            ui.html(marks.empty("operators", words("operators.only_admin"), ""), sanitize=False)
        return
    new, chosen = _Choice(), {"name": ""}
    with ui.element("div").classes("cb-page").style("overflow:hidden"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("operators.title"), words("operators.hint")), sanitize=False)
            with ui.element("div").classes("right"):
                place = FilterBar(_place_fields(words))
                for role in ("operator", "viewer", "admin", "clerk", "dispatcher", "installer"):
                    button = ui.element("button").classes("cb-btn small" + (" primary" if role == "operator" else ""))
                    with button.props(f'data-add="{role}"'):
                        ui.html(f"＋ {words(f'role.{role}')}", sanitize=False, tag="span")
                    button.on("click", lambda role=role: ask_add(role))
        with ui.element("div").classes("cb-split"):
            table = DataTable(
                [
                    {"key": "name", "label": words("operators.name"), "kind": "two"},
                    {"key": "role", "label": words("operators.role"), "kind": "two"},
                    {"key": "factor", "label": words("operators.factor")},
                    {"key": "state", "label": words("operators.state"), "kind": "state"},
                    {"key": "acts", "label": "", "kind": "acts", "align": "r"},
                ],
                empty=words("common.none"),
            ).classes("cb-panel cb-scroll")
            side = ui.element("aside").classes("cb-panel cb-scroll")
    drawn: dict[str, Any] = {"data": None}

    async def load(_: Changes) -> _Data:
        people = await tab.services.people.operators(tab.operator.rules)
        found = await tab.services.mine.sessions(chosen["name"]) if chosen["name"] else []
        return _Data(people, found)

    def show(data: _Data) -> None:
        table.put(rows=[_row(tab, o) for o in data.operators], loading=False, selected=chosen["name"])
        one = next((o for o in data.operators if o.name == chosen["name"]), None)
        if (one, data.sessions) != drawn["data"]:
            drawn["data"] = (one, data.sessions)
            side.clear()
            with side:
                _card(tab, one, data.sessions)
            if one is not None:
                tab.bring(side, "nearest")  # on a telephone it stands below the list

    def ask_add(role: str) -> None:
        async def answered(_: str, name: str) -> None:
            if not await _admin(tab):
                return
            if not _NAME.fullmatch(name):
                tab.toast(words("operators.bad_name"), bad=True)
                return
            grant = Grant(role, new.department, new.district)
            try:
                password = await tab.services.people.add(name, grant, tab.operator.name)
            except NameTaken:
                tab.toast(words("operators.taken"), bad=True)
                return
            _reveal(tab, name, password)

        title = f"{words('operators.add')} · {_said(words, Grant(role, new.department, new.district))}"
        tab.ask(title, words("operators.hint"), answered, field=words("operators.name"), line=True, reason=True)

    async def placed(values: dict[str, str]) -> None:
        new.take(values)

    async def opened(name: str) -> None:
        chosen["name"] = name
        tab.reload()

    async def acted(args: dict[str, str]) -> None:
        name = args["id"]

        async def answered(_: str, __: str) -> None:
            if await _admin(tab) and name != tab.operator.name:
                try:
                    password = await tab.services.people.reset(name, tab.operator.name)
                except AuthError as error:
                    tab.toast(str(error), bad=True)
                    return
                if password is not None:
                    _reveal(tab, name, password)

        tab.ask(words("operators.ask_reset", name=name), words("operators.ask_reset_hint"), answered, danger=True)

    place.listen("change", placed)
    table.listen("open", opened)
    table.listen("act", acted)
    tab.set_view(load, show, every_s=30)


def _place_fields(words: Words, grant: Grant | None = None) -> list[dict[str, Any]]:
    return [
        {
            "key": "department",
            "kind": "select",
            "value": "" if grant is None or grant.department == ANY else grant.department,
            "placeholder": words("cases.all_departments"),
            "options": [{"value": d, "label": words.department(d)} for d in departments()],
        },
        {
            "key": "district",
            "kind": "select",
            "value": "" if grant is None or grant.district == ANY else grant.district,
            "placeholder": words("operators.all_districts"),
            "options": [{"value": d.id, "label": words.either(d.zh, d.en)} for d in districts().values()],
        },
    ]


def _card(tab: Tab, operator: Operator | None, sessions: list[SessionRow]) -> None:
    """One account: its roles and places, its sessions, and what may be done with it."""
    words = tab.words
    if operator is None or operator.name == tab.operator.name:
        key = "operators.pick" if operator is None else "operators.own"
        ui.html(marks.empty("operators", words(key), ""), sanitize=False).style("height:100%")
        return
    wanted = _Choice(operator.role, operator.department, operator.district)

    async def change(step: Callable[[], Awaitable[object]], said: str) -> None:
        if not await _admin(tab):
            return
        try:
            await step()
        except AuthError as error:
            tab.toast(str(error), bad=True)
            tab.reload()
            return
        tab.toast(said)
        tab.reload()

    async def taken(values: dict[str, str]) -> None:
        wanted.take(values)

    async def put(grant: Grant, more: Sequence[Grant]) -> None:
        await change(lambda: people.set_access(operator.name, grant, more, by), words("operators.saved"))

    people, by = tab.services.people, tab.operator.name
    with ui.element("div").classes("body cb-stack").style("padding:16px").props(f'data-operator="{operator.name}"'):
        ui.html(f'<div class="cb-cardhead"><h2>{marks.esc(operator.name)}</h2></div>', sanitize=False)
        roles = [{"value": r, "label": words(f"role.{r}")} for r in ROLES if (r == "service") == _machine(operator)]
        first = {"key": "role", "kind": "select", "value": operator.role, "placeholder": words("operators.role")}
        bar = FilterBar([first | {"options": roles}, *_place_fields(words, operator.grants[0])])
        bar.listen("change", taken)
        with ui.element("div").classes("cb-bar"):

            async def save() -> None:
                await put(wanted.grant, operator.more)

            async def add_role() -> None:
                more = [*operator.more, wanted.grant]
                await put(operator.grants[0], more)

            _button(words("operators.save"), "save", save, "primary")
            _button(words("operators.add_role"), "add-role", add_role)
        for grant in operator.more:

            async def drop(grant: Grant = grant) -> None:
                more = [g for g in operator.more if g != grant]
                await put(operator.grants[0], more)

            with ui.element("div").classes("cb-bar"):
                ui.label(_said(words, grant)).classes("cb-chip")
                _button(words("operators.drop"), "drop", drop)
        with ui.element("div").classes("cb-bar"):

            async def disable(_: str, __: str) -> None:
                await change(
                    lambda: people.set_disabled(operator.name, not operator.disabled, by), words("operators.saved")
                )

            async def lose_factor(_: str, __: str) -> None:
                await change(lambda: tab.services.mine.take_away(operator.name, by), words("operators.saved"))

            for name, key, step in (
                ("disable", "enable" if operator.disabled else "disable", disable),
                *([("factor-reset", "factor_reset", lose_factor)] if operator.second_factor else []),
            ):
                danger = key != "enable"

                async def ask(key: str = key, step: Any = step, danger: bool = danger) -> None:
                    title, hint = words(f"operators.ask_{key}", name=operator.name), words(f"operators.ask_{key}_hint")
                    tab.ask(title, hint, step, confirm=words(f"operators.{key}"), danger=danger)

                _button(words(f"operators.{key}"), name, ask, "danger" if danger else "")
        ui.html(f"<h3>{marks.esc(words('security.sessions'))}</h3>", sanitize=False)
        if not sessions:
            ui.label(words("security.no_sessions")).classes("cb-sub")
        for row in sessions:

            async def end(session_id: str = row.session_id) -> None:
                await change(lambda: tab.services.mine.end(session_id, by, of=operator.name), words("security.ended"))

            with ui.element("div").classes("cb-bar").props("data-session"):
                ui.html(f'<div class="cb-sub">{marks.esc(row.address)} · {marks.at(row.seen_at)}</div>', sanitize=False)
                _button(words("security.end"), "end", end)


def _button(label: str, name: str, on_click: Any, tone: str = "") -> None:
    with ui.element("button").classes(f"cb-btn small {tone}").props(f'data-do="{name}"').on("click", on_click):
        ui.html(marks.esc(label), sanitize=False, tag="span")


def _machine(operator: Operator) -> bool:
    return operator.role == "service"


async def _admin(tab: Tab) -> bool:
    """Still an administrator, now."""
    operator = await tab.session()
    if operator is not None and not operator.held_up and policy.allowed(operator, "operator.manage"):
        return True
    tab.toast(tab.words("operators.only_admin"), bad=True)
    return False


def _reveal(tab: Tab, name: str, password: str) -> None:
    async def read(_: str, __: str) -> None:
        tab.reload()

    tab.reload()
    tab.ask(
        tab.words("operators.new_password", name=name), tab.words("operators.once"), read,
        name="password", secret=password, confirm=tab.words("common.kept"),
    )  # fmt: skip


def _language(operator: Operator) -> str:
    return "English" if operator.language == "en" else "中文"


def _said(words: Words, grant: Grant) -> str:
    place = districts().get(grant.district)
    parts = [
        words(f"role.{grant.role}") if grant.role in ROLES else grant.role,
        "" if grant.department == ANY else words.department(grant.department),
        "" if place is None else words.either(place.zh, place.en),
    ]
    return " · ".join(part for part in parts if part)


def _row(tab: Tab, operator: Operator) -> dict[str, Any]:
    words = tab.words
    own = operator.name == tab.operator.name
    state = (
        ["offline", words("operators.disabled")]
        if operator.disabled
        else ["stale", words("operators.must_change")]
        if operator.must_change
        else ["online", words("operators.active")]
    )
    without_password = own or operator.sso or _machine(operator)
    first, *more = (_said(words, grant) for grant in operator.grants)
    return {
        "id": operator.name,
        "cells": {
            "name": [operator.name, words("operators.sso") if operator.sso else _language(operator)],
            "role": [first, "；".join(more)],
            "factor": words("operators.factor_on") if operator.second_factor else "–",
            "state": state,
            "acts": [] if without_password else [{"name": "reset", "label": words("operators.reset"), "tone": ""}],
        },
    }
