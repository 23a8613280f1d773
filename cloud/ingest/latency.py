"""How long things took, as histograms that add up: per gateway and kind, bucket i counts about 1.05^i milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

_BASE = 1.05
BUCKETS = 400  # up to 1.05^399 ms, three and a half days
_LOG = np.log(_BASE)


def buckets_of(durations_ms: NDArray[Any]) -> NDArray[np.int64]:
    """Counts per bucket (BUCKETS,) of durations; a negative one (a clock ahead of us) counts as zero."""
    index = np.floor(np.log(np.maximum(durations_ms, 1.0)) / _LOG).astype(np.int64)
    return np.bincount(np.minimum(index, BUCKETS - 1), minlength=BUCKETS)


def quantile_ms(buckets: NDArray[np.int64], q: float) -> float | None:
    """Upper edge of the bucket in which the quantile lies; None if nothing was counted."""
    total = int(buckets.sum())
    if not total:
        return None
    index = int(np.searchsorted(np.cumsum(buckets), q * total))
    return float(_BASE ** (index + 1))


class LatencyBook:
    """Collects in memory; :meth:`flush` adds to the table."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], NDArray[np.int64]] = {}

    def add(self, gateway: str, kind: str, durations_ms: NDArray[Any]) -> None:
        if len(durations_ms):
            key = (gateway, kind)
            counted = buckets_of(durations_ms)
            self._open[key] = self._open[key] + counted if key in self._open else counted

    def flush(self, conn: Connection[Any]) -> None:
        if not self._open:
            return
        with conn.cursor() as cursor:
            cursor.executemany(
                "insert into latency values (%s, %s, %s) on conflict (gateway_id, kind) do update set buckets ="
                " (select array_agg(a + b order by i) from unnest(latency.buckets, excluded.buckets)"
                " with ordinality as t(a, b, i))",
                [(gateway, kind, counts.tolist()) for (gateway, kind), counts in self._open.items()],
            )

    def clear(self) -> None:
        """What was flushed is committed."""
        self._open.clear()
