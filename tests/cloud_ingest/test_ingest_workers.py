"""Several workers: shares, a killed one, a hung one, one whose session the database has lost sight of.

Every worker is a real process; its end is SIGKILL, its pause SIGSTOP. A gateway of each shard goes on all the while.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cloud_ingest.site import CoreProcess, Feeder, enrol, query, reconcile
from tests.cloud_ingest.test_ingest_faults import feeding
from tests.fixtures.broker import Broker, StartBroker
from tests.fixtures.wait import until

GATEWAYS = [(f"gw-w-{shard}", shard) for shard in (3, 17, 40, 61)]
RESUME_S = 15.0
START_S = 60.0  # of a process on a busy machine

_OWNERS = (
    "select l.pid, count(*) from pg_locks l where l.locktype = 'advisory' and l.granted and l.classid = 25442"
    " and l.database = (select oid from pg_database where datname = current_database()) group by 1"
)


def shares(dsn: str) -> list[int]:
    """How many shards each worker has."""
    return sorted(int(count) for _, count in query(dsn, _OWNERS))


@contextmanager
def workers(dsn: str, broker: Broker, folder: Path, number: int) -> Iterator[list[CoreProcess]]:
    found = []
    for n in range(number):
        (folder / f"w{n}").mkdir()
        found.append(CoreProcess(dsn, broker, folder / f"w{n}"))
    try:
        yield found
    finally:
        for one in found:
            with contextlib.suppress(ProcessLookupError):
                one.signal(signal.SIGCONT)
            one.kill()


@contextmanager
def streams(broker: Broker, folder: Path) -> Iterator[list[Feeder]]:
    """A gateway in each shard, all of them feeding."""
    with ExitStack() as stack:
        feeders = [stack.enter_context(Feeder(broker, name, shard, folder)) for name, shard in GATEWAYS]
        with ExitStack() as busy:
            for feeder in feeders:
                busy.enter_context(feeding(feeder, each=20, pause_s=0.1))
            yield feeders
        for feeder in feeders:
            feeder.drained()


def committed(dsn: str) -> dict[str, int]:
    return dict(query(dsn, "select gateway_id, sum(readings)::bigint from lane_cursor group by 1"))


def all_move(dsn: str, timeout_s: float) -> float:
    """Wait until every shard has committed something new; seconds it took."""
    before, begun = committed(dsn), time.monotonic()
    until(
        lambda: all(committed(dsn).get(name, 0) > before.get(name, 0) for name, _ in GATEWAYS),
        "every shard goes on",
        timeout_s=timeout_s,
    )
    return time.monotonic() - begun


def sound(dsn: str, feeders: list[Feeder]) -> None:
    for feeder in feeders:
        assert reconcile(dsn, feeder) > 0
        assert not feeder.rejected
    assert query(dsn, "select count(*) from dead_letter") == [(0,)]
    assert query(dsn, "select count(*), count(distinct (series_id, ts)) from reading group by ()")[0][0] > 0


def test_a_new_worker_gets_its_part_and_a_killed_ones_part_goes_on_elsewhere(
    tmp_path: Path, dsn: str, start_broker: StartBroker
) -> None:
    enrol(dsn, *GATEWAYS)
    broker = start_broker(GATEWAYS)
    with workers(dsn, broker, tmp_path, 2) as (first, second):
        first.spawn()
        until(lambda: shares(dsn) == [4], "the only worker has everything", timeout_s=START_S)
        with streams(broker, tmp_path) as feeders:
            all_move(dsn, START_S)
            second.spawn()
            until(lambda: shares(dsn) == [2, 2], "each has its part", timeout_s=START_S)
            all_move(dsn, RESUME_S)
            first.kill()
            all_move(dsn, RESUME_S)
            assert shares(dsn) == [4]
        sound(dsn, feeders)
        assert second.running, second.words()


def test_a_worker_that_hangs_is_fenced_and_cannot_double_anything_when_it_wakes(
    tmp_path: Path, dsn: str, start_broker: StartBroker
) -> None:
    enrol(dsn, *GATEWAYS)
    broker = start_broker(GATEWAYS)
    with workers(dsn, broker, tmp_path, 2) as (first, second):
        first.spawn()
        second.spawn()
        until(lambda: shares(dsn) == [2, 2], "each has its part", timeout_s=START_S)
        with streams(broker, tmp_path) as feeders:
            all_move(dsn, START_S)
            first.signal(signal.SIGSTOP)
            all_move(dsn, RESUME_S)
            until(lambda: shares(dsn) == [4], "the other has everything")
            first.signal(signal.SIGCONT)
            until(lambda: shares(dsn) == [2, 2], "it is back and has its part again")
            all_move(dsn, RESUME_S)
        sound(dsn, feeders)
        assert first.running and second.running, first.words() + second.words()
