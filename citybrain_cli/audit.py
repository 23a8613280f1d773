"""`citybrain audit ...`: check the log of who did what, export it, prove one entry of it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocols.core.errors import ConfigError

if TYPE_CHECKING:
    import psycopg

    from cloud.audit.heads import Verifier


def add(commands: Any) -> None:
    audit = commands.add_parser("audit", help="who did what: check, export, prove").add_subparsers(
        required=True, metavar="ACTION"
    )
    verify = _action(audit, "verify", _verify, "recompute everything; name the row that was touched. Exit 1 if one was")
    verify.add_argument("--sth", type=Path, metavar="FILE", help="tree heads kept elsewhere: the log must contain them")
    verify.add_argument("--json", action="store_true", help="one JSON object")
    show = _action(audit, "show", _show, "entries, newest first")
    show.add_argument("--who", default="", help="operator, gateway:<id>, token:<name>, system")
    show.add_argument("--action", default="", help="command.send, or a family: command.*")
    show.add_argument("--what", default="", help="part of what it was done to")
    show.add_argument("--limit", type=int, default=50)
    export = _action(audit, "export", _export, "every sealed entry as a JSON line, then the newest tree head")
    export.add_argument("--from", dest="first", type=int, default=0, metavar="LEAF", help="first leaf (default 0)")
    prove = _action(audit, "proof", _proof, "one entry with its inclusion proof and signed tree head, as JSON")
    prove.add_argument("entry", type=int, help="entry number")
    _action(audit, "sth", _sth, "the newest signed tree head: keep it where nobody of the core can reach it")
    seal = _action(audit, "seal", _seal, "one pass by hand, where no console process runs")
    seal.set_defaults(needs_config=True)
    accept = _action(audit, "accept", _accept, "go on after a restore: what was lost is put on record")
    accept.add_argument("--who", required=True, help="your name")
    accept.add_argument("--reason", required=True, help="as: restored from the backup of 3 May")
    accept.set_defaults(needs_config=True)
    check = audit.add_parser("check", help="check a proof that `audit proof` wrote; needs no database")
    check.add_argument("proof", type=Path)
    check.add_argument("--key", type=Path, action="append", required=True, help="audit.pub of the core")
    check.set_defaults(do=_check)


def _action(audit: Any, name: str, do: Any, text: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = audit.add_parser(name, help=text)
    action.add_argument("--config", type=Path, help="core.toml: dsn, state_dir")
    action.add_argument("--dsn", help="database, instead of --config")
    action.add_argument("--key", type=Path, action="append", help="public key (audit.pub); default: that of --config")
    action.set_defaults(do=do, needs_config=False)
    return action


def _connect(options: argparse.Namespace) -> psycopg.Connection[Any]:
    import psycopg

    if options.dsn is None:
        _state_dir(options)
    dsn = options.dsn or _settings(options).dsn
    return psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC", application_name="citybrain-audit")


def _settings(options: argparse.Namespace) -> Any:
    from cloud.config import load

    return load(options.config)


def _state_dir(options: argparse.Namespace) -> Path:
    if options.config is None:
        raise ConfigError("say --config core.toml" + ("" if options.needs_config else " or --dsn DSN"))
    return Path(_settings(options).state_dir)


def _verifiers(options: argparse.Namespace) -> list[Verifier]:
    from cloud.audit.heads import PUBLIC_FILE, Verifier

    files = list(options.key or ())
    if not files and getattr(options, "config", None) is not None:
        files = [path for path in [_state_dir(options) / PUBLIC_FILE] if path.exists()]
    found = []
    for file in files:
        try:
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: {error}") from error
        found += [Verifier.parse(line) for line in text.splitlines() if line.strip()]
    return found


def _verify(options: argparse.Namespace) -> int:
    from cloud.audit.heads import split_notes
    from cloud.audit.sequencer import own_heads
    from cloud.audit.verify import verify

    saved: list[str] = []
    if options.sth is not None:
        try:
            saved += split_notes(options.sth.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{options.sth}: {error}") from error
        if not saved:
            raise ConfigError(f"{options.sth}: holds no tree head")
    elif options.config is not None:
        saved += own_heads(_state_dir(options))[-1:]
    verifiers = _verifiers(options)
    begun = time.perf_counter()
    with _connect(options) as conn:
        report = verify(conn, verifiers, saved)
    spent_s = time.perf_counter() - begun
    if options.json:
        facts: dict[str, object] = {
            "good": report.good, "entries": report.entries, "heads": report.heads, "signatures": report.signatures,
            "unsealed": report.unsealed, "gaps": report.gaps, "root": report.root, "seconds": round(spent_s, 3),
            "findings": [asdict(finding) for finding in report.findings], "more": report.more,
        }  # fmt: skip
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return 0 if report.good else 1
    for finding in report.findings:
        print(f"! {finding.zh}\n  {finding.en}")
    if report.more:
        print(f"! ... {report.more} more 另有 {report.more} 处")
    signed = f"{report.signatures} signatures good" if verifiers else "signatures not checked: no key given (--key)"
    print(
        f"{report.entries} entries, {report.heads} tree heads, {signed}, {len(saved)} kept heads compared,"
        f" {report.unsealed} entries not sealed yet, {report.gaps} gaps on record; root {report.root or '-'}"
    )
    print("日志完整 the log is whole" if report.good else "日志已被改动 the log was touched")
    return 0 if report.good else 1


def _show(options: argparse.Namespace) -> int:
    from cloud.audit.reads import listed

    with _connect(options) as conn:
        for row in listed(conn, options.who, options.action, options.what, max(1, min(options.limit, 10_000))):
            when = f"{row.entry_id:>8}  {row.at:%Y-%m-%d %H:%M:%S}Z"
            print(f"{when}  {row.who:20}  {row.action:22}  {row.what:28}  {json.dumps(row.detail, ensure_ascii=False)}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from cloud.audit.reads import exported, head_at

    with _connect(options) as conn, conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        for line in exported(conn, options.first):
            print(json.dumps(line, ensure_ascii=False))
        head = head_at(conn)
    print(json.dumps({"head": None if head is None else head[1]}, ensure_ascii=False))
    return 0


def _proof(options: argparse.Namespace) -> int:
    from cloud.audit.reads import prove

    with _connect(options) as conn:
        print(json.dumps(asdict(prove(conn, options.entry)), ensure_ascii=False, indent=2))
    return 0


def _check(options: argparse.Namespace) -> int:
    from cloud.audit.proofs import check_proof

    try:
        text = options.proof.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{options.proof}: {error}") from error
    wrong = check_proof(text, _verifiers(options))
    print(
        f"not proven 不成立: {wrong}"
        if wrong
        else "proven: the entry is in the signed log 成立：该记录在已签名的日志中"
    )
    return 1 if wrong else 0


def _sth(options: argparse.Namespace) -> int:
    from cloud.audit.reads import head_at

    with _connect(options) as conn:
        head = head_at(conn)
    if head is None:
        print("citybrain: nothing has been sealed yet", file=sys.stderr)
        return 1
    print(head[1], end="")
    return 0


def _seal(options: argparse.Namespace) -> int:
    from cloud.audit.heads import load_signer
    from cloud.audit.sequencer import PASS_ENTRIES, Sequencer

    state_dir = _state_dir(options)
    sequencer = Sequencer(load_signer(state_dir), state_dir, sign_every_s=0.0)
    total = 0
    with _connect(options) as conn:
        while True:
            sealed = sequencer.seal(conn, time.time_ns() // 1_000_000, time.monotonic())
            if sealed is None:
                print("another process is sealing 另一进程正在封存")
                return 0
            total += sealed
            if sealed < PASS_ENTRIES:
                break
    print(f"{total} entries sealed 已封存 {total} 条")
    return 0


def _accept(options: argparse.Namespace) -> int:
    from cloud.audit.sequencer import accept

    with _connect(options) as conn, conn.transaction():
        lost = accept(conn, _state_dir(options), options.who, options.reason, time.time_ns() // 1_000_000)
    if lost is None:
        print("no head was kept: nothing to give up 无留存树头")
    else:
        print(f"given up: the head of {lost.size} entries 已放弃 {lost.size} 条的树头; it is on record 已记录在案")
    return 0
