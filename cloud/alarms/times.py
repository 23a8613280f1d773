"""Milliseconds and timestamptz, exactly. Floating seconds would move a time by a millisecond now and then, and an
alarm's identity hangs on its onset to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import overload

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


@overload
def at(ms: int) -> datetime: ...
@overload
def at(ms: None) -> None: ...
def at(ms: int | None) -> datetime | None:
    """UTC milliseconds as the value psycopg stores."""
    return None if ms is None else _EPOCH + ms * _MS


@overload
def ms_of(when: datetime) -> int: ...
@overload
def ms_of(when: None) -> None: ...
def ms_of(when: datetime | None) -> int | None:
    return None if when is None else (when - _EPOCH) // _MS
