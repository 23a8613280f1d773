"""M-Bus meters behind a level converter: link reset, one or several telegrams, points picked from their records.

A meter that was exchanged answers at the old address with another number of its own: where the configuration names the
number, the answer of another meter is refused rather than booked on this one.
"""

from __future__ import annotations

import math

from edge.clock import Clock
from edge.connectors.base import LinkFactory, Sink
from edge.connectors.config import TCP_PREFIX
from edge.connectors.health import reject
from edge.connectors.line import Line
from edge.connectors.meter_config import MbusConfig, MbusDevice
from edge.connectors.polled_bus import NoAnswer, PolledBus, PolledUnit
from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.devices import Point
from protocols.devices.values import reading as point_reading
from protocols.mbus import messages as m
from protocols.mbus.endpoint import MbusEndpoint
from protocols.mbus.keys import STATUS, Key, parse_key
from protocols.mbus.records import Header, Record, read_telegram, readable
from protocols.mbus.vif import meaning

#: The longest telegram, and a request that asks for it.
_TELEGRAM_BYTES, _REQUEST_BYTES = 261, 17
_MOST_TELEGRAMS = 16


class Meter(PolledUnit):
    """One meter: where it sits and which records are its points."""

    def __init__(self, config: MbusDevice) -> None:
        super().__init__(config)
        self.config = config
        self.address = m.SELECTED if config.secondary else (config.address or 0)
        self.keys: dict[str, Key] = {
            point.name: parse_key(point.value.key) for point in self.type.points if point.value is not None
        }


class _Wrong(Exception):
    """The meter answered, but not with what was asked for; it has been reported."""


class MbusBus(PolledBus[Meter]):
    """The connector of kind ``mbus``. Raises ConfigError where the library is not installed."""

    def __init__(self, config: MbusConfig, clock: Clock, open_link: LinkFactory) -> None:
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
        meaning(0)  # the table of codes is there, or the start says what is missing

    def endpoint(self) -> MbusEndpoint:
        return MbusEndpoint(Role.MASTER)

    async def poll(self, unit: Meter, line: Line, sink: Sink) -> None:
        try:
            header, records = await self._read(unit, line, sink)
        except _Wrong:
            return
        values = {point.name: self._value(unit, point, header, records, sink) for point in unit.type.points}
        self.emit(unit, values, sink)

    async def _read(self, unit: Meter, line: Line, sink: Sink) -> tuple[Header | None, list[Record]]:
        """All records of all telegrams of one reading."""
        opening: m.Request = m.Select(unit.config.secondary) if unit.config.secondary else m.Reset(unit.address)
        await self._ask(unit, opening, line, sink, reply_bytes=1)
        header: Header | None = None
        records: list[Record] = []
        fcb = True  # the first telegram after a reset
        for _ in range(_MOST_TELEGRAMS):
            reply = await self._ask(unit, m.ReadData(unit.address, fcb), line, sink, reply_bytes=_TELEGRAM_BYTES)
            self.answered(unit, sink)
            if isinstance(reply, m.ApplicationError):
                code = -1 if reply.code is None else reply.code
                why = m.ERROR_TEXTS.get(code, ("", "no known code"))[1]
                sink.report("data.rejected", unit.id, "refused", f"application error {reply.code}: {why}")
                raise _Wrong
            assert isinstance(reply, m.Response)  # noqa: S101 - the endpoint gives nothing else for ReadData
            if not readable(reply.ci) or reply.ci == m.CI_FIXED:
                text = f"control information {reply.ci:02X} has no records"
                sink.report("data.rejected", unit.id, "unknown_layout", text)
                raise _Wrong
            telegram = read_telegram(reply.ci, reply.data)
            header = header or telegram.header
            self._check_meter(unit, telegram.header, sink)
            records += telegram.records
            if telegram.problem:
                sink.report("data.rejected", unit.id, "records", f"the records are cut off: {telegram.problem}")
            if not telegram.more:
                return header, records
            fcb = not fcb
        reject(sink, unit.id, RemoteProtocolError("meter announces more telegrams without end", reason="length"))
        return header, records

    def _check_meter(self, unit: Meter, header: Header | None, sink: Sink) -> None:
        wanted = unit.config.serial
        if wanted and header is not None and header.id and header.id != wanted:
            text = f"meter {header.id} answers at {unit.config.secondary or unit.address}, {wanted} was expected"
            sink.report("data.rejected", unit.id, "other_meter", text)
            raise _Wrong

    async def _ask(
        self, unit: Meter, request: m.Request, line: Line, sink: Sink, *, reply_bytes: int
    ) -> m.Ack | m.Response | m.ApplicationError:
        wait_s = self._config.timeout_s + (_REQUEST_BYTES + reply_bytes) * 11 / self._config.baud
        tries = 1 if unit.health.misses else 1 + self._config.retries
        for _ in range(tries):
            reply = await line.ask(request, wait_s, unit.rejecter(sink))
            if isinstance(reply, (m.Ack, m.Response, m.ApplicationError)):
                return reply
        raise NoAnswer("no answer")

    def _value(self, unit: Meter, point: Point, header: Header | None, records: list[Record], sink: Sink) -> float:
        key = unit.keys[point.name]
        if key.name == STATUS:
            return math.nan if header is None else point_reading(point, header.status)[0]
        record = key.find(records)
        if record is None:
            return math.nan
        if record.damaged:
            text = f"{record.meaning.quantity}: bytes {record.raw.hex()} are no number"
            sink.report("data.rejected", unit.id, "damaged", text, point=point.name)
        number = record.based
        return point_reading(point, None if number is None else float(number))[0]
