"""Decides, frame by frame, what a device's faults do to what it says. Same seed and same frames, same damage.

Faults compose in the order of the scene file: each sees what the one before left over. Each counts the frames that
the device sends while its span is open, and strikes every n-th. Whatever is injected goes to the ledger, frame faults
one by one, states (silence, restart, clock_step) once a span.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from firmware_sim.clock import to_ms
from firmware_sim.faults import surgery
from firmware_sim.ledger import Ledger
from firmware_sim.scene import Fault

#: Kinds that change one frame; all others change how the device is.
FRAME_FAULTS = frozenset({"drop", "delay", "garble", "truncate", "wrong_checksum", "wrong_address", "first_byte"})


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes out instead of a frame: ``data`` (b"" = nothing) after ``delay_s``; ``intact`` if it is the frame."""

    data: bytes
    delay_s: float
    intact: bool


class _Armed:
    """One fault of the scene with what it has seen so far."""

    def __init__(self, fault: Fault, seed: str) -> None:
        self.fault = fault
        self.random = random.Random(seed)
        self.frames = 0
        self._round: int | None = None

    def since_s(self, t_s: float) -> float | None:
        """Seconds since the span began, None outside it."""
        fault = self.fault
        since_s = t_s - fault.at_s
        if since_s < 0:
            return None
        if fault.repeat_s is not None:
            since_s %= fault.repeat_s
        return since_s if fault.for_s is None or since_s < fault.for_s else None

    def first_time(self, t_s: float) -> bool:
        """True once in each span."""
        repeat_s = self.fault.repeat_s
        number = 0 if repeat_s is None else int((t_s - self.fault.at_s) // repeat_s)
        fresh = number != self._round
        self._round = number
        return fresh


class Faults:
    """The faults of one device."""

    def __init__(self, device: str, kind: str, faults: Sequence[Fault], seed: int, ledger: Ledger) -> None:
        self._device = device
        self._kind = kind
        self._ledger = ledger
        self._armed = [_Armed(fault, f"{seed}/{device}/{n}/{fault.kind}") for n, fault in enumerate(faults)]

    # -- states -------------------------------------------------------------------------------------------------
    def silent(self, t_s: float, now_ms: int) -> bool:
        """Powered, but nothing gets through in either direction (a cut cable)."""
        return self._state("silence", t_s, now_ms)

    def off(self, t_s: float, now_ms: int) -> bool:
        """Without power: measures nothing, holds no connection."""
        return self._state("restart", t_s, now_ms)

    def on(self, kind: str, t_s: float, now_ms: int) -> bool:
        """A fault particular to the protocol (a stuck valve, an echo on the line), acted by the device model."""
        return self._state(kind, t_s, now_ms)

    def clock_offset_ms(self, t_s: float, now_ms: int, start_ms: int) -> int:
        """How far the device's own clock is off."""
        offset_ms = 0
        for armed in self._armed:
            since_s = armed.since_s(t_s) if armed.fault.kind == "clock_step" else None
            if since_s is None:
                continue
            fault = armed.fault
            if fault.set_to is None:
                step_ms = round(fault.offset_s * 1000)
            else:
                step_ms = to_ms(fault.set_to) - (start_ms + round((t_s - since_s) * 1000))
            offset_ms += step_ms
            if armed.first_time(t_s):
                self._note("clock_step", now_ms, f"{step_ms / 1000:.0f} s")
        return offset_ms

    def next_change_s(self, t_s: float) -> float | None:
        """The next second after ``t_s`` at which a restart begins or ends; None if there is none."""
        moments = []
        for armed in self._armed:
            fault = armed.fault
            if fault.kind != "restart":
                continue
            round_s = 0.0
            if fault.repeat_s is not None and t_s >= fault.at_s:
                round_s = (t_s - fault.at_s) // fault.repeat_s * fault.repeat_s
            for begin_s in (fault.at_s + round_s, fault.at_s + round_s + (fault.repeat_s or 0.0)):
                moments.append(begin_s)
                if fault.for_s is not None:
                    moments.append(begin_s + fault.for_s)
        return min((moment for moment in moments if moment > t_s), default=None)

    def _state(self, kind: str, t_s: float, now_ms: int) -> bool:
        on = False
        for armed in self._armed:
            if armed.fault.kind == kind and armed.since_s(t_s) is not None:
                on = True
                if armed.first_time(t_s):
                    self._note(kind, now_ms, "" if armed.fault.for_s is None else f"{armed.fault.for_s:g} s")
        return on

    # -- frames -------------------------------------------------------------------------------------------------
    def outgoing(self, frame: bytes, t_s: float, now_ms: int) -> Outgoing:
        """What becomes of one frame that the device wants to send."""
        data, delay_s, struck = frame, 0.0, False
        for armed in self._armed:
            fault = armed.fault
            if fault.kind not in FRAME_FAULTS or armed.since_s(t_s) is None:
                continue
            armed.frames += 1
            if armed.frames % fault.every or not data:
                continue
            struck = True
            if fault.kind == "delay":
                delay_s += fault.delay_s
                self._note("delay", now_ms, f"{fault.delay_s:g} s")
                continue
            data = surgery.operate(fault.kind, self._kind, data, armed.random)
            self._note(fault.kind, now_ms, f"{len(frame)} -> {len(data)} bytes")
        return Outgoing(data, delay_s, intact=not struck or data == frame)

    def _note(self, kind: str, now_ms: int, detail: str) -> None:
        self._ledger.write("fault", self._device, now_ms, kind=kind, detail=detail)
