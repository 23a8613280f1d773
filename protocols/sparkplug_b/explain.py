"""A Sparkplug message told field by field: the topic, the payload and, with offsets, every metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, refused
from protocols.core.mqtt_capture import unwrap
from protocols.sparkplug_b import topics, wire
from protocols.sparkplug_b.datatypes import DataType, array_from_wire, is_array, name_of
from protocols.sparkplug_b.messages import (
    DataSet,
    Metric,
    Payload,
    Properties,
    Template,
    compressed,
    decode,
)
from protocols.sparkplug_b.topics import Topic

NAME = "sparkplug_b"
_PREFIXES = ("spBv1.0/", "spAv1.0/", "STATE/")
#: Metrics shown one by one; a large birth has thousands.
_SHOWN = 500
_BIRTHS = ("NBIRTH", "DBIRTH")
_NO_SEQ = ("NDEATH", "NCMD", "DCMD")


def explain(capture: Capture) -> Explanation:
    """One MQTT message, a topic (kind ``topic``) or the bytes of an array (kind ``value``)."""
    if capture.kind == "value":
        return _array(capture)
    if capture.kind == "topic":
        return _topic_only(capture, capture.topic)
    message = unwrap(capture.data, *_PREFIXES)
    topic_text = capture.topic or message.topic
    if topic_text and message.how == "line" and not message.payload:
        return _topic_only(capture, topic_text)
    topic: Topic | None = None
    if topic_text:
        try:
            topic = topics.parse(topic_text)
        except RemoteProtocolError as error:
            return refused(NAME, error.reason, str(error), capture=capture, hints=_topic_hints(topic_text))
    if topic is not None and topic.type == "STATE":
        return _state(capture, topic, message.payload)
    return _payload(capture, topic, message.payload, message.offset)


# -- topics and STATE --------------------------------------------------------------------------------------------------

_WORDS = {
    "type": ("消息类型", "message type"),
    "group": ("组", "group"),
    "node": ("边缘节点", "edge node"),
    "device": ("设备", "device"),
    "host": ("主机应用", "host application"),
}


def _topic_values(topic: Topic) -> dict[str, Any]:
    return {name: getattr(topic, name) for name in _WORDS if getattr(topic, name)}


def _topic_fields(topic: Topic) -> list[Field]:
    return [Field(name, value, None, None, *_WORDS[name]) for name, value in _topic_values(topic).items()]


def _topic_hints(text: str) -> tuple[str, ...]:
    if text.startswith("spAv1.0"):
        return ("Sparkplug A 的主题：编码不同，网关应切换到 B / a topic of Sparkplug A: switch the gateway to B",)
    parts = text.split("/")
    if len(parts) > 2 and parts[1] in (*topics.NODE_TYPES, *topics.DEVICE_TYPES):
        return ("组名与消息类型颠倒 / group and message type have changed places",)
    return ()


def _topic_only(capture: Capture, text: str) -> Explanation:
    try:
        topic = topics.parse(text)
    except RemoteProtocolError as error:
        return refused(NAME, error.reason, str(error), capture=capture, hints=_topic_hints(text))
    values = _topic_values(topic)
    if topic.type == "STATE":
        values["payload"] = "JSON, not protobuf"
    return Explanation(
        NAME, (Told(0, len(capture.data), f"topic of {topic.type}", tuple(_topic_fields(topic)), values),)
    )


def _state(capture: Capture, topic: Topic, data: bytes) -> Explanation:
    try:
        online, timestamp_ms = topics.parse_state(data)
    except RemoteProtocolError as error:
        return refused(NAME, error.reason, str(error), capture=capture)
    payload = {"online": online, "timestamp": timestamp_ms}
    fields = [
        *_topic_fields(topic),
        Field("online", online, zh="在线", en="online"),
        Field("timestamp", timestamp_ms, zh="时间(毫秒)", en="time (ms)"),
    ]
    hints = () if timestamp_ms is not None else ("旧版(3.0 之前)的 STATE / a STATE as it was before 3.0",)
    values = {"topic": _topic_values(topic), "payload": payload}
    return Explanation(NAME, (Told(0, len(capture.data), "STATE", tuple(fields), values, hints=hints),))


# -- arrays ------------------------------------------------------------------------------------------------------------


def _array(capture: Capture) -> Explanation:
    wanted = capture.extra.get("type_code", capture.extra.get("datatype"))
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        try:
            items = array_from_wire(capture.data, wanted)
        except RemoteProtocolError as error:
            return refused(NAME, error.reason, str(error), capture=capture)
        values = {"type": name_of(wanted), "type_code": wanted, "values": [_json(item) for item in items]}
        shown = Field("values", values["values"], 0, len(capture.data), "数组", "items")
        return Explanation(NAME, (Told(0, len(capture.data), name_of(wanted), (shown,), values),))
    readings = []
    for kind in range(DataType.INT8_ARRAY, DataType.DATE_TIME_ARRAY + 1):
        try:
            items = array_from_wire(capture.data, kind)
        except RemoteProtocolError:
            continue
        shown_items = [_json(item) for item in items]
        readings.append(Field(name_of(kind), shown_items, 0, len(capture.data), "若为此类型", "if it is of this type"))
    if not readings:
        return refused(NAME, "array", "no array type has this length", capture=capture)
    hint = "数组类型在 metric 的 datatype 里，字节本身不说明 / the metric's datatype says which one; the bytes do not"
    values = {"candidates": {one.name: one.value for one in readings}}
    return Explanation(NAME, (Told(0, len(capture.data), "array", tuple(readings), values, hints=(hint,)),))


# -- payloads ----------------------------------------------------------------------------------------------------------


def _payload(capture: Capture, topic: Topic | None, data: bytes, offset: int) -> Explanation:
    try:
        payload = decode(data)
    except RemoteProtocolError as error:
        detail = str(error) if error.offset is None else f"offset {offset + error.offset}: {error}"
        return refused(NAME, error.reason, detail, capture=capture, hints=_refusal_hints(data))
    if topic is None and not payload.metrics and payload.timestamp_ms is None:
        text = "neither a time nor a metric in it" if data else "nothing to read"
        return refused(NAME, "protobuf" if data else "empty", text, capture=capture, hints=_refusal_hints(data))
    fields = _topic_fields(topic) if topic is not None else []
    fields += _wire_fields(data, payload, offset)
    values: dict[str, Any] = {"payload": payload_json(payload)}
    if topic is not None:
        values["topic"] = _topic_values(topic)
    title = (
        f"{topic.type} {topic.group}/{topic.node}{'/' + topic.device if topic.device else ''}" if topic else "payload"
    )
    told = Told(offset, len(data), title, tuple(fields), values, hints=tuple(_hints(topic, payload, data)))
    return Explanation(NAME, (told,))


def _wire_fields(data: bytes, payload: Payload, base: int) -> list[Field]:
    if compressed(data) is not None:
        out = [Field("body", None, base, len(data), "压缩的载荷", "compressed payload")]
        return out + [
            Field(f"metrics[{n}]", metric_json(one), None, None, "数据点", "metric")
            for n, one in enumerate(payload.metrics[:_SHOWN])
        ]
    out = []
    number = 0
    for found in wire.fields(data):
        at, length = base + found.start, found.end - found.start
        if found.number == 1:
            out.append(Field("timestamp", payload.timestamp_ms, at, length, "时间(毫秒)", "time (ms)"))
        elif found.number == 2:
            if number < _SHOWN:
                shown = metric_json(payload.metrics[number])
                out.append(Field(f"metrics[{number}]", shown, at, length, "数据点", "metric"))
            number += 1
        elif found.number == 3:
            out.append(Field("seq", payload.seq, at, length, "序号", "sequence number"))
        elif found.number == 4:
            out.append(Field("uuid", payload.uuid, at, length, "标识", "identifier"))
        elif found.number == 5:
            out.append(Field("body", (payload.body or b"").hex(), at, length, "附加字节", "free bytes"))
        else:
            content = data[found.value : found.end][:64].hex()
            out.append(Field(f"extension {found.number}", content, at, length, "扩展", "extension"))
    return out


def payload_json(payload: Payload) -> dict[str, Any]:
    """The payload in the standard's JSON form."""
    out: dict[str, Any] = {}
    if payload.timestamp_ms is not None:
        out["timestamp"] = payload.timestamp_ms
    out["metrics"] = [metric_json(one) for one in payload.metrics]
    if payload.seq is not None:
        out["seq"] = payload.seq
    if payload.uuid is not None:
        out["uuid"] = payload.uuid
    if payload.body is not None:
        out["body"] = payload.body.hex()
    return out


def metric_json(metric: Metric) -> dict[str, Any]:
    said = {
        "name": metric.name,
        "alias": metric.alias,
        "timestamp": metric.timestamp_ms,
        "dataType": None if metric.datatype is None else name_of(metric.datatype),
        "isHistorical": metric.is_historical,
        "isTransient": metric.is_transient,
        "isNull": metric.is_null,
    }
    out: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    if isinstance(metric.value, DataSet):
        table = metric.value
        out |= {"columns": list(table.columns), "types": list(table.types)}
        out["rows"] = [[_json(item) for item in row] for row in table.rows]
    elif isinstance(metric.value, Template):
        out |= _template_json(metric.value)
        out["value"] = _template_json(metric.value)
    elif metric.value is not None and not metric.is_null:
        out["value"] = _json(metric.value)
    if metric.fault:
        out["fault"] = metric.fault
    if metric.properties is not None:
        out["properties"] = _properties_json(metric.properties)
    if metric.metadata is not None:
        said = {name: getattr(metric.metadata, name) for name in type(metric.metadata).__dataclass_fields__}
        out["metadata"] = {name: value for name, value in said.items() if value is not None}
    return out


def _template_json(template: Template) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if template.version is not None:
        out["version"] = template.version
    if template.ref is not None:
        out["templateRef"] = template.ref
    if template.is_definition is not None:
        out["isDefinition"] = template.is_definition
    out["metrics"] = [metric_json(one) for one in template.metrics]
    if template.parameters:
        out["parameters"] = [
            {"name": one.name, "type": name_of(one.datatype or 0), "value": _json(one.value)}
            for one in template.parameters
        ]
    return out


def _properties_json(properties: Properties) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, one in properties.items():
        if isinstance(one.value, Mapping):
            value: Any = _properties_json(one.value)
        elif isinstance(one.value, tuple):
            value = [_properties_json(inner) for inner in one.value]
        else:
            value = None if one.is_null else _json(one.value)
        out[key] = {"value": value} if one.datatype is None else {"type": name_of(one.datatype), "value": value}
    return out


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return [_json(item) for item in value] if isinstance(value, tuple) else value


# -- likely mistakes ---------------------------------------------------------------------------------------------------


def _refusal_hints(data: bytes) -> tuple[str, ...]:
    head = data.lstrip()[:1]
    if head in (b"{", b"["):
        return (
            "这是 JSON，不是 protobuf：网关可能设成了别的 MQTT 格式 / JSON, not protobuf: another MQTT format is set",
        )
    if data[:2] == b"\x1f\x8b":
        return ("gzip 压缩：像 Kura/Sparkplug A / gzip: looks like Kura or Sparkplug A",)
    return ()


def _hints(topic: Topic | None, payload: Payload, data: bytes) -> list[str]:
    out: list[str] = []
    kind = topic.type if topic is not None else ""
    if kind == "NBIRTH" and payload.seq not in (0, None):
        out.append(f"NBIRTH 的 seq 应为 0，这里是 {payload.seq} / an NBIRTH begins with seq 0, here {payload.seq}")
    if kind in ("NBIRTH", "NDEATH") and payload.metric("bdSeq") is None:
        out.append(f"{kind} 缺少 bdSeq，死亡消息无法对应 / no bdSeq: the death cannot be matched to its birth")
    if kind and kind not in _NO_SEQ and payload.seq is None:
        out.append(f"{kind} 缺少 seq / a {kind} has a seq")
    if kind in _NO_SEQ and payload.seq is not None:
        out.append(f"{kind} 不应有 seq / a {kind} has no seq")
    if kind in _BIRTHS and any(metric.datatype is None for metric in payload.metrics):
        out.append("出生消息的每个数据点都要有类型 / every metric of a birth names its type")
    if any(metric.name is None and metric.alias is None for metric in payload.metrics):
        out.append("有的数据点既无名称也无别名 / a metric has neither name nor alias")
    out += [
        f"{metric.name or metric.alias}: {_FAULTS.get(metric.fault, metric.fault)}"
        for metric in payload.metrics
        if metric.fault
    ][:10]
    if any(metric.value is not None and metric.datatype is None for metric in payload.metrics):
        out.append("没有类型的数据点按出生消息解释；有符号整数在此显示为原码 / types come from the birth message")
    stamp = payload.timestamp_ms
    if stamp is not None and stamp < 100_000_000_000:
        out.append("时间像是秒而不是毫秒 / the time looks like seconds, not milliseconds")
    elif stamp is not None and stamp > 100_000_000_000_000:
        out.append("时间像是微秒或纳秒 / the time looks like micro- or nanoseconds")
    for metric in payload.metrics:
        if metric.fault == "array" or (
            metric.datatype is not None and is_array(metric.datatype) and metric.value is None
        ):
            out.append("数组应为小端、长度为元素大小的整数倍 / arrays are little endian and whole items long")
            break
    if compressed(data) is not None:
        out.append("载荷经过压缩，已展开 / the payload was compressed and has been expanded")
    return out


_FAULTS = {
    "range": "数值超出其类型 / the number does not fit its type",
    "array": "数组长度不对 / the array's length is wrong",
    "type_mismatch": "值放在了别的类型的字段里 / the value is in the field of another type",
    "dataset": "表的列数不一致 / the table's columns do not agree",
    "depth": "模板嵌套太深 / templates nested too deep",
}
