"""A LoRaWAN capture told field by field: a server's event or command, a radio frame, a sensor's bytes, an LwM2M TLV."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict, refused
from protocols.core.mqtt_capture import unwrap
from protocols.lorawan_chirpstack import downlink, events, lwm2m, payloads, phy, said, times
from protocols.lorawan_chirpstack.labels import KEYS, LABELS

NAME = "lorawan-chirpstack"


def explain(capture: Capture) -> Explanation:
    """By ``kind``; without one, what the bytes look like: JSON is an event, other bytes are a radio frame."""
    try:
        match capture.kind:
            case "mqtt-json-out":
                return _command(capture)
            case "lorawan-phy":
                return _radio(capture)
            case "lora-payload":
                return _payload(capture)
            case "lwm2m-tlv":
                return _tlv(capture)
            case "mqtt-json":
                return _event(capture)
        if not capture.data and not capture.topic:
            return refused(NAME, "empty", "nothing to read", capture=capture)
        message = unwrap(capture.data, "application/")
        if capture.topic or message.topic or capture.data.lstrip()[:1] in (b"{", b"["):
            return _event(capture)
        return _radio_or_tlv(capture)
    except RemoteProtocolError as error:
        detail = str(error) if error.offset is None else f"offset {error.offset}: {error}"
        return refused(NAME, error.reason, detail, capture=capture, hints=_refusal_hints(error, capture))
    except LocalProtocolError as error:
        return refused(NAME, error.reason, str(error), capture=capture)


def _radio_or_tlv(capture: Capture) -> Explanation:
    try:
        return _radio(capture)
    except RemoteProtocolError as error:
        if error.reason != "version":
            raise
        try:
            told = _tlv(capture)
        except RemoteProtocolError:
            raise error from None
        return told


def _refusal_hints(error: RemoteProtocolError, capture: Capture) -> tuple[str, ...]:
    if error.reason == "not_json" and capture.topic and capture.data[:1] and capture.data[0] in (0x0A, 0x12):
        return ("像 protobuf：服务器的集成设成了 Protobuf，应改为 JSON / looks like Protobuf: set the server to JSON",)
    if error.reason == "topic" and "gateway/" in capture.topic:
        return ("这是网关桥的主题，不是应用的 / a topic of the gateway bridge, not of an application",)
    return ()


# -- events ------------------------------------------------------------------------------------------------------------


def _event(capture: Capture) -> Explanation:
    message = unwrap(capture.data, "application/")
    topic = capture.topic or message.topic
    hints: list[str] = []
    if "/command/" in topic:
        return _command_seen(capture, topic, message.payload)
    found = said.table(message.payload)
    named = capture.extra.get("event")
    if topic:
        address = events.parse_topic(topic)
    elif named in events.KINDS:  # an HTTP hook names the kind beside the body
        address = events.Address("", _guess(found).dev_eui, named)
    else:
        address = _guess(found)
        hints.append("没有主题，事件类型是按内容猜的 / no topic: the kind of event is a guess from its keys")
    event = events.read(address, found)
    values = event_values(event)
    hints += _event_hints(event, found)
    fields = [_field(name, value, message.payload, message.offset) for name, value in values.items()]
    title = f"{event.head.kind} {event.head.dev_eui}"
    told = Told(0, len(capture.data), title, tuple(fields), values, hints=tuple(hints))
    return Explanation(NAME, (told,))


def _field(name: str, value: Any, data: bytes, base: int) -> Field:
    zh, en = LABELS.get(name, ("", name.replace("_", " ")))
    for key in KEYS.get(name, ()):
        at = data.find(b'"' + key.encode() + b'"')
        if at >= 0:
            return Field(name, value, base + at, len(key) + 2, zh, en)
    return Field(name, value, None, None, zh, en)


def _guess(found: Mapping[str, Any]) -> events.Address:
    info = said.inner(found, "deviceInfo")
    dev_eui = said.identity(said.text(info, "devEui") or said.text(found, "devEUI", "devEui"), 8)
    if not dev_eui:
        raise RemoteProtocolError("neither a topic nor a DevEUI inside", reason="topic")
    kind: events.Kind = "join"
    for keys, guessed in (
        (("rxInfo", "fPort", "fCnt"), "up"),
        (("txInfo", "gatewayId"), "txack"),
        (("acknowledged", "queueItemId"), "ack"),
        (("margin", "batteryLevel", "externalPowerSource"), "status"),
        (("level", "code", "description"), "log"),
        (("location",), "location"),
        (("integrationName",), "integration"),
    ):
        if any(found.get(key) not in (None, "", [], {}) for key in keys):
            kind = guessed  # type: ignore[assignment]
            break
    return events.Address(said.text(info, "applicationId"), dev_eui, kind)


def event_values(event: events.Event) -> dict[str, Any]:
    """Under the names of the published vectors."""
    head = event.head
    out: dict[str, Any] = {
        "event": head.kind,
        "dev_eui": head.dev_eui,
        "application_id": head.application,
        "time_utc": times.text_of(head.time),
    }
    if head.deduplication_id:
        out["deduplication_id"] = head.deduplication_id
    if head.device_name:
        out["device_name"] = head.device_name
    if head.profile:
        out["device_profile"] = head.profile
    if head.tags:
        out["tags"] = dict(head.tags)
    match event:
        case events.Uplink():
            out |= _uplink_values(event)
        case events.Join():
            out["dev_addr"] = event.dev_addr
        case events.Ack():
            out |= {"queue_item_id": event.queue_item_id, "acknowledged": event.acknowledged}
            out["f_cnt_down"] = event.f_cnt_down
        case events.TxAck():
            out |= {"queue_item_id": event.queue_item_id, "f_cnt_down": event.f_cnt_down, "gateway_id": event.gateway}
        case events.Status():
            out |= {"margin": event.margin, "battery_percent": event.battery_percent}
            out["external_power"] = event.external_power
        case events.Log():
            out |= {"level": event.level, "code": event.code, "description": event.description}
            out["context"] = dict(event.context)
        case events.Location():
            out |= {"latitude": event.latitude, "longitude": event.longitude, "altitude": event.altitude}
            out["position_valid"] = not event.misplaced
        case events.Integration():
            out |= {"integration": event.name, "event_type": event.event_type, "object": dict(event.object)}
    return out


def _uplink_values(event: events.Uplink) -> dict[str, Any]:
    best = event.best
    out: dict[str, Any] = {
        "dev_addr": event.dev_addr,
        "f_cnt": event.f_cnt,
        "f_port": event.f_port,
        "dr": event.dr,
        "adr": event.adr,
        "confirmed": event.confirmed,
        "payload_hex": event.payload.hex(),
        "object": dict(event.object) or None,
        "best_gateway": best.gateway if best else None,
        "gateways": len(event.receptions),
        "rssi": _whole(best.rssi) if best else None,
        "snr": best.snr if best else None,
        "frequency_hz": event.frequency_hz,
        "spreading_factor": event.spreading_factor,
        "bandwidth_hz": event.bandwidth_hz,
    }
    if best is not None and best.gateway_time is not None:
        out["gateway_time_utc"] = times.text_of(best.gateway_time)
    if best is not None and (best.position is not None or best.misplaced):
        out["gateway_position_valid"] = not best.misplaced
        if best.position is not None:
            out |= {"gateway_longitude": best.position[0], "gateway_latitude": best.position[1]}
    return out


def _whole(value: float) -> float:
    return int(value) if math.isfinite(value) and value == int(value) else value


def _event_hints(event: events.Event, found: Mapping[str, Any]) -> list[str]:
    out = []
    if event.head.generation == 3:
        out.append("ChirpStack 第三代的格式 / the format of ChirpStack's third generation")
    if event.head.time is None:
        out.append("没有可用的时间，以到达时间为准 / no time that can be read: the time of arrival counts")
    match event:
        case events.Uplink():
            if event.f_port == 0:
                out.append("端口 0 或缺失：只有 MAC 命令 / port 0 or missing: MAC commands only")
            elif not event.payload:
                out.append("有端口但没有载荷 / a port but no payload")
            if any(one.misplaced for one in event.receptions):
                out.append(
                    "网关位置不在地球上，可能经纬度颠倒 / a gateway's position is not on Earth: lat and lon swapped?"
                )
            if "fCnt" not in found:
                out.append("缺失的数字即 0(4.1 之前的服务器省略零值) / missing numbers are 0: servers before 4.1")
        case events.TxAck():
            out.append("仅表示网关已发出，不表示设备收到 / sent by a gateway; not: received by the device")
        case events.Ack() if not event.acknowledged:
            out.append("设备没有确认 / the device did not acknowledge")
        case events.Status() if event.battery_percent is None:
            out.append("外部供电或无法测量电池 / mains, or the battery cannot be measured")
        case events.Location() if event.misplaced:
            out.append("位置不在地球上 / a position that is not on Earth")
        case _:
            pass
    return out


# -- commands ----------------------------------------------------------------------------------------------------------


def _command(capture: Capture) -> Explanation:
    """What we would send for the ``input`` of a vector."""
    wanted = capture.extra.get("input")
    if not isinstance(wanted, dict):
        raise RemoteProtocolError("no input to make a command of", reason="empty")
    parts = capture.topic.split("/")
    try:
        payload = bytes.fromhex(str(wanted.get("payload_hex", "")))
    except ValueError as error:
        raise RemoteProtocolError(f"payload_hex: {error}", reason="payload") from error
    port = wanted.get("f_port")
    decoded = wanted.get("object")
    order = downlink.Downlink(
        application=parts[1] if len(parts) > 3 else str(wanted.get("application_id", "-")),
        dev_eui=str(wanted.get("dev_eui", "")),
        f_port=port if isinstance(port, int) else 0,
        payload=payload,
        object=decoded if isinstance(decoded, dict) else None,
        confirmed=wanted.get("confirmed") is True,
        id=str(wanted.get("id", "")),
    )
    content = downlink.content(order)
    if capture.topic and capture.topic != order.topic:
        text = f"the topic is of {parts[3] if len(parts) > 3 else '?'}, the command of {order.dev_eui}"
        raise RemoteProtocolError(text, reason="dev_eui")
    fields = tuple(Field(key, value) for key, value in content.items())
    told = Told(0, 0, f"command for {order.dev_eui}", fields, {"json": content, "topic": order.topic})
    return Explanation(NAME, (told,))


def _command_seen(capture: Capture, topic: str, data: bytes) -> Explanation:
    """A command that somebody published: would the server take it?"""
    parts = topic.split("/")
    found = said.table(data)
    eui = said.text(found, "devEui")
    if len(parts) < 6 or parts[-2:] != ["command", "down"]:
        raise RemoteProtocolError(f"{topic!r} is no command topic", reason="topic")
    if eui != parts[-3]:
        raise RemoteProtocolError(f"the topic is of {parts[-3]}, the command of {eui or 'nobody'}", reason="dev_eui")
    decoded = said.inner(found, "object")
    order = downlink.Downlink(
        parts[-5], eui, said.integer(found, "fPort"), said.base64_bytes(found.get("data")), decoded or None,
        said.flag(found, "confirmed"), said.text(found, "id"),
    )  # fmt: skip
    downlink.content(order)
    values = {"event": "down", "dev_eui": eui, "f_port": order.f_port, "confirmed": order.confirmed}
    values["payload_hex"] = order.payload.hex()
    fields = tuple(_field(name, value, data, 0) for name, value in values.items())
    hint = "A 类设备下次上行后才会收到 / a class A device hears it after its next uplink"
    return Explanation(NAME, (Told(0, len(capture.data), f"command for {eui}", fields, values, hints=(hint,)),))


# -- radio -------------------------------------------------------------------------------------------------------------


def _keys(extra: Mapping[str, Any]) -> phy.Keys:
    given = extra.get("keys")
    found: dict[str, Any] = {**extra, **(given if isinstance(given, dict) else {})}

    def key(size: int, *names: str) -> bytes | None:
        for name in names:
            try:
                raw = bytes.fromhex(str(found.get(name, "")))
            except ValueError:
                continue
            if len(raw) == size:
                return raw
        return None

    nonce = found.get("dev_nonce")
    return phy.Keys(
        app_key=key(16, "app_key", "nwk_key", "js_int_key"),
        js_int_key=key(16, "js_int_key"),
        nwk_s_key=key(16, "nwk_s_key"),
        app_s_key=key(16, "app_s_key"),
        s_nwk_s_int_key=key(16, "s_nwk_s_int_key", "snwk_s_int_key"),
        f_nwk_s_int_key=key(16, "f_nwk_s_int_key", "fnwk_s_int_key"),
        nwk_s_enc_key=key(16, "nwk_s_enc_key"),
        join_eui=key(8, "join_eui"),
        dev_nonce=nonce if isinstance(nonce, int) and 0 <= nonce < 1 << 16 else None,
    )


def _radio(capture: Capture) -> Explanation:
    keys = _keys(capture.extra)
    hints: list[str] = []
    try:
        frame = phy.decode(capture.data, keys)
    except ModuleNotFoundError:
        frame = phy.decode(capture.data)
        hints.append("没有安装 cryptography，未校验 MIC / the MIC is not checked: cryptography is not installed")
    if frame.mtype == "proprietary" and not capture.kind:
        raise RemoteProtocolError("nothing that a LoRaWAN frame is known by", reason="version")
    values: dict[str, Any] = {"mtype": frame.mtype, **frame.fields, "mic": frame.mic}
    places = {name: (at, length) for name, at, length in frame.layout}
    fields = [Field("mtype", frame.mtype, 0, 1, "帧类型", "frame type")]
    for name, value in frame.fields.items():
        at, length = places.get(name.removesuffix("_hex"), (None, None))
        zh, en = LABELS.get(name, ("", name.replace("_", " ")))
        fields.append(Field(name, value, at, length, zh, en))
    if frame.mic:
        fields.append(Field("mic", frame.mic, len(capture.data) - 4, 4, "校验码", "message integrity code"))
    checksum = Verdict("AES-CMAC", frame.mic, frame.computed) if frame.computed is not None else None
    if frame.computed is None and frame.mic:
        hints.append("缺少密钥或入网请求，MIC 未校验 / the MIC is not checked: a key, or the join request, is missing")
    error, detail = "", ""
    if frame.mic_ok is False:
        error, detail = "mic", f"MIC {frame.mic}, computed {frame.computed}"
        hints.append(
            "密钥不对，或字节序颠倒，或是 LoRaWAN 1.1 的帧 / wrong key, reversed key, or a frame of LoRaWAN 1.1"
        )
    told = Told(0, len(capture.data), frame.mtype, tuple(fields), values, checksum, error, detail, tuple(hints))
    return Explanation(NAME, (told,))


# -- payloads and TLV --------------------------------------------------------------------------------------------------


def _payload(capture: Capture) -> Explanation:
    port = capture.extra.get("f_port")
    codec = str(capture.extra.get("codec", "bosch_tps110"))
    if codec not in payloads.CODECS:
        raise RemoteProtocolError(f"no codec {codec!r}; known: {', '.join(payloads.CODECS)}", reason="codec")
    values = dict(payloads.CODECS[codec](port if isinstance(port, int) else 0, capture.data))
    fields = tuple(Field(name, value) for name, value in values.items())
    return Explanation(NAME, (Told(0, len(capture.data), codec, fields, values),))


def _tlv(capture: Capture) -> Explanation:
    nodes = lwm2m.decode(capture.data)
    if not nodes:
        raise RemoteProtocolError("nothing to read", reason="short")
    fields: list[Field] = []
    _tlv_fields(nodes, "", fields)
    values = {"tlv": [_tlv_json(node) for node in nodes]}
    return Explanation(NAME, (Told(0, len(capture.data), "LwM2M TLV", tuple(fields), values),))


def _tlv_json(node: lwm2m.Node) -> dict[str, Any]:
    value: Any = [_tlv_json(child) for child in node.children] if node.kind in _BRANCHES else node.value.hex()
    return {"kind": node.kind, "id": node.id, "value": value}


_BRANCHES = ("object_instance", "multiple_resource")


def _tlv_fields(nodes: tuple[lwm2m.Node, ...], path: str, out: list[Field]) -> None:
    for node in nodes:
        name = f"{path}/{node.id}"
        if node.kind in _BRANCHES:
            out.append(Field(name, node.kind, node.offset, node.length))
            _tlv_fields(node.children, name, out)
            continue
        zh, en = lwm2m.DEVICE_RESOURCES.get(node.id, ("", "")) if node.kind == "resource" else ("", "")
        zh, en = (f"若为对象 3：{zh}", f"in object 3: {en}") if en else ("", node.kind)
        out.append(Field(name, _tlv_value(node.value), node.offset, node.length, zh, en))


def _tlv_value(raw: bytes) -> str:
    """Hex, and beside it what it may be: printable text or an integer."""
    text = raw.decode("utf-8", "replace")
    if len(raw) > 1 and text.isprintable() and "�" not in text:
        return f"{raw.hex()} = {text!r}"
    if len(raw) in (1, 2, 4, 8):
        return f"{raw.hex()} = {int.from_bytes(raw, 'big', signed=True)}"
    return raw.hex()
