"""`citybrain cloud config ...`: a gateway's configuration document: what is wanted, what is in force, what changed."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from protocols.core.errors import ConfigError


def add(cloud: Any) -> None:
    config = cloud.add_parser(
        "config", help="a gateway's configuration from afar: show, set, diff, roll back, history"
    ).add_subparsers(required=True, metavar="ACTION")
    for name, do, text in (
        ("show", _show, "what is wanted and what the gateway says of it"),
        ("history", _history, "every version, newest first"),
        ("set", _set, "want the tables of a TOML file in force"),
        ("diff", _diff, "what changed between two versions"),
        ("roll-back", _roll_back, "want an earlier version again"),
    ):
        action = config.add_parser(name, help=text)
        action.add_argument("dsn", help="database, e.g. postgresql://user@host/citybrain")
        action.add_argument("gateway")
        action.set_defaults(do=do)
        if name == "set":
            action.add_argument(
                "file", type=Path, help="TOML with [[connector]], [[scenario]] ...; no [gateway], [mqtt]"
            )
            action.add_argument("--comment", default="")
        elif name == "diff":
            action.add_argument("before", type=int)
            action.add_argument("after", type=int)
        elif name == "roll-back":
            action.add_argument("version", type=int)


def _who() -> str:
    return f"shell:{getpass.getuser()}"


def _show(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.twin import service

    with psycopg.connect(options.dsn) as conn:
        found = [one for one in service.states(conn, options.gateway) if one.name == "config"]
    if not found:
        print(f"{options.gateway}: the installer's own file is in force; nothing was set from here. 未下发过配置")
        return 0
    state = found[0]
    told = f"told of {state.version}: {state.state} {state.detail}".rstrip()
    print(f"{options.gateway}: wanted version {state.wanted}, {told}")
    if state.document is not None:
        json.dump(state.document, sys.stdout, ensure_ascii=False, indent=2)
        print()
    return 0 if state.settled else 1


def _history(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.twin import service

    with psycopg.connect(options.dsn) as conn:
        for one in service.history(conn, options.gateway, "config"):
            print(f"{one.version:5}  {one.at:%Y-%m-%d %H:%M:%S}  {one.author:20} {one.comment}")
    return 0


def _set(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.twin import service

    try:
        document = tomllib.loads(options.file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{options.file}: {error}") from error
    with psycopg.connect(options.dsn) as conn:
        version = service.desire(conn, options.gateway, "config", document, _who(), options.comment)
    print(f"{options.gateway}: version {version} is wanted. 已登记，网关在线后生效")
    return 0


def _diff(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.twin import service
    from cloud.twin.diff import diff

    with psycopg.connect(options.dsn) as conn:
        pair = [service.version(conn, options.gateway, "config", n).document for n in (options.before, options.after)]
    for change in diff(*pair):
        before, after = (json.dumps(value, ensure_ascii=False) for value in (change.before, change.after))
        sign = {"added": "+", "removed": "-", "changed": "~"}[change.kind]
        shown = {"added": after, "removed": before, "changed": f"{before} -> {after}"}[change.kind]
        print(f"{sign} {change.path}: {shown}")
    return 0


def _roll_back(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.twin import service

    with psycopg.connect(options.dsn) as conn:
        version = service.roll_back(conn, options.gateway, "config", options.version, _who())
    print(f"{options.gateway}: version {version} (the text of {options.version}) is wanted. 已登记回退")
    return 0
