"""A pack meets a site: devices into roles, and the few limits a pack lets a site set, within their bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from protocols.core.errors import ConfigError
from scenarios.binding import ScenarioBinding
from scenarios.blocks import build
from scenarios.blocks.alarm import RuleContext
from scenarios.blocks.operator import Site
from scenarios.blocks.params import Limit
from scenarios.packs.loader import CAMERA, load
from scenarios.packs.model import BoundPack, Need, Pack


def bind(pack: Pack, devices: Mapping[str, Sequence[str]], overrides: Mapping[str, float] | None = None) -> BoundPack:
    """``devices``: role -> device ids; a role left out is not there at this site and its rules do not run.

    ``overrides``: ``rule.param``, ``rule.level.param`` or ``needs.role.interval_s`` -> value. Raises ConfigError.
    """
    where = f"scenario {pack.id}"
    for role in devices:
        if role not in pack.needs:
            raise ConfigError(f"{where}: devices.{role}: no such role; known: {', '.join(pack.needs)}")
    roles = {role: tuple(dict.fromkeys(devices.get(role, ()))) for role in pack.needs}
    if not any(roles.values()):
        raise ConfigError(f"{where}: devices: no device at all")
    needs: dict[str, Need] = dict(pack.needs)
    rules = {rule.id: rule for rule in pack.rule}
    for key, value in (overrides or {}).items():
        head, _, rest = key.partition(".")
        try:
            if head == "needs":
                role, _, rest = rest.partition(".")
                needs[role] = _replaced(needs[role], rest, value)
            else:
                rules[head] = _replaced(rules[head], rest, value)
        except KeyError as error:
            raise ConfigError(f"{where}: params.{key}: no such parameter ({error.args[0]})") from error
        except ValueError as error:
            raise ConfigError(f"{where}: params.{key}: {error}") from error
    site = Site(
        roles=roles,
        interval_s={role: need.interval_s.value for role, need in needs.items() if need.interval_s is not None},
        types={device: needs[role].type for role, ids in roles.items() if needs[role].type != CAMERA for device in ids},
    )
    for rule in rules.values():
        try:
            build(rule, RuleContext(pack.id, rule.id, rule.event, rule.standard), site)
        except ValueError as error:
            raise ConfigError(f"{where}: {rule.id}: {error}") from error
    return BoundPack(pack=pack, site=site, rules=tuple(rules.values()))


def bind_all(bindings: Iterable[ScenarioBinding]) -> list[BoundPack]:
    """The scenarios of a configuration. Raises ConfigError or PackInvalid."""
    return [bind(load(binding.pack), binding.devices, binding.params) for binding in bindings]


def roles_for(pack: Pack, types: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Devices (id -> type; cameras have type "camera") put into the roles their type fills, as a first proposal."""
    found = {
        role: tuple(device for device, kind in types.items() if kind == need.type)
        for role, need in pack.needs.items()
        if not need.by_hand
    }
    return {role: ids for role, ids in found.items() if ids}


def _replaced(node: Any, path: str, value: float) -> Any:
    """A copy of the struct with the limit at ``path`` set. KeyError: no such parameter; ValueError: not allowed."""
    name, _, rest = path.partition(".")
    levels = getattr(node, "levels", ())
    for number, level in enumerate(levels):
        if rest and level.level == name:
            changed = (*levels[:number], _replaced(level, rest, value), *levels[number + 1 :])
            return msgspec.structs.replace(node, levels=changed)
    if name not in node.__struct_fields__:
        raise KeyError(name)
    held = getattr(node, name)
    if isinstance(held, msgspec.Struct) and not isinstance(held, Limit) and rest:
        return msgspec.structs.replace(node, **{name: _replaced(held, rest, value)})
    if rest or not isinstance(held, Limit):
        raise KeyError(path)
    if not held.site_override or held.min is None or held.max is None:
        raise ValueError("the pack does not let a site change it")
    if not held.min <= value <= held.max:
        raise ValueError(f"{value:g} is outside {held.min:g}..{held.max:g} {held.unit}")
    return msgspec.structs.replace(node, **{name: msgspec.structs.replace(held, value=value)})
