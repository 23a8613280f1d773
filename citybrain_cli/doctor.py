"""`citybrain edge doctor` on the gateway, `citybrain cloud doctor` and `cloud log` from afar: what is wrong on site."""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protocols.core.errors import ConfigError

_MARK = {"ok": "  ✓", "note": "  ·", "warn": "  !", "bad": "✗✗✗"}
_POLL_S = 0.5


def add_edge(edge: Any) -> None:
    doctor = edge.add_parser("doctor", help="what is wrong on this site, in plain words, and what to do")
    doctor.add_argument("config", type=Path, help="the gateway's TOML file")
    doctor.add_argument("--json", action="store_true", help="one JSON object")
    doctor.add_argument("--all", action="store_true", help="also what is fine")
    doctor.set_defaults(do=_edge)


def add_cloud(cloud: Any) -> None:
    for name, do, text in (
        ("doctor", _cloud_doctor, "let a gateway look what is wrong on its site"),
        ("log", _cloud_log, "a gateway's latest log lines"),
    ):
        command = cloud.add_parser(name, help=text)
        command.add_argument("gateway", help="gateway id")
        command.add_argument("--config", type=Path, help="core.toml")
        command.add_argument("--dsn", help="database, instead of --config")
        command.add_argument("--who", default="system", help="in whose name; it is put on record")
        command.add_argument("--within", type=float, default=60.0, metavar="S", help="wait so long (default 60)")
        command.set_defaults(do=do)
        if do is _cloud_doctor:
            command.add_argument("--json", action="store_true", help="one JSON object")
            command.add_argument("--all", action="store_true", help="also what is fine")
        else:
            command.add_argument("--lines", type=int, default=200)
            command.add_argument("--level", default="info", choices=("debug", "info", "warning", "error"))
            command.add_argument("--contains", default="", help="only lines with this text")


def _edge(options: argparse.Namespace) -> int:
    import msgspec

    from edge.doctor.examine import examine

    report = examine(options.config)
    findings = msgspec.to_builtins(report.findings)
    if options.json:
        body = {"gateway": report.gateway, "at_ms": report.at_ms, "worst": report.worst, "findings": findings}
        print(json.dumps(body, ensure_ascii=False, indent=2))
    else:
        _show(findings, everything=options.all)
    return 1 if report.worst == "bad" else 0


def _show(findings: Sequence[Mapping[str, Any]], *, everything: bool) -> None:
    for finding in findings:
        if finding["level"] == "ok" and not everything:
            continue
        about = f"[{finding['about']}] " if finding.get("about") else ""
        print(f"{_MARK.get(finding['level'], '  ?')} {about}{finding['zh']}\n      {finding['en']}")
        if finding.get("todo_zh"):
            print(f"    → {finding['todo_zh']}\n      {finding['todo_en']}")
    counted = {level: sum(finding["level"] == level for finding in findings) for level in _MARK}
    print(
        f"{counted['bad']} 处故障 faults, {counted['warn']} 处警告 warnings, {counted['ok']} 项正常 fine"
        + ("" if everything or not counted["ok"] else "   (--all)")
    )


def _cloud_doctor(options: argparse.Namespace) -> int:
    document = _ask(options, "doctor", {}, "diagnostics")
    if document is None:
        return 1
    if options.json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _show(document.get("findings", []), everything=options.all)
    return 1 if document.get("worst") == "bad" else 0


def _cloud_log(options: argparse.Namespace) -> int:
    arguments = {"lines": options.lines, "level": options.level, "contains": options.contains}
    document = _ask(options, "log_pull", arguments, "log")
    if document is None:
        return 1
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(str(document["data"]), validate=True), 32 << 20)
    except (KeyError, ValueError, zlib.error) as error:
        print(f"citybrain: the gateway's answer cannot be read: {error}", file=sys.stderr)
        return 1
    # What a device wrote into a log line must not steer the operator's terminal.
    print("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text.decode("utf-8", "replace")))
    return 0


def _ask(options: argparse.Namespace, name: str, arguments: Mapping[str, Any], told: str) -> dict[str, Any] | None:
    """Give the order, wait for its outcome, read what the gateway told. None after saying why there is nothing."""
    import psycopg

    from cloud.commands import service

    dsn = options.dsn
    if dsn is None:
        if options.config is None:
            raise ConfigError("say --config core.toml or --dsn DSN")
        from cloud.config import load

        dsn = load(options.config).dsn
    deadline = time.monotonic() + options.within
    with psycopg.connect(dsn, autocommit=True) as conn:
        with conn.transaction():
            row = service.request(
                conn, options.gateway, name, arguments, options.who, now_ms=time.time_ns() // 1_000_000,
                life_s=max(service.SHORTEST_LIFE_S, round(options.within)),
            )  # fmt: skip
        while row.ended_at is None:
            if time.monotonic() > deadline:
                state = conn.execute(
                    "select online, state_at from gateway where gateway_id = %s", (options.gateway,)
                ).fetchone()
                online = {True: "online", False: "offline", None: "never heard of"}[state[0] if state else None]
                print(
                    f"citybrain: no answer yet: the order is {row.state}, the gateway is {online}. 尚无应答。"
                    " The order expires by itself.",
                    file=sys.stderr,
                )
                return None
            time.sleep(_POLL_S)
            row = service.get(conn, row.command_id)
        if row.state != "done":
            print(f"citybrain: {row.state} {row.code} {row.detail}", file=sys.stderr)
            return None
        found = conn.execute(
            "select document from twin_reported where gateway_id = %s and name = %s", (options.gateway, told)
        ).fetchone()
    return dict(found[0]) if found is not None and found[0] else {}
