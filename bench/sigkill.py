"""SIGKILL of the agent at 1 000 events a second, 30 runs: what it had acknowledged, and what is there afterwards.

Ours: the real outbox and uplink, killed at a drawn moment and started again, with broker, worker and database behind
them; at the end the source's own book (what each commit() returned for) is compared with the rows of the database. The
peer: thingsboard-gateway's stores as released, put() at the same rate, SIGKILL, and a new process that takes out what
there is; acknowledged is what put() said yes to.

    python bench/sigkill.py [--runs 30] [--rate 1000] [--seed 1] [--no-peer]
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import _peer_tb  # noqa: E402
import psycopg  # noqa: E402

from citybrain_cli.chaos import book as books  # noqa: E402
from citybrain_cli.chaos import verdict  # noqa: E402
from citybrain_cli.chaos.site import Site  # noqa: E402
from citybrain_cli.chaos.system import Load, System  # noqa: E402
from citybrain_cli.proof.books import read_outbox  # noqa: E402

#: An agent is killed so many seconds after its first acknowledgement of this life.
LIVES_S = (0.5, 2.0)
#: At least so many must have been acknowledged: a run in which nothing was says nothing.
_FIRST_S = 60.0
_DRAIN_S = 120.0


def _lines(path: Path) -> int:
    return path.read_bytes().count(b'{"ok"') if path.exists() else 0


def _wait(what: str, until_s: float, found: Any) -> None:
    deadline = time.monotonic() + until_s
    while not found():
        if time.monotonic() > deadline:
            raise SystemExit(f"after {until_s:.0f} s still not: {what}")
        time.sleep(0.01)


def ours(runs: int, rate: float, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="citybrain-sigkill-") as name:
        load = Load(
            readings=1000, events=rate, agents=1, workers=1, every_s=0.02, devices=False
        )  # as the pipeline gathers events
        system = System(Path(name), load, Site(False, "proxy", "none"), seed)
        try:
            system.open()
            return _ours(system, runs, draw)
        finally:
            system.close()


def _ours(system: System, runs: int, draw: random.Random) -> dict[str, Any]:
    (agent,) = system.agents
    begun_s, loaded_s = time.monotonic(), 0.0
    for run in range(runs):
        if run:
            agent.member.start()
        before = _lines(agent.book)
        _wait("a first commit of this life", _FIRST_S, lambda before=before: _lines(agent.book) > before)
        life_s = draw.uniform(*LIVES_S)
        time.sleep(life_s)  # the fault's own time: drawn, not waited for
        loaded_s += life_s
        agent.member.kill()
        print(f"run {run + 1}: killed after {life_s:.2f} s", file=sys.stderr, flush=True)
    agent.produce = False
    agent.tell()
    agent.member.start()
    book = books.read(agent.book)
    with psycopg.connect(system.dsn, autocommit=True) as conn:

        def drained() -> bool:
            # Not by the number of events alone: commits in doubt that were kept stand in for some still under way.
            row = conn.execute("select coalesce(sum(events), 0) from lane_cursor").fetchone()
            enough = row is not None and int(row[0]) >= book.events
            kept = read_outbox(agent.folder / "outbox.db")
            return enough and kept is not None and not kept.waiting

        _wait("everything acknowledged is committed", _DRAIN_S, drained)
        agent.member.stop()
        found = verdict.check(conn, book)
    lost = found.count("lost", "events") + found.count("lost", "readings")
    return {
        "runs": runs,
        "acknowledged_events": found.accepted_events,
        "acknowledged_events_per_s": round(found.accepted_events / loaded_s),
        "acknowledged_readings": found.accepted_readings,
        "acknowledged_lost": lost,
        "duplicated_in_database": found.count("duplicated", "events") + found.count("duplicated", "readings"),
        "reordered": found.count("reordered", "events") + found.count("reordered", "readings"),
        "commits_in_doubt": found.in_doubt,
        "commits_in_doubt_kept_whole": found.in_doubt_kept,
        "commits_torn": found.count("torn", "commits"),
        "fsync": "one per commit, before it is acknowledged",
        "seconds": round(time.monotonic() - begun_s, 1),
    }


def peer(kind: str, runs: int, rate: float, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    acknowledged = lost = doubled = 0
    losing = 0
    worst = 0
    for run in range(runs):
        with tempfile.TemporaryDirectory(prefix="citybrain-peer-") as name:
            said, kept = _peer_run(kind, Path(name), rate, draw.uniform(*LIVES_S))
        gone = len(said - set(kept))
        acknowledged += len(said)
        lost += gone
        losing += bool(gone)
        worst = max(worst, gone)
        doubled += len(kept) - len(set(kept))
        print(f"peer {kind} run {run + 1}: {len(said)} acknowledged, {gone} lost", file=sys.stderr, flush=True)
    return {
        "runs": runs,
        "runs_that_lost": losing,
        "acknowledged": acknowledged,
        "acknowledged_lost": lost,
        "worst_run_lost": worst,
        "delivered_twice": doubled,
    }


def _peer_run(kind: str, folder: Path, rate: float, life_s: float) -> tuple[set[int], list[int]]:
    log = folder / "said"
    with log.open("wb") as out:
        process = subprocess.Popen(
            _peer_tb.command("put", kind, str(folder / "store"), str(rate)), stdout=out, stderr=subprocess.DEVNULL
        )
        try:
            _wait("the peer's first message", _FIRST_S, lambda: log.stat().st_size or process.poll() is not None)
            time.sleep(life_s)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    said = {int(line) for line in log.read_bytes().split(b"\n")[:-1]}
    drained = subprocess.run(
        _peer_tb.command("drain", kind, str(folder / "store")), capture_output=True, timeout=120, check=False
    )
    return said, [int(line) for line in drained.stdout.split()]


def backlog(kind: str, count: int) -> dict[str, Any]:
    """Nobody is killed: so many messages while the uplink is away, the store is closed, opened again and emptied."""
    with tempfile.TemporaryDirectory(prefix="citybrain-peer-") as name:
        store = str(Path(name) / "store")
        put = subprocess.run(
            _peer_tb.command("put", kind, store, "20000", str(count)), capture_output=True, timeout=300, check=False
        )
        said = {int(line) for line in put.stdout.split()}
        drained = subprocess.run(_peer_tb.command("drain", kind, store), capture_output=True, timeout=300, check=False)
    kept = {int(line) for line in drained.stdout.split()}
    return {"acknowledged": len(said), "delivered": len(said & kept), "lost": len(said - kept)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "what": "SIGKILL of the agent under load: acknowledged by its store, and missing afterwards",
        "rate_per_s": options.rate,
        "ours": ours(options.runs, options.rate, options.seed),
    }
    if not options.no_peer:
        result["peer"] = {"what": f"{_peer_tb.PACKAGE} {_peer_tb.VERSION}, its own storage classes"}
        try:
            _peer_tb.environment()
        except RuntimeError as error:
            result["peer"]["not_run"] = str(error)
        else:
            for kind in ("sqlite", "file"):
                result["peer"][kind] = peer(kind, options.runs, options.rate, options.seed)
            result["peer"]["file_backlog_of_25000"] = backlog("file", 25_000)
    result["aim"] = {"acknowledged_lost": 0, "duplicated_in_database": 0}
    print(json.dumps(result, indent=2))
    mine = result["ours"]
    return 1 if mine["acknowledged_lost"] or mine["duplicated_in_database"] or mine["commits_torn"] else 0


if __name__ == "__main__":
    sys.exit(main())
