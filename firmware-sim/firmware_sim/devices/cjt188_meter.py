"""A CJ/T 188 water, gas or heat meter with the habits of its maker, a clock, and a valve that takes its time.

``options``: ``di_order`` ("901F", "1F90": the meter understands that order only and meets the other one with silence;
"both", the factory's), ``ser`` (a number: it always says that one instead of echoing), ``unit_place`` ("before"),
``layout`` ("heat_2018"), ``wake_up`` (so many FE it wants in front of a request), ``meter_type`` (T it answers with),
``valve_s`` (how long the valve travels, 5). The valve needs no signal: it stands as it was put.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Literal

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.cjt188.messages import DI_CLOCK, DI_VALVE, VALVE_CLOSE, Command, Message, Read, ReadAddress
from protocols.cjt188.points import CURRENT, STATUS_KEYS, parse_key, status_bytes
from protocols.cjt188.slave import Meter, answer
from protocols.cjt188.units import UNITS, USUAL
from protocols.cjt188.values import LAYOUTS, UnitPlace, encode, layout_of
from protocols.core.errors import ConfigError
from protocols.devices import Point
from protocols.devices.values import raw_of

_BEIJING = timezone(timedelta(hours=8))


class Cjt188Meter:
    """One meter on the line."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id = device.id
        self.faults = faults
        self._world = world
        self._senses = Senses(device, world)
        number = str(device.address)
        if len(number) != 14 or any(digit not in "0123456789ABCDEF" for digit in number):
            text = 'a CJ/T 188 meter number is 14 digits in quotes, e.g. "78330000000161"'
            raise ConfigError(f"device {device.id}: address: {text}")
        options = device.options
        kind = str(options.get("meter_type", self._senses.type.options.get("meter_type", "10")))
        self.meter = Meter(kind, number)
        heat = kind.startswith("2")
        self._layout = str(options.get("layout", "heat_2004" if heat else "volume"))
        if self._layout not in LAYOUTS:
            raise ConfigError(f"device {device.id}: options.layout: one of {', '.join(LAYOUTS)}")
        self._place: UnitPlace = "before" if options.get("unit_place") == "before" else "after"
        self._order = str(options.get("di_order", "both"))
        self._ser: int | None = int(options["ser"]) if "ser" in options else None
        self._wake_up = int(options.get("wake_up", 0))
        self._valve_s = float(options.get("valve_s", 5.0))
        self._valve: Literal["open", "closed"] = "open"
        self._ordered: tuple[Literal["open", "closed"], float] = ("open", -math.inf)  # wanted, since
        self._clock_ms = 0  # correction by A015
        self.orders = 0  # valve orders that were taken

    def reply(self, request: Message, t_s: float) -> Message | None:
        if not isinstance(request, Read | ReadAddress | Command) or request.woken < self._wake_up:
            return None
        if self._order not in ("both", request.order):
            return None
        reply = answer(
            request,
            meter=self.meter,
            source=lambda di: self._said(di, t_s),
            obey=lambda command: self._obey(command, t_s),
            status=self._status(t_s),
        )
        return replace(reply, ser=self._ser) if reply is not None and self._ser is not None else reply

    def describe(self, request: Message) -> str:
        return request.di if isinstance(request, Read | Command) else type(request).__name__

    # -- what it says --------------------------------------------------------------------------------------------
    def _said(self, di: str, t_s: float) -> bytes | None:
        heat = self.meter.type.startswith("2")
        layout = self._layout if di == CURRENT else layout_of(di, 5 if di[:2] == "D1" else 0, heat=heat)
        if not layout:
            return None
        numbers: dict[str, Decimal | None] = {}
        for point in self._senses.type.points:
            if point.value is None:
                continue
            key = parse_key(point.value.key)
            if key.name not in STATUS_KEYS and (key.di == di or (layout.startswith("month") and key.di == CURRENT)):
                numbers[key.name] = self._shown(point, key.name, layout, t_s)
        return encode(layout, numbers, time=self._now(t_s), status=self._status(t_s), place=self._place)

    def _shown(self, point: Point, name: str, layout: str, t_s: float) -> Decimal | None:
        """What the display shows; None (FF on the wire) for no value and for one that does not fit the digits."""
        item = next((one for one in LAYOUTS[layout] if one.name == name), None)
        raw = raw_of(point, self._senses(point.name, t_s))
        if item is None or not isinstance(raw, float):
            return None
        step = UNITS[USUAL[item.base]].factor if item.kind == "quantity" else Decimal(1)
        shown = Decimal(f"{Decimal(raw) / step:.{item.decimals}f}")
        fits = 0 <= shown.scaleb(item.decimals) < 100 ** (4 if item.kind == "quantity" else item.size)
        return shown * step if fits else None

    def _status(self, t_s: float) -> bytes:
        if self.faults.on("valve_stuck", t_s, self._now_ms(t_s)) and self._ordered[0] != self._valve:
            return bytes((0b11, 0))  # it noticed that the valve did not move
        self._move(t_s)
        low = self._senses.has("battery_low") and self._senses("battery_low", t_s) > 0.5
        return status_bytes(valve=self._valve, battery_low=low)

    def _now_ms(self, t_s: float) -> int:
        return self._world.start_ms + round(t_s * 1000)

    def _now(self, t_s: float) -> datetime:
        now_ms = self._now_ms(t_s)
        own_ms = now_ms + self.faults.clock_offset_ms(t_s, now_ms, self._world.start_ms) + self._clock_ms
        return datetime.fromtimestamp(own_ms / 1000, UTC).astimezone(_BEIJING).replace(tzinfo=None)

    # -- what it is told -----------------------------------------------------------------------------------------
    def _obey(self, command: Command, t_s: float) -> bytes | None:
        if command.di == DI_VALVE and len(command.data) == 1:
            self._move(t_s)
            self.orders += 1
            self._ordered = ("closed" if command.data[0] == VALVE_CLOSE else "open", t_s)
            return self._status(t_s)
        if command.di == DI_CLOCK and len(command.data) == 7:
            return b"" if self._set_clock(command.data, t_s) else None
        return None

    def _set_clock(self, data: bytes, t_s: float) -> bool:
        try:
            second, minute, hour, day, month, year, century = (int(f"{byte:02x}") for byte in data)
            told = datetime(century * 100 + year, month, day, hour, minute, second)
        except ValueError:
            return False
        self._clock_ms += round((told - self._now(t_s)).total_seconds() * 1000)
        return True

    def _move(self, t_s: float) -> None:
        wanted, since_s = self._ordered
        if t_s - since_s >= self._valve_s and not self.faults.on("valve_stuck", t_s, self._now_ms(t_s)):
            self._valve = wanted
