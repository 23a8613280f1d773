"""A DL/T 645 electricity meter: the identifiers of its type's points, singly and as FF blocks, its clock, its number,
its status words, and a relay that switches the load.

``options``: ``edition = "1997"`` answers C1 to newer reads and serves the older identifiers; ``password`` (six digits,
level 02, factory value 000000) guards orders; ``stuck = true`` confirms relay orders and does nothing; ``slow_relay_s``
is how long the relay takes.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.errors import LocalProtocolError
from protocols.devices import Point
from protocols.dlt645.identifiers import older
from protocols.dlt645.messages import BroadcastTime, Command, Message, Read, ReadAddress, ReadMore
from protocols.dlt645.orders import Clear, Freeze, Order, Relay, Write
from protocols.dlt645.slave import NO_RIGHT, OTHER, Edition, answer, table_source
from protocols.dlt645.values import encode, encode_demand, encode_moment, encode_text, lookup, status_word

_BEIJING = timezone(timedelta(hours=8))
#: What an open relay switches off: current and power.
_LOAD = ("0202", "0203", "0204", "0205", "B62", "B63")
_CLOCK = ("04000101", "04000102", "0400010C", "C010", "C011")
_NUMBER = ("04000401", "04000402", "C032")
_RELAY_WORD, _RELAY_OPEN, _RELAY_ORDERED = "04000503", 0x10, 0x40


class Dlt645Meter:
    """One meter on the line."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id = device.id
        self.faults = faults
        self.relay_open = False
        self._number = str(device.address)
        self._edition: Edition = "1997" if str(device.options.get("edition", "2007")) == "1997" else "2007"
        self._password = str(device.options.get("password", "000000"))
        self._stuck = bool(device.options.get("stuck", False))
        self._slow_s = float(device.options.get("slow_relay_s", 0.0))
        self._ordered: tuple[bool, float] = (False, -math.inf)  # open?, since
        self._written: dict[str, bytes] = {}
        self._world = world
        self._senses = Senses(device, world)
        self._demands = {
            point.dlt645.di: point
            for point in self._senses.type.points
            if point.dlt645 is not None and point.dlt645.di.startswith("01") and len(point.dlt645.di) == 8
        }

    def reply(self, request: Message, t_s: float) -> Message | None:
        if not isinstance(request, Read | ReadMore | ReadAddress | BroadcastTime | Command):
            return None
        self._move(t_s)
        # Values are worked out only for the meter that is asked: 32 of them hear every request.
        return answer(
            request,
            meter=self._number,
            source=lambda di: self._said(di, t_s),
            obey=lambda order: self._obey(order, t_s),
            edition=self._edition,
        )

    def describe(self, request: Message) -> str:
        return request.di if isinstance(request, Read | ReadMore) else type(request).__name__

    # -- what it says --------------------------------------------------------------------------------------------
    def _said(self, di: str, t_s: float) -> bytes | None:
        if di in self._written:
            return self._written[di]
        if (data := table_source(self._table(t_s))(di)) is not None:
            return data
        if (point := self._demands.get(di)) is not None and not math.isnan(value := self._senses(point.name, t_s)):
            return encode_demand(di, Decimal(f"{value:.4f}"), self._now(0.0))
        if di in _CLOCK and (len(di) == 4) == (self._edition == "1997"):
            return encode_moment(di, self._now(t_s))
        if di in _NUMBER and self._number.isdecimal():
            return encode_text(di, self._number)
        if di == _RELAY_WORD:
            ordered = self._ordered[0]
            return status_word(_RELAY_OPEN * self.relay_open | _RELAY_ORDERED * ordered)
        return status_word(0) if di[:7] == "0400050" and di[7] in "1234567" else None

    def _now(self, t_s: float) -> datetime:
        return datetime.fromtimestamp(self._world.start_ms / 1000 + t_s, UTC).astimezone(_BEIJING)

    def _table(self, t_s: float) -> dict[str, Decimal | None]:
        table: dict[str, Decimal | None] = {}
        for point in self._senses.type.points:
            if point.dlt645 is None or (form := lookup(point.dlt645.di)) is None or form.kind != "number":
                continue
            own = point.dlt645.di
            di = own if self._edition == "2007" else older(own)
            if di is not None:
                value = self._senses(point.name, t_s)
                table[di] = _shown(point, di, 0.0 if self.relay_open and di.startswith(_LOAD) else value)
        return table

    # -- what it is told -----------------------------------------------------------------------------------------
    def _obey(self, order: Order, t_s: float) -> int:
        if isinstance(order, Freeze):
            return 0
        if isinstance(order, Relay | Write | Clear) and order.key.password != self._password:
            return NO_RIGHT
        match order:
            case Relay("open" | "close" | "allow_close" as action, until):
                if until < self._now(t_s).replace(tzinfo=None):
                    return OTHER  # its time is over
                if action != "allow_close" and not self._stuck:
                    self._ordered = (action == "open", t_s)
                    self._move(t_s)
            case Relay():
                pass
            case Write(di, data):
                self._written[di] = data
            case Clear():
                pass
            case _:
                return OTHER
        return 0

    def _move(self, t_s: float) -> None:
        wanted, since_s = self._ordered
        if t_s - since_s >= self._slow_s:
            self.relay_open = wanted


def _shown(point: Point, di: str, value: float) -> Decimal | None:
    """What the display shows; None (FF on the wire) for no value and for one that does not fit the digits."""
    form = lookup(di)
    if math.isnan(value) or form is None:
        return None
    number = Decimal(f"{value:.{min(point.decimals, form.decimals)}f}")
    try:
        encode(di, [number])
    except LocalProtocolError:
        return None
    return number
