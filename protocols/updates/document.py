"""The twin document ``update``: which versions the city wants in force on a gateway, and when it may change over.

```json
{"agent": {"name": "citybrain", "version": "0.2.0"},
 "models": [{"name": "nanodet", "version": "3"}], "packs": [], "templates": [],
 "window": {"start": "02:00", "end": "05:00", "utc_offset_min": 480, "days": [1, 2, 3, 4, 5, 6, 7]},
 "health": {"within_s": 120, "steady_s": 5}}
```

What is not named stays as it is; a list that is there is the whole list of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from protocols.core.errors import ContractError
from protocols.updates.names import Kind, check_name, check_version
from protocols.updates.window import Window

MAX_ITEMS = 64
#: The document's name in the twin.
TWIN_NAME = "update"


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """One artefact by name and version."""

    name: str
    version: str


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a new version proves itself: healthy for ``steady_s`` seconds without a break, within ``within_s`` of its
    start."""

    within_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 180.0
    steady_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 10.0


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The document. None: that kind is left alone."""

    agent: Item | None = None
    models: tuple[Item, ...] | None = None
    packs: tuple[Item, ...] | None = None
    templates: tuple[Item, ...] | None = None
    window: Window | None = None
    health: Health = Health()

    def content(self) -> dict[Kind, tuple[Item, ...]]:
        """The kinds that are content of an agent and are named here."""
        named: dict[Kind, tuple[Item, ...] | None] = {
            "models": self.models, "packs": self.packs, "templates": self.templates,
        }  # fmt: skip
        return {kind: items for kind, items in named.items() if items is not None}


def parse(document: Mapping[str, Any]) -> Wanted:
    """Raises ContractError ``update`` (or ``name``, ``version``, ``window``) saying what is wrong."""
    try:
        wanted = msgspec.convert(dict(document), Wanted)
    except msgspec.ValidationError as error:
        raise ContractError(f"update document: {error}", reason="update") from error
    for kind, items in wanted.content().items():
        if len(items) > MAX_ITEMS:
            raise ContractError(f"update document: more than {MAX_ITEMS} {kind}", reason="update")
        if len({item.name for item in items}) != len(items):
            raise ContractError(f"update document: {kind}: a name twice", reason="update")
        for item in items:
            check_name(item.name)
            check_version(item.version)
    if wanted.agent is not None:
        check_name(wanted.agent.name)
        check_version(wanted.agent.version)
    if wanted.window is not None:
        wanted.window.check()
    if wanted.health.steady_s >= wanted.health.within_s:
        raise ContractError("update document: health.steady_s must be below health.within_s", reason="update")
    return wanted


def to_document(wanted: Wanted) -> dict[str, Any]:
    """As JSON takes it; parts that are None are left out."""
    built: dict[str, Any] = msgspec.to_builtins(wanted)
    return {name: value for name, value in built.items() if value is not None}


def merge(before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The document with ``change`` laid over it: an item of a list takes the place of the one of its name.

    Raises ContractError if the result is no document.
    """
    merged: dict[str, Any] = dict(before)
    for key, value in change.items():
        if key in ("models", "packs", "templates") and isinstance(value, list | tuple):
            items = {str(item["name"]): item for item in merged.get(key) or ()}
            items |= {str(item["name"]): item for item in value}
            merged[key] = [items[name] for name in sorted(items)]
        else:
            merged[key] = value
    parse(merged)
    return merged
