"""The console's texts in two languages, and the names of things that come from the vocabulary.

A text that is missing in the table is shown by its key: a new event type or point must never break a page.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from cloud.cases.flows import FLOWS
from protocols.devices import all_types
from protocols.vocabulary import case_types, departments, districts, event_types

LANGUAGES = ("zh-CN", "en")


@cache
def table() -> Mapping[str, Mapping[str, list[str]]]:
    return tomllib.loads(files(__package__).joinpath("words.toml").read_text(encoding="utf-8"))


class Words:
    """The texts of one language; ``words("alarms.title")``."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else "zh-CN"
        self.zh = self.language == "zh-CN"
        self._column = 0 if self.zh else 1

    def __call__(self, key: str, **values: Any) -> str:
        group, _, name = key.partition(".")
        text = table()[group][name][self._column]
        return text.format(**values) if values else text

    def either(self, zh: str, en: str, fallback: str = "") -> str:
        """A name stored in both languages; the other one, or the fallback, where it is empty."""
        return (zh or en if self.zh else en or zh) or fallback

    def _known(self, group: str, name: str) -> str:
        found = table()[group].get(name)
        return found[self._column] if found else name

    def level(self, name: str) -> str:
        return self._known("level", name)

    def state(self, name: str) -> str:
        return self._known("state", name)

    def quality(self, number: int | None) -> str:
        return "" if number is None else self._known("quality", str(number))

    def point(self, name: str) -> str:
        return self._known("point", name)

    def unit(self, name: str) -> str:
        return self._known("unit", name)

    def scenario(self, name: str) -> str:
        head = _pack_heads().get(name)
        return self.either(*head) if head else self._known("scenario", name)

    def order_code(self, name: str) -> str:
        """Why an order ended as it did; '' where its state says it all."""
        return self._known("order_code", name) if name else ""

    def cause(self, name: str) -> str:
        return self._known("cause", name)

    def deed(self, name: str) -> str:
        """What stands in the audit log as ``fleet.tag``; '' if it has no name here."""
        found = table()["deed"].get(name)
        return found[self._column] if found else ""

    def district(self, name: str) -> str:
        found = districts().get(name)
        return self.either(found.zh, found.en) if found else name

    def device_type(self, name: str) -> str:
        found = _types().get(name)
        return self.either(*found) if found else self._known("type", name)

    def event(self, name: str) -> str:
        found = event_types().get(name)
        if found is None:
            return name
        short = table()["event"].get(name, ["", ""])[self._column]
        return short or (found.zh if self.zh else found.en[:1].upper() + found.en[1:])

    def department(self, name: str) -> str:
        found = departments().get(name)
        return self.either(found.zh, found.en) if found else name

    def case_type(self, name: str) -> str:
        found = case_types().get(name)
        return found.zh if found and self.zh else name.replace("_", " ").capitalize()

    def case_state(self, flow: str, name: str) -> str:
        found = FLOWS[flow].states.get(name) if flow in FLOWS else None
        return self.either(found.zh, found.en) if found else name

    def action(self, name: str, flow: str, from_state: str) -> str:
        moves = FLOWS[flow].moves if flow in FLOWS else {}
        found = moves.get((from_state, name))
        own = {
            "open": ("自动上报", "Opened"),
            "join": ("并入告警", "Alarm joined"),
            "raise_level": ("升级", "Level raised"),
        }.get(name)
        return self.either(found.zh, found.en) if found else self.either(*own) if own else name


@cache
def _types() -> Mapping[str, tuple[str, str]]:
    return {t.id: (t.zh, t.en) for t in all_types()}


@cache
def _pack_heads() -> Mapping[str, tuple[str, str]]:
    """Names of the scenario packs that are installed."""
    out: dict[str, tuple[str, str]] = {}
    for domain in files("scenarios.packs").iterdir():
        if not domain.is_dir():
            continue
        for folder in domain.iterdir():
            pack = folder.joinpath("pack.toml")
            if folder.is_dir() and pack.is_file():
                head = tomllib.loads(pack.read_text(encoding="utf-8")).get("pack", {})
                if isinstance(head, dict) and "zh" in head:
                    out[f"{domain.name}/{folder.name}"] = (str(head["zh"]), str(head.get("en", "")))
    return out


def device_class(device_type: str) -> str:
    """The map's class of a device: which glyph it gets and which box switches it."""
    if device_type == "env/noise_meter":
        return "noise"
    first = device_type.partition("/")[0]
    return first if first in ("env", "crane", "gas", "water", "meter", "camera") else "other"


def number(value: float | int | None, decimals: int = 0) -> str:
    """1234567.8 as 1,234,567.8; None as a dash."""
    return "–" if value is None else f"{value:,.{decimals}f}"


def compact(value: float, zh: bool) -> str:
    """A count that must stay short: 1.23 亿, 4,812 万, 12.3 M."""
    if zh:
        if value >= 1e8:
            return f"{value / 1e8:.2f} 亿"
        return f"{value / 1e4:,.0f} 万" if value >= 1e6 else f"{value:,.0f}"
    if value >= 1e9:
        return f"{value / 1e9:.2f} G"
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value:,.0f}"
