"""Water, gas and heat meters on one CJ/T 188 line, and the orders to their valves.

What a maker made of the standard is found meter by meter (see :class:`protocols.cjt188.dialect.Dialect`) and said once
in the log, in the words of the configuration. A meter's clock is looked at, never used: what is read now was measured
now.
"""

from __future__ import annotations

import logging
import math
from datetime import datetime, timedelta

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.config import TCP_PREFIX
from edge.connectors.health import LOST_AFTER, reject
from edge.connectors.line import Line
from edge.connectors.meter_config import Cjt188Config, Cjt188Device
from edge.connectors.polled_bus import NoAnswer, PolledBus, PolledUnit
from protocols.cjt188 import messages as m
from protocols.cjt188.dialect import Dialect
from protocols.cjt188.endpoint import Cjt188Endpoint
from protocols.cjt188.points import PointKey, parse_key
from protocols.cjt188.values import Reading, clock_bytes, decode
from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.devices import CommandType, Point
from protocols.devices.values import reading as point_reading
from protocols.hj212.messages import CHINA

log = logging.getLogger("citybrain.edge.cjt188")

#: Frame, identifier and SER of a request; the longest reply of each kind of meter, with wake-up bytes.
_REQUEST_BYTES, _WATER_REPLY_BYTES, _HEAT_REPLY_BYTES = 17, 46, 80
#: The catalogue's rule for a wrong clock.
_CLOCK_TOLERANCE = timedelta(seconds=120)


class Meter(PolledUnit):
    """One meter: where it sits, what it is asked, how it speaks."""

    def __init__(self, config: Cjt188Device) -> None:
        super().__init__(config)
        self.address = config.address
        self.meter_type = config.meter_type or self.type.options.get("meter_type", "10")
        self.dialect = Dialect(self.meter_type, config.di_order, config.ser)
        self.keys: dict[str, PointKey] = {
            point.name: parse_key(point.value.key) for point in self.type.points if point.value is not None
        }
        self.round = 0
        self.clock_is_wrong = False

    @property
    def heat(self) -> bool:
        return self.meter_type.startswith("2")

    def due(self) -> dict[str, list[Point]]:
        """The identifiers of this round, and the points that each of them tells."""
        out: dict[str, list[Point]] = {}
        for point in self.type.points:
            if point.value is not None and self.round % point.value.every == 0:
                out.setdefault(self.keys[point.name].di, []).append(point)
        return out


class Cjt188Bus(PolledBus[Meter]):
    """The connector of kind ``cjt188``."""

    def __init__(self, config: Cjt188Config, clock: Clock, open_link: LinkFactory) -> None:
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
        self._ser = 0
        self.settle_s = config.valve_s

    def endpoint(self) -> Cjt188Endpoint:
        # Whether SER counts is the meter's dialect's business.
        return Cjt188Endpoint(Role.MASTER, preamble=self._config.preamble, check_ser=False)

    # -- reading -------------------------------------------------------------------------------------------------
    async def poll(self, unit: Meter, line: Line, sink: Sink) -> None:
        values: dict[str, float] = {}
        try:
            for di, points in unit.due().items():
                reading = await self._read(unit, di, line, sink)
                if reading is not None:
                    values |= {point.name: self._value(unit, point, reading, sink) for point in points}
                    self._look_at_clock(unit, reading, sink)
            unit.round += 1
        finally:
            # What a meter said before it fell silent was said.
            self.emit(unit, values, sink)

    async def read_point(self, unit: Meter, point: Point, line: Line, sink: Sink) -> float | None:
        reading = await self._read(unit, unit.keys[point.name].di, line, sink)
        return None if reading is None else self._value(unit, point, reading, sink)

    async def _read(self, unit: Meter, di: str, line: Line, sink: Sink) -> Reading | None:
        """The answer to one identifier; None if the meter refuses it. Raises NoAnswer."""
        refused: m.ErrorReply | None = None
        # As long as the order of the identifier is unknown each of the two gets its tries.
        tries = (1 if unit.health.misses else 1 + self._config.retries) + (unit.dialect.order is None)
        attempt, doubted = 0, False
        while attempt < tries:
            order = unit.dialect.order_for(attempt)
            request = m.Read(unit.meter_type, unit.address, di, self._next_ser(), order)
            reply = await self._ask(unit, request, line, sink)
            if reply is None and unit.dialect.in_doubt and not doubted:
                doubted = True
                continue
            attempt += 1
            if isinstance(reply, m.ErrorReply):
                refused = reply
                if unit.dialect.order is not None:
                    break
            elif isinstance(reply, m.ReadReply):
                return self._reading(unit, di, reply, sink)
        if refused is None:
            if unit.health.misses >= LOST_AFTER - 1:
                unit.dialect.forget()
            raise NoAnswer("no answer")
        text = f"identifier {di} refused, status {refused.status.hex().upper() or 'none'}"
        sink.report("data.rejected", unit.id, "refused", text)
        return None

    def _reading(self, unit: Meter, di: str, reply: m.ReadReply, sink: Sink) -> Reading | None:
        reading = decode(di, reply.data, heat=reply.type.startswith("2"))
        unit.dialect.look_at(reading)
        if news := unit.dialect.take_news():
            log.info("%s speaks its own CJ/T 188: %s", unit.id, ", ".join(news))
            sink.count("dialects_found", connector=self.id)
        if reading.layout:
            return reading
        text = f"identifier {di}: {len(reply.data)} bytes of no known layout"
        sink.report("data.rejected", unit.id, "unknown_layout", text)
        return None

    async def _ask(
        self, unit: Meter, request: m.Read | m.Command, line: Line, sink: Sink
    ) -> m.ReadReply | m.Done | m.ErrorReply | None:
        """One request, one answer that is its own; None if there is none."""
        reply_bytes = _HEAT_REPLY_BYTES if unit.heat else _WATER_REPLY_BYTES
        line_bytes = self._config.preamble + _REQUEST_BYTES + reply_bytes
        wait_s = self._config.timeout_s + line_bytes * 11 / self._config.baud
        reply = await line.ask(request, wait_s, unit.rejecter(sink))
        if not isinstance(reply, (m.ReadReply, m.Done, m.ErrorReply)):
            return None
        if not unit.dialect.accept(request.ser or 0, request.order, reply):
            text = f"SER {reply.ser}, asked with {request.ser}: a late answer, or a meter with a fixed one"
            reject(sink, unit.id, RemoteProtocolError(text, reason="wrong_ser"))
            return None
        self.answered(unit, sink)
        return reply

    def _next_ser(self) -> int:
        # 0 and 1 are what meters with a fixed number say: asking with them would teach nothing.
        self._ser = self._ser + 1 if 2 <= self._ser < 0xFF else 2
        return self._ser

    def _value(self, unit: Meter, point: Point, reading: Reading, sink: Sink) -> float:
        number, wrong = unit.keys[point.name].read(reading)
        if wrong in ("damaged", "unit"):
            texts = {"damaged": "the bytes are no BCD digits", "unit": "the unit byte is of another quantity"}
            sink.report("data.rejected", unit.id, wrong, texts[wrong], point=point.name)
        value, _ = point_reading(point, math.nan if number is None else float(number))
        return value

    def _look_at_clock(self, unit: Meter, reading: Reading, sink: Sink) -> None:
        time = reading.get("time")
        if time is None or not time.text:
            return  # many meters have none
        behind = self._local_time() - datetime.fromisoformat(time.text)
        wrong = abs(behind) > _CLOCK_TOLERANCE
        if wrong and not unit.clock_is_wrong:
            text = f"the meter's clock reads {time.text}, {behind.total_seconds():.0f} s behind; readings keep our time"
            sink.report("dev.clock_skew", unit.id, "clock", text)
        unit.clock_is_wrong = wrong

    def _local_time(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() // 1000, CHINA).replace(tzinfo=None)

    # -- orders --------------------------------------------------------------------------------------------------
    async def perform(self, unit: Meter, what: CommandType, command: Command, line: Line, sink: Sink) -> Outcome:
        if unit.dialect.order is None:
            # An order is sent once, so it has to be put in the way this meter understands: ask something harmless.
            try:
                await self._read(unit, "901F", line, sink)
            except NoAnswer:
                return Outcome("refused", "no_answer", "the meter does not answer; nothing was ordered")
        request = self._order(unit, what)
        reply = await self._ask(unit, request, line, sink)
        if reply is None:
            raise NoAnswer("the order got no answer")
        if isinstance(reply, m.ErrorReply):
            return Outcome("refused", "device", f"the meter refuses, status {reply.status.hex().upper() or 'none'}")
        # The state in this reply is the one before the valve has moved; the read-back says where it came to rest.
        return Outcome("done")

    def _order(self, unit: Meter, what: CommandType) -> m.Command:
        order, ser = unit.dialect.order_for(0), self._next_ser()
        if what.key == "set_clock":
            data = clock_bytes(self._local_time())
            return m.Command(unit.meter_type, unit.address, m.WRITE, m.DI_CLOCK, data, ser, order)
        return m.valve(unit.meter_type, unit.address, shut=what.key == "valve_close", ser=ser, order=order)
