"""From sweeps, facts and reports to durable batches: the middle of the agent.

Everything a connector or a camera says comes in here. Rules see every reading at once; report by exception decides what
is kept; what is kept waits at most ``flush_s`` and then becomes durable together (one fsync). An event does not wait.
Only when its readings are on disk is a device told that they arrived.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from edge.clock import Clock
from edge.devices import Devices
from edge.evidence import Still, chunks
from edge.happenings import Happenings
from edge.northbound.tap import Tap, Told
from edge.outbox import Outbox, Pending
from edge.report import Point, Reporter
from edge.timekeeper import STATE as CLOCK_STATE
from edge.timekeeper import Timekeeper
from edge.waiting import Columns, Kind, Waiting
from protocols.core.errors import StoreError
from protocols.core.model import Event, Fact, Float64s, Int32s, Quality, SeriesBatch, Sweep
from protocols.uplink.batch import (
    CLOCK_SET,
    CLOCK_UNKNOWN,
    CommandOutcome,
    DeviceState,
    Reported,
    scale,
)
from protocols.uplink.topics import Lane
from scenarios.engine import Engine

log = logging.getLogger("citybrain.edge.pipeline")

_GATHER_S = 0.02  # an event waits this long for its companions
_RETRY_S = 1.0
_MOST_LAG_MS = (1 << 31) - 1  # 24.8 days: a logger that empties its memory is later than the wire can say
_MOST_WAITING = 200_000  # readings kept in memory while the disk refuses; beyond it the oldest go, counted


class Offload(Protocol):
    """Runs a blocking call off the loop (``asyncio.to_thread``), or right here under virtual time."""

    def __call__(self, function: Callable[[], None], /) -> Awaitable[None]: ...


async def inline(function: Callable[[], None], /) -> None:
    function()


class Pipeline:
    """The agent's Sink. All calls come on the loop."""

    def __init__(
        self,
        outbox: Outbox,
        engine: Engine,
        devices: Devices,
        clock: Clock,
        *,
        flush_s: float,
        lane: Callable[[], Lane],
        committed: Callable[[], None],
        offload: Offload,
        still_of: Callable[[str], Still | None] = lambda _device: None,
        timekeeper: Timekeeper | None = None,
    ) -> None:
        self._outbox = outbox
        self._engine = engine
        self._devices = devices
        self._clock = clock
        self._flush_s = flush_s
        self._lane = lane
        self._committed = committed
        self._offload = offload
        self._still_of = still_of
        self._time = timekeeper
        self._happenings = Happenings(clock, devices)
        self._waiting = Waiting()
        self._inflight_exchanges: set[str] = set()
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._reporters: dict[int, Reporter] = {}
        self._sweeps: dict[tuple[str, tuple[str, ...]], tuple[Int32s, Float64s]] = {}
        self._online: dict[str, bool] = {}
        self.watch: Callable[[Sweep], None] | None = None  # hears every sweep as it came: interlocks
        self.tap: Tap | None = None  # a second listener; hears what is kept, delays nothing
        self.counters: dict[str, int] = {
            "sweeps": 0,
            "readings_seen": 0,
            "readings_kept": 0,
            "repeats": 0,
            "events": 0,
            "unknown_device": 0,
            "dropped_memory": 0,
            "commits": 0,
            "commits_refused": 0,
        }
        for declaration in outbox.series():
            if declaration.device in devices.ids():
                self._bind(declaration.device, declaration.point, declaration.reference)

    # -- Sink -----------------------------------------------------------------------------------------------------

    def sweep(self, sweep: Sweep, on_durable: Callable[[], None] | None = None) -> None:
        if sweep.device not in self._devices.ids():
            self.counters["unknown_device"] += 1
            return
        if sweep.exchange and self._is_repeat(sweep.exchange, on_durable):
            self.counters["repeats"] += 1
            return
        now_ms = self._clock.now_ms()
        self._follow_clock()
        kind = self._kind(sweep.seen_ms)
        past = replace(kind, historical=True) if sweep.historical else kind
        self.counters["sweeps"] += 1
        self.counters["readings_seen"] += len(sweep.points)
        self._note_online(sweep.device, online=True, detail="", now_ms=now_ms)
        if self.watch is not None:
            self.watch(sweep)
        aliases, factors = self._columns(sweep)
        times = np.full(len(aliases), sweep.source_ms, dtype=np.int64)
        events: Sequence[Event] = ()
        if not sweep.historical:
            events = self._engine.step(SeriesBatch(aliases, times, sweep.values, sweep.quality), now_ms)
        quality = sweep.quality
        if not sweep.historical and len(self._engine.suspect_rows):
            quality = quality.copy()
            doubted = self._engine.suspect_rows
            quality[doubted] = np.where(quality[doubted] == Quality.GOOD, Quality.SUSPECT, quality[doubted])
        integers, quality = scale(sweep.values, quality, factors)
        lag_ms = sweep.seen_ms - sweep.source_ms
        told: list[Told] = []
        for n, (alias, integer, grade) in enumerate(
            zip(aliases.tolist(), integers.tolist(), quality.tolist(), strict=True)
        ):
            for reading in self._reporters[alias].offer(Point(sweep.source_ms, lag_ms, integer, grade)):
                # What was held back before is not of the device's memory.
                self._keep(alias, reading, past if reading.ts_ms == sweep.source_ms else kind)
                if self.tap is not None:
                    value = math.nan if reading.quality == Quality.MISSING else reading.integer / factors[n]
                    told.append(Told(sweep.points[n], reading.ts_ms, float(value), reading.quality, sweep.historical))
        if self.tap is not None:
            self.tap.readings(sweep.device, told)
        self._take(events)
        if sweep.exchange:
            calls = self._waiting.exchanges.setdefault(sweep.exchange, [])
            if on_durable is not None:
                calls.append(on_durable)
        elif on_durable is not None:
            self._waiting.plain.append(on_durable)
        self._dirty.set()

    def report(self, event_type: str, device: str, code: str, detail: str = "", *, point: str = "") -> None:
        if event_type == "dev.clock_skew" and self._time is not None and not self._time.guard.known:
            self.counters["skews_not_judged"] = self.counters.get("skews_not_judged", 0) + 1
            return  # a device cannot be off by a clock that does not know the time itself
        event = self._happenings.report(event_type, device, code, detail, point)
        if event is not None:
            self._take([event])

    def device_state(self, device: str, *, online: bool, detail: str = "") -> None:
        self._note_online(device, online=online, detail=detail, now_ms=self._clock.now_ms())

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        key = name + "".join(f",{k}={v}" for k, v in sorted(labels.items()))
        self.counters[key] = self.counters.get(key, 0) + by

    # -- cameras and time -----------------------------------------------------------------------------------------

    def facts(self, facts: Sequence[Fact]) -> None:
        if facts:
            self._take(self._engine.facts(facts, self._clock.now_ms()))

    def happened(self, event: Event) -> None:
        """An event that arrives ready made (another host's, told through this gateway)."""
        self._take([event])

    def outcome(self, outcome: CommandOutcome, on_durable: Callable[[], None]) -> None:
        """What became of an order of the core's."""
        self._waiting.outcomes.append(outcome)
        self._waiting.plain.append(on_durable)
        self._urgent.set()
        self._dirty.set()

    def reported(self, report: Reported) -> None:
        """What the gateway made of a document of its twin."""
        self._waiting.reported.append(report)
        self._urgent.set()
        self._dirty.set()

    def devices_heard(self) -> dict[str, bool]:
        """Devices heard of since the start, by whether they answer."""
        return dict(self._online)

    def tick(self) -> None:
        if self._time is not None:
            self._time.guard.look()
        self._follow_clock()
        now_ms = self._clock.now_ms()
        self._take(self._engine.tick(now_ms))
        self._take(self._happenings.tick(now_ms))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _follow_clock(self) -> None:
        """Before anything is taken: has the clock been set? Then all that counts from earlier times moves with it."""
        if self._time is None:
            return
        steps, corrections, events = self._time.follow()
        if corrections:
            self._waiting.corrections += corrections
            self._urgent.set()
            self._dirty.set()
        if not steps:
            return
        delta_ms = sum(step.delta_ms for step in steps)
        if delta_ms:
            kind = self._kind(steps[0].at_ms - steps[0].delta_ms)
            for alias, reporter in self._reporters.items():
                for point in reporter.restart():
                    self._keep(alias, point, kind)
            self._engine.clock_stepped(delta_ms)
            self._happenings.clock_stepped(delta_ms)
            try:
                self._outbox.clock_stepped(delta_ms)
            except StoreError as error:
                log.warning("rows keep the age the old clock gave them: %s", error)
            log.warning("the clock was set: %+.3f s", delta_ms / 1000)
        self._take(events)

    def _kind(self, seen_ms: int) -> Kind:
        if self._time is None:
            return Kind()
        run = self._time.run_of(seen_ms)
        return Kind(CLOCK_SET if run.known else CLOCK_UNKNOWN, run.number)

    def _is_repeat(self, exchange: str, on_durable: Callable[[], None] | None) -> bool:
        if exchange in self._waiting.exchanges or exchange in self._inflight_exchanges:
            if on_durable is not None:
                self._waiting.exchanges.setdefault(exchange, []).append(on_durable)
                self._dirty.set()
            return True
        try:
            seen = self._outbox.seen_exchange(exchange)
        except StoreError:
            return False  # better twice than not at all
        if seen and on_durable is not None:
            on_durable()
        return seen

    def _columns(self, sweep: Sweep) -> tuple[Int32s, Float64s]:
        """Aliases of the sweep's points, and what their values are multiplied with to become integers."""
        key = (sweep.device, sweep.points)
        found = self._sweeps.get(key)
        if found is None:
            infos = [self._devices.series(sweep.device, point) for point in sweep.points]
            factors = np.array([10.0**info.decimals for info in infos])
            firsts, _ = scale(sweep.values, sweep.quality, factors)
            for info, first in zip(infos, firsts.tolist(), strict=True):
                self._bind(info.device, info.point, first)
            aliases = np.array([self._outbox.alias(info, 0) for info in infos], dtype=np.int32)
            factors = np.array([10.0 ** self._outbox.decimals(alias) for alias in aliases.tolist()])
            found = self._sweeps[key] = (aliases, factors)
        return found

    def _bind(self, device: str, point: str, first_integer: int) -> None:
        info = self._devices.series(device, point)
        alias = self._outbox.alias(info, first_integer)
        # In this epoch the series keeps the resolution it was declared with, whatever its type says since an update.
        if (decimals := self._outbox.decimals(alias)) != info.decimals:
            info = replace(info, decimals=decimals)
        if alias not in self._reporters:
            self._engine.add_series(alias, info)
            self._reporters[alias] = Reporter(self._devices.policy(info))

    def _keep(self, alias: int, point: Point, kind: Kind) -> None:
        waiting = self._waiting
        if waiting.size >= _MOST_WAITING:
            self.counters["dropped_memory"] += 1
            oldest = next(columns for columns in waiting.columns.values() if columns.alias)
            for column in oldest.each():
                del column[0]
            waiting.size -= 1
        columns = waiting.columns.get(kind)
        if columns is None:
            columns = waiting.columns[kind] = Columns()
        columns.alias.append(alias)
        columns.ts_ms.append(point.ts_ms)
        columns.lag_ms.append(min(max(point.lag_ms, -_MOST_LAG_MS), _MOST_LAG_MS))
        columns.integer.append(point.integer)
        columns.quality.append(point.quality)
        waiting.size += 1
        self.counters["readings_kept"] += 1

    def _note_online(self, device: str, *, online: bool, detail: str, now_ms: int) -> None:
        if self._online.get(device) is online:
            return
        self._online[device] = online
        if self.tap is not None:
            self.tap.state(device, online=online)
        if online:
            log.info("device %s answers", device)
        else:
            log.warning("device %s does not answer: %s", device, detail)
        self._waiting.devices.append(DeviceState(device, online, now_ms, detail))
        self._urgent.set()
        self._dirty.set()

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            placed = self._happenings.place(event)
            still = self._still_of(placed.source.partition("/")[0]) if placed.state == "raise" else None
            if still is not None:
                placed = still.attach(placed)
                self._waiting.stills.append((placed, still))
            self._waiting.events.append(placed)
            self.counters["events"] += 1
            log.info("%s %s %s %s", placed.type, placed.state or "event", placed.level, placed.source)
        if events:
            self._urgent.set()
            self._dirty.set()

    # -- commits --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit what waits, until cancelled; the caller flushes once more at the end."""
        while True:
            await self._dirty.wait()
            try:
                async with asyncio.timeout(self._flush_s):
                    await self._urgent.wait()
                await asyncio.sleep(_GATHER_S)
            except TimeoutError:
                pass
            if not await self.flush():
                await asyncio.sleep(_RETRY_S)

    async def flush(self) -> bool:
        """One commit of everything that waits. False if the disk refused; nothing is forgotten then."""
        self._dirty.clear()
        self._urgent.clear()
        if not self._waiting.anything():
            return True
        batch, self._waiting = self._waiting, Waiting()
        self._inflight_exchanges = set(batch.exchanges)
        pending: list[Pending] = []
        now = self._kind(self._clock.now_ms())
        if batch.urgent():
            pending.append(
                Pending(
                    "event",
                    clock=now.clock,
                    clock_run=now.run,
                    corrections=batch.corrections,
                    events=batch.events,
                    devices=batch.devices,
                    outcomes=batch.outcomes,
                    reported=batch.reported,
                )
            )
        lane = self._lane()
        pending += [
            Pending(lane, columns.readings(), clock=kind.clock, historical=kind.historical, clock_run=kind.run)
            for kind, columns in batch.columns.items()
            if columns.alias
        ]
        pending += [Pending("evidence", evidence=[c]) for event, still in batch.stills for c in chunks(event, still)]
        snapshot = self._engine.snapshot() if batch.events else None

        def commit() -> None:
            state = {"engine": snapshot} if snapshot is not None else {}
            if self._time is not None and (batch.corrections or self._time.guard.due()):
                state[CLOCK_STATE] = self._time.guard.saved()
            self._outbox.commit(pending, now_ms=self._clock.now_ms(), exchanges=list(batch.exchanges), state=state)

        try:
            await self._offload(commit)
        except StoreError as error:
            if not error.retry:
                raise
            if not self.counters["commits_refused"]:
                log.error("%s", error)
            self.counters["commits_refused"] += 1
            self._put_back(batch)
            return False
        finally:
            self._inflight_exchanges = set()
        self.counters["commits"] += 1
        for call in batch.callbacks():
            call()
        self._committed()
        return True

    def _put_back(self, batch: Waiting) -> None:
        if self._time is not None:
            self._time.guard.changed = True
        batch.extend(self._waiting)
        self._waiting = batch
        self._dirty.set()
