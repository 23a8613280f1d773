"""Other people's Sparkplug B edge nodes: births, data and deaths from their broker become sweeps and states.

The broker keeps no birth for us, so each configured node is asked for one when we connect. Data that came while nobody
listened (``is_historical``) are stored and raise nothing. A command is a metric written with the birth's own type; it
is done when the node's data show it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Command, Outcome, Sink
from edge.connectors.device_time import judge
from edge.connectors.health import LOST_AFTER, Health, reject
from edge.connectors.industry_config import SparkplugDevice, SparkplugHostConfig
from edge.connectors.mqtt_link import Dial, MqttLink, Session, Will
from edge.connectors.orders import agrees, shown, target_of
from protocols.core.errors import LinkDown, LocalProtocolError, RemoteProtocolError, TransportError
from protocols.core.model import Quality, Sweep
from protocols.devices import Point, load
from protocols.devices.values import by_key, reading
from protocols.sparkplug_b import topics
from protocols.sparkplug_b.host import Born, Died, HostApplication, HostEvent, Refused, Said, Source
from protocols.sparkplug_b.messages import Metric

#: A node that was asked for its birth and has said nothing for so long is not there.
BIRTH_WAIT_S = 30.0
_TICK_S = 1.0
_STRANGERS = 256


@dataclass(slots=True, eq=False)
class _Watch:
    """Somebody waits for what this point will be."""

    point: str
    values: asyncio.Queue[float] = field(default_factory=lambda: asyncio.Queue(64))

    def tell(self, number: float) -> None:
        if not self.values.full():
            self.values.put_nowait(number)


@dataclass(slots=True)
class _Device:
    config: SparkplugDevice
    source: Source
    points: dict[str, tuple[Point, ...]]  # by the metric's whole name
    health: Health
    waiting: asyncio.TimerHandle | None = None
    watches: list[_Watch] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Live:
    host: HostApplication
    link: MqttLink


class SparkplugHost:
    """The connector of kind ``sparkplug-host``."""

    def __init__(self, config: SparkplugHostConfig, clock: Clock, dial: Dial) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._dial = dial
        self._devices = [_device(one) for one in config.device]
        self._by_source: dict[Source, list[_Device]] = {}
        for device in self._devices:
            self._by_source.setdefault(device.source, []).append(device)
        self._nodes = {device.source.of_node for device in self._devices}
        self._strangers: OrderedDict[str, None] = OrderedDict()
        self._live: _Live | None = None
        self._failures = 0

    async def run(self, sink: Sink) -> None:
        host_id = self._config.host_id or f"citybrain-{self.id}"
        host = HostApplication(host_id, group=self._config.group)
        will = host.will(self._clock.now_ms())
        session = Session(
            client_id=host_id,
            subscriptions=[(topic, 1) for topic in host.subscriptions()],
            will=Will(will.topic, will.payload, will.qos, will.retain),
        )
        try:
            link = await self._dial(session)
        except TransportError as error:
            self._failed(sink, error)
            raise
        live = self._live = _Live(host, link)
        self._failures = 0
        try:
            host.connected()
            for node in self._nodes:
                host.rebirth(node, self._clock.now_ms())
            self._flush(live)
            self._expect_births(sink)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(live, sink))
                group.create_task(self._tick(live))
        except BaseExceptionGroup as errors:
            lost, others = errors.split(TransportError)
            if lost is None or others is not None:
                raise
            first = _first(lost)
            self._failed(sink, first)
            raise first from None
        except asyncio.CancelledError:
            with contextlib.suppress(TransportError):
                farewell = host.goodbye(self._clock.now_ms())
                await link.publish_last(farewell.topic, farewell.payload, qos=farewell.qos, retain=farewell.retain)
            raise
        finally:
            self._live = None
            for device in self._devices:
                _stop_waiting(device)
            await link.close()

    def _failed(self, sink: Sink, error: Exception) -> None:
        self._failures += 1
        if self._failures >= LOST_AFTER:
            for device in self._devices:
                device.health.gone(sink, str(error))

    def _expect_births(self, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        for device in self._devices:
            text = f"no birth within {BIRTH_WAIT_S:g} s"
            device.waiting = loop.call_later(BIRTH_WAIT_S, device.health.gone, sink, text)

    # -- in

    async def _receive(self, live: _Live, sink: Sink) -> None:
        while True:
            message = await live.link.receive()
            now_ms = self._clock.now_ms()
            if not self._foreign(message.topic, sink):
                for event in live.host.receive(message.topic, message.payload, now_ms):
                    self._take(event, sink, now_ms)
                self._flush(live)
            live.link.ack(message)

    def _foreign(self, topic: str, sink: Sink) -> bool:
        """Of a node that nobody configured: named, and not looked into. A broker may carry a thousand of them."""
        try:
            found = topics.parse(topic)
        except RemoteProtocolError:
            return False
        node = Source(found.group, found.node)
        if found.type == "STATE" or node in self._nodes:
            return False
        if found.type not in ("NCMD", "DCMD"):
            self._stranger(node, [], sink)
        return True

    async def _tick(self, live: _Live) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            live.host.tick(self._clock.now_ms())
            self._flush(live)

    @staticmethod
    def _flush(live: _Live) -> None:
        for out in live.host.take_output():
            live.link.publish(out.topic, out.payload, qos=out.qos, retain=out.retain)

    def _take(self, event: HostEvent, sink: Sink, now_ms: int) -> None:
        source = event.source
        devices = self._by_source.get(source, []) if source is not None else []
        match event:
            case Born():
                self._stranger(event.source, devices, sink)
                for device in devices:
                    _stop_waiting(device)
                    device.health.answered(sink)
                    self._tell_missing(device, event.metrics, sink)
                    self._emit(device, event.metrics, event.timestamp_ms, sink, now_ms)
            case Said():
                for device in devices:
                    _stop_waiting(device)
                    device.health.answered(sink)
                    self._emit(device, event.metrics, event.timestamp_ms, sink, now_ms)
            case Died():
                for device in devices:
                    _stop_waiting(device)
                    device.health.gone(sink, event.detail)
                if source is not None and not source.device:
                    for device in self._devices:  # also those whose birth was never seen
                        if device.source.of_node == source:
                            device.health.gone(sink, event.detail)
            case Refused():
                sink.count("frames_rejected", reason=event.error.reason)
                for device in devices:
                    reject(sink, device.config.id, event.error)
                if not devices and (source is None or source.of_node in self._nodes):
                    sink.report("data.rejected", self.id, event.error.reason, f"{source or ''}: {event.error}")

    def _stranger(self, source: Source, devices: list[_Device], sink: Sink) -> None:
        if devices or (not source.device and source in self._nodes):
            return
        sink.count("strangers", connector=self.id)
        name = str(source)
        if name not in self._strangers:
            self._strangers[name] = None
            while len(self._strangers) > _STRANGERS:
                self._strangers.popitem(last=False)
            sink.report("data.rejected", self.id, "stranger", f"{name[:80]} is not configured")

    def _tell_missing(self, device: _Device, metrics: Iterable[Metric], sink: Sink) -> None:
        there = {metric.name for metric in metrics}
        for name in device.points.keys() - there:
            for point in device.points[name]:
                text = f"the birth has no metric {name!r}"
                sink.report("data.rejected", device.config.id, "no_metric", text, point=point.name)

    def _emit(
        self, device: _Device, metrics: Iterable[Metric], payload_ms: int | None, sink: Sink, now_ms: int
    ) -> None:
        """One sweep for each time that the metrics name."""
        found: dict[tuple[int, bool], dict[str, tuple[float, Quality]]] = {}
        for metric in metrics:
            points = device.points.get(metric.name or "")
            if not points:
                continue
            told_ms = metric.timestamp_ms if metric.timestamp_ms is not None else payload_ms
            source_ms, skewed = judge(told_ms, now_ms)
            if skewed:
                text = f"{metric.name}: time {told_ms} ms; the gateway's time is used"
                sink.report("dev.clock_skew", device.config.id, "offset", text)
            if metric.fault:
                sink.report("data.rejected", device.config.id, metric.fault, f"metric {metric.name}")
            for point in points:
                number, quality = _reading(point, metric)
                if skewed and quality is Quality.GOOD:
                    quality = Quality.SUSPECT
                found.setdefault((source_ms, bool(metric.is_historical)), {})[point.name] = (number, quality)
                if not metric.is_historical:
                    for watch in device.watches:
                        if watch.point == point.name:
                            watch.tell(number)
        for (source_ms, historical), values in sorted(found.items()):
            sink.sweep(
                Sweep(
                    device=device.config.id,
                    source_ms=source_ms,
                    seen_ms=now_ms,
                    points=tuple(values),
                    values=np.array([number for number, _ in values.values()], dtype=np.float64),
                    quality=np.array([quality for _, quality in values.values()], dtype=np.uint8),
                    historical=historical,
                )
            )

    # -- out

    async def command(self, command: Command) -> Outcome:
        """Write a metric, then wait for the data that show it."""
        device = next((one for one in self._devices if one.config.id == command.device), None)
        live = self._live
        if live is None:
            raise LinkDown(f"{self.id}: not connected to the broker")
        kind = load(device.config.type).command(command.name) if device is not None else None
        if device is None or kind is None:
            return Outcome("refused", "unknown_command", command.name)
        key, value = target_of(kind, command)
        if value is None:
            return Outcome("refused", "argument", "a metric cannot be set to nothing")
        try:
            out = live.host.write(device.source, device.config.prefix + key, value, self._clock.now_ms())
        except LocalProtocolError as error:
            return Outcome("refused", error.reason, str(error))
        watch = _Watch(kind.read_back)
        device.watches.append(watch)
        try:
            live.link.publish(out.topic, out.payload, qos=out.qos)
            if not kind.read_back:
                return Outcome("unknown", "unconfirmed", "Sparkplug confirms nothing and the type names no read-back")
            return await self._read_back(device, watch, shown(kind, value))
        finally:
            device.watches.remove(watch)

    async def _read_back(self, device: _Device, watch: _Watch, expected: float | None) -> Outcome:
        """Data that still show the old value may be on their way: wait for the right one until the time is over."""
        decimals = load(device.config.type).point(watch.point).decimals
        last: float | None = None
        try:
            async with asyncio.timeout(self._config.read_back_s):
                while last is None or not agrees(expected, last, decimals):
                    last = await watch.values.get()
        except TimeoutError:
            if last is None:
                return Outcome("unknown", "no_read_back", f"{watch.point} was not reported again")
            return Outcome("failed", "read_back", f"{watch.point} is {last:g}, not {expected:g}", {watch.point: last})
        return Outcome("done", read_back={watch.point: last})


def _device(config: SparkplugDevice) -> _Device:
    group, _, node = config.node.partition("/")
    points = {config.prefix + key: points for key, points in by_key(load(config.type)).items()}
    return _Device(config, Source(group, node, config.device), points, Health(config.id))


def _reading(point: Point, metric: Metric) -> tuple[float, Quality]:
    if metric.is_null or metric.fault:
        return float("nan"), Quality.MISSING
    raw: Any = metric.value
    if not isinstance(raw, bool | int | float | str):
        return float("nan"), Quality.MISSING  # tables, files, arrays: nothing a point can hold
    number, quality = reading(point, raw)
    if quality is Quality.GOOD and metric.quality is not None:
        return number, _quality(metric.quality)
    return number, quality


def _quality(code: int) -> Quality:
    """OPC quality codes: 192 to 255 good, 64 to 191 uncertain, 500 stale, the rest bad."""
    if 192 <= code <= 255:
        return Quality.GOOD
    return Quality.SUSPECT if 64 <= code < 192 or code == 500 else Quality.BAD


def _stop_waiting(device: _Device) -> None:
    if device.waiting is not None:
        device.waiting.cancel()
        device.waiting = None


def _first(group: BaseExceptionGroup[BaseException]) -> TransportError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, TransportError)  # noqa: S101 - split by that type
    return error
