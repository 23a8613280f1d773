"""`citybrain cloud import | export | tag | group`: many gateways and devices at once."""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import getpass
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocols.core.errors import ConfigError, ContractError

if TYPE_CHECKING:
    import psycopg


def add_cloud(cloud: Any) -> None:
    bring = _command(cloud, "import", _import, "bring gateways or devices in from CSV or JSON; again changes nothing")
    bring.add_argument("file", help="CSV (UTF-8, GBK, any spreadsheet) or JSON; - is standard input")
    bring.add_argument("--kind", choices=("gateways", "devices"), default="gateways")
    bring.add_argument("--dry-run", action="store_true", help="say what would happen; write nothing")
    bring.add_argument("--skip-wrong", action="store_true", help="take the good rows, leave the others out")
    bring.add_argument(
        "--claims",
        type=Path,
        metavar="FILE",
        help="a one-time code for each new gateway, as CSV (mode 0600); needs --config",
    )
    give = _command(cloud, "export", _export, "gateways or devices that a question picks, as CSV or JSON")
    give.add_argument("kind", choices=("gateways", "devices"))
    give.add_argument("query", nargs="?", default="", help="as: district:baohe version<0.2 -tag:test")
    give.add_argument("--json", action="store_true", help="one JSON object a line")
    give.add_argument("--en", action="store_true", help="English headings")
    tags = _command(cloud, "tag", _tag, "put tags on, take tags off whatever a question picks")
    tags.add_argument("kind", choices=("gateways", "devices"))
    tags.add_argument("query")
    tags.add_argument("--add", action="append", default=[], metavar="TAG")
    tags.add_argument("--remove", action="append", default=[], metavar="TAG")
    group = _command(cloud, "group", _group, "keep a question under a name; without one, list them")
    group.add_argument("name", nargs="?")
    group.add_argument("query", nargs="?")
    group.add_argument("--kind", choices=("gateways", "devices"), default="gateways")


def _command(cloud: Any, name: str, do: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = cloud.add_parser(name, help=text)
    command.add_argument("--config", type=Path, help="core.toml")
    command.add_argument("--dsn", help="database, instead of --config")
    command.set_defaults(do=do)
    return command


def _connect(options: argparse.Namespace) -> psycopg.Connection[Any]:
    import psycopg

    if options.dsn is None:
        if options.config is None:
            raise ConfigError("say --config core.toml or --dsn DSN")
        from cloud.config import load

        options.dsn = load(options.config).dsn
    return psycopg.connect(options.dsn, autocommit=True)


def _who() -> str:
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):
        return "shell"


def _import(options: argparse.Namespace) -> int:
    from cloud.fleet.importing import bring
    from cloud.fleet.sheet import SheetError

    if options.claims is not None and (options.config is None or options.kind != "gateways"):
        raise ConfigError("--claims is for gateways and needs --config core.toml with [identity]")
    try:
        data = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{options.file}: {error.strerror}") from error
    with _connect(options) as conn:
        try:
            found = bring(
                conn, options.kind, data, _who(), dry_run=options.dry_run, skip_wrong=options.skip_wrong
            )  # fmt: skip
        except SheetError as error:
            print(f"{options.file}: {error.zh} / {error.en}", file=sys.stderr)
            return 1
        for wrong in found.errors:
            print(f"第 {wrong.row} 行 row {wrong.row}  {wrong.column}: {wrong.zh} / {wrong.en}", file=sys.stderr)
        if found.more_errors:
            print(f"... {found.more_errors} more 另有 {found.more_errors} 处", file=sys.stderr)
        if found.written and options.claims is not None:
            made = _claims(conn, options, found.new)
            print(f"{options.claims}: {made} 个注册码 claim codes")
    said = (
        "已写入 written"
        if found.written
        else "未写入（试运行）nothing written (dry run)"
        if found.dry_run
        else "未写入 nothing written"
    )
    print(
        f"{found.rows} 行 rows: 新增 new {len(found.new)}, 更改 changed {len(found.changed)}, 相同 same {found.same},"
        f" 有误 wrong {found.left_out}; {said}"
    )
    return 1 if found.errors else 0


def _claims(conn: psycopg.Connection[Any], options: argparse.Namespace, gateways: list[str]) -> int:
    """One-time codes for new gateways; the only place where they stand in clear is the file."""
    from cloud.config import load
    from cloud.identity import claims
    from cloud.identity.codes import label_text
    from cloud.identity.signer import open_signer

    settings = load(options.config)
    identity = settings.identity
    if identity is None:
        raise ConfigError(f"{options.config}: [identity] is missing")
    now = dt.datetime.now(dt.UTC)
    signer = open_signer(identity, Path(settings.state_dir), settings.city_en, now)
    handle = os.open(options.claims, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(handle, 0o600)  # it may have been there, open to others
    with os.fdopen(handle, "w", encoding="utf-8-sig", newline="") as file:
        out = csv.writer(file)
        out.writerow(["gateway_id", "shard", "code", "label", "expires_at"])
        with conn.transaction():
            for gateway in gateways:
                row = conn.execute(
                    "select shard, name_zh, name_en, lon, lat, admission from gateway where gateway_id = %s", (gateway,)
                ).fetchone()
                if row is None:
                    continue
                made = claims.make(conn, claims.Wanted(gateway, *row), _who(), now, identity.claim_days)
                text = label_text(identity.public_url, made.code, signer.fingerprint)
                out.writerow([gateway, made.shard, made.code.text, text, made.expires_at.isoformat()])
            file.flush()
            os.fsync(file.fileno())
    return len(gateways)


def _export(options: argparse.Namespace) -> int:
    from cloud.fleet.listing import given_out
    from cloud.fleet.query import QueryError
    from cloud.fleet.sheet import write_csv, write_json_lines

    out = io.TextIOWrapper(os.fdopen(os.dup(sys.stdout.fileno()), "wb"), encoding="utf-8", newline="")
    with _connect(options) as conn, conn.transaction(), out:
        try:
            rows = given_out(conn, options.kind, options.query)
            pieces = (
                write_json_lines(options.kind, rows)
                if options.json
                else write_csv(options.kind, rows, zh=not options.en)
            )
            for piece in pieces:
                out.write(piece)
        except QueryError as error:
            raise ConfigError(f"{error.zh} / {error}") from error
    return 0


def _tag(options: argparse.Namespace) -> int:
    from cloud.fleet.listing import tag
    from cloud.fleet.query import QueryError

    with _connect(options) as conn, conn.transaction():
        try:
            picked = tag(conn, options.kind, options.query, options.add, options.remove, _who())
        except QueryError as error:
            raise ConfigError(f"{error.zh} / {error}") from error
    print(f"{picked} {options.kind}")
    return 0


def _group(options: argparse.Namespace) -> int:
    from cloud.fleet.listing import group_ids, groups, save_group

    with _connect(options) as conn, conn.transaction():
        try:
            if options.name is None:
                for group in groups(conn):
                    print(f"{group.name:24} {group.kind:9} {group.members:>6}  {group.query}")
            elif options.query is None:
                print("\n".join(group_ids(conn, options.name)))
            else:
                save_group(conn, options.name, options.kind, options.query, _who())
        except ContractError as error:
            raise ConfigError(f"{getattr(error, 'zh', '')} {error}".strip()) from error
    return 0
