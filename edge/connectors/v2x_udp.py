"""V2X: roadside units send messages as UDP datagrams; the agent counts, and keeps no road user's trace.

Units send up to ten messages a second of each kind. Road users are gathered over a window, lights are told when they
change and once a window, notices when they change. A datagram of nobody configured is counted and reported; one that
cannot be read costs itself. What waits to be read is bounded: a flood drops the oldest, and says how many.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Sink
from edge.connectors.config import split_address
from edge.connectors.health import Health, reject
from edge.connectors.road_config import V2xDevice, V2xUdpConfig
from edge.connectors.station_server import News
from edge.connectors.v2x_values import Window, changed, crossing_of, lights, notices
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown, LinkRefused, RemoteProtocolError
from protocols.core.model import Quality, Sweep
from protocols.devices import DeviceType, load
from protocols.devices.values import Raw, by_key, reading
from protocols.v2x.endpoint import Heard, V2xEndpoint
from protocols.v2x.messages import Notices, RoadUsers, Signals, Vehicle, made_ms

log = logging.getLogger(__name__)

#: Datagrams that may wait: some seconds of a district's units. More is a flood.
MAX_WAITING = 4_096
#: Datagrams read before others on the loop get their turn.
_BATCH = 64
#: How far a wrapper's time may be off before its unit's clock is called wrong.
CLOCK_MS = 120_000

#: Lights older than this are no lights of now: a clock that is off, or a feed that lags (fact sheet: 1 s is stale).
STALE_MS = 2_000

Datagram = tuple[bytes, str]
#: Gives the next datagram with its sender; tests pass one of their own.
Source = Callable[[], Awaitable[Datagram]]


class _Unit:
    """One configured roadside unit (or one crossing of it)."""

    def __init__(self, config: V2xDevice) -> None:
        self.config = config
        self.type: DeviceType = load(config.type)
        self.health = Health(config.id, lost_after=1)
        self.news = News()
        self.window = Window()
        self.lights: dict[str, Raw] = {}
        self.notices: dict[str, Raw] = {}
        self.heard_s = 0.0
        self.stale = False  # its lights come late, or its clock is off: they are suspect


class _Inbox(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.waiting: deque[Datagram] = deque(maxlen=MAX_WAITING)
        self.dropped = 0
        self._news = asyncio.Event()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(self.waiting) == MAX_WAITING:
            self.dropped += 1  # the oldest goes: newer lights are worth more
        self.waiting.append((data, addr[0]))
        self._news.set()

    async def next(self) -> Datagram:
        while not self.waiting:
            self._news.clear()
            await self._news.wait()
        return self.waiting.popleft()


class V2xUdp:
    """The connector of kind ``v2x-udp``. ``source`` replaces the socket."""

    def __init__(self, config: V2xUdpConfig, clock: Clock, source: Source | None = None) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._source = source
        self._inbox = _Inbox()
        self._endpoint = V2xEndpoint(Role.MASTER, which=config.messages, wrapping=config.wrapping, area=config.area)
        self._units = [_Unit(device) for device in config.device]
        self._repeats = self._dropped = 0
        self.port = 0  # where it listens, once it runs

    async def run(self, sink: Sink) -> None:
        transport = None if self._source is not None else await self._open()
        loop = asyncio.get_running_loop()
        for unit in self._units:
            unit.heard_s = loop.time()
        tasks = [
            asyncio.create_task(self._read(sink), name=f"{self.id} datagrams"),
            asyncio.create_task(self._windows(sink), name=f"{self.id} windows"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if transport is not None:
                transport.close()
        for task in tasks:
            if not task.cancelled():
                task.result()  # raises what ended it

    async def _open(self) -> asyncio.DatagramTransport:
        host, port = split_address(self._config.listen, "listen")
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: self._inbox, local_addr=(host, port)
            )
        except PermissionError as error:
            raise LinkRefused(f"listen on {host}:{port}: {error.strerror}") from error
        except OSError as error:
            raise LinkDown(f"listen on {host}:{port}: {error.strerror or error}") from error
        self.port = transport.get_extra_info("sockname")[1]
        return transport

    async def _read(self, sink: Sink) -> None:
        source = self._source or self._inbox.next
        while True:
            for _ in range(_BATCH):
                data, sender = await source()
                self._take(data, sender, sink)
            await asyncio.sleep(0)

    # -- one datagram

    def _take(self, data: bytes, sender: str, sink: Sink) -> None:
        sink.count("datagrams", connector=self.id)
        by_sender = [unit for unit in self._units if unit.config.sender == sender]
        if not by_sender and self._config.wrapping == "none":
            self._stranger(sender, sink)
            return
        now_ms = self._clock.now_ms()
        found = self._endpoint.feed(data, now_ms, sender)
        if self._endpoint.repeats > self._repeats:
            sink.count("datagrams_repeated", by=self._endpoint.repeats - self._repeats, connector=self.id)
            self._repeats = self._endpoint.repeats
        for one in found:
            if isinstance(one, RemoteProtocolError):
                reject(sink, by_sender[0].config.id if by_sender else self.id, one)
                continue
            units = by_sender or [unit for unit in self._units if unit.config.name == one.device_id]
            if not units:
                self._stranger(one.device_id or sender, sink)
            for unit in units:
                self._heard(unit, one, sink, now_ms)

    def _stranger(self, who: str, sink: Sink) -> None:
        sink.count("strangers", connector=self.id)
        sink.report("data.rejected", self.id, "stranger", f"no unit {who[:40]!r} is configured")

    def _heard(self, unit: _Unit, one: Heard, sink: Sink, now_ms: int) -> None:
        unit.heard_s = asyncio.get_running_loop().time()
        unit.health.answered(sink)
        self._judge_clock(unit, one, sink, now_ms)
        match one.message:
            case RoadUsers():
                unit.window.users(one.message)
            case Vehicle():
                unit.window.vehicle(one.message)
            case Signals():
                crossing = crossing_of(one.message, unit.config.crossing)
                if crossing is None:
                    return
                self._judge_age(unit, one.message, sink, now_ms)
                now = lights(crossing)
                news = changed(unit.lights, now)
                unit.lights = now
                if news:
                    self._tell(unit, now, sink, now_ms)
            case Notices():
                now = notices(one.message)
                news = now != unit.notices
                unit.notices = now
                if news:
                    self._tell(unit, now, sink, now_ms)
            case _:
                sink.count("maps", connector=self.id)

    def _judge_clock(self, unit: _Unit, one: Heard, sink: Sink, now_ms: int) -> None:
        """Only a wrapper says what time it is; readings carry the gateway's, which is some milliseconds later."""
        if one.time_ms is None:
            return
        lag_ms = now_ms - one.time_ms
        if abs(lag_ms) <= CLOCK_MS:
            unit.news.over("dev.clock_skew", "", "stale")
        elif unit.news.fresh("dev.clock_skew", "offset", "", now_ms):
            text = f"the unit's clock is {abs(lag_ms) / 1000:.0f} s {'behind' if lag_ms > 0 else 'ahead'}"
            sink.report("dev.clock_skew", unit.config.id, "offset", text)

    def _judge_age(self, unit: _Unit, message: Signals, sink: Sink, now_ms: int) -> None:
        at_ms = made_ms(message, now_ms)
        unit.stale = at_ms is not None and abs(now_ms - at_ms) > STALE_MS
        if not unit.stale or at_ms is None:
            unit.news.over("dev.clock_skew", "", "offset")
            return
        sink.count("signals_stale", connector=self.id)
        if unit.news.fresh("dev.clock_skew", "stale", "", now_ms):
            text = f"its lights are {(now_ms - at_ms) / 1000:.0f} s old: a clock that is off, or a feed that lags"
            sink.report("dev.clock_skew", unit.config.id, "stale", text)

    # -- windows and silence

    async def _windows(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        next_s = loop.time() + self._config.window_s
        while True:
            await asyncio.sleep(max(0.0, next_s - loop.time()))
            next_s = max(next_s + self._config.window_s, loop.time())
            now_ms = self._clock.now_ms()
            if self._inbox.dropped > self._dropped:
                sink.count("datagrams_dropped", by=self._inbox.dropped - self._dropped, connector=self.id)
                self._dropped = self._inbox.dropped
            for unit in self._units:
                if unit.window.lost:
                    sink.count("road_users_dropped", by=unit.window.lost, connector=self.id)
                seen = unit.window.close()
                silent_s = loop.time() - unit.heard_s
                if silent_s > self._config.silent_s:
                    unit.health.gone(sink, f"nothing heard for {silent_s:.0f} s")
                    unit.lights, unit.notices = {}, {}  # old lights are no lights
                self._tell(unit, seen | unit.lights | unit.notices, sink, now_ms)

    def _tell(self, unit: _Unit, values: Mapping[str, Raw], sink: Sink, now_ms: int) -> None:
        points = by_key(unit.type)
        names: list[str] = []
        numbers: list[float] = []
        quality: list[int] = []
        for key, raw in values.items():
            for point in points.get(key, ()):
                number, state = reading(point, raw)
                names.append(point.name)
                numbers.append(round(number, point.decimals))
                suspect = unit.stale and key.startswith("phase/") and state == Quality.GOOD
                quality.append(Quality.SUSPECT if suspect else state)
        if names:
            columns = (np.array(numbers, dtype=np.float64), np.array(quality, dtype=np.uint8))
            sink.sweep(Sweep(unit.config.id, now_ms, now_ms, tuple(names), *columns))
