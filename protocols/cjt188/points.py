"""How a device type names a value of a meter: ``heat`` of the current reading, ``D120:settlement`` of last month."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from protocols.cjt188.values import LAYOUTS, Reading, Status
from protocols.core.errors import ConfigError

CURRENT = "901F"
#: Of the two status bytes.
STATUS_KEYS = ("valve", "battery_low", "status")
_VALVE = {"open": 0, "closed": 1, "faulty": 3}
_NUMBERS = frozenset(item.name for items in LAYOUTS.values() for item in items if item.kind in ("quantity", "number"))
_FORM = re.compile(r"((?P<di>[0-9A-F]{4}):)?(?P<name>[a-z_0-9]+)")


@dataclass(frozen=True, slots=True)
class PointKey:
    """Field ``name`` of the answer to ``di``."""

    di: str
    name: str

    def read(self, reading: Reading) -> tuple[Decimal | None, str]:
        """The number in the field's base unit, None for no value; and what is wrong with it, "" if nothing."""
        if self.name in STATUS_KEYS:
            return self._of_status(reading), ""
        value = reading.get(self.name)
        if value is None:
            return None, "missing"
        if value.damaged:
            return None, "damaged"
        if value.number is not None and value.based is None:
            return None, "unit"
        return value.based, ""

    def _of_status(self, reading: Reading) -> Decimal | None:
        field = reading.get("status")
        if field is None:
            return None
        status = Status(bytes.fromhex(field.text))
        if self.name == "valve":
            return Decimal(_VALVE[status.valve]) if status.valve else None
        if self.name == "battery_low":
            return Decimal(status.battery_low)
        return Decimal(int.from_bytes(status.raw, "little"))


def parse_key(text: str) -> PointKey:
    """The key of a device type. Raises ConfigError."""
    match = _FORM.fullmatch(text)
    if match is None or match["name"] not in (*STATUS_KEYS, *_NUMBERS):
        known = ", ".join(sorted({*STATUS_KEYS, *_NUMBERS}))
        raise ConfigError(f"CJ/T 188 key {text!r}: one of {known}, with an identifier and a colon in front if not 901F")
    return PointKey(match["di"] or CURRENT, match["name"])


def status_bytes(*, valve: str = "open", battery_low: bool = False) -> bytes:
    """The status of a meter that answers."""
    return bytes((_VALVE[valve] | (0b100 if battery_low else 0), 0))


#: What a command of a device type does, by its key.
COMMANDS: Mapping[str, str] = {
    "valve_open": "A017 55",
    "valve_close": "A017 99",
    "set_clock": "A015 with the gateway's time",
}
