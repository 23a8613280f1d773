"""Every story of every pack, from simulated device bytes to the case row in the database.

Virtual time carries the agent through hours in seconds; then its outbox goes through a real broker and a real worker
into a real PostgreSQL, and the verdict is read from the tables.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from citybrain_cli.story import GATEWAY, PLACE, SHARD, Played, at_the_edge, binding, complaints, play
from citybrain_cli.up.report import committed_of, outbox_totals
from cloud.ingest.config import BrokerConfig, WorkerConfig
from cloud.ingest.worker import Worker
from cloud.registry.enrol import enrol_gateway
from edge.config import MqttConfig
from edge.outbox import Outbox
from edge.uplink.uplink import Uplink
from protocols.uplink.topics import LANES
from scenarios.packs import pack_ids
from tests.fixtures.broker import Broker, StartBroker

PACKS = Path(__file__).parents[2] / "scenarios" / "packs"
STREAMS = Path(__file__).parents[3] / "shared" / "streams"
STORIES = sorted(PACKS.glob("*/*/stories/*.toml"))


def _name(path: Path) -> str:
    return "/".join((*path.parts[-4:-2], path.stem))


def test_every_pack_has_its_three_stories() -> None:
    told = {_name(path) for path in STORIES}
    assert {f"{pack}/{kind}" for pack in pack_ids() for kind in ("normal", "abnormal", "bad_input")} <= told


@pytest.mark.parametrize("path", STORIES, ids=_name)
def test_story(path: Path, tmp_path: Path, start_broker: StartBroker, dsn: str) -> None:
    played = play(path, tmp_path, streams=STREAMS if STREAMS.exists() else None)
    assert at_the_edge(played) == [], [
        f"{e.type} {e.state} {e.level} {e.source} {dict(e.values)}" for e in played.events
    ]
    _deliver(played, start_broker([(GATEWAY, SHARD)]), dsn, tmp_path)
    expect = played.scene.expect
    assert expect is not None
    with psycopg.connect(dsn, autocommit=True) as conn:
        _assert_everything_arrived(conn, played)
        seen = [
            str(row[0])
            for row in conn.execute(
                "select type from event where level <> 'info' or type = any(%s)", (list(expect.events),)
            )
        ]
        # Levels of info open no alarm but have a beginning and an end too, so the verdict reads the events.
        states = conn.execute("select distinct type, scenario, key, state from event where state <> ''").fetchall()
        began = {(row[1], row[2]): str(row[0]) for row in states if row[3] == "raise"}
        ended = {(row[1], row[2]) for row in states if row[3] == "clear"}
        cleared = {kind for key, kind in began.items() if key in ended}
        assert complaints(expect, seen, set(began.values()), cleared) == []
        still_open = {str(row[0]) for row in conn.execute("select type from alarm where state <> 'cleared'")}
        assert not still_open & set(expect.cleared)
        cases = conn.execute("select type, department, level, state from case_file").fetchall()
        if expect.case is None:
            assert cases == []
        else:
            wanted = (expect.case.type, expect.case.department, expect.case.level)
            assert wanted in [case[:3] for case in cases]


def _assert_everything_arrived(conn: psycopg.Connection[tuple[object, ...]], played: Played) -> None:
    accepted, committed = outbox_totals(played.outbox), committed_of(conn, GATEWAY)
    assert accepted["waiting"] == 0
    assert (committed["readings"], committed["duplicated"]) == (accepted["readings"], 0)
    assert committed["digest"] == accepted["digest"]
    stored = conn.execute(
        "select count(*) from event where gateway_id = %s and type not like 'wf.%%'", (GATEWAY,)
    ).fetchone()
    assert stored is not None and int(str(stored[0])) >= accepted["events"]


def _deliver(played: Played, broker: Broker, dsn: str, folder: Path) -> None:
    """Bring the outbox to the core. The core's clock stands at the end of the story."""
    assert played.scene.start_ms is not None and played.scene.duration_s is not None
    end_ms = played.scene.start_ms + round(played.scene.duration_s * 1000)
    with psycopg.connect(dsn, autocommit=True) as conn:
        enrol_gateway(conn, GATEWAY, SHARD, zh="故事", en="story", lon=PLACE[0], lat=PLACE[1])
    config = WorkerConfig(
        dsn=dsn,
        broker=BrokerConfig(url=broker.url, username="core", password_file=str(broker.password_file("core"))),
        scenario=(binding(played.scene, played.pack),),
    )
    with _running(Worker(config, folder, now_ms=lambda: end_ms)):
        asyncio.run(_drain(played.outbox, broker, end_ms))


class _Stopped:
    """The agent's clock while it delivers: the end of the story."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms


async def _drain(path: Path, broker: Broker, end_ms: int) -> None:
    outbox = Outbox(path, now_ms=0)
    uplink = Uplink(
        MqttConfig(url=broker.url, username=GATEWAY),
        outbox,
        _Stopped(end_ms),
        gateway=GATEWAY,
        shard=SHARD,
        password=broker.password(GATEWAY),
        version="story",
        health=lambda: ({"outbox_oldest_s": outbox.depth(end_ms).oldest_ms / 1000}, {}),
        health_every_s=0.2,
        rejected=lambda lane, seq, reason: pytest.fail(f"the core set {lane} {seq} aside: {reason}"),
    )
    task = asyncio.create_task(uplink.run())
    try:
        async with asyncio.timeout(60):
            while any(outbox.depth(end_ms).rows[lane] for lane in LANES):  # noqa: ASYNC110 - the uplink has no event for it
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.wait([task])
        outbox.close()


@contextmanager
def _running(worker: Worker) -> Iterator[None]:
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()
