"""Writing an entry: in the transaction of the deed itself, so that neither is there without the other.

Nothing waits here: no lock, no counter shared between transactions. Entries get their place in the tree afterwards
(sequencer.py), in the order in which they were committed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection, Connection

_INSERT = "insert into audit_entry (who, action, what, detail) values (%s, %s, %s, %s)"
#: A detail above this is kept as its digest: an operator's megabyte must not fill the log.
MAX_DETAIL_BYTES = 16_384

#: What a leaf is made of, as texts that lose nothing: time in microseconds since 1970, detail as it was written.
LEAF_COLUMNS = "e.entry_id, trunc(extract(epoch from e.at) * 1000000)::text, e.who, e.action, e.what, e.detail::text"


@dataclass(frozen=True, slots=True)
class Entry:
    """``who``: operator, ``gateway:<id>``, ``token:<name>`` or ``system``. ``action`` as ``command.send``, ``login``.
    ``what``: what it was done to, as ``gateway/gw-1``. ``detail``: flat JSON without secrets."""

    who: str
    action: str
    what: str
    detail: Mapping[str, object] = field(default_factory=dict)


def record(conn: Connection[Any], entry: Entry) -> None:
    """In the caller's transaction."""
    conn.execute(_INSERT, _row(entry))


async def arecord(conn: AsyncConnection[Any], entry: Entry) -> None:
    """In the caller's transaction."""
    await conn.execute(_INSERT, _row(entry))


def leaf_bytes(entry_id: int, at_us: str, who: str, action: str, what: str, detail: str) -> bytes:
    """What is hashed: a title, then each field as a netstring (``<bytes>:<content>,``), so that no two entries have
    the same bytes. ``at_us``: decimal microseconds since 1970; ``detail``: the JSON text as stored."""
    parts = [b"citybrain audit entry 1\n"]
    for text in (str(entry_id), at_us, who, action, what, detail):
        data = text.encode()
        parts.append(b"%d:%b," % (len(data), data))
    return b"".join(parts)


def _row(entry: Entry) -> tuple[str, str, str, str]:
    return _text(entry.who, 128), _text(entry.action, 64), _text(entry.what, 256), _detail(entry.detail)


def _text(value: str, most: int) -> str:
    """As the database takes it: whatever somebody typed as a name must not keep his deed out of the log."""
    return value[:most].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _detail(detail: Mapping[str, object]) -> str:
    text = json.dumps(_plain(detail), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    data = text.encode()
    if len(data) > MAX_DETAIL_BYTES:
        cut = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "kept": "digest"}
        return json.dumps(cut, sort_keys=True, separators=(",", ":"))
    return text


def _plain(value: object) -> object:
    """JSON that every reader takes: no NUL, no half characters, no NaN; other kinds of objects by their text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {_text(str(key), 1024): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return _text(str(value), MAX_DETAIL_BYTES)
