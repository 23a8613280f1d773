"""An OPC UA server we subscribe to: what changes comes as sweeps with the server's own times and status codes.

The library's own reconnection is not used: a lost connection ends the connector, and the supervisor makes a new one, so
there is one place that decides when to try again. Node ids in device types name their namespace by its address
(``nsu=urn:...;s={root}.Level``), for a server may number its namespaces anew with every start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Command, Outcome, Sink
from edge.connectors.device_time import judge
from edge.connectors.health import LOST_AFTER, Health
from edge.connectors.industry_config import OpcuaConfig, OpcuaDevice
from edge.connectors.opcua_link import OpcuaDoor, as_transport
from edge.connectors.orders import agrees, shown, target_of
from protocols.core.errors import LinkDown, TransportError
from protocols.core.model import Quality, Sweep
from protocols.devices import DeviceType, Point, load
from protocols.devices.values import reading

#: Changes that wait for us; beyond it the oldest go, counted by the gap in what we see. 10 000 nodes once.
_QUEUE = 10_000
_MOST_AT_ONCE = 2_000
_READ_BACK_STEP_S = 0.2
#: Status codes that mean "there is no value", not "the value is wrong".
_NO_VALUE = ("BadNoData", "BadWaitingForInitialData", "BadNotFound", "BadNoCommunication", "BadOutOfService")


@dataclass(slots=True, eq=False)
class _Device:
    config: OpcuaDevice
    kind: DeviceType
    health: Health
    nodes: dict[str, tuple[Point, ...]] = field(default_factory=dict)  # by key, {root} filled in

    def key(self, key: str) -> str:
        return key.replace("{root}", self.config.root)


@dataclass(frozen=True, slots=True)
class _Change:
    device: _Device
    points: tuple[Point, ...]
    value: Any
    status: str
    source: datetime | None


class OpcuaClient:
    """The connector of kind ``opcua``."""

    def __init__(self, config: OpcuaConfig, clock: Clock, base: Path) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._door = OpcuaDoor(config, base)
        self._devices = [_device(one) for one in config.device]
        self._client: Any = None
        self._namespaces: list[str] = []
        self._failures = 0

    async def run(self, sink: Sink) -> None:
        try:
            client, gone = await self._door.connect()
        except TransportError as error:
            self._failed(sink, error)
            raise
        try:
            self._namespaces = await client.get_namespace_array()
            changes = await self._subscribe(client, sink)
            self._client, self._failures = client, 0
            await self._listen(changes, gone, sink)
        except TransportError as error:
            self._failed(sink, error)
            raise
        except Exception as error:
            if (told := as_transport(error)) is None:
                raise
            self._failed(sink, told)
            raise told from error
        finally:
            self._client = None
            with contextlib.suppress(Exception):  # whatever the library says about a connection that is over
                async with asyncio.timeout(self._config.timeout_s):
                    await client.disconnect()

    def _failed(self, sink: Sink, error: Exception) -> None:
        self._failures += 1
        if self._failures >= LOST_AFTER:
            for device in self._devices:
                device.health.gone(sink, str(error))

    # -- in

    async def _subscribe(self, client: Any, sink: Sink) -> Any:
        """One subscription, one item a node; nodes that are not there are told, the others serve."""
        from asyncua import ua

        changes = await client.create_subscription(
            self._config.publish_s * 1000, queue_maxsize=_QUEUE, overflow="drop_oldest"
        )
        self._items: dict[Any, list[tuple[_Device, tuple[Point, ...]]]] = {}
        for device in self._devices:
            there = 0
            for key, points in device.nodes.items():
                node_id = self._node_id(device, key, sink)
                if node_id is None:
                    continue
                self._items.setdefault(node_id, []).append((device, points))
                there += 1
            if not there:
                device.health.gone(sink, "the server has none of its nodes")
        found = list(self._items)
        nodes = [client.get_node(node_id) for node_id in found]
        results = await changes.subscribe_data_change(
            nodes, queuesize=self._config.queue, sampling_interval=self._config.sample_s * 1000
        )
        for node_id, result in zip(found, results if isinstance(results, list) else [results], strict=True):
            if not isinstance(result, ua.StatusCode):
                continue
            for device, points in self._items.pop(node_id):
                for point in points:
                    text = f"{node_id.to_string()}: {result.name}"
                    sink.report("data.rejected", device.config.id, "no_node", text, point=point.name)
        served = {id(device) for entries in self._items.values() for device, _ in entries}
        for device in self._devices:
            if id(device) not in served:
                device.health.gone(sink, "the server has none of its nodes")
        return changes

    def _node_id(self, device: _Device, key: str, sink: Sink | None) -> Any:
        """The node id of a key; None if its namespace is not there. ``nsu=`` names a namespace by its address."""
        from asyncua import ua

        text = key
        try:
            if key.startswith("nsu="):
                uri, _, rest = key.removeprefix("nsu=").partition(";")
                text = f"ns={self._namespaces.index(uri)};{rest}"
            return ua.NodeId.from_string(text)
        except (ValueError, ua.UaError) as error:
            if sink is not None:
                sink.report("data.rejected", device.config.id, "no_namespace", f"{key}: {error}")
            return None

    async def _listen(self, changes: Any, gone: asyncio.Future[Exception], sink: Sink) -> None:
        while True:
            waiting = asyncio.ensure_future(anext(changes))
            try:
                await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not waiting.done():
                    waiting.cancel()
            if not waiting.done() or waiting.cancelled():
                raise LinkDown(f"{self._config.url}: {gone.result() or 'connection lost'}")
            try:
                event = waiting.result()
            except StopAsyncIteration:
                raise LinkDown(f"{self._config.url}: the subscription ended") from None
            found = list(self._changes(event))
            while len(found) < _MOST_AT_ONCE and (event := await changes.next_event(timeout=0)) is not None:
                found += self._changes(event)
            self._emit(found, sink)

    def _changes(self, event: Any) -> Iterator[_Change]:
        if type(event).__name__ == "StatusChangeEvent":
            raise LinkDown(f"{self._config.url}: the server ended the subscription ({event.notification.Status.name})")
        data = event.data.monitored_item.Value
        status = data.StatusCode
        name = "Good" if status is None or status.is_good() else str(status.name)
        source = data.SourceTimestamp or data.ServerTimestamp
        for device, points in self._items.get(event.node.nodeid, ()):
            yield _Change(device, points, event.value, name, source)

    def _emit(self, changes: list[_Change], sink: Sink) -> None:
        """One sweep for each device and time; several values of one node in one go keep their own times."""
        now_ms = self._clock.now_ms()
        found: dict[tuple[str, int], dict[str, tuple[float, Quality]]] = {}
        for change in changes:
            device = change.device
            device.health.answered(sink)
            source_ms, skewed = judge(_ms(change.source), now_ms)
            if skewed:
                text = f"the server says {change.source}; the gateway's time is used"
                sink.report("dev.clock_skew", device.config.id, "offset", text)
            for point in change.points:
                number, quality = _reading(point, change)
                if change.status.startswith("Bad") and change.status not in _NO_VALUE:
                    sink.report(
                        "dev.fault", device.config.id, change.status, f"status of {point.name}", point=point.name
                    )
                if skewed and quality is Quality.GOOD:
                    quality = Quality.SUSPECT
                found.setdefault((device.config.id, source_ms), {})[point.name] = (number, quality)
        for (device_id, source_ms), values in sorted(found.items()):
            sink.sweep(
                Sweep(
                    device=device_id,
                    source_ms=source_ms,
                    seen_ms=now_ms,
                    points=tuple(values),
                    values=np.array([number for number, _ in values.values()], dtype=np.float64),
                    quality=np.array([quality for _, quality in values.values()], dtype=np.uint8),
                )
            )

    # -- out

    async def command(self, command: Command) -> Outcome:
        """Write a value, then read what the type names until it shows it."""
        from asyncua import ua

        device = next((one for one in self._devices if one.config.id == command.device), None)
        kind = device.kind.command(command.name) if device is not None else None
        client = self._client
        if client is None:
            raise LinkDown(f"{self.id}: not connected")
        if device is None or kind is None:
            return Outcome("refused", "unknown_command", command.name)
        key, value = target_of(kind, command)
        node_id = self._node_id(device, device.key(key), None)
        if node_id is None or value is None:
            return Outcome("refused", "no_node", device.key(key))
        node = client.get_node(node_id)
        try:
            async with asyncio.timeout(self._config.timeout_s):
                variant = await node.read_data_type_as_variant_type()
                wanted = _as_variant(value, variant)
        except (ua.UaError, OSError, TimeoutError) as error:
            return Outcome("refused", _code(error), f"{device.key(key)}: {error}")
        except ValueError as error:
            return Outcome("refused", "argument", str(error))
        try:
            async with asyncio.timeout(self._config.timeout_s):
                # Without times: many servers refuse a client that brings its own.
                await node.write_value(ua.DataValue(ua.Variant(wanted, variant)))
        except ua.UaStatusCodeError as error:
            return Outcome("refused", _code(error), str(error))
        except (ua.UaError, OSError, TimeoutError) as error:
            return Outcome("unknown", _code(error), f"it was sent and no answer came: {error}")
        if not kind.read_back:
            return Outcome("done")
        return await self._read_back(client, device, kind.read_back, shown(kind, value))

    async def _read_back(self, client: Any, device: _Device, name: str, expected: float | None) -> Outcome:
        from asyncua import ua

        point = device.kind.point(name)
        assert point.value is not None  # noqa: S101 - points of this family have it, the type was checked
        node_id = self._node_id(device, device.key(point.value.key), None)
        last: float | None = None
        try:
            async with asyncio.timeout(self._config.timeout_s):
                while True:
                    data = await client.get_node(node_id).read_data_value(raise_on_bad_status=False)
                    status = "Good" if data.StatusCode is None or data.StatusCode.is_good() else data.StatusCode.name
                    raw = data.Value.Value if data.Value is not None else None
                    number, quality = _reading(point, _Change(device, (point,), raw, status, None))
                    if quality is not Quality.MISSING:
                        last = number
                        if agrees(expected, number, point.decimals):
                            return Outcome("done", read_back={name: number})
                    await asyncio.sleep(_READ_BACK_STEP_S)
        except (ua.UaError, OSError, TimeoutError) as error:
            if last is not None:
                text = f"{name} is {last:g}, not {expected:g}" if expected is not None else ""
                return Outcome("failed", "read_back", text, {name: last})
            return Outcome("unknown", _code(error), f"{name} could not be read back")


def _device(config: OpcuaDevice) -> _Device:
    kind = load(config.type)
    device = _Device(config, kind, Health(config.id))
    for point in kind.points:
        if point.value is not None:
            key = device.key(point.value.key)
            device.nodes[key] = (*device.nodes.get(key, ()), point)
    return device


def _reading(point: Point, change: _Change) -> tuple[float, Quality]:
    """OPC status codes as quality: uncertain is suspect; bad with a value is bad, without one missing."""
    raw = change.value
    number, quality = reading(point, raw if isinstance(raw, bool | int | float | str) else None)
    if quality is Quality.MISSING or change.status in _NO_VALUE:
        return float("nan"), Quality.MISSING
    if change.status.startswith("Bad"):
        return number, Quality.BAD
    return number, Quality.SUSPECT if change.status.startswith("Uncertain") else quality


def _as_variant(value: float | int | bool | str, variant: Any) -> Any:
    """The value as the node's own type. Raises ValueError."""
    name = variant.name
    if name == "Boolean":
        if value in (0, 1):
            return bool(value)
        raise ValueError(f"{value!r} is neither true nor false")
    if name in ("Float", "Double"):
        return float(value)
    if name.startswith(("Int", "UInt", "SByte", "Byte")):
        if float(value) != int(value):
            raise ValueError(f"{value!r} is no whole number")
        return int(value)
    if name == "String":
        return str(value)
    raise ValueError(f"a node of type {name} cannot be written")


def _ms(moment: datetime | None) -> int | None:
    """OPC UA times are UTC, with or without saying so; its year 1601 is "never"."""
    if moment is None or moment.year < 1970:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _code(error: BaseException) -> str:
    return type(error).__name__ if not isinstance(error, TimeoutError) else "timeout"
