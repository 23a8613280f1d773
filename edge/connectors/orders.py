"""What a device type's command means to a protocol that sets named values: which one, and to what."""

from __future__ import annotations

from edge.connectors.base import Command
from protocols.devices import CommandType

Value = float | int | bool | str | None

_CONSTANTS: dict[str, Value] = {"true": True, "false": False, "null": None}


def target_of(kind: CommandType, command: Command) -> tuple[str, Value]:
    """Key and value: ``key = "Outputs/Pump=true"`` says both, a command with an argument says the value itself."""
    if kind.argument:
        return kind.key, command.arguments[kind.argument[0].name]
    key, _, text = kind.key.rpartition("=")
    if text in _CONSTANTS:
        return key, _CONSTANTS[text]
    try:
        return key, float(text) if "." in text else int(text)
    except ValueError:
        return key, text


def shown(kind: CommandType, value: Value) -> float | None:
    """What the read-back has to show; None if nothing can be compared."""
    if kind.expect is not None:
        return kind.expect
    return float(value) if isinstance(value, bool | int | float) else None


def agrees(expected: float | None, found: float, decimals: int) -> bool:
    """Within what the point's resolution can show."""
    return expected is None or abs(found - expected) <= 0.51 * 10**-decimals
