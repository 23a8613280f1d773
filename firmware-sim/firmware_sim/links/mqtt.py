"""A device's own MQTT connection: topics in and out, a will, and a cut cable that lets the will speak."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from firmware_sim.links.tcp import host_port
from protocols.core.errors import LinkDown

_CONNECT_TIMEOUT_S = 8.0
_KEEPALIVE_S = 10
_QUEUE = 1_000


@dataclass(frozen=True, slots=True)
class Published:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class MqttPipe(Protocol):
    async def receive(self) -> Published:
        """Raises LinkDown when the connection is gone."""

    def publish(self, message: Published) -> None:
        """Raises LinkDown."""

    async def close(self) -> None:
        """A deliberate end: the broker forgets the will."""

    async def break_(self) -> None:
        """The power goes: the broker publishes the will."""


#: client id, topics, will
MqttDial = Callable[[str, Sequence[str], Published | None], Awaitable[MqttPipe]]


def mqtt_dial(address: str, key: str, *, username: str = "", password: str = "") -> MqttDial:
    """Dials a broker at ``host:port``. Raises ConfigError naming ``key``."""
    host, port = host_port(address, key)

    async def dial(client_id: str, topics: Sequence[str], will: Published | None) -> MqttPipe:
        pipe = PahoPipe(client_id, will)
        if username:
            pipe.log_in(username, password)
        try:
            await pipe.open(host, port, topics)
        except BaseException:
            await pipe.close()
            raise
        return pipe

    return dial


class PahoPipe:
    """paho's thread on one side, the loop on the other."""

    def __init__(self, client_id: str, will: Published | None) -> None:
        import paho.mqtt.client as mqtt  # a scene without MQTT devices needs no paho
        from paho.mqtt.enums import CallbackAPIVersion

        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Published | LinkDown] = asyncio.Queue(_QUEUE)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._down = False
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311, reconnect_on_failure=False
        )
        if will is not None:
            client.will_set(will.topic, will.payload, qos=will.qos, retain=will.retain)
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_connect = self._on_connect
        self._topics: Sequence[str] = ()

    def log_in(self, username: str, password: str) -> None:
        self._client.username_pw_set(username, password)

    async def open(self, host: str, port: int, topics: Sequence[str]) -> None:
        self._topics = topics
        try:
            await asyncio.to_thread(self._client.connect, host, port, _KEEPALIVE_S)
            self._client.loop_start()
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._ready
        except (OSError, TimeoutError) as error:
            raise LinkDown(f"broker {host}:{port}: {error}") from error

    async def receive(self) -> Published:
        item = await self._queue.get()
        if isinstance(item, LinkDown):
            raise item
        return item

    def publish(self, message: Published) -> None:
        info = self._client.publish(message.topic, message.payload, qos=message.qos, retain=message.retain)
        if info.rc != 0 or self._down:
            raise LinkDown("not connected")

    async def close(self) -> None:
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    async def break_(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            sock.close()  # no DISCONNECT went out
        await asyncio.to_thread(self._client.loop_stop)

    # -- called by paho's thread -----------------------------------------------------------------------------------
    def _on_connect(self, client: Any, _u: Any, _f: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            self._call(self._lost, str(code))
        elif self._topics:
            client.subscribe([(topic, 1) for topic in self._topics])
        else:
            self._call(self._opened)

    def _on_subscribe(self, _c: Any, _u: Any, _mid: Any, _codes: Any, _p: Any) -> None:
        self._call(self._opened)

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, code: Any, _p: Any) -> None:
        self._call(self._lost, str(code))

    def _on_message(self, _c: Any, _u: Any, message: Any) -> None:
        found = Published(message.topic, bytes(message.payload), message.qos, message.retain)
        self._call(self._put, found)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # -- on the loop -----------------------------------------------------------------------------------------------
    def _opened(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _lost(self, why: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(LinkDown(why))
        elif not self._down:
            self._put(LinkDown(why))
        self._down = True

    def _put(self, item: Published | LinkDown) -> None:
        if self._queue.full():
            self._queue.get_nowait()  # a device has room for so many orders; the oldest go
        self._queue.put_nowait(item)
