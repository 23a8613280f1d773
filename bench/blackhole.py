"""An uplink whose packets vanish while TCP stays open: seconds until the agent notices, and what it believes meanwhile.

Ours: the real outbox and uplink behind a cable of TUN devices that swallows every packet (where namespaces are not
allowed: behind a relay). Noticed is when the agent files what it makes as backlog. The rows it has deleted are compared
with what the database has committed: none may be gone that is not there. The peer: thingsboard-gateway's own MQTT
client behind the same cable; it publishes into the hole, and says what it takes for a success.

    python bench/blackhole.py [--runs 5] [--watch 60] [--no-peer]
"""

from __future__ import annotations

import argparse
import json
import select
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import _peer_tb  # noqa: E402
import psycopg  # noqa: E402

from citybrain_cli.chaos import book as books  # noqa: E402
from citybrain_cli.chaos import site as sites  # noqa: E402
from citybrain_cli.chaos.members import Member  # noqa: E402
from citybrain_cli.chaos.system import Load, System  # noqa: E402
from protocols.uplink.topics import LANES  # noqa: E402

AIM_S = 10.0
_PORT = 28_830


def _wait(what: str, most_s: float, found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + most_s
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise SystemExit(f"after {most_s:.0f} s still not: {what}")
        time.sleep(0.05)
    return answer


def _accepts(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def _lane_now(system: System) -> str:
    """Where the agent files what it makes just now."""
    commits = [one for one in books.read(system.agents[0].book).commits if one.ticks]
    return commits[-1].lane if commits else ""


def _freed_too_early(system: System) -> int:
    """Rows the outbox has deleted and the database has not committed."""
    with psycopg.connect(system.dsn, autocommit=True) as conn:
        rows = conn.execute("select lane, max(seq) from lane_cursor group by lane").fetchall()
    committed = {str(lane): int(seq) for lane, seq in rows}
    path = system.agents[0].folder / "outbox.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as db:
        acked = {LANES[number]: int(seq) for number, seq in db.execute("select lane, acked from lane")}
    return sum(max(0, seq - committed.get(lane, 0)) for lane, seq in acked.items())


def ours(system: System, runs: int, watch_s: float) -> dict[str, Any]:
    noticed: list[float] = []
    back: list[float] = []
    freed = 0
    for run in range(runs):
        _wait("the agent's readings are live", 120, lambda: _lane_now(system) == "data")
        system.weather(swallow=True)
        at_ms = time.time_ns() // 1_000_000
        seconds = _wait(
            "the hole is noticed",
            watch_s,
            lambda at_ms=at_ms: books.noticed_s(books.read(system.agents[0].book), at_ms),
        )
        freed += _freed_too_early(system)
        noticed.append(round(seconds, 1))
        system.weather()
        begun_s = time.monotonic()
        _wait("live again", 120, lambda: _lane_now(system) == "data")
        back.append(round(time.monotonic() - begun_s, 1))
        print(f"run {run + 1}: noticed after {noticed[-1]} s, back {back[-1]} s after it ended", file=sys.stderr)
    return {
        "runs": runs,
        "noticed_s": noticed,
        "noticed_worst_s": max(noticed),
        "live_again_after_s": back,
        "rows_freed_but_not_committed": freed,
    }


def _line(process: subprocess.Popen[str], most_s: float) -> dict[str, Any]:
    """The next line of a process that may hang."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], most_s)[0]:
        raise SystemExit(f"the peer says nothing for {most_s:.0f} s")
    return dict(json.loads(process.stdout.readline() or "{}"))


def peer(system: System, runs: int, watch_s: float) -> dict[str, Any]:
    """Its client against a broker of its own on the city's side. It speaks MQTT 5 and shows an access token only."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if found is None:
        return {"not_run": "its client speaks MQTT 5: needs mosquitto"}
    config = system.layout.path("peer", "mosquitto.conf")
    host = system.host
    config.write_text(f"listener {_PORT} {host}\nallow_anonymous true\n")
    member = Member("peer", [found, "-c", str(config)], system.layout.path("log", "peer.log"))
    member.start()
    said: list[dict[str, Any]] = []
    try:
        _wait("the peer's broker", 30, lambda: _accepts(host, _PORT))
        for _ in range(runs):
            argv = [*system.into_the_field(), *_peer_tb.command("hole", host, str(_PORT), str(watch_s))]
            with subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as process:
                try:
                    if not _line(process, 60).get("connected"):
                        raise SystemExit("the peer does not connect")
                    system.weather(swallow=True)
                    assert process.stdin is not None
                    process.stdin.write("go\n")
                    process.stdin.flush()
                    said.append(_line(process, watch_s + 30))
                finally:
                    process.kill()
            system.weather()
            print(f"peer: {said[-1]}", file=sys.stderr, flush=True)
    finally:
        member.kill()
    return {
        "runs": runs,
        "said_success_though_nothing_arrived": sum(one["said_success"] and not one["broker_has_it"] for one in said),
        "said_after_s": [one["said_after_s"] for one in said],
        "noticed_s": [one["noticed_s"] for one in said],
        "watched_s": watch_s,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--watch", type=float, default=60.0, help="seconds to wait for the hole to be noticed")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    if not options.no_peer:
        try:
            _peer_tb.environment()  # made while there is a way to the package index
        except RuntimeError as error:
            print(f"no peer: {error}", file=sys.stderr)
            options.no_peer = True
            sys.argv.append("--no-peer")
    sites.go_inside([__file__, *sys.argv[1:]])
    with tempfile.TemporaryDirectory(prefix="citybrain-hole-") as name:
        system = System(Path(name), Load(200, 50, agents=1, workers=1, devices=False), sites.look("auto"), seed=1)
        try:
            system.open()
            result: dict[str, Any] = {
                "what": "black-holed uplink: packets vanish, TCP stays open",
                "way": system.site.network,
                "ours": ours(system, options.runs, options.watch),
            }
            if not options.no_peer and system.site.network == "namespaces":
                result["peer"] = peer(system, options.runs, options.watch)
        finally:
            system.close()
    result["aim_noticed_s"] = AIM_S
    print(json.dumps(result, indent=2))
    mine = result["ours"]
    return 1 if mine["noticed_worst_s"] >= AIM_S or mine["rows_freed_but_not_committed"] else 0


if __name__ == "__main__":
    sys.exit(main())
