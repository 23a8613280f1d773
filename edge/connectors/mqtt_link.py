"""One MQTT connection of a connector to somebody else's broker, as a small asynchronous object.

paho runs its own thread; everything it says reaches the loop through one bounded queue. A message of QoS 1 is
acknowledged when the connector says so (what it told is on disk), so the broker keeps what a crash would lose. A lost
connection ends the link; the supervisor makes a new one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from edge.connectors.secret import read_secret
from edge.mqtt_url import split_url
from protocols.core.errors import LinkDown, LinkRefused, LinkTimeout

_CONNECT_TIMEOUT_S = 8.0
_FAREWELL_S = 2.0
#: Messages that wait for the connector. Beyond it they are let go: unacknowledged ones come again, and whoever counts
#: his messages (Sparkplug) notices.
_QUEUE = 4_096
_REFUSED = {
    "Not authorized",
    "Bad user name or password",
    "Client identifier not valid",
    "Unsupported protocol version",
}


@dataclass(frozen=True, slots=True)
class Message:
    """``mid`` and ``qos``: what the broker wants to hear of again."""

    topic: str
    payload: bytes
    qos: int = 0
    mid: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """How to connect. ``clean`` false: the broker keeps messages of QoS 1 while we are away."""

    client_id: str
    subscriptions: Sequence[tuple[str, int]]
    will: Will | None = None
    clean: bool = True


class MqttLink(Protocol):
    async def receive(self) -> Message:
        """The next message. Raises LinkDown when the connection is gone."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Hand to the broker. Raises LinkDown: nothing was sent."""

    async def publish_last(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait a moment until the broker has it: before a deliberate end."""

    def ack(self, message: Message) -> None:
        """What the message said is safe."""

    async def close(self) -> None: ...


Dial = Callable[[Session], Awaitable[MqttLink]]


class Broker(Protocol):
    """The part of a connector's configuration that says where its broker is."""

    @property
    def url(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def password_file(self) -> str: ...
    @property
    def ca_file(self) -> str: ...
    @property
    def keepalive_s(self) -> int: ...


def dial(broker: Broker, base: Path) -> Dial:
    """What opens a connection to that broker. Raises ConfigError for a password file that cannot be read."""
    password = read_secret(Path(broker.password_file), base) if broker.password_file else ""
    ca_file = str(base / broker.ca_file) if broker.ca_file else None

    async def open_link(session: Session) -> MqttLink:
        link = PahoLink(broker, session, password, ca_file)
        try:
            await link.open()
        except BaseException:
            await link.close()
            raise
        return link

    return open_link


class PahoLink:
    def __init__(self, broker: Broker, session: Session, password: str, ca_file: str | None) -> None:
        tls, self._host, self._port = split_url(broker.url)
        self._keepalive_s = broker.keepalive_s
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Message] = asyncio.Queue(_QUEUE)
        self._gone: LinkDown | LinkRefused | None = None
        self._wake = asyncio.Event()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        self.dropped = 0
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=session.client_id,
            clean_session=session.clean,
            protocol=mqtt.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S / 2
        client.max_inflight_messages_set(200)
        client.max_queued_messages_set(_QUEUE)
        if broker.username:
            client.username_pw_set(broker.username, password)
        if tls:
            client.tls_set_context(ssl.create_default_context(cafile=ca_file))
        if session.will is not None:
            will = session.will
            client.will_set(will.topic, will.payload, qos=will.qos, retain=will.retain)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message

    async def open(self) -> None:
        """Connect and subscribe. Raises LinkDown, LinkTimeout or LinkRefused."""
        where = f"broker {self._host}:{self._port}"
        try:
            await asyncio.to_thread(self._client.connect, self._host, self._port, self._keepalive_s)
        except (OSError, ValueError) as error:
            raise LinkDown(f"{where}: {error}") from error
        self._client.loop_start()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._ready
                if self._session.subscriptions:
                    self._client.subscribe(list(self._session.subscriptions))
                await self._subscribed
        except TimeoutError:
            raise LinkTimeout(f"{where} accepts but does not answer") from None

    async def receive(self) -> Message:
        while True:
            if not self._queue.empty():
                return self._queue.get_nowait()
            if self._gone is not None:
                raise self._gone
            self._wake.clear()
            await self._wake.wait()

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        if self._gone is not None:
            raise LinkDown(str(self._gone))
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkDown(f"broker {self._host}:{self._port}: {mqtt.error_string(info.rc)}")

    async def publish_last(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        if self._gone is not None:
            return
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        try:
            await asyncio.to_thread(info.wait_for_publish, _FAREWELL_S)
        except (RuntimeError, ValueError):
            return  # not connected any more, or its queue is full: whoever listens will see the will instead

    def ack(self, message: Message) -> None:
        if message.qos and self._gone is None:
            self._client.ack(message.mid, message.qos)

    async def close(self) -> None:
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    # -- called by paho's thread ---------------------------------------------------------------------------------------

    def _on_connect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        self._call(self._connected, code if code.is_failure else None)

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        self._call(self._lost, LinkDown(f"broker {self._host}:{self._port}: {code}"))

    def _on_subscribe(self, _c: Any, _u: Any, _mid: Any, codes: list[ReasonCode], _p: Any) -> None:
        refused = next((str(code) for code in codes if code.is_failure), "")
        self._call(self._heard, refused)

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        found = Message(message.topic, bytes(message.payload), message.qos, message.mid, message.retain)
        self._call(self._put, found)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # -- on the loop ---------------------------------------------------------------------------------------------------

    def _connected(self, refusal: ReasonCode | None) -> None:
        if self._ready.done():
            return
        if refusal is None:
            self._ready.set_result(None)
            if not self._session.subscriptions:
                self._subscribed.set_result(None)
        else:
            kind = LinkRefused if str(refusal) in _REFUSED else LinkDown
            self._lost(kind(f"broker {self._host}:{self._port}: {refusal}"))

    def _heard(self, refused: str) -> None:
        if self._subscribed.done():
            return
        if refused:
            error = LinkRefused(f"broker {self._host}:{self._port}: topics are refused: {refused}")
            self._subscribed.set_exception(error)
        else:
            self._subscribed.set_result(None)

    def _lost(self, error: LinkDown | LinkRefused) -> None:
        if self._gone is not None:
            return
        self._gone = error
        waiting = self._subscribed if self._ready.done() else self._ready
        if not waiting.done():
            waiting.set_exception(error)
        self._wake.set()

    def _put(self, message: Message) -> None:
        if self._queue.full():
            self.dropped += 1
            return
        self._queue.put_nowait(message)
        self._wake.set()
