"""What is known of one charging station: its connectors, its transactions, what came last.

Transactions of 1.6 get their number here. It is derived from what the station says of the start and carries the
connector in its last four bits: the same start repeated, even after a restart of the gateway, gets the same number,
and the stop finds its connector without anything being remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from itertools import count

from edge.connectors.ocpp_orders import Place
from edge.connectors.ocpp_values import CHARGING_STATES, energy_of, places_of, sampled, wh
from edge.connectors.road_config import OcppDevice
from edge.connectors.station_clock import StationClock
from edge.connectors.station_server import Station
from protocols.devices import DeviceType, load
from protocols.devices.values import Raw
from protocols.ocpp.reports import Transaction
from protocols.ocpp.samples import ENERGY
from protocols.ocpp.times import Instant

#: Transactions of one station whose connector and start are remembered; a station has as many as it has connectors.
MAX_TRANSACTIONS = 64
#: Connectors a station may have before its numbers are taken for nonsense.
MAX_PLACES = 64

Moments = list[tuple[Instant | None, dict[str, Raw]]]


@dataclass(slots=True)
class Told:
    """What a transaction's report says. ``missing``: events of it that got lost on the way; ``fell``: the register
    went down, in words; ``place`` None: nobody knows at which connector."""

    name: str
    place: int | None
    moments: Moments = field(default_factory=list)
    missing: int = 0
    fell: str = ""


class ChargingStation(Station):
    """One configured station."""

    def __init__(self, config: OcppDevice) -> None:
        super().__init__(config.identity, config.id)
        self.config = config
        self.type: DeviceType = load(config.type)
        self.clock = StationClock()
        self.booted = False
        self.places: dict[int, Place] = {}
        self.files: dict[str, str] = {}
        self.violations: Counter[str] = Counter()
        self.calls = count(1)
        self.changed = asyncio.Event()  # a state or a transaction
        self.answered = asyncio.Event()  # a call of ours that nobody waited for
        self._running: OrderedDict[str, tuple[int, float | None]] = OrderedDict()  # transaction: place, start in Wh
        self._sequence: OrderedDict[str, int] = OrderedDict()

    def place(self, number: int) -> Place:
        """What is known of a connector; a number beyond all reason is not remembered."""
        if number in self.places or len(self.places) < MAX_PLACES:
            return self.places.setdefault(number, Place())
        return Place()

    def transaction_told(self, report: Transaction, *, accepted: bool, now_ms: int) -> Told:
        """Take in a start, an event or a stop. ``accepted`` False: the card may not charge; 1.6 wants a number all the
        same, and the station will stop it under that number."""
        name = report.key or number_of(self.key, report, now_ms)
        known_place, start_wh = self._running.get(name, (None, None))
        place = next((one for one in (report.place, known_place) if one is not None), None)
        place = self._place_in(name) if place is None else place
        told = Told(name, place, missing=self._missing(name, report))
        if place is None:
            return told
        active = report.phase != "Ended" and accepted
        told.moments = [(one.time, sampled(place, one)) for one in report.metered]
        registers = [found for _, values in told.moments if (found := energy_of(place, values)) is not None]
        if report.meter_wh is not None:
            registers = [float(report.meter_wh)]
        if report.phase == "Started":
            start_wh = registers[0] if registers else None
        last = self._last(report, place, active)
        if registers and start_wh is not None:
            last[f"{place}/session_energy"] = registers[-1] - start_wh
            if registers[-1] < start_wh:
                told.fell = f"the register fell from {start_wh:g} to {registers[-1]:g} Wh during a transaction"
        told.moments.append((report.time, last))
        self.place(place).transaction = name if active else ""
        self._running.pop(name, None)
        if active:
            self._running[name] = (place, start_wh)
        while len(self._running) > MAX_TRANSACTIONS:
            self._running.popitem(last=False)
        self.changed.set()
        return told

    @staticmethod
    def _last(report: Transaction, place: int, active: bool) -> dict[str, Raw]:
        last: dict[str, Raw] = {f"{place}/transaction": 1 if active else 0}
        if (register := wh(report.meter_wh)) is not None:
            last[f"{place}/{ENERGY}"] = register
        if (word := CHARGING_STATES.get(report.state)) is not None and active:
            last[f"{place}/status"] = word
        return last

    def _missing(self, name: str, report: Transaction) -> int:
        """2.0.1 counts the events of a transaction from 0; a gap is events that got lost. Of a transaction that we
        meet halfway (we restarted, or it ended and is told again) nothing is known to be missing."""
        if report.sequence is None:
            return 0
        last = self._sequence.pop(name, -1 if report.phase == "Started" else report.sequence - 1)
        expected = last + 1
        if report.phase != "Ended":
            self._sequence[name] = max(report.sequence, last)
        while len(self._sequence) > MAX_TRANSACTIONS:
            self._sequence.popitem(last=False)
        return min(max(report.sequence - expected, 0), 1_000)

    def _place_in(self, name: str) -> int | None:
        """The connector a number of ours carries; of a station with one connector it can be no other."""
        places = places_of(self.type)
        if len(places) == 1:
            return next(iter(places))
        found = int(name) & 15 if name.isdecimal() else 0
        return found if found in places else None


def number_of(identity: str, report: Transaction, now_ms: int) -> str:
    """1.6: the number of a transaction that starts, 31 bits above 0. The same start gives the same number, unless the
    station has no clock: then its starts may look alike, and the time of arrival tells them apart."""
    time_ms = now_ms if report.time is None or report.time.unset else report.time.ms
    place = report.place or 0
    said = f"{identity}\x1f{place}\x1f{time_ms}\x1f{report.meter_wh}\x1f{report.tag}".encode()
    found = int.from_bytes(hashlib.sha256(said).digest()[:4], "big") >> 5
    return str(max(found, 1) << 4 | min(place, 15))
