"""Opaque page cursors: where the last page ended, as the values of its sort key.

A page is found by comparing with that key, never by counting rows off, so a row that arrives while somebody pages
neither repeats nor hides another.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from protocols.core.errors import ContractError

Key = float | int | str
RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class Page(Generic[RowT]):
    items: list[RowT]
    next_cursor: str | None  # None: this was the last page


def encode(key: Sequence[Key]) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(key), separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str | None, kinds: Sequence[type]) -> list[Key] | None:
    """The key in a cursor, checked against the kinds expected. Raises ContractError ``cursor``."""
    if not cursor:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error) as error:
        raise ContractError("cursor: not one that this server gave", reason="cursor") from error
    if (
        not isinstance(key, list)
        or len(key) != len(kinds)
        or not all(isinstance(v, k) for v, k in zip(key, kinds, strict=True))
    ):
        raise ContractError("cursor: belongs to another list", reason="cursor")
    return key


def cut(rows: list[RowT], limit: int, keys: list[list[Key]]) -> Page[RowT]:
    """A page out of ``limit + 1`` rows fetched."""
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], encode(keys[limit - 1]))
