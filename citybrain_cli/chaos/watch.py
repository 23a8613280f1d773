"""What the core has committed so far, gateway by gateway, asked twice a second by a thread that may hang.

A stopped database answers nobody; the harness must go on injecting and healing meanwhile, so it never asks itself.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

import psycopg

EVERY_S = 0.5


@dataclass(slots=True)
class Progress:
    """``rises``: monotonic seconds at which more was found committed than before."""

    readings: int = 0
    events: int = 0
    thinned: int = 0
    rises: list[float] = field(default_factory=list)

    def first_rise_after(self, at_s: float) -> float | None:
        place = bisect_right(self.rises, at_s)
        return self.rises[place] if place < len(self.rises) else None

    def longest_gap(self, from_s: float, until_s: float) -> float:
        """The longest time without anything new, that began or ended between the two."""
        inside = [from_s, *(t for t in self.rises if from_s < t < until_s), until_s]
        return max(b - a for a, b in pairwise(inside))


class Watch:
    """``progress`` is only ever replaced entry by entry; reading it needs no lock."""

    def __init__(self, dsn: str, gateways: list[str]) -> None:
        self._dsn = dsn
        self.progress = {gateway: Progress() for gateway in gateways}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=2) as conn:
                    while not self._end.wait(EVERY_S):
                        self._ask(conn)
            except psycopg.Error:
                self._end.wait(EVERY_S)

    def _ask(self, conn: psycopg.Connection[tuple[object, ...]]) -> None:
        rows = conn.execute(
            "select gateway_id, sum(readings)::bigint, sum(events)::bigint, sum(thinned)::bigint from lane_cursor"
            " group by gateway_id"
        ).fetchall()
        now_s = time.monotonic()
        for gateway, readings, events, thinned in rows:
            mine = self.progress.get(str(gateway))
            if mine is None:
                continue
            now = int(str(readings)), int(str(events)), int(str(thinned))
            if now != (mine.readings, mine.events, mine.thinned):
                mine.readings, mine.events, mine.thinned = now
                mine.rises.append(now_s)
