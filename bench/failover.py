"""Seconds until every shard commits new rows again after a SIGKILL: of a worker, and of a node of a three-node broker.

Everything is real and on this machine: PostgreSQL, nats-servers, worker processes, gateways with outbox and uplink, a
shard each, which go on producing all the while. *resumed* is counted for each shard from the kill to the first commit
of a row that was made after it; afterwards `citybrain proof` counts what was lost, doubled or reordered. The limit in
the same run is what the parts themselves allow: how soon the database notices the dead worker's session, and how soon
the first shard is back.
"""

# ruff: noqa: E402 - the parts of the tests serve here too: their folder must be found first
from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "firmware-sim")]

import psycopg

from citybrain_cli.proof.prove import prove
from cloud.store.migrate import migrate
from tests.cloud_ingest.site import CoreProcess, Feeder, enrol, query
from tests.cloud_ingest.test_ingest_faults import feeding
from tests.fixtures.broker import Broker
from tests.fixtures.cluster import NODES, Cluster
from tests.fixtures.postgres import Postgres
from tests.fixtures.wait import until

AIM_S = 15.0
_LONGEST_S = 60.0


@contextmanager
def _site(
    folder: Path, server: Postgres, broker: Any, gateways: Sequence[tuple[str, int]], workers: int
) -> Iterator[Any]:
    """(dsn, workers, feeders): all running."""
    name = f"failover_{folder.name.replace('-', '_')}"
    server.execute(f"create database {name}")
    dsn = server.dsn(name)
    migrate(dsn)
    enrol(dsn, *gateways)
    with ExitStack() as stack:
        cores = []
        for n in range(workers):
            (folder / f"worker-{n}").mkdir()
            core = CoreProcess(dsn, broker, folder / f"worker-{n}")
            stack.callback(core.kill)
            core.spawn()
            cores.append(core)
        until(lambda: len(_owners(dsn)) == workers, "every worker has its part", timeout_s=_LONGEST_S)
        feeders = [stack.enter_context(Feeder(broker, name, shard, folder)) for name, shard in gateways]
        yield dsn, cores, feeders


def _owners(dsn: str) -> dict[int, set[int]]:
    """Database process -> its shards."""
    out: dict[int, set[int]] = {}
    for pid, shard in query(
        dsn,
        "select pid, objid::bigint::int from pg_locks where locktype = 'advisory' and granted and classid = 25442"
        " and database = (select oid from pg_database where datname = current_database())",
    ):
        out.setdefault(pid, set()).add(shard)
    return out


def _seqs(dsn: str) -> dict[str, int]:
    return dict(query(dsn, "select gateway_id, seq from lane_cursor where lane = 'data'"))


def _resumed(dsn: str, feeders: Sequence[Feeder], begun: float) -> list[float]:
    """For each shard, seconds from ``begun`` to the commit of a row made after it."""
    goals = {feeder.name: feeder.outbox.last("data") for feeder in feeders}
    found: dict[str, float] = {}
    while len(found) < len(goals):
        if time.monotonic() - begun > _LONGEST_S:
            raise AssertionError(f"not resumed after {_LONGEST_S:g} s: {sorted(goals.keys() - found.keys())}")
        for gateway, seq in _seqs(dsn).items():
            if gateway not in found and seq > goals[gateway]:
                found[gateway] = time.monotonic() - begun
        time.sleep(0.02)
    return list(found.values())


def _books(dsn: str, feeders: Sequence[Feeder]) -> dict[str, int]:
    for feeder in feeders:
        feeder.drained(timeout_s=_LONGEST_S)
    with psycopg.connect(dsn, autocommit=True) as conn:
        proofs = [prove(conn, dsn, feeder.name, feeder.path) for feeder in feeders]
    return {
        "readings": sum(proof.rows or 0 for proof in proofs),
        "lost": sum(proof.lost + proof.waiting_rows for proof in proofs),
        "duplicated": sum(proof.duplicated for proof in proofs),
        "reordered": sum(proof.reordered or 0 for proof in proofs),
        "unsound": sum(not proof.sound for proof in proofs),
    }


def _figures(runs: list[list[float]]) -> dict[str, float]:
    every = [one for run in runs for one in run]
    return {
        "runs": len(runs),
        "median_s": round(statistics.median(every), 2),
        "first_shard_s": round(statistics.median([min(run) for run in runs]), 2),
        "worst_s": round(max(every), 2),
    }


def _worker_killed(folder: Path, server: Postgres, runs: int, shards: int) -> dict[str, Any]:
    gateways = [(f"gw-{n:02d}", n * 5 % 64) for n in range(shards)]
    broker = Broker(folder / "broker", gateways)
    broker.start()
    noticed: list[float] = []
    found: list[list[float]] = []
    try:
        with _site(folder, server, broker, gateways, 2) as (dsn, cores, feeders):
            with ExitStack() as busy:
                for feeder in feeders:
                    busy.enter_context(feeding(feeder, each=20, pause_s=0.1))
                _resumed(dsn, feeders, time.monotonic())
                for run in range(runs):
                    victim = cores[run % 2]
                    begun = time.monotonic()
                    victim.kill()
                    noticed.append(_until(lambda: len(_owners(dsn)) == 1, begun))
                    found.append(_resumed(dsn, feeders, begun))
                    victim.spawn()
                    until(lambda: len(_owners(dsn)) == 2, "it has its part again", timeout_s=_LONGEST_S)
                    _resumed(dsn, feeders, time.monotonic())
            books = _books(dsn, feeders)
    finally:
        broker.stop()
    limit = {"database_noticed_s": round(statistics.median(noticed), 3)}
    return {**_figures(found), "limit": limit, "books": books}


def _node_killed(folder: Path, server: Postgres, runs: int, shards: int) -> dict[str, Any]:
    gateways = [(f"gw-{n:02d}", n * 5 % 64) for n in range(shards)]
    cluster = Cluster(folder / "broker", gateways)
    cluster.start()
    found: list[list[float]] = []
    try:
        with _site(folder, server, cluster, gateways, 1) as (dsn, _, feeders):
            with ExitStack() as busy:
                for feeder in feeders:
                    busy.enter_context(feeding(feeder, each=20, pause_s=0.1))
                for run in range(runs):
                    _resumed(dsn, feeders, time.monotonic())
                    until(cluster.whole, "all copies are up to date", timeout_s=_LONGEST_S)
                    begun = time.monotonic()
                    cluster.kill(run % NODES)
                    found.append(_resumed(dsn, feeders, begun))
                    cluster.spawn(run % NODES)
                until(cluster.whole, "all copies are up to date", timeout_s=_LONGEST_S)
            books = _books(dsn, feeders)
    finally:
        cluster.stop()
    return {**_figures(found), "books": books}


def _until(found: Callable[[], bool], begun: float) -> float:
    until(found, "the dead worker's session is gone", timeout_s=_LONGEST_S)
    return time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=6, help="kills of each kind")
    parser.add_argument("--shards", type=int, default=6, help="gateways, a shard each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="citybrain-failover-") as name:
        root = Path(name)
        root.chmod(0o755)
        server = Postgres(root / "db")
        server.start()
        try:
            results = {}
            for what, play in (("worker_killed", _worker_killed), ("broker_node_killed", _node_killed)):
                print(f"{what} ...", file=sys.stderr, flush=True)
                folder = root / what
                folder.mkdir()
                results[what] = play(folder, server, options.runs, options.shards)
        finally:
            server.kill()
    clean = all(
        result["worst_s"] < AIM_S
        and not any(result["books"][n] for n in ("lost", "duplicated", "reordered", "unsound"))
        for result in results.values()
    )
    print(
        json.dumps(
            {
                "what": "seconds until every shard commits new rows again after a SIGKILL; rows lost and doubled",
                "cores": os.cpu_count(),
                "shards": options.shards,
                **results,
                "aim": {"worst_s": AIM_S, "lost": 0, "duplicated": 0},
                "reached": clean,
            }
        )
    )
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
