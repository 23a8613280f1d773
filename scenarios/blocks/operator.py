"""What a block's running half looks like: it is told which series are its own, and steps through batches.

    series index ──local[]──▶ instance (one device, one alarm) ──▶ state

A rule's instances are numbered from 0 in the order they were bound; arrays by instance hold what the vectorised path
needs, a list of small objects holds the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocols.core.model import Event, Fact, Int32s, SeriesInfo
from scenarios.blocks.alarm import RuleContext
from scenarios.blocks.params import Rule
from scenarios.blocks.rows import Rows, grown

#: Longest pause between two samples that still counts as one run, at least. Normally three reporting intervals; but an
#: agent that polls more slowly than the pack expects must not thereby switch a rule off.
LEAST_GAP_MS = 180_000
_FIRST_MS, _LAST_MS = 946_684_800_000, 4_102_444_800_000  # 2000, 2100


@dataclass(frozen=True, slots=True)
class Site:
    """Where a pack is bound: devices by role, and what the blocks need to know of them."""

    roles: Mapping[str, tuple[str, ...]]
    interval_s: Mapping[str, float]  # role -> reporting interval
    types: Mapping[str, str]  # device -> device type, for devices that have series

    def gap_ms(self, role: str) -> int:
        return max(round(3000 * self.interval_s[role]), LEAST_GAP_MS)

    def gaps_ms(self) -> dict[str, int]:
        """By device, for devices that have series."""
        return {d: self.gap_ms(role) for role, ids in self.roles.items() for d in ids if d in self.types}


class Operator(ABC):
    """One rule of one bound pack. ``devices`` are those of the rule's role."""

    #: State of another shape is not restored (block parameters that shape it: windows, slots).
    shape: str = ""

    def __init__(self, rule: Rule, context: RuleContext, devices: Sequence[str]) -> None:
        self.rule = rule
        self.context = context
        self.devices = frozenset(devices)
        #: State read from a snapshot for devices whose series have not been added yet.
        self.waiting: dict[str, Any] = {}
        self.notes: list[str] = []

    # -- binding

    def wants(self, info: SeriesInfo) -> bool:
        """Is this series input of the rule?"""
        del info
        return False

    def bind(self, index: int, info: SeriesInfo) -> None:
        """Take a series that :meth:`wants` accepted."""
        raise NotImplementedError

    def reserve(self, size: int) -> None:
        """Make room for series numbers below ``size``: called before any of them appears in a batch."""
        del size

    def missing(self) -> list[str]:
        """What the rule still waits for (``device/point``) before it can say anything."""
        return []

    # -- running

    def step(self, rows: Rows) -> None:
        """Good samples. A rule that binds no series has nothing to do here."""
        del rows

    def fact(self, fact: Fact, now_ms: int) -> list[Event]:
        del fact, now_ms
        return []

    def event(self, event: Event, now_ms: int) -> list[Event]:
        del event, now_ms
        return []

    def tick(self, now_ms: int) -> list[Event]:
        del now_ms
        return []

    def counters(self) -> Mapping[str, int]:
        return {}

    # -- state

    @abstractmethod
    def save(self) -> dict[str, Any]:
        """State by instance name (device or device/point). Only what differs from a fresh start."""

    @abstractmethod
    def load(self, name: str, state: Any) -> None:
        """Give one bound instance its state back. Raises ValueError if it does not fit."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Is there an instance of that name?"""

    def owns(self, name: str) -> bool:
        """Is a saved state of that name (device or device/point) this operator's?"""
        return name.partition("/")[0] in self.devices

    def adopt(self, states: Mapping[str, Any]) -> None:
        """Take a snapshot's states: bound instances now, the others when their series comes."""
        for name, state in states.items():
            if self.has(name):
                self._load(name, state)
            else:
                self.waiting[name] = state

    def claim(self, name: str) -> None:
        """Called at the end of binding an instance: state that waited for it."""
        if name in self.waiting:
            self._load(name, self.waiting.pop(name))

    def _load(self, name: str, state: Any) -> None:
        try:
            self.load(name, state)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            self.note(name, f"state does not fit: {error}")

    def clock_stepped(self, delta_ms: int) -> None:
        """The receiver's clock was set: what happened a minute ago must still have happened a minute ago."""
        self.waiting = {name: shifted(state, delta_ms) for name, state in self.waiting.items()}
        for name, state in self.save().items():
            self.load(name, shifted(state, delta_ms))

    def note(self, name: str, what: str) -> None:
        """Remember something a restore could not do; the engine hands it on."""
        self.notes.append(f"{self.context.scenario}:{self.rule.id}: {name}: {what}")

    def saved(self) -> dict[str, Any]:
        return {**self.waiting, **self.save()}


def shifted(state: Any, delta_ms: int) -> Any:
    """Saved state with every absolute time in it moved. Times are told from counts by their size: milliseconds of
    the years 2000 to 2100 are above 9e11, and nothing else that is kept as an integer is."""
    if isinstance(state, dict):
        return {key: shifted(value, delta_ms) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [shifted(value, delta_ms) for value in state]
    if isinstance(state, int | np.integer) and not isinstance(state, bool) and _FIRST_MS <= state < _LAST_MS:
        return int(state) + delta_ms
    return state


class PointOperator(Operator):
    """A rule on one point of each device of a role: one instance per device."""

    def __init__(self, rule: Rule, context: RuleContext, devices: Sequence[str], point: str) -> None:
        super().__init__(rule, context, devices)
        self.point = point
        self.local: Int32s = np.full(0, -1, dtype=np.int32)
        self.numbers: dict[str, int] = {}
        self.series: list[int] = []

    def wants(self, info: SeriesInfo) -> bool:
        return info.point == self.point and info.device in self.devices

    def bind(self, index: int, info: SeriesInfo) -> None:
        number = len(self.series)
        self.reserve(index + 1)
        self.local[index] = number
        self.numbers[info.device] = number
        self.series.append(index)
        self.create(number, index, info)
        self.claim(info.device)

    def reserve(self, size: int) -> None:
        self.local = grown(self.local, size, -1)

    @abstractmethod
    def create(self, number: int, index: int, info: SeriesInfo) -> None:
        """Make the state of instance ``number`` on series ``index``."""

    def missing(self) -> list[str]:
        return [f"{device}/{self.point}" for device in sorted(self.devices - self.numbers.keys())]

    def has(self, name: str) -> bool:
        return name in self.numbers
