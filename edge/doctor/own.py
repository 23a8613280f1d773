"""`doctor` and `log_pull` as commands of the gateway itself: asked by the core, answered through the outbox.

An outcome is small; the whole answer goes as a report of the twin (``diagnostics``, ``log``), which is as durable as an
alarm and at most 256 KiB.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge.clock import Clock
from edge.commands import Desk
from edge.config import EdgeConfig, read_secret
from edge.connectors.base import Outcome
from edge.doctor.examine import Said, look
from edge.doctor.finding import Report
from edge.doctor.loglines import LogLines
from edge.doctor.redact import Redactor
from protocols.core.errors import ConfigError
from protocols.uplink.batch import Reported

Health = Callable[[], tuple[dict[str, float], dict[str, str]]]
_MOST_DOCUMENT_BYTES = 200_000
_MOST_LINES = 2_000
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class OwnCommands:
    """``devices``: those heard of, by whether they answer. ``report`` puts a twin report into the outbox."""

    def __init__(
        self,
        config: EdgeConfig,
        base: Path,
        clock: Clock,
        *,
        health: Health,
        devices: Callable[[], Mapping[str, bool]],
        report: Callable[[Reported], None],
    ) -> None:
        self._config = config
        self._base = base
        self._clock = clock
        self._health = health
        self._devices = devices
        self._report = report
        self.redact = Redactor(_secrets(config, base))
        self.lines = LogLines(self.redact)

    def attach(self, desk: Desk) -> None:
        desk.own["doctor"] = self.doctor
        desk.own["log_pull"] = self.log_pull
        logging.getLogger().addHandler(self.lines)

    def detach(self) -> None:
        logging.getLogger().removeHandler(self.lines)

    async def doctor(self, arguments: Mapping[str, Any]) -> Outcome:
        if arguments:
            return Outcome("refused", "argument", "doctor takes no arguments")
        values, texts = self._health()
        said = Said(values, texts, self._devices(), frozenset({os.getpid()}))
        report = await look(self._config, self._base, said, self._clock.now_ms())
        self._tell("diagnostics", _document(report, values, self.redact))
        bad, warn = report.count("bad"), report.count("warn")
        worst = next((f"{finding.zh} / {finding.en}" for finding in report.findings if finding.level == "bad"), "")
        counted = {"bad": bad, "warn": warn, "ok": report.count("ok"), "at_ms": report.at_ms}
        return Outcome("done", "", self.redact(worst)[:400], counted)

    async def log_pull(self, arguments: Mapping[str, Any]) -> Outcome:
        if unknown := set(arguments) - {"lines", "level", "contains"}:
            return Outcome("refused", "argument", f"log_pull knows no {', '.join(sorted(unknown))}")
        count, level = arguments.get("lines", 500), arguments.get("level", "info")
        contains = arguments.get("contains", "")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST_LINES:
            return Outcome("refused", "argument", f"lines: 1 to {_MOST_LINES}")
        if level not in _LEVELS or not isinstance(contains, str):
            return Outcome("refused", "argument", f"level: one of {', '.join(_LEVELS)}; contains: a text")
        found = self.lines.newest(count, _LEVELS[level], contains)
        data, left_out = _packed(found)
        document = {"encoding": "zlib+base64", "lines": len(found) - left_out, "data": data}
        self._tell("log", document)
        return Outcome("done", "", "", {"lines": len(found) - left_out, "left_out": left_out})

    def _tell(self, name: str, document: Mapping[str, Any]) -> None:
        self._report(Reported(name, 0, "applied", "", document, self._clock.now_ms()))


def _document(report: Report, values: Mapping[str, float], redact: Redactor) -> dict[str, Any]:
    findings = msgspec.to_builtins(report.findings)
    while True:
        document = {
            "gateway": report.gateway,
            "at_ms": report.at_ms,
            "worst": report.worst,
            "findings": [{key: redact(text) for key, text in finding.items()} for finding in findings],
            "values": {name: round(value, 3) for name, value in values.items()},
            "left_out": len(report.findings) - len(findings),
        }
        if len(json.dumps(document, ensure_ascii=False).encode()) <= _MOST_DOCUMENT_BYTES or not findings:
            return document
        findings = findings[: len(findings) * 3 // 4]  # the worst come first


def _packed(lines: list[str]) -> tuple[str, int]:
    """Compressed, and how many of the oldest lines had to stay behind."""
    kept = lines
    while True:
        data = base64.b64encode(zlib.compress("\n".join(kept).encode("utf-8", "replace"), 6)).decode()
        if len(data) <= _MOST_DOCUMENT_BYTES or not kept:
            return data, len(lines) - len(kept)
        kept = kept[len(kept) // 4 + 1 :]


def _secrets(config: EdgeConfig, base: Path) -> list[str]:
    """Every password this configuration points at, as far as it can be read."""
    names = {config.mqtt.password_file}
    for connector in config.connector:
        for part in (connector, *connector.device):
            fields = [name for name in part.__struct_fields__ if name.endswith(("password_file", "key_file"))]
            names |= {str(getattr(part, name)) for name in fields}
    found: list[str] = []
    for name in sorted(names - {""}):
        try:
            text = read_secret(Path(name), base)
        except ConfigError:
            continue
        found += [text, *text.split()]
    found += [str(getattr(device, "password", "")) for connector in config.connector for device in connector.device]
    return [secret for secret in found if secret]
