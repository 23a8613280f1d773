"""Room on the database's disk: ingest stops while there is still some left, says so, and goes on by itself.

A disk that is really full takes PostgreSQL itself down as soon as its log needs a page more, and it does not come up
again. So the last of the room is never used: below the floor workers stop taking, the broker and then the outboxes
hold what comes, and what is left is enough for the alarm that says so, for people's work and for deleting. When there
is room again, they go on. Nothing is deleted to make room but what the policy lets go.

Where the database's folder cannot be seen from here (another machine) its own errors say that it is full; then too the
workers wait.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import Connection

from protocols.core.ids import derived_id
from protocols.core.model import Event
from protocols.vocabulary import event_types

log = logging.getLogger("citybrain.cloud.store")

SCENARIO = "platform/store"
_KEY = "core:disk"
_EVERY_S = 2.0
_LOW_SHARE, _FULL_SHARE = 0.10, 0.02
_FULL_BYTES = 256 << 20  # never below it: the log's segments are 16 MB, and a checkpoint may keep many of them
_AGAIN = 1.25  # so much above the floor before all is well again

State = Literal["ok", "low", "full"]


@dataclass(frozen=True, slots=True)
class Room:
    free_bytes: int
    total_bytes: int


def room_of(folder: Path) -> Room | None:
    """None where it cannot be seen."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def judge(room: Room, before: State, *, floor_bytes: int = _FULL_BYTES) -> State:
    """With a little more room asked for on the way back, so that it does not flap."""

    def below(limit: float, was: bool) -> bool:
        return room.free_bytes < limit * (_AGAIN if was else 1.0)

    # On a small disk the fixed floor would be all of it: a tenth is then enough.
    floor = max(room.total_bytes * _FULL_SHARE, min(floor_bytes, room.total_bytes * _LOW_SHARE))
    if below(floor, before == "full"):
        return "full"
    if below(max(room.total_bytes * _LOW_SHARE, 2 * floor), before != "ok"):
        return "low"
    return "ok"


class DiskWatch:
    """``folder``: the database's; None: asked of the database. Called by the worker before it takes anything."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        look: Callable[[Path], Room | None] = room_of,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._asked = folder is not None
        self._look = look
        self._steady_s = steady_s
        self._next_s = 0.0
        self._onset_ms = 0
        self._told: State = "ok"
        self._found = False
        self.state: State = "ok"
        self.room: Room | None = None

    @property
    def taking(self) -> bool:
        return self.state != "full"

    def look(self, conn: Connection[Any]) -> None:
        """Every few seconds; asks the database nothing but, once, where it lies."""
        if self._steady_s() < self._next_s:
            return
        self._next_s = self._steady_s() + _EVERY_S
        if not self._asked:
            self._asked = True
            self._folder = _folder_of(conn)
        if self._folder is None:
            return
        self.room = self._look(self._folder)
        if self.room is None:
            return
        state = judge(self.room, self.state)
        if state != self.state:
            free_mb = self.room.free_bytes >> 20
            if state == "full":
                log.error("the database's disk has %d MB left: nothing more is taken", free_mb)
            else:
                log.warning("the database's disk: %s, %d MB left", state, free_mb)
        self.state = state

    def events(self, conn: Connection[Any], now_ms: int) -> list[Event]:
        """What is to be said of it: one alarm, whoever of the workers says it first."""
        if not self._found:
            self._found = True
            row = conn.execute(
                "select (extract(epoch from onset_at) * 1000)::bigint, type from alarm where scenario = %s and key = %s"
                " and state <> 'cleared'",
                (SCENARIO, _KEY),
            ).fetchone()
            if row is not None:
                self._onset_ms, self._told = row[0], "full" if row[1] == "core.disk.full" else "low"
        if self.state == self._told:
            return []
        out: list[Event] = []
        if self._told != "ok":
            out.append(self._event(self._told, "clear", now_ms))
        if self.state != "ok":
            self._onset_ms = now_ms
            out.append(self._event(self.state, "raise", now_ms))
        self._told = self.state
        return out

    def _event(self, which: State, state: Literal["raise", "clear"], now_ms: int) -> Event:
        kind = f"core.disk.{which}"
        room = self.room or Room(0, 0)
        return Event(
            id=derived_id(SCENARIO, _KEY, kind, self._onset_ms, state),
            type=kind,
            ts_ms=now_ms,
            seen_ms=now_ms,
            source="core",
            scenario=SCENARIO,
            level=event_types()[kind].level,
            state=state,
            key=_KEY,
            values={"free_mb": room.free_bytes >> 20, "total_mb": room.total_bytes >> 20},
        )

    def forget(self) -> None:
        """The transaction in which something was said failed."""
        self._found, self._told, self._onset_ms = False, "ok", 0


def _folder_of(conn: Connection[Any]) -> Path | None:
    """The database's folder, if it is on this machine: a server we reach by a Unix socket."""
    if not (conn.info.host or "").startswith("/"):
        return None
    try:
        row = conn.execute("show data_directory").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    return Path(str(row[0])) if row else None
