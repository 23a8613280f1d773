"""What the gateway does and says when its clock jumps: one place that the pipeline asks before it takes anything.

The events are the gateway's own: ``gw.clock.step`` once for each jump, ``gw.clock.unset`` as an alarm for as long as
the clock is not known to be set.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.clock_guard import ClockGuard, Run, Step
from protocols.core.ids import derived_id
from protocols.core.model import Event
from protocols.uplink.batch import CLOCK_SET, CLOCK_UNKNOWN, ClockCorrection
from protocols.vocabulary import event_types

SCENARIO = "platform/clock"
STATE = "clock"  # name of the guard's state in the outbox


class Timekeeper:
    """``gateway``: the source of its events."""

    def __init__(self, guard: ClockGuard, gateway: str) -> None:
        self.guard = guard
        self._gateway = gateway

    @property
    def clock(self) -> int:
        """What a batch made now says of its clock."""
        return CLOCK_SET if self.guard.known else CLOCK_UNKNOWN

    def run_of(self, stamp_ms: int) -> Run:
        return self.guard.run_of(stamp_ms)

    def follow(self) -> tuple[Sequence[Step], Sequence[ClockCorrection], list[Event]]:
        """Jumps and corrections since the last call, and the events that say so."""
        steps, corrections = self.guard.take()
        events = [event for step in steps for event in self._said(step)]
        events += [self._drift(c) for c in corrections[-1:] if c.reason == "drift"]
        return steps, corrections, events

    def _said(self, step: Step) -> list[Event]:
        out: list[Event] = []
        if step.delta_ms or step.reason == "lost":
            out.append(
                self._event(
                    "gw.clock.step", step.at_ms, {"code": step.reason, "offset_ms": step.delta_ms, "run": step.run}
                )
            )
        if not step.known and not self.guard.unset_ms:
            self.guard.unset_ms = step.at_ms
            out.append(self._unset("raise", step.at_ms, {"code": step.reason, "run": step.run}))
        elif step.known and self.guard.unset_ms:
            out.append(self._unset("clear", step.at_ms, {"code": "ok", "run": step.run}))
            self.guard.unset_ms = 0
        self.guard.changed = True
        return out

    def _drift(self, last: ClockCorrection) -> Event:
        now_ms = self.guard.now_ms()
        return self._event("gw.clock.drift", now_ms, {"code": "drift", "offset_ms": last.offset_ms, "run": last.run})

    def _unset(self, state: str, at_ms: int, values: dict[str, float | int | str | bool | None]) -> Event:
        return self._event("gw.clock.unset", at_ms, values, state, str(self.guard.unset_ms))

    def _event(
        self,
        kind: str,
        at_ms: int,
        values: dict[str, float | int | str | bool | None],
        state: str = "",
        onset: str = "",
    ) -> Event:
        return Event(
            id=derived_id("clock", self._gateway, kind, state, onset, at_ms, values.get("run")),
            type=kind,
            ts_ms=at_ms,
            seen_ms=at_ms,
            source=self._gateway,
            level=event_types()[kind].level,
            state=state,  # type: ignore[arg-type]
            key=f"{self._gateway}:clock_unset" if state else "",
            scenario=SCENARIO if state else "",
            values=values,
        )
