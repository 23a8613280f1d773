"""JT/T 808: the agent listens, vehicle terminals dial in, register, authenticate and push positions.

8001 goes out only once a position is on disk. Who a terminal is, is its number and its authentication code, not its
socket: before 0102 with the right code nothing of it is kept, and it takes no place from the one that has the code.
A code is made from a key and the number, so nothing about codes has to be stored.
"""

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.durable import after_all
from edge.connectors.fleet_config import Jt808Device, Jt808ServerConfig, phone_key
from edge.connectors.jt808_orders import BadArgument, answers, judged, order_of, parameter_shown
from edge.connectors.jt808_values import Columns
from edge.connectors.station_clock import StationClock, Upload
from edge.connectors.station_server import Connection, Station, StationServer
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, LinkDown
from protocols.core.model import Sweep
from protocols.devices import CommandType, DeviceType, load
from protocols.jt808 import platform, terminal
from protocols.jt808.body import Opaque
from protocols.jt808.endpoint import Jt808Endpoint
from protocols.jt808.fields import time_bcd
from protocols.jt808.frame import Version
from protocols.jt808.messages import ANSWERS, Message, answer, reply
from protocols.jt808.position import Position

#: What a terminal may say before it has authenticated.
_BEFORE = frozenset({0x0100, 0x0102})
#: Wrong codes on one connection before it is closed.
MAX_WRONG_CODES = 3
_NO_SUCH_TERMINAL = 4
#: Names of uploads that a terminal's clock remembers: a repeat comes within minutes, and terminals are many.
_REMEMBERED = 64
_OK, _FAILED, _WRONG, _UNSUPPORTED = 0, 1, 2, 3
_HOURS_8_MS = 8 * 3_600_000


class _Endpoint(Jt808Endpoint):
    """Remembers who has authenticated on this connection."""

    def __init__(self) -> None:
        super().__init__(Role.MASTER, accepts=self.admits)
        self.trusted: set[str] = set()  # by phone_key: one terminal may write its header in two editions
        self.wrong_codes = 0

    def admits(self, phone: str, msg_id: int) -> bool:
        return msg_id in _BEFORE or phone_key(phone) in self.trusted


class _Terminal(Station):
    def __init__(self, config: Jt808Device, columns: Columns) -> None:
        super().__init__(phone_key(config.phone), config.id)
        self.config = config
        self.columns = columns
        self.clock = StationClock(remembered=_REMEMBERED)
        self.header: Message | None = None  # how it writes its header


class Jt808Server(StationServer[Message, _Terminal]):
    """The connector of kind ``jt808-server``."""

    def __init__(
        self, config: Jt808ServerConfig, clock: Clock, next_link: LinkFactory | None = None, *, base: Path = Path()
    ) -> None:
        columns: dict[tuple[str, bool], Columns] = {}
        terminals: dict[str, _Terminal] = {}
        for device in config.device:
            kind = load(device.type)
            key = (kind.id, _is_shifted(device, kind))
            if key not in columns:
                columns[key] = Columns(kind, shifted=key[1])
            terminals[phone_key(device.phone)] = _Terminal(device, columns[key])
        super().__init__(
            config.id,
            clock,
            terminals,
            listen=config.listen,
            silent_s=config.silent_s,
            next_link=next_link,
            max_connections=config.max_connections,
        )
        self._answer_s = config.answer_s
        self._by_device = {station.device: station for station in terminals.values()}
        self._key = _read_key(base / config.auth_key_file) if config.auth_key_file else secrets.token_bytes(32)
        self._sink: Sink | None = None

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        await super().run(sink)

    def code_of(self, station: _Terminal) -> str:
        """The authentication code of a terminal."""
        return station.config.auth_code or hmac.new(self._key, station.key.encode(), sha256).hexdigest()[:16]

    # -- who is it

    def new_endpoint(self) -> _Endpoint:
        return _Endpoint()

    def station_key(self, message: Message, connection: Connection) -> str:
        return phone_key(message.phone)

    def stranger(self, connection: Connection, key: str, message: Message, sink: Sink) -> None:
        if isinstance(message.body, terminal.Register):
            # It would try for ever; the installer reads this on the terminal's display.
            self.send(
                connection,
                reply(message, platform.RegisterAnswer(message.ack_serial, _NO_SUCH_TERMINAL)),
                sink,
            )
        super().stranger(connection, f"*{key[-4:]}", message, sink)

    def admit(self, connection: Connection, station: _Terminal, message: Message, sink: Sink) -> bool:
        endpoint = connection.endpoint
        assert isinstance(endpoint, _Endpoint)  # noqa: S101 - made by new_endpoint
        body = message.body
        if isinstance(body, terminal.Register):
            code = self.code_of(station)
            self.send(connection, reply(message, platform.RegisterAnswer(message.ack_serial, _OK, code)), sink)
            return False
        if isinstance(body, terminal.Authenticate):
            return self._authenticate(connection, endpoint, station, message, body.auth_code, sink)
        if station.key in endpoint.trusted:
            return True
        sink.count("messages_unauthenticated", connector=self.id)
        if station.news.fresh("data.rejected", "unauthenticated", "", self.clock.now_ms()):
            text = f"message {message.msg_id:04X} before authentication"
            sink.report("data.rejected", station.device, "unauthenticated", text)
        return False

    def _authenticate(
        self, connection: Connection, endpoint: _Endpoint, station: _Terminal, message: Message, code: str, sink: Sink
    ) -> bool:
        wanted = self.code_of(station)
        if hmac.compare_digest(code.encode("utf-8", "replace"), wanted.encode()):
            endpoint.trusted.add(station.key)
            station.news.over("data.rejected", "")
            return True
        sink.count("authentications_refused", connector=self.id)
        sink.report("data.rejected", station.device, "authentication", "the authentication code is another one")
        self.send(connection, answer(message, _FAILED), sink)
        endpoint.wrong_codes += 1
        if endpoint.wrong_codes >= MAX_WRONG_CODES:
            connection.drop()
        return False

    # -- what does it say

    def received(self, connection: Connection, station: _Terminal, message: Message, sink: Sink) -> None:
        station.header = message
        if message.flag_wrong:
            sink.count("frames_wrong_version_flag", connector=self.id)
        body = message.body
        match body:
            case terminal.PositionReport(position):
                self._positions(connection, station, message, [position], sink)
            case terminal.BatchReport(batch):
                self._positions(connection, station, message, list(batch.items), sink, live=False, blind=batch.blind)
            case terminal.PositionAnswer(_, position):
                # The order it answered may be over; the position is as good as any.
                self._positions(None, station, message, [position], sink)
            case terminal.TimeQuery():
                utc = time_bcd(self.clock.now_ms() - _HOURS_8_MS)  # UTC by the text, and only here
                self.send(connection, reply(message, platform.ServerTime(utc)), sink)
            case terminal.Deregister():
                self.send(connection, answer(message), sink)
                assert isinstance(connection.endpoint, _Endpoint)  # noqa: S101 - made by new_endpoint
                connection.endpoint.trusted.discard(station.key)
            case Opaque(why="malformed"):
                sink.report("data.rejected", station.device, "body", f"{message.msg_id:04X}: {body.detail}")
                self.send(connection, answer(message, _WRONG), sink)
            case _ if message.msg_id in ANSWERS:
                sink.count("answers_received", connector=self.id)
            case Opaque() | platform.TerminalRsaKey() | platform.TerminalResendRequest():
                if not isinstance(body, platform.TerminalResendRequest):  # the endpoint sends those parts again
                    sink.count("messages_unsupported", connector=self.id)
                    self.send(connection, answer(message, _UNSUPPORTED), sink)
            case terminal.Heartbeat() | terminal.Authenticate():
                self.send(connection, answer(message), sink)
            case _ if message.msg_id in (0x0800, 0x0801):
                # Nobody asked for pictures here and nothing keeps them: an "ok" would let the terminal forget them.
                sink.count("media_refused", connector=self.id)
                self.send(connection, answer(message, _UNSUPPORTED), sink)
            case _:
                # Nothing in it is kept, by configuration: answered, so that the terminal does not send it for ever.
                sink.count("uploads_unmapped", connector=self.id)
                self.send(connection, answer(message), sink)

    def _positions(
        self, to: Connection | None, station: _Terminal, message: Message, positions: list[Position], sink: Sink,
        *, live: bool = True, blind: bool = False,
    ) -> None:  # fmt: skip
        """``to``: whom to answer once all are durable."""

        def done() -> None:
            if to is not None:
                self.send(to, answer(message), sink)

        if not positions:
            done()
            return
        now_ms = self.clock.now_ms()
        on_durable: Callable[[], None] = after_all(len(positions), done)
        for position in positions:
            sweep = self._sweep(station, message, position, now_ms, sink, live=live, blind=blind)
            sink.sweep(sweep, on_durable)

    def _sweep(
        self, station: _Terminal, message: Message, position: Position, now_ms: int, sink: Sink, *, live: bool,
        blind: bool,
    ) -> Sweep:  # fmt: skip
        time_ms = position.time_ms
        digest = position.digest
        # The same second may hold two different positions (an alarm between two periods), so the name has the digest.
        # Without a time the serial stands for it: a parked vehicle says the same for hours.
        moment = position.time.hex() if time_ms is not None else f"#{message.ack_serial}"
        name = f"{station.key}/{moment}/{digest:08x}"
        verdict = station.clock.judge(Upload(name, digest, time_ms, time_ms if live else None), now_ms)
        self._tell_clock(station, time_ms, verdict.lag_ms if verdict.skewed else 0, now_ms, sink)
        values, quality = station.columns.of(position)
        source_ms = now_ms if verdict.source_ms is None else verdict.source_ms
        return Sweep(
            station.device, source_ms, now_ms, station.columns.points, values, quality, name,
            historical=blind and verdict.source_ms is not None,
        )  # fmt: skip

    def _tell_clock(self, station: _Terminal, time_ms: int | None, lag_ms: int, now_ms: int, sink: Sink) -> None:
        if time_ms is not None and not lag_ms:
            station.news.over("dev.clock_skew", "")
            return
        code = "unset" if time_ms is None else "offset"
        if station.news.fresh("dev.clock_skew", code, "", now_ms):
            text = (
                "the terminal's clock is not set" if time_ms is None else f"its clock is {lag_ms / 1000:.0f} s behind"
            )
            sink.report("dev.clock_skew", station.device, code, f"{text}; the gateway's time is used")

    # -- orders

    async def command(self, command: Command) -> Outcome:
        """See :class:`edge.connectors.base.Commandable`."""
        station = self._by_device.get(command.device)
        kind = load(station.config.type).command(command.name) if station is not None else None
        if station is None or kind is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        sink, header = self._sink, station.header
        if sink is None or header is None or station.connection is None:
            raise LinkDown(f"{station.device} is not connected")
        try:
            order = order_of(kind, command, header.version)
        except BadArgument as error:
            return Outcome("refused", "argument", str(error))
        serial = self._serial_of(station)
        said = await self.ask(
            station, reply(header, order.asks, serial), lambda one: answers(one, serial, order), self._answer_s, sink
        )
        if said is None:
            return Outcome("unknown", "no_answer", f"nothing came within {self._answer_s:g} s")
        refused = judged(said.body)
        if refused is not None:
            return refused
        if isinstance(said.body, terminal.PositionAnswer):
            self._positions(None, station, said, [said.body.position], sink)
            return self._shown(station, kind, said.body.position)
        if isinstance(order.asks, platform.SetParameters):
            return await self._read_back(station, order.asks, header.version, sink)
        return Outcome("done")

    def _serial_of(self, station: _Terminal) -> int:
        connection = station.connection
        if connection is None:
            raise LinkDown(f"{station.device} is not connected")
        assert isinstance(connection.endpoint, _Endpoint)  # noqa: S101 - made by new_endpoint
        return connection.endpoint.next_serial

    def _shown(self, station: _Terminal, kind: CommandType, position: Position) -> Outcome:
        """What the position that came as an answer shows."""
        values, _ = station.columns.of(position)
        found = dict(zip(station.columns.points, values.tolist(), strict=True))
        shown = {name: value for name, value in found.items() if not math.isnan(value)}
        if not kind.read_back:
            return Outcome("done", read_back=shown)
        value = found.get(kind.read_back)
        if kind.expect is not None and value != kind.expect:
            return Outcome("failed", "read_back", f"{kind.read_back} is {value}", shown)
        return Outcome("done", read_back={kind.read_back: shown.get(kind.read_back, 0.0)})

    async def _read_back(
        self, station: _Terminal, asked: platform.SetParameters, version: Version, sink: Sink
    ) -> Outcome:
        (wanted,) = asked.params
        assert station.header is not None  # noqa: S101 - it has just answered
        query = platform.QueryParameters((wanted.id,))
        try:
            serial = self._serial_of(station)
            said = await self.ask(
                station,
                reply(station.header, query, serial),
                lambda one: isinstance(one.body, terminal.ParameterAnswer) and one.body.ack_sn == serial,
                self._answer_s,
                sink,
            )
        except LinkDown:
            said = None
        outcome = parameter_shown(said.body, wanted) if said is not None else None
        return outcome or Outcome("done", "not_read_back", "the terminal confirmed it and shows no parameters")


def _is_shifted(device: Jt808Device, kind: DeviceType) -> bool:
    datum = device.datum or kind.options.get("datum", "wgs84")
    if datum not in ("wgs84", "gcj02"):
        raise ConfigError(f"device type {kind.id}: option datum {datum!r}: wgs84 or gcj02")
    return datum == "gcj02"


def _read_key(file: Path) -> bytes:
    try:
        key = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"auth_key_file {file}: {type(error).__name__}") from error
    if len(key) < 16:
        raise ConfigError(f"auth_key_file {file}: at least 16 bytes")
    return key
