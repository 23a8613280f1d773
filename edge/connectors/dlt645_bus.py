"""Electricity meters on one RS-485 line, usually 32 at 2400 baud: never two requests on the wire.

Each meter is read in rounds of ``poll_s``; what changes slowly (energy) is read in every n-th round only, so that
voltage, current and power come often. Transformer ratios are the twin's business, not ours.
"""

from __future__ import annotations

import math

from edge.clock import Clock
from edge.connectors.base import LinkFactory, Sink
from edge.connectors.config import TCP_PREFIX, Dlt645Config, Dlt645Device
from edge.connectors.health import reject
from edge.connectors.line import Line
from edge.connectors.meter_plan import MeterPlan, Question
from edge.connectors.polled_bus import NoAnswer, PolledBus, PolledUnit
from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.dlt645.endpoint import Dlt645Endpoint
from protocols.dlt645.messages import ErrorReply, Read, ReadMore, ReadReply
from protocols.dlt645.values import Value, decode

_REQUEST_BYTES = 24  # wake-up bytes, frame, identifier, SEQ
_FULL_REPLY_BYTES = 216
_MOST_FOLLOW_UPS = 16


class Meter(PolledUnit):
    def __init__(self, config: Dlt645Device) -> None:
        super().__init__(config)
        self.address = config.address
        self.plan = MeterPlan(self.type.points)
        self.round = 0


class Dlt645Bus(PolledBus[Meter]):
    """The connector of kind ``dlt645``."""

    def __init__(self, config: Dlt645Config, clock: Clock, open_link: LinkFactory) -> None:
        super().__init__(
            config.id,
            clock,
            open_link,
            [Meter(device) for device in config.device],
            slow_poll_s=config.slow_poll_s,
            gap_s=config.gap_s,
            reopen_when_silent=config.port.startswith(TCP_PREFIX),
        )
        self._config = config

    def endpoint(self) -> Dlt645Endpoint:
        return Dlt645Endpoint(Role.MASTER)

    async def poll(self, unit: Meter, line: Line, sink: Sink) -> None:
        values: dict[str, Value] = {}
        pending = unit.plan.due(unit.round)
        try:
            while pending:
                question = pending.pop(0)
                answer = await self._read(unit, question, line, sink)
                self.answered(unit, sink)
                if isinstance(answer, ErrorReply):
                    pending = self._refused(unit, question, answer, sink) + pending
                    continue
                self._take(unit, question, answer, values, sink)
            unit.round += 1
        finally:
            # What a meter said before it fell silent was said.
            self.emit(unit, {name: _number(value) for name, value in values.items()}, sink)

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
            values[point.name] = value

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
            request = ReadMore(meter.address, question.di, seq + 1)
        error = RemoteProtocolError("meter announces more data without end", reason="length")
        reject(sink, meter.id, error)
        return data

    async def _ask(
        self, meter: Meter, request: Read | ReadMore, question: Question, line: Line, sink: Sink
    ) -> ReadReply | ErrorReply:
        reply_bytes = question.reply_bytes if isinstance(request, Read) else _FULL_REPLY_BYTES
        wait_s = self._config.timeout_s + (_REQUEST_BYTES + reply_bytes) * 11 / self._config.baud
        tries = 1 if meter.health.misses else 1 + self._config.retries
        for _ in range(tries):
            answer = await line.ask(request, wait_s, meter.rejecter(sink))
            if isinstance(answer, (ReadReply, ErrorReply)):
                return answer
        raise NoAnswer("no answer")

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


def _number(value: Value) -> float:
    return math.nan if value.number is None else float(value.number)
