"""One open browser tab: who sits there, in which language, and which view is on the screen.

A view says how to load its data and how to show it. The tab calls it when something has changed (told by the hub,
looked at once a second), or when the view's own pace is due, and never twice at a time. An answer that arrives after
the operator has gone to another view is dropped.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from nicegui import background_tasks, ui

from cloud.api.deps import Services
from cloud.auth import policy
from cloud.auth.operator import Operator
from cloud.auth.sessions import Token
from cloud.auth.sight import Thing, place
from cloud.auth.sight import of as sight_of
from cloud.console.prefs import Prefs
from cloud.console.said import refusal
from cloud.console.widgets import Ask
from cloud.console.words import Words
from cloud.query.live import Change
from cloud.query.sight import Sight
from protocols.core.errors import CityBrainError, StoreError

log = logging.getLogger(__name__)

Changes = list[Change] | None  # None: anything may have changed


@dataclass(slots=True)
class View:
    load: Callable[[Changes], Awaitable[Any]]
    show: Callable[[Any], None]
    every_s: float  # ages and deadlines count in the browser; this is for what comes without a notification
    shown_s: float = 0.0


class Tab:
    def __init__(self, services: Services, operator: Operator, token: Token, text: str, prefs: Prefs) -> None:
        self.services = services
        self.operator = operator
        self.token = token
        self.text = text
        self.prefs = prefs
        self.words = Words(operator.language)
        self.client = ui.context.client
        self.subscription = services.hub.subscribe()
        self.error_box: Any = None
        self.ask_box: Ask | None = None
        self.on_answer: Callable[[str, str], Awaitable[None]] | None = None
        self._view: View | None = None
        self._checked_s = time.monotonic()

    @property
    def dark(self) -> bool:
        return self.prefs.theme == "dark"

    def set_view(
        self, load: Callable[[Changes], Awaitable[Any]], show: Callable[[Any], None], *, every_s: float = 10.0
    ) -> None:
        self._view = View(load, show, every_s)
        self.reload()

    def no_view(self) -> None:
        self._view = None

    def reload(self) -> None:
        """Load the view again now, after an act or a new filter."""
        background_tasks.create(self.run_view(None), name="console view", context=self.client)

    async def run_view(self, changes: Changes) -> None:
        view = self._view
        if view is None:
            return
        view.shown_s = time.monotonic()
        try:
            data = await view.load(changes)
        except (StoreError, psycopg.Error) as error:
            log.warning("console view: %s", error)
            self.show_error(self.words("common.failed", error=error.__class__.__name__))
            return
        if view is not self._view or self.client.is_deleted:
            return
        self.show_error("")
        if data is not None:
            view.show(data)

    async def tick(self) -> Changes:
        """Once a second: what has changed since; runs the view if it wants to know."""
        changes = self.subscription.take()
        view = self._view
        if view is not None and (changes is None or changes or time.monotonic() - view.shown_s >= view.every_s):
            await self.run_view(changes)
        if time.monotonic() - self._checked_s > 20:
            self._checked_s = time.monotonic()
            if await self.session(active=False) is None:
                self.client.run_javascript("location.href = '/login'")
        return changes

    @property
    def sight(self) -> Sight:
        """What this operator may see; every read of a view is given it."""
        return sight_of(self.operator)

    def may(self, action: policy.Action) -> bool:
        """Whether there is a place where he may: for what a page offers. What is done is checked when it is done."""
        return policy.anywhere(self.operator, action)

    async def session(self, *, active: bool = True) -> Operator | None:
        """The operator as the database has him now; None once logged out, or the password changed elsewhere.
        ``active=False`` is the page asking by itself, which keeps no session alive."""
        try:
            found = await self.services.accounts.check(self.text, active=active)
        except StoreError:
            return self.operator  # not knowing is no reason to throw somebody out
        if found is None:
            return None
        self.operator = found[0]
        return self.operator

    async def act(
        self,
        step: Callable[[str], Awaitable[None]],
        said: str,
        *,
        action: policy.Action = "case.act",
        thing: tuple[Thing, str] | None = None,
        where: policy.Scope | None = None,
    ) -> bool:
        """Do something in this operator's name if he still may, with this thing or in this place (None: with the whole
        city); says in a toast what came of it."""
        operator = await self.session()
        if operator is None or operator.held_up:
            self.toast(self.words("common.session_over"), bad=True)
            self.client.run_javascript("location.href = '/login'")
            return False
        if not await self._allowed(operator, action, thing, where):
            self.toast(self.words("common.not_allowed", role=self.words(f"role.{operator.role}")), bad=True)
            return False
        try:
            await step(operator.name)
        except CityBrainError as error:
            self.toast(refusal(self.words, error), bad=True)
            self.reload()
            return False
        self.toast(said)
        self.reload()
        return True

    async def _allowed(
        self, operator: Operator, action: policy.Action, thing: tuple[Thing, str] | None, where: policy.Scope | None
    ) -> bool:
        if thing is None:
            return policy.allowed(operator, action, where)
        try:
            async with self.services.pool.connection() as conn:
                scope = await place(conn, *thing)
        except StoreError:
            return False
        return policy.allowed(operator, action, scope)

    def ask(
        self,
        title: str,
        hint: str,
        on_answer: Callable[[str, str], Awaitable[None]],
        *,
        name: str = "",
        field: str = "",
        line: bool = False,
        reason: bool = False,
        confirm: str = "",
        danger: bool = False,
        secret: str = "",
    ) -> None:
        if self.ask_box is not None:
            self.on_answer = on_answer
            self.ask_box.ask(
                name, title, hint, field=field, line=line, reason=reason, confirm=confirm, danger=danger, secret=secret
            )

    async def answered(self, answer: dict[str, str]) -> None:
        if self.on_answer is not None:
            await self.on_answer(answer["name"], answer["text"])

    def toast(self, text: str, *, bad: bool = False) -> None:
        self.client.run_javascript(f"cb.toast({_js(text)}, {'true' if bad else 'false'})")

    def show_error(self, text: str) -> None:
        if self.error_box is not None and self.error_box.text != text:
            self.error_box.set_text(text)
            self.error_box.set_visibility(bool(text))

    def bring(self, element: ui.element, block: str = "start") -> None:
        """Into sight, once it has been drawn. ``nearest``: not at all where it is in sight."""
        show = f"getHtmlElement({element.id})?.scrollIntoView({{block: '{block}', behavior: 'smooth'}})"
        self.client.run_javascript(f"setTimeout(() => {show}, 60)")

    def go(self, path: str) -> None:
        ui.navigate.to(path)

    def close(self) -> None:
        self._view = None
        self.subscription.close()


def _js(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("</", "<\\/").replace("\u2028", "").replace("\u2029", "")
