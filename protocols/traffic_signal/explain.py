"""A captured GB/T 20999-2017 frame told field by field; datagrams and streams are told apart by what fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict, refused
from protocols.traffic_signal import objects
from protocols.traffic_signal.endpoint import SignalEndpoint
from protocols.traffic_signal.frame import END, START, TYPES, Framing, build, crc16, escape, unescape
from protocols.traffic_signal.messages import FAILURES, Item, Kind, Message, parse, payload_of

NAME = "traffic-signal"
_DATAGRAM: Framing = "datagram"
_STREAM: Framing = "stream"

KIND_ZH = {
    Kind.QUERY: "查询", Kind.QUERY_REPLY: "查询应答", Kind.QUERY_FAILED: "查询出错", Kind.SET: "设置",
    Kind.SET_REPLY: "设置应答", Kind.SET_FAILED: "设置出错", Kind.BROADCAST: "广播", Kind.REPORT: "主动上报",
    Kind.HEARTBEAT: "心跳查询", Kind.HEARTBEAT_REPLY_71: "心跳应答", Kind.HEARTBEAT_REPLY: "心跳应答",
}  # fmt: skip


def explain(capture: Capture) -> Explanation:
    """Every frame of a capture. ``extra``: ``transport`` udp or tcp where it is known; kind ``escape``: bytes to be
    escaped (``plain_hex``) or unescaped (``escaped_hex``)."""
    if capture.kind == "escape":
        return _escape(capture)
    transport = str(capture.extra.get("transport", ""))
    first: Framing = "stream" if transport in ("tcp", "rs232", "serial") else "datagram"
    if not capture.data:
        return refused(NAME, "empty", "nothing to read", capture=capture)
    frames = _read(capture.data, first)
    if not any(one.ok for one in frames) and not (capture.strict and transport):
        other: Framing = "datagram" if first == "stream" else "stream"
        again = _read(capture.data, other)
        if any(one.ok for one in again):
            said = "escaped as on TCP" if other == "stream" else "not escaped, as on UDP"
            hint = (f"reads if it is taken as {said}",) if transport else ()
            frames = tuple(_with_hints(one, hint) if one.ok else one for one in again)
    if not any(one.ok for one in frames) and not capture.strict:
        frames = _unknown_type(capture.data) or frames
    if not frames:
        return refused(NAME, "short", "no frame starts here", capture=capture)
    return Explanation(NAME, frames)


def _with_hints(told: Told, hints: tuple[str, ...]) -> Told:
    return Told(told.offset, told.length, told.title, told.fields, told.values, told.checksum, hints=told.hints + hints)


def _read(data: bytes, framing: Framing) -> tuple[Told, ...]:
    """Frames in stream order. The scanner says what is a frame; here its place in the capture is found again."""
    endpoint = SignalEndpoint(Role.MASTER, framing=framing, listen=True)
    out: list[Told] = []
    at = 0
    for found in endpoint.feed_datagram(data, 0):
        if isinstance(found, RemoteProtocolError):
            out.append(_refusal(data, at, framing, found))
            continue
        wire = build(payload_of(found), framing)
        offset = data.find(wire, at)
        out.append(_told(found, wire, max(offset, at), framing))
        at = max(offset, at) + len(wire)
    return tuple(out)


def _told(message: Message, wire: bytes, offset: int, framing: Framing) -> Told:
    inner = unescape(wire[1:-1]) if framing == "stream" else wire[1:-1]
    crc = inner[-2:].hex()
    kind = message.kind
    fields = [
        Field("start", "7e", offset, 1, "帧头", "start"),
        Field("len", len(inner) - 2, offset + 1, 2, "长度", "length, version to CRC"),
        Field("version", f"{message.version:04x}", offset + 3, 2, "协议版本", "version"),
        Field("host_id", message.host, offset + 5, 1, "上位机编号", "host"),
        Field("controller_id", message.controller, offset + 6, 4, "信号机编号", "controller"),
        Field("crossing", message.crossing, offset + 10, 1, "路口编号", "crossing (0: whole controller)"),
        Field("seq", message.sequence, offset + 11, 1, "流水号", "sequence"),
        Field("type", f"0x{int(kind):02x}", offset + 12, 1, f"帧类型：{KIND_ZH[kind]}", kind.name.lower()),
        Field("count", len(message.items), offset + 13, 1, "数据值数量", "items"),
    ]
    items, decoded = [], dict[str, Any]()
    at = offset + 14
    for place, item in enumerate(message.items, 1):
        said = decode(item, kind)
        found = objects.find(item.address)
        label = found.zh if found else "数据"
        name = f"item{place} {item.address}"
        fields.append(Field(name, said.get(found.name) if found else item.data.hex(), at, 6 + len(item.data), label,
                            found.name if found else "unknown object"))  # fmt: skip
        items.append(_item(item, place, said))
        decoded = said | decoded
        at += 6 + len(item.data)
    fields.append(Field("crc", crc, at, 2, "校验", "CRC"))
    fields.append(Field("end", "7d", at + 2, 1, "帧尾", "end"))
    values = {
        "len": len(inner) - 2, "version": f"{message.version:04x}", "host_id": message.host,
        "controller_id": message.controller, "crossing": message.crossing, "seq": message.sequence,
        "type": f"0x{int(kind):02x}", "type_name": kind.name.lower(), "count": len(message.items), "items": items,
        "crc": crc, "decoded": decoded,
    }  # fmt: skip
    verdict = Verdict("CRC-16 1005H, start 0", crc, f"{crc16(inner[:-2]):04x}")
    if framing == "stream" and len(wire) != len(inner) + 2:
        # Escapes push every later byte back: no offset of a field would be true.
        fields = [Field(f.name, f.value, None, None, f.zh, f.en) for f in fields]
    return Told(offset, len(wire), f"{KIND_ZH[kind]} {kind.name.lower()}", tuple(fields), values, verdict,
                hints=_hints(message))  # fmt: skip


def _unknown_type(data: bytes) -> tuple[Told, ...]:
    """One frame, right but for a type that nobody has described: header and items as they stand."""
    for framing in (_DATAGRAM, _STREAM):
        inner = unescape(data[1:-1]) if framing == "stream" else data[1:-1]
        framed = data[:1] == bytes((START,)) and data[-1:] == bytes((END,)) and len(inner) >= 15
        if not framed or inner[11] in TYPES or int.from_bytes(inner[:2], "big") != len(inner) - 2:
            continue
        if crc16(inner[:-2]) != int.from_bytes(inner[-2:], "big"):
            continue
        try:
            message = parse(inner[2:11] + bytes((Kind.REPORT,)) + inner[12:-2])
        except RemoteProtocolError:
            continue
        told = _told(message, data, 0, framing)
        kind = f"0x{inner[11]:02x}"
        fields = tuple(replace(f, value=kind, zh="帧类型：未知", en="unknown") if f.name == "type" else f
                       for f in told.fields)  # fmt: skip
        values = {**told.values, "type": kind, "type_name": "unknown"}
        hint = f"type {inner[11]:02x} is none of 10 20 21 30 40 41 50 60 70 80"
        return (replace(told, title=f"未知类型 unknown type {kind}", fields=fields, values=values, hints=(hint,)),)
    return ()


def _item(item: Item, place: int, said: Mapping[str, Any]) -> dict[str, Any]:
    address = item.address
    return {
        "index": item.index or place, "class": address.cls, "object": address.obj, "attr": address.attr,
        "element": address.element, "len": len(item.data) + 4, "value_hex": item.data.hex(), "decoded": dict(said),
    }  # fmt: skip


def decode(item: Item, kind: Kind) -> dict[str, Any]:
    """What an item says under every name it can be asked for: its own, its unit's, and that of its plain form."""
    data = item.data
    if kind in (Kind.QUERY_FAILED, Kind.SET_FAILED):
        return {"error": FAILURES.get(data[0], f"{data[0]:02x}") if data else "unknown"}
    if not data:
        return {}
    out: dict[str, Any] = {}
    if len(data) in (1, 2, 4):
        out[f"u{8 * len(data)}"] = int.from_bytes(data, "big")
        out[f"i{8 * len(data)}"] = int.from_bytes(data, "big", signed=True)
    found = objects.find(item.address)
    if found is None:
        return out | {"hex": data.hex()}
    form = found.form
    # An unset clock has no time; elsewhere what the table does not explain is told as hex.
    said = form(data) if form is objects.moment else objects.value(item)
    out[found.name] = said
    if form is objects.text:
        out["text"] = said
    elif form is objects.moment:
        out["time"] = said
    elif found.unit == "s" or found.name.endswith("_s"):
        out["seconds"] = said
    elif found.name in ("mask", "gateway", "host_ip", "ip") and isinstance(said, str):
        out["ip"] = said
    return out


def _hints(message: Message) -> tuple[str, ...]:
    hints = []
    for item in message.items:
        found = objects.find(item.address)
        if item.data and found is None and item.address.cls < 128 and not message.failures:
            hints.append(f"{item.address}: no such object in the table; classes 128 to 138 belong to makers")
        elif found is not None and found.width and item.data and len(item.data) != found.width and not message.failures:
            hints.append(f"{item.address}: {len(item.data)} bytes where {found.width} are stated")
        if found is not None and found.form is objects.moment and item.data and objects.moment(item.data) is None:
            hints.append(f"{item.address}: no valid time: the controller's clock is not set")
    if message.kind is Kind.SET or any(
        i.address.cls in (17, 18) and message.kind is Kind.BROADCAST for i in message.items
    ):
        hints.append("this frame changes the street")
    return tuple(hints[:8])


def _refusal(data: bytes, at: int, framing: Framing, error: RemoteProtocolError) -> Told:
    start = max(data.find(START, at), at)
    body = data[start:]
    inner = unescape(body[1:-1]) if framing == "stream" else body[1:-1]
    verdict: Verdict | None = None
    hints: list[str] = []
    if body[:1] == b"\x7e" and body[-1:] == b"\x7d" and len(inner) >= 15:
        stored, covered = inner[-2:], inner[:-2]
        verdict = Verdict("CRC-16 1005H, start 0", stored.hex(), f"{crc16(covered):04x}")
        if not verdict.ok:
            hints += _crc_hints(covered, stored, body)
        if int.from_bytes(inner[:2], "big") != len(inner) - 2:
            said = int.from_bytes(inner[:2], "big")
            hints.append(f"the length word says {said}, the frame has {len(inner) - 2} from version to CRC")
    stated = int.from_bytes(inner[:2], "big") if len(inner) >= 2 else 0
    reason = error.reason
    if reason in ("short", "length") and body[:1] == b"\x7e" and len(inner) >= 15:
        # The scanner can only say that more should come; whoever sees the whole capture knows better.
        if body[-1] == END and stated != len(inner) - 2:
            reason = "length"
        elif body[-1] != END and stated == len(inner) - 2 and crc16(inner[:-2]) == int.from_bytes(inner[-2:], "big"):
            reason = "end"
            hints.append(f"the closing byte is {body[-1]:02x}, 7d expected")
    if error.reason == "type" and len(inner) > 11 and inner[11] not in TYPES:
        hints.append(f"type {inner[11]:02x} is none of 10 20 21 30 40 41 50 60 70 80")
    if body[:1] == b"\x7e" and body[-1:] != bytes((END,)):
        hints.append("the closing 7d is missing: cut off?")
    detail = str(error) if reason == error.reason else f"GB/T 20999 frame refused: {reason}"
    return Told(start, len(body), "", checksum=verdict, error=reason, detail=detail, hints=tuple(hints))


def _crc_hints(covered: bytes, stored: bytes, body: bytes) -> list[str]:
    wanted = int.from_bytes(stored, "big")
    out = []
    for start, word in ((0, "0"), (0xFFFF, "FFFF")):
        if _crc_1021(covered, start) == wanted:
            out.append(f"the checksum fits polynomial 1021H, start {word}: a known mistake of some kits")
    if crc16(covered) == int.from_bytes(stored[::-1], "big"):
        out.append("the checksum fits with its two bytes swapped")
    if crc16(covered[2:]) == wanted:
        out.append("the checksum fits without the length word")
    if crc16(body[1:-3]) == wanted:
        out.append("the checksum fits over the escaped bytes: it is to be made before escaping")
    return out


def _crc_1021(data: bytes, start: int) -> int:
    reg = start
    for byte in data:
        reg ^= byte << 8
        for _ in range(8):
            reg = (reg << 1 ^ 0x1021) & 0xFFFF if reg & 0x8000 else reg << 1 & 0xFFFF
    return reg


def _escape(capture: Capture) -> Explanation:
    extra = capture.extra
    try:
        if "plain_hex" in extra:
            plain = bytes.fromhex(str(extra["plain_hex"]))
        else:
            plain = unescape(bytes.fromhex(str(extra.get("escaped_hex") or capture.data.hex())))
    except ValueError as error:
        return refused(NAME, "format", str(error), capture=capture)
    values = {"plain_hex": plain.hex(), "escaped_hex": escape(plain).hex()}
    told = Told(0, len(plain), "转义 escape", values=values)
    return Explanation(NAME, (told,), values=values)
