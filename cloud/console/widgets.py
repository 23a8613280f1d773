"""Python ends of the components in ``web/``: properties go down as data, events come up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui.element import Element
from nicegui.events import GenericEventArguments

Handler = Callable[[Any], Awaitable[None]]


class _Widget(Element):  # type: ignore[misc]  # NiceGUI is not typed for us
    def __init_subclass__(cls, *, component: str | None = None, **more: Any) -> None:
        super().__init_subclass__(component=component, **more)

    def put(self, **props: Any) -> None:
        """Set properties; nothing is sent for those that did not change."""
        named = {key.replace("_", "-"): value for key, value in props.items()}
        changed = {key: value for key, value in named.items() if self._props.get(key) != value}
        if changed:
            self._props.update(changed)
            self.update()

    def listen(self, event: str, handler: Handler) -> None:
        async def call(arguments: GenericEventArguments) -> None:
            await handler(arguments.args)

        self.on(event, call)


class TopBar(_Widget, component="web/top_bar.js"):
    pass


class NavRail(_Widget, component="web/nav_rail.js"):
    pass


class DataTable(_Widget, component="web/data_table.js"):
    def __init__(self, columns: list[dict[str, Any]], *, empty: str, hint: str = "") -> None:
        super().__init__()
        self._props.update(columns=columns, rows=[], loading=True)
        self._props["empty-title"] = empty
        self._props["empty-hint"] = hint


class FilterBar(_Widget, component="web/filter_bar.js"):
    def __init__(self, fields: list[dict[str, Any]]) -> None:
        super().__init__()
        self._props["fields"] = fields


class Clocks(_Widget, component="web/clocks.js"):
    pass


class CaseList(_Widget, component="web/case_list.js"):
    pass


class Values(_Widget, component="web/values.js"):
    pass


class Ask(_Widget, component="web/ask.js"):
    def __init__(self, cancel: str, confirm: str, missing: str) -> None:
        super().__init__()
        self._props.update(cancel=cancel, confirm=confirm, missing=missing)

    def ask(
        self,
        name: str,
        title: str,
        hint: str,
        *,
        field: str = "",
        line: bool = False,
        reason: bool = False,
        confirm: str = "",
        danger: bool = False,
        secret: str = "",
    ) -> None:
        """Show the question; the answer comes as event ``answer`` with ``name`` and ``text``. ``line``: the field takes
        one line, Enter sends it. ``secret``: shown to be copied, with one button and no other way out."""
        question = {
            "name": name, "title": title, "hint": hint, "field": field, "line": line, "reason": reason,
            "confirm": confirm, "danger": danger, "secret": secret,
        }  # fmt: skip
        self.run_method("ask", question)


class TableImport(_Widget, component="web/table_import.js"):
    def __init__(self, kind: str, words: dict[str, str], *, zh: bool) -> None:
        super().__init__()
        self._props.update(kind=kind, words=words, zh=zh)


class CityMap(_Widget, component="web/city_map.js"):
    pass
