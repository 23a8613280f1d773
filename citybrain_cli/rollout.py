"""`citybrain cloud rollout ...`: releases to gateways in waves, for an operator with the database at hand."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protocols.core.errors import ConfigError

_ZH = {"running": "进行中", "paused": "已暂停", "stopped": "已自动停止", "aborted": "已中止", "done": "已完成"}


def add(cloud: Any) -> None:
    rollout = cloud.add_parser("rollout", help="bring a release to gateways in waves").add_subparsers(
        required=True, metavar="ACTION"
    )

    def action(name: str, do: Callable[[argparse.Namespace], int], text: str) -> Any:
        parser = rollout.add_parser(name, help=text)
        parser.add_argument("dsn", help="database, e.g. postgresql://user@host/citybrain")
        parser.set_defaults(do=do)
        return parser

    new = action("create", _create, "begin a rollout; the core's web process moves it on")
    new.add_argument("title")
    new.add_argument("--agent", metavar="NAME=VERSION")
    for kind in ("models", "packs", "templates"):
        new.add_argument(f"--{kind}", metavar="NAME=VERSION", action="append", default=[])
    new.add_argument("--gateway", action="append", default=[], help="gateway id; again for more")
    new.add_argument("--group", action="append", default=[], help="members of a group as it is now; again for more")
    new.add_argument("--gateways-file", type=Path, help="file with one gateway id a line")
    new.add_argument("--all", action="store_true", help="every gateway there is")
    new.add_argument("--waves", default="1%,10%,50%,100%", help="numbers or percentages, counted from the start")
    new.add_argument("--success", type=float, default=90.0, help="%% of a wave that must have it before the next")
    new.add_argument("--errors", type=float, default=10.0, help="%% of a wave in error beyond which it stops")
    new.add_argument("--at-a-time", type=int, default=50, help="gateways at it at a time")
    new.add_argument("--window", metavar="HH:MM-HH:MM", help="local time (UTC+8) in which gateways change over")
    new.add_argument("--repo", type=Path, default=Path("var/updates"), help="repository, to see what is released")
    action("list", _list, "rollouts, newest first")
    for name, do, text in (
        ("show", _show, "how far it is, with the gateways in error first"),
        ("pause", _pause, "offer it to nobody else for now"),
        ("resume", _resume, "go on; errors there are no longer count"),
        ("abort", _abort, "give it up; who has not changed over is wanted back as he was"),
    ):
        one = action(name, do, text)
        one.add_argument("number", type=int)
        if name != "show":
            one.add_argument("--reason", default="")


def _item(text: str) -> dict[str, str]:
    name, equals, version = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} is not NAME=VERSION")
    return {"name": name, "version": version}


def _create(options: argparse.Namespace) -> int:
    from cloud.updates import service
    from cloud.updates.repository import Repository
    from cloud.updates.waves import Plan

    change: dict[str, Any] = {}
    if options.agent:
        change["agent"] = _item(options.agent)
    for kind in ("models", "packs", "templates"):
        if items := getattr(options, kind):
            change[kind] = [_item(text) for text in items]
    if options.window:
        start, _, end = options.window.partition("-")
        change["window"] = {"start": start, "end": end}
    plan = Plan(tuple(options.waves.split(",")), options.success, options.errors, options.at_a_time)
    with _connect(options.dsn) as conn:
        names = _gateways(options, conn)
        number = service.create(
            conn,
            options.title,
            change,
            names,
            plan,
            _who(),
            datetime.now(UTC),
            released=Repository(options.repo).has if options.repo.exists() else None,
        )
    print(f"rollout {number}: {len(names)} gateways 发布任务 {number} 已建立")
    return 0


def _gateways(options: argparse.Namespace, conn: Any) -> list[str]:
    from cloud.fleet.listing import group_ids

    names = list(options.gateway)
    if options.gateways_file is not None:
        try:
            names += [line.strip() for line in options.gateways_file.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{options.gateways_file}: {error}") from error
    for group in options.group:
        names += group_ids(conn, group)
    if options.all:
        names += [row[0] for row in conn.execute("select gateway_id from gateway")]
    return sorted(set(names))


def _list(options: argparse.Namespace) -> int:
    from cloud.updates import service

    with _connect(options.dsn) as conn:
        for row in service.rollouts(conn):
            print(
                f"{row.rollout_id:6} {row.state:8} {_ZH[row.state]}  wave {row.wave + 1}/{len(row.waves)}"
                f"  {row.counts['applied']}/{row.gateways}  {row.title}  {row.reason}"
            )
    return 0


def _show(options: argparse.Namespace) -> int:
    from cloud.updates import service

    with _connect(options.dsn) as conn:
        row = service.rollout(conn, options.number)
        print(f"rollout {row.rollout_id} {row.title}: {row.state} {_ZH[row.state]}  {row.reason}")
        print("  " + "  ".join(f"{state} {count}" for state, count in row.counts.items() if count))
        for number, (gateways, applied, bad) in enumerate(row.waves):
            print(f"  wave {number + 1}: {applied} of {gateways} have it, {bad} in error")
        for member in service.members(conn, options.number, limit=200):
            print(f"  {member.gateway_id:24} {member.state:12} {member.detail}")
    return 0


def _pause(options: argparse.Namespace) -> int:
    from cloud.updates import service

    return _act(options, lambda conn: service.pause(conn, options.number, _who(), options.reason))


def _resume(options: argparse.Namespace) -> int:
    from cloud.updates import service

    return _act(options, lambda conn: service.resume(conn, options.number, _who(), options.reason))


def _abort(options: argparse.Namespace) -> int:
    from cloud.updates import service

    return _act(options, lambda conn: service.abort(conn, options.number, _who(), datetime.now(UTC), options.reason))


def _act(options: argparse.Namespace, step: Callable[[Any], None]) -> int:
    with _connect(options.dsn) as conn:
        step(conn)
    return _show(options)


def _connect(dsn: str) -> Any:
    import psycopg

    return psycopg.connect(dsn, autocommit=True)


def _who() -> str:
    """On the audit record: somebody with the database's own rights, at this machine."""
    return f"console:{getpass.getuser()}"
