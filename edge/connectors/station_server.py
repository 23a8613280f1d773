"""Stations dial in over TCP and push: what every protocol of that kind shares.

The server accepts, cuts frames, finds out whose they are, and hands whole messages on. A protocol adds what a message
means and what is answered, and when: an answer that says "I have it" goes out from ``on_durable`` only. One connection
may carry several stations; a station nobody configured is reported and gets no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from edge.clock import Clock
from edge.connectors.base import Link, LinkFactory, Sink
from edge.connectors.config import split_address
from edge.connectors.health import Health, reject
from edge.connectors.links import listen_tcp
from protocols.core.endpoint import Endpoint
from protocols.core.errors import LinkDown, LocalProtocolError, RemoteProtocolError, TransportError

log = logging.getLogger(__name__)

#: A connection that says nothing readable for this long is closed: stations push at least every hour.
IDLE_CONNECTION_S = 7_200.0
#: Answers waiting for a station that does not read; beyond it they are dropped, the station sends again.
MAX_ANSWERS = 1_024
#: A state that lasts (wrong clock, calibration) is reported when it begins and once an hour.
REMIND_MS = 3_600_000
MAX_TOLD = 256


class News:
    """What was reported of a station: a state that lasts is told when it begins and once an hour."""

    def __init__(self) -> None:
        self._told_ms: dict[tuple[str, str, str], int] = {}

    def fresh(self, event: str, code: str, point: str, now_ms: int) -> bool:
        """Whether this state is new, or an hour has passed."""
        key = (event, code, point)
        last_ms = self._told_ms.pop(key, None)
        fresh = last_ms is None or not 0 <= now_ms - last_ms < REMIND_MS
        self._told_ms[key] = now_ms if fresh or last_ms is None else last_ms
        while len(self._told_ms) > MAX_TOLD:
            del self._told_ms[next(iter(self._told_ms))]
        return fresh

    def over(self, event: str, point: str, code: str = "") -> None:
        """States of that event and point (other than ``code``) have ended: the next one is news."""
        for key in [k for k in self._told_ms if k[0] == event and k[2] == point and k[1] != code]:
            del self._told_ms[key]


class Station:
    """One configured station. Protocols subclass it with what they remember of one."""

    def __init__(self, key: str, device: str) -> None:
        self.key = key
        self.device = device
        self.health = Health(device, lost_after=1)
        self.news = News()
        self.connection: Connection | None = None  # where it spoke last
        self.silence: asyncio.TimerHandle | None = None
        self.heard_s = 0.0  # loop time
        self.waiting: list[tuple[Callable[[Any], bool], asyncio.Future[Any]]] = []


class Connection:
    """One station's (or forwarder's) TCP connection."""

    def __init__(self, link: Link, endpoint: Endpoint[Any], task: asyncio.Task[Any] | None, opened_s: float) -> None:
        self.link = link
        self.endpoint = endpoint
        self.open = True
        self.device = ""  # the station that spoke last: whom a bad frame is put down to
        self.stations: set[str] = set()
        self.opened_s = opened_s
        self._task = task
        self._queue: deque[bytes] = deque()
        self._writer: asyncio.Task[None] | None = None

    def put(self, data: bytes) -> bool:
        """Queue bytes; False if the other end does not read and the queue is full."""
        if len(self._queue) >= MAX_ANSWERS:
            return False
        self._queue.append(data)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())
        return True

    async def _write(self) -> None:
        try:
            while self._queue:
                # What has gathered goes out as one piece: fewer segments after a burst.
                data = b"".join(self._queue)
                self._queue.clear()
                await self.link.write(data)
        except TransportError:
            self.open = False  # the reading side notices the same and ends the connection
        finally:
            self._writer = None

    def drop(self) -> None:
        """End it from our side."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        self.open = False
        if (writer := self._writer) is not None:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await self.link.close()


MessageT = TypeVar("MessageT")
StationT = TypeVar("StationT", bound=Station)


class StationServer(ABC, Generic[MessageT, StationT]):
    """``next_link`` replaces the listening socket: it is awaited again and again and gives one connection each time.

    ``stations``: by the key they have in their messages (MN, terminal number, address).
    """

    def __init__(
        self,
        connector_id: str,
        clock: Clock,
        stations: Mapping[str, StationT],
        *,
        listen: str,
        silent_s: float,
        next_link: LinkFactory | None = None,
        max_connections: int = 256,
    ) -> None:
        self.id = connector_id
        self.clock = clock
        self.stations = dict(stations)
        self._listen = listen
        self._silent_s = silent_s
        self._next_link = next_link
        self._max_connections = max_connections
        self._connections: set[Connection] = set()

    # -- what a protocol adds

    @abstractmethod
    def new_endpoint(self) -> Endpoint[MessageT]:
        """The platform's end of a fresh connection."""

    def endpoint_for(self, link: Link) -> Endpoint[MessageT]:
        """The same where the link itself says more: what was negotiated when it was opened."""
        return self.new_endpoint()

    @abstractmethod
    def station_key(self, message: MessageT, connection: Connection) -> str:
        """Which station says this."""

    @abstractmethod
    def received(self, connection: Connection, station: StationT, message: MessageT, sink: Sink) -> None:
        """One whole message of a station that was admitted."""

    def admit(self, connection: Connection, station: StationT, message: MessageT, sink: Sink) -> bool:
        """Whether the station is who it says it is (a password, an authentication before). Reports if not."""
        return True

    def stranger(self, connection: Connection, key: str, message: MessageT, sink: Sink) -> StationT | None:
        """A station nobody configured. The default reports it; a protocol may admit it by returning a station, which
        is then kept."""
        sink.count("strangers", connector=self.id)
        sink.report("data.rejected", self.id, "stranger", f"no station {key[:40]!r} is configured")
        if not key.startswith("*"):  # a name that is hidden (a person's vehicle) is nobody's to accept
            sink.report("device.unlisted", self.id, key[:100], f"dialled in at {self.id}")
        return None

    def silent_after_s(self, station: StationT) -> float:
        """After which silence it is offline; a protocol without heartbeats may have learnt better."""
        return self._silent_s

    def left(self, station: StationT, sink: Sink) -> None:
        """The station's connection has ended. Silence is judged by ``silent_s``, not by this."""

    # -- what it uses

    def send(self, connection: Connection, message: MessageT, sink: Sink) -> bool:
        """Encode and queue one message; False if it could not be."""
        if not connection.open:
            return False
        try:
            data = connection.endpoint.send(message, self._now_ms())
        except LocalProtocolError as exc:
            # What the station calls itself cannot be said back (separators in a name).
            sink.count("answers_unsayable", connector=self.id)
            sink.report("data.rejected", connection.device or self.id, exc.reason, str(exc))
            return False
        if not connection.put(data):
            sink.count("answers_dropped", connector=self.id)
            return False
        return True

    async def ask(
        self, station: StationT, message: MessageT, match: Callable[[MessageT], bool], timeout_s: float, sink: Sink
    ) -> MessageT | None:
        """Send to where the station is and wait for the message that ``match`` accepts (it is not handed to
        :meth:`received`); None after ``timeout_s``. Raises LinkDown if the station is not connected."""
        connection = station.connection
        if connection is None or not connection.open:
            raise LinkDown(f"{station.device} is not connected")
        future: asyncio.Future[MessageT] = asyncio.get_running_loop().create_future()
        entry = (match, future)
        station.waiting.append(entry)
        try:
            if not self.send(connection, message, sink):
                raise LinkDown(f"{station.device} takes no messages")
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return None
        finally:
            station.waiting.remove(entry)

    # -- serving

    async def run(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        for station in self.stations.values():
            self._heard(station, sink, loop)
        try:
            async with asyncio.TaskGroup() as tasks:

                def accept(link: Link) -> None:
                    tasks.create_task(self._serve(link, sink), name=f"{self.id} station")

                if self._next_link is None:
                    host, port = split_address(self._listen, "listen")
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
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # Being stopped in the same moment: a group that has an error forgets that (CPython 3.11).
                raise asyncio.CancelledError from None
            raise first from None
        finally:
            for station in self.stations.values():
                if station.silence is not None:
                    station.silence.cancel()
                    station.silence = None

    async def _serve(self, link: Link, sink: Sink) -> None:
        if len(self._connections) >= self._max_connections and not self._make_room(sink):
            sink.count("connections_refused", connector=self.id)
            await link.close()
            return
        opened_s = asyncio.get_running_loop().time()
        connection = Connection(link, self.endpoint_for(link), asyncio.current_task(), opened_s)
        self._connections.add(connection)
        try:
            await self._read(connection, sink)
        except TransportError as exc:
            log.debug("%s: connection lost: %s", self.id, exc)
            sink.count("connections_lost", connector=self.id)
        finally:
            self._connections.discard(connection)
            for key in connection.stations:
                station = self.stations.get(key)
                if station is not None and station.connection is connection:
                    station.connection = None
                    self.left(station, sink)
            await connection.close()

    def _make_room(self, sink: Sink) -> bool:
        """Somebody who connects and says nothing must not shut the stations out: the oldest such one goes."""
        silent = [one for one in self._connections if not one.stations]
        if not silent:
            return False
        oldest = min(silent, key=lambda one: one.opened_s)
        sink.count("connections_evicted", connector=self.id)
        self._connections.discard(oldest)
        oldest.drop()
        return True

    async def _read(self, connection: Connection, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        endpoint = connection.endpoint
        #: Repeats that the protocol itself wants written, if its endpoint has such.
        take_output: Callable[[], bytes] | None = getattr(endpoint, "take_output", None)
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
                found = endpoint.tick(self._now_ms())
            else:
                if not data:
                    return
                found = endpoint.feed(data, self._now_ms())
            for one in found:
                if isinstance(one, RemoteProtocolError):
                    reject(sink, connection.device or self.id, one)
                else:
                    last_s = loop.time()
                    self._take(connection, one, sink)
            if take_output is not None and (data := take_output()):
                connection.put(data)

    def _take(self, connection: Connection, message: MessageT, sink: Sink) -> None:
        key = self.station_key(message, connection)
        station = self.stations.get(key)
        if station is None:
            station = self.stranger(connection, key, message, sink)
            if station is None:
                return
            self.stations[key] = station
        connection.device = station.device
        if not self.admit(connection, station, message, sink):
            return
        self._moved(connection, station)
        self._heard(station, sink, asyncio.get_running_loop(), alive=True)
        for match, future in station.waiting:
            if not future.done() and match(message):
                future.set_result(message)
                return
        self.received(connection, station, message, sink)

    def _moved(self, connection: Connection, station: StationT) -> None:
        """The station is on this connection now. An old one that carries nobody else is dead: modems redial without
        having hung up."""
        old = station.connection
        if old is connection:
            return
        station.connection = connection
        connection.stations.add(station.key)
        if old is not None:
            old.stations.discard(station.key)
            if not old.stations:
                old.drop()

    # -- silence

    def _heard(self, station: StationT, sink: Sink, loop: asyncio.AbstractEventLoop, *, alive: bool = False) -> None:
        """Restart the station's silence; ``alive``: because it spoke."""
        station.heard_s = loop.time()
        if alive:
            station.health.answered(sink)
        if station.silence is None:
            self._watch(station, sink, loop)
        elif station.silence.when() > station.heard_s + self.silent_after_s(station):
            station.silence.cancel()  # a shorter silence than before is telling now
            self._watch(station, sink, loop)

    def _watch(self, station: StationT, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        """One timer a station, set anew when it goes off rather than with every word: thousands of stations talk."""

        def look() -> None:
            station.silence = None
            silent_s = self.silent_after_s(station)
            if loop.time() < station.heard_s + silent_s:
                self._watch(station, sink, loop)
            else:
                station.health.gone(sink, f"nothing heard for {silent_s:g} s")

        station.silence = loop.call_at(station.heard_s + self.silent_after_s(station), look)

    @staticmethod
    def _now_ms() -> int:
        # The loop's time: a gateway clock that is set must not complete or expire frames.
        with contextlib.suppress(RuntimeError):
            return round(asyncio.get_running_loop().time() * 1000)
        return 0
