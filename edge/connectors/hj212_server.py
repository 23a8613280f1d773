"""HJ 212: the agent listens, stations dial in and push.

9014 goes out only once the sweep is on disk (or was recognised as a repeat of one that is), so a station keeps what a
power cut took from us.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.clock import Clock
from edge.connectors.base import LinkFactory, Sink
from edge.connectors.config import Hj212Device, Hj212ServerConfig
from edge.connectors.hj212_values import FLAGS, columns
from edge.connectors.station_clock import StationClock
from edge.connectors.station_server import Connection, Station, StationServer
from protocols.core.endpoint import Role
from protocols.core.model import Sweep
from protocols.devices import DeviceType, load
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.messages import ANSWERS, Packet, data_answer, notice_answer, set_clock

_NOTICES = ("2012", "2022", "1013")


class _Station(Station):
    def __init__(self, config: Hj212Device) -> None:
        super().__init__(config.mn, config.id)
        self.config = config
        self.type: DeviceType = load(config.type)
        self.clock = StationClock()
        self.clock_sent_ms: int | None = None


class Hj212Server(StationServer[Packet, _Station]):
    """The connector of kind ``hj212-server``."""

    def __init__(self, config: Hj212ServerConfig, clock: Clock, next_link: LinkFactory | None = None) -> None:
        super().__init__(
            config.id,
            clock,
            {device.mn: _Station(device) for device in config.device},
            listen=config.listen,
            silent_s=config.silent_s,
            next_link=next_link,
            max_connections=config.max_connections,
        )
        self._config = config
        self._rules = {device.mn: device.checksum for device in config.device}

    def new_endpoint(self) -> Hj212Endpoint:
        return Hj212Endpoint(Role.MASTER, rules=self._rules)

    def station_key(self, message: Packet, connection: Connection) -> str:
        return message.mn

    def admit(self, connection: Connection, station: _Station, message: Packet, sink: Sink) -> bool:
        if not station.config.password or message.pw == station.config.password:
            return True
        sink.report("data.rejected", station.device, "password", "the password of the station is another one")
        return False

    def received(self, connection: Connection, station: _Station, message: Packet, sink: Sink) -> None:
        if not message.length_ok:
            sink.count("frames_recovered", reason="length")
        if message.crc_variant != "hj212":
            sink.count("frames_other_checksum", variant=message.crc_variant)
        now_ms = self.clock.now_ms()
        if self._config.set_clock and station.clock_sent_ms is None:
            self._send_clock(connection, station, message, sink, now_ms)
        if message.cn in ANSWERS:
            sink.count("answers_received", connector=self.id)
        elif message.cn in _NOTICES:
            if message.wants_answer:
                self.send(connection, notice_answer(message), sink)
            if message.cn == "1013":
                self._send_clock(connection, station, message, sink, now_ms)
        else:
            self._upload(connection, station, message, sink, now_ms)

    def _upload(self, connection: Connection, station: _Station, packet: Packet, sink: Sink, now_ms: int) -> None:
        device = station.device
        found = columns(packet, station.type)
        if found.unmapped:
            sink.count("factors_unmapped", by=found.unmapped, connector=self.id)
        if not found.points:
            # Nothing in it is kept, by configuration: answered, so that the station does not send it for ever.
            sink.count("uploads_unmapped", cn=packet.cn, connector=self.id)
            if packet.wants_answer:
                self.send(connection, data_answer(packet), sink)
            return
        verdict = station.clock.judge(packet, now_ms)
        if verdict.skewed:
            if station.news.fresh("dev.clock_skew", "offset", "", now_ms):
                text = f"station clock is {_lag_text(verdict.lag_ms)}; the gateway's time is used"
                sink.report("dev.clock_skew", device, "offset", text)
                if self._config.set_clock:
                    self._send_clock(connection, station, packet, sink, now_ms)
        else:
            station.news.over("dev.clock_skew", "")
        self._tell_flags(station, found.points, found.flags, sink, now_ms)
        sweep = Sweep(
            device=device,
            source_ms=now_ms if verdict.source_ms is None else verdict.source_ms,
            seen_ms=now_ms,
            points=found.points,
            values=found.values,
            quality=found.quality,
            exchange=verdict.exchange,
        )
        on_durable: Callable[[], None] | None = None
        if packet.wants_answer:
            answer = data_answer(packet)

            def on_durable() -> None:
                self.send(connection, answer, sink)

        sink.sweep(sweep, on_durable)

    def _tell_flags(
        self, station: _Station, points: tuple[str, ...], flags: dict[str, str], sink: Sink, now_ms: int
    ) -> None:
        for point in points:
            flag = flags.get(point, "N")
            _, event, code = FLAGS.get(flag, FLAGS["N"])
            for other in ("dev.maintenance", "dev.fault"):
                station.news.over(other, point, code if other == event else "")
            if event and station.news.fresh(event, code, point, now_ms):
                sink.report(event, station.device, code, f"item flag {flag}", point=point)

    def _send_clock(self, connection: Connection, station: _Station, packet: Packet, sink: Sink, now_ms: int) -> None:
        station.clock_sent_ms = now_ms
        self.send(connection, set_clock(packet.mn, pw=packet.pw, st=packet.st, now_ms=now_ms), sink)


def _lag_text(lag_ms: int) -> str:
    return f"{abs(lag_ms) / 1000:.0f} s {'behind' if lag_ms > 0 else 'ahead'}"
