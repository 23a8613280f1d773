"""What the pipeline has taken and the disk has not: columns by kind, events, and whom to tell when it is durable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edge.evidence import Still
from protocols.core.model import Event
from protocols.uplink.batch import CLOCK_SET, ClockCorrection, CommandOutcome, DeviceState, Reported
from protocols.uplink.columns import Readings

_MOST_WAITING = 200_000  # readings kept in memory while the disk refuses; beyond it the oldest go, counted


@dataclass(frozen=True, slots=True)
class Kind:
    """What readings must have in common to share a batch."""

    clock: int = CLOCK_SET
    run: int = 0
    historical: bool = False


@dataclass(slots=True)
class Columns:
    alias: list[int] = field(default_factory=list)
    ts_ms: list[int] = field(default_factory=list)
    lag_ms: list[int] = field(default_factory=list)
    integer: list[int] = field(default_factory=list)
    quality: list[int] = field(default_factory=list)

    def each(self) -> tuple[list[int], ...]:
        return self.alias, self.ts_ms, self.lag_ms, self.integer, self.quality

    def readings(self) -> Readings:
        return Readings(
            np.array(self.alias, dtype=np.int32),
            np.array(self.ts_ms, dtype=np.int64),
            np.array(self.lag_ms, dtype=np.int32),
            np.array(self.integer, dtype=np.int64),
            np.array(self.quality, dtype=np.uint8),
        )


@dataclass(slots=True)
class Waiting:
    """What the next commit will hold, column by column. ``size``: readings in all columns."""

    columns: dict[Kind, Columns] = field(default_factory=dict)
    size: int = 0
    corrections: list[ClockCorrection] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    devices: list[DeviceState] = field(default_factory=list)
    outcomes: list[CommandOutcome] = field(default_factory=list)
    reported: list[Reported] = field(default_factory=list)
    stills: list[tuple[Event, Still]] = field(default_factory=list)
    exchanges: dict[str, list[Callable[[], None]]] = field(default_factory=dict)
    plain: list[Callable[[], None]] = field(default_factory=list)

    def keep(self, kind: Kind, reading: tuple[int, int, int, int, int]) -> bool:
        """Alias, time, lag, integer, quality. True if there was no room left and the oldest reading went for it."""
        full = self.size >= _MOST_WAITING
        if full:
            oldest = next(columns for columns in self.columns.values() if columns.alias)
            for column in oldest.each():
                del column[0]
            self.size -= 1
        columns = self.columns.get(kind)
        if columns is None:
            columns = self.columns[kind] = Columns()
        for column, value in zip(columns.each(), reading, strict=True):
            column.append(value)
        self.size += 1
        return full

    def urgent(self) -> bool:
        return bool(self.events or self.devices or self.outcomes or self.reported or self.corrections)

    def anything(self) -> bool:
        return bool(self.size or self.urgent() or self.exchanges or self.plain)

    def extend(self, newer: Waiting) -> None:
        """What came while we could not be written, behind us."""
        for kind, columns in newer.columns.items():
            for old, new in zip(self.columns.setdefault(kind, Columns()).each(), columns.each(), strict=True):
                old.extend(new)
        self.size += newer.size
        self.corrections += newer.corrections
        self.events += newer.events
        self.devices += newer.devices
        self.outcomes += newer.outcomes
        self.reported += newer.reported
        self.stills += newer.stills
        self.plain += newer.plain
        for exchange, calls in newer.exchanges.items():
            self.exchanges.setdefault(exchange, []).extend(calls)

    def callbacks(self) -> list[Callable[[], None]]:
        return [*self.plain, *(call for calls in self.exchanges.values() for call in calls)]
