"""A gateway's real outbox and uplink against a real worker, broker and database."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg

from citybrain_cli.up.report import committed_of
from cloud.ingest.latency import quantile_ms
from edge.outbox import Pending
from protocols.core.model import EvidenceRef, Quality
from protocols.uplink.batch import DeviceState, EvidenceChunk
from protocols.uplink.columns import FLOAT_BITS
from protocols.uplink.digest import add
from scenarios.binding import ScenarioBinding
from tests.cloud_ingest.site import (
    T0_MS,
    Core,
    Feeder,
    RawGateway,
    columns,
    declare,
    encode,
    enrol,
    event,
    query,
    reconcile,
)
from tests.fixtures.broker import StartBroker
from tests.fixtures.wait import until

GATEWAY, SHARD = "gw-t-01", 5
SITE = ScenarioBinding(pack="urban_mgmt/construction_site", devices={"crane": ("crane-1",)})


def test_readings_events_alarm_case_and_evidence_arrive(tmp_path: Path, dsn: str, start_broker: StartBroker) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    picture = bytes(range(256)) * 800
    ref = EvidenceRef(hashlib.sha256(picture).hexdigest())
    overload = event(
        1, type="crane.overload", source="crane-1/moment_pct", scenario=SITE.pack, level="orange", state="raise",
        key="crane-1/moment_pct", values={"x": 104.5, "unit": "%"}, location=(117.3, 31.8), evidence=(ref,),
    )  # fmt: skip
    with Core(dsn, broker, scenario=(SITE,)), Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
        tenth, raw = feeder.alias("crane-1", "moment_pct"), feeder.alias("crane-1", "load", FLOAT_BITS)
        bits = np.array([math.pi, -math.inf], dtype=np.float64).view(np.int64).tolist()
        rows = [
            (tenth, T0_MS, 1045, Quality.GOOD, 120),
            (tenth, T0_MS + 1000, 0, Quality.MISSING),
            (tenth, T0_MS + 2000, -7, Quality.CALIBRATING),
            (raw, T0_MS, bits[0]),
            (raw, T0_MS + 1, bits[1], Quality.SUSPECT),
        ]
        cut = 128 << 10
        feeder.commit(
            Pending("event", events=[overload, event(2)], devices=[DeviceState("crane-1", True, T0_MS, "answers")]),
            Pending("data", columns(rows)),
            *(
                Pending(
                    "evidence",
                    evidence=[EvidenceChunk(ref, "crane-1", T0_MS, len(picture), at, picture[at : at + cut])],
                )
                for at in range(0, len(picture), cut)
            ),
        )
        feeder.drained()
        at = [datetime.fromtimestamp(ms / 1000, UTC) for ms in (T0_MS, T0_MS + 1000, T0_MS + 2000, T0_MS + 1)]
        assert query(
            dsn,
            "select point, ts, value, lag_ms, quality from reading join series using (series_id) order by point, ts",
        ) == [
            ("load", at[0], math.pi, 0, 0),
            ("load", at[3], -math.inf, 0, 1),
            ("moment_pct", at[0], 104.5, 120, 0),
            ("moment_pct", at[1], None, 0, 5),
            ("moment_pct", at[2], -0.7, 0, 3),
        ]
        assert query(
            dsn,
            "select event_id, type, level, state, device_id, point, lon from event"
            " where gateway_id = %s and type not like 'wf.%%' order by 1",
            GATEWAY,
        ) == [
            ("event-1", "crane.overload", "orange", "raise", "crane-1", "moment_pct", 117.3),
            ("event-2", "data.rejected", "info", "", "meter-1", "x", None),
        ]
        assert query(dsn, "select scenario, key, level, state, gateway_id, onset_at from alarm") == [
            (
                SITE.pack,
                "crane-1/moment_pct",
                "orange",
                "raised",
                GATEWAY,
                datetime.fromtimestamp((T0_MS + 1) / 1000, UTC),
            )
        ]
        ((case, kind, scenario),) = query(dsn, "select case_id, type, scenario from case_file")
        assert scenario == SITE.pack and kind
        assert query(dsn, "select case_id from case_alarm") == [(case,)]
        assert query(dsn, "select sha256, content, masked from evidence") == [(ref.sha256, picture, True)]
        assert query(dsn, "select online, detail from device where device_id = 'crane-1'") == [(True, "answers")]
        until(
            lambda: query(dsn, "select online, health->>'cpu_pct' from gateway") == [(True, "1.0")],
            "the gateway is shown online with its health",
        )
        # The committed value is at once the last one, by source time.
        until(
            lambda: (
                query(dsn, "select point, value, quality from last_value join series using (series_id) order by 1")
                == [("load", -math.inf, 1), ("moment_pct", -0.7, 3)]
            ),
            "last values are written",
        )
        lanes = query(dsn, "select lane, seq, batches, readings, events, repeats from lane_cursor order by lane")
        assert lanes == [("data", 1, 1, 5, 0, 0), ("event", 1, 1, 0, 2, 0), ("evidence", 2, 2, 0, 0, 0)]
    reconcile(dsn, feeder)


def test_the_ledger_is_the_same_however_readings_were_batched_and_laned(
    tmp_path: Path, dsn: str, start_broker: StartBroker
) -> None:
    enrol(dsn, (GATEWAY, SHARD), ("gw-t-02", SHARD))
    broker = start_broker([(GATEWAY, SHARD), ("gw-t-02", SHARD)])
    with (
        Core(dsn, broker),
        Feeder(broker, GATEWAY, SHARD, tmp_path) as one,
        Feeder(broker, "gw-t-02", SHARD, tmp_path) as two,
    ):
        one.feed(200, each=3)
        one.feed(10, each=50, lane="backfill")
        two.feed(1, each=1100)
        one.drained()
        two.drained()
        assert reconcile(dsn, one) == reconcile(dsn, two) == 1100
        # The cursor's digest, kept as batches came in, equals the one made from the rows.
        with psycopg.connect(dsn, autocommit=True) as conn:
            for name in (GATEWAY, "gw-t-02"):
                summed = 0
                for (digest,) in conn.execute("select digest from lane_cursor where gateway_id = %s", (name,)):
                    summed = add(summed, digest)
                assert summed == committed_of(conn, name)["digest"] != 0
    buckets = query(dsn, "select buckets from latency where gateway_id = 'gw-t-02' and kind = 'sensor_to_commit'")
    assert sum(buckets[0][0]) == 1100
    assert quantile_ms(np.array(buckets[0][0]), 0.5) is not None


def test_a_repeat_is_dropped_and_told(dsn: str, start_broker: StartBroker) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    first = encode(1, [(0, T0_MS, 11)], declarations=(declare(0, "meter-1"),), events=(event(1),))
    with Core(dsn, broker), RawGateway(broker, GATEWAY, SHARD) as gateway:
        for _ in range(3):
            gateway.send("data", first)
        gateway.send("data", encode(2, [(0, T0_MS + 1, 12)]))
        gateway.wait_committed("data", 2)
        gateway.send("data", first)
        until(lambda: query(dsn, "select repeats from lane_cursor") == [(3,)], "the late repeat is counted")
    assert query(dsn, "select seq, batches, readings, events from lane_cursor") == [(2, 2, 2, 1)]
    assert query(dsn, "select value from reading order by ts") == [(1.1,), (1.2,)]
    assert query(dsn, "select count(*) from event") == [(1,)]
    assert not any(ack.resend for ack in gateway.acks)


def test_what_comes_out_of_turn_is_asked_for_again(dsn: str, start_broker: StartBroker) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    batches = {1: encode(1, [(0, T0_MS, 1)], declarations=(declare(0, "meter-1"),))}
    batches |= {seq: encode(seq, [(0, T0_MS + seq, seq)]) for seq in range(2, 6)}
    with Core(dsn, broker), RawGateway(broker, GATEWAY, SHARD) as gateway:
        gateway.send("data", batches[1])
        gateway.wait_committed("data", 1)
        for seq in (5, 3, 4):
            gateway.send("data", batches[seq])
        until(lambda: any(ack.resend for ack in gateway.acks), "the core asks again")
        again = [ack for ack in gateway.acks if ack.resend]
        assert {ack.committed for ack in again} == {1}
        assert query(dsn, "select count(*) from reading") == [(1,)]
        for seq in (2, 3, 4, 5):
            gateway.send("data", batches[seq])
        gateway.wait_committed("data", 5)
    assert query(dsn, "select value from reading order by ts") == [(v / 10,) for v in (1, 2, 3, 4, 5)]
    assert query(dsn, "select count(*) from dead_letter") == [(0,)]


def test_late_data_never_overwrites_the_last_value(dsn: str, start_broker: StartBroker) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    named = (declare(0, "meter-1"),)
    last = "select value, quality from last_value"
    with RawGateway(broker, GATEWAY, SHARD) as gateway:
        with Core(dsn, broker):
            gateway.send("data", encode(1, [(0, T0_MS + 9000, 900)], declarations=named))
            until(lambda: query(dsn, last) == [(90.0, 0)], "the newest is the last value")
            gateway.send("backfill", encode(1, [(0, T0_MS + n, n) for n in range(5)], declarations=named))
            gateway.send("data", encode(2, [(0, T0_MS + 100, 1)]))
            gateway.wait_committed("data", 2)
            gateway.wait_committed("backfill", 1)
        # A worker that has just started knows nothing of what the one before it had seen.
        with Core(dsn, broker):
            gateway.send("data", encode(3, [(0, T0_MS + 200, 2)]))
            gateway.wait_committed("data", 3)
            gateway.send("data", encode(4, [(0, T0_MS + 9000, 901, int(Quality.SUSPECT))]))
            until(lambda: query(dsn, last) == [(90.1, 1)], "a correction of the same moment counts")
    assert query(dsn, "select count(*) from reading") == [(9,)]


def test_an_outbox_that_was_lost_starts_a_new_epoch_and_nothing_of_it_is_taken_for_a_repeat(
    tmp_path: Path, dsn: str, start_broker: StartBroker
) -> None:
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    with Core(dsn, broker):
        with Feeder(broker, GATEWAY, SHARD, tmp_path) as first:
            first.feed(5)
            first.drained()
        second_folder = tmp_path / "new"
        second_folder.mkdir()
        with Feeder(broker, GATEWAY, SHARD, second_folder, start_ms=T0_MS + 3_600_000) as second:
            second.feed(3)
            second.drained()
    assert query(dsn, "select epoch, seq, readings, repeats from lane_cursor order by epoch") == [
        (T0_MS // 1000, 5, 100, 0),
        (T0_MS // 1000 + 3600, 3, 60, 0),
    ]
    assert query(dsn, "select count(*), count(distinct series_id) from reading") == [(160, 2)]


def test_the_gateways_own_book_and_the_databases_are_found_equal_row_for_row(
    tmp_path: Path, dsn: str, start_broker: StartBroker
) -> None:
    """As in production: nobody reads the outbox file, the gateway says what it holds."""
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    with Core(dsn, broker), Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
        feeder.feed(30)
        feeder.feed(5, lane="backfill")
        feeder.drained()
        feeder.disconnect()
        feeder.connect()  # the account comes after connecting
        books = "select lane, seq, checked_seq, content from lane_account where seq > 0 order by lane"
        until(
            lambda: query(dsn, books) == [("backfill", 5, 5, "equal"), ("data", 30, 30, "equal")],
            "both books are compared",
        )
        (found,) = query(dsn, "select epoch, account_heard_at is not null from outbox_epoch")
        assert found == (feeder.outbox.epoch, True)
