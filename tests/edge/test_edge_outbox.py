"""The outbox's promises: what it has taken survives, what it throws away is counted, what breaks is said."""

from __future__ import annotations

import json
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.outbox import MOST_ON_THEIR_WAY, Outbox, OutboxDamaged, Pending
from edge.outbox.opening import open_outbox
from edge.uplink.account import Books
from protocols.core.errors import ConfigError, ContractError, LocalProtocolError, StoreError
from protocols.core.model import Event, EvidenceRef, SeriesInfo
from protocols.uplink import batch as wire
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import MAX_BATCH_BYTES
from protocols.uplink.columns import Readings, SeriesCode
from protocols.uplink.digest import add
from protocols.uplink.topics import LANES, Lane

NOW_MS = 1_772_400_000_000
ROOT = Path(__file__).parents[2]


def columns(rows: Sequence[tuple[int, int, int]]) -> Readings:
    """Rows of (alias, ts_ms, integer)."""
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    nothing = np.zeros(len(table))
    return Readings(
        table[:, 0].astype(np.int32), table[:, 1], nothing.astype(np.int32), table[:, 2], nothing.astype(np.uint8)
    )


def event(number: int, **more: Any) -> Event:
    return Event(
        **{"id": f"e{number}", "type": "data.rejected", "ts_ms": NOW_MS, "seen_ms": NOW_MS, "source": "m", **more}
    )


def opened(path: Path, **more: Any) -> Outbox:
    return Outbox(path, now_ms=NOW_MS, **more)


def all_batches(outbox: Outbox, lane: Lane) -> list[wire.Batch]:
    """Everything of a lane as the core would decode it: from its own declarations alone, if it is all there."""
    known: dict[int, SeriesCode] = {d.alias: d.code for d in outbox.series()} if outbox.acked(lane) else {}
    found: list[wire.Batch] = []
    after = outbox.acked(lane)
    while rows := outbox.rows(lane, after):
        for row in rows:
            envelope = wire.open_envelope(row.payload)
            batch = wire.decode(envelope, known)
            known |= {d.alias: d.code for d in batch.declarations}
            assert (envelope.epoch, envelope.seq) == (outbox.epoch, row.seq)
            found.append(batch)
        after = rows[-1].seq
    return found


def check_books(outbox: Outbox) -> None:
    """Gapless from the last acknowledged on; totals, digests and thinned counts say what the rows say."""
    for lane, total in outbox.totals().items():
        batches = all_batches(outbox, lane)
        assert [b.seq for b in batches] == list(range(total["acked"] + 1, total["seq"] + 1))
        if total["acked"] == 0:
            digest = 0
            for batch in batches:
                digest = add(digest, outbox.digest_of(batch.readings))
                for stone in batch.thinned:
                    digest = add(digest, stone.digest)
            assert digest == total["digest"]
            gone = sum(stone.readings for batch in batches for stone in batch.thinned)
            assert gone == total["thinned"]
            assert sum(len(b.readings) for b in batches) == total["readings"] - gone
            assert sum(len(b.events) for b in batches) == total["events"]


# -- commits ------------------------------------------------------------------------------------------------------


def test_one_commit_is_one_transaction_for_all_that_waited(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db")
    a, b = outbox.alias(SeriesInfo("m", "x", decimals=1), 200), outbox.alias(SeriesInfo("m", "y"), 5)
    writes: list[str] = []
    outbox._db.set_trace_callback(writes.append)
    outbox.commit(
        [
            Pending("event", events=[event(1)], devices=[wire.DeviceState("m", True, NOW_MS)]),
            Pending("data", columns([(a, NOW_MS, 201), (b, NOW_MS, 7)])),
            Pending("data", columns([(a, NOW_MS + 1, 202)])),
        ],
        now_ms=NOW_MS,
        exchanges=["push-1"],
        state={"engine": b"state"},
    )
    outbox._db.set_trace_callback(None)
    assert [w.split()[0].lower() for w in writes].count("commit") == 1
    assert {lane: total["seq"] for lane, total in outbox.totals().items()} == {
        "event": 1, "data": 2, "backfill": 0, "evidence": 0,
    }  # fmt: skip
    first, second = all_batches(outbox, "data")
    assert [d.alias for d in first.declarations] == [a, b] and second.declarations == ()
    outbox.close()

    again = opened(tmp_path / "o.db")
    assert again.seen_exchange("push-1") and not again.seen_exchange("push-2")
    assert again.get_state("engine") == b"state"
    assert again.epoch == outbox.epoch
    assert again.alias(SeriesInfo("m", "y"), 99) == b
    check_books(again)
    # A series is declared once in each lane that uses it.
    again.commit([Pending("backfill", columns([(b, NOW_MS, 8)])), Pending("data", columns([(b, NOW_MS, 9)]))], now_ms=1)
    assert [d.alias for d in all_batches(again, "backfill")[0].declarations] == [b]
    assert all_batches(again, "data")[2].declarations == ()


def test_what_is_too_big_for_one_row_is_cut_in_order(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db")
    rng = random.Random(3)
    alias = outbox.alias(SeriesInfo("m", "x", decimals=255), 0)
    rows = [(alias, rng.getrandbits(50), rng.getrandbits(63)) for _ in range(120_000)]
    events = [event(n, values={"text": "阈" * 60}, level="red") for n in range(9000)]
    pictures = [
        wire.EvidenceChunk(EvidenceRef("ab" * 32), "cam", NOW_MS, 5 << 17, n << 17, rng.randbytes(1 << 17))
        for n in range(12)
    ]
    outbox.commit(
        [Pending("data", columns(rows), events=events), Pending("evidence", evidence=pictures)], now_ms=NOW_MS
    )
    batches = all_batches(outbox, "data")
    assert len(batches) > 2
    assert all(len(row.payload) <= MAX_BATCH_BYTES for lane in LANES for row in outbox.rows(lane, 0, limit=999))
    assert [e.id for b in batches for e in b.events] == [e.id for e in events]
    times = np.concatenate([b.readings.ts_ms for b in batches]).tolist()
    values = np.concatenate([b.readings.integer for b in batches]).tolist()
    assert sorted(zip(times, values, strict=True)) == sorted((t, v) for _, t, v in rows)
    assert [c for b in all_batches(outbox, "evidence") for c in b.evidence] == pictures
    check_books(outbox)


def test_one_thing_beyond_the_wire_is_our_own_error_and_leaves_the_outbox_usable(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db")
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    with pytest.raises(LocalProtocolError):
        outbox.commit(
            [
                Pending("data", columns([(alias, NOW_MS, 1)])),
                Pending("event", events=[event(1, key="k" * MAX_BATCH_BYTES)]),
            ],
            now_ms=NOW_MS,
        )
    assert outbox.totals()["data"]["seq"] == 0
    outbox.commit([Pending("data", columns([(alias, NOW_MS, 1)]))], now_ms=NOW_MS)
    assert [d.alias for d in all_batches(outbox, "data")[0].declarations] == [alias]
    check_books(outbox)


def test_commits_and_acknowledgements_from_two_threads_keep_the_books(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db")
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    done = threading.Event()
    errors: list[BaseException] = []

    def acknowledge() -> None:
        try:
            while not done.is_set():
                outbox.acknowledge(outbox.epoch, "data", outbox.totals()["data"]["seq"])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=acknowledge)
    thread.start()
    for n in range(300):
        outbox.commit([Pending("data", columns([(alias, NOW_MS + n, n)]))], now_ms=NOW_MS)
    done.set()
    thread.join()
    assert not errors
    outbox.acknowledge(outbox.epoch, "data", 300)
    assert outbox.depth(NOW_MS).payload_bytes == 0
    assert sum(outbox.depth(NOW_MS).rows.values()) == 0


# -- acknowledgements ----------------------------------------------------------------------------------------------


def test_only_what_was_acknowledged_goes(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db")
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    for n in range(10):
        outbox.commit(
            [Pending("data", columns([(alias, NOW_MS + n, n)])), Pending("event", events=[event(n)])], now_ms=NOW_MS + n
        )
    assert outbox.acknowledge(outbox.epoch, "data", 4) == 4
    assert outbox.acknowledge(outbox.epoch, "data", 4) == 0  # it comes twice
    assert outbox.acknowledge(outbox.epoch, "data", 2) == 0  # an old one comes late
    assert [row.seq for row in outbox.rows("data", 0)] == [5, 6, 7, 8, 9, 10]
    assert [row.seq for row in outbox.rows("event", 0)] == list(range(1, 11))
    depth = outbox.depth(NOW_MS + 100)
    assert depth.rows == {"event": 10, "data": 6, "backfill": 0, "evidence": 0} and depth.oldest_ms == 100
    check_books(outbox)


@pytest.mark.parametrize(("epoch", "committed"), [(1, 1), (0, 3), (0, 1 << 62)])
def test_an_acknowledgement_of_what_was_never_written_is_refused(tmp_path: Path, epoch: int, committed: int) -> None:
    outbox = opened(tmp_path / "o.db")
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    outbox.commit([Pending("data", columns([(alias, NOW_MS, n)])) for n in range(2)], now_ms=NOW_MS)
    with pytest.raises(ContractError):
        outbox.acknowledge(outbox.epoch + epoch, "data", committed)
    assert len(outbox.rows("data", 0)) == 2
    outbox.acknowledge(outbox.epoch, "data", 2)


def test_declarations_are_said_again_after_a_refusal(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db")
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    part = [Pending("data", columns([(alias, NOW_MS, 1)]))]
    outbox.commit([*part, Pending("backfill", columns([(alias, NOW_MS, 1)]))], now_ms=NOW_MS)
    outbox.declare_again("data")
    outbox.commit([*part, *part, Pending("backfill", columns([(alias, NOW_MS, 1)]))], now_ms=NOW_MS)
    assert [len(b.declarations) for b in all_batches(outbox, "data")] == [1, 1, 0]
    assert [len(b.declarations) for b in all_batches(outbox, "backfill")] == [1, 0]


# -- full ------------------------------------------------------------------------------------------------------------


def test_a_full_outbox_thins_the_oldest_unsent_data_and_no_event(tmp_path: Path) -> None:
    limit = 300_000
    outbox = opened(tmp_path / "o.db", max_bytes=limit)
    rng = random.Random(1)
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    sent = 0
    for n in range(800):
        rows = [(alias, NOW_MS + 100 * n + k, rng.getrandbits(50)) for k in range(100)]
        lane: Lane = "backfill" if n % 4 == 0 else "data"
        outbox.commit([Pending(lane, columns(rows)), Pending("event", events=[event(n)])], now_ms=NOW_MS + n)
        if n == 19:
            sent = outbox.rows("data", 0, limit=10)[-1].seq
    depth = outbox.depth(NOW_MS)
    assert depth.payload_bytes <= limit
    assert depth.thinned > 30_000
    check_books(outbox)
    data, backfill = all_batches(outbox, "data"), all_batches(outbox, "backfill")
    assert sent == 10 and all(len(b.readings) == 100 for b in data[:sent])  # the same bytes whenever they go again
    gone = [b.seq for b in data if b.thinned]
    assert gone == list(range(sent + 1, sent + 1 + len(gone)))  # the oldest, none between
    assert all(b.thinned for b in backfill[: len(backfill) - 30])
    stone = data[sent].thinned[0]
    assert (stone.readings, stone.reason) == (100, "outbox_full")
    assert stone.last_ms - stone.first_ms == 99
    assert len(all_batches(outbox, "event")) == 800
    outbox.close()
    check_books(opened(tmp_path / "o.db", max_bytes=limit))


def test_after_a_restart_what_may_be_on_its_way_is_not_changed(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db", max_bytes=1 << 30)
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    rng = random.Random(1)

    def fill(box: Outbox, number: int) -> None:
        for _ in range(number):
            box.commit(
                [Pending("data", columns([(alias, NOW_MS + k, rng.getrandbits(50)) for k in range(50)]))], now_ms=1
            )

    fill(outbox, 200)
    outbox.acknowledge(outbox.epoch, "data", 20)
    sent = outbox.rows("data", 20, limit=MOST_ON_THEIR_WAY)
    outbox.close()
    again = opened(tmp_path / "o.db", max_bytes=40_000)
    fill(again, 20)
    assert again.depth(0).thinned > 0
    assert again.rows("data", 20, limit=MOST_ON_THEIR_WAY) == sent


def test_pushes_are_remembered_for_an_hour_and_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.outbox.exchanges._KEPT", 100)
    monkeypatch.setattr("edge.outbox.exchanges._MOST", 1_000)
    outbox = opened(tmp_path / "o.db")
    alias = outbox.alias(SeriesInfo("m", "x"), 0)

    def push(n: int, now_ms: int, count: int = 90) -> None:
        names = [f"{n}/{k}" for k in range(count)]
        outbox.commit([Pending("data", columns([(alias, NOW_MS, n)]))], now_ms=now_ms, exchanges=names)

    for n in range(5):
        push(n, NOW_MS + n)
    assert outbox.seen_exchange("0/0")  # far more than are kept for ever, and young
    push(5, NOW_MS + 3_600_003)
    assert not outbox.seen_exchange("2/89")  # an hour old
    assert outbox.seen_exchange("4/0")
    push(6, NOW_MS + 3_600_004, 1_000)
    assert not outbox.seen_exchange("5/89")  # young, but too many
    assert outbox.seen_exchange("6/0") and outbox.seen_exchange("6/999")
    push(7, NOW_MS + 3_600_005, 1)
    assert outbox._db.execute("select count(*) from exchange").fetchone()[0] <= 1_001
    outbox.close()
    again = opened(tmp_path / "o.db")
    assert again.seen_exchange("7/0") and again.seen_exchange("6/999") and not again.seen_exchange("4/0")
    assert len(again._exchanges) <= 1_000


# -- the disk ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_takes_nothing_in_half_and_then_recovers(tmp_path: Path) -> None:
    """A file-size limit of the process stands in for the disk's end: the same error from the same system call."""
    outbox = opened(tmp_path / "o.db")
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    rng = random.Random(2)

    def part() -> Pending:
        return Pending("data", columns([(alias, NOW_MS + k, rng.getrandbits(60)) for k in range(2000)]))

    outbox.commit([part()], now_ms=NOW_MS)
    before = outbox.totals()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    late = outbox.alias(SeriesInfo("m", "late"), 3)
    try:
        for _ in range(3):
            with pytest.raises(StoreError) as refused:
                outbox.commit([part() for _ in range(20)], now_ms=NOW_MS, exchanges=["push"], state={"engine": b"new"})
            assert refused.value.retry
        # To make room it may thin old readings, and says so; of the refused commits there is nothing.
        after = outbox.totals()
        for lane, books in before.items():
            assert [after[lane][name] for name in ("seq", "readings", "digest")] == [
                books[name] for name in ("seq", "readings", "digest")
            ]
        assert not outbox.seen_exchange("push") and outbox.get_state("engine") is None
        with pytest.raises(StoreError):
            outbox.put_state("engine", bytes(200_000))
        assert len(outbox.rows("data", 0)) == 1  # reading goes on
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert outbox.refused == 3
    outbox.commit([part(), Pending("data", columns([(late, NOW_MS, 4)]))], now_ms=NOW_MS, exchanges=["push"])
    assert outbox.acknowledge(outbox.epoch, "data", 1) == 1
    assert outbox.seen_exchange("push")
    assert [d.device + "/" + d.point for b in all_batches(outbox, "data") for d in b.declarations] == ["m/late"]
    outbox.close()
    check_books(opened(tmp_path / "o.db"))


def test_a_disk_that_is_full_or_locked_at_start_is_no_damage(tmp_path: Path) -> None:
    """Nothing is moved aside: what waits in the file is still good."""
    path = tmp_path / "o.db"
    outbox = opened(path)
    outbox.commit([Pending("event", events=[event(1)])], now_ms=NOW_MS)
    outbox.close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("pragma locking_mode = exclusive")
    holder.execute("begin exclusive")
    holder.execute("insert into state values ('x', x'00')")
    wanted = sqlite3.connect
    try:
        # The real connect, with less patience than a gateway has.
        sqlite3.connect = lambda *a, **k: wanted(*a, timeout=0.05, **k)
        with pytest.raises(StoreError) as refused:
            open_outbox(path, now_ms=NOW_MS, max_bytes=1 << 20)
        assert not isinstance(refused.value, OutboxDamaged)
    finally:
        sqlite3.connect = wanted
        holder.execute("rollback")
        holder.close()
    assert [p.name for p in tmp_path.glob("*broken*")] == []
    with pytest.raises(StoreError):
        open_outbox(tmp_path, now_ms=NOW_MS, max_bytes=1 << 20)  # a folder
    assert open_outbox(path, now_ms=NOW_MS, max_bytes=1 << 20).totals()["event"]["seq"] == 1


@pytest.mark.parametrize(
    "damage", ["cut in the middle", "cut to a page", "head overwritten", "pages overwritten", "a text file"]
)
def test_a_damaged_file_is_set_aside_and_a_new_epoch_begins(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "o.db"
    outbox = opened(path)
    rng = random.Random(5)
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    for n in range(60):
        outbox.commit(
            [Pending("data", columns([(alias, NOW_MS + n, rng.getrandbits(60))] * 50))],
            now_ms=NOW_MS,
            exchanges=[str(n)],
        )
    epoch = outbox.epoch
    outbox.close()  # the log is folded into the file
    whole = path.read_bytes()
    page = 4096
    path.write_bytes(
        {
            "cut in the middle": whole[: len(whole) // 2 + 77],
            "cut to a page": whole[:page],
            "head overwritten": bytes(100) + whole[100:],
            "pages overwritten": whole[: 3 * page] + rng.randbytes(9 * page) + whole[12 * page :],
            "a text file": b"outbox\n" * 99,
        }[damage]
    )
    later_ms = NOW_MS + 60_000
    fresh = open_outbox(path, now_ms=later_ms, max_bytes=1 << 20)
    assert fresh.epoch == later_ms // 1000 != epoch
    assert fresh.totals()["data"]["seq"] == 0
    (aside,) = [p for p in tmp_path.glob("*broken*") if not p.name.endswith(("-wal", "-shm"))]
    assert aside.name == f"o.db.broken-{later_ms}" and aside.stat().st_size > 0
    alias = fresh.alias(SeriesInfo("m", "x"), 0)
    fresh.commit([Pending("data", columns([(alias, NOW_MS, 1)]))], now_ms=later_ms)
    check_books(fresh)


def test_an_empty_file_is_a_new_outbox(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "o.db"
    path.parent.mkdir()
    path.touch()
    assert open_outbox(path, now_ms=NOW_MS, max_bytes=1 << 20).epoch == NOW_MS // 1000


def test_two_outboxes_born_with_an_unset_clock_have_different_epochs(tmp_path: Path) -> None:
    epochs = {Outbox(tmp_path / f"{n}.db", now_ms=5000).epoch for n in range(8)}
    assert len(epochs) == 8 and all(0 < epoch < 1 << 32 for epoch in epochs)


def test_an_outbox_of_a_later_agent_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    outbox = opened(path)
    outbox._db.execute("update meta set value = 99 where name = 'schema'")
    outbox.close()
    with pytest.raises(ConfigError, match=r"o\.db.*99"):
        open_outbox(path, now_ms=NOW_MS, max_bytes=1 << 20)
    assert list(tmp_path.glob("*broken*")) == []


def test_killed_in_the_middle_of_commits(tmp_path: Path) -> None:
    """SIGKILL at random moments: nothing that was reported durable is missing, no sequence has a gap."""
    path = tmp_path / "o.db"
    rng = random.Random(11)
    for life in range(6):
        writer = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/edge/outbox_writer.py"), str(path), str(life)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(rng.randrange(1, 40))]
        writer.kill()
        lines += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        said = [json.loads(line) for line in lines if line.endswith(b"\n")]
        assert said, "the writer never got to a commit"
        outbox = open_outbox(path, now_ms=NOW_MS, max_bytes=1 << 30)
        assert outbox.epoch == NOW_MS // 1000
        totals = outbox.totals()
        for lane in LANES:
            told, found = said[-1]["totals"][lane], totals[lane]
            # At most the one commit that was cut off before it could be reported is there as well.
            assert 0 <= found["seq"] - told["seq"] <= 1
            assert found["readings"] >= told["readings"]
            if found["seq"] == told["seq"]:
                assert (found["readings"], found["digest"]) == (told["readings"], told["digest"])
        assert all(outbox.seen_exchange(one["exchange"]) for one in said)
        state = outbox.get_state("engine")
        assert state is not None and int(state.split(b"/")[1]) - int(said[-1]["exchange"].split("/")[1]) in (0, 1)
        for lane, total in totals.items():
            seqs = [row.seq for row in outbox.rows(lane, 0, limit=100_000)]
            assert seqs == list(range(total["acked"] + 1, total["seq"] + 1))
        outbox.close()
    assert list(tmp_path.glob("*broken*")) == []


def filled(path: Path, *, thinned: bool = True) -> Outbox:
    """Data 31..40, one event and 200 rows of backlog wait, part of them stones."""
    outbox = opened(path, max_bytes=60_000 if thinned else 1 << 30)
    rng = random.Random(4)
    a, b = outbox.alias(SeriesInfo("m", "a", decimals=1), 5), outbox.alias(SeriesInfo("m", "b", decimals=255), 0)
    for n in range(40):
        rows = [((a, b)[k % 2], NOW_MS + 100 * n + k, rng.getrandbits(40)) for k in range(60)]
        outbox.commit([Pending("data", columns(rows)), Pending("event", events=[event(n)])], now_ms=NOW_MS + n)
    for n in range(200):
        rows = [(b, NOW_MS + 100 * n + k, rng.getrandbits(50)) for k in range(60)]
        outbox.commit([Pending("backfill", columns(rows))], now_ms=NOW_MS + n)
    outbox.acknowledge(outbox.epoch, "data", 30)
    outbox.acknowledge(outbox.epoch, "event", 39)
    return outbox


def readings_of(batches: Sequence[wire.Batch]) -> list[tuple[int, ...]]:
    return [
        row
        for b in batches
        for row in zip(b.readings.alias.tolist(), b.readings.ts_ms.tolist(), b.readings.integer.tolist(), strict=True)
    ]


def test_a_core_that_forgot_gets_all_that_waits_in_a_new_epoch(tmp_path: Path) -> None:
    outbox = filled(tmp_path / "o.db")
    before = {lane: all_batches(outbox, lane) for lane in LANES}
    waiting = before["data"] + before["backfill"]
    assert outbox.depth(0).thinned > 0
    old = outbox.epoch
    outbox.begin_again(NOW_MS, "core_forgot", unknown=True)  # within the second of its birth: still another epoch
    assert (outbox.epoch, outbox.previous_epoch, outbox.epoch_reason) == (old + 1, old, "core_forgot")
    assert outbox.ended() == {old: {"event": 39, "data": 30}}
    late = outbox.alias(SeriesInfo("m", "c"), 0)
    outbox.commit([Pending("data", columns([(0, NOW_MS, 7), (late, NOW_MS, 8)]))], now_ms=NOW_MS)
    assert outbox.parked() == [(0, "event"), (0, "data"), (0, "backfill")]
    outbox.close()  # killed before anything was carried over: it still is there
    outbox = opened(tmp_path / "o.db", max_bytes=1 << 20)
    for epoch, lane in outbox.parked():
        outbox.carry_over(epoch, lane, 0, NOW_MS)
    assert outbox.parked() == [] and outbox.carried == 10 + 1 + 200
    for box in (outbox, opened(tmp_path / "o.db")):
        check_books(box)
        assert all_batches(box, "event")[0].events == before["event"][0].events
        now = all_batches(box, "backfill")
        assert sorted(readings_of(now)) == sorted(readings_of(waiting))
        assert sorted(map(repr, (t for b in now for t in b.thinned))) == sorted(
            map(repr, (t for b in waiting for t in b.thinned))
        )
        assert [d.point for x in now for d in x.declarations] == ["a", "b"]
        assert readings_of(all_batches(box, "data")) == [(0, NOW_MS, 7), (late, NOW_MS, 8)]
    assert outbox.ended() == {old: {"event": 39, "data": 30}}
    said = pb.Account.FromString(Books(outbox, "t").account(NOW_MS, {})).ended
    assert [(one.epoch, one.lane, one.acked) for one in said] == [(old, "event", 39), (old, "data", 30)]
    with pytest.raises(ContractError):
        outbox.acknowledge(old, "data", 1)


def test_of_parked_rows_the_core_gets_those_it_has_not(tmp_path: Path) -> None:
    outbox = filled(tmp_path / "o.db", thinned=False)
    waiting = {lane: all_batches(outbox, lane) for lane in LANES}
    old = outbox.epoch
    outbox.begin_again(NOW_MS, "restored")
    asked = wire.open_envelope(outbox.question(old, "data"))
    assert (asked.epoch, asked.seq, len(asked.message.readings)) == (old, 1, 0)  # its content is gone: the core had it
    assert wire.open_envelope(outbox.question(old, "backfill")).message.readings_zstd  # its content, should it be news
    assert outbox.carry_over(old, "data", 36, NOW_MS) == 4
    assert outbox.carry_over(old, "backfill", 500, NOW_MS) == 0
    assert outbox.carry_over(old, "data", 36, NOW_MS) == 0  # the answer comes twice
    assert outbox.parked() == [(old, "event")]
    assert readings_of(all_batches(outbox, "backfill")) == readings_of(waiting["data"][6:])
    check_books(outbox)
