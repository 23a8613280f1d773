"""From sweeps, facts and reports to durable batches: the middle of the agent.

Everything a connector or a camera says comes in here. Rules see every reading at once; report by exception decides what
is kept, and in which column; what is kept waits for the next commit (commits.py). An event does not wait.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edge.clock import Clock
from edge.commits import Commits, Offload, inline
from edge.devices import Devices
from edge.evidence import Still
from edge.happenings import Happenings
from edge.northbound.tap import Tap, Told
from edge.outbox import Outbox
from edge.report import Point, Reporter
from edge.timekeeper import Timekeeper
from edge.waiting import Kind
from protocols.core.errors import StoreError
from protocols.core.model import Event, Fact, Float64s, Int32s, Quality, SeriesBatch, Sweep
from protocols.uplink.batch import CLOCK_SET, CLOCK_UNKNOWN, CommandOutcome, DeviceState, Reported, scale
from protocols.uplink.topics import Lane
from scenarios.engine import Engine

log = logging.getLogger("citybrain.edge.pipeline")

_MOST_LAG_MS = (1 << 31) - 1  # 24.8 days: a logger that empties its memory is later than the wire can say


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
        self._still_of = still_of
        self._time = timekeeper
        self._happenings = Happenings(clock, devices)
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
        self.commits = Commits(
            outbox, engine, clock, flush_s=flush_s, lane=lane, kind=lambda: self._kind(clock.now_ms()),
            committed=committed, offload=offload, timekeeper=timekeeper, counters=self.counters,
        )  # fmt: skip
        for declaration in outbox.series():
            if declaration.device in devices.ids():
                self._bind(declaration.device, declaration.point, declaration.reference)

    # -- Sink -----------------------------------------------------------------------------------------------------

    def sweep(self, sweep: Sweep, on_durable: Callable[[], None] | None = None) -> None:
        if sweep.device not in self._devices.ids():
            self.counters["unknown_device"] += len(sweep.points)
            return
        if sweep.exchange and self.commits.is_repeat(sweep.exchange, on_durable):
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
        self.commits.tell(sweep.exchange, on_durable)

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
        waiting = self.commits.waiting
        waiting.outcomes.append(outcome)
        waiting.plain.append(on_durable)
        self.commits.now()

    def reported(self, report: Reported) -> None:
        """What the gateway made of a document of its twin."""
        self.commits.waiting.reported.append(report)
        self.commits.now()

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
            self.commits.waiting.corrections += corrections
            self.commits.now()
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
        lag_ms = min(max(point.lag_ms, -_MOST_LAG_MS), _MOST_LAG_MS)
        if self.commits.waiting.keep(kind, (alias, point.ts_ms, lag_ms, point.integer, point.quality)):
            self.counters["dropped_memory"] += 1
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
        self.commits.waiting.devices.append(DeviceState(device, online, now_ms, detail))
        self.commits.now()

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            placed = self._happenings.place(event)
            still = self._still_of(placed.source.partition("/")[0]) if placed.state == "raise" else None
            if still is not None:
                placed = still.attach(placed)
                self.commits.waiting.stills.append((placed, still))
            self.commits.waiting.events.append(placed)
            self.counters["events"] += 1
            log.info("%s %s %s %s", placed.type, placed.state or "event", placed.level, placed.source)
        if events:
            self.commits.now()

    # -- commits --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit what waits, until cancelled; the caller flushes once more at the end."""
        await self.commits.run()

    async def flush(self) -> bool:
        """One commit of everything that waits. False if the disk refused; nothing is forgotten then."""
        return await self.commits.flush()


__all__ = ["Offload", "Pipeline", "inline"]
