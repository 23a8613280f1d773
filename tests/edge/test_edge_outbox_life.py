"""An outbox in its life: copies put back, files cut and garbled, rows garbled, disks full, rows that got too old."""

from __future__ import annotations

import random
import resource
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.outbox import Outbox, Pending
from edge.outbox.opening import open_outbox
from edge.outbox.pages import Pages
from edge.outbox.salvage import salvage
from edge.outbox.upkeep import Upkeep
from edge.outbox.witness import Witness
from protocols.core.errors import ContractError, StoreError
from protocols.core.model import EvidenceRef, SeriesInfo
from protocols.uplink import batch as wire
from protocols.uplink.topics import LANES, Lane
from tests.edge.gateway import full_disk
from tests.edge.test_edge_outbox import NOW_MS, all_batches, check_books, columns, event, readings_of

MB = 1 << 20


def opened(path: Path, *, now_ms: int = NOW_MS, max_bytes: int = 64 * MB) -> Outbox:
    return open_outbox(path, now_ms=now_ms, max_bytes=max_bytes)


def write(outbox: Outbox, first: int, count: int, *, lane: Lane = "data", each: int = 50) -> None:
    """Rows whose values say which they are; random, so that they do not compress to nothing."""
    rng = random.Random(first)
    aliases = [outbox.alias(SeriesInfo("m", name, decimals=1), 0) for name in "ab"]
    for n in range(first, first + count):
        rows = [(aliases[k % 2], NOW_MS + 1000 * n + k, rng.getrandbits(40)) for k in range(each)]
        outbox.commit([Pending(lane, columns(rows)), Pending("event", events=[event(n)])], now_ms=NOW_MS + n)


# -- copies ----------------------------------------------------------------------------------------------------------


def test_an_old_copy_is_recognised_by_its_witness(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    outbox = opened(path)
    write(outbox, 0, 30)
    outbox.acknowledge(outbox.epoch, "data", 10)
    outbox.close()
    shutil.copy(path, tmp_path / "copy")
    outbox = opened(path)
    write(outbox, 30, 20)
    outbox.acknowledge(outbox.epoch, "data", 25)
    waiting = all_batches(outbox, "data")
    old = outbox.epoch
    outbox.close()
    shutil.copy(tmp_path / "copy", path)

    back = opened(path, now_ms=NOW_MS + 5000)
    assert (back.opening.reason, back.epoch_reason, back.previous_epoch) == ("restored", "restored", old)
    assert back.epoch != old and back.totals()["data"]["seq"] == 0
    assert back.parked() == [(old, "event"), (old, "data")]
    assert back.ended() == {old: {"data": 25}}  # by the witness; the copy knew of 10
    # Rows 11 to 25 were acknowledged after the copy was made; the core has up to 27, whatever this file believes.
    assert back.carry_over(old, "data", 27, NOW_MS) == 3
    assert readings_of(all_batches(back, "backfill")) == readings_of(waiting[2:5])
    check_books(back)
    back.close()
    again = opened(path)
    assert again.opening.reason == "" and again.epoch_reason == "restored"


def test_an_outbox_that_is_gone_does_not_use_its_epoch_again(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    outbox = opened(path)
    write(outbox, 0, 3)
    old = outbox.epoch
    outbox.close()
    for part in tmp_path.glob("o.db*"):
        if "witness" not in part.name:
            part.unlink()
    back = opened(path)  # within the second of its first birth
    assert back.epoch == old + 1 and (back.previous_epoch, back.epoch_reason) == (old, "damaged")
    assert back.opening.reason == "damaged"


def test_killed_between_a_new_epoch_and_its_witness_is_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    outbox = opened(path)
    write(outbox, 0, 3)
    seen = outbox.witness.path.read_bytes() if outbox.witness is not None else b""
    outbox.begin_again(NOW_MS + 9000, "core_forgot", unknown=True)
    outbox.close()
    (tmp_path / "o.db.witness").write_bytes(seen)
    assert opened(path).opening.reason == ""


@pytest.mark.parametrize("garbage", [b"", b"x" * 76, bytes(76), b"CBW1"])
def test_a_witness_that_makes_no_sense_is_none(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "o.db"
    outbox = opened(path)
    write(outbox, 0, 3)
    outbox.close()
    (tmp_path / "o.db.witness").write_bytes(garbage)
    assert Witness(path).read() is None
    again = opened(path)
    assert again.opening.reason == "" and again.last("data") == 3
    seen = Witness(path).read()
    assert seen is not None and seen.lanes["data"] == (3, 0)


# -- broken files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "least"), [("cut in the middle", 5), ("head overwritten", 100), ("pages overwritten", 50)]
)
def test_what_can_be_read_of_a_broken_file_goes_on(tmp_path: Path, damage: str, least: int) -> None:
    path = tmp_path / "o.db"
    outbox = opened(path)
    write(outbox, 0, 100)
    outbox.acknowledge(outbox.epoch, "data", 5)
    original = readings_of(all_batches(outbox, "data"))
    old = outbox.epoch
    outbox.close()
    whole, page = path.read_bytes(), 4096
    path.write_bytes(
        {
            "cut in the middle": whole[: len(whole) // 2 + 77],
            "head overwritten": bytes(100) + whole[100:],
            "pages overwritten": whole[: 3 * page] + random.Random(1).randbytes(9 * page) + whole[12 * page :],
        }[damage]
    )
    back = opened(path, now_ms=NOW_MS + 60_000)
    assert back.epoch_reason == "damaged" and back.previous_epoch == old
    assert back.ended() == {old: {"data": 5}}  # by the witness
    saved, lost = back.opening.saved, back.opening.lost
    assert saved + lost == 95 + 100 and saved >= least
    carried = sum(back.carry_over(epoch, lane, 5 if lane == "data" else 0, NOW_MS) for epoch, lane in back.parked())
    assert carried == saved
    found = readings_of(all_batches(back, "backfill"))
    assert set(found) <= set(original) and len(found) == len(set(found))
    check_books(back)
    said: list[tuple[str, str, str, str]] = []
    Upkeep(back, _Clock(), {}, lambda *words: said.append(words), "gw").begun()  # type: ignore[arg-type]
    assert said[0][:3] == ("gw.outbox.damaged", "gw", "damaged") and f"{lost} lost" in said[0][3]
    back.close()
    assert opened(path).opening.reason == ""


class _Clock:
    def now_ms(self) -> int:
        return NOW_MS


def test_a_log_cut_in_the_middle_of_a_commit_loses_only_what_was_not_durable(tmp_path: Path) -> None:
    """A power cut: any prefix of the write-ahead log may be all that reached the disk."""
    path = tmp_path / "o.db"
    outbox = opened(path)
    durable: list[tuple[int, int]] = []  # length of the log, rows then
    log = tmp_path / "o.db-wal"
    for n in range(40):
        write(outbox, n, 1, each=120)
        durable.append((log.stat().st_size, n + 1))
    main, whole = path.read_bytes(), log.read_bytes()
    outbox.close()
    rng = random.Random(3)
    for trial in range(25):
        cut = rng.randrange(len(whole))
        folder = tmp_path / f"t{trial}"
        folder.mkdir()
        (folder / "o.db").write_bytes(main)
        (folder / "o.db-wal").write_bytes(whole[:cut] + (rng.randbytes(300) if trial % 3 == 0 else b""))
        back = opened(folder / "o.db")
        least = max((rows for size, rows in durable if size <= cut), default=0)
        assert least <= back.last("data") <= least + 1
        if back.last("data"):
            check_books(back)
        back.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_salvage_takes_any_garbage(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Never an exception, never a row that was not there."""
    folder = tmp_path_factory.mktemp("garbage")
    path, whole, log, original = _broken_from(folder)
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(broken) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=64))
        broken[at : at + len(piece)] = piece
    path.write_bytes(bytes(broken[: data.draw(st.integers(0, len(broken)))]))
    path.with_name(path.name + "-wal").write_bytes(log[: data.draw(st.integers(0, len(log)))])
    saved = salvage(path)
    assert {(epoch, number, seq, payload) for epoch, number, seq, payload in saved.rows} <= original
    assert saved.missing() >= 0


_MADE: dict[str, tuple[bytes, bytes, set[tuple[int, int, int, bytes]]]] = {}


def _broken_from(folder: Path) -> tuple[Path, bytes, bytes, set[tuple[int, int, int, bytes]]]:
    """A file whose newest rows are still in the log only; made once."""
    path = folder / "o.db"
    if not _MADE:
        outbox = Outbox(path, now_ms=NOW_MS)
        write(outbox, 0, 20)
        outbox._db.execute("pragma wal_checkpoint(truncate)")
        write(outbox, 20, 10, each=900)
        rows = {
            (outbox.epoch, n, r.seq, r.payload) for n, lane in enumerate(LANES) for r in outbox.rows(lane, 0, limit=99)
        }
        _MADE["it"] = (path.read_bytes(), path.with_name("o.db-wal").read_bytes(), rows)
        outbox.close()
    return path, *_MADE["it"]


def test_pages_and_log_together_give_every_row(tmp_path: Path) -> None:
    path, whole, log, original = _broken_from(tmp_path)
    path.write_bytes(whole)
    path.with_name(path.name + "-wal").write_bytes(log)
    saved = salvage(path)
    assert set(saved.rows) == original
    assert [(d.alias, d.point) for d in saved.declarations] == [(0, "a"), (1, "b")]
    assert len(Pages(path)) > 10


def test_a_garbled_row_becomes_a_stone_and_its_series_are_declared_again(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    outbox = opened(path)
    write(outbox, 0, 6)
    totals = outbox.totals()
    outbox.close()
    db = sqlite3.connect(path)
    (payload,) = db.execute("select payload from batch where lane = 1 and seq = 1").fetchone()
    garbled = bytearray(payload)
    garbled[len(garbled) // 2] ^= 0x40
    db.execute("update batch set payload = ? where lane = 1 and seq = 1", (bytes(garbled),))
    db.execute("update batch set payload = zeroblob(40) where lane = 0 and seq = 3")
    db.commit()
    db.close()
    back = opened(path)
    first, second = all_batches(back, "data")[:2]  # decoded from what is declared there alone
    (stone,) = first.thinned
    assert (stone.readings, stone.reason) == (50, "row_damaged")
    assert (stone.first_ms, stone.last_ms) == (NOW_MS, NOW_MS + 49)
    assert [d.point for d in first.declarations] == ["a", "b"] and len(second.readings) == 50
    assert [b.seq for b in all_batches(back, "event")] == [1, 2, 3, 4, 5, 6]
    assert back.garbled == (2, 1)
    assert back.totals()["data"]["digest"] == totals["data"]["digest"]  # the stone's digest is what the row's was
    assert back.totals()["data"]["thinned"] == 50


def test_a_file_that_breaks_in_use_is_not_believed_again(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    outbox = opened(path)
    write(outbox, 0, 200)
    outbox._db.execute("pragma wal_checkpoint(truncate)")
    size = path.stat().st_size
    with path.open("r+b") as file:  # garbled under the running agent
        file.seek(8 * 4096)
        file.write(random.Random(2).randbytes(size - 10 * 4096))
    outbox._db.execute("pragma shrink_memory")
    with pytest.raises(StoreError) as broken:
        for lane in LANES:
            outbox.rows(lane, 0, limit=500)
    assert not broken.value.retry
    outbox.close()
    back = opened(path, now_ms=NOW_MS + 9000)
    assert back.opening.reason == "damaged" and back.epoch_reason == "damaged"
    write(back, 300, 2)
    back.close()
    assert opened(path).opening.reason == ""


# -- what gives way --------------------------------------------------------------------------------------------------


def test_stones_say_what_went_by_series_and_keep_the_rest_of_their_row(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db", max_bytes=40_000)
    a, b = (outbox.alias(SeriesInfo("m", name), 0) for name in "ab")
    rng = random.Random(9)
    outcome = wire.CommandOutcome("o1", "done", "", "", {"x": 1}, NOW_MS)
    report = wire.Reported("config", 3, "applied", "", {"a": 1}, NOW_MS)
    correction = wire.ClockCorrection(NOW_MS - 10, NOW_MS, 500, 3, "boot")
    rows = [((a, b)[k % 3 == 0], NOW_MS + k, rng.getrandbits(50)) for k in range(60)]
    outbox.commit(
        [Pending("data", columns(rows), [event(1)], [wire.DeviceState("m", True, NOW_MS)], (), [outcome], [report],
                 [correction], wire.CLOCK_UNKNOWN, True, 7)], now_ms=NOW_MS,
    )  # fmt: skip
    whole = all_batches(outbox, "data")[0]
    outbox._standing.sent["data"] = 0  # it has not been sent: only looked at
    write(outbox, 0, 150)
    stone = all_batches(outbox, "data")[0]
    assert not len(stone.readings) and len(whole.readings) == 60
    assert [(s.alias, s.readings) for s in stone.thinned[0].series] == [(a, 40), (b, 20)]
    assert stone.thinned[0].series[0] == wire.ThinnedSeries(a, 40, NOW_MS + 1, NOW_MS + 59)
    for part in ("declarations", "events", "devices", "outcomes", "reported", "corrections", "clock", "historical",
                 "clock_run"):  # fmt: skip
        assert getattr(stone, part) == getattr(whole, part), part
    check_books(outbox)


def test_rows_that_waited_too_long_expire_but_not_those_sent_or_made_under_a_clock_not_set(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db")
    alias = outbox.alias(SeriesInfo("m", "x"), 0)
    picture = wire.EvidenceChunk(EvidenceRef("ab" * 32), "cam", NOW_MS, 9000, 0, random.Random(1).randbytes(9000))

    def one(made_ms: int) -> None:
        outbox.commit(
            [Pending("data", columns([(alias, made_ms, 1)])), Pending("backfill", columns([(alias, made_ms, 2)])),
             Pending("event", events=[event(made_ms)]), Pending("evidence", evidence=[picture])], now_ms=made_ms,
        )  # fmt: skip

    hour = 3_600_000
    for made_ms in (5000, NOW_MS, NOW_MS + hour, NOW_MS + 3 * hour):
        one(made_ms)
    assert [row.seq for row in outbox.rows("data", 0, limit=2)] == [1, 2]  # these are on their way
    lost = outbox.expire(NOW_MS + 3 * hour + 1, {"data": 2 * hour, "backfill": 2 * hour, "evidence": hour, "event": 1})
    assert (lost.rows, lost.readings) == (1 + 2 + 2, 3)
    assert [len(b.readings) for b in all_batches(outbox, "data")] == [1, 1, 0, 1]
    assert [len(b.readings) for b in all_batches(outbox, "backfill")] == [1, 0, 0, 1]
    assert [(t.reason, t.readings) for b in all_batches(outbox, "backfill") for t in b.thinned] == [("expired", 1)] * 2
    assert [len(b.evidence) for b in all_batches(outbox, "evidence")] == [1, 0, 0, 1]
    assert [len(b.events) for b in all_batches(outbox, "event")] == [1, 1, 1, 1]
    check_books(outbox)
    assert outbox.expire(NOW_MS + 3 * hour + 2, {"backfill": 2 * hour, "evidence": hour}).rows == 0


def test_a_full_disk_is_told_and_old_data_make_room(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db")
    write(outbox, 0, 60, lane="backfill", each=400)
    outbox._db.execute("pragma wal_checkpoint(truncate)")
    said: list[tuple[str, ...]] = []
    upkeep = Upkeep(outbox, _Clock(), {}, lambda *words: said.append(words), "gw")  # type: ignore[arg-type]
    refused = 0
    reserve = tmp_path / "o.db.reserve"
    assert reserve.stat().st_size == 4 * MB
    room = (tmp_path / "o.db").stat().st_size + 24_000

    def more_room() -> None:  # on a real disk that is what giving the reserve up does
        give_up()
        resource.setrlimit(resource.RLIMIT_FSIZE, (room + 600_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    outbox._db.execute("pragma wal_autocheckpoint = 60")  # the same proportion to the reserve as on a gateway
    assert outbox._reserve is not None
    give_up = outbox._reserve.give_up
    outbox._reserve.give_up = more_room  # type: ignore[method-assign]
    with full_disk(room):
        for n in range(60, 200):  # the file may not grow: old readings give way to new ones
            try:
                write(outbox, n, 1, each=400)
            except StoreError as error:
                assert error.retry
                refused += 1
        upkeep.look()
        assert not reserve.exists()
    assert 0 < refused < 10
    assert [words[0] for words in said] == ["gw.outbox.thinned", "gw.outbox.refused"]
    assert outbox.thinned > 0 and outbox.totals()["event"]["thinned"] == 0
    write(outbox, 200, 1)
    assert reserve.exists()
    check_books(outbox)
    outbox.close()
    assert opened(tmp_path / "o.db").opening.reason == ""


def test_an_acknowledgement_of_an_earlier_life_frees_nothing(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.db")
    write(outbox, 0, 5)
    old = outbox.epoch
    outbox.begin_again(NOW_MS, "restored")
    write(outbox, 5, 5)
    with pytest.raises(ContractError):
        outbox.acknowledge(old, "data", 5)
    assert outbox.depth(NOW_MS).rows["data"] == 5 + 5  # parked ones wait as well
