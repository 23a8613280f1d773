"""Reads a pack and refuses it, naming file and key, if it says anything the rest of the system would not understand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import msgspec

from protocols import devices as device_types
from protocols.core import tomlfile
from protocols.core.errors import ConfigError, PackInvalid
from protocols.vocabulary import case_types, departments, event_types
from scenarios.blocks import QUALITY_RULES, AnyRule, build
from scenarios.blocks.alarm import RuleContext
from scenarios.blocks.camera_state import CameraStateRule
from scenarios.blocks.condition import FACT_NAMES, READING_NAMES, Condition
from scenarios.blocks.difference import DifferenceRule
from scenarios.blocks.escalate_near import EscalateNearRule
from scenarios.blocks.operator import Site
from scenarios.blocks.params import UNITS, LevelSpec, Limit, PointRule
from scenarios.blocks.rate import RateRule
from scenarios.blocks.static_in_zone import StaticInZoneRule
from scenarios.blocks.threshold import ThresholdRule
from scenarios.packs.model import Need, Pack

CAMERA = "camera"
FACT_KINDS = frozenset({"zone.object", "zone.empty", "cam.state"})
CAMERA_CODES = frozenset({"ok", "blocked", "moved", "dark", "frozen", "low_conf", "ended", "lost"})


def parse(text: str, *, pack_id: str, where: str) -> Pack:
    """One pack from its TOML text. ``where`` names the file in errors. Raises PackInvalid."""
    try:
        pack = tomlfile.decode(text, Pack, where)
    except ConfigError as error:
        raise PackInvalid(str(error)) from error
    for key, problem in _problems(pack, pack_id):
        raise PackInvalid(f"{where}: {key}: {problem}")
    return pack


@cache
def load(pack_id: str) -> Pack:
    """The pack of that id. Raises PackInvalid."""
    parts = pack_id.split("/")
    if len(parts) != 2 or not all(part.isidentifier() for part in parts):
        raise PackInvalid(f"pack {pack_id!r}: expected <domain>/<scenario>")
    files = [root.joinpath(parts[0], parts[1], "pack.toml") for root in (*_more, _root())]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise PackInvalid(f"pack {pack_id!r}: no such pack; known: {', '.join(pack_ids())}")
    return parse(file.read_text(encoding="utf-8"), pack_id=pack_id, where=f"scenarios/packs/{pack_id}/pack.toml")


def pack_ids() -> list[str]:
    return sorted(
        {
            f"{domain.name}/{scenario.name}"
            for root in (*_more, _root())
            for domain in root.iterdir()
            if domain.is_dir() and not domain.name.startswith("_")
            for scenario in domain.iterdir()
            if scenario.joinpath("pack.toml").is_file()
        }
    )


def load_all() -> tuple[Pack, ...]:
    return tuple(load(pack_id) for pack_id in pack_ids())


def _root() -> Traversable:
    return resources.files("scenarios.packs")


_more: list[Path] = []


def also_from(folder: Path) -> None:
    """Packs in that folder, laid out as here, come before the built-in ones: an update brought them."""
    if folder.is_dir() and folder not in _more:
        _more.insert(0, folder)
        load.cache_clear()


# -- checks: each yields (key, what is wrong)

Problems = Iterator[tuple[str, str]]


def _problems(pack: Pack, pack_id: str) -> Problems:
    if pack.id != pack_id:
        yield "pack.id", f"{pack.id!r}, but the path says {pack_id!r}"
    for role, need in pack.needs.items():
        yield from _need(f"needs.{role}", need)
    if not pack.rule:
        yield "rule", "a pack has at least one rule"
    seen: set[str] = set()
    for number, rule in enumerate(pack.rule):
        key = f"rule[{number}] ({rule.id})"
        if not rule.id.isidentifier() or rule.id != rule.id.lower():
            yield f"{key}.id", "not snake_case"
        if rule.id in seen or rule.id == "needs":
            yield f"{key}.id", "used twice or reserved"
        seen.add(rule.id)
        yield from _rule(key, rule, pack)
    yield from _case(pack)
    for name, text in pack.gaps.items():
        if not text.strip():
            yield f"gaps.{name}", "says nothing"


def _need(key: str, need: Need) -> Problems:
    if need.type == CAMERA:
        if need.points or not set(need.facts) <= FACT_KINDS or not need.facts:
            yield f"{key}.facts", f"a camera has facts, of {', '.join(sorted(FACT_KINDS))}, and no points"
        return
    try:
        known = {point.name for point in device_types.load(need.type).points}
    except ConfigError as error:
        yield f"{key}.type", str(error)
        return
    if not need.points or not set(need.points) <= known:
        yield f"{key}.points", f"not all points of {need.type}: {', '.join(need.points)}"
    if need.facts:
        yield f"{key}.facts", "only a camera has facts"
    if need.interval_s is None or need.interval_s.value <= 0:
        yield f"{key}.interval_s", "must say how often the devices report"
    else:
        yield from _limit(f"{key}.interval_s", need.interval_s, "s")


def _rule(key: str, rule: AnyRule, pack: Pack) -> Problems:
    if rule.at not in pack.pack.runs.split("+"):
        yield f"{key}.at", f"{rule.at!r}, but the pack runs at {pack.pack.runs!r}"
    if not rule.standard:
        yield f"{key}.standard", 'name the standard, or "design"'
    if not isinstance(rule, CameraStateRule):
        yield from _event(f"{key}.event", rule.event, "" if isinstance(rule, EscalateNearRule) else rule.at)
    if isinstance(rule, QUALITY_RULES):
        if rule.role != "*":
            yield f"{key}.role", 'data-quality rules are about all devices: "*"'
    elif rule.role not in pack.needs:
        yield f"{key}.role", f"{rule.role!r} is not in needs"
    else:
        yield from _by_block(key, rule, pack)
    yield from _limits(key, rule)
    try:
        interval_s = {role: need.interval_s.value for role, need in pack.needs.items() if need.interval_s}
        build(rule, RuleContext(pack.id, rule.id, rule.event, rule.standard), Site({}, interval_s, {}))
    except ValueError as error:
        yield key, str(error)


def _event(key: str, event: str, at: str) -> Problems:
    known = event_types().get(event)
    if known is None:
        yield key, f"{event!r} is not an event type"
    elif at and known.born not in ("b", at[0]):
        yield key, f"{event!r} is not born at the {at}"


def _by_block(key: str, rule: AnyRule, pack: Pack) -> Problems:
    need = pack.needs[rule.role]
    if isinstance(rule, PointRule | RateRule):
        yield from _point(f"{key}.point", rule.point, rule.unit, need)
        for level in rule.levels:
            yield from _level(f"{key}.levels.{level.level}", level, "%" if _relative(rule) else rule.unit)
        if not rule.levels:
            yield f"{key}.levels", "none"
    if isinstance(rule, ThresholdRule) and rule.where:
        yield from _condition(f"{key}.where", rule.where, READING_NAMES)
    if isinstance(rule, RateRule) and rule.companion is not None:
        unit = "%" if rule.companion.relative else ""
        if rule.companion.point not in need.points:
            yield f"{key}.companion.point", f"{rule.companion.point!r} is not in needs.{rule.role}.points"
        elif unit and rule.companion.limit.unit != unit:
            yield f"{key}.companion.limit.unit", "a relative change is in %"
    if isinstance(rule, DifferenceRule) and rule.minus not in pack.needs:
        yield f"{key}.minus", f"{rule.minus!r} is not in needs"
    if isinstance(rule, StaticInZoneRule | CameraStateRule | EscalateNearRule) and need.type != CAMERA:
        yield f"{key}.role", "this block is about cameras"
    if isinstance(rule, StaticInZoneRule):
        if rule.where:
            yield from _condition(f"{key}.where", rule.where, FACT_NAMES)
        if rule.cleared_event:
            yield from _event(f"{key}.cleared_event", rule.cleared_event, rule.at)
    if isinstance(rule, CameraStateRule):
        for code, event in rule.events.items():
            if code not in CAMERA_CODES - {"ok"}:
                yield f"{key}.events", f"{code!r} is not a camera code"
            yield from _event(f"{key}.events.{code}", event, rule.at)
    if isinstance(rule, EscalateNearRule):
        for event in rule.near:
            yield from _event(f"{key}.near", event, "")


def _relative(rule: AnyRule) -> bool:
    return isinstance(rule, RateRule) and rule.relative


def _point(key: str, point: str, unit: str, need: Need) -> Problems:
    if point not in need.points:
        yield key, f"{point!r} is not among the role's points"
    elif (known := device_types.load(need.type).point(point).unit) != unit:
        yield key, f"the rule says {unit!r}, {need.type} gives {known!r}"


def _level(key: str, level: LevelSpec, unit: str) -> Problems:
    given = [limit for limit in (level.limit, level.day, level.night) if limit is not None]
    if not given or (level.limit is not None and len(given) > 1):
        yield key, "either limit, or day and/or night"
    for limit in given:
        if limit.unit != unit:
            yield key, f"limit in {limit.unit!r}, the rule is in {unit!r}"
    if level.k > level.n or (level.n and not level.k):
        yield key, "k of n: 1 <= k <= n"
    if level.k and level.hold_s:
        yield key, "either hold_s or k of n"


def _limits(key: str, node: Any) -> Problems:
    """Every limit anywhere in a rule."""
    if isinstance(node, Limit):
        yield from _limit(key, node, node.unit)
    elif isinstance(node, msgspec.Struct):
        for name in node.__struct_fields__:
            yield from _limits(f"{key}.{name}", getattr(node, name))
    elif isinstance(node, tuple):
        for number, item in enumerate(node):
            yield from _limits(f"{key}[{number}]", item)
    elif isinstance(node, dict):
        for name, item in node.items():
            yield from _limits(f"{key}.{name}", item)


def _limit(key: str, limit: Limit, unit: str) -> Problems:
    if limit.unit != unit or limit.unit not in UNITS:
        yield key, f"unit {limit.unit!r} is not known here"
    if limit.site_override:
        if limit.min is None or limit.max is None or not limit.min <= limit.value <= limit.max:
            yield key, "site_override needs min <= value <= max"
    elif limit.min is not None or limit.max is not None:
        yield key, "min and max are bounds for a site_override"


def _condition(key: str, source: str, names: frozenset[str]) -> Problems:
    try:
        Condition(source, names)
    except ValueError as error:
        yield key, str(error)


def _case(pack: Pack) -> Problems:
    case = pack.case
    if case.type not in case_types():
        yield "case.type", f"{case.type!r} is not a case type"
    for key, names in (("case.department", (case.department,)), ("case.support", case.support)):
        for name in names:
            if name not in departments():
                yield key, f"{name!r} is not a department"
    if not case.sla_h.accept <= case.sla_h.onsite <= case.sla_h.close:
        yield "case.sla_h", "accept <= onsite <= close"
