"""Twin documents: every version that was wanted, and what the gateway made of the newest it knows.

A version is never changed or taken back: rolling back is wanting an older text again, as a new version. A gateway that
is offline gets the newest one when it returns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from cloud.audit import Entry, record
from cloud.notify import notify
from cloud.nul import has_nul
from cloud.twin import schema
from protocols.core.errors import CityBrainError
from protocols.uplink.batch import MAX_DOCUMENT_BYTES, Reported


class TwinError(CityBrainError):
    code = "twin"


class TwinInvalid(TwinError):
    """``path``: JSON pointer of what is wrong."""

    code = "twin.invalid"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path or '/'}: {message}")
        self.path = path


class TwinConflict(TwinError):
    """Somebody else has wanted something else meanwhile."""

    code = "twin.conflict"


class TwinNotFound(TwinError):
    code = "twin.not_found"


@dataclass(frozen=True, slots=True)
class Version:
    version: int
    document: Mapping[str, Any]
    author: str
    comment: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TwinState:
    """``state``: ``pending`` (wanted, no word yet), one of the gateway's own, or ``none`` (nothing is wanted)."""

    gateway_id: str
    name: str
    wanted: int
    version: int
    state: str
    detail: str
    document: Mapping[str, Any] | None
    at: datetime | None

    @property
    def settled(self) -> bool:
        """What is wanted is in force."""
        return self.wanted == self.version and self.state in ("applied", "")


#: What a document of a name must look like; raises TwinInvalid.
Check = Callable[[Mapping[str, Any]], None]
CHECKS: dict[str, Check] = {}


def _check_config(document: Mapping[str, Any]) -> None:
    wrong = schema.first_error(document)
    if wrong is not None:
        raise TwinInvalid(*wrong)


CHECKS["config"] = _check_config


def desire(
    conn: Connection[Any],
    gateway_id: str,
    name: str,
    document: Mapping[str, Any],
    author: str,
    comment: str = "",
    *,
    based_on: int | None = None,
) -> int:
    """Want a document in force; returns its version. ``based_on``: the version the author saw, else TwinConflict.

    Raises TwinInvalid, TwinConflict, TwinNotFound. In the caller's transaction."""
    if name not in CHECKS:
        raise TwinInvalid("", f"no document is called {name!r}; there are {', '.join(sorted(CHECKS))}")
    if len(json.dumps(document, ensure_ascii=False).encode()) > MAX_DOCUMENT_BYTES:
        raise TwinInvalid("", f"longer than {MAX_DOCUMENT_BYTES} bytes")
    if has_nul([gateway_id, author, comment, dict(document)]):
        raise TwinInvalid("", "a NUL character is in it")
    CHECKS[name](document)
    if conn.execute("select 1 from gateway where gateway_id = %s", (gateway_id,)).fetchone() is None:
        raise TwinNotFound(f"no gateway {gateway_id!r}")
    with conn.transaction():
        return _write(conn, gateway_id, name, document, author, comment, based_on)


def _write(
    conn: Connection[Any],
    gateway_id: str,
    name: str,
    document: Mapping[str, Any],
    author: str,
    comment: str,
    based_on: int | None,
) -> int:
    row = conn.execute(
        "insert into twin_reported as t (gateway_id, name, wanted) values (%s, %s, 1)"
        " on conflict (gateway_id, name) do update set wanted = t.wanted + 1 returning wanted",
        (gateway_id, name),
    ).fetchone()
    assert row is not None  # noqa: S101 - "returning" always gives the row
    version = int(row[0])
    if based_on is not None and based_on != version - 1:
        raise TwinConflict(f"{name} is at version {version - 1} by now, not {based_on}")
    conn.execute(
        "insert into twin_desired (gateway_id, name, version, document, author, comment)"
        " values (%s, %s, %s, %s, %s, %s)",
        (gateway_id, name, version, Jsonb(dict(document)), author, comment[:500]),
    )
    record(
        conn,
        Entry(author, "twin.desire", f"gateway/{gateway_id}", {"name": name, "version": version, "comment": comment}),
    )
    notify(conn, "gateway", gateway_id)
    return version


def roll_back(conn: Connection[Any], gateway_id: str, name: str, to_version: int, author: str) -> int:
    """Want an earlier version's text again; returns the new version. Raises TwinNotFound."""
    document = version(conn, gateway_id, name, to_version).document
    return desire(conn, gateway_id, name, document, author, f"back to version {to_version}")


def heard(conn: Connection[Any], gateway_id: str, report: Reported) -> None:
    """A report about an older version than one told before changes nothing."""
    conn.execute(
        "insert into twin_reported as r (gateway_id, name, version, state, detail, document, at, told_at)"
        " values (%s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0), now())"
        " on conflict (gateway_id, name) do update set version = excluded.version, state = excluded.state,"
        " detail = excluded.detail, document = coalesce(excluded.document, r.document), at = excluded.at,"
        " told_at = now() where excluded.version >= r.version and excluded.version <= r.wanted",
        (
            gateway_id, report.name, report.version, report.state, report.detail[:2000].replace("\x00", ""),
            None if report.document is None else Jsonb(dict(report.document)), report.at_ms,
        ),
    )  # fmt: skip
    if report.version and report.state not in ("received", "applying"):
        record(
            conn,
            Entry(
                f"gateway:{gateway_id}",
                f"twin.{report.state}",
                f"gateway/{gateway_id}",
                {"name": report.name, "version": report.version, "detail": report.detail[:500].replace("\x00", "")},
            ),
        )
    notify(conn, "gateway", gateway_id)


def version(conn: Connection[Any], gateway_id: str, name: str, number: int) -> Version:
    """Raises TwinNotFound."""
    row = conn.execute(
        "select version, document, author, comment, at from twin_desired"
        " where gateway_id = %s and name = %s and version = %s",
        (gateway_id, name, number),
    ).fetchone()
    if row is None:
        raise TwinNotFound(f"{gateway_id} has no version {number} of {name!r}")
    return Version(*row)


def history(conn: Connection[Any], gateway_id: str, name: str, limit: int = 50) -> list[Version]:
    """Newest first."""
    rows = conn.execute(
        "select version, document, author, comment, at from twin_desired where gateway_id = %s and name = %s"
        " order by version desc limit %s",
        (gateway_id, name, limit),
    )
    return [Version(*row) for row in rows]


def states(conn: Connection[Any], gateway_id: str) -> list[TwinState]:
    rows = conn.execute(
        """
        select gateway_id, name, wanted, version,
               case when wanted > version then 'pending' when state = '' then 'none' else state end,
               detail, document, at
          from twin_reported where gateway_id = %s order by name
        """,
        (gateway_id,),
    )
    return [TwinState(*row) for row in rows]
