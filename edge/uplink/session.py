"""One MQTT connection of the gateway, as a small asynchronous object.

paho runs its own thread; everything it says reaches the loop through one queue. A lost connection ends the session: the
next one is a new object, so nothing half-sent survives from the old one (the outbox sends it again).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge.config import MqttConfig
from edge.mqtt_url import split_url
from protocols.core.errors import LinkDown, LinkRefused, LinkTimeout

log = logging.getLogger("citybrain.edge.uplink")

_CONNECT_TIMEOUT_S = 8.0
_FAREWELL_S = 1.0
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
    """Connected from :meth:`open` until :meth:`receive` raises LinkDown or :meth:`close`."""

    def __init__(self, config: MqttConfig, client_id: str, password: str, will: tuple[str, bytes] | None) -> None:
        tls, self._host, self._port = split_url(config.url)
        self._keepalive_s = config.keepalive_s
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Message | Exception] = asyncio.Queue(maxsize=10_000)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, protocol=mqtt.MQTTv311
        )
        client.max_inflight_messages_set(200)
        client.connect_timeout = _CONNECT_TIMEOUT_S / 2
        if config.username:
            client.username_pw_set(config.username, password)
        if tls:
            client.tls_set_context(ssl.create_default_context(cafile=config.ca_file or None))
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe

    async def open(self, subscription: str) -> None:
        """Connect and subscribe. Raises LinkDown, LinkTimeout or LinkRefused."""
        try:
            await asyncio.to_thread(self._client.connect, self._host, self._port, self._keepalive_s)
        except (OSError, ValueError) as error:
            raise LinkDown(f"broker {self._host}:{self._port}: {error}") from error
        self._client.loop_start()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._ready
                self._client.subscribe(subscription, qos=1)
                await self._subscribed
        except TimeoutError:
            raise LinkTimeout(f"broker {self._host}:{self._port} accepts but does not answer") from None

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=qos, retain=retain)

    async def publish_last(self, topic: str, payload: bytes) -> None:
        """Publish, retained, and wait until the broker has it; a broker that does not answer is not waited for long."""
        info = self._client.publish(topic, payload, qos=1, retain=True)
        try:
            await asyncio.to_thread(info.wait_for_publish, _FAREWELL_S)
        except (RuntimeError, ValueError) as error:  # paho: not connected, or its queue is full
            log.info("the farewell did not leave: %s", error)

    async def receive(self) -> Message:
        """The next message; raises LinkDown when the connection is gone."""
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def close(self) -> None:
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    # -- called by paho's thread ----------------------------------------------------------------------------------

    def _on_connect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        if code.is_failure:
            kind = LinkRefused if str(code) in _REFUSED else LinkDown
            self._call(self._fail, kind(f"broker {self._host}:{self._port}: {code}"))
        else:
            self._call(self._connected)

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        self._call(self._fail, LinkDown(f"broker {self._host}:{self._port}: {code}"))

    def _on_subscribe(self, _c: Any, _u: Any, _mid: Any, codes: list[ReasonCode], _p: Any) -> None:
        refused = next((code for code in codes if code.is_failure), None)
        self._call(self._heard, LinkRefused(f"our own topics are refused: {refused}") if refused is not None else None)

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        self._call(self._put, Message(message.topic, bytes(message.payload)))

    def _call(self, function: Any, *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # -- on the loop ----------------------------------------------------------------------------------------------

    def _connected(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _heard(self, refusal: LinkRefused | None) -> None:
        if self._subscribed.done():
            return
        if refusal is None:
            self._subscribed.set_result(None)
        else:
            self._subscribed.set_exception(refusal)

    def _fail(self, error: Exception) -> None:
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
