"""One MQTT connection of the gateway, as a small asynchronous object.

paho speaks MQTT, the event loop moves the bytes: whatever arrives is seen here, so that a link which is open but dead
is noticed within ``2 * keepalive_s`` and half a second, idle or busy. paho alone counts its own pings as signs of life,
and takes a slow upload for a dead link; here the peer's TCP acknowledgements count as life while something is being
sent. A lost connection ends the session: the next one is a new object, so nothing half-sent survives from the old one
(the outbox sends it again).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge.config import MqttConfig
from edge.identity.trust import client_context
from edge.mqtt_url import split_urls
from edge.uplink.meter import estimate, tcp_count
from edge.uplink.pace import Pace
from protocols.core.errors import LinkDown, LinkRefused, LinkTimeout

log = logging.getLogger("citybrain.edge.uplink")

_CONNECT_TIMEOUT_S = 8.0  # name, TCP, TLS, CONNACK, SUBACK together
_FAREWELL_S = 1.0
_WATCH_EVERY_S = 0.25
_SEND_BUFFER_BYTES = 128 << 10  # what the kernel holds stands in front of an alarm as well
_REFUSED = {
    "Not authorized",
    "Bad user name or password",
    "Client identifier not valid",
    "Unsupported protocol version",
}


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes


class MqttSession:
    """Connected from :meth:`open` until :meth:`receive` raises LinkDown or :meth:`close`. Lives on the event loop.

    ``turn``: counts the attempts, so that of several nodes each has its turn."""

    def __init__(
        self, config: MqttConfig, client_id: str, password: str, will: tuple[str, bytes] | None, turn: int = 0
    ) -> None:
        nodes = split_urls(config.url)
        tls, self._host, self._port = nodes[turn % len(nodes)]
        self._keepalive_s = config.keepalive_s
        self._silent_s = 2 * config.keepalive_s + 0.5
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Message | Exception] = asyncio.Queue(maxsize=10_000)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        for one in (self._ready, self._subscribed):
            one.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting any more
        self._sock: socket.socket | None = None
        self._heard_s = 0.0
        self._acked_bytes = 0
        self._estimated_bytes = 0
        self._watch: asyncio.TimerHandle | None = None
        self._lost: Exception | None = None
        self._farewell: tuple[int, asyncio.Future[None]] | None = None
        self.pace = Pace()
        self.on_room: Callable[[], None] = lambda: None  # the broker took something: there is room for more
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True, protocol=mqtt.MQTTv311
        )
        client.max_inflight_messages_set(0)  # the windows of the sender bound it
        client.connect_timeout = _CONNECT_TIMEOUT_S / 2
        if config.username:
            client.username_pw_set(config.username, password)
        if tls:
            # Read anew at each connection: the certificate may have been renewed. TLS itself goes by the wall clock.
            client.tls_set_context(client_context(config.ca_file, config.cert_file, config.key_file, time.time()))
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        client.on_socket_close = lambda _c, _u, sock: self._closed(sock)

    # -- opening and closing --------------------------------------------------------------------------------------

    async def open(self, subscription: str) -> None:
        """Connect and subscribe. Raises LinkDown, LinkTimeout or LinkRefused, within 8 s in any case."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._dial()
                await self._ready
                self._client.subscribe(subscription, qos=0)
                await self._subscribed
        except TimeoutError:
            raise LinkTimeout(f"broker {self._host}:{self._port} accepts but does not answer") from None
        except (OSError, ValueError) as error:
            raise LinkDown(f"broker {self._host}:{self._port}: {error}") from error

    async def _dial(self) -> None:
        """Name look-up, TCP and TLS block, so they have a thread of their own; one that hangs is left to its fate."""
        done: asyncio.Future[None] = self._loop.create_future()

        def finish(error: BaseException | None) -> None:
            if done.cancelled():
                self._stop()  # it came too late: nobody waits for this connection any more
            elif error is not None:
                done.set_exception(error)
            else:
                done.set_result(None)

        def dial() -> None:
            failure: BaseException | None = None
            try:
                self._client.connect(self._host, self._port, self._keepalive_s)
            except (OSError, ValueError) as error:
                failure = error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(finish, failure)

        threading.Thread(target=dial, name="mqtt-dial", daemon=True).start()
        await done
        sock = self._client.socket()
        if sock is None:
            raise LinkDown(f"broker {self._host}:{self._port} closed the connection at once")
        self._sock = cast(socket.socket, sock)  # no web socket: we did not ask for one
        self._set_options(self._sock)
        self._heard_s = self._loop.time()
        self._loop.add_reader(sock, self._readable)
        if self._client.want_write():
            self._loop.add_writer(sock, self._writable)
        self._watch = self._loop.call_later(_WATCH_EVERY_S, self._look)

    def _set_options(self, sock: socket.socket) -> None:
        """Small segments go at once, little is queued in the kernel, unacknowledged bytes end the connection."""
        options = [
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES),
        ]
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(self._silent_s * 1000)))
        for level, option, value in options:
            with suppress(OSError):
                sock.setsockopt(level, option, value)

    async def close(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        sock = self._client.socket()
        if sock is None:
            return
        self._client.disconnect()
        self._client.loop_write()  # DISCONNECT, if the socket takes it; a dead one must not hold us up
        self._closed(sock)
        self._sock = None
        sock.close()

    def _closed(self, sock: object) -> None:
        """paho closes the socket: the loop must forget it first, its number may be another's in a moment."""
        if self._sock is not None and sock is self._sock and self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)

    # -- sending --------------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        self._estimated_bytes += estimate(topic, len(payload))
        if qos:
            self.pace.handed(info.mid, len(payload), self._now_ms())

    async def publish_last(self, topic: str, payload: bytes) -> None:
        """Publish, retained, and wait until the broker has it; a broker that does not answer is not waited for long."""
        if self._lost is not None or self._sock is None:
            return
        taken: asyncio.Future[None] = self._loop.create_future()
        info = self._client.publish(topic, payload, qos=1, retain=True)
        self._farewell = (info.mid, taken)
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await taken
        except TimeoutError:
            log.info("the farewell did not leave: the broker does not answer")

    def link_bytes(self) -> int:
        """Bytes this connection has cost so far, both ways, all layers from IP up."""
        count = tcp_count(self._sock) if self._sock is not None else None
        return max(self._estimated_bytes, count.link_bytes) if count is not None else self._estimated_bytes

    async def receive(self) -> Message:
        """The next message; raises LinkDown when the connection is gone."""
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    # -- bytes ----------------------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return round(self._loop.time() * 1000)

    def _readable(self) -> None:
        self._heard_s = self._loop.time()
        self._client.loop_read()
        # TLS reads whole records: what lies decrypted in its buffer makes no socket readable.
        while self._decrypted():
            self._client.loop_read()

    def _decrypted(self) -> int:
        sock = self._sock
        return sock.pending() if isinstance(sock, ssl.SSLSocket) and sock.fileno() >= 0 else 0

    def _on_register_write(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._wants_to_write)  # the first packet is queued by the dialling thread

    def _on_unregister_write(self, *_: Any) -> None:
        if self._sock is not None and self._sock.fileno() >= 0:
            self._loop.remove_writer(self._sock)

    def _wants_to_write(self) -> None:
        if self._sock is not None and self._sock.fileno() >= 0 and self._client.want_write():
            self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        self._client.loop_write()

    def _look(self) -> None:
        """Is anybody there? Anything heard counts; so does a peer whose TCP takes what we are sending."""
        sock, now_s = self._sock, self._loop.time()
        if sock is None or self._client.socket() is None:
            return
        count = tcp_count(sock)
        sending = self._client.want_write() or (count is not None and count.waiting_bytes > 0)
        if count is not None and count.acked_bytes != self._acked_bytes:
            self._acked_bytes = count.acked_bytes
            if sending:
                self._heard_s = now_s
        if now_s - self._heard_s >= self._silent_s:
            self._fail(LinkDown(f"broker {self._host}:{self._port}: connected, but silent for {self._silent_s:g} s"))
            return
        if not sending:
            self._client.loop_misc()  # asks for a sign of life (PINGREQ) after keepalive_s without one
        self._watch = self._loop.call_later(_WATCH_EVERY_S, self._look)

    # -- what paho says -------------------------------------------------------------------------------------------

    def _on_connect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        if code.is_failure:
            kind = LinkRefused if str(code) in _REFUSED else LinkDown
            self._fail(kind(f"broker {self._host}:{self._port}: {code}"))
        elif not self._ready.done():
            self._ready.set_result(None)

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fail, LinkDown(f"broker {self._host}:{self._port}: {code}"))

    def _on_subscribe(self, _c: Any, _u: Any, _mid: Any, codes: list[ReasonCode], _p: Any) -> None:
        refused = next((code for code in codes if code.is_failure), None)
        if refused is not None:
            self._fail(LinkRefused(f"our own topics are refused: {refused}"))
        elif not self._subscribed.done():
            self._subscribed.set_result(None)

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        self._put(Message(message.topic, bytes(message.payload)))

    def _on_publish(self, _c: Any, _u: Any, number: int, _r: Any, _p: Any) -> None:
        self.pace.taken(number, self._now_ms())
        if self._farewell is not None and self._farewell[0] == number and not self._farewell[1].done():
            self._farewell[1].set_result(None)
        self.on_room()

    def _fail(self, error: Exception) -> None:
        if self._lost is not None:
            return
        self._lost = error
        if not self._ready.done():
            self._ready.set_exception(error)
        elif not self._subscribed.done():
            self._subscribed.set_exception(error)
        else:
            self._put(error)

    def _put(self, item: Message | Exception) -> None:
        if self._queue.full():
            self._queue.get_nowait()  # acknowledgements are cumulative: an old one is worth nothing
        self._queue.put_nowait(item)
