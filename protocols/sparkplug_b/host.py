"""The host application's end: who is alive, what each alias means, and when to ask for a new birth. No I/O, no clock.

Rules of Sparkplug 3.0, chapter 5, and what they protect from:

- an NBIRTH replaces everything known of a node; its devices are unknown until their DBIRTH;
- a gap in ``seq`` means that something is missing, perhaps a birth that gave the aliases new meanings: from then on
  only metrics that carry their name are believed, and a rebirth is asked for, seldom, and less often while none comes;
- an NDEATH counts only with the bdSeq of the birth it belongs to: a late will must not bury a node that is back.

Memory is bounded: so many nodes, devices of a node and metrics of a birth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.sparkplug_b import topics
from protocols.sparkplug_b.datatypes import DataType
from protocols.sparkplug_b.messages import Metric, Payload, Template, decode, encode, typed
from protocols.sparkplug_b.topics import NAMESPACE, Topic

REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"

MAX_NODES = 1_024
MAX_DEVICES = 512  # of one node
MAX_METRICS = 20_000  # of one birth
#: A rebirth of a large node is a burst: ask at most this often, then less and less.
REBIRTH_PAUSE_MS = 10_000
REBIRTH_PAUSE_MOST_MS = 600_000


@dataclass(frozen=True, slots=True)
class Source:
    """A node (``device`` "") or a device of it."""

    group: str
    node: str
    device: str = ""

    def __str__(self) -> str:
        return f"{self.group}/{self.node}" + (f"/{self.device}" if self.device else "")

    @property
    def of_node(self) -> Source:
        return Source(self.group, self.node)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Born:
    source: Source
    metrics: tuple[Metric, ...]
    timestamp_ms: int | None


@dataclass(frozen=True, slots=True)
class Said:
    """Data; every metric has its name, its type where any birth told it, and templates laid flat (``Motor/Speed``)."""

    source: Source
    metrics: tuple[Metric, ...]
    timestamp_ms: int | None


@dataclass(frozen=True, slots=True)
class Died:
    """The node or device is gone; of a node's death its devices are told one by one, too."""

    source: Source
    detail: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A message, or part of one, that is not believed. ``source`` None: not even the topic could be read."""

    source: Source | None
    error: RemoteProtocolError


HostEvent = Born | Said | Died | Refused


@dataclass(slots=True)
class _Known:
    """What a birth said of one node or device."""

    types: dict[str, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # by alias


@dataclass(slots=True)
class _Node:
    bd_seq: int | None
    seq: int
    own: _Known
    devices: dict[str, _Known] = field(default_factory=dict)
    sure: bool = True  # no message was missed since the birth
    last: bytes = b""  # the last message, to recognise its repeat


@dataclass(slots=True)
class _Asking:
    due_ms: int
    pause_ms: int
    wanted: bool


class HostApplication:
    """One host. ``group`` "" takes all groups. Feed every message of :meth:`subscriptions`; publish what
    :meth:`take_output` gives after each call."""

    def __init__(
        self,
        host_id: str,
        *,
        group: str = "",
        rebirth_pause_ms: int = REBIRTH_PAUSE_MS,
        max_nodes: int = MAX_NODES,
        max_metrics: int = MAX_METRICS,
    ) -> None:
        self.host_id = topics.check_id(host_id, "host id")
        self._group = group and topics.check_id(group, "group")
        self._pause_ms = rebirth_pause_ms
        self._max_nodes = max_nodes
        self._max_metrics = max_metrics
        self._nodes: dict[Source, _Node] = {}
        self._asking: dict[Source, _Asking] = {}
        self._output: list[Outgoing] = []
        self._since_ms = 0

    # -- our own state

    def subscriptions(self) -> list[str]:
        return [f"{NAMESPACE}/{self._group or '+'}/#", self._state_topic]

    @property
    def _state_topic(self) -> str:
        return str(Topic("STATE", host=self.host_id))

    def will(self, now_ms: int) -> Outgoing:
        """To be given to the broker with CONNECT; carries the time of the birth that follows."""
        self._since_ms = now_ms
        return Outgoing(self._state_topic, topics.state_payload(online=False, timestamp_ms=now_ms), 1, True)

    def connected(self) -> None:
        """Subscribed: say that we are there, and trust nothing learnt before."""
        self._nodes.clear()
        self._asking.clear()
        self._output.append(self._online())

    def _online(self) -> Outgoing:
        return Outgoing(self._state_topic, topics.state_payload(online=True, timestamp_ms=self._since_ms), 1, True)

    def goodbye(self, now_ms: int) -> Outgoing:
        return Outgoing(self._state_topic, topics.state_payload(online=False, timestamp_ms=now_ms), 1, True)

    # -- in

    def receive(self, topic: str, payload: bytes, now_ms: int) -> list[HostEvent]:
        """What one message means. Raises nothing for what others sent."""
        try:
            found = topics.parse(topic)
        except RemoteProtocolError as error:
            return [Refused(None, error)]
        if found.type == "STATE":
            return self._state(found, payload)
        if found.type in ("NCMD", "DCMD"):
            return []  # another host's orders, or our own
        source = Source(found.group, found.node, found.device)
        try:
            message = decode(payload)
            return self._take(found.type, source, message, payload, now_ms)
        except RemoteProtocolError as error:
            return [Refused(source, error)]

    def _state(self, topic: Topic, payload: bytes) -> list[HostEvent]:
        if topic.host != self.host_id:
            return []
        try:
            online, _ = topics.parse_state(payload)
        except RemoteProtocolError as error:
            return [Refused(None, error)]
        if not online and self._since_ms:
            self._output.append(self._online())  # the will of our own old connection came late
        return []

    def _take(self, kind: str, source: Source, message: Payload, raw: bytes, now_ms: int) -> list[HostEvent]:
        if kind == "NDEATH":
            return self._node_death(source, message)
        if kind == "NBIRTH":
            return self._node_birth(source, message, raw)
        node = self._nodes.get(source.of_node)
        if node is None:
            self._ask(source.of_node, now_ms)
            raise RemoteProtocolError(f"{kind} of a node whose birth was not seen", reason="no_birth")
        if node.last == raw and message.seq == node.seq:
            return []  # the broker delivered it twice
        out: list[HostEvent] = []
        if (gap := self._follow(node, message, raw)) is not None:
            self._ask(source.of_node, now_ms)
            out.append(Refused(source, gap))
        if kind == "DBIRTH":
            return out + self._device_birth(source, node, message)
        if kind == "DDEATH":
            known = node.devices.pop(source.device, None)
            return [*out, Died(source, "DDEATH")] if known is not None else out
        return out + self._data(source, node, message, now_ms)

    def _follow(self, node: _Node, message: Payload, raw: bytes) -> RemoteProtocolError | None:
        """Take the sequence number; an error if one is missing in between."""
        expected = (node.seq + 1) % 256
        node.last = raw
        if message.seq is None:
            node.sure = False
            return RemoteProtocolError("a message without seq", reason="no_seq")
        node.seq = message.seq
        if message.seq == expected:
            return None
        node.sure = False
        text = f"seq {message.seq} where {expected} was due: a message is missing"
        return RemoteProtocolError(text, reason="seq_gap")

    def _node_birth(self, source: Source, message: Payload, raw: bytes) -> list[HostEvent]:
        known, metrics = self._learn(message)
        old = self._nodes.pop(source, None)
        if old is None and len(self._nodes) >= self._max_nodes:
            raise RemoteProtocolError(f"more than {self._max_nodes} edge nodes", reason="too_many")
        bd_seq = message.metric(BD_SEQ)
        number = bd_seq.value if bd_seq is not None and isinstance(bd_seq.value, int) else None
        self._nodes[source] = _Node(number, message.seq or 0, known, last=raw)
        self._asking.pop(source, None)
        out: list[HostEvent] = []
        if message.seq != 0:
            error = RemoteProtocolError(f"an NBIRTH with seq {message.seq}, not 0", reason="birth_seq")
            out.append(Refused(source, error))
        return [*out, Born(source, metrics, message.timestamp_ms)]

    def _device_birth(self, source: Source, node: _Node, message: Payload) -> list[HostEvent]:
        if source.device not in node.devices and len(node.devices) >= MAX_DEVICES:
            raise RemoteProtocolError(f"more than {MAX_DEVICES} devices of one node", reason="too_many")
        known, metrics = self._learn(message)
        node.devices[source.device] = known
        return [Born(source, metrics, message.timestamp_ms)]

    def _learn(self, message: Payload) -> tuple[_Known, tuple[Metric, ...]]:
        known = _Known()
        metrics: list[Metric] = []
        for metric in _flat(message.metrics):
            if len(metrics) >= self._max_metrics:
                raise RemoteProtocolError(f"a birth of more than {self._max_metrics} metrics", reason="too_many")
            if metric.name is None:
                continue  # a birth names its metrics; one without name can never be spoken of
            if metric.datatype is not None:
                known.types[metric.name] = metric.datatype
            if metric.alias is not None:
                known.names[metric.alias] = metric.name
            metrics.append(metric)
        return known, tuple(metrics)

    def _data(self, source: Source, node: _Node, message: Payload, now_ms: int) -> list[HostEvent]:
        known = node.devices.get(source.device) if source.device else node.own
        if known is None:
            self._ask(source.of_node, now_ms)
            raise RemoteProtocolError("data of a device whose birth was not seen", reason="no_birth")
        metrics: list[Metric] = []
        unknown = 0
        for metric in _flat(message.metrics):
            name = metric.name
            if name is None and node.sure and metric.alias is not None:
                name = known.names.get(metric.alias)
            if name is None:
                unknown += 1
                continue
            named = replace(metric, name=name)
            datatype = known.types.get(name)
            metrics.append(typed(named, datatype) if datatype is not None else named)
        out: list[HostEvent] = []
        if unknown:
            self._ask(source.of_node, now_ms)
            text = f"{unknown} metrics known by alias only" + ("" if node.sure else ", after a gap")
            out.append(Refused(source, RemoteProtocolError(text, reason="unknown_alias")))
        if metrics:
            out.append(Said(source, tuple(metrics), message.timestamp_ms))
        return out

    def _node_death(self, source: Source, message: Payload) -> list[HostEvent]:
        node = self._nodes.get(source)
        if node is None:
            return [Died(source, "NDEATH")]
        told = message.metric(BD_SEQ)
        number = told.value if told is not None else None
        if number != node.bd_seq:
            text = f"NDEATH of bdSeq {number}, the node was born with {node.bd_seq}"
            raise RemoteProtocolError(text, reason="bd_seq")
        del self._nodes[source]
        self._asking.pop(source, None)
        gone = [Died(Source(source.group, source.node, device), "NDEATH") for device in node.devices]
        return [*gone, Died(source, "NDEATH")]

    # -- out

    def rebirth(self, source: Source, now_ms: int) -> None:
        """Ask for a birth although nothing is wrong (a device of ours was not in the last one)."""
        self._ask(source.of_node, now_ms)

    def _ask(self, node: Source, now_ms: int) -> None:
        asking = self._asking.get(node)
        if asking is None:
            if len(self._asking) >= self._max_nodes:
                return
            asking = self._asking[node] = _Asking(now_ms, self._pause_ms, False)
        if now_ms < asking.due_ms:
            asking.wanted = True
            return
        asking.wanted = False
        asking.due_ms = now_ms + asking.pause_ms
        asking.pause_ms = min(2 * asking.pause_ms, REBIRTH_PAUSE_MOST_MS)
        metric = Metric(REBIRTH, True, DataType.BOOLEAN, timestamp_ms=now_ms)
        self._output.append(self._command(node, metric, now_ms))

    def write(self, source: Source, name: str, value: float | str | bool, now_ms: int) -> Outgoing:
        """An order: set that metric, with the type its birth gave it. Raises LocalProtocolError."""
        node = self._nodes.get(source.of_node)
        known = None if node is None else (node.devices.get(source.device) if source.device else node.own)
        datatype = known.types.get(name) if known is not None else None
        if datatype is None:
            raise LocalProtocolError(f"{source} has told of no metric {name!r}", reason="no_birth")
        return self._command(source, Metric(name, _as_type(value, datatype), datatype, timestamp_ms=now_ms), now_ms)

    @staticmethod
    def _command(source: Source, metric: Metric, now_ms: int) -> Outgoing:
        kind = "DCMD" if source.device else "NCMD"
        topic = Topic(kind, source.group, source.node, source.device)
        return Outgoing(str(topic), encode(Payload(now_ms, (metric,))))

    def take_output(self) -> list[Outgoing]:
        out, self._output = self._output, []
        return out

    # -- time

    def deadline(self) -> int | None:
        """When a rebirth that had to wait may be asked for."""
        return min((one.due_ms for one in self._asking.values() if one.wanted), default=None)

    def tick(self, now_ms: int) -> None:
        for node, asking in list(self._asking.items()):
            if asking.wanted and asking.due_ms <= now_ms:
                self._ask(node, now_ms)

    @property
    def nodes(self) -> tuple[Source, ...]:
        return tuple(self._nodes)


def _flat(metrics: tuple[Metric, ...], prefix: str = "") -> Iterator[Metric]:
    """Metrics with those of template instances under ``template/metric``; definitions say nothing of the plant."""
    for metric in metrics:
        name = f"{prefix}{metric.name}" if metric.name is not None else None
        if isinstance(metric.value, Template):
            if not metric.value.is_definition and name is not None:
                yield from _flat(metric.value.metrics, f"{name}/")
            continue
        yield replace(metric, name=name) if prefix else metric


def _as_type(value: float | str | bool, datatype: int) -> float | str | bool | int:
    """What a command gives as the metric's own type. Raises LocalProtocolError."""
    if datatype == DataType.BOOLEAN and value in (0, 1):
        return bool(value)
    if isinstance(value, float) and datatype in range(DataType.INT8, DataType.FLOAT):
        if value != int(value):
            raise LocalProtocolError(f"{value} is no whole number", reason="value")
        return int(value)
    return value
