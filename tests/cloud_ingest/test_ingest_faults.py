"""Database, broker, worker and gateway killed in mid-stream: afterwards the books are equal.

Every kill is SIGKILL to the real process while a gateway goes on committing and sending.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from protocols.uplink.topics import Lane
from tests.cloud_ingest.site import Core, CoreProcess, Feeder, enrol, query, reconcile
from tests.fixtures.broker import StartBroker
from tests.fixtures.postgres import Postgres, new_database
from tests.fixtures.wait import until

GATEWAY, SHARD = "gw-t-01", 9


@contextmanager
def feeding(feeder: Feeder, *, each: int = 40, pause_s: float = 0.005) -> Iterator[None]:
    """Batches all the while, in all lanes a gateway fills by itself."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        lanes: list[Lane] = ["data", "data", "backfill"]
        try:
            while not stop.wait(pause_s):
                feeder.feed(1, each=each, lane=lanes[0])
                lanes.append(lanes.pop(0))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="feeding")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not errors


def _committed(dsn: str, more_than: int, timeout_s: float = 40.0) -> int:
    """Wait until more readings than that are in the database; how many there are."""

    def count() -> int:
        try:
            found = int(query(dsn, "select coalesce(sum(readings), 0) from lane_cursor")[0][0])
        except psycopg.OperationalError:
            return 0
        return found if found > more_than else 0

    return until(count, f"more than {more_than} readings committed", timeout_s=timeout_s)


def _sound(dsn: str, feeder: Feeder) -> None:
    feeder.drained()
    assert reconcile(dsn, feeder) > 500
    assert query(dsn, "select count(*) from dead_letter") == [(0,)]
    assert not feeder.rejected


def test_the_database_killed_twice_in_mid_stream(
    tmp_path: Path, postgres: Postgres, dsn: str, start_broker: StartBroker
) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    with Core(dsn, broker) as core, Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
        with feeding(feeder):
            done = 0
            for _ in range(2):
                done = _committed(dsn, done + 400)
                postgres.kill()
                postgres.start()
            _committed(dsn, done + 400)
        _sound(dsn, feeder)
        core.check()


def test_the_broker_killed_twice_in_mid_stream(tmp_path: Path, dsn: str, start_broker: StartBroker) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    with Core(dsn, broker), Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
        with feeding(feeder):
            done = 0
            for _ in range(2):
                done = _committed(dsn, done + 400)
                # What the broker kept may be enough for the core: the gateway is to lose its connection, too.
                until(lambda: feeder.uplink is not None and feeder.uplink.connected, "the gateway is connected")
                broker.kill()
                broker.start()
            _committed(dsn, done + 400)
        _sound(dsn, feeder)
        assert feeder.uplink is not None and feeder.uplink.counters["losses"] >= 2


def test_the_brokers_disk_is_lost(tmp_path: Path, dsn: str, start_broker: StartBroker) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    with Core(dsn, broker), Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
        with feeding(feeder):
            done = _committed(dsn, 400)
            broker.kill()
            shutil.rmtree(broker.layout.path("broker", "store"))
            broker.start()
            _committed(dsn, done + 400)
        _sound(dsn, feeder)


def test_the_worker_killed_in_mid_stream(tmp_path: Path, dsn: str, start_broker: StartBroker) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    worker = CoreProcess(dsn, broker, tmp_path)
    try:
        with Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
            with feeding(feeder):
                worker.spawn()
                done = _committed(dsn, 400)
                worker.kill()
                worker.spawn()
                _committed(dsn, done + 400)
            _sound(dsn, feeder)
        assert worker.running, worker.words()
    finally:
        worker.kill()


def test_the_gateway_goes_and_comes_back_with_its_outbox(tmp_path: Path, dsn: str, start_broker: StartBroker) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    with Core(dsn, broker), Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
        with feeding(feeder):
            done = 0
            for _ in range(3):
                done = _committed(dsn, done + 200)
                feeder.disconnect()
                feeder.connect()
            _committed(dsn, done + 200)
        _sound(dsn, feeder)
        until(lambda: query(dsn, "select online from gateway") == [(True,)], "the gateway is online again")
        feeder.disconnect()
        until(lambda: query(dsn, "select online from gateway") == [(False,)], "its farewell is heard")


def test_the_database_comes_back_from_an_old_backup(
    tmp_path: Path, postgres: Postgres, dsn: str, start_broker: StartBroker
) -> None:
    """What was lost with it is lost; but the gateway does not stand still for ever, and what waits arrives once."""
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    restored = new_database(postgres)
    enrol(restored, (GATEWAY, SHARD))
    with Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
        with Core(dsn, broker):
            feeder.feed(20)
            feeder.drained()
        feeder.feed(20, lane="backfill")
        feeder.feed(20)
        with Core(restored, broker):
            feeder.drained()
        assert feeder.uplink is not None and feeder.uplink.counters["new_epochs"] == 1
    ((count, distinct),) = query(restored, "select count(*), count(distinct (series_id, ts)) from reading")
    assert (count, distinct) == (800, 800)
    assert query(restored, "select count(*) from dead_letter") == [(0,)]
    assert not feeder.rejected


def test_two_workers_on_one_shard_and_the_owner_loses_its_database_session(
    tmp_path: Path, dsn: str, start_broker: StartBroker
) -> None:
    """The shard passes from one to the other and back in mid-stream; what both hold is committed once."""
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    with Core(dsn, broker, group=3) as first, Core.standby(dsn, broker, group=3) as second:
        with Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
            with feeding(feeder):
                done = 0
                for _ in range(4):
                    done = _committed(dsn, done + 300)
                    query(
                        dsn,
                        "select pg_terminate_backend(pid) from pg_stat_activity"
                        " where application_name = 'citybrain-worker' and datname = current_database()"
                        " and pid in (select pid from pg_locks where locktype = 'advisory')",
                    )
                _committed(dsn, done + 300)
            _sound(dsn, feeder)
        first.check()
        second.check()
