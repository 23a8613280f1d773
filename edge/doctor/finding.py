"""What the doctor says: one sentence on what is wrong, one on what to do, in both languages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Level = Literal["ok", "note", "warn", "bad"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warn", "bad")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """``area``: config, clock, machine, line, broker, agent, device. ``code`` names the finding for programs.
    ``todo_*``: empty where nothing is to be done."""

    area: str
    code: str
    level: Level
    zh: str
    en: str
    todo_zh: str = ""
    todo_en: str = ""
    about: str = ""  # the connector, device or file


class Report(msgspec.Struct, frozen=True, kw_only=True):
    gateway: str
    at_ms: int
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Level:
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="ok")

    def count(self, level: Level) -> int:
        return sum(finding.level == level for finding in self.findings)


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first, otherwise as they came."""
    return tuple(sorted(findings, key=lambda finding: -LEVELS.index(finding.level)))
