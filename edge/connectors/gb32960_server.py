"""Electric vehicles dial in (GB/T 32960), each by itself or many behind their maker's platform.

A report is answered "ok" once it is on disk. Stored reports that come later (command 03) are kept with their own time
and raise nothing. What cannot be read is answered as an error and told, never guessed; encrypted data are such.
"""

from __future__ import annotations

import contextlib
from weakref import WeakSet
from zlib import crc32

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.gb32960_values import alarm_words, columns, values_of
from edge.connectors.gb_config import Gb32960Device, Gb32960ServerConfig
from edge.connectors.station_clock import StationClock, Upload
from edge.connectors.station_server import Connection, Station, StationServer
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown, LocalProtocolError, RemoteProtocolError
from protocols.devices import load
from protocols.gb32960 import bodies
from protocols.gb32960 import messages as m
from protocols.gb32960.endpoint import Gb32960Endpoint
from protocols.gb32960.items import Edition
from protocols.gb32960.points import Raw

ANSWER_S = 10.5
#: What a platform says for itself, without a vehicle.
_PLATFORM = (m.PLATFORM_LOGIN, m.PLATFORM_LOGOUT, m.HEARTBEAT, m.CLOCK)
_LEVELS = (1, 2, 3)


class _Vehicle(Station):
    def __init__(self, config: Gb32960Device) -> None:
        super().__init__(config.vin, config.id)
        self.config = config
        self.type = load(config.type)
        self.clock = StationClock()
        self.edition: Edition = "2016"


class Gb32960Server(StationServer[m.Message, _Vehicle]):
    """The connector of kind ``gb32960-server``."""

    def __init__(self, config: Gb32960ServerConfig, clock: Clock, next_link: LinkFactory | None = None) -> None:
        super().__init__(
            config.id,
            clock,
            {device.vin: _Vehicle(device) for device in config.device},
            listen=config.listen,
            silent_s=config.silent_s,
            next_link=next_link,
            max_connections=config.max_connections,
        )
        self._config = config
        self._by_id = {vehicle.device: vehicle for vehicle in self.stations.values()}
        self._logged_in: WeakSet[Connection] = WeakSet()
        self._sink: Sink | None = None

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        await super().run(sink)

    def new_endpoint(self) -> Gb32960Endpoint:
        # An order is never repeated behind the back of whoever gave it.
        return Gb32960Endpoint(Role.MASTER, repeats=0)

    def station_key(self, message: m.Message, connection: Connection) -> str:
        return message.vin

    # -- in

    def admit(self, connection: Connection, station: _Vehicle, message: m.Message, sink: Sink) -> bool:
        if not self._config.user or connection in self._logged_in:
            return True
        text = "its platform has not logged in on this connection"
        if station.news.fresh("data.rejected", "not_logged_in", "", self.clock.now_ms()):
            sink.report("data.rejected", station.device, "not_logged_in", text)
        self._answer(connection, message, m.ERROR, sink)
        return False

    def stranger(self, connection: Connection, key: str, message: m.Message, sink: Sink) -> _Vehicle | None:
        if message.is_command and message.command in _PLATFORM:
            # A maker's platform talks of itself: its name is no vehicle's.
            known = message.command != m.PLATFORM_LOGIN or self._logs_in(connection, message, sink)
            self._answer(connection, message, m.OK if known else m.ERROR, sink)
            return None
        if message.is_command and message.command == m.LOGIN:
            self._answer(connection, message, m.VIN_UNKNOWN, sink)
        return super().stranger(connection, key, message, sink)

    def _logs_in(self, connection: Connection, message: m.Message, sink: Sink) -> bool:
        with contextlib.suppress(RemoteProtocolError):
            body = bodies.read(message)
            wanted = (self._config.user, self._config.password)
            if not self._config.user or (
                isinstance(body, bodies.PlatformLogin) and (body.user, body.password) == wanted
            ):
                self._logged_in.add(connection)
                return True
        sink.report("data.rejected", self.id, "password", f"platform {message.vin[:17]!r}: another user or password")
        return False

    def received(self, connection: Connection, station: _Vehicle, message: m.Message, sink: Sink) -> None:
        station.edition = message.edition
        if not message.is_command:
            sink.count("answers_received", connector=self.id)
            return
        match message.command:
            case m.REALTIME | m.RESENT:
                self._report(connection, station, message, sink)
            case m.LOGOUT:
                self._answer(connection, message, m.OK, sink)
                station.health.gone(sink, "logged out")
            case m.LOGIN | m.HEARTBEAT | m.CLOCK | m.PLATFORM_LOGIN | m.PLATFORM_LOGOUT:
                self._answer(connection, message, m.OK, sink)
            case _:
                # Activation and keys need certificates we do not have; platforms' own commands mean nothing to us.
                sink.count("commands_unknown", connector=self.id)

    def _report(self, connection: Connection, station: _Vehicle, message: m.Message, sink: Sink) -> None:
        now_ms = self.clock.now_ms()
        try:
            body = bodies.read(message)
        except RemoteProtocolError as error:
            self._refuse(connection, station, message, m.ERROR, error.reason, str(error), sink)
            return
        if not isinstance(body, bodies.Report):
            flag = m.CANNOT_DECRYPT if message.edition == "2025" else m.ERROR
            text = f"encrypted ({m.ENCRYPTION_NAMES.get(message.encryption, '?')}): not readable without its key"
            self._refuse(connection, station, message, flag, "encrypted", text, sink)
            return
        if body.rest:
            text = f"item {body.rest[0]:02X} or its length is unknown; {len(body.rest)} bytes left"
            sink.count("items_unknown", connector=self.id)
            if station.news.fresh("data.rejected", "unknown_item", f"{body.rest[0]:02x}", now_ms):
                sink.report("data.rejected", station.device, "unknown_item", text)
        values = values_of(body.items, station.config.datum)
        source_ms, exchange = self._time_of(station, message, sink, now_ms)
        resent = message.command == m.RESENT
        if not resent:
            self._tell_alarm(station, values, sink, now_ms)
        sweep = columns(
            station.device,
            station.type,
            values,
            source_ms=source_ms,
            seen_ms=now_ms,
            exchange=exchange,
            resent=resent,
        )
        if sweep is None:
            sink.count("uploads_unmapped", connector=self.id)
            self._answer(connection, message, m.OK, sink)
            return
        sink.sweep(sweep, lambda: self._answer(connection, message, m.OK, sink))

    def _refuse(
        self,
        connection: Connection,
        station: _Vehicle,
        message: m.Message,
        flag: int,
        code: str,
        text: str,
        sink: Sink,
    ) -> None:
        sink.count("frames_rejected", reason=code)
        if station.news.fresh("data.rejected", code, "", self.clock.now_ms()):
            sink.report("data.rejected", station.device, code, text)
        self._answer(connection, message, flag, sink)

    def _time_of(self, station: _Vehicle, message: m.Message, sink: Sink, now_ms: int) -> tuple[int, str]:
        """The time of the data, and the name by which a repeat is known: over 200 cells take several frames of one
        moment, and what is sent again as 03 is the same data."""
        data_ms = m.time_ms(message.stamp)
        digest = crc32(message.data)
        if data_ms is None:
            if station.news.fresh("dev.clock_skew", "unset", "", now_ms):
                sink.report("dev.clock_skew", station.device, "unset", "no valid time; the gateway's is used")
            return now_ms, ""
        name = f"{station.key}/{message.stamp.hex()}/{digest:08x}"
        told_ms = None if message.command == m.RESENT else data_ms
        verdict = station.clock.judge(Upload(name=name, digest=digest, data_ms=data_ms, told_ms=told_ms), now_ms)
        if not verdict.skewed:
            station.news.over("dev.clock_skew", "")
        elif station.news.fresh("dev.clock_skew", "offset", "", now_ms):
            text = f"its clock is {-verdict.lag_ms / 1000:+.0f} s off; the gateway's time is used"
            sink.report("dev.clock_skew", station.device, "offset", text)
        return (now_ms if verdict.source_ms is None else verdict.source_ms), verdict.exchange

    def _tell_alarm(self, station: _Vehicle, values: dict[str, Raw], sink: Sink, now_ms: int) -> None:
        level = values.get("alarm.level")
        if level is None:
            return
        code = f"level_{level}" if level in _LEVELS else ""
        station.news.over("dev.fault", "alarm", code)
        if code and station.news.fresh("dev.fault", code, "alarm", now_ms):
            text = alarm_words(values) or "no alarm bit is set"
            sink.report("dev.fault", station.device, code, text, point="alarm_level")

    # -- out

    def _answer(self, connection: Connection, message: m.Message, flag: int, sink: Sink) -> None:
        try:
            answer = m.reply(message, flag, now_ms=self.clock.now_ms())
        except LocalProtocolError:
            # Our own clock has not been set yet: better no time than 1970.
            sink.count("answers_unsayable", connector=self.id)
            return
        self.send(connection, answer, sink)

    async def command(self, command: Command) -> Outcome:
        """Set a parameter (81) and read it back (80), or a control order (82)."""
        vehicle = self._by_id.get(command.device)
        what = vehicle.type.command(command.name) if vehicle is not None else None
        if vehicle is None or what is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        kind, number = (int(text, 16) for text in what.key.split(":"))
        value = round(float(next(iter(command.arguments.values()), 0)))
        try:
            stamp = m.stamp_at(self.clock.now_ms())
            if kind == m.SET:
                data = bodies.set_data(stamp, number, value, vehicle.edition)
            else:
                data = bodies.control_data(stamp, number)
        except LocalProtocolError as error:
            return Outcome("refused", "argument", str(error))
        answer = await self._ask(vehicle, kind, data)
        if answer is None:
            return Outcome("unknown", "no_answer", f"no answer within {ANSWER_S:g} s")
        if answer.answer != m.OK:
            return Outcome("refused", "denied", m.ANSWER_NAMES.get(answer.answer, str(answer.answer)))
        if kind != m.SET:
            return Outcome("done")
        return await self._read_back(vehicle, stamp, number, value)

    async def _read_back(self, vehicle: _Vehicle, stamp: bytes, number: int, wanted: int) -> Outcome:
        try:
            answer = await self._ask(vehicle, m.QUERY, bodies.query_data(stamp, [number]))
            body = bodies.read(answer) if answer is not None else None
        except (LinkDown, RemoteProtocolError) as error:
            return Outcome("unknown", "no_read_back", f"confirmed; not read back: {error}")
        shown = dict(body.values).get(number) if isinstance(body, bodies.Parameters) else None
        if shown is None:
            return Outcome("unknown", "no_read_back", "confirmed; it does not tell the parameter")
        read_back: dict[str, float | str] = {bodies.PARAMETERS[number][1]: shown}
        if shown != wanted:
            return Outcome("failed", "read_back", f"confirmed, but it reads {shown}, not {wanted}", read_back)
        return Outcome("done", read_back=read_back)

    async def _ask(self, vehicle: _Vehicle, kind: int, data: bytes) -> m.Message | None:
        if self._sink is None:
            raise LinkDown(f"{vehicle.device} is not connected")
        message = m.Message(kind, m.vin_bytes(vehicle.key), data, m.IS_COMMAND, vehicle.edition)

        def answers(heard: m.Message) -> bool:
            return heard.command == kind and not heard.is_command

        return await self.ask(vehicle, message, answers, ANSWER_S, self._sink)
