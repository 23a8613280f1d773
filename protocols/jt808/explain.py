"""A JT/T 808 capture told field by field, offsets as they stand in the capture (escapes included)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict
from protocols.jt808 import extras, terminal
from protocols.jt808.fields import Reader
from protocols.jt808.frame import (
    ALTERNATIVE,
    STANDARD,
    EscapeError,
    Frame,
    Framing,
    bcc,
    header_size,
    judge,
    read,
    unescape,
)
from protocols.jt808.joiner import Joined, Joiner
from protocols.jt808.labels import label, message_title
from protocols.jt808.messages import read_body
from protocols.jt808.position import Position

_BIG = 1 << 20
_PAIRS = re.compile(rb"\x7e[^\x7e]+\x7e")


@dataclass(frozen=True, slots=True)
class _Piece:
    """What stands between two delimiters. ``at``: offset of its first byte in the capture."""

    at: int
    data: bytes
    framing: Framing = STANDARD
    bare: bool = False  # no delimiters around it, no escapes in it


def explain(capture: Capture) -> Explanation:
    """Never raises for what is in the capture."""
    data = capture.data
    found = _cut(data, STANDARD)
    if not capture.strict and not any(isinstance(judge(one.data), Frame) for one in found.pieces):
        found = _other_reading(data) or found
    tolds = [_noise(at, size) for at, size in found.noise]
    joiner, joined = Joiner(_BIG), list[tuple[Frame, int, int]]()
    first_of: dict[int, int] = {}
    frames: list[str] = []
    for piece in found.pieces:
        told, frame = _piece(piece)
        tolds.append(told)
        if frame is None:
            continue
        frames.append((b"\x7e" + piece.data + b"\x7e").hex())
        if frame.total > 1:
            begin = first_of.setdefault(frame.msg_id, told.offset)
            for one in joiner.add(frame, 0):
                if isinstance(one, Joined):
                    joined.append((one.frame, begin, told.offset + told.length - begin))
                    first_of.pop(frame.msg_id, None)
    whole = [_reassembled(*one) for one in joined]
    tolds = sorted(tolds, key=lambda one: one.offset) + whole
    if not frames and "chunks" in capture.extra and found.pieces:
        # A stream that somebody recorded to see where frames begin and end.
        tolds.insert(0, Told(0, len(data), f"{len(found.pieces)} 段 pieces", values={}))
    values: dict[str, Any] = {}
    if any(one.ok for one in tolds):
        values = dict(next(one for one in tolds if one.ok).values)
        values |= {
            "frames": frames,
            "raw_frames": _raw_frames(data, found.pieces, bool(frames)),
            "pending_bytes": len(found.rest) - _shared(found),
        }
        if whole:
            values |= {"reassembled": dict(whole[0].values), "body_hex": joined[0][0].body.hex()}
    return Explanation("jt808", tuple(tolds), values, found.rest)


@dataclass(frozen=True, slots=True)
class _Cut:
    pieces: list[_Piece]
    noise: list[tuple[int, int]]
    rest: bytes
    rest_at: int = 0  # where its delimiter stands


def _cut(data: bytes, framing: Framing) -> _Cut:
    pieces: list[_Piece] = []
    noise: list[tuple[int, int]] = []
    *closed, rest = data.split(framing.mark)
    at = 0
    for number, piece in enumerate(closed):
        if piece and number == 0:
            noise.append((0, len(piece)))
        elif piece:
            pieces.append(_Piece(at, piece, framing))
        at += len(piece) + 1
    if not closed and rest:
        return _Cut([], [(0, len(rest))], b"")
    return _Cut(pieces, noise, framing.mark + rest if rest else b"", at - 1)


def _shared(found: _Cut) -> int:
    """1 where the delimiter before the rest has ended a whole frame: then it is no byte of the rest."""
    if not found.rest or not found.pieces:
        return 0
    last = found.pieces[-1]
    ends_frame = last.at + len(last.data) == found.rest_at and isinstance(judge(last.data, last.framing), Frame)
    return int(ends_frame)


def _raw_frames(data: bytes, pieces: list[_Piece], any_whole: bool) -> list[str]:
    """Where no checksum tells frames from what lies between two of them, delimiters are taken in pairs."""
    if any_whole:
        return [(b"\x7e" + piece.data + b"\x7e").hex() for piece in pieces]
    return [one.hex() for one in _PAIRS.findall(data)]


def _other_reading(data: bytes) -> _Cut | None:
    """The other delimiters, a dump without delimiters, or one that was un-escaped before it was written down."""
    other = _cut(data, ALTERNATIVE)
    if any(isinstance(judge(one.data, ALTERNATIVE), Frame) for one in other.pieces):
        return other
    start = 1 if data[:1] == b"\x7e" else 0
    inner = data[start:-1] if data[-1:] == b"\x7e" and start else data
    if isinstance(read(inner), Frame):
        return _Cut([_Piece(start if inner is not data else 0, inner, STANDARD, bare=True)], [], b"")
    return None


def _noise(at: int, size: int) -> Told:
    return Told(at, size, "噪声 noise", error="garbage", detail=f"{size} bytes before the first delimiter 7E")


def _piece(piece: _Piece) -> tuple[Told, Frame | None]:
    edge = 0 if piece.bare else 1
    offset, length = piece.at - edge, len(piece.data) + 2 * edge
    if piece.bare:
        plain, places = piece.data, list(range(piece.at, piece.at + len(piece.data) + 1))
    else:
        try:
            plain = unescape(piece.data, piece.framing)
        except EscapeError as error:
            told = Told(offset, length, "", error="escape", detail=str(error), hints=_escape_hints(piece.data))
            return told, None
        places = _places(piece)
    verdict = None
    if len(plain) >= 2:
        verdict = Verdict("BCC (XOR)", f"{plain[-1]:02x}", f"{bcc(plain[:-1]):02x}")
    frame = read(plain)
    if isinstance(frame, RemoteProtocolError):
        fields = _head_fields(plain, places) if len(plain) >= 13 else ()
        title = message_title(plain[0] << 8 | plain[1]) if len(plain) >= 13 else ""
        reason = "garbage" if piece.data[:1] == b"(" else frame.reason
        hints = _hints(piece, plain, reason)
        return Told(offset, length, title, fields, {}, verdict, reason, str(frame), hints), None
    told = _tell(frame, plain, places)
    notes = list(told.hints)
    if piece.framing is ALTERNATIVE:
        notes.append(
            "定界符为 E7, 转义为 E6/3E (个别厂家) / delimiter E7 with escapes E6 and 3E: one family of trackers"
        )
    elif piece.bare:
        notes.append(
            "报文已去除定界或转义, 不能原样发送 / without delimiters or already un-escaped: not as on the wire"
        )
    return replace(told, offset=offset, length=length, checksum=verdict, hints=tuple(notes)), frame


def _places(piece: _Piece) -> list[int]:
    """Where each un-escaped byte stands in the capture; the last entry is the end."""
    escapes = {written[0] for written, _ in piece.framing.escapes}
    places: list[int] = []
    at = 0
    while at < len(piece.data):
        places.append(piece.at + at)
        at += 2 if piece.data[at] in escapes else 1
    return [*places, piece.at + at]


def _field(name: str, value: Any, at: int, size: int, places: list[int]) -> Field:
    zh, en = label(name)
    if not size or at + size >= len(places):
        return Field(name, value, zh=zh, en=en)
    return Field(name, value, places[at], places[at + size] - places[at], zh, en)


def _head_fields(plain: bytes, places: list[int], frame: Frame | None = None) -> tuple[Field, ...]:
    attributes = plain[2] << 8 | plain[3]
    wide = frame.version == "2019" if frame else bool(attributes & 0x4000)
    split = bool(attributes & 0x2000)
    out = [
        _field("msg_id", f"0x{plain[0]:02X}{plain[1]:02X}", 0, 2, places),
        _field("attributes", f"0x{attributes:04X}", 2, 2, places),
    ]
    if wide:
        out.append(_field("protocol_version", plain[4], 4, 1, places))
    at, size = (5, 10) if wide else (4, 6)
    out.append(_field("phone", plain[at : at + size].hex(), at, size, places))
    at += size
    out.append(_field("sn", int.from_bytes(plain[at : at + 2], "big"), at, 2, places))
    if split and len(plain) > at + 6:
        out.append(_field("sub_total", int.from_bytes(plain[at + 2 : at + 4], "big"), at + 2, 2, places))
        out.append(_field("sub_index", int.from_bytes(plain[at + 4 : at + 6], "big"), at + 4, 2, places))
    return tuple(out)


def _header_values(frame: Frame) -> dict[str, Any]:
    values: dict[str, Any] = {
        "msg_id": f"0x{frame.msg_id:04X}", "body_len": len(frame.body), "encrypt": frame.encryption,
        "version": frame.version, "phone": frame.phone, "sn": frame.serial, "checksum_ok": True, "length_ok": True,
        "body_hex_len": len(frame.body), "version_flag_ok": not frame.flag_wrong,
    }  # fmt: skip
    if frame.version == "2019":
        values["protocol_version"] = frame.protocol_version
    if frame.total:
        values |= {"sub_total": frame.total, "sub_index": frame.index}
    return values


def _tell(frame: Frame, plain: bytes, places: list[int]) -> Told:
    start = header_size(frame.version, split=bool(frame.total))
    fields = list(_head_fields(plain, places, frame))
    values = _header_values(frame)
    hints: list[str] = []
    if frame.flag_wrong:
        hints.append("版本标识位与实际格式不符, 按长度判定 / version flag and layout differ; the length decided")
    if frame.total > 1:
        fields.append(_field("data_hex", frame.body.hex(), start, len(frame.body), places))
        hints.append(f"分包 {frame.index}/{frame.total}, 拼齐后才有含义 / a part: only the joined body has a meaning")
    else:
        body_fields, body_values, notes = _tell_body(frame, start, places)
        fields += body_fields
        values |= body_values
        hints += notes
    fields.append(_field("bcc", f"{plain[-1]:02x}", len(plain) - 1, 1, places))
    return Told(0, 0, message_title(frame.msg_id), tuple(fields), values, None, "", "", tuple(hints))


def _tell_body(frame: Frame, start: int, places: list[int]) -> tuple[list[Field], dict[str, Any], list[str]]:
    """Fields and values of a body; what cannot be read stays hex with a hint."""
    raw = frame.body
    if frame.encryption:
        fields = [_field("data_hex", raw.hex(), start, len(raw), places)] if raw else []
        text = f"消息体已加密 (方式 {frame.encryption}) / the body is encrypted (way {frame.encryption})"
        return fields, {"body": {"data_hex": raw.hex()}}, [text]
    reader = Reader(raw, tell=True)
    notes: list[str] = []
    body: Any = None
    try:
        body = read_body(frame.msg_id, reader, frame.version)
    except RemoteProtocolError as error:
        notes.append(f"消息体无法读完 / the body cannot be read: {error}")
    fields = [_field(mark.name, mark.value, start + mark.at, mark.size, places) for mark in reader.marks or ()]
    values: dict[str, Any] = {"body": reader.values}
    if body is None and raw:
        values["body"] = {**reader.values, "data_hex": raw.hex()}
        fields.append(_field("data_hex", raw[reader.at :].hex(), start + reader.at, reader.left, places))
    if reader.left and body is not None:
        fields.append(_field("trailing", raw[reader.at :].hex(), start + reader.at, reader.left, places))
        notes.append(f"消息体多出 {reader.left} 字节 / {reader.left} bytes behind the known fields")
    positions = _positions(body)
    if positions:
        values["vendor"] = extras.vendor(positions[0].extras)
        notes += _position_hints(positions)
    if isinstance(body, terminal.Transparent) and (told := extras.transparent(body.data)):
        values["vendor"] = told
    if isinstance(body, terminal.DriverCard) and body.licence:
        values["vendor"] = {"card_code": body.licence}
    return fields, values, notes


def _positions(body: Any) -> list[Position]:
    if isinstance(body, terminal.BatchReport):
        return list(body.batch.items)
    found = getattr(body, "position", None) or getattr(body, "location", None)
    return [found] if isinstance(found, Position) else []


def _position_hints(positions: list[Position]) -> Iterator[str]:
    first = positions[0]
    if abs(first.lat) > 90:
        yield "纬度大于 90, 经纬度可能写反 / latitude above 90: latitude and longitude are probably swapped"
    if first.status & 2 and not (first.lat_raw or first.lon_raw):
        yield "标为已定位但坐标为 0,0 / says positioned, but the place is 0,0"
    elif not first.status & 2 and (first.lat_raw or first.lon_raw):
        yield "未定位: 坐标可能是上一次的 / not positioned: the place may be the last known one"
    if first.time_ms is None:
        yield "时间无效, 终端时钟未校准 / no valid time: the terminal's clock is not set"
    if first.tail:
        yield f"附加信息末尾 {len(first.tail)} 字节不完整 / the last extra item runs over the end"


def _reassembled(frame: Frame, offset: int, length: int) -> Told:
    fields, values, hints = _tell_body(frame, 0, [])
    title = f"{message_title(frame.msg_id)} (拼包 joined)"
    return Told(offset, length, title, tuple(fields), _header_values(frame) | values, hints=tuple(hints))


def _escape_hints(data: bytes) -> tuple[str, ...]:
    if isinstance(read(data), Frame):
        return ("校验在不去转义时成立: 报文已去转义 / the BCC fits without un-escaping: already un-escaped",)
    return ("7D 后只能是 01 或 02 / 7D must be followed by 01 or 02: bytes are missing, or this is not JT/T 808",)


def _hints(piece: _Piece, plain: bytes, reason: str) -> tuple[str, ...]:
    hints: list[str] = []
    if reason == "checksum":
        if bcc(piece.data) == 0:
            hints.append(
                "对转义后的字节计算则校验成立 / BCC fits if taken over the escaped bytes: escape after the BCC"
            )
        elif sum(plain[:-1]) & 0xFF == plain[-1]:
            hints.append("按累加和计算则成立 / fits as a sum instead of XOR")
        elif bcc(plain[:-1]) ^ 0x7E == plain[-1]:
            hints.append("计入一个 7E 则成立 / fits if one delimiter is counted in")
        else:
            hints.append("报文有字节损坏、缺失或多出 / a byte is damaged, missing or too many")
    if reason == "length":
        length = (plain[2] << 8 | plain[3]) & 0x3FF
        for wide in (False, True):
            there = len(plain) - 1 - header_size("2019" if wide else "2013", split=bool(plain[2] & 0x20))
            if abs(there - length) == 1:
                year = "2019" if wide else "2011/2013"
                hints.append(
                    f"校验正确, 按 {year} 版长度差 1: 终端可能多算或少算 / BCC right, off by one as {year}:"
                    f" the header says {length}, {there} are there"
                )
    if reason == "short":
        hints.append("两个 7E 之间不足一帧, 可能从帧中间截取 / too little between two 7E: cut out of the middle?")
    return tuple(hints)
