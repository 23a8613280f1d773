"""What a roadside unit's messages say about the street, as numbers: counts, speeds, lights, notices.

Keys of a type's points: ``users/motor``, ``users/non-motor``, ``users/pedestrian`` (road users seen in the window),
``users/stopped``, ``speed/mean``, ``speed/max`` (motor vehicles, m/s), ``vehicles/count``, ``vehicles/speed`` (those
that tell of themselves), ``phase/<n>/light`` (word), ``phase/<n>/left`` (s), ``signals/fault``, ``notices/events``,
``notices/signs``, ``notices/priority`` (the highest).

Privacy: temporary ids are held for one window, to count each road user once, and thrown away with it. Nothing that
leaves this module tells one road user from another.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from protocols.devices.values import Raw
from protocols.v2x.messages import Crossing, Notices, RoadUsers, Signals, Vehicle

#: Road users one window may hold; a crossing has some hundred. What is more is counted as lost.
MAX_USERS = 4_096
#: Slower than a walk: standing (m/s).
STOPPED_MPS = 0.5
KINDS = ("motor", "non-motor", "pedestrian")
#: Status bits that mean that the lights cannot be trusted (failure flash, failure mode, off).
_FAULTS = frozenset({2, 8, 9})


class Window:
    """What a unit saw in some seconds; :meth:`close` gives the numbers and forgets everything."""

    def __init__(self) -> None:
        self.lost = 0
        self._users: dict[int, tuple[str, float | None]] = {}
        self._vehicles: dict[bytes, float | None] = {}
        self._saw_users = False
        self._saw_vehicles = False

    def users(self, message: RoadUsers) -> None:
        self._saw_users = True
        for one in message.participants:
            if one.mark in self._users or len(self._users) < MAX_USERS:
                self._users[one.mark] = (one.kind, one.speed_mps)
            else:
                self.lost += 1

    def vehicle(self, message: Vehicle) -> None:
        self._saw_vehicles = True
        if message.mark in self._vehicles or len(self._vehicles) < MAX_USERS:
            self._vehicles[message.mark] = message.speed_mps
        else:
            self.lost += 1

    def close(self) -> dict[str, Raw]:
        """Empty if the unit sent nothing of the kind: then nothing is known, not zero."""
        out: dict[str, Raw] = {}
        if self._saw_users:
            out |= {f"users/{kind}": sum(1 for one, _ in self._users.values() if one == kind) for kind in KINDS}
            speeds = [speed for kind, speed in self._users.values() if kind == "motor" and speed is not None]
            out["users/stopped"] = sum(1 for speed in speeds if speed < STOPPED_MPS)
            if speeds:
                out |= {"speed/mean": fmean(speeds), "speed/max": max(speeds)}
        if self._saw_vehicles:
            out["vehicles/count"] = len(self._vehicles)
            told = [speed for speed in self._vehicles.values() if speed is not None]
            if told:
                out["vehicles/speed"] = fmean(told)
        self.lost, self._saw_users, self._saw_vehicles = 0, False, False
        self._users, self._vehicles = {}, {}
        return out


def crossing_of(message: Signals, number: int) -> Crossing | None:
    """The crossing of that number; 0: the first."""
    if number == 0:
        return message.crossings[0]
    return next((one for one in message.crossings if one.number == number), None)


def lights(crossing: Crossing) -> dict[str, Raw]:
    """Lights and times left. A controller that flashes or is off says so itself."""
    out: dict[str, Raw] = {"signals/fault": 1 if _FAULTS & set(crossing.status) else 0}
    for phase in crossing.phases:
        out[f"phase/{phase.number}/light"] = phase.light
        out[f"phase/{phase.number}/left"] = phase.left_s
    return out


def changed(before: Mapping[str, Raw], now: Mapping[str, Raw]) -> bool:
    """Whether a light or the controller's state is another; the time left always is."""
    return any(before.get(key) != value for key, value in now.items() if not key.endswith("/left"))


def notices(message: Notices) -> dict[str, Raw]:
    events = [one for one in message.notices if one.kind == "event"]
    priorities = [one.priority for one in message.notices if one.priority is not None]
    return {
        "notices/events": len(events),
        "notices/signs": len(message.notices) - len(events),
        "notices/priority": max(priorities, default=0),
    }
