"""The engine's state as one versioned message, and what of it an engine with other packs may still use.

State is kept by rule and by device name, never by series number: after a restart the numbers may be others. A rule
takes its state back if it still exists and its windows have the same shape; limits may have changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from protocols.core.errors import ConfigError
from scenarios.blocks.operator import Operator

FORMAT = 1


class RuleState(msgspec.Struct, array_like=True):
    block: str
    shape: str
    devices: dict[str, Any]


class Snapshot(msgspec.Struct):
    format: int
    place: str
    packs: dict[str, str]  # id -> version
    watermarks: dict[str, int]  # device/point -> ms
    rules: dict[str, RuleState]  # pack:rule -> state


def _block(operator: Operator) -> str:
    return str(operator.rule.__struct_config__.tag)


def encode(
    place: str, versions: Mapping[str, str], watermarks: Mapping[str, int], operators: Sequence[Operator]
) -> bytes:
    rules: dict[str, RuleState] = {}
    for operator in operators:
        name = f"{operator.context.scenario}:{operator.rule.id}"
        state = rules.setdefault(name, RuleState(_block(operator), operator.shape, {}))
        state.devices.update(operator.saved())
    return msgspec.msgpack.encode(Snapshot(FORMAT, place, dict(versions), dict(watermarks), rules))


def decode(data: bytes, place: str) -> Snapshot:
    """Raises ConfigError if these bytes are no snapshot for this place."""
    try:
        state = msgspec.msgpack.decode(data, type=Snapshot)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"scenario state: {error}") from error
    if state.format != FORMAT or state.place != place:
        raise ConfigError(f"scenario state: format {state.format} of the {state.place}, wanted {FORMAT} of the {place}")
    return state


def adopt(state: Snapshot, versions: Mapping[str, str], operators: Sequence[Operator]) -> list[str]:
    """Give the operators their state. Returns what was not restored, one line each."""
    lost: list[str] = []
    by_name: dict[str, list[Operator]] = {}
    for operator in operators:
        by_name.setdefault(f"{operator.context.scenario}:{operator.rule.id}", []).append(operator)
    for name, held in state.rules.items():
        mine = by_name.get(name, [])
        pack = name.partition(":")[0]
        change = f"{pack} {state.packs.get(pack, '?')} -> {versions.get(pack, 'gone')}"
        if not mine:
            if held.devices:
                lost.append(f"{name}: rule is gone ({change}), state of {_some(held.devices)}")
            continue
        for operator in mine:
            if (held.block, held.shape) != (_block(operator), operator.shape):
                if held.devices:
                    lost.append(f"{name}: now {operator.shape or _block(operator)}, was {held.shape or held.block}")
                break
            operator.adopt({key: value for key, value in held.devices.items() if operator.owns(key)})
            lost += operator.notes
            operator.notes.clear()
        else:
            left = [key for key in held.devices if not any(operator.owns(key) for operator in mine)]
            if left:
                lost.append(f"{name}: no longer bound: {_some(left)}")
    return lost


def _some(names: Mapping[str, Any] | Sequence[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
