"""The database's disk runs full: nothing is lost, it is said, and it goes on by itself."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.store.disk import DiskWatch, Room, judge, room_of
from cloud.store.migrate import migrate
from tests.cloud_ingest.site import Core, Feeder, enrol, query, reconcile
from tests.fixtures.broker import StartBroker
from tests.fixtures.postgres import Postgres
from tests.fixtures.wait import until

GATEWAY, SHARD = "gw-t-01", 9
MB = 1 << 20
ALARMS = "select type, state from alarm where scenario = 'platform/store' order by raised_at"


@pytest.mark.parametrize(
    ("free_mb", "total_mb", "before", "now"),
    [
        (50_000, 100_000, "ok", "ok"),
        (9_000, 100_000, "ok", "low"),
        (11_000, 100_000, "low", "low"),
        (13_000, 100_000, "low", "ok"),
        (1_900, 100_000, "ok", "full"),
        (2_300, 100_000, "full", "full"),
        (2_600, 100_000, "full", "low"),
        (200, 5_000, "ok", "full"),
        (25, 300, "ok", "full"),
        (250, 300, "full", "ok"),
    ],
)
def test_what_room_means(free_mb: int, total_mb: int, before: str, now: str) -> None:
    assert judge(Room(free_mb * MB, total_mb * MB), before) == now  # type: ignore[arg-type]


@given(st.integers(0, 1 << 44), st.integers(1, 1 << 44))
def test_what_was_judged_stays_so_while_nothing_changes(free: int, total: int) -> None:
    room = Room(min(free, total), total)
    for before in ("ok", "low", "full"):
        found = judge(room, before)  # type: ignore[arg-type]
        assert judge(room, found) == found
    assert judge(Room(total, total), "full") == "ok"


def test_a_folder_that_cannot_be_seen_stops_nobody(dsn: str, tmp_path: Path) -> None:
    assert room_of(tmp_path / "none") is None
    watch = DiskWatch(tmp_path / "none")
    with psycopg.connect(dsn, autocommit=True) as conn:
        watch.look(conn)
        assert watch.taking and watch.events(conn, 1) == []


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 400 MB of its own."""
    folder = Path(tempfile.mkdtemp(prefix="citybrain-test-disk-"))
    folder.chmod(0o755)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400m,mode=755", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        shutil.rmtree(folder)
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_disk_that_runs_full_holds_up_gateways_and_loses_nothing(
    small_disk: Path, tmp_path: Path, start_broker: StartBroker
) -> None:
    server = Postgres(small_disk)
    try:
        server.start()
        dsn = server.dsn()
        migrate(dsn)
        enrol(dsn, (GATEWAY, SHARD))
        broker = start_broker([(GATEWAY, SHARD)])
        with Core(dsn, broker) as core, Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
            feeder.feed(5)
            feeder.drained()
            assert core.worker.disk.room is not None, "a server on this machine is looked at"
            ballast = small_disk / "ballast"
            free = room_of(small_disk)
            assert free is not None
            ballast.write_bytes(bytes(free.free_bytes - 20 * MB))
            until(lambda: not core.worker.disk.taking, "the worker stops taking")
            until(lambda: ("core.disk.full", "raised") in query(dsn, ALARMS), "and says so")
            before = query(dsn, "select count(*) from reading")
            feeder.feed(20)
            until(lambda: feeder.outbox.depth(0).rows["data"] >= 20, "the outbox holds what comes")
            assert query(dsn, "select count(*) from reading") == before
            ballast.unlink()
            feeder.drained()
            assert reconcile(dsn, feeder) == 25 * 20
            until(lambda: ("core.disk.full", "cleared") in query(dsn, ALARMS), "all is well again")
            core.check()
    finally:
        server.kill()
