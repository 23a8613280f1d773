"""Electricity meters on one RS-485 line, usually 32 at 2400 baud: never two requests on the wire.

Each meter is read in rounds of ``poll_s``; what changes slowly (energy) is read in every n-th round only, so that
voltage, current and power come often. Transformer ratios are the twin's business, not ours.
"""

from __future__ import annotations

import math

import numpy as np

from edge.clock import Clock
from edge.connectors.base import LinkFactory, Sink
from edge.connectors.config import Dlt645Config, Dlt645Device
from edge.connectors.health import LOST_AFTER, Health, reject
from edge.connectors.line import Line, Timetable
from edge.connectors.meter_plan import MeterPlan, Question
from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError, TransportError
from protocols.core.model import Quality, Sweep
from protocols.devices import load
from protocols.dlt645.endpoint import Dlt645Endpoint
from protocols.dlt645.messages import ErrorReply, Read, ReadMore, ReadReply
from protocols.dlt645.values import Value, decode

_REQUEST_BYTES = 24  # wake-up bytes, frame, identifier, SEQ
_FULL_REPLY_BYTES = 216
_MOST_FOLLOW_UPS = 16


class _Meter:
    def __init__(self, config: Dlt645Device) -> None:
        self.config = config
        self.plan = MeterPlan(load(config.type).points)
        self.health = Health(config.id)
        self.round = 0


class _NoAnswer(Exception):
    """The meter did not answer a question."""


class Dlt645Bus:
    """The connector of kind ``dlt645``."""

    def __init__(self, config: Dlt645Config, clock: Clock, open_link: LinkFactory) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._open_link = open_link
        self._meters = [_Meter(device) for device in config.device]
        self._link_failures = 0

    async def run(self, sink: Sink) -> None:
        try:
            link = await self._open_link()
        except TransportError as exc:
            self._link_failed(sink, exc)
            raise
        try:
            line = Line(link, Dlt645Endpoint(Role.MASTER), gap_s=self._config.gap_s)
            timetable: Timetable[_Meter] = Timetable()
            for meter in self._meters:
                timetable.add(meter)

            async def serve(meter: _Meter) -> float:
                await self._poll(meter, line, sink)
                poll_s = meter.config.poll_s
                return max(poll_s, self._config.slow_poll_s) if meter.health.lost else poll_s

            await timetable.run(serve)
        except TransportError as exc:
            self._link_failed(sink, exc)
            raise
        finally:
            await link.close()

    def _link_failed(self, sink: Sink, exc: TransportError) -> None:
        self._link_failures += 1
        if self._link_failures >= LOST_AFTER:
            for meter in self._meters:
                meter.health.gone(sink, str(exc))

    async def _poll(self, meter: _Meter, line: Line, sink: Sink) -> None:
        values: dict[str, Value] = {}
        pending = meter.plan.due(meter.round)
        while pending:
            question = pending.pop(0)
            try:
                answer = await self._read(meter, question, line, sink)
            except _NoAnswer:
                sink.count("polls_missed", connector=self.id)
                meter.health.missed(sink, "no answer")
                break
            meter.health.answered(sink)
            self._link_failures = 0
            if isinstance(answer, ErrorReply):
                pending = self._refused(meter, question, answer, sink) + pending
                continue
            self._take(meter, question, answer, values, sink)
        else:
            meter.round += 1
        if values:
            self._emit(meter, values, sink)

    def _take(self, meter: _Meter, question: Question, data: bytes, values: dict[str, Value], sink: Sink) -> None:
        found = decode(question.di, data)
        if found is None:
            text = f"identifier {question.di}: format unknown"
            sink.report("data.rejected", meter.config.id, "unknown_di", text)
            return
        for point, index in question.points:
            value = found[index] if index < len(found) else Value()  # blocks may be shorter: unconnected phases
            if value.damaged:
                text = f"identifier {question.di}: bytes {data[:16].hex()} are no BCD"
                sink.report("data.rejected", meter.config.id, "damaged", text, point=point.name)
            values[point.name] = value

    def _emit(self, meter: _Meter, values: dict[str, Value], sink: Sink) -> None:
        now_ms = self._clock.now_ms()
        numbers = [math.nan if v.number is None else float(v.number) for v in values.values()]
        quality = [Quality.MISSING if v.number is None else Quality.GOOD for v in values.values()]
        sink.sweep(
            Sweep(
                meter.config.id,
                now_ms,
                now_ms,
                tuple(values),
                np.array(numbers, dtype=np.float64),
                np.array(quality, dtype=np.uint8),
            )
        )

    async def _read(self, meter: _Meter, question: Question, line: Line, sink: Sink) -> bytes | ErrorReply:
        """The data of one identifier, follow-ups joined."""
        request: Read | ReadMore = Read(meter.config.address, question.di)
        data = b""
        for seq in range(_MOST_FOLLOW_UPS + 1):
            answer = await self._ask(meter, request, question, line, sink)
            if isinstance(answer, ErrorReply):
                return answer
            data += answer.data
            if not answer.more:
                return data
            request = ReadMore(meter.config.address, question.di, seq + 1)
        error = RemoteProtocolError("meter announces more data without end", reason="length")
        reject(sink, meter.config.id, error)
        return data

    async def _ask(
        self, meter: _Meter, request: Read | ReadMore, question: Question, line: Line, sink: Sink
    ) -> ReadReply | ErrorReply:
        def refused(error: RemoteProtocolError) -> None:
            reject(sink, meter.config.id, error)

        reply_bytes = question.reply_bytes if isinstance(request, Read) else _FULL_REPLY_BYTES
        wait_s = self._config.timeout_s + (_REQUEST_BYTES + reply_bytes) * 11 / self._config.baud
        tries = 1 if meter.health.misses else 1 + self._config.retries
        for _ in range(tries):
            answer = await line.ask(request, wait_s, refused)
            if isinstance(answer, (ReadReply, ErrorReply)):
                return answer
        raise _NoAnswer

    def _refused(self, meter: _Meter, question: Question, answer: ErrorReply, sink: Sink) -> list[Question]:
        if question.block or answer.no_data:
            singles = meter.plan.refuse(question)
            if not singles:
                text = f"the meter has no data for {question.di}"
                for point, _ in question.points:
                    sink.report("data.rejected", meter.config.id, "no_data", text, point=point.name)
            return singles
        bits = ", ".join(answer.bits) or "no known bit"
        text = f"identifier {question.di} refused: abnormal {answer.word:#04x} ({bits})"
        sink.report("data.rejected", meter.config.id, "refused", text)
        return []
