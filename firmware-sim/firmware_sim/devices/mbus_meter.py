"""An M-Bus meter: its type's points as records, several telegrams where they do not fit one, a secondary address.

``options``: ``serial`` (eight digits; the address with leading zeros else), ``maker`` (three letters), ``medium``
(hex), ``pad`` (so many further records, to fill telegrams). An address above 250 is none; 0 is a new meter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.errors import ConfigError, LocalProtocolError
from protocols.devices import Point
from protocols.devices.values import raw_of
from protocols.mbus.keys import QUANTITIES, STATUS, Key, encode, parse_key
from protocols.mbus.messages import Message, ReadData, Reset, Select, SendData
from protocols.mbus.slave import Identity, Slave

#: Fault records_cut: what is missing of the last record.
_CUT_BYTES = 3


class MbusMeter:
    """One meter on the line."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id = device.id
        self.faults = faults
        self._world = world
        self._senses = Senses(device, world)
        if not isinstance(device.address, int) or not 0 <= device.address <= 250:
            raise ConfigError(f"device {device.id}: address: a primary address from 0 to 250")
        options = {**self._senses.type.options, **device.options}
        serial = str(options.get("serial", f"{device.address:08d}"))
        if len(serial) != 8 or not serial.isdecimal():
            raise ConfigError(f"device {device.id}: options.serial: eight digits in quotes")
        identity = Identity(serial, str(options.get("maker", "CBN")), 1, int(str(options.get("medium", "07")), 16))
        self._pad = int(options.get("pad", 0))
        self._t_s = 0.0
        self.slave = Slave(device.address, identity, self._records)

    def reply(self, request: Message, t_s: float) -> Message | None:
        if not isinstance(request, Reset | ReadData | SendData | Select):
            return None
        self._t_s = t_s
        status = next((p for p in self._senses.type.points if p.value is not None and p.value.key == STATUS), None)
        value = math.nan if status is None else self._senses(status.name, t_s)
        self.slave.status = 0 if math.isnan(value) else int(value) & 0xFF
        return self.slave.answer(request)

    def describe(self, request: Message) -> str:
        return type(request).__name__

    def _records(self) -> Sequence[bytes]:
        out = [
            self._record(point, parse_key(point.value.key))
            for point in self._senses.type.points
            if point.value is not None and point.value.key != STATUS
        ]
        out += [encode(Key("energy", storage=100 + n), Decimal(0)) for n in range(self._pad)]
        if self.faults.on("records_cut", self._t_s, self._world.clock.now_ms()):
            out[-1] = out[-1][:-_CUT_BYTES]
        return out

    def _record(self, point: Point, key: Key) -> bytes:
        raw = raw_of(point, self._senses(point.name, self._t_s))
        if not isinstance(raw, float):
            return encode(key, None)
        step = QUANTITIES[key.name].step
        try:
            return encode(key, (Decimal(raw) / step).to_integral_value() * step)
        except LocalProtocolError:
            return encode(key, None)  # it does not fit the display
