"""Corrections: later ones overrule earlier ones, and last values follow the truth whatever order things arrive in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.ingest.clocks import Truth, overrule, unknown_clock
from protocols.uplink.batch import CLOCK_UNKNOWN, ClockCorrection
from tests.cloud_store.bench import GATEWAY, HOUR_MS, T0_MS, Store

TOLD = st.builds(
    lambda start, length, offset, run: ClockCorrection(start, start + length, offset, 0, "step", run),
    st.integers(0, 40),
    st.integers(1, 20),
    st.integers(-5, 5),
    st.integers(1, 2),
)


@given(st.lists(TOLD, max_size=8))
def test_the_last_word_on_each_moment_counts(told: list[ClockCorrection]) -> None:
    truth: list[Truth] = []
    for one in told:
        truth = overrule(truth, one)
    for run in (1, 2):
        for moment in range(62):
            wanted = [c.offset_ms for c in told if c.run == run and c.from_ms <= moment < c.to_ms][-1:] or [0]
            found = [t.offset_ms for t in truth if t.run == run and t.from_ms <= moment < t.to_ms] or [0]
            assert found == wanted


@pytest.fixture
def store(dsn: str) -> Iterator[Store]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        found = Store(dsn, conn)
        found.now_ms += 5 * HOUR_MS
        yield found


def _last(store: Store) -> tuple[float, int]:
    store.now_ms += 1000
    store.committer.tick(store.conn, [])
    value, ts = store.all("select value, ts from last_value")[0]
    return value, round((ts - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000)


def test_a_clock_that_was_ahead_does_not_stop_the_last_value(store: Store) -> None:
    store.commit([(0, T0_MS + HOUR_MS, 10)], clock_run=1)  # an hour ahead
    assert _last(store) == (1.0, T0_MS + HOUR_MS)
    store.commit([(0, T0_MS + 60_000, 20)], clock_run=2)
    assert _last(store) == (1.0, T0_MS + HOUR_MS), "nobody knows yet"
    store.commit([], lane="event", corrections=(ClockCorrection(T0_MS, T0_MS + 2 * HOUR_MS, -HOUR_MS, 0, "step", 1),))
    assert _last(store) == (2.0, T0_MS + 60_000)
    store.commit([(0, T0_MS + 120_000, 30)], clock_run=2)
    assert _last(store) == (3.0, T0_MS + 120_000)
    store.commit([(0, T0_MS + HOUR_MS + 180_000, 40)], lane="backfill", clock_run=1)  # comes after its correction
    assert _last(store) == (4.0, T0_MS + 180_000)


def test_a_clock_that_knows_nothing_gives_no_last_value_until_it_does(store: Store) -> None:
    store.commit([(0, T0_MS, 10)], clock_run=1)
    store.commit([(0, T0_MS + 9_000, 20)], clock=CLOCK_UNKNOWN, clock_run=2)
    assert _last(store) == (1.0, T0_MS)
    (told,) = unknown_clock(store.conn, GATEWAY)
    assert (told.lane, told.readings, told.corrected) == ("data", 1, False)
    correction = ClockCorrection(T0_MS, T0_MS + HOUR_MS, 2 * HOUR_MS, 1000, "boot", 2)
    store.commit([], lane="event", corrections=(correction,))
    assert _last(store) == (2.0, T0_MS + 2 * HOUR_MS + 9_000)
    assert [one.corrected for one in unknown_clock(store.conn, GATEWAY)] == [True]


def test_a_time_from_the_future_is_nobodys_newest(store: Store) -> None:
    store.commit([(0, store.now_ms + 86_400_000, 99), (0, T0_MS, 10)])
    assert _last(store) == (1.0, T0_MS)


@given(order=st.permutations(range(6)), data=st.data())
def test_late_data_never_overwrites_last(order: list[int], data: st.DataObject) -> None:
    """The newest time wins, in whatever groups and order the rows come."""
    import numpy as np

    from cloud.ingest.copy import Rows
    from cloud.ingest.last import LastValues

    last = LastValues()
    at = 0
    while at < len(order):
        size = data.draw(st.integers(1, len(order) - at))
        some = np.array(order[at : at + size], dtype=np.int64)
        zeros = np.zeros(size, dtype=np.int32)
        last.see(Rows(zeros, T0_MS + some, some.astype(np.float64), zeros, zeros.astype(np.uint8)), {})
        last.committed()
        at += size
    assert (last._ts[0], last._value[0]) == (T0_MS + 5, 5.0)
