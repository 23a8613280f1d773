"""A DL/T 645-2007 electricity meter: serves the identifiers of its type's points, singly and as FF blocks."""

from __future__ import annotations

import math
from decimal import Decimal

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.errors import LocalProtocolError
from protocols.devices import Point
from protocols.dlt645.messages import BroadcastTime, Command, Message, Read, ReadAddress, ReadMore
from protocols.dlt645.slave import answer, table_source
from protocols.dlt645.values import encode


class Dlt645Meter:
    """One meter on the line."""

    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        self.id = device.id
        self.faults = faults
        self._number = str(device.address)
        self._senses = Senses(device, world)

    def reply(self, request: Message, t_s: float) -> Message | None:
        if not isinstance(request, Read | ReadMore | ReadAddress | BroadcastTime | Command):
            return None
        # Values are worked out only for the meter that is asked: 32 of them hear every request.
        return answer(request, meter=self._number, source=lambda di: table_source(self._table(t_s))(di))

    def describe(self, request: Message) -> str:
        return request.di if isinstance(request, Read | ReadMore) else type(request).__name__

    def _table(self, t_s: float) -> dict[str, Decimal | None]:
        table: dict[str, Decimal | None] = {}
        for point in self._senses.type.points:
            if point.dlt645 is not None:
                table[point.dlt645.di] = _shown(point, point.dlt645.di, self._senses(point.name, t_s))
        return table


def _shown(point: Point, di: str, value: float) -> Decimal | None:
    """What the display shows; None (FF on the wire) for no value and for one that does not fit the digits."""
    if math.isnan(value):
        return None
    number = Decimal(f"{value:.{point.decimals}f}")
    try:
        encode(di, [number])
    except LocalProtocolError:
        return None
    return number
