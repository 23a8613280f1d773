"""Which pushes are durable already, so that a repeat after a restart is recognised.

So many are remembered whatever their age, more of them for an hour: a fleet of 6 000 sends 20 000 in half a minute, and
a device repeats what it missed the answer to for much longer than that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

_KEPT = 20_000
_MOST = 200_000
_AGE_MS = 3_600_000


class Exchanges:
    """A copy in memory: asking the file would wait for the commit that is under way, thousands of times a second."""

    def __init__(self, db: sqlite3.Connection, now_ms: int) -> None:
        self._seen: dict[str, int] = dict(db.execute("select id, made_ms from exchange order by made_ms"))
        self._forgotten: list[str] = []  # in memory; the next commit takes them from the file
        self._forget(now_ms)

    def __contains__(self, exchange: str) -> bool:
        return exchange in self._seen

    def __len__(self) -> int:
        return len(self._seen)

    def write(self, db: sqlite3.Connection, new: Sequence[str], now_ms: int) -> None:
        db.executemany("delete from exchange where id = ?", [(name,) for name in self._forgotten])
        db.executemany("insert or ignore into exchange values (?, ?)", [(name, now_ms) for name in new])

    def written(self, new: Sequence[str], now_ms: int) -> None:
        self._forgotten.clear()
        for exchange in new:
            self._seen[exchange] = now_ms
        self._forget(now_ms)

    def _forget(self, now_ms: int) -> None:
        """Let the oldest go."""
        while len(self._seen) > _KEPT:
            oldest, made_ms = next(iter(self._seen.items()))
            if len(self._seen) <= _MOST and now_ms - made_ms <= _AGE_MS:
                return
            del self._seen[oldest]
            self._forgotten.append(oldest)
