"""The gateway as a Sparkplug B edge node for other people's SCADA.

```
 pipeline ─ tap ─▶ SparkplugNorth ─ EdgeNode ─ NBIRTH, DBIRTH, DDATA, DDEATH ─▶ their broker
 desk ◀── DCMD "Command/pump_start" = true (only with commands = true, and only what `allow` names)
```

It hears what report by exception keeps for the core, and never holds the core up. While the broker or the primary host
is away, readings are kept in memory, the oldest go first and are counted ("Node Info/Dropped"); later they go out as
historical. Sparkplug publishes with QoS 0, so what was sent just before a connection broke is sent again, too. A
restart of the agent forgets what was kept: the core has it all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from edge.clock import Clock
from edge.connectors.base import Command, Outcome
from edge.connectors.mqtt_link import Dial, MqttLink, Session, Will
from edge.northbound.config import SparkplugNorthConfig
from edge.northbound.tap import Told
from protocols.core.errors import RemoteProtocolError, TransportError
from protocols.core.ids import derived_id
from protocols.core.model import Quality
from protocols.devices import CommandType, DeviceType, Point
from protocols.sparkplug_b.datatypes import DataType
from protocols.sparkplug_b.host import Outgoing
from protocols.sparkplug_b.messages import Metric, Property
from protocols.sparkplug_b.node import EdgeNode, Ordered

log = logging.getLogger("citybrain.edge.northbound")

_STATE = "northbound.sparkplug"
_TICK_S = 0.5
#: Historical readings in one message, and messages in one go, so that live ones are not held up.
_CHUNK, _CHUNKS = 200, 5
_ORDER_LIFE_MS = 30_000
#: Orders under way at a time; a host that sends more is not waiting for any of them.
_MOST_ORDERS = 32
DROPPED = "Node Info/Dropped"
VERSION = "Node Info/Version"

#: Quality as OPC knows it (property "Quality").
_QUALITY: dict[int, int] = {
    Quality.SUSPECT: 64,
    Quality.BAD: 0,
    Quality.CALIBRATING: 64,
    Quality.MAINTENANCE: 64,
    Quality.MANUAL: 216,
}


class Journal(Protocol):
    """Durable on return (the outbox's state table)."""

    def put_state(self, name: str, value: bytes) -> None: ...

    def get_state(self, name: str) -> bytes | None: ...


Order = Callable[[Command], Awaitable[Outcome]]


class SparkplugNorth:
    """One edge node. A :class:`~edge.northbound.tap.Tap` of the pipeline; :meth:`run` serves one connection."""

    def __init__(
        self,
        config: SparkplugNorthConfig,
        kinds: Mapping[str, DeviceType],
        clock: Clock,
        dial: Dial,
        journal: Journal,
        *,
        gateway: str,
        version: str,
        order: Order | None = None,
    ) -> None:
        self._config = config
        self._kinds = {
            device: kind
            for device, kind in kinds.items()
            if any(fnmatchcase(device, pattern) for pattern in config.devices)
        }
        self._clock = clock
        self._dial = dial
        self._journal = journal
        self._order = order if config.commands else None
        stored = journal.get_state(_STATE)
        self._node = EdgeNode(
            config.group,
            config.node or gateway,
            bd_seq=int.from_bytes(stored or b"", "big"),
            aliases=config.aliases,
            primary_host=config.primary_host,
        )
        self._node.set_own(
            [Metric(VERSION, version, DataType.STRING), Metric(DROPPED, 0, DataType.INT64)],
        )
        self._defined: set[str] = set()
        self._kept: deque[tuple[str, Told]] = deque()
        self._recent: deque[tuple[float, str, Told]] = deque()  # sent, perhaps into a dead connection
        self._link: MqttLink | None = None
        self._wake = asyncio.Event()
        self._orders: set[asyncio.Task[None]] = set()
        self._told_dropped = 0
        self.counters: dict[str, int] = {
            "published": 0,
            "historical": 0,
            "dropped": 0,
            "connects": 0,
            "orders": 0,
            "orders_dropped": 0,
        }

    # -- tap

    def readings(self, device: str, told: Sequence[Told]) -> None:
        kind = self._kinds.get(device)
        if kind is None or not told:
            return
        now_ms = self._clock.now_ms()
        self._define(device, kind, now_ms)
        names = {point.name for point in kind.points}
        for one in told:
            if one.point not in names:
                # A point that the type does not know (a rule's own): the next birth knows it.
                self._node.define(device, [Metric(one.point, None, DataType.DOUBLE)], now_ms)
        if not self._publish(device, told, now_ms):
            for one in told:
                self._keep(device, one)
        self._wake.set()

    def state(self, device: str, *, online: bool) -> None:
        kind = self._kinds.get(device)
        if kind is None:
            return
        now_ms = self._clock.now_ms()
        if online:
            self._define(device, kind, now_ms)
            self._node.revive(device, now_ms)
        elif device in self._defined:
            self._node.die(device, now_ms)
        self._wake.set()

    def _define(self, device: str, kind: DeviceType, now_ms: int) -> None:
        """A device is born when it is first heard of: what nobody has seen is not announced."""
        if device in self._defined:
            return
        self._defined.add(device)
        metrics = [_birth(point) for point in kind.points]
        metrics.append(Metric("Properties/Device Type", kind.id, DataType.STRING))
        if self._order is not None:
            for command in kind.commands:
                metrics += _order_metrics(command)
        self._node.define(device, metrics, now_ms)

    def _publish(self, device: str, told: Sequence[Told], now_ms: int) -> bool:
        """Queue for the link; false if the values are known for the next birth only."""
        sent = self._node.update(device, [_metric(one) for one in told], now_ms)
        if sent:
            self.counters["published"] += len(told)
            moment_s = asyncio.get_running_loop().time()
            room = self._config.keep
            self._recent.extend((moment_s, device, one) for one in told)
            while len(self._recent) > room:
                self._recent.popleft()
        return sent

    def _keep(self, device: str, told: Told) -> None:
        self._kept.append((device, told))
        while len(self._kept) > self._config.keep:
            self._kept.popleft()
            self.counters["dropped"] += 1

    # -- one connection

    async def run(self) -> None:
        """Serve until the connection is lost (TransportError) or cancelled."""
        now_ms = self._clock.now_ms()
        # Written before it is used: a number that two births share would let the first one's will bury the second.
        following = (self._node.bd_seq + 1) % 256
        await asyncio.to_thread(self._journal.put_state, _STATE, following.to_bytes(1, "big"))
        will = self._node.connecting(now_ms)
        session = Session(
            client_id=f"{self._node.group}-{self._node.node}",
            subscriptions=[(topic, 1) for topic in self._node.subscriptions()],
            will=Will(will.topic, will.payload, will.qos, will.retain),
        )
        try:
            link = self._link = await self._dial(session)
        except BaseException:
            self._node.lost()
            raise
        try:
            self.counters["connects"] += 1
            self._node.connected(self._clock.now_ms())
            self._flush(link)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(link))
                group.create_task(self._send(link))
        except BaseExceptionGroup as errors:
            lost, others = errors.split(TransportError)
            if lost is None or others is not None:
                raise
            raise _first(lost) from None
        except asyncio.CancelledError:
            await self._part(link)
            raise
        finally:
            self._link = None
            self._node.lost()
            self._keep_recent()
            for task in self._orders:
                task.cancel()
            await link.close()

    async def _part(self, link: MqttLink) -> None:
        farewell = self._node.goodbye(self._clock.now_ms())
        with contextlib.suppress(TransportError):
            if farewell is not None:
                await link.publish_last(farewell.topic, farewell.payload, qos=farewell.qos)

    def _keep_recent(self) -> None:
        """What went out within two keep-alives may have gone nowhere: QoS 0 tells nothing."""
        since_s = asyncio.get_running_loop().time() - 2 * self._config.keepalive_s
        again = [(device, told) for moment_s, device, told in self._recent if moment_s >= since_s]
        self._recent.clear()
        kept, self._kept = self._kept, deque()
        for device, told in (*again, *kept):
            self._keep(device, told)

    async def _receive(self, link: MqttLink) -> None:
        while True:
            message = await link.receive()
            now_ms = self._clock.now_ms()
            for order in self._node.receive(message.topic, message.payload, now_ms):
                if isinstance(order, RemoteProtocolError):
                    log.warning("an order that makes no sense: %s", order)
                else:
                    self._take(order, message.payload)
            link.ack(message)
            self._wake.set()

    async def _send(self, link: MqttLink) -> None:
        while True:
            self._node.tick(self._clock.now_ms())
            if self._node.live:
                self._send_kept()
                self._tell_dropped()
            self._forget_old()
            self._flush(link)
            self._wake.clear()
            if self._kept and self._node.live:
                await asyncio.sleep(0)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._wake.wait()

    def _flush(self, link: MqttLink) -> None:
        out: Outgoing
        for out in self._node.take_output():
            link.publish(out.topic, out.payload, qos=out.qos, retain=out.retain)

    def _send_kept(self) -> None:
        now_ms = self._clock.now_ms()
        for _ in range(_CHUNKS):
            if not self._kept:
                return
            device = self._kept[0][0]
            chunk: list[Told] = []
            while self._kept and self._kept[0][0] == device and len(chunk) < _CHUNK:
                chunk.append(self._kept.popleft()[1])
            metrics = [_metric(Told(t.point, t.ts_ms, t.value, t.quality, historical=True)) for t in chunk]
            if self._node.update(device, metrics, now_ms):
                self.counters["historical"] += len(chunk)
            else:
                # The device is dead: Sparkplug has no way to speak of it until it is born again.
                self.counters["dropped"] += len(chunk)

    def _tell_dropped(self) -> None:
        now_ms = self._clock.now_ms()
        if self._told_dropped != self.counters["dropped"]:
            self._told_dropped = self.counters["dropped"]
            self._node.update("", [Metric(DROPPED, self._told_dropped, timestamp_ms=now_ms)], now_ms)

    def _forget_old(self) -> None:
        since_s = asyncio.get_running_loop().time() - 2 * self._config.keepalive_s
        while self._recent and self._recent[0][0] < since_s:
            self._recent.popleft()

    # -- orders

    def _take(self, order: Ordered, payload: bytes) -> None:
        if self._order is None or not order.device:
            return
        kind = self._kinds.get(order.device)
        for metric in order.metrics:
            name = (metric.name or "").removeprefix("Command/")
            command = kind.command(name) if kind is not None and name != metric.name else None
            if command is None or metric.value is None or (not command.argument and metric.value is not True):
                log.warning("%s: %r cannot be ordered", order.device, metric.name)
                continue
            if len(self._orders) >= _MOST_ORDERS:
                self.counters["orders_dropped"] += 1
                continue
            arguments = {command.argument[0].name: metric.value} if command.argument else {}
            # A message that the broker delivers twice is one order; the sender's time makes two out of two.
            order_id = derived_id("sparkplug", self._node.group, order.device, name, payload.hex())
            task = asyncio.create_task(
                self._carry_out(Command(order_id, order.device, name, arguments, self._clock.now_ms() + _ORDER_LIFE_MS))
            )
            self._orders.add(task)
            task.add_done_callback(self._orders.discard)

    async def _carry_out(self, command: Command) -> None:
        assert self._order is not None  # noqa: S101 - orders are only taken with it
        outcome = await self._order(command)
        self.counters["orders"] += 1
        now_ms = self._clock.now_ms()
        text = f"{outcome.state} {outcome.code} {outcome.detail}".strip()
        self._node.update(command.device, [Metric(f"Command/{command.name}/Result", text, timestamp_ms=now_ms)], now_ms)
        self._wake.set()


def _birth(point: Point) -> Metric:
    properties = {"engUnit": Property(point.unit, DataType.STRING)} if point.unit else None
    return Metric(point.name, None, DataType.DOUBLE, properties=properties)


def _order_metrics(command: CommandType) -> list[Metric]:
    """An order is a metric to be written; its result is one to be read. Orders with several arguments have no place
    in a single metric and are left out."""
    if len(command.argument) > 1:
        return []
    kinds = {"number": DataType.DOUBLE, "integer": DataType.INT64, "bool": DataType.BOOLEAN, "text": DataType.STRING}
    datatype = kinds[command.argument[0].kind] if command.argument else DataType.BOOLEAN
    name = f"Command/{command.name}"
    return [Metric(name, None, datatype), Metric(f"{name}/Result", None, DataType.STRING)]


def _metric(told: Told) -> Metric:
    missing = math.isnan(told.value)
    code = _QUALITY.get(told.quality)
    return Metric(
        told.point,
        None if missing else told.value,
        DataType.DOUBLE,
        timestamp_ms=told.ts_ms,
        is_null=True if missing else None,
        is_historical=True if told.historical else None,
        properties={"Quality": Property(code, DataType.INT32)} if code is not None else None,
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
