"""A database that does not answer: the worker holds no more than its bounds, broker and outbox hold the rest."""

from __future__ import annotations

import os

import psycopg
import pytest

from cloud.ingest import worker as workers
from cloud.ingest.inbox import Inbox
from protocols.core.model import EvidenceRef
from protocols.uplink.batch import EvidenceChunk
from tests.cloud_ingest.site import T0_MS, Core, RawGateway, declare, encode, enrol, query
from tests.fixtures.broker import StartBroker
from tests.fixtures.wait import until

GATEWAY, SHARD = "gw-t-01", 9
ROWS, PIECE, BOUND = 300, 50_000, 1 << 20


def test_memory_stays_bounded_and_everything_arrives_once_it_answers_again(
    dsn: str, start_broker: StartBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "Inbox", lambda: Inbox(most_bytes=BOUND))
    monkeypatch.setattr(workers, "_GROUP_BYTES", BOUND)
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    ref = EvidenceRef("ab" * 32)
    noise = os.urandom(PIECE)
    with Core(dsn, broker) as core, RawGateway(broker, GATEWAY, SHARD) as gateway:
        with psycopg.connect(dsn) as held:
            held.execute("lock table lane_cursor in exclusive mode")
            for seq in range(1, ROWS + 1):
                chunk = EvidenceChunk(ref, "cam-1", T0_MS, 1 << 20, 0, noise)
                more = {"declarations": (declare(0, "meter-1"),)} if seq == 1 else {}
                gateway.send("data", encode(seq, [(0, T0_MS + seq, seq)], evidence=(chunk,), **more))
            until(lambda: core.worker._inbox.size > BOUND - PIECE * 2, "the inbox is full")
            assert core.worker._inbox.size <= BOUND
            held.rollback()
        gateway.wait_committed("data", ROWS)
        assert core.worker._inbox.peak <= BOUND
        core.check()
    assert query(dsn, "select count(*), count(distinct ts) from reading") == [(ROWS, ROWS)]
