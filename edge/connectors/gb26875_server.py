"""Fire alarm transmitters dial in (GB/T 26875.3): the agent is their monitoring centre.

A confirmation goes out only when everything a packet said is on disk; until then the transmitter repeats it. One
transmitter tells of many components: each that is configured is a device of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from zlib import crc32

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.config import split_address
from edge.connectors.datagrams import DatagramDoor
from edge.connectors.gb26875_values import Strays, columns, tell, tell_stray
from edge.connectors.gb_config import Gb26875Device, Gb26875ServerConfig
from edge.connectors.health import Health
from edge.connectors.station_clock import StationClock, Upload
from edge.connectors.station_server import Connection, Station, StationServer
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown, LocalProtocolError
from protocols.core.model import Quality, Sweep
from protocols.devices import load
from protocols.gb26875 import messages as m
from protocols.gb26875 import objects as o
from protocols.gb26875.endpoint import Gb26875Endpoint
from protocols.gb26875.points import canonical_part, parse_part, part_of, said, typed_part_of, under_test
from protocols.gb26875.units import Content, content, unit, unit_of

#: The standard gives a device 10 s to answer.
ANSWER_S = 10.5
#: A clock that reads back within this is set.
CLOCK_FITS_MS = 5_000
#: Gaps a transmitter's rhythm is learnt from; shorter ones belong to one happening.
_GAPS, _LEAST_GAP_S, _LEAST_SILENCE_S = 16, 5.0, 180.0
_READ_CLOCK = 88


class _Part:
    """A device that one transmitter tells of, or the transmitter itself."""

    def __init__(self, config: Gb26875Device) -> None:
        self.device = config.id
        self.numbers = parse_part(canonical_part(config.part))
        self.type = load(config.type)


class _Health(Health):
    """Behind a silent transmitter nobody can be heard: what is lost with it is lost with all its parts."""

    def __init__(self, device: str, parts: Mapping[str, _Part]) -> None:
        super().__init__(device, lost_after=1)
        self._parts = parts

    def answered(self, sink: Sink) -> None:
        news = self.online is not True
        super().answered(sink)
        self._tell(sink, news, online=True, detail="")

    def gone(self, sink: Sink, detail: str = "") -> None:
        news = self.online is not False
        super().gone(sink, detail)
        self._tell(sink, news, online=False, detail=f"{self.device}: {detail}")

    def _tell(self, sink: Sink, news: bool, *, online: bool, detail: str) -> None:
        for part in self._parts.values() if news else ():
            if part.device != self.device:
                sink.device_state(part.device, online=online, detail=detail)


class _Transmitter(Station):
    def __init__(self, config: Gb26875Device) -> None:
        super().__init__(config.transmitter.upper(), config.id)
        self.layout = config.layout
        self.parts: dict[str, _Part] = {}
        self.health = _Health(config.id, self.parts)
        self.clock = StationClock()
        self.strays = Strays()
        self.centre = m.NOBODY  # the address it knows us by
        self.clock_sent_ms: int | None = None
        self.spoke_s: float | None = None
        self.gaps: deque[float] = deque(maxlen=_GAPS)


class Gb26875Server(StationServer[m.Packet, _Transmitter]):
    """The connector of kind ``gb26875-server``."""

    def __init__(self, config: Gb26875ServerConfig, clock: Clock, next_link: LinkFactory | None = None) -> None:
        stations = {d.transmitter.upper(): _Transmitter(d) for d in config.device if not d.part}
        for device in config.device:
            stations[device.transmitter.upper()].parts[canonical_part(device.part)] = _Part(device)
        super().__init__(
            config.id,
            clock,
            stations,
            listen=config.listen,
            silent_s=config.silent_s,
            next_link=next_link,
            max_connections=config.max_connections,
        )
        self._config = config
        self._sink: Sink | None = None

    async def run(self, sink: Sink) -> None:
        self._sink = sink
        if self._config.transport == "tcp" or self._next_link is not None:
            await super().run(sink)
            return
        door = DatagramDoor(*split_address(self._config.listen, "listen"))
        await door.open()
        self._next_link = door.accept
        try:
            await super().run(sink)
        finally:
            self._next_link = None
            door.close()

    def new_endpoint(self) -> Gb26875Endpoint:
        # An order is never repeated behind the back of whoever gave it.
        return Gb26875Endpoint(Role.MASTER, repeats=0)

    def station_key(self, message: m.Packet, connection: Connection) -> str:
        return message.source

    def stranger(self, connection: Connection, key: str, message: m.Packet, sink: Sink) -> _Transmitter | None:
        turned = bytes.fromhex(key)[::-1].hex().upper()
        if turned in self.stations and turned != key:
            text = f"transmitter {key}: {turned} is configured, its bytes the other way round; write {key}"
            sink.count("strangers", connector=self.id)
            sink.report("data.rejected", self.id, "stranger", text)
            return None
        return super().stranger(connection, key, message, sink)

    def silent_after_s(self, station: _Transmitter) -> float:
        if len(station.gaps) < _GAPS:
            return self._config.silent_s
        return min(self._config.silent_s, max(_LEAST_SILENCE_S, 3 * max(station.gaps)))

    # -- in

    def received(self, connection: Connection, station: _Transmitter, message: m.Packet, sink: Sink) -> None:
        now_ms = self.clock.now_ms()
        self._learn(station, message)
        if self._config.set_clock and station.clock_sent_ms is None:
            self._send_clock(connection, station, sink, now_ms)
        if message.command == m.SEND:
            confirmation = m.answer(message, m.CONFIRM, stamp=_stamp(now_ms))
            sweeps = self._take_unit(connection, station, message, sink, now_ms)
            self._confirm_when_durable(connection, confirmation, sweeps, sink)
        elif message.command == m.REPLY:
            for sweep in self._take_unit(connection, station, message, sink, now_ms):  # late, or not asked for
                sink.sweep(sweep)
        elif message.is_answer:
            sink.count("answers_received", connector=self.id)
        else:
            sink.count("commands_unknown", connector=self.id)

    def _learn(self, station: _Transmitter, message: m.Packet) -> None:
        now_s = asyncio.get_running_loop().time()
        if station.spoke_s is not None and now_s - station.spoke_s >= _LEAST_GAP_S:
            station.gaps.append(now_s - station.spoke_s)
        station.spoke_s = now_s
        station.centre = message.destination

    def _confirm_when_durable(
        self, connection: Connection, confirmation: m.Packet, sweeps: list[Sweep], sink: Sink
    ) -> None:
        """Confirm when all of it is on disk; at once where nothing of it is kept."""
        if not sweeps:
            self.send(connection, confirmation, sink)
            return
        left = len(sweeps)

        def one_is_durable() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self.send(connection, confirmation, sink)

        for sweep in sweeps:
            sink.sweep(sweep, one_is_durable)

    def _take_unit(
        self, connection: Connection, station: _Transmitter, packet: m.Packet, sink: Sink, now_ms: int
    ) -> list[Sweep]:
        found = unit_of(packet)
        if found is None:
            return []
        told = content(found, station.layout)
        if told.layout == "raw" and found.count and found.type in o.OBJECTS:
            text = f"type {found.type}: objects of {told.object_len or '?'} bytes are a maker's own, kept by nobody"
            sink.count("objects_private", by=found.count, connector=self.id)
            if station.news.fresh("data.rejected", "private_object", str(found.type), now_ms):
                sink.report("data.rejected", station.device, "private_object", text)
        elif told.layout == "raw":
            sink.count("units_private", connector=self.id)
        return self._sweeps(connection, station, packet, told, sink, now_ms)

    def _sweeps(
        self,
        connection: Connection,
        station: _Transmitter,
        packet: m.Packet,
        told: Content,
        sink: Sink,
        now_ms: int,
    ) -> list[Sweep]:
        out: list[Sweep] = []
        strays = False
        for number, one in enumerate(told.objects):
            values = said(one)
            part = self._part_of(station, one)
            if part is None:
                if part_of(one) is not None:
                    tell_stray(one, station.device, station.strays, station.news, sink, now_ms)
                    strays = strays or "state" in values
                continue
            source_ms, exchange = self._time_of(connection, station, packet, one, number, sink, now_ms)
            tell(one, part.device, station.news, sink, now_ms)
            quality = Quality.MAINTENANCE if under_test(one) else Quality.GOOD
            sweep = columns(part.device, part.type, values, quality, source_ms, now_ms)
            if sweep is not None:
                out.append(replace(sweep, exchange=exchange))
            elif values:
                sink.count("values_unmapped", by=len(values), connector=self.id)
        if strays:
            own = station.parts[""]
            fires = {"stray.fires": float(len(station.strays.fires))}
            if (sweep := columns(own.device, own.type, fires, Quality.GOOD, now_ms, now_ms)) is not None:
                out.append(sweep)
        return out

    def _part_of(self, station: _Transmitter, one: o.Object) -> _Part | None:
        for part in (typed_part_of(one), part_of(one)):
            if part is not None and (found := station.parts.get(part)) is not None:
                return found
        return None

    def _time_of(
        self,
        connection: Connection,
        station: _Transmitter,
        packet: m.Packet,
        one: o.Object,
        number: int,
        sink: Sink,
        now_ms: int,
    ) -> tuple[int, str]:
        """The time of an object, and the name by which a repeat of it is known. Without any time no name would be
        safe: serial numbers start over, and a fire must not pass for a repeat of last year's."""
        told_ms, data_ms = m.time_ms(packet.stamp), m.time_ms(getattr(one, "stamp", b""))
        if told_ms is None and data_ms is None:
            if station.news.fresh("dev.clock_skew", "unset", "", now_ms):
                sink.report("dev.clock_skew", station.device, "unset", "no time in its packets; the gateway's is used")
            return now_ms, ""
        name = f"{packet.source}/{packet.stamp.hex()}/{packet.serial}/{number}"
        upload = Upload(name=name, digest=crc32(packet.data), data_ms=data_ms, told_ms=told_ms)
        verdict = station.clock.judge(upload, now_ms)
        if not verdict.skewed:
            station.news.over("dev.clock_skew", "")
        elif station.news.fresh("dev.clock_skew", "offset", "", now_ms):
            text = f"its clock is {-verdict.lag_ms / 1000:+.0f} s off; the gateway's time is used"
            sink.report("dev.clock_skew", station.device, "offset", text)
            if self._config.set_clock:
                self._send_clock(connection, station, sink, now_ms)
        source_ms = verdict.source_ms if verdict.source_ms is not None else now_ms
        return source_ms, f"{verdict.exchange}/{upload.digest:08x}"

    # -- out

    def _packet(self, station: _Transmitter, connection: Connection, command: int, data: bytes) -> m.Packet:
        endpoint = connection.endpoint
        assert isinstance(endpoint, Gb26875Endpoint)  # noqa: S101 - new_endpoint makes no other
        stamp = _stamp(self.clock.now_ms())
        return m.Packet(command, endpoint.next_serial(), station.centre, station.key, data, stamp)

    def _send_clock(self, connection: Connection, station: _Transmitter, sink: Sink, now_ms: int) -> None:
        station.clock_sent_ms = now_ms
        if (stamp := _stamp(now_ms)) != m.NO_TIME:
            data = unit(o.SET_CLOCK, [o.Clock(stamp)]).data
            self.send(connection, self._packet(station, connection, m.CONTROL, data), sink)

    async def command(self, command: Command) -> Outcome:
        """Read a state, set the clock, call the guard. The standard has no remote silence and no remote reset."""
        found = next(
            ((s, p) for s in self.stations.values() for p in s.parts.values() if p.device == command.device), None
        )
        what = found[1].type.command(command.name) if found is not None else None
        if found is None or what is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        station, part = found
        kind = int(what.key)
        try:
            data = _order(kind, part, command, self.clock.now_ms())
        except (LocalProtocolError, ValueError) as error:
            return Outcome("refused", "argument", str(error))
        answer = await self._ask(station, m.CONTROL if kind >= o.INITIALISE else m.REQUEST, data)
        if answer is None:
            return Outcome("unknown", "no_answer", f"no answer within {ANSWER_S:g} s")
        if answer.command == m.DENY:
            return Outcome("refused", "denied", "the transmitter denied it")
        if kind == o.SET_CLOCK:
            return await self._clock_read_back(station)
        return Outcome("done", read_back=self._shown(station, part, answer))

    async def _ask(self, station: _Transmitter, command: int, data: bytes) -> m.Packet | None:
        connection, sink = station.connection, self._sink
        if connection is None or sink is None:
            raise LinkDown(f"{station.device} is not connected")
        packet = self._packet(station, connection, command, data)

        def answers(message: m.Packet) -> bool:
            return message.is_answer and message.serial == packet.serial

        return await self.ask(station, packet, answers, ANSWER_S, sink)

    async def _clock_read_back(self, station: _Transmitter) -> Outcome:
        try:
            answer = await self._ask(station, m.REQUEST, unit(_READ_CLOCK, [o.ReadTransmitter()]).data)
        except LinkDown as error:
            return Outcome("done", "no_read_back", f"confirmed; its clock was not read: {error}")
        found = unit_of(answer) if answer is not None else None
        clocks = [one for one in content(found).objects if isinstance(one, o.Clock)] if found is not None else []
        shown_ms = m.time_ms(clocks[0].stamp) if clocks else None
        if shown_ms is None:
            return Outcome("done", "no_read_back", "confirmed; this transmitter does not tell its clock")
        off_s = (shown_ms - self.clock.now_ms()) / 1000
        text = f"its clock is {off_s:+.0f} s off"
        if abs(off_s) * 1000 > CLOCK_FITS_MS:
            return Outcome("failed", "read_back", text)
        return Outcome("done", detail=text)

    def _shown(self, station: _Transmitter, part: _Part, answer: m.Packet) -> dict[str, float | str]:
        """What the answer says of the device, which is also its newest reading."""
        sink, connection = self._sink, station.connection
        if sink is None or connection is None:
            return {}
        out: dict[str, float | str] = {}
        for sweep in self._take_unit(connection, station, answer, sink, self.clock.now_ms()):
            sink.sweep(sweep)
            if sweep.device == part.device:
                out |= dict(zip(sweep.points, sweep.values.tolist(), strict=True))
        return out


def _stamp(now_ms: int) -> bytes:
    """The gateway's time, zeros before somebody set it."""
    try:
        return m.stamp_at(now_ms)
    except LocalProtocolError:
        return m.NO_TIME


def _order(kind: int, part: _Part, command: Command, now_ms: int) -> bytes:
    match kind, part.numbers:
        case 61 | 65 | 66 | 68, (system, address):
            return unit(kind, [o.ReadSystem(system, address)]).data
        case 62 | 63 | 67, (system, address, number):
            return unit(kind, [o.ReadComponent(system, address, number)]).data
        case o.SET_CLOCK, ():
            return unit(kind, [o.Clock(m.stamp_at(now_ms))]).data
        case o.DUTY_CHECK, ():
            return unit(kind, [o.DutyCheck(int(command.arguments["minutes"]))]).data
        case 81 | 85 | 86 | 88 | o.INITIALISE, ():
            return unit(kind, [o.ReadTransmitter()]).data
    raise ValueError(f"command {kind} does not fit part {'/'.join(map(str, part.numbers)) or 'of the transmitter'}")
