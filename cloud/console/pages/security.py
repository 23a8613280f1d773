"""An operator's own account: second factor, where he is logged in, and his API tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nicegui import ui

from cloud.auth import policy
from cloud.auth.errors import AuthError
from cloud.auth.mine import SessionRow
from cloud.auth.tokens import NEVER, ApiToken
from cloud.console import marks
from cloud.console.tab import Changes, Tab
from cloud.console.widgets import DataTable, FilterBar
from cloud.console.words import Words

_DAYS = ("30", "90", "365")
#: As they stand in a browser's name for itself; the first that fits.
_PROGRAMS = (
    ("MicroMessenger", "WeChat"), ("Edg", "Edge"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari"),
)  # fmt: skip
_SYSTEMS = (
    ("Windows", "Windows"), ("HarmonyOS", "HarmonyOS"), ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"),
    ("Mac OS", "macOS"), ("Linux", "Linux"),
)  # fmt: skip
_READING: tuple[policy.Action, ...] = ("view", "twin.read", "ledger.read")


@dataclass(frozen=True, slots=True)
class _Data:
    sessions: list[SessionRow]
    tokens: list[ApiToken]
    codes_left: int
    second_factor: bool


def build(tab: Tab) -> None:
    words = tab.words
    wanted = {"days": "90", "what": "read"}
    with ui.element("div").classes("cb-page"):
        with ui.element("div").classes("cb-head"):
            ui.html(marks.head(words("security.title"), words("security.hint")), sanitize=False)
        with ui.element("div").classes("cb-stack"):
            with ui.element("section").classes("cb-panel"):
                ui.html(marks.esc(words("code.title")), sanitize=False, tag="header")
                factor = ui.element("div").classes("body cb-bar")
            with ui.element("section").classes("cb-panel"):
                ui.html(marks.esc(words("security.sessions")), sanitize=False, tag="header")
                sessions = DataTable(
                    [
                        {"key": "where", "label": words("security.where"), "kind": "two"},
                        {"key": "factor", "label": words("security.factor"), "kind": "chip"},
                        {"key": "since", "label": words("security.since"), "kind": "at"},
                        {"key": "seen", "label": words("security.seen"), "kind": "age"},
                        {"key": "acts", "label": "", "kind": "acts", "align": "r"},
                    ],
                    empty=words("common.none"),
                )
            if tab.may("token.manage"):
                with ui.element("section").classes("cb-panel"):
                    with ui.element("header").classes("cb-bar"):
                        ui.label(words("security.tokens"))
                        bar = FilterBar(
                            [
                                {
                                    "key": "what",
                                    "kind": "seg",
                                    "value": "read",
                                    "options": [
                                        {"value": "read", "label": words("security.token_read")},
                                        {"value": "all", "label": words("security.token_all")},
                                    ],
                                },
                                {
                                    "key": "days",
                                    "kind": "seg",
                                    "value": "90",
                                    "options": [{"value": d, "label": words("security.days", n=d)} for d in _DAYS],
                                },
                            ]
                        )
                        with ui.element("button").classes("cb-btn small primary").props("data-new-token") as make:
                            ui.html(f"＋ {marks.esc(words('security.token_make'))}", sanitize=False, tag="span")
                    tokens = DataTable(
                        [
                            {"key": "label", "label": words("security.token"), "kind": "two"},
                            {"key": "actions", "label": words("security.token_actions")},
                            {"key": "expires", "label": words("security.token_ends"), "kind": "at"},
                            {"key": "used", "label": words("security.token_used"), "kind": "age"},
                            {"key": "state", "label": words("operators.state"), "kind": "state"},
                            {"key": "acts", "label": "", "kind": "acts", "align": "r"},
                        ],
                        empty=words("security.no_tokens"),
                        hint=words("security.token_hint"),
                    )
                make.on("click", lambda: ask_token())
                bar.listen("change", lambda values: chose(values))
                tokens.listen("act", lambda args: revoke(args))
    drawn: dict[str, Any] = {"factor": None}
    labels: dict[str, str] = {}  # of his tokens

    async def load(_: Changes) -> _Data:
        operator = await tab.session(active=False)
        name = tab.operator.name
        own = await tab.services.tokens.listed(name) if tab.may("token.manage") else []
        left = await tab.services.mine.codes_left(name)
        return _Data(await tab.services.mine.sessions(name), own, left, bool(operator and operator.second_factor))

    def show(data: _Data) -> None:
        sessions.put(rows=[_session(tab, row) for row in data.sessions], loading=False)
        if tab.may("token.manage"):
            labels.update({row.token_id: row.label for row in data.tokens})
            tokens.put(rows=[_token(tab, row) for row in data.tokens], loading=False)
        if (data.second_factor, data.codes_left) != drawn["factor"]:
            drawn["factor"] = (data.second_factor, data.codes_left)
            factor.clear()
            with factor:
                _factor(tab, data)

    async def ended(args: dict[str, str]) -> None:
        if await tab.services.mine.end(args["id"], tab.operator.name, of=tab.operator.name):
            tab.toast(words("security.ended"))
        tab.reload()

    async def chose(values: dict[str, str]) -> None:
        wanted["days"] = values["days"] if values.get("days") in _DAYS else "90"
        wanted["what"] = "all" if values.get("what") == "all" else "read"

    def ask_token() -> None:
        async def answered(_: str, label: str) -> None:
            operator = await tab.session()
            if operator is None or operator.held_up or not policy.allowed(operator, "token.manage"):
                tab.toast(words("common.session_over"), bad=True)
                return
            among = _READING if wanted["what"] == "read" else policy.ACTIONS
            actions = [a for a in among if a not in NEVER and policy.anywhere(operator, a)]
            try:
                _made, text = await tab.services.tokens.make(
                    operator.name, label[:80], actions, int(wanted["days"]), operator.name
                )
            except AuthError as error:
                tab.toast(str(error), bad=True)
                return
            tab.reload()
            tab.ask(
                words("security.token_new"), words("security.token_once"), _nothing,
                name="token", secret=text, confirm=words("common.kept"),
            )  # fmt: skip

        tab.ask(words("security.token_make"), words("security.token_hint"), answered,
                field=words("security.token"), line=True, reason=True)  # fmt: skip

    async def revoke(args: dict[str, str]) -> None:
        token_id = args["id"]

        async def answered(_: str, __: str) -> None:
            if await tab.session() is not None:
                await tab.services.tokens.revoke(token_id, tab.operator.name, of=tab.operator.name)
                tab.toast(words("security.token_revoked"))
                tab.reload()

        tab.ask(
            words("security.ask_revoke", name=labels.get(token_id, token_id)), words("security.ask_revoke_hint"),
            answered, confirm=words("security.token_revoke"), danger=True,
        )  # fmt: skip

    sessions.listen("act", ended)
    tab.set_view(load, show, every_s=20)


async def _nothing(_: str, __: str) -> None:
    return None


def _factor(tab: Tab, data: _Data) -> None:
    words = tab.words
    if tab.operator.sso:
        ui.label(words("security.factor_sso")).classes("cb-sub")
        return
    if not data.second_factor:
        ui.label(words("security.factor_off")).classes("cb-sub")

        async def set_up() -> None:
            tab.client.run_javascript("location.href = '/second-factor'")  # a plain page, outside the views

        with ui.element("button").classes("cb-btn primary").props("data-setup").on("click", set_up):
            ui.html(marks.esc(words("code.setup")), sanitize=False, tag="span")
        return
    ui.label(words("security.factor_on", n=data.codes_left)).classes("cb-sub").props("data-factor")

    async def renew(_: str, code: str) -> None:
        try:
            codes = await tab.services.mine.renew_codes(tab.operator, code)
        except AuthError:
            tab.toast(words("code.wrong"), bad=True)
            return
        tab.reload()
        tab.ask(
            words("code.recovery"), words("code.keep"), _nothing,
            name="codes", secret="  ".join(codes), confirm=words("common.kept"),
        )  # fmt: skip

    async def remove(_: str, code: str) -> None:
        try:
            await tab.services.mine.remove(tab.operator, code)
        except AuthError as error:
            tab.toast(words("code.wrong") if error.code == "auth.wrong_code" else str(error), bad=True)
            return
        tab.toast(words("security.factor_removed"))
        tab.reload()

    for key, step in (("security.codes_renew", renew), ("security.factor_remove", remove)):
        tone = " danger" if step is remove else ""
        with ui.element("button").classes(f"cb-btn small{tone}").props(f'data-do="{key.partition(".")[2]}"') as button:
            ui.html(marks.esc(words(key)), sanitize=False, tag="span")
        button.on(
            "click",
            lambda key=key, step=step: tab.ask(
                words(key),
                words("code.hint"),
                step,
                field=words("code.field"),
                line=True,
                reason=True,
                confirm=words(key),
                danger=step is remove,
            ),
        )


def _browser(agent: str) -> str:
    """A browser's long name for itself, as far as it helps to tell one's own devices apart."""
    program = next((name for mark, name in _PROGRAMS if mark in agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    return " · ".join(part for part in (program, system) if part) or agent[:60]


def _allows(words: Words, actions: Sequence[str]) -> str:
    if set(actions) <= set(_READING):
        return words("security.token_read")
    return words("security.token_n", n=len(actions))


def _session(tab: Tab, row: SessionRow) -> dict[str, Any]:
    words = tab.words
    own = row.session_id == tab.token.sid
    return {
        "id": row.session_id,
        "open": False,
        "cells": {
            "where": [row.address, words("security.this_one") if own else _browser(row.agent)],
            "factor": words(f"security.by_{row.factor}"),
            "since": marks.ms(row.created_at),
            "seen": marks.ms(row.seen_at),
            "acts": [] if own else [{"name": "end", "label": words("security.end"), "tone": ""}],
        },
    }


def _token(tab: Tab, row: ApiToken) -> dict[str, Any]:
    words = tab.words
    state = (
        ["offline", words("security.token_revoked")]
        if row.revoked_at
        else ["stale", words("security.token_over")]
        if row.expires_at <= datetime.now(UTC)
        else ["online", words("operators.active")]
    )
    return {
        "id": row.token_id,
        "open": False,
        "cells": {
            "label": [row.label, f"cbt_{row.token_id}_…"],
            "actions": _allows(words, row.actions),
            "expires": marks.ms(row.expires_at),
            "used": marks.ms(row.used_at),
            "state": state,
            "acts": []
            if row.revoked_at
            else [{"name": "revoke", "label": words("security.token_revoke"), "tone": "danger"}],
        },
    }
