"""The load source: a process that fills a real outbox with counters and lets the real uplink carry them away.

```
 control file ─▶ source ─▶ book (try) ─▶ Outbox.commit ─▶ book (ok)
                                             └─▶ Uplink ─▶ broker
```
It is started as anybody else's agent would be (``--agent-command``), with the same arguments and the same files:

    python -m citybrain_cli.chaos.source --gateway ID --shard N --url mqtt://host:port --password-file FILE
        --folder FOLDER --book FILE --control FILE --readings RATE --events RATE [--max-mb 256] [--every 0.1]

``control`` is a JSON object, written anew by the harness: ``produce`` (false: make nothing more, go on sending) and
``clock_offset_ms`` (what to add to the machine's clock: a stepped one, or one that begins in 1970). As in the agent, a
ClockGuard stands before that clock: it numbers the clock's runs and says later by how much one was wrong. SIGTERM
ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from citybrain_cli.chaos.book import SPREAD, BookWriter, Commit
from edge.agent import open_outbox
from edge.clock import WallClock
from edge.clock_guard import ClockGuard
from edge.config import MqttConfig
from edge.outbox import Outbox, Pending
from edge.timekeeper import STATE as CLOCK_STATE
from edge.uplink.uplink import Uplink
from protocols.core.errors import ConfigError, StoreError
from protocols.core.model import Event, SeriesInfo
from protocols.uplink import batch as wire
from protocols.uplink.columns import Readings
from protocols.uplink.topics import Lane

log = logging.getLogger("citybrain.chaos.source")

COMMIT_S = 0.1
_RETRY_S = 0.25
_MOST_BEHIND_S = 1.0  # after a pause no more than this is made up for; the rest is simply not produced
_SERIES_A_DEVICE = 10


class ControlledClock(WallClock):
    """The machine's clock and an offset that the harness may change while we run."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._seen_ns = -1
        self._offset_ms = 0
        self.produce = True
        self.look()

    def look(self) -> None:
        """Read the control file if it has changed; one that is not there, or half written, changes nothing."""
        try:
            changed_ns = self._control.stat().st_mtime_ns
            if changed_ns == self._seen_ns:
                return
            wanted = json.loads(self._control.read_bytes())
            offset_ms, produce = int(wanted["clock_offset_ms"]), bool(wanted["produce"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        self._seen_ns, self._offset_ms, self.produce = changed_ns, offset_ms, produce

    def now_ms(self) -> int:
        return max(0, super().now_ms() + self._offset_ms)


def shape(gateway: str, readings_per_s: float) -> tuple[list[tuple[str, str]], int]:
    """Series (device, point) and the milliseconds between their ticks that give about so many readings a second."""
    step_ms = 10 if readings_per_s >= 2000 else 50
    count = max(1, round(readings_per_s * step_ms / 1000))
    if count >= SPREAD:
        raise ConfigError(f"{readings_per_s:g} readings/s in one source; at most {(SPREAD - 1) * 1000 // step_ms}")
    return [(f"{gateway}-d{n // _SERIES_A_DEVICE}", f"c{n:03d}") for n in range(count)], step_ms


class Source:
    """Makes what is due each :data:`COMMIT_S` and commits it; refused by the disk, it tries the same again."""

    def __init__(
        self, outbox: Outbox, book: BookWriter, guard: ClockGuard, series: list[tuple[str, str]], step_ms: int
    ) -> None:
        self._outbox = outbox
        self._book = book
        self._guard = guard
        self._step_ms = step_ms
        self._number = np.arange(len(series), dtype=np.int64)
        self._alias = np.array(
            [outbox.alias(SeriesInfo(device, point, "", 0), 0) for device, point in series], dtype=np.int32
        )
        self._source = "/".join(series[0])
        self._gateway = series[0][0].rpartition("-d")[0]

    def make(self, lane: Lane, ticks: int, events: int) -> tuple[Commit, list[Pending]]:
        """The next so many ticks and events, entered in the book as meant."""
        self._guard.look()
        now_ms = self._guard.now_ms()
        steps, corrections = self._guard.take()  # the agent would tell of the steps; the book has no event for them
        if steps:
            self._outbox_stepped(sum(step.delta_ms for step in steps))
        first_ms = max(0, now_ms - ticks * self._step_ms)
        commit = self._book.intend(lane, ticks, first_ms, events)
        clock, run = wire.CLOCK_SET if self._guard.known else wire.CLOCK_UNKNOWN, self._guard.run
        pending: list[Pending] = []
        if commit.events or corrections:
            made = self._events(commit.events, now_ms) if commit.events else []
            pending.append(Pending("event", events=made, corrections=corrections, clock=clock, clock_run=run))
        if commit.ticks:
            pending.append(Pending(lane, self._readings(commit.ticks, first_ms), clock=clock, clock_run=run))
        return commit, pending

    def _outbox_stepped(self, delta_ms: int) -> None:
        try:
            self._outbox.clock_stepped(delta_ms)
        except StoreError as error:
            log.warning("rows keep the age the old clock gave them: %s", error)

    def _readings(self, ticks: tuple[int, int], first_ms: int) -> Readings:
        tick = np.arange(ticks[0], ticks[1] + 1, dtype=np.int64)
        size = len(tick) * len(self._alias)
        return Readings(
            np.repeat(self._alias, len(tick)),
            np.tile(first_ms + (tick - ticks[0]) * self._step_ms, len(self._alias)),
            np.zeros(size, np.int32),
            (tick[None, :] * SPREAD + self._number[:, None]).ravel(),
            np.zeros(size, np.uint8),
        )

    def _events(self, numbers: tuple[int, int], now_ms: int) -> list[Event]:
        return [
            Event(
                id=f"{self._gateway}-{n:010d}",
                type="data.out_of_range",
                ts_ms=now_ms,
                seen_ms=now_ms,
                source=self._source,
                values={"n": n, "code": "chaos", "value": 52.5, "unit": "%LEL"},
            )
            for n in range(numbers[0], numbers[1] + 1)
        ]

    async def commit(self, commit: Commit, pending: list[Pending]) -> None:
        """Until the disk takes it. Raises StoreError for a file that is damaged."""
        while True:
            try:
                await asyncio.to_thread(
                    self._outbox.commit,
                    pending,
                    now_ms=self._guard.now_ms(),
                    state={CLOCK_STATE: self._guard.saved()} if self._guard.due() else {},
                )
            except StoreError as error:
                if not error.retry:
                    raise
                log.warning("%s", error)
                await asyncio.sleep(_RETRY_S)
            else:
                self._book.accepted(commit)
                return


async def produce(
    source: Source, clock: ControlledClock, uplink: Uplink, *, ticks_per_s: float, events_per_s: float, every_s: float
) -> None:
    loop = asyncio.get_running_loop()
    last_s = loop.time()
    ticks_due = events_due = 0.0
    while True:
        await asyncio.sleep(max(0.0, last_s + every_s - loop.time()))
        clock.look()
        now_s = loop.time()
        spent_s, last_s = min(now_s - last_s, _MOST_BEHIND_S), now_s
        if not clock.produce:
            continue
        ticks_due += spent_s * ticks_per_s
        events_due += spent_s * events_per_s
        ticks, events = int(ticks_due), int(events_due)
        if not ticks and not events:
            continue
        ticks_due -= ticks
        events_due -= events
        await source.commit(*source.make("data" if uplink.live else "backfill", ticks, events))
        uplink.wake()


async def run(options: argparse.Namespace) -> None:
    clock = ControlledClock(options.control)
    series, step_ms = shape(options.gateway, options.readings)
    outbox = open_outbox(options.folder / "outbox.db", now_ms=clock.now_ms(), max_bytes=options.max_mb << 20)
    # The kernel's word is of the machine's own clock, not of the one we were told to have.
    guard = ClockGuard(clock, outbox.get_state(CLOCK_STATE), kernel=lambda: None)
    book = BookWriter(options.book, options.gateway, series, step_ms)
    uplink = Uplink(
        MqttConfig(options.url, options.gateway, str(options.password_file)),
        outbox,
        guard,
        gateway=options.gateway,
        shard=options.shard,
        password=options.password_file.read_text(encoding="utf-8").strip(),
        version="chaos",
        health=lambda: ({}, {}),
        rejected=lambda lane, seq, reason: log.error("the core set %s %d aside: %s", lane, seq, reason),
    )
    source = Source(outbox, book, guard, series, step_ms)
    if (ours := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ours.cancel)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(uplink.run(), name="uplink")
            group.create_task(
                produce(
                    source,
                    clock,
                    uplink,
                    ticks_per_s=1000 / step_ms,
                    events_per_s=options.events,
                    every_s=options.every,
                ),
                name="load",
            )
    except asyncio.CancelledError:
        log.info("told to end")
    finally:
        outbox.close()
        book.close()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--shard", type=int, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--book", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--readings", type=float, required=True, help="a second")
    parser.add_argument("--events", type=float, required=True, help="a second")
    parser.add_argument("--max-mb", type=int, default=256)
    parser.add_argument("--every", type=float, default=COMMIT_S, help="seconds from commit to commit")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    asyncio.run(run(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
