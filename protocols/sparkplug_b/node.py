"""The edge node's end: births before data, one sequence over node and devices, a will that fits. No I/O, no clock.

Used both ways: our gateway speaking to somebody else's SCADA, and the simulator's nodes speaking to us.
Sparkplug 3.0, chapter 5: bdSeq counts connections (0-255) and stands in NBIRTH and will alike; seq is 0 in the NBIRTH
and counts every message after it; with a primary host, nothing is published while that host is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.sparkplug_b import topics
from protocols.sparkplug_b.datatypes import DataType
from protocols.sparkplug_b.host import BD_SEQ, REBIRTH, Outgoing
from protocols.sparkplug_b.messages import Metric, Payload, decode, encode, typed
from protocols.sparkplug_b.topics import NAMESPACE, Topic

#: A host that asks for births without end gets one in this time.
REBIRTH_PAUSE_MS = 1_000


@dataclass(slots=True)
class _Device:
    """``metrics``: what the next birth says, by name. ``alive``: its birth was published. ``dead``: it does not
    answer, so births leave it out."""

    metrics: dict[str, Metric]
    alive: bool = False
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Ordered:
    """A host's order: ``device`` "" is the node itself; metrics have names and types."""

    device: str
    metrics: tuple[Metric, ...] = field(default=())


class EdgeNode:
    """One edge node. ``bd_seq``: of the next connection (kept by the caller over restarts). ``aliases``: data carry
    numbers instead of names. ``primary_host``: publish only while that host's STATE is online."""

    def __init__(self, group: str, node: str, *, bd_seq: int = 0, aliases: bool = True, primary_host: str = "") -> None:
        self.group = topics.check_id(group, "group")
        self.node = topics.check_id(node, "node")
        self.primary_host = primary_host and topics.check_id(primary_host, "primary host")
        self._aliases = aliases
        self._bd_seq = bd_seq % 256
        self._seq = 0
        self._connected = False
        self._host_online = not primary_host
        self._host_since_ms = -1
        self._born = False
        self._last_birth_ms: int | None = None
        self._rebirth_due_ms: int | None = None
        self._devices: dict[str, _Device] = {}
        self._own: dict[str, Metric] = {
            BD_SEQ: Metric(BD_SEQ, 0, DataType.INT64),
            REBIRTH: Metric(REBIRTH, False, DataType.BOOLEAN),
        }
        self._alias_of: dict[tuple[str, str], int] = {}
        self._name_of: dict[int, tuple[str, str]] = {}
        self._output: list[Outgoing] = []

    # -- connection

    def subscriptions(self) -> list[str]:
        out = [
            str(Topic("NCMD", self.group, self.node)),
            f"{NAMESPACE}/{self.group}/DCMD/{self.node}/#",
        ]
        return [*out, f"{NAMESPACE}/STATE/{self.primary_host}"] if self.primary_host else out

    def connecting(self, now_ms: int) -> Outgoing:
        """The will for the CONNECT that follows (QoS 1, not retained)."""
        self._connected = self._born = False
        self._host_online = not self.primary_host
        self._host_since_ms = -1
        self._output.clear()
        return self._death(now_ms)

    def _death(self, now_ms: int) -> Outgoing:
        metric = Metric(BD_SEQ, self._bd_seq, DataType.INT64, timestamp_ms=now_ms)
        return Outgoing(self._topic("NDEATH"), encode(Payload(now_ms, (metric,))), 1)

    def connected(self, now_ms: int) -> None:
        """Connected and subscribed: births, unless a primary host must be waited for."""
        self._connected = True
        if self._host_online:
            self._births(now_ms)

    def lost(self) -> None:
        """The connection is gone; the next one counts on."""
        self._connected = self._born = False
        self._output.clear()
        self._bd_seq = (self._bd_seq + 1) % 256

    def goodbye(self, now_ms: int) -> Outgoing | None:
        """What to publish before a deliberate DISCONNECT, which takes the will away; None if nobody knows of us."""
        return self._death(now_ms) if self._connected else None

    @property
    def bd_seq(self) -> int:
        return self._bd_seq

    @property
    def live(self) -> bool:
        """Data would be published now."""
        return self._born

    # -- what there is to say

    def set_own(self, metrics: Sequence[Metric]) -> None:
        """Metrics of the node itself, beside bdSeq and Rebirth."""
        self._own |= {_name(one): one for one in metrics}

    def define(self, device: str, metrics: Sequence[Metric], now_ms: int) -> None:
        """A device with all it can say (name, type, value or None) is there: its birth goes out now, or with the
        node's. A device that is alive is born again only if it says something new."""
        topics.check_id(device, "device")
        held = self._devices.get(device)
        if held is not None and held.alive and {_name(one) for one in metrics} <= held.metrics.keys():
            return
        self._devices[device] = _Device((held.metrics if held else {}) | {_name(one): one for one in metrics})
        if self._born:
            self._device_birth(device, now_ms)  # whoever is defined is there

    def die(self, device: str, now_ms: int) -> None:
        """The device does not answer any more."""
        held = self._devices.get(device)
        if held is None or held.dead:
            return
        held.dead = True
        if self._born and held.alive:
            self._put("DDEATH", device, (), now_ms)
        held.alive = False

    def revive(self, device: str, now_ms: int) -> None:
        """It answers again: a device that died is born anew."""
        held = self._devices.get(device)
        if held is None or not held.dead:
            return
        held.dead = False
        if self._born:
            self._device_birth(device, now_ms)

    def update(self, device: str, metrics: Sequence[Metric], now_ms: int) -> bool:
        """New values (``device`` "": of the node); false if they could only be kept for the next birth. Historical
        ones change no current value."""
        held = self._own if not device else self._devices[device].metrics
        alive = not device or self._devices[device].alive
        for metric in metrics:
            name = _name(metric)
            if name not in held:
                raise LocalProtocolError(f"{device or self.node} was not defined with {name!r}", reason="no_birth")
            if not metric.is_historical:
                held[name] = _with_value(held[name], metric)
        if not (self._born and alive):
            return False
        said = tuple(self._short(device, replace(one, datatype=held[_name(one)].datatype)) for one in metrics)
        self._put("DDATA" if device else "NDATA", device, said, now_ms)
        return True

    def _short(self, device: str, metric: Metric) -> Metric:
        alias = self._alias_of.get((device, _name(metric)))
        return metric if alias is None else replace(metric, name=None, alias=alias)

    # -- births

    def _births(self, now_ms: int) -> None:
        self._seq = 0
        self._born = True
        self._last_birth_ms, self._rebirth_due_ms = now_ms, None
        self._alias_of.clear()
        self._name_of.clear()
        self._own[BD_SEQ] = replace(self._own[BD_SEQ], value=self._bd_seq)
        self._put("NBIRTH", "", self._whole("", self._own, now_ms), now_ms)
        for device, held in self._devices.items():
            held.alive = False
            if not held.dead:
                self._device_birth(device, now_ms)

    def _device_birth(self, device: str, now_ms: int) -> None:
        held = self._devices[device]
        held.alive = True
        self._put("DBIRTH", device, self._whole(device, held.metrics, now_ms), now_ms)

    def _whole(self, device: str, metrics: dict[str, Metric], now_ms: int) -> tuple[Metric, ...]:
        out = []
        for name, metric in metrics.items():
            alias = None
            if self._aliases and name != BD_SEQ:
                alias = self._alias_of.setdefault((device, name), len(self._alias_of) + 1)
                self._name_of[alias] = (device, name)
            stamp = now_ms if metric.timestamp_ms is None else metric.timestamp_ms
            null = True if metric.value is None else None
            out.append(replace(metric, alias=alias, timestamp_ms=stamp, is_null=null))
        return tuple(out)

    def _topic(self, kind: str, device: str = "") -> str:
        return str(Topic(kind, self.group, self.node, device))

    def _put(self, kind: str, device: str, metrics: tuple[Metric, ...], now_ms: int) -> None:
        payload = Payload(now_ms, metrics, self._seq)
        self._seq = (self._seq + 1) % 256
        self._output.append(Outgoing(self._topic(kind, device), encode(payload)))

    def take_output(self) -> list[Outgoing]:
        out, self._output = self._output, []
        return out

    # -- orders

    def receive(self, topic: str, payload: bytes, now_ms: int) -> list[Ordered | RemoteProtocolError]:
        """Orders for us; a demand for births and the primary host's state are dealt with here."""
        try:
            found = topics.parse(topic)
            if found.type == "STATE":
                self._state(found, payload, now_ms)
                return []
            if found.type not in ("NCMD", "DCMD") or (found.group, found.node) != (self.group, self.node):
                return []
            return self._order(found.device, decode(payload), now_ms)
        except RemoteProtocolError as error:
            return [error]

    def _state(self, topic: Topic, payload: bytes, now_ms: int) -> None:
        if not self.primary_host or topic.host != self.primary_host:
            return
        online, since_ms = topics.parse_state(payload)
        if since_ms is not None and since_ms < self._host_since_ms:
            return  # the will of an older connection of that host
        self._host_since_ms = since_ms if since_ms is not None else self._host_since_ms
        self._host_online = online
        if not online:
            if self._born:
                self._output.append(self._death(now_ms))  # other hosts must not take our silence for steadiness
            self._born = False
        elif self._connected and not self._born:
            self._births(now_ms)

    @property
    def stranded(self) -> bool:
        """Connected, but the primary host is not: nothing may be published, what is said must be kept."""
        return self._connected and not self._host_online

    def _order(self, device: str, message: Payload, now_ms: int) -> list[Ordered | RemoteProtocolError]:
        held = self._own if not device else self._devices[device].metrics if device in self._devices else None
        if held is None:
            return [RemoteProtocolError(f"an order for {device!r}, which is not ours", reason="unknown_device")]
        metrics: list[Metric] = []
        out: list[Ordered | RemoteProtocolError] = []
        for metric in message.metrics:
            name = metric.name
            if name is None and metric.alias is not None:
                owner, name = self._name_of.get(metric.alias, ("", None))
                name = name if owner == device else None
            if name is None or name not in held:
                out.append(RemoteProtocolError(f"an order for {name or metric.alias!r}", reason="unknown_metric"))
                continue
            known = typed(replace(metric, name=name), held[name].datatype or 0)
            if not device and name == REBIRTH:
                if known.value is True:
                    self._rebirth(now_ms)
                continue
            metrics.append(known)
        return [*out, Ordered(device, tuple(metrics))] if metrics else out

    def _rebirth(self, now_ms: int) -> None:
        if not self._born:
            return
        due_ms = (self._last_birth_ms or 0) + REBIRTH_PAUSE_MS
        if now_ms >= due_ms:
            self._births(now_ms)
        else:
            self._rebirth_due_ms = due_ms

    # -- time

    def deadline(self) -> int | None:
        return self._rebirth_due_ms

    def tick(self, now_ms: int) -> None:
        if self._rebirth_due_ms is not None and self._rebirth_due_ms <= now_ms and self._born:
            self._births(now_ms)


def _with_value(held: Metric, news: Metric) -> Metric:
    """What the next birth says of a metric: its new value, and its lasting properties (unit) beside those of now."""
    lasting = {key: one for key, one in (held.properties or {}).items() if key != "Quality"}
    properties = {**lasting, **(news.properties or {})} or None
    return replace(held, value=news.value, timestamp_ms=news.timestamp_ms, is_null=news.is_null, properties=properties)


def _name(metric: Metric) -> str:
    if metric.name is None:
        raise LocalProtocolError("a metric of our own has a name", reason="name")
    return metric.name
