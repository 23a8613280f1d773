"""A polled line with devices on it: who is asked when, what a silence means, and orders between two polls.

What every protocol of this kind shares. A subclass says how one device is read (:meth:`PolledBus.poll`) and, where the
protocol can, how one order is carried out (:meth:`PolledBus.perform`). One lock guards the line: polls and orders take
turns, so there are never two requests on the wire, and an order waits for one poll at the longest.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.gap import Gap
from edge.connectors.health import LOST_AFTER, Health, reject
from edge.connectors.line import Line, OnError, Timetable
from protocols.core.endpoint import Endpoint
from protocols.core.errors import LinkDown, LocalProtocolError, RemoteProtocolError, TransportError
from protocols.core.model import Float64s, Quality, Sweep
from protocols.devices import CommandType, DeviceType, Point, load


class PolledDevice(Protocol):
    """What every device on a polled line has in its configuration."""

    @property
    def id(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def poll_s(self) -> float: ...


class PolledUnit:
    """One device on the line: what it is and whether it answers. Subclasses add address and plan."""

    def __init__(self, device: PolledDevice) -> None:
        self.id = device.id
        self.poll_s = device.poll_s
        self.type: DeviceType = load(device.type)
        self.health = Health(device.id)

    def rejecter(self, sink: Sink) -> OnError:
        """For :meth:`Line.ask`: what is no answer to our request is counted and reported under this device."""

        def refused(error: RemoteProtocolError) -> None:
            reject(sink, self.id, error)

        return refused


class NoAnswer(Exception):
    """The device did not answer a question, or somebody on the way says that it does not."""


UnitT = TypeVar("UnitT", bound=PolledUnit)

_LOOK_AGAIN_S = 1.0


class PolledBus(ABC, Generic[UnitT]):
    """A connector. ``gap_s`` None: found by itself (``byte_s``: time of a byte). ``reopen_when_silent``:
    when nobody answers any more the link is opened afresh (half-open TCP
    connections look like that; on a serial line it would help nobody)."""

    #: How long a device may take to do what it has confirmed, before the read-back counts as a contradiction.
    settle_s = 0.0

    def __init__(
        self,
        connector_id: str,
        clock: Clock,
        open_link: LinkFactory,
        units: Sequence[UnitT],
        *,
        slow_poll_s: float,
        gap_s: float | None = 0.0,
        byte_s: float = 0.0,
        reopen_when_silent: bool = False,
    ) -> None:
        self.id = connector_id
        self.units = list(units)
        self._clock = clock
        self._open_link = open_link
        self._slow_poll_s = slow_poll_s
        self.gap = Gap(gap_s, byte_s)  # what a line has taught stays when it is opened afresh
        self._reopen_when_silent = reopen_when_silent
        self._by_id = {unit.id: unit for unit in self.units}
        self._link_failures = 0
        self._turn = asyncio.Lock()  # held for one poll or one order
        self._open: tuple[Line, Sink] | None = None

    # -- what a protocol adds ------------------------------------------------------------------------------------
    @abstractmethod
    def endpoint(self) -> Endpoint[Any]:
        """A fresh MASTER endpoint: one for each time the link is opened."""

    @abstractmethod
    async def poll(self, unit: UnitT, line: Line, sink: Sink) -> None:
        """Read one device once. Calls :meth:`answered` for each answer, raises NoAnswer when one is missing."""

    async def perform(self, unit: UnitT, what: CommandType, command: Command, line: Line, sink: Sink) -> Outcome:
        """Carry out one order, once: an order that got no answer is never sent again. ``what.key`` says how."""
        return Outcome("refused", "not_supported", f"{what.name}: this line cannot give orders")

    async def read_point(self, unit: UnitT, point: Point, line: Line, sink: Sink) -> float | None:
        """One point, read now, for the read-back of an order. None: it could not be read; NaN: there is no value."""
        return None

    # -- what a protocol uses ------------------------------------------------------------------------------------
    def answered(self, unit: UnitT, sink: Sink) -> None:
        unit.health.answered(sink)
        self._link_failures = 0

    def emit(self, unit: UnitT, values: Mapping[str, float], sink: Sink) -> None:
        """Hand on what was read; NaN is "no value"."""
        if values:
            self.emit_columns(
                unit, tuple(values), np.fromiter(values.values(), dtype=np.float64, count=len(values)), sink
            )

    def emit_columns(self, unit: UnitT, names: tuple[str, ...], column: Float64s, sink: Sink) -> None:
        """The same for values that are a column already."""
        now_ms = self._clock.now_ms()
        quality = np.where(np.isnan(column), np.uint8(Quality.MISSING), np.uint8(Quality.GOOD))
        sink.sweep(Sweep(unit.id, now_ms, now_ms, names, column, quality))

    # -- polling -------------------------------------------------------------------------------------------------
    async def run(self, sink: Sink) -> None:
        try:
            link = await self._open_link()
        except TransportError as exc:
            self._link_failed(sink, exc)
            raise
        try:
            line = Line(link, self.endpoint(), gap=self.gap)
            self._open = (line, sink)
            timetable: Timetable[UnitT] = Timetable()
            for unit in self.units:
                timetable.add(unit)

            async def serve(unit: UnitT) -> float:
                await self._serve(unit, line, sink)
                return max(unit.poll_s, self._slow_poll_s) if unit.health.lost else unit.poll_s

            await timetable.run(serve)
        except TransportError as exc:
            self._link_failed(sink, exc)
            raise
        finally:
            self._open = None
            await link.close()

    async def _serve(self, unit: UnitT, line: Line, sink: Sink) -> None:
        try:
            async with self._turn:
                await self.poll(unit, line, sink)
        except NoAnswer as exc:
            sink.count("polls_missed", connector=self.id)
            unit.health.missed(sink, str(exc))
            if self._reopen_when_silent and all(one.health.lost for one in self.units):
                raise LinkDown(f"{self.id}: nobody behind this address answers any more") from exc

    def _link_failed(self, sink: Sink, exc: TransportError) -> None:
        # A short interruption is the supervisor's business; a link that stays away takes its devices along.
        self._link_failures += 1
        if self._link_failures >= LOST_AFTER:
            for unit in self.units:
                unit.health.gone(sink, str(exc))

    # -- orders --------------------------------------------------------------------------------------------------
    async def command(self, command: Command) -> Outcome:
        """See :class:`edge.connectors.base.Commandable`. Waits for its turn on the line."""
        unit = self._by_id.get(command.device)
        what = unit.type.command(command.name) if unit is not None else None
        if unit is None or what is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        async with self._turn:
            if self._open is None:
                raise LinkDown(f"{self.id}: the line is not open")
            if command.expires_ms and self._clock.now_ms() >= command.expires_ms:
                return Outcome("expired", "expired", "its time ran out before the line was free")
            outcome = await self._carry_out(unit, what, command, *self._open)
        if not what.read_back or outcome.state not in ("done", "unknown"):
            return outcome
        return await self._read_back(unit, what, command, outcome)

    async def _carry_out(self, unit: UnitT, what: CommandType, command: Command, line: Line, sink: Sink) -> Outcome:
        sent_before = line.sent
        try:
            return await self.perform(unit, what, command, line, sink)
        except LocalProtocolError as exc:
            return Outcome("refused", exc.reason, str(exc))
        except (NoAnswer, TransportError) as exc:
            if line.sent == sent_before:
                raise LinkDown(f"{self.id}: nothing was sent: {exc}") from exc
            return Outcome("unknown", "no_answer", str(exc) or "no answer")

    async def _read_back(self, unit: UnitT, what: CommandType, command: Command, outcome: Outcome) -> Outcome:
        """What the device shows afterwards. A relay or a valve may take :attr:`settle_s`; the line is free for others
        between two looks at it."""
        point = unit.type.point(what.read_back)
        wanted = what.expect if what.expect is not None else _written(what, command)
        until_s = asyncio.get_running_loop().time() + self.settle_s
        while True:
            value, why = await self._look(unit, point)
            if value is None:
                text = f"{point.name} could not be read back: {why}"
                return Outcome("unknown", outcome.code or "no_read_back", text)
            shown = {point.name: value}
            fits = wanted is None or abs(value - wanted) <= 0.5 * 10.0**-point.decimals
            if outcome.state == "unknown":
                # It may have stood like this before: the value is shown, the state stays what is known.
                return Outcome("unknown", outcome.code, outcome.detail, shown)
            if fits:
                return Outcome("done", outcome.code, outcome.detail, shown)
            if asyncio.get_running_loop().time() >= until_s:
                text = f"confirmed, but {point.name} reads {value:g}, not {wanted:g}"
                return Outcome("failed", "read_back", text, shown)
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _look(self, unit: UnitT, point: Point) -> tuple[float | None, str]:
        async with self._turn:
            if self._open is None:
                return None, "the line was lost"
            line, sink = self._open
            try:
                value = await self.read_point(unit, point, line, sink)
            except (NoAnswer, TransportError) as exc:
                return None, str(exc) or "no answer"
            if value is not None:
                self.emit(unit, {point.name: value}, sink)
            return value, "the device refuses it"


def _written(what: CommandType, command: Command) -> float | None:
    """The number that was ordered: that of the only numeric argument."""
    values = [
        command.arguments[argument.name]
        for argument in what.argument
        if argument.kind in ("number", "integer", "bool") and argument.name in command.arguments
    ]
    number = float(values[0]) if len(values) == 1 else math.nan
    return number if math.isfinite(number) else None
