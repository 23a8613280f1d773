"""Cameras register here (GB/T 28181): who is there, how it is, its channels, its alarms; PTZ where allowed.

Media are negotiated, never received: a stream goes from the camera to a media server that a command names. A movement
is always followed by a stop, also when the one who ordered it goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Command, Link, LinkFactory, Outcome, Sink
from edge.connectors.config import split_address
from edge.connectors.datagrams import listen_udp
from edge.connectors.gb28181_alarms import kind_of
from edge.connectors.gb28181_camera import Camera
from edge.connectors.gb28181_orders import Orders
from edge.connectors.health import reject
from edge.connectors.links import listen_tcp
from edge.connectors.secret import read_secret
from edge.connectors.station_server import Connection
from edge.connectors.street_config import Gb28181ServerConfig
from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError, TransportError
from protocols.core.model import Sweep
from protocols.devices.values import Raw, reading
from protocols.gb28181.endpoint import SipEndpoint
from protocols.gb28181.events import Catalogue, Garbled, Gone, Media, Refused, Registered, Said
from protocols.gb28181.frame import SipMessage, build
from protocols.gb28181.manscdp import Body, Channel
from protocols.gb28181.party import Finished, Peer, time_ms
from protocols.gb28181.platform import Platform

log = logging.getLogger(__name__)

#: A TCP connection that says nothing readable for this long is closed.
IDLE_CONNECTION_S = 7_200.0
CLOCK_OFF_S = 60.0
#: Reasons of a refusal that are worth a report under the device; the rest belong to the connector.
_OWN_REASONS = frozenset({"password", "replay", "locked", "moved", "algorithm"})


class Gb28181Server:
    """The connector of kind ``gb28181-server``.

    ``next_link`` replaces the listening sockets: it is awaited again and again and gives one TCP connection each time.
    """

    def __init__(
        self, config: Gb28181ServerConfig, clock: Clock, base: Path, next_link: LinkFactory | None = None
    ) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._next_link = next_link
        self._cameras = {device.gb_id: Camera(device) for device in config.device}
        self._by_id = {camera.id: camera for camera in self._cameras.values()}
        accounts = {one.gb_id: read_secret(Path(one.config.password_file), base) for one in self._cameras.values()}
        host, port = split_address(config.advertise or config.listen, "advertise")
        self.platform = Platform(
            config.server_id, config.realm or config.server_id[:10], host, port, accounts,
            secret=os.urandom(32), token=lambda: secrets.token_hex(8), md5=config.md5,
        )  # fmt: skip
        self._udp: asyncio.DatagramTransport | None = None
        self._connections: dict[int, Connection] = {}
        self._links = 0
        self._due = asyncio.Event()
        self._sink: Sink | None = None
        self.orders = Orders(self.platform, self._now_ms, self.flush)

    # -- life -----------------------------------------------------------------------------------------------------
    async def run(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        self._sink = sink
        for camera in self._cameras.values():
            self._heard(camera, sink)
        server: asyncio.Server | None = None
        try:
            async with asyncio.TaskGroup() as tasks:

                def accept(link: Link) -> None:
                    tasks.create_task(self._serve(link, sink), name=f"{self.id} connection")

                tasks.create_task(self._tick(sink), name=f"{self.id} timers")
                if self._next_link is not None:
                    while True:
                        accept(await self._next_link())
                host, port = split_address(self._config.listen, "listen")
                self._udp = await listen_udp(host, port, lambda data, peer: self._datagram(data, peer, sink))
                if self._config.tcp:
                    server = await listen_tcp(host, self._udp.get_extra_info("sockname")[1], accept)
                await loop.create_future()  # until cancelled
        except BaseExceptionGroup as group:
            # The supervisor knows TransportError, not groups.
            lost, other = group.split(TransportError)
            if lost is None or other is not None:
                raise
            first: BaseException = lost
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # Being stopped in the same moment: a group that has an error forgets that (CPython 3.11).
                raise asyncio.CancelledError from None
            raise first from None
        finally:
            self.orders.stop_all()
            self._sink = None
            if server is not None:
                server.close()
            if self._udp is not None:
                self._udp.close()
                self._udp = None
            for camera in self._cameras.values():
                if camera.silence is not None:
                    camera.silence.cancel()

    @property
    def port(self) -> int:
        """The UDP port in use, 0 while not listening (for configurations with port 0)."""
        return int(self._udp.get_extra_info("sockname")[1]) if self._udp is not None else 0

    def channels(self, device: str) -> tuple[Channel, ...]:
        """What the device's catalogue said last."""
        camera = self._by_id.get(device)
        return tuple(camera.channels.values()) if camera is not None else ()

    def _now_ms(self) -> int:
        """The loop's time for every time-out: a clock that is set must not throw all cameras out. The platform is
        told how far UTC is ahead of it, for the Date it gives."""
        now_ms = round(asyncio.get_running_loop().time() * 1000)
        self.platform.utc_ahead_ms = self._clock.now_ms() - now_ms
        return now_ms

    async def _tick(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._events(self.platform.tick(self._now_ms()), sink)
            self._ask_due(loop.time())
            self.flush()
            self._due.clear()
            times = [self.platform.deadline()]
            times += [
                round(at * 1000)
                for camera in self._cameras.values()
                if self.platform.peer_of(camera.gb_id) is not None
                for at in camera.asked_s.values()
            ]
            next_ms = min((at for at in times if at is not None), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if next_ms is None else next_ms / 1000):
                    await self._due.wait()

    def _ask_due(self, now_s: float) -> None:
        """Ask registered devices for their channels and their state, each in its own rhythm."""
        for camera in self._cameras.values():
            if self.platform.peer_of(camera.gb_id) is None:
                continue
            if camera.asked_s["catalogue"] <= now_s:
                camera.asked_s["catalogue"] = now_s + self._config.catalogue_s
                self.platform.query_catalogue(camera.gb_id, self._now_ms())
            if camera.asked_s["status"] <= now_s:
                camera.asked_s["status"] = now_s + self._config.status_s
                self.platform.ask(camera.gb_id, "Query", "DeviceStatus", self._now_ms())

    # -- in and out -----------------------------------------------------------------------------------------------
    def _datagram(self, data: bytes, source: tuple[str, int], sink: Sink) -> None:
        peer = Peer(source[0], source[1])
        for one in SipEndpoint(Role.MASTER).feed_datagram(data):
            self._take(one, peer, sink)

    async def _serve(self, link: Link, sink: Sink) -> None:
        if len(self._connections) >= self._config.max_connections:
            sink.count("connections_refused", connector=self.id)
            await link.close()
            return
        self._links += 1
        number = self._links
        host, _, port = str(getattr(link, "peer", "")).rpartition(":")
        peer = Peer(host or "peer", int(port) if port.isdecimal() else 0, "tcp", number)
        loop = asyncio.get_running_loop()
        connection = Connection(link, SipEndpoint(Role.MASTER), asyncio.current_task(), loop.time())
        self._connections[number] = connection
        try:
            await self._read(connection, peer, sink)
        except TransportError as exc:
            log.debug("%s: connection lost: %s", self.id, exc)
            sink.count("connections_lost", connector=self.id)
        finally:
            del self._connections[number]
            self._events(self.platform.link_lost(number), sink)
            await connection.close()

    async def _read(self, connection: Connection, peer: Peer, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        endpoint = connection.endpoint
        last_s = loop.time()
        while True:
            deadline_ms = endpoint.deadline()
            idle_s = last_s + IDLE_CONNECTION_S
            try:
                async with asyncio.timeout_at(idle_s if deadline_ms is None else min(idle_s, deadline_ms / 1000)):
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
                if not isinstance(one, RemoteProtocolError):
                    last_s = loop.time()
                self._take(one, peer, sink)

    def _take(self, one: SipMessage | RemoteProtocolError, peer: Peer, sink: Sink) -> None:
        if isinstance(one, RemoteProtocolError):
            reject(sink, self._who(peer), one)
            return
        if not one.length_ok:
            sink.count("frames_recovered", reason="length")
        self._events(self.platform.feed(one, peer, self._now_ms()), sink)
        self.flush()

    def _who(self, peer: Peer) -> str:
        """The device that is at this address, else the connector."""
        for camera in self._cameras.values():
            if self.platform.peer_of(camera.gb_id) == peer:
                return camera.id
        return self.id

    def flush(self) -> None:
        """Put what the platform wants to say on the wire. A peer that is gone is told nothing: its silence shows."""
        for peer, message in self.platform.take_output():
            try:
                data = build(message)
            except LocalProtocolError as exc:
                # What the device calls itself cannot be said back (a line end in a header).
                if self._sink is not None:
                    self._sink.count("answers_unsayable", connector=self.id)
                log.debug("%s: %s", self.id, exc)
                continue
            if peer.transport == "udp":
                if self._udp is not None:
                    self._udp.sendto(data, (peer.host, peer.port))
            elif (connection := self._connections.get(peer.link)) is not None:
                connection.put(data)
        self._due.set()

    # -- what happened --------------------------------------------------------------------------------------------
    def _events(self, events: list[Any], sink: Sink) -> None:
        for event in events:
            match event:
                case Registered():
                    self._registered(self._cameras[event.device], event, sink)
                case Gone(device, reason):
                    # A TCP connection that ended says little: the camera dials again, or its silence shows.
                    if reason != "link":
                        self._cameras[device].health.gone(sink, f"registration ended: {reason}")
                case Refused(device, peer, reason):
                    self._refused(device, peer, reason, sink)
                case Garbled(device, error):
                    reject(sink, self._cameras[device].id, error)
                case Said(device, body):
                    self._said(self._cameras[device], body, sink)
                case Catalogue():
                    self._catalogued(self._cameras[event.device], event, sink)
                case Media() | Finished():
                    self.orders.happened(event)

    def _registered(self, camera: Camera, event: Registered, sink: Sink) -> None:
        self._heard(camera, sink, alive=True)
        if event.first:
            log.info("%s registered from %s (%s)", camera.id, event.peer.host, event.agent[:64] or "no name")
            camera.asked_s = {"catalogue": 0.0, "status": 0.0}

    def _refused(self, device: str, peer: Peer, reason: str, sink: Sink) -> None:
        sink.count("logins_refused", connector=self.id, reason=reason)
        camera = self._cameras.get(device)
        if camera is None:
            sink.count("strangers", connector=self.id)
            text = f"no camera {device[:40]!r} is configured (from {peer.host})"
            sink.report("data.rejected", self.id, "stranger", text)
        elif reason in _OWN_REASONS and (reason != "replay" or self.platform.peer_of(device) is None):
            # A refresh with the old nonce is every camera's habit: no news.
            sink.report("data.rejected", camera.id, reason, f"log-in from {peer.host} refused: {reason}")

    def _said(self, camera: Camera, body: Body, sink: Sink) -> None:
        self._heard(camera, sink, alive=True)
        now_ms = self._clock.now_ms()
        if self.orders.answered(body):
            return
        if body.command == "Alarm" and body.root == "Notify":
            self._alarmed(camera, body, sink)
        raws: dict[str, Raw] = {f"{body.command}.{name}": body.text(name) or None for name in body.fields}
        if body.command == "DeviceStatus" and (told_ms := time_ms(body.text("DeviceTime"))) is not None:
            raws["DeviceStatus.clock"] = self._clock_off(camera, told_ms, now_ms, sink)
        self.emit(camera, raws, sink)

    def _alarmed(self, camera: Camera, body: Body, sink: Sink) -> None:
        sink.count("alarms_received", connector=self.id)
        kind = kind_of(body)
        if kind is None:
            sink.count("alarms_unmapped", connector=self.id)
            return
        sink.report(kind[0], camera.id, kind[1], f"channel {body.device}, priority {body.text('AlarmPriority') or '?'}")

    def _catalogued(self, camera: Camera, found: Catalogue, sink: Sink) -> None:
        self._heard(camera, sink, alive=True)
        if not found.complete:
            sink.count("catalogues_incomplete", connector=self.id)
            text = f"{len(found.channels)} of {found.total} channels came"
            sink.report("data.rejected", camera.id, "catalogue", text)
            if not found.channels:
                return
        camera.channels = {one.id: one for one in found.channels}
        on = sum(one.on is not False for one in found.channels)
        self.emit(camera, {"Catalog.channels": len(found.channels), "Catalog.on": on}, sink)
        now_ms = self._clock.now_ms()
        for one in found.channels:
            if one.on is not False:
                camera.news.over("dev.fault", one.id)
            elif camera.news.fresh("dev.fault", "channel_off", one.id, now_ms):
                sink.report("dev.fault", camera.id, "channel_off", f"{one.id} {one.name[:40]}")

    def _clock_off(self, camera: Camera, told_ms: int, now_ms: int, sink: Sink) -> float:
        off_s = (told_ms - now_ms) / 1000
        if abs(off_s) > CLOCK_OFF_S:
            if camera.news.fresh("dev.clock_skew", "offset", "", now_ms):
                text = f"the camera's clock is {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'behind'}"
                sink.report("dev.clock_skew", camera.id, "offset", text)
        else:
            camera.news.over("dev.clock_skew", "")
        return off_s

    def emit(self, camera: Camera, raws: dict[str, Raw], sink: Sink) -> None:
        """The points that these values belong to, at the gateway's time."""
        now_ms = self._clock.now_ms()
        found = [(point, reading(point, raw)) for key, raw in raws.items() for point in camera.points.get(key, ())]
        if found:
            values = np.array([number for _, (number, _) in found], dtype=np.float64)
            quality = np.array([int(good) for _, (_, good) in found], dtype=np.uint8)
            sink.sweep(Sweep(camera.id, now_ms, now_ms, tuple(point.name for point, _ in found), values, quality))

    # -- silence --------------------------------------------------------------------------------------------------
    def _heard(self, camera: Camera, sink: Sink, *, alive: bool = False) -> None:
        if camera.silence is not None:
            camera.silence.cancel()
        if alive:
            camera.health.answered(sink)
        text = f"nothing heard for {self._config.silent_s:g} s"
        gone: Callable[..., None] = camera.health.gone
        camera.silence = asyncio.get_running_loop().call_later(self._config.silent_s, gone, sink, text)

    # -- orders ---------------------------------------------------------------------------------------------------
    async def command(self, command: Command) -> Outcome:
        """See :class:`edge.connectors.base.Commandable`."""
        camera = self._by_id.get(command.device)
        what = camera.type.command(command.name) if camera is not None else None
        sink = self._sink
        if camera is None or what is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        if command.expires_ms and self._clock.now_ms() >= command.expires_ms:
            return Outcome("expired", "expired", "its time ran out")
        outcome = await self.orders.carry_out(camera.gb_id, list(camera.channels.values()), what, command)
        if outcome.state != "done" or not what.read_back or sink is None:
            return outcome
        point = camera.type.point(what.read_back)
        element = (point.value.key if point.value else "").partition(".")[2]
        body = await self.orders.ask(camera.gb_id, "DeviceStatus")
        if body is None:
            return Outcome("unknown", "no_read_back", f"{point.name} could not be read back")
        self._said(camera, body, sink)
        seen = reading(point, body.text(element) or None)[0]
        if seen != what.expect:
            return Outcome("failed", "read_back", f"confirmed, but {point.name} reads {seen:g}", {point.name: seen})
        return Outcome("done", "", outcome.detail, {point.name: seen})
