"""What objects of a data unit are called as points, and whose they are.

A device's points bind by key: ``state`` (the word), ``state.<bit>``, ``analog.<kind>`` in the kind's unit,
``operation.<bit>``, ``operator``. A *part* says whose an object is: "" the transmitter, "1/1" system type / address,
"1/1/131082" a component of it by its address.
"""

from __future__ import annotations

from decimal import Decimal

from protocols.gb26875 import names
from protocols.gb26875.objects import (
    Analog,
    ComponentState,
    ComponentText,
    NumberedComponentState,
    Object,
    Operation,
    SystemClock,
    SystemState,
    SystemText,
    TransmitterOperation,
    TransmitterState,
    Version,
)

_COMMON = ("running", "fire", "fault", "shielded", "supervised", "started", "feedback", "delay")
#: Keys of the bits, lowest first.
SYSTEM_KEYS = (
    *_COMMON,
    *("main_power_fault", "backup_power_fault", "bus_fault", "manual", "configuration_changed", "reset"),
)
COMPONENT_KEYS = (*_COMMON, "power_fault")
TRANSMITTER_KEYS = (
    *("running", "fire", "fault", "main_power_fault", "backup_power_fault", "link_fault", "panel_fault"),
)
OPERATION_KEYS = ("reset", "mute", "manual_alarm", "alarm_cancelled", "self_test", "confirm", "test")

_MPA, _KPA = 4, 5


def part_of(one: Object) -> str | None:
    """Whose this is; None for what belongs to nobody (a clock, raw bytes)."""
    match one:
        case ComponentState() | NumberedComponentState() | Analog() | ComponentText():
            return f"{one.system}/{one.address}/{one.number}"
        case SystemState() | Operation() | Version() | SystemText() | SystemClock():
            return f"{one.system}/{one.address}"
        case TransmitterState() | TransmitterOperation():
            return ""
        case _:
            return None


def typed_part_of(one: Object) -> str | None:
    """The part with the component's type, "1/1/42:131082": some boxes give all their components one address."""
    if isinstance(one, ComponentState | NumberedComponentState | Analog | ComponentText):
        return f"{one.system}/{one.address}/{one.component}:{one.number}"
    return None


def parse_part(text: str) -> tuple[int, ...]:
    """Numbers of a part: (), (system, address) or (system, address, number). Raises ValueError."""
    if not text:
        return ()
    fields = text.split("/")
    if len(fields) == 3:
        fields[2] = fields[2].rpartition(":")[2]
        if "-" in fields[2]:
            loop, _, node = fields[2].partition("-")  # as Hikvision prints it
            fields[2] = str(int(loop) | int(node) << 16)
    numbers = tuple(int(field) for field in fields)
    limits = (256, 256, 1 << 32)
    if len(numbers) not in (2, 3) or not all(0 <= n < top for n, top in zip(numbers, limits, strict=False)):
        raise ValueError(f"{text!r} is not system/address or system/address/component")
    return numbers


def canonical_part(text: str) -> str:
    """The part as :func:`part_of` and :func:`typed_part_of` write it. Raises ValueError."""
    numbers = parse_part(text)
    if ":" in text:
        kind = int(text.split("/")[2].partition(":")[0])
        if not 0 <= kind < 256:
            raise ValueError(f"{text!r}: a component type is 0 to 255")
        return f"{numbers[0]}/{numbers[1]}/{kind}:{numbers[2]}"
    return "/".join(str(n) for n in numbers)


def said(one: Object) -> dict[str, float]:
    """Keys and values of an object; empty for what is no reading."""
    match one:
        case SystemState():
            return _bits("state", one.state, SYSTEM_KEYS)
        case ComponentState() | NumberedComponentState():
            return _bits("state", one.state, COMPONENT_KEYS)
        case TransmitterState():
            return _bits("state", one.state, TRANSMITTER_KEYS)
        case Analog() if one.kind in names.ANALOGS:
            value = one.value * Decimal(names.ANALOGS[one.kind][2])
            if one.kind == _KPA:  # pressure in either unit is the same quantity
                return {f"analog.{_KPA}": float(value), f"analog.{_MPA}": float(value / 1000)}
            return {f"analog.{one.kind}": float(value)}
        case Operation() | TransmitterOperation():
            return {**_bits("operation", one.operation, OPERATION_KEYS), "operator": float(one.operator)}
        case _:
            return {}


def _bits(name: str, word: int, keys: tuple[str, ...]) -> dict[str, float]:
    return {name: float(word), **{f"{name}.{key}": float(word >> n & 1) for n, key in enumerate(keys)}}


def word_of(values: dict[str, float], keys: tuple[str, ...]) -> int:
    """The state word that says these ``state.<bit>`` values; ``state`` itself wins where it is given."""
    if "state" in values:
        return int(values["state"])
    return sum(1 << n for n, key in enumerate(keys) if values.get(f"state.{key}", 0.0) >= 0.5)


def under_test(one: Object) -> bool:
    """A state word of all zero: bit 0 is "running normally", and its absence means "test"."""
    return isinstance(one, SystemState | ComponentState | NumberedComponentState | TransmitterState) and one.state == 0
