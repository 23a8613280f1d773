"""SL 651: rain gauges, rivers and reservoirs dial in and report.

A report is confirmed only once its readings are on disk, or were recognised as a repeat. The confirmation decides
whether the station hangs up: while an order waits for it, it is told to stay (ESC), because a battery station is
reachable at no other time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.durable import after_all
from edge.connectors.hydrology_config import Sl651Device, Sl651ServerConfig
from edge.connectors.sl651_orders import BadOrder, Order, happened, order_of, shown
from edge.connectors.sl651_values import ALARMS, DOOR_BIT, Found, collect, keys_of, named, sweeps
from edge.connectors.station_clock import StationClock
from edge.connectors.station_server import Connection, Station, StationServer
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown, LocalProtocolError, RemoteProtocolError
from protocols.devices import load
from protocols.sl651 import messages as sl651
from protocols.sl651.endpoint import Sl651Endpoint
from protocols.sl651.frame import End, Telegram
from protocols.sl651.messages import Message, Report
from protocols.sl651.reading import read

log = logging.getLogger(__name__)

#: No answer: repeat twice, then give up until the station reports again.
ANSWER_S = 20.0
REPEATS = 2
#: Longest wait for a station that is not on line; an order's own time is usually shorter.
WAIT_S = 7_200.0


class _Station(Station):
    def __init__(self, config: Sl651Device) -> None:
        super().__init__(config.station, config.id)
        self.config = config
        self.type = load(config.type)
        self.points = keys_of(self.type)
        self.clock = StationClock()
        self.center = 1
        self.password = config.password or "0000"
        self.serial = 0
        self.orders = 0  # waiting for it to come on line
        self.awake: set[asyncio.Future[None]] = set()
        self.clock_sent_ms: int | None = None

    def next_serial(self) -> int:
        self.serial = self.serial % 0xFFFF + 1
        return self.serial


class Sl651Server(StationServer[Telegram, _Station]):
    """The connector of kind ``sl651-server``; takes orders (see ``sl651_orders``)."""

    def __init__(self, config: Sl651ServerConfig, clock: Clock, next_link: LinkFactory | None = None) -> None:
        super().__init__(
            config.id,
            clock,
            {device.station: _Station(device) for device in config.device},
            listen=config.listen,
            silent_s=config.silent_s,
            next_link=next_link,
            max_connections=config.max_connections,
        )
        self._config = config
        self._by_device = {station.device: station for station in self.stations.values()}
        self._sink: Sink | None = None

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        await super().run(sink)

    def new_endpoint(self) -> Sl651Endpoint:
        return Sl651Endpoint(Role.MASTER)

    def station_key(self, message: Telegram, connection: Connection) -> str:
        # Some stations send the two addresses in the other direction's order.
        if message.station not in self.stations and message.swapped_station in self.stations:
            return message.swapped_station
        return message.station

    def admit(self, connection: Connection, station: _Station, message: Telegram, sink: Sink) -> bool:
        if not station.config.password or message.password == station.config.password:
            return True
        sink.report("data.rejected", station.device, "password", "the password of the station is another one")
        return False

    # -- in

    def received(self, connection: Connection, station: _Station, message: Telegram, sink: Sink) -> None:
        if message.down:
            sink.count("echoes", connector=self.id)
            return
        station.center, station.password = message.center, message.password
        if message.func == sl651.KEEP_ALIVE:
            self._awake(station)
            return
        try:
            said = read(message)
        except RemoteProtocolError as error:
            sink.count("bodies_unread", connector=self.id)
            sink.report("data.rejected", station.device, error.reason, str(error))
            return
        if not isinstance(said, Report):
            sink.count("answers_unasked", connector=self.id)
            return
        self._report(connection, station, message, said, sink)

    def _report(
        self, connection: Connection, station: _Station, telegram: Telegram, report: Report, sink: Sink
    ) -> None:
        now_ms = self.clock.now_ms()
        if report.rest:
            sink.count("bodies_cut", connector=self.id)
            sink.report(
                "data.rejected", station.device, "format", f"{len(report.rest)} bytes at the end are no element"
            )
        if report.picture is not None:
            sink.count(
                "pictures", connector=self.id
            )  # nothing keeps them: confirmed, so that they do not come for ever
        found = collect(report, station.points)
        if found.unmapped:
            sink.count("elements_unmapped", by=found.unmapped, connector=self.id)
        self._tell_status(station, found, sink, now_ms)
        verdict = station.clock.judge(named(telegram, report), now_ms)
        if verdict.skewed:
            self._tell_clock(connection, station, verdict.lag_ms, sink, now_ms)
        else:
            station.news.over("dev.clock_skew", "")
        wants = telegram.func in sl651.REPORTS and station.config.confirm != "none"

        def confirm() -> None:
            end = End.ESC if station.orders else End[station.config.confirm]
            self.send(connection, sl651.confirm(telegram, report.serial, report.sent, end), sink)
            self._awake(station)

        rows = sweeps(station.device, found, report, verdict, now_ms)
        if not rows and wants:
            confirm()
        on_durable = after_all(len(rows), confirm) if wants and rows else None
        for row in rows:
            sink.sweep(row, on_durable)
        if not wants:
            self._awake(station)

    def _tell_status(self, station: _Station, found: Found, sink: Sink, now_ms: int) -> None:
        if found.status is None:
            return
        for bit, (event, code) in ALARMS.items():
            on = bool(found.status >> bit & 1) != (bit == DOOR_BIT)
            point = f"45.{bit}"  # the state's own key, so that two of one event do not end each other
            if not on:
                station.news.over(event, point)
            elif station.news.fresh(event, code, point, now_ms):
                sink.report(event, station.device, code, f"status bit {bit} of {found.status:08X}")

    def _tell_clock(self, connection: Connection, station: _Station, lag_ms: int, sink: Sink, now_ms: int) -> None:
        if not station.news.fresh("dev.clock_skew", "offset", "", now_ms):
            return
        text = f"station clock is {abs(lag_ms) / 1000:.0f} s {'behind' if lag_ms > 0 else 'ahead'}"
        sink.report("dev.clock_skew", station.device, "offset", f"{text}; times are moved by that")
        if self._config.set_clock:
            self.send(connection, self._question(station, Order(sl651.SET_CLOCK)), sink)

    # -- orders

    async def command(self, command: Command) -> Outcome:
        """See :class:`edge.connectors.base.Commandable`. Waits for a station that is not on line, as long as the order
        lives."""
        station = self._by_device.get(command.device)
        what = None if station is None else station.type.command(command.name)
        sink = self._sink
        if station is None or what is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        if sink is None:
            raise LinkDown(f"{self.id} does not listen")
        try:
            order = order_of(what, command.arguments)
        except BadOrder as error:
            return Outcome("refused", "argument", str(error))
        if not await self._on_line(station, command.expires_ms):
            return Outcome("expired", "expired", f"{station.device} did not come on line in its time")
        try:
            answer = await self._ask(station, order, sink)
        except LocalProtocolError as error:
            return Outcome("refused", "argument", str(error))
        if answer is None:
            return Outcome("unknown", "no_answer", f"no answer after {1 + REPEATS} questions")
        back = order.read_back
        if back is None:
            return Outcome("done", "", "", shown(answer))
        try:
            found = await self._ask(station, back, sink)
        except LinkDown as error:
            return Outcome("unknown", "no_read_back", f"confirmed, not read back: {error}")
        if found is None:
            return Outcome("unknown", "no_read_back", "confirmed, not read back: no answer")
        if happened(order, found, self.clock.now_ms()):
            return Outcome("done", "", "", shown(found))
        return Outcome("failed", "read_back", "confirmed, but it reads otherwise", shown(found))

    async def _on_line(self, station: _Station, expires_ms: int) -> bool:
        if station.connection is not None and station.connection.open:
            return True
        left_s = (expires_ms - self.clock.now_ms()) / 1000 if expires_ms else WAIT_S
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        station.awake.add(awake)
        station.orders += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(left_s, WAIT_S))):
                    await awake
            return awake.done() and not awake.cancelled()
        finally:
            station.orders -= 1
            station.awake.discard(awake)

    @staticmethod
    def _awake(station: _Station) -> None:
        """It is on line and has been told to stay."""
        for future in station.awake:
            if not future.done():
                future.set_result(None)

    def _question(self, station: _Station, order: Order) -> Telegram:
        message = order.message(station.next_serial(), self.clock.now_ms())
        return sl651.ask(order.func, message, station.key, center=station.center, password=station.password)

    async def _ask(self, station: _Station, order: Order, sink: Sink) -> Message | None:
        """One question, repeated twice; None if no answer came. Data in the answer become readings. Raises LinkDown if
        nothing was sent."""

        def answers(telegram: Telegram) -> bool:
            return not telegram.down and telegram.func == order.func

        for attempt in range(1 + REPEATS):
            try:
                telegram = await self.ask(station, self._question(station, order), answers, ANSWER_S, sink)
            except LinkDown:
                if not attempt:
                    raise
                return None
            if telegram is not None:
                break
        else:
            return None
        try:
            said = read(telegram)
        except RemoteProtocolError as error:
            sink.report("data.rejected", station.device, error.reason, str(error))
            return None
        if isinstance(said, Report) and station.connection is not None:
            self._report(station.connection, station, telegram, said, sink)
        return said
