"""The city's vocabulary as data: event types, departments, districts, case types (from the scenario catalogue).

Edge, cloud and console read the same tables, so a word means the same in a topic, a metric and on the screen.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

from protocols.core.model import Level


@dataclass(frozen=True, slots=True)
class EventType:
    id: str
    born: str  # e edge, c cloud, b both
    level: Level
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Department:
    id: str
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class District:
    id: str
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class CaseType:
    id: str
    zh: str
    flow: str  # event | emergency | care | approval | none


def _table(name: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))


@cache
def event_types() -> dict[str, EventType]:
    return {
        k: EventType(k, v["born"], cast(Level, v["level"]), v["zh"], v["en"]) for k, v in _table("events.toml").items()
    }


@cache
def departments() -> dict[str, Department]:
    return {k: Department(k, v["zh"], v["en"]) for k, v in _table("departments.toml").items()}


@cache
def districts() -> dict[str, District]:
    return {k: District(k, v["zh"], v["en"]) for k, v in _table("districts.toml").items()}


@cache
def case_types() -> dict[str, CaseType]:
    return {k: CaseType(k, v["zh"], v["flow"]) for k, v in _table("case_types.toml").items()}
