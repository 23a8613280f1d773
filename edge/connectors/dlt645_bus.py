"""Electricity meters on one RS-485 line, usually 32 at 2400 baud: never two requests on the wire.

Each meter is read in rounds of ``poll_s``; what changes slowly (energy) is read in every n-th round only, so that
voltage, current and power come often. Meters of 1997 and of 2007 may hang on the same line: which one it is shows at
the first answer. Transformer ratios are the twin's business, not ours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.config import TCP_PREFIX, Dlt645Config, Dlt645Device
from edge.connectors.health import reject
from edge.connectors.line import Line
from edge.connectors.meter_key import meter_key
from edge.connectors.meter_orders import check_key, needs_password, orders
from edge.connectors.meter_plan import MeterPlan, Question, point_di
from edge.connectors.polled_bus import NoAnswer, PolledBus, PolledUnit
from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.devices import CommandType, Point
from protocols.dlt645.endpoint import Dlt645Endpoint
from protocols.dlt645.messages import Done, ErrorReply, Read, ReadMore, ReadReply
from protocols.dlt645.orders import Key, Order
from protocols.dlt645.orders import command as order_message
from protocols.dlt645.values import Value, decode

_REQUEST_BYTES = 24  # wake-up bytes, frame, identifier, SEQ
_ORDER_BYTES = 64  # the longest order and its answer
_FULL_REPLY_BYTES = 216
_MOST_FOLLOW_UPS = 16
#: What every 1997 meter has: forward active energy.
_PROBE_1997 = "9010"


class Meter(PolledUnit):
    """``edition`` "": not known yet."""

    def __init__(self, config: Dlt645Device) -> None:
        super().__init__(config)
        self.address = config.address
        for command in self.type.commands:
            check_key(command.key, f"{self.type.id}: command {command.name}")
        self.round = 0
        self.told: set[str] = set()
        old_type = any(len(point_di(point)) == 4 for point in self.type.points)
        self.edition: Literal["", "2007", "1997"] = (
            "1997" if old_type else "" if config.edition == "auto" else config.edition
        )
        self.plan = MeterPlan(self.type.points, "1997" if self.edition == "1997" else "2007")

    def is_old(self) -> None:
        """It answers as the 1997 edition does."""
        self.edition, self.plan = "1997", MeterPlan(self.type.points, "1997")


class Dlt645Bus(PolledBus[Meter]):
    """The connector of kind ``dlt645``."""

    #: A relay takes seconds, and some meters wait before they trip.
    settle_s = 10.0

    def __init__(self, config: Dlt645Config, clock: Clock, open_link: LinkFactory, base: Path = Path()) -> None:
        super().__init__(
            config.id,
            clock,
            open_link,
            [Meter(device) for device in config.device],
            slow_poll_s=config.slow_poll_s,
            gap_s=config.gap_s,
            byte_s=11 / config.baud,
            reopen_when_silent=config.port.startswith(TCP_PREFIX),
        )
        self._config = config
        self._passwords = str(base / config.password_file) if config.password_file else ""

    def endpoint(self) -> Dlt645Endpoint:
        return Dlt645Endpoint(Role.MASTER, preamble=self._config.preamble)

    # -- reading -------------------------------------------------------------------------------------------------
    async def poll(self, unit: Meter, line: Line, sink: Sink) -> None:
        values: dict[str, Value] = {}
        pending = unit.plan.due(unit.round)
        try:
            while pending:
                question = pending.pop(0)
                try:
                    answer = await self._read(unit, question, line, sink)
                except NoAnswer:
                    if not await self._is_old(unit, line, sink):
                        raise
                    pending = unit.plan.due(unit.round)
                    continue
                self.answered(unit, sink)
                if isinstance(answer, ErrorReply):
                    if not unit.edition and answer.function == 0x01:
                        unit.is_old()
                        self._tell_missing(unit, sink)
                        pending = unit.plan.due(unit.round)
                    else:
                        pending = self._refused(unit, question, answer, sink) + pending
                    continue
                unit.edition = unit.edition or "2007"
                self._take(unit, question, answer, values, sink)
            unit.round += 1
        finally:
            # What a meter said before it fell silent was said.
            self.emit(unit, {name: _number(value) for name, value in values.items()}, sink)

    async def _is_old(self, meter: Meter, line: Line, sink: Sink) -> bool:
        """A meter of which nothing is known stays silent: perhaps it does not know the newer reads."""
        if meter.edition or meter.health.misses:
            return False
        wait_s = self._wait_s(_REQUEST_BYTES)
        answer = await line.ask(Read(meter.address, _PROBE_1997), wait_s, meter.rejecter(sink))
        if not isinstance(answer, ReadReply):
            return False
        self.answered(meter, sink)
        meter.is_old()
        self._tell_missing(meter, sink)
        return True

    def _tell_missing(self, meter: Meter, sink: Sink) -> None:
        for name in meter.plan.refused:
            if name not in meter.told:
                meter.told.add(name)
                text = f"a meter of the 1997 edition has no identifier for {name}"
                sink.report("data.rejected", meter.id, "no_data", text, point=name)

    def _take(self, meter: Meter, question: Question, data: bytes, values: dict[str, Value], sink: Sink) -> None:
        found = decode(question.di, data)
        if found is None:
            text = f"identifier {question.di}: format unknown"
            sink.report("data.rejected", meter.id, "unknown_di", text)
            return
        for point, index in question.points:
            value = found[index] if index < len(found) else Value()  # blocks may be shorter: unconnected phases
            if value.damaged:
                text = f"identifier {question.di}: bytes {data[:16].hex()} are no BCD"
                sink.report("data.rejected", meter.id, "damaged", text, point=point.name)
            values[point.name] = _bit(value, point)

    async def read_point(self, unit: Meter, point: Point, line: Line, sink: Sink) -> float | None:
        question = unit.plan.single(point)
        data = await self._read(unit, question, line, sink)
        if isinstance(data, ErrorReply):
            return None
        values: dict[str, Value] = {}
        self._take(unit, question, data, values, sink)
        return _number(values[point.name]) if point.name in values else None

    async def _read(self, meter: Meter, question: Question, line: Line, sink: Sink) -> bytes | ErrorReply:
        """The data of one identifier, follow-ups joined."""
        request: Read | ReadMore = Read(meter.address, question.di)
        data = b""
        for seq in range(_MOST_FOLLOW_UPS + 1):
            answer = await self._ask(meter, request, question, line, sink)
            if isinstance(answer, ErrorReply):
                return answer
            data += answer.data
            if not answer.more:
                return data
            # The 1997 edition numbers nothing.
            request = ReadMore(meter.address, question.di, seq + 1 if len(question.di) == 8 else 0)
        error = RemoteProtocolError("meter announces more data without end", reason="length")
        reject(sink, meter.id, error)
        return data

    async def _ask(
        self, meter: Meter, request: Read | ReadMore, question: Question, line: Line, sink: Sink
    ) -> ReadReply | ErrorReply:
        wait_s = self._wait_s(question.reply_bytes if isinstance(request, Read) else _FULL_REPLY_BYTES)
        tries = 1 if meter.health.misses else 1 + self._config.retries
        for attempt in range(1, tries + 1):
            answer = await line.ask(request, wait_s, meter.rejecter(sink))
            if isinstance(answer, (ReadReply, ErrorReply)):
                line.gap.answered(attempt)
                return answer
        raise NoAnswer("no answer")

    def _wait_s(self, reply_bytes: int) -> float:
        return self._config.timeout_s + (_REQUEST_BYTES + reply_bytes) * 11 / self._config.baud

    def _refused(self, meter: Meter, question: Question, answer: ErrorReply, sink: Sink) -> list[Question]:
        if question.block or answer.no_data:
            singles = meter.plan.refuse(question)
            if not singles:
                text = f"the meter has no data for {question.di}"
                for point, _ in question.points:
                    sink.report("data.rejected", meter.id, "no_data", text, point=point.name)
            return singles
        bits = ", ".join(answer.bits) or "no known bit"
        text = f"identifier {question.di} refused: abnormal {answer.word:#04x} ({bits})"
        sink.report("data.rejected", meter.id, "refused", text)
        return []

    # -- orders --------------------------------------------------------------------------------------------------
    async def perform(self, unit: Meter, what: CommandType, command: Command, line: Line, sink: Sink) -> Outcome:
        if unit.edition == "1997":
            return Outcome("refused", "not_supported", "meters of the 1997 edition take no orders here")
        who = Key()
        if needs_password(what.key):
            who = meter_key(self._passwords, unit.address, self._config.operator)
        for order in orders(what.key, command.arguments, who, self._clock.now_ms(), command.expires_ms):
            if (refusal := await self._order(unit, order, line, sink)) is not None:
                return refusal
        return Outcome("done")

    async def _order(self, unit: Meter, order: Order, line: Line, sink: Sink) -> Outcome | None:
        wait_s = self._wait_s(_ORDER_BYTES)
        answer = await line.ask(order_message(unit.address, order), wait_s, unit.rejecter(sink))
        if isinstance(answer, Done):
            self.answered(unit, sink)
            return None
        if isinstance(answer, ErrorReply):
            self.answered(unit, sink)
            bits = answer.bits or ("other",)
            text = (
                f"the meter refuses: {', '.join(bits)} (byte {answer.word:#04x}, on the wire {answer.unshifted:#04x})"
            )
            return Outcome("refused", bits[0], text)
        raise NoAnswer("no answer to the order")


def _bit(value: Value, point: Point) -> Value:
    """One bit of a status word, where the point is one."""
    bit = point.dlt645.bit if point.dlt645 is not None else None
    if bit is None or value.number is None:
        return value
    return Value(type(value.number)(int(value.number) >> bit & 1))


def _number(value: Value) -> float:
    return math.nan if value.number is None else float(value.number)
