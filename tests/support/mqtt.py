"""A broker in memory for virtual time: topics with + and #, retained messages, wills, sessions of QoS 1.

Both the agent's connectors and the simulator's devices dial it; the real broker serves the same tests in
``test_industry_with_broker.py``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge.connectors.mqtt_link import Message, Session
from firmware_sim.links.mqtt import Published
from protocols.core.errors import LinkDown


def matches(pattern: str, topic: str) -> bool:
    wanted, levels = pattern.split("/"), topic.split("/")
    for n, level in enumerate(wanted):
        if level == "#":
            return True
        if n >= len(levels) or level not in ("+", levels[n]):
            return False
    return len(wanted) == len(levels)


@dataclass
class _Client:
    """``unacked``: messages of QoS 1 whose receiver has not said that they are safe."""

    topics: list[tuple[str, int]] = field(default_factory=list)
    link: MemoryMqtt | None = None
    unacked: dict[int, Message] = field(default_factory=dict)
    clean: bool = True


class MemoryMqtt:
    """One connection, for either side: the connector's MqttLink and the simulator's MqttPipe alike."""

    def __init__(self, broker: MemoryBroker, client_id: str, will: Published | None) -> None:
        self._broker = broker
        self._client_id = client_id
        self._will = will
        self._queue: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._down = False

    async def receive(self) -> Message:  # Message has what a Published has
        while not self._queue:
            if self._down:
                raise LinkDown("the broker is gone")
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()

    def publish(self, topic: str | Published, payload: bytes = b"", *, qos: int = 0, retain: bool = False) -> None:
        if self._down:
            raise LinkDown("the broker is gone")
        message = topic if isinstance(topic, Published) else Published(topic, payload, qos, retain)
        self._broker.publish(message)

    async def publish_last(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        if not self._down:
            self.publish(topic, payload, qos=qos, retain=retain)

    def ack(self, message: Message) -> None:
        self._broker.clients[self._client_id].unacked.pop(message.mid, None)

    def deliver(self, message: Message) -> None:
        self._queue.append(message)
        self._wake.set()

    async def close(self) -> None:
        self._will = None
        await self.break_()

    async def break_(self) -> None:
        if self._down:
            return
        self._down = True
        self._wake.set()
        self._broker.gone(self._client_id, self)
        if self._will is not None:
            self._broker.publish(self._will)


class MemoryBroker:
    def __init__(self) -> None:
        self.clients: dict[str, _Client] = {}
        self.retained: dict[str, Published] = {}
        self.seen: list[Published] = []
        self.up = True
        self._mids = itertools.count(1)

    async def dial(self, session: Session) -> MemoryMqtt:
        """For connectors."""
        will = session.will
        told = Published(will.topic, will.payload, will.qos, will.retain) if will is not None else None
        return self._connect(session.client_id, list(session.subscriptions), told, clean=session.clean)

    async def dial_device(self, client_id: str, topics: Sequence[str], will: Published | None) -> MemoryMqtt:
        """For simulated devices."""
        return self._connect(client_id, [(topic, 1) for topic in topics], will, clean=True)

    def _connect(
        self, client_id: str, topics: list[tuple[str, int]], will: Published | None, *, clean: bool
    ) -> MemoryMqtt:
        if not self.up:
            raise LinkDown("connection refused")
        client = self.clients.setdefault(client_id, _Client())
        if clean:
            client.unacked.clear()
        client.topics, client.clean = topics, clean
        link = client.link = MemoryMqtt(self, client_id, will)
        for message in client.unacked.values():
            link.deliver(message)
        for message in self.retained.values():
            self._deliver(client, message, retained=True)
        return link

    def publish(self, message: Published) -> None:
        self.seen.append(message)
        if message.retain:
            self.retained[message.topic] = message
        for client in list(self.clients.values()):
            self._deliver(client, message, retained=False)

    def _deliver(self, client: _Client, message: Published, *, retained: bool) -> None:
        qos = max((qos for topic, qos in client.topics if matches(topic, message.topic)), default=None)
        if qos is None:
            return
        found = Message(message.topic, message.payload, min(qos, message.qos), next(self._mids), retained)
        if found.qos and (client.link is not None or not client.clean):
            client.unacked[found.mid] = found
        if client.link is not None:
            client.link.deliver(found)

    def gone(self, client_id: str, link: MemoryMqtt) -> None:
        if self.clients[client_id].link is link:
            self.clients[client_id].link = None

    async def crash(self) -> None:
        """The broker dies with everybody's connection; wills are not published, for nobody is left to do it."""
        self.up = False
        for client in self.clients.values():
            if client.link is not None:
                client.link._will = None
                await client.link.break_()
