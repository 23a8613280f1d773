"""The command: where the books are, and what is printed about them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from protocols.core.errors import ConfigError, StoreError

_START_S = 60.0
_DESCRIPTION = """\
Lays the books side by side that devices, gateways, broker and database kept apart from each other, and says what is
missing, doubled or out of order, with ranges. Exit code 0: nothing is missing without a reason; 1: something is; 2: the
books cannot be read. With --state, those of `citybrain up` on this machine, outbox files and simulator included; with
--dsn, those of a city, where the gateways' accounts stand for their outboxes.
逐一核对设备、网关、消息代理与数据库各自独立记录的账目，指出缺失、重复或乱序的范围。退出码 0：没有原因不明的缺失。"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "proof",
        help="that nothing was lost, doubled or reordered between sensor and database",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gateway", metavar="ID", help="this one alone (default: all)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--state", type=Path, metavar="FOLDER", help="state folder of `citybrain up` (default: var)")
    where.add_argument("--dsn", help="database of a core, e.g. postgresql://user@host/citybrain")
    parser.add_argument(
        "--outbox", type=Path, metavar="FILE", help="with --dsn and --gateway: its outbox, if it lies here"
    )
    parser.add_argument("--monitor", default="", metavar="URL", help="monitoring page of the NATS broker")
    parser.add_argument("--books-only", action="store_true", help="do not count the rows themselves again")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    import psycopg

    from citybrain_cli.proof import broker, show
    from citybrain_cli.proof.prove import gateways_of, prove

    if options.outbox is not None and not (options.gateway and options.dsn):
        raise ConfigError("--outbox needs --dsn and --gateway: it is one gateway's file")
    with _database(options) as dsn:
        try:
            with psycopg.connect(dsn, autocommit=True) as conn:
                chosen = gateways_of(conn)
                if options.gateway is not None:
                    if options.gateway not in chosen:
                        raise ConfigError(f"no gateway {options.gateway!r}; there are: {', '.join(chosen) or 'none'}")
                    chosen = [options.gateway]
                proofs = [
                    prove(conn, dsn, one, _outbox(options, one), count_rows=not options.books_only) for one in chosen
                ]
                sensors = _sensors(options, conn)
        except psycopg.Error as error:
            raise StoreError(f"database: {str(error).strip().splitlines()[0]}") from error
    stored = asdict(broker.look(options.monitor))
    found: dict[str, Any] = {
        "gateways": [asdict(proof) | {"sound": proof.sound} for proof in proofs],
        "broker": stored,
        "sensors": sensors,
        "sound": all(proof.sound for proof in proofs) and not (sensors or {}).get("uploads_lost"),
    }
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False, default=str))
    else:
        print(show.text(proofs, stored, sensors))
    return 0 if found["sound"] else 1


def _state(options: argparse.Namespace) -> Path:
    state: Path = options.state or Path("var")
    return state


def _outbox(options: argparse.Namespace, gateway: str) -> Path | None:
    if options.dsn:
        found: Path | None = options.outbox
        return found
    return _state(options) / "edge" / gateway / "state" / "outbox.db"


def _sensors(options: argparse.Namespace, conn: Any) -> dict[str, Any] | None:
    """The simulated devices' own book; None where there is none."""
    from citybrain_cli.proof.sensors import sensor_ledger

    path = _state(options) / "sim" / "ledger.jsonl"
    if options.dsn or options.gateway or not path.exists():
        return None
    return sensor_ledger(conn, path)


@contextmanager
def _database(options: argparse.Namespace) -> Iterator[str]:
    """Its address. The embedded one is started for as long as this takes, if it is not running."""
    if options.dsn:
        yield options.dsn
        return
    import signal

    from citybrain_cli.up.processes import Child, Processes
    from cloud.store.embedded import prepare

    state = _state(options)
    if not (state / "db" / "data" / "PG_VERSION").exists():
        raise ConfigError(f"{state} holds no database of `citybrain up`; give --state FOLDER or --dsn")
    database = prepare(state / "db")
    if _answers(database.dsn):
        yield database.dsn
        return
    processes = Processes(state / "proof-processes.json", lambda _: None)
    child = Child(
        "database", database.argv, state / "log" / "proof-db.log", user=database.user, stop_signal=signal.SIGINT
    )
    processes.start(child)
    try:
        _wait(database.dsn, child)
        yield database.dsn
    finally:
        processes.stop_all()


def _answers(dsn: str) -> bool:
    import psycopg

    try:
        psycopg.connect(dsn, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _wait(dsn: str, child: Any) -> None:
    until = time.monotonic() + _START_S
    while not _answers(dsn):
        if not child.running or time.monotonic() > until:
            raise StoreError(f"the database did not start; see {child.log}")
        time.sleep(0.1)
