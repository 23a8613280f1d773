"""The ledger: complete whatever happens to the agent, and honest about its own torn line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_sim import ledger
from firmware_sim.ledger import FileLedger, MemoryLedger
from protocols.core.errors import StoreError

ROOT = Path(__file__).resolve().parents[2]


def fill(book: ledger.Ledger) -> None:
    book.write("open", "", 0, scene="s", seed=1)
    for second in range(5):
        book.write("up", "dust", second, cn="2011", dt=f"2026030222000{second}", v={"pm10": str(second)})
        book.write("sent", "dust", second, cn="2011", dt=f"2026030222000{second}", intact=True)
    book.write("sent", "dust", 5, cn="2011", dt="20260302220000", intact=True)
    for second in (0, 1, 3):
        book.write("ack", "dust", second, cn="2011", dt=f"2026030222000{second}")
    book.write("gave_up", "dust", 6, cn="2011", dt="20260302220002")
    book.write("ans", "meter-01", 7, intact=True, what="02010100")
    book.write("ans", "meter-01", 8, intact=False, what="02010100")
    book.write("fault", "meter-01", 8, kind="garble", detail="20 -> 20 bytes")


def check(totals: ledger.Totals) -> None:
    dust, meter = totals["dust"], totals["meter-01"]
    assert totals.runs == 1
    assert len(dust.uploads) == 5
    assert dust.uploads["2011", "20260302220003"] == {"pm10": "3"}
    assert dust.sent["2011", "20260302220000"] == 2
    assert sorted(moment for _, moment in dust.acknowledged) == ["20260302220000", "20260302220001", "20260302220003"]
    assert dust.owed == set(dust.uploads) - {("2011", "20260302220002")}
    assert dust.open == {("2011", "20260302220004")}
    assert (meter.answers, meter.answers_intact, dict(meter.faults)) == (2, 1, {"garble": 1})


def test_file_and_memory_give_the_same_totals(tmp_path: Path) -> None:
    in_memory, on_disk = MemoryLedger(), FileLedger(tmp_path / "deep" / "run.jsonl")
    fill(in_memory)
    fill(on_disk)
    on_disk.close()
    assert (tmp_path / "deep" / "run.jsonl").read_bytes() == b"".join(in_memory.lines)
    check(in_memory.totals())
    check(ledger.read(tmp_path / "deep" / "run.jsonl"))


def test_second_run_appends_behind_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first = FileLedger(path)
    fill(first)
    first.close()
    with path.open("ab") as file:
        file.write(b'{"k":"up","dev":"dust","ms":9,"cn":"20')
    second = FileLedger(path)
    second.write("ans", "meter-02", 10, intact=True, what="x")
    second.close()
    totals = ledger.read(path)
    assert totals.torn_lines == 1
    assert totals["meter-02"].answers == 1
    check(totals)


def test_new_run_gives_up_what_the_stations_of_the_old_one_kept() -> None:
    book = MemoryLedger()
    fill(book)
    book.write("open", "", 100, scene="s", seed=1)
    book.write("up", "dust", 101, cn="2011", dt="20260302220101", v={})
    dust = book.totals()["dust"]
    assert dust.open == {("2011", "20260302220101")}
    assert ("2011", "20260302220004") in dust.given_up
    assert book.totals().runs == 2


def test_killing_the_writer_loses_no_line_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    program = f"""
import sys
from firmware_sim.ledger import FileLedger
book = FileLedger({str(path)!r})
for n in range(1000):
    book.write("ans", "meter", n, intact=True, what="x")
    if n == 499:
        sys.stdout.write("half\\n"); sys.stdout.flush()
        sys.stdin.readline()
"""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'firmware-sim'}"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=env
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.send_signal(signal.SIGKILL)
    totals = ledger.read(path)
    assert (totals["meter"].answers, totals.torn_lines) == (500, 0)


def test_full_disk_is_an_error_and_not_a_gap() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    book = FileLedger("/dev/full")
    with pytest.raises(StoreError, match="No space left"):
        book.write("ans", "meter", 0, intact=True)
    book.close()


def test_unreadable_ledger_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read the ledger"):
        ledger.read(tmp_path / "none.jsonl")
    with pytest.raises(StoreError, match="cannot keep a ledger"):
        FileLedger(tmp_path)
