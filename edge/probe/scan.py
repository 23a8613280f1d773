"""The whole search: each speed and parity in turn, each protocol on it, one question on the wire at a time.

```
 place ─▶ link ─▶ DL/T 645: AA.. ─▶ by digits      ─┐
   ▲              CJ/T 188: AA..                    ├─▶ found ─▶ snippet
   └── next ◀──   Modbus:   units 1 to 247          ─┘
```

What was found is in :attr:`Scan.found` from the moment it was found: whoever stops the search half-way keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge.connectors.base import LinkFactory
from edge.connectors.config import TCP_PREFIX, split_address
from edge.probe.asking import Asker
from edge.probe.found import Found, Place, Protocol
from edge.probe.meters import MeterSearch, WaterSearch, wait_s
from edge.probe.registers import UnitSearch, rtu, tcp
from protocols.core.errors import ConfigError, TransportError

#: What leaves the factory, the likely ones first: meters 2400 8E1, sensors 9600 8N1 or 4800 8N1.
METER_SETTINGS = ((2400, "E"), (9600, "E"), (4800, "E"), (1200, "E"))
SENSOR_SETTINGS = ((9600, "N"), (4800, "N"), (9600, "E"), (19200, "E"), (2400, "N"), (38400, "N"), (115200, "N"))
PROTOCOLS: tuple[Protocol, ...] = ("dlt645", "cjt188", "modbus")
MODBUS_PORT = 502
_GAP_S = 0.02


@dataclass(frozen=True, slots=True)
class Wanted:
    """``settings`` (): what leaves the factory. ``timeout_s``: how long a Modbus unit may take to begin.
    ``thorough``: look behind a meter that answered alone."""

    target: str
    protocols: tuple[Protocol, ...] = PROTOCOLS
    settings: tuple[tuple[int, str], ...] = ()
    units: Sequence[int] = range(1, 248)
    timeout_s: float = 0.2
    thorough: bool = False


@dataclass
class Scan:
    """``tell``: a line for whoever watches; ``step``: how far it is (what, done, of)."""

    wanted: Wanted
    tell: Callable[[str], None]
    step: Callable[[str, int, int], None] = lambda what, done, of: None
    open_link: Callable[[Place], LinkFactory] | None = None
    found: list[Found] = field(default_factory=list)
    asked: int = 0

    async def run(self) -> None:
        """Raises ConfigError for a target that cannot be, TransportError if nothing could be opened."""
        places = self._places()
        failed: TransportError | None = None
        opened = 0
        for place, protocols in places:
            self.tell(f"-- {place}  ({', '.join(protocols)})")
            try:
                await self._place(place, protocols)
                opened += 1
            except TransportError as error:
                failed = error
                self.tell(f"   {error}")
        if failed is not None and not opened:
            raise failed

    def _places(self) -> list[tuple[Place, tuple[Protocol, ...]]]:
        target, protocols = self.wanted.target, self.wanted.protocols
        if target.startswith(TCP_PREFIX):
            split_address(target.removeprefix(TCP_PREFIX), "probe")
            return [(Place(target, "serial-server"), protocols)]
        if not target.startswith("/"):
            host = target if ":" in target.rpartition("]")[2] else f"{target}:{MODBUS_PORT}"
            split_address(host, "probe")
            if "modbus" not in protocols:
                raise ConfigError(f"probe: {target} is asked for Modbus units; a line behind it is tcp://{host}")
            return [(Place(host, "modbus-tcp"), ("modbus",))]
        if self.wanted.settings:
            return [(Place(target, "serial", baud, parity), protocols) for baud, parity in self.wanted.settings]
        meters = tuple(one for one in protocols if one != "modbus")
        out: list[tuple[Place, tuple[Protocol, ...]]] = []
        if meters:
            out += [(Place(target, "serial", baud, parity), meters) for baud, parity in METER_SETTINGS]
        if "modbus" in protocols:
            out += [(Place(target, "serial", baud, parity), ("modbus",)) for baud, parity in SENSOR_SETTINGS]
        return out

    async def _place(self, place: Place, protocols: tuple[Protocol, ...]) -> None:
        link = await (self.open_link or _real)(place)()
        asker = Asker(link, gap_s=0.0 if place.kind == "modbus-tcp" else _GAP_S)
        try:
            for protocol in protocols:
                await self._protocol(protocol, place, asker)
        finally:
            self.asked += asker.asked
            await link.close()

    async def _protocol(self, protocol: Protocol, place: Place, asker: Asker) -> None:
        if protocol == "dlt645":
            self.step("DL/T 645", 0, 1)
            wait, thorough = wait_s(place.baud), self.wanted.thorough
            await MeterSearch(asker, place, self.tell, self.found, wait_s=wait, thorough=thorough).run()
        elif protocol == "cjt188":
            self.step("CJ/T 188", 0, 1)
            await WaterSearch(asker, place, self.tell, self.found, wait_s=wait_s(place.baud)).run()
        else:
            units = list(self.wanted.units)
            endpoint = tcp() if place.kind == "modbus-tcp" else rtu()
            wait = self.wanted.timeout_s + (0.0 if place.kind == "modbus-tcp" else 80 * 11 / (place.baud or 9600))
            search = UnitSearch(asker, place, self.tell, self.found, wait_s=wait, endpoint=endpoint)
            await search.run(units, lambda unit: self.step("Modbus", units.index(unit), len(units)))


def _real(place: Place) -> LinkFactory:
    from edge.connectors.links import polled_line, tcp_client

    if place.kind == "modbus-tcp":
        return tcp_client(*split_address(place.where, "probe"))
    return polled_line(place.where, baud=place.baud, parity=place.parity, stop_bits=1)
