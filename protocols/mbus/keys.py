"""How a device type names a record: ``energy``, ``volume@1`` (storage), ``energy#2`` (tariff), ``volume/1`` (subunit),
``power:maximum`` (function); numbers are in the base unit of the quantity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from protocols.core.errors import ConfigError, LocalProtocolError
from protocols.mbus.records import FUNCTIONS, Record


@dataclass(frozen=True, slots=True)
class Quantity:
    """``name`` and ``unit`` as :mod:`protocols.mbus.vif` says them. ``vib``: how our own meters say it, in steps of
    ``step``."""

    name: str
    unit: str
    vib: bytes
    step: Decimal


def _row(name: str, unit: str, vib: str, step: str) -> Quantity:
    return Quantity(name, unit, bytes.fromhex(vib), Decimal(step))


QUANTITIES: dict[str, Quantity] = {
    "energy": _row("Energy", "Wh", "06", "1000"),
    "volume": _row("Volume", "m^3", "13", "0.001"),
    "mass": _row("Mass", "kg", "1B", "1"),
    "power": _row("Power", "W", "2B", "1"),
    "volume_flow": _row("Volume flow", "m^3/h", "3B", "0.001"),
    "flow_temperature": _row("Flow temperature", "°C", "59", "0.01"),
    "return_temperature": _row("Return temperature", "°C", "5D", "0.01"),
    "temperature_difference": _row("Temperature difference", "K", "61", "0.01"),
    "external_temperature": _row("External temperature", "°C", "65", "0.01"),
    "pressure": _row("Pressure", "bar", "68", "0.001"),
    "on_time": _row("On time", "s", "22", "3600"),
    "operating_time": _row("Operating time", "s", "26", "3600"),
    "voltage": _row("Voltage", "V", "FD48", "0.1"),
    "current": _row("Current", "A", "FD59", "0.001"),
    "error_flags": _row("Error flags", "", "FD17", "1"),
}
#: Of the header, not a record.
STATUS = "status"

_FORM = re.compile(
    r"(?P<name>[a-z_]+)(@(?P<storage>\d+))?(#(?P<tariff>\d+))?(/(?P<device>\d+))?(:(?P<function>[a-z]+))?"
)


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    storage: int = 0
    tariff: int = 0
    device: int = 0
    function: int = 0

    def find(self, records: Iterable[Record]) -> Record | None:
        """The record that is meant; one whose VIFE say something else than the plain quantity is not."""
        wanted = QUANTITIES[self.name].name
        place = (self.storage, self.tariff, self.device, self.function)
        for one in records:
            found = (one.storage, one.tariff or 0, one.device or 0, one.function)
            if one.kind == "value" and one.meaning.quantity == wanted and found == place and one.plain:
                return one
        return None


def parse_key(text: str) -> Key:
    """The key of a device type. Raises ConfigError."""
    match = _FORM.fullmatch(text)
    if match is None or (match["name"] not in QUANTITIES and text != STATUS):
        raise ConfigError(f"M-Bus key {text!r}: one of {', '.join((*QUANTITIES, STATUS))}, then @storage #tariff /unit")
    function = match["function"] or FUNCTIONS[0]
    if function not in FUNCTIONS:
        raise ConfigError(f"M-Bus key {text!r}: function: one of {', '.join(FUNCTIONS)}")
    numbers = {part: int(match[part] or 0) for part in ("storage", "tariff", "device")}
    return Key(match["name"], function=FUNCTIONS.index(function), **numbers)


def encode(key: Key, number: Decimal | None) -> bytes:
    """A record for a meter that answers: eight BCD digits, FF for no value. Raises LocalProtocolError if it does not
    fit."""
    quantity = QUANTITIES[key.name]
    storage, tariff, device = key.storage >> 1, key.tariff, key.device
    difes = bytearray()
    while storage or tariff or device:
        difes.append(storage & 0x0F | (tariff & 3) << 4 | (device & 1) << 6)
        storage, tariff, device = storage >> 4, tariff >> 2, device >> 1
    dib = bytearray((0x0C | key.function << 4 | (key.storage & 1) << 6, *difes))
    for n in range(len(dib) - 1):
        dib[n] |= 0x80
    return bytes(dib) + quantity.vib + _bcd(quantity, number)


def _bcd(quantity: Quantity, number: Decimal | None) -> bytes:
    if number is None:
        return b"\xff" * 4
    steps = int((number / quantity.step).to_integral_value())
    if not -10_000_000 < steps < 100_000_000:
        raise LocalProtocolError(f"M-Bus {quantity.name} {number} does not fit eight digits", reason="range")
    digits = f"F{-steps:07d}" if steps < 0 else f"{steps:08d}"
    return bytes.fromhex(digits)[::-1]
