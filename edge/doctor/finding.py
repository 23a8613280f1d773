"""What the doctor says: one sentence on what is wrong, one on what to do, in both languages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec

Level = Literal["ok", "note", "warn", "bad"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warn", "bad")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Made by an :class:`Area`. ``code`` names the finding for programs.
    ``todo_*``: empty where nothing is to be done."""

    area: str
    code: str
    level: Level
    zh: str
    en: str
    todo_zh: str = ""
    todo_en: str = ""
    about: str = ""  # the connector, device or file


@dataclass(frozen=True, slots=True)
class Area:
    """Makes findings of one area. What is wrong is never said without what to do about it."""

    name: str

    def judged(
        self, level: Level, code: str, zh: str, en: str, todo_zh: str, todo_en: str, *, about: str = ""
    ) -> Finding:
        """``todo_*`` is dropped where all is well."""
        todo = ("", "") if level == "ok" else (todo_zh, todo_en)
        return Finding(
            area=self.name, code=code, level=level, zh=zh, en=en, todo_zh=todo[0], todo_en=todo[1], about=about
        )

    def ok(self, code: str, zh: str, en: str, *, about: str = "") -> Finding:
        return self.judged("ok", code, zh, en, "", "", about=about)

    def note(self, code: str, zh: str, en: str, todo_zh: str = "", todo_en: str = "", *, about: str = "") -> Finding:
        return self.judged("note", code, zh, en, todo_zh, todo_en, about=about)

    def warn(self, code: str, zh: str, en: str, todo_zh: str, todo_en: str, *, about: str = "") -> Finding:
        return self.judged("warn", code, zh, en, todo_zh, todo_en, about=about)

    def bad(self, code: str, zh: str, en: str, todo_zh: str, todo_en: str, *, about: str = "") -> Finding:
        return self.judged("bad", code, zh, en, todo_zh, todo_en, about=about)


AGENT, BROKER, CLOCK, CONFIG, DEVICE, LINE, MACHINE = (
    Area(name) for name in ("agent", "broker", "clock", "config", "device", "line", "machine")
)


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
