"""Stands before the gateway's clock and notices when it lies: never set, set while we look, gone back to 1970.

A gateway without a battery wakes in 1970, or where it was when the power went; a time service then puts it right, hours
later. What was stamped meanwhile is wrong, and only the gateway can say by how much. So time is kept in *runs*: as long
as nobody sets the clock, wall time minus time since boot is a constant (its *line*), whatever the time service does by
slewing, because Linux slews both. A jump of that difference ends a run. When it is clear which run told the truth,
the error of every earlier run of this boot is the difference of their lines, and is said as a correction.

```
 said │            ╱ run 3: right           a run known to be wrong   ──▶ ClockCorrection(run, from, to, offset)
 time │     run 2 ╱ ┄┄┄ jump                a jump that went back     ──▶ the run between is corrected, no other
      │ ╱ run 1  ╱                          kept by a time service    ──▶ what it confirmed stays as it is
      └──────────────────▶ since boot
```

While the clock is not known to be set, time goes on from the last time that was ever stored: late, never before
what this gateway has said, and good enough for rules and alarms; every batch then says ``clock unknown``. Rows that
are in the outbox are not restamped when the truth is known: a row that may have been sent never changes, and one
mechanism that works for all rows is better than a second one for those that have not left yet.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from edge.clock import Clock, boot_of, steady_of
from edge.clock_kernel import Kept, kept
from protocols.uplink.batch import MOST_RUN, ClockCorrection

EARLIEST_MS = 1_577_836_800_000  # 2020-01-01: a clock before it has not been set since the gateway was switched on
TOLERANCE_MS = 1_000  # smaller changes are the ordinary work of a time service
_SLACK_MS = 600_000  # a battery clock may have lost minutes while the power was off
_SETTLE_MS = 60_000  # a jump that is taken back within it was an error
_KERNEL_EVERY_MS = 10_000
_SAVE_EVERY_MS = 10_000
_READ_APART_MS = 20  # two clocks read further apart (we were put aside in between) tell nothing
_RUNS_KEPT = 32
_QUARTZ_PPM = 500  # what a bad quartz is off; a clock that was right and is wrong by more has been set
_PIECES = 8  # of a drift: each gets the offset of its middle

Reason = Literal["boot", "set", "step", "lost"]


class Run(msgspec.Struct):
    """A stretch in which nobody set the clock. ``line_ms``: said time minus time since boot; ``to_ms`` 0: goes on;
    ``confirmed_ms``: up to here a time service vouched for it; ``told_ms``: the offset already told to the core."""

    number: int
    from_ms: int
    line_ms: int
    known: bool
    to_ms: int = 0
    confirmed_ms: int = 0
    told_ms: int = 0


class _Saved(msgspec.Struct):
    boot: str
    last_ms: int
    wall_line_ms: int
    next_run: int
    runs: list[Run]
    unset_ms: int = 0  # onset of the alarm that is open, 0: none


@dataclass(frozen=True, slots=True)
class Step:
    """Said time jumped by ``delta_ms`` to ``at_ms``. ``known``: whether the clock is held to be right from now on."""

    at_ms: int
    delta_ms: int
    reason: Reason
    known: bool
    run: int


class ClockGuard:
    """A Clock that anybody may ask from any thread; :meth:`look` and :meth:`take` are the pipeline's.

    ``saved``: what :meth:`saved` gave, from the outbox; of another boot of the machine only its last time counts.
    """

    def __init__(
        self,
        wall: Clock,
        saved: bytes | None = None,
        *,
        kernel: Callable[[], Kept | None] = kept,
        first_run: int | None = None,
    ) -> None:
        self._wall = wall
        self._steady = steady_of(wall)
        self._boot = boot = boot_of(wall)
        self._kernel = kernel
        self._lock = threading.Lock()
        self._steps: list[Step] = []
        self._corrections: list[ClockCorrection] = []
        self._settle_ms: int | None = None
        self._kernel_ms = -_KERNEL_EVERY_MS
        self._saved_ms = 0
        self._crept_ms = 0  # by changes too small to be jumps, in this run
        self._jumped_ms = -_SETTLE_MS
        self.unset_ms = 0
        self.changed = True  # what is saved is out of date in more than the time of day
        before = _decoded(saved)
        self._next = before.next_run if before else _random_run() if first_run is None else first_run
        wall_ms, steady_ms = self._read()
        self._wall_line = wall_ms - steady_ms
        if before is not None and boot and before.boot == boot and before.runs:
            self._go_on(before, wall_ms, steady_ms)
        else:
            self._begin(before, wall_ms, steady_ms)

    # -- the clock ------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        wall_ms, steady_ms = self._read()
        if wall_ms - steady_ms != self._wall_line:
            with self._lock:
                # Read again: another thread may have noticed, and what we hold be from before the jump.
                wall_ms, steady_ms = self._read()
                self._follow(wall_ms, steady_ms)
        return steady_ms + self._runs[-1].line_ms

    def steady_ms(self) -> int:
        return self._steady()

    @property
    def known(self) -> bool:
        """Whether the clock is held to be set."""
        return self._runs[-1].known

    @property
    def run(self) -> int:
        return self._runs[-1].number

    def run_of(self, stamp_ms: int) -> Run:
        """The run a stamp was taken in: just after a jump, what is being handed over may be from before it."""
        now = self._runs[-1]
        if len(self._runs) < 2 or self._steady() - self._jumped_ms >= _SETTLE_MS:
            return now
        before = self._runs[-2]
        ahead_ms, behind_ms = stamp_ms - (self._steady() + now.line_ms), stamp_ms - before.to_ms
        # Stamps are of a moment ago: the clock in which this one lies closer to "now" is the one that gave it.
        return before if abs(behind_ms) < abs(ahead_ms) and behind_ms < 0 else now

    # -- what the pipeline asks -----------------------------------------------------------------------------------

    def look(self) -> None:
        """About once a second: ask the kernel, decide what the last jump meant."""
        now_ms = self.now_ms()
        steady_ms = self._steady()
        with self._lock:
            if steady_ms - self._kernel_ms >= _KERNEL_EVERY_MS:
                self._kernel_ms = steady_ms
                self._ask_kernel(now_ms, steady_ms)
            if self._settle_ms is not None and steady_ms >= self._settle_ms:
                self._settle()

    def take(self) -> tuple[list[Step], list[ClockCorrection]]:
        """Jumps and corrections since the last call; they must become durable with :meth:`saved`."""
        if not self._steps and not self._corrections:
            return [], []
        with self._lock:
            steps, self._steps = self._steps, []
            corrections, self._corrections = self._corrections, []
        return steps, corrections

    def due(self) -> bool:
        """Whether the saved state should be stored again with the next commit."""
        return self.changed or self._steady() - self._saved_ms >= _SAVE_EVERY_MS

    def saved(self) -> bytes:
        self._saved_ms = self._steady()
        self.changed = False
        last_ms = self.now_ms()
        return msgspec.msgpack.encode(
            _Saved(self._boot, last_ms, self._wall_line, self._next, self._runs, self.unset_ms)
        )

    def figures(self) -> dict[str, float]:
        """For the heartbeat. ``clock_most_off_ms``: the kernel's bound of the error, where it says one."""
        told = self._kernel()
        out: dict[str, float] = {
            "clock_known": float(self.known),
            "clock_run": float(self.run),
            "clock_crept_ms": self._crept_ms,
        }
        if told is not None:
            out |= {"clock_synchronised": float(told.synchronised), "clock_most_off_ms": float(told.most_off_ms)}
        return out

    # -- start ----------------------------------------------------------------------------------------------------

    def _begin(self, before: _Saved | None, wall_ms: int, steady_ms: int) -> None:
        """A new boot: nothing is known of how long we were gone."""
        floor_ms = max(before.last_ms if before else 0, EARLIEST_MS)
        told = self._kernel()
        known = wall_ms >= max(floor_ms - _SLACK_MS, EARLIEST_MS)
        known = known or (wall_ms >= EARLIEST_MS and told is not None and told.synchronised)
        said_ms = wall_ms if known else floor_ms + 1
        self._runs = [Run(self._number(), said_ms, said_ms - steady_ms, known)]
        self.unset_ms = before.unset_ms if before else 0
        if not known:
            self._steps.append(Step(said_ms, 0, "boot", False, self.run))
        elif self.unset_ms:
            self._steps.append(Step(said_ms, 0, "set", True, self.run))

    def _go_on(self, before: _Saved, wall_ms: int, steady_ms: int) -> None:
        """Only the agent was restarted: the clock's run goes on, or was ended while we were away."""
        self._runs = before.runs
        self._wall_line = before.wall_line_ms
        self.unset_ms = before.unset_ms
        if not self.known and not self.unset_ms:
            self._steps.append(Step(steady_ms + self._runs[-1].line_ms, 0, "boot", False, self.run))
        self._settle_ms = steady_ms + _SETTLE_MS  # what had not been decided when we went
        self._follow(wall_ms, steady_ms)

    # -- inside, under the lock -----------------------------------------------------------------------------------

    def _read(self) -> tuple[int, int]:
        """(wall, steady) of the same moment."""
        before_ms = self._steady()
        for _ in range(5):
            wall_ms, after_ms = self._wall.now_ms(), self._steady()
            if after_ms - before_ms <= _READ_APART_MS:
                break
            before_ms = after_ms
        return wall_ms, after_ms

    def _number(self) -> int:
        number, self._next = self._next, self._next % MOST_RUN + 1
        return number

    def _follow(self, wall_ms: int, steady_ms: int) -> None:
        change_ms = wall_ms - steady_ms - self._wall_line
        if abs(change_ms) >= TOLERANCE_MS:
            self._jump(wall_ms, steady_ms)
        elif self.known and abs(change_ms) > 1:  # 1: two clocks, each cut to milliseconds
            self._wall_line += change_ms
            self._runs[-1].line_ms += change_ms
            self._crept_ms += change_ms

    def _jump(self, wall_ms: int, steady_ms: int) -> None:
        before = self._runs[-1]
        said_ms = steady_ms + before.line_ms
        self._wall_line = wall_ms - steady_ms
        known = wall_ms >= EARLIEST_MS
        if not known and not before.known:
            return  # from one nonsense to another
        after_ms = wall_ms if known else said_ms  # a clock that was lost: ours goes on
        before.to_ms = said_ms + 1
        reason: Reason = "lost" if not known else "step" if before.known else "set"
        run = Run(self._number(), after_ms, after_ms - steady_ms, known)
        self._runs = [*self._runs[-_RUNS_KEPT + 1 :], run]
        self._steps.append(Step(after_ms, after_ms - said_ms, reason, known, run.number))
        self._jumped_ms = steady_ms
        self._crept_ms = 0
        self.changed = True
        if known:
            self._settle_ms = steady_ms if reason == "set" else steady_ms + _SETTLE_MS

    def _ask_kernel(self, now_ms: int, steady_ms: int) -> None:
        told = self._kernel()
        if told is None or not told.synchronised:
            return
        if not self.known:
            wall_ms, steady_ms = self._read()
            if wall_ms >= EARLIEST_MS:  # earlier than what we had stored: then that was wrong, not this
                self._jump(wall_ms, steady_ms)
            return
        if self._settle_ms is not None:
            self._settle_ms = steady_ms
        self._runs[-1].confirmed_ms = now_ms

    def _settle(self) -> None:
        """The present run tells the truth: say by how much the others did not."""
        self._settle_ms = None
        truth = self._runs[-1]
        for run in self._runs[:-1]:
            offset_ms = truth.line_ms - run.line_ms
            if abs(offset_ms) < TOLERANCE_MS:
                offset_ms = 0  # it was taken back: nothing was wrong
            if abs(offset_ms - run.told_ms) >= TOLERANCE_MS:
                self._corrections += _corrections(run, offset_ms)
                run.told_ms = offset_ms
                self.changed = True


def _corrections(run: Run, offset_ms: int) -> list[ClockCorrection]:
    from_ms = max(run.from_ms, run.confirmed_ms)
    span_ms = run.to_ms - from_ms
    if span_ms <= 0:
        return []
    if not run.known:
        return [ClockCorrection(from_ms, run.to_ms, offset_ms, TOLERANCE_MS, "boot", run.number)]
    drifted = run.confirmed_ms and 0 < abs(offset_ms) * 1_000_000 <= span_ms * _QUARTZ_PPM
    if not drifted:
        return [ClockCorrection(from_ms, run.to_ms, offset_ms, TOLERANCE_MS, "step", run.number)]
    # It was right when it was last vouched for and has gone wrong little by little since.
    edges = [from_ms + span_ms * n // _PIECES for n in range(_PIECES + 1)]
    return [
        ClockCorrection(
            edges[n],
            edges[n + 1],
            offset_ms * (2 * n + 1) // (2 * _PIECES),
            abs(offset_ms) // (2 * _PIECES) + TOLERANCE_MS,
            "drift",
            run.number,
        )
        for n in range(_PIECES)
    ]


def _random_run() -> int:
    """A new outbox: the numbers of the one before it must not come again at once."""
    return 1 + int.from_bytes(os.urandom(2)) % MOST_RUN


def _decoded(saved: bytes | None) -> _Saved | None:
    """None for none, and for what another version wrote: then this is a first start."""
    if saved is None:
        return None
    try:
        found = msgspec.msgpack.decode(saved, type=_Saved)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    return found if 1 <= found.next_run <= MOST_RUN else None
