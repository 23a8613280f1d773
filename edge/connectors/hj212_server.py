"""HJ 212: the agent listens, stations dial in and push.

9014 goes out only once the sweep is on disk (or was recognised as a repeat of one that is), so a station keeps what a
power cut took from us. One connection may carry several stations; a station nobody configured is reported and gets no
answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edge.clock import Clock
from edge.connectors.base import Link, LinkFactory, Sink
from edge.connectors.config import Hj212Device, Hj212ServerConfig, split_address
from edge.connectors.health import Health, reject
from edge.connectors.hj212_values import FLAGS, columns
from edge.connectors.links import listen_tcp
from edge.connectors.station_clock import StationClock
from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError, TransportError
from protocols.core.model import Sweep
from protocols.devices import DeviceType, load
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.messages import ANSWERS, Packet, data_answer, notice_answer, set_clock

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
#: A connection that says nothing readable for this long is closed: stations push at least every hour.
IDLE_CONNECTION_S = 7_200.0
#: Answers waiting for a station that does not read; beyond it they are dropped, the station sends again.
MAX_ANSWERS = 1_024
#: A state that lasts (wrong clock, calibration) is reported when it begins and once an hour.
REMIND_MS = 3_600_000
_NOTICES = ("2012", "2022", "1013")


class _Station:
    def __init__(self, config: Hj212Device) -> None:
        self.config = config
        self.type: DeviceType = load(config.type)
        self.clock = StationClock()
        self.health = Health(config.id, lost_after=1)
        self.silence: asyncio.TimerHandle | None = None
        self.told_ms: dict[tuple[str, str, str], int] = {}
        self.clock_sent_ms: int | None = None

    def news(self, event: str, code: str, point: str, now_ms: int) -> bool:
        """Whether this state is new, or an hour has passed."""
        key = (event, code, point)
        last_ms = self.told_ms.get(key)
        if last_ms is not None and 0 <= now_ms - last_ms < REMIND_MS:
            return False
        self.told_ms[key] = now_ms
        return True

    def over(self, event: str, point: str, code: str = "") -> None:
        """States of that event and point (other than ``code``) have ended: the next one is news."""
        for key in [k for k in self.told_ms if k[0] == event and k[2] == point and k[1] != code]:
            del self.told_ms[key]


class _Connection:
    """One station's (or forwarder's) TCP connection."""

    def __init__(self, link: Link, rules: Hj212Endpoint) -> None:
        self.link = link
        self.endpoint = rules
        self.answers: asyncio.Queue[bytes] = asyncio.Queue(MAX_ANSWERS)
        self.open = True
        self.device = ""  # the station that spoke last: whom a bad frame is put down to


class Hj212Server:
    """The connector of kind ``hj212-server``.

    ``next_link`` replaces the listening socket: it is awaited again and again and gives one connection each time.
    """

    def __init__(self, config: Hj212ServerConfig, clock: Clock, next_link: LinkFactory | None = None) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._next_link = next_link
        self._stations = {device.mn: _Station(device) for device in config.device}
        self._connections: set[_Connection] = set()

    async def run(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        for station in self._stations.values():
            self._heard(station, sink, loop)
        try:
            async with asyncio.TaskGroup() as tasks:

                def accept(link: Link) -> None:
                    tasks.create_task(self._serve(link, sink), name=f"{self.id} station")

                if self._next_link is None:
                    host, port = split_address(self._config.listen, "listen")
                    server = await listen_tcp(host, port, accept)
                    try:
                        await loop.create_future()  # until cancelled
                    finally:
                        # Not waited for: from 3.12 on that waits for connections which this group ends afterwards.
                        server.close()
                else:
                    while True:
                        accept(await self._next_link())
        except BaseExceptionGroup as group:
            # The supervisor knows TransportError, not groups.
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if not isinstance(first, TransportError) or group.split(TransportError)[1] is not None:
                raise
            raise first from None
        finally:
            for station in self._stations.values():
                if station.silence is not None:
                    station.silence.cancel()
                    station.silence = None

    # -- one connection

    async def _serve(self, link: Link, sink: Sink) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            sink.count("connections_refused", connector=self.id)
            await link.close()
            return
        rules = {mn: station.config.checksum for mn, station in self._stations.items()}
        connection = _Connection(link, Hj212Endpoint(Role.MASTER, rules=rules))
        self._connections.add(connection)
        writer = asyncio.create_task(self._write(connection), name=f"{self.id} answers")
        try:
            await self._read(connection, sink)
        except TransportError as exc:
            log.debug("%s: connection lost: %s", self.id, exc)
            sink.count("connections_lost", connector=self.id)
        finally:
            connection.open = False
            self._connections.discard(connection)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await link.close()

    async def _read(self, connection: _Connection, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        endpoint = connection.endpoint
        last_s = loop.time()
        while True:
            deadline_ms = endpoint.deadline()
            idle_s = last_s + IDLE_CONNECTION_S
            wake_s = idle_s if deadline_ms is None else min(idle_s, deadline_ms / 1000)
            try:
                async with asyncio.timeout_at(max(wake_s, loop.time())):
                    data = await connection.link.read()
            except TimeoutError:
                if loop.time() >= idle_s:
                    return
                found = endpoint.tick(round(loop.time() * 1000))
            else:
                if not data:
                    return
                found = endpoint.feed(data, round(loop.time() * 1000))
            for one in found:
                if isinstance(one, RemoteProtocolError):
                    reject(sink, connection.device or self.id, one)
                else:
                    last_s = loop.time()
                    self._take(connection, one, sink)

    async def _write(self, connection: _Connection) -> None:
        try:
            while True:
                await connection.link.write(await connection.answers.get())
        except TransportError:
            connection.open = False  # the reading side notices the same and ends the connection

    def _answer(self, connection: _Connection, packet: Packet, sink: Sink) -> None:
        if not connection.open:
            return
        try:
            connection.answers.put_nowait(connection.endpoint.send(packet, 0))
        except asyncio.QueueFull:
            sink.count("answers_dropped", connector=self.id)
        except LocalProtocolError as exc:
            # What the station calls itself cannot be said back (separators in QN, PW, MN).
            sink.count("answers_unsayable", connector=self.id)
            sink.report("data.rejected", connection.device or self.id, exc.reason, str(exc))

    # -- one packet

    def _take(self, connection: _Connection, packet: Packet, sink: Sink) -> None:
        station = self._stations.get(packet.mn)
        if station is None:
            sink.count("strangers", connector=self.id)
            sink.report("data.rejected", self.id, "stranger", f"no station with MN {packet.mn[:40]!r} is configured")
            return
        device = station.config.id
        connection.device = device
        if station.config.password and packet.pw != station.config.password:
            sink.report("data.rejected", device, "password", "the password of the station is another one")
            return
        if not packet.length_ok:
            sink.count("frames_recovered", reason="length")
        if packet.crc_variant != "hj212":
            sink.count("frames_other_checksum", variant=packet.crc_variant)
        self._heard(station, sink, asyncio.get_running_loop(), alive=True)
        now_ms = self._clock.now_ms()
        if self._config.set_clock and station.clock_sent_ms is None:
            self._send_clock(connection, station, packet, sink, now_ms)
        if packet.cn in ANSWERS:
            sink.count("answers_received", connector=self.id)
        elif packet.cn in _NOTICES:
            if packet.wants_answer:
                self._answer(connection, notice_answer(packet), sink)
            if packet.cn == "1013":
                self._send_clock(connection, station, packet, sink, now_ms)
        else:
            self._upload(connection, station, packet, sink, now_ms)

    def _upload(self, connection: _Connection, station: _Station, packet: Packet, sink: Sink, now_ms: int) -> None:
        device = station.config.id
        found = columns(packet, station.type)
        if found.unmapped:
            sink.count("factors_unmapped", by=found.unmapped, connector=self.id)
        if not found.points:
            # Nothing in it is kept, by configuration: answered, so that the station does not send it for ever.
            sink.count("uploads_unmapped", cn=packet.cn, connector=self.id)
            if packet.wants_answer:
                self._answer(connection, data_answer(packet), sink)
            return
        verdict = station.clock.judge(packet, now_ms)
        if verdict.skewed:
            if station.news("dev.clock_skew", "offset", "", now_ms):
                text = f"station clock is {_lag_text(verdict.lag_ms)}; the gateway's time is used"
                sink.report("dev.clock_skew", device, "offset", text)
                if self._config.set_clock:
                    self._send_clock(connection, station, packet, sink, now_ms)
        else:
            station.over("dev.clock_skew", "")
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
                self._answer(connection, answer, sink)

        sink.sweep(sweep, on_durable)

    def _tell_flags(
        self, station: _Station, points: tuple[str, ...], flags: dict[str, str], sink: Sink, now_ms: int
    ) -> None:
        for point in points:
            flag = flags.get(point, "N")
            _, event, code = FLAGS.get(flag, FLAGS["N"])
            for other in ("dev.maintenance", "dev.fault"):
                station.over(other, point, code if other == event else "")
            if event and station.news(event, code, point, now_ms):
                sink.report(event, station.config.id, code, f"item flag {flag}", point=point)

    def _send_clock(self, connection: _Connection, station: _Station, packet: Packet, sink: Sink, now_ms: int) -> None:
        station.clock_sent_ms = now_ms
        self._answer(connection, set_clock(packet.mn, pw=packet.pw, st=packet.st, now_ms=now_ms), sink)

    # -- silence

    def _heard(self, station: _Station, sink: Sink, loop: asyncio.AbstractEventLoop, *, alive: bool = False) -> None:
        """Restart the station's silence; ``alive``: because it spoke."""
        if station.silence is not None:
            station.silence.cancel()
        if alive:
            station.health.answered(sink)
        text = f"nothing heard for {self._config.silent_s:g} s"
        station.silence = loop.call_later(self._config.silent_s, station.health.gone, sink, text)


def _lag_text(lag_ms: int) -> str:
    return f"{abs(lag_ms) / 1000:.0f} s {'behind' if lag_ms > 0 else 'ahead'}"
