"""The core's housekeeper: rollups and retention, by one holder at a time, a little and often.

Every worker process starts one; whoever holds the advisory lock works, the others wait to take over. It works in short
transactions and rests between them for as long as they took, so that ingest has the machine.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import Connection

from cloud.store import retention, rollup

log = logging.getLogger("citybrain.cloud.store")

_LOCK = 0x6B656570  # "keep"
_REST_S = 5.0
_RETRY_S = 30.0


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def tidy(
    conn: Connection[Any],
    now_ms: int,
    *,
    steps: int = 1_000_000,
    rest: Callable[[float], object] = lambda _took_s: None,
) -> dict[str, int]:
    """Do what is due, at most so many steps; returns how many of each kind were done. ``conn`` is in autocommit."""
    done = {"slices": 0, "hours_anew": 0, "removed": 0}
    rollup.move_mark(conn, now_ms)
    for _ in range(steps):
        began = time.monotonic()
        if rollup.make_slice(conn):
            done["slices"] += 1
        elif hours := rollup.make_anew(conn):
            done["hours_anew"] += hours
        elif retention.step(conn, now_ms) is not None:
            done["removed"] += 1
        else:
            break
        rest(time.monotonic() - began)
    return done


class Housekeeper:
    """A thread. ``with Housekeeper(dsn): ...`` runs it for as long as the block."""

    def __init__(self, dsn: str, *, now_ms: Callable[[], int] = wall_ms, rest_s: float = _REST_S) -> None:
        self._dsn = dsn
        self._now_ms = now_ms
        self._rest_s = rest_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    def __enter__(self) -> Housekeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, application_name="citybrain-housekeeper") as conn:
                    self._serve(conn)
            except psycopg.Error as error:
                # The database is away or full, or somebody held a lock for too long: later is as good.
                log.warning("housekeeping put off: %s", str(error).strip().splitlines()[0])
                self._stop.wait(_RETRY_S)

    def _serve(self, conn: Connection[Any]) -> None:
        while not self._stop.is_set():
            row = conn.execute("select pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
            if row and row[0]:
                break
            self._stop.wait(self._rest_s)
        while not self._stop.is_set():
            tidy(conn, self._now_ms(), steps=200, rest=lambda took_s: self._stop.wait(min(took_s, 5.0)))
            self._stop.wait(self._rest_s)
