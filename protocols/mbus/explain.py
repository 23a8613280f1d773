"""A captured M-Bus frame told field by field, with what is probably wrong where it was refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict
from protocols.mbus import frame as f
from protocols.mbus import messages as m
from protocols.mbus.fixed import read_fixed
from protocols.mbus.normal import MEDIA, fixed_values, header_values, medium_text, record_values
from protocols.mbus.records import FUNCTIONS, Header, Record, read_telegram

NAME = "mbus"
_FUNCTION_ZH = ("瞬时", "最大", "最小", "故障时")
_CI = {
    m.CI_SEND: ("向表发送数据", "data to the meter"),
    m.CI_SELECT: ("选择二级地址", "select by secondary address"),
    m.CI_ERROR: ("应用错误", "application error"),
    m.CI_LONG_HEADER: ("变长数据（长头）", "variable data, long header"),
    m.CI_SHORT_HEADER: ("变长数据（短头）", "variable data, short header"),
    m.CI_NO_HEADER: ("变长数据（无头）", "variable data, no header"),
    m.CI_FIXED: ("定长数据（旧）", "fixed data (old)"),
    **{0xB8 + n: (f"改波特率 {300 << n}", f"change to {300 << n} baud") for n in range(6)},
}
_C = {
    m.SND_NKE: ("复位链路", "SND_NKE, reset the link"),
    m.SND_UD: ("发送数据", "SND_UD, send data"),
    m.REQ_UD2: ("请求数据", "REQ_UD2, ask for data"),
    m.RSP_UD: ("应答数据", "RSP_UD, answer"),
}


def explain(capture: Capture) -> Explanation:
    """Every frame in the capture."""
    data = capture.data
    frames: list[Told] = []
    scanner = f.Scanner()
    found = scanner.feed(data)
    rest = scanner.held
    found += scanner.idle()
    noise = [one.offset or 0 for one in found if isinstance(one, RemoteProtocolError) and one.reason in _NOISE]
    behind = 0  # what is found inside a frame that was refused is an echo of the same mistake, unless it is whole
    for one in found:
        if isinstance(one, f.Found):
            if one.offset < behind and isinstance(one.frame, f.Ack):
                continue
            frames.append(_good(one, data))
            behind = max(behind, one.offset + one.length)
            rest = rest if one.offset < len(data) - len(rest) else b""
        elif one.reason not in _NOISE and (one.offset or 0) >= behind:
            told = _refused(one, data)
            frames.append(told)
            behind = told.offset + told.length
    if noise and frames:
        where = ", ".join(str(at) for at in noise[:4])
        hint = f"bytes that belong to no frame at offset {where}"
        frames[0] = replace(frames[0], hints=(*frames[0].hints, hint))
    if not frames:
        frames.append(_nothing(data, rest))
    values = {} if any(one.ok for one in frames) else {"frames": 0, "frame_ok": False}
    return Explanation(NAME, tuple(frames), values, rest=rest)


_NOISE = ("garbage", "start", "short")


def _nothing(data: bytes, rest: bytes) -> Told:
    if not data:
        return Told(0, 0, "", error="empty", detail="nothing to read")
    at = len(data) - len(rest)
    hints = list(_looks_like(data))
    if not rest:
        text = "M-Bus begins with E5, 10 or 68 L L 68; is this another protocol, another baud rate or parity?"
        if data[0] == f.SHORT_START and len(data) == 5 and sum(data[1:3]) & 0xFF == data[3]:
            detail = f"the short frame ends in {data[4]:02X}, not in 16"
            return Told(0, 5, "", checksum=_verdict(data, 1), error="end", detail=detail)
        return Told(0, len(data), "", error="start", detail="no start of a frame in it", hints=(*hints, text))
    detail = f"{len(rest)} bytes that may be the start of a frame"
    if rest[0] == f.LONG_START and len(rest) > 3:
        wanted = rest[1] + f.LONG_OVERHEAD
        detail = f"the length byte asks for {wanted} bytes from the first 68 on, {len(rest)} are here"
    return Told(at, len(rest), "", error="short", detail=detail, hints=tuple(hints))


def _looks_like(data: bytes) -> list[str]:
    at = data.find(0x68)
    if at >= 0 and len(data) > at + 7 and data[at + 7] == 0x68:
        return ["second 68 seven bytes on: this looks like DL/T 645 (decode dlt645)"]
    if at >= 0 and len(data) > at + 3 and data[at + 3] != 0x68 and len(data) - at >= 13:
        return ["one 68 only: this may be CJ/T 188, which hangs on the same two wires (decode cjt188)"]
    return []


def _good(one: f.Found, data: bytes) -> Told:
    raw = data[one.offset : one.offset + one.length]
    at = one.offset
    match one.frame:
        case f.Ack():
            field = Field("kind", "ack", at, 1, "确认 E5", "acknowledge E5")
            return Told(at, 1, "确认 / acknowledge", (field,), {"kind": "ack", "frame_ok": True})
        case f.Short(c, a):
            fields, values = _link(c, a, at + 1, "short")
            title = " / ".join(_c_name(c))
            return Told(at, one.length, title, tuple(fields), values, _verdict(raw, 1))
        case f.Long():
            return _long(one.frame, at, raw)


def _verdict(raw: bytes, start: int) -> Verdict:
    return Verdict("sum mod 256 from C", f"{raw[-2]:02X}", f"{sum(raw[start:-2]) & 0xFF:02X}")


def _refused(error: RemoteProtocolError, data: bytes) -> Told:
    at = error.offset or 0
    if data[at] == f.SHORT_START:
        raw = data[at : at + 5]
        detail = f"the short frame says checksum {raw[3]:02X}, C and A add up to {sum(raw[1:3]) & 0xFF:02X}"
        return Told(at, 5, "", checksum=_verdict(raw, 1), error=error.reason, detail=detail)
    raw = data[at : at + data[at + 1] + f.LONG_OVERHEAD]
    if error.reason == "length":
        detail = f"the two length bytes differ: {data[at + 1]:02X} and {data[at + 2]:02X}"
        return Told(at, 4, "", error="length", detail=detail, hints=tuple(_looks_like(data[at:])))
    told = _long(f.Long(raw[4], raw[5], raw[6], raw[7:-2]), at, raw)
    hints = list(told.hints)
    if error.reason == "end":
        detail = f"byte {len(raw) - 1} is {raw[-1]:02X}, not the end 16: is the length byte {raw[1]:02X} right?"
    else:
        said = _verdict(raw, 4)
        detail = f"the frame says checksum {said.stored}, its bytes add up to {said.computed}"
        if sum(raw[:-2]) & 0xFF == raw[-2]:
            hints.insert(0, "checksum fits if 68 L L 68 is summed as well: CJ/T 188 and DL/T 645 sum from 68 on")
    return replace(told, error=error.reason, detail=detail, hints=tuple(hints), checksum=_verdict(raw, 4))


def _c_name(c: int) -> tuple[str, str]:
    return _C.get(c & ~0x20, _C.get(c & ~0x30, ("未知控制码", f"control {c:02X}")))


def _link(c: int, a: int, at: int, kind: str) -> tuple[list[Field], dict[str, Any]]:
    name = _c_name(c)
    to_meter = bool(c & 0x40)
    bit = "（帧计数位 1）" if to_meter and c & 0x20 else ""
    who = {0: "（新表）", 253: "（已选择的表）", 254: "（测试，全部应答）", 255: "（广播）"}.get(a, "")
    fields = [
        Field("c", f"{c:02X}", at, 1, f"控制域：{name[0]}{bit}", f"control: {name[1]}"),
        Field("a", a, at + 1, 1, f"一级地址{who}", "primary address"),
    ]
    values: dict[str, Any] = {"kind": kind, "c": f"{c:02X}", "a": a, "frame_ok": True}
    values["direction"] = "to_meter" if to_meter else "from_meter"
    return fields, values


def _long(frame: f.Long, at: int, raw: bytes) -> Told:
    fields, values = _link(frame.c, frame.a, at + 4, "long" if frame.data else "control")
    ci = _CI.get(frame.ci, ("未知 CI", "unknown control information"))
    fields.append(Field("ci", f"{frame.ci:02X}", at + 6, 1, f"控制信息：{ci[0]}", f"control information: {ci[1]}"))
    values["ci"] = f"{frame.ci:02X}"
    hints: list[str] = []
    start, to_meter = at + 7, bool(frame.c & 0x40)
    title = f"{ci[0]} / {ci[1]}"
    match frame.ci:
        case m.CI_ERROR if not to_meter:
            _tell_error(frame.data, start, fields, values)
        case m.CI_FIXED if not to_meter:
            _tell_fixed(frame.data, start, fields, values, hints)
        case m.CI_SELECT if to_meter and len(frame.data) == 8:
            secondary = m.secondary_text(frame.data)
            fields.append(Field("secondary", secondary, start, 8, "二级地址", "secondary address"))
            values["secondary"] = secondary
        case m.CI_LONG_HEADER | m.CI_SHORT_HEADER | m.CI_NO_HEADER if not to_meter:
            _tell_records(frame, start, fields, values, hints)
        case m.CI_SEND if to_meter:
            _tell_records(frame, start, fields, values, hints)
        case _ if frame.data:
            fields.append(Field("data", frame.data.hex().upper(), start, len(frame.data), "数据", "data"))
            values["data"] = frame.data.hex().upper()
            if not to_meter:
                values["records_ok"] = False
            if frame.ci not in _CI:
                hints.append(f"control information {frame.ci:02X} is none that is read here: the data stay raw")
    return Told(at, len(raw), title, tuple(fields), values, _verdict(raw, 4), hints=tuple(hints))


def _tell_error(data: bytes, at: int, fields: list[Field], values: dict[str, Any]) -> None:
    code = data[0] if data else None
    values["application_error"] = code
    zh, en = m.ERROR_TEXTS.get(-1 if code is None else code, ("未说明", "no known code"))
    fields.append(Field("application_error", code, at, len(data), f"应用错误：{zh}", f"application error: {en}"))


def _tell_fixed(data: bytes, at: int, fields: list[Field], values: dict[str, Any], hints: list[str]) -> None:
    fixed = read_fixed(data)
    values["records_ok"] = fixed is not None
    if fixed is None:
        fields.append(Field("data", data.hex().upper(), at, len(data), "数据", "data"))
        hints.append(f"fixed data have 16 bytes, here are {len(data)}")
        return
    values |= fixed_values(fixed)
    fields += [
        Field("id", fixed.id, at, 4, "表号", "identification"),
        Field("accessnumber", fixed.access, at + 4, 1, "访问计数", "access number"),
        Field("status", f"{fixed.status:02X}", at + 5, 1, "状态", "status"),
        Field("medium", fixed.medium, at + 6, 2, "介质与单位", "medium and units"),
    ]
    for n, counter in enumerate(fixed.counters):
        value = None if counter.number is None else f"{counter.number:f}"
        unit = counter.unit
        name = f"counter_{n + 1}"
        fields.append(Field(name, value, at + 8 + 4 * n, 4, f"计数器 {n + 1}（{unit}）", f"counter {n + 1}, {unit}"))


def _tell_records(frame: f.Long, at: int, fields: list[Field], values: dict[str, Any], hints: list[str]) -> None:
    telegram = read_telegram(frame.ci, frame.data)
    values["records_ok"] = not telegram.problem
    if telegram.header is not None:
        _tell_header(telegram.header, at, frame.ci, fields, values)
    values["records"] = [record_values(record) for record in telegram.records]
    for record in telegram.records:
        fields.append(_record_field(record, at))
        if record.damaged:
            hints.append(f"{record.meaning.quantity}: bytes {record.raw.hex()} are no number")
        if record.kind == "value" and not record.plain and any(vife & 0x7F != 0x7F for vife in record.vifes):
            codes = " ".join(f"{vife:02X}" for vife in record.vifes)
            hints.append(f"{record.meaning.quantity} at {at + record.offset}: VIFE {codes} change what it means")
    if telegram.more:
        values["more"] = True
        hints.append("more telegrams follow: ask again with the frame count bit toggled")
    if telegram.problem:
        hints.append(f"the records are cut off: {telegram.problem}; what was read before is kept")


def _tell_header(header: Header, at: int, ci: int, fields: list[Field], values: dict[str, Any]) -> None:
    values |= header_values(header)
    tail = at
    if ci == m.CI_LONG_HEADER:
        tail = at + 8
        zh = MEDIA.get(header.medium, ("未知", ""))[0]
        fields += [
            Field("id", header.id, at, 4, "表号", "identification"),
            Field("manufacturer", header.manufacturer, at + 4, 2, "厂商", "manufacturer"),
            Field("version", header.version, at + 6, 1, "版本", "version"),
            Field("medium", f"{header.medium:02X}", at + 7, 1, f"介质：{zh}", f"medium: {medium_text(header.medium)}"),
        ]
        values["secondary"] = header.secondary
    zh, en = _status(header.status)
    fields += [
        Field("accessnumber", header.access, tail, 1, "访问计数", "access number"),
        Field("status", f"{header.status:02X}", tail + 1, 1, f"状态：{zh}", f"status: {en}"),
        Field("signature", header.signature, tail + 2, 2, "签名", "signature"),
    ]


def _status(status: int) -> tuple[str, str]:
    names = (
        (0x04, "电源不足", "power low"),
        (0x08, "永久故障", "permanent error"),
        (0x10, "暂时故障", "temporary error"),
    )
    zh = [("", "应用忙", "应用错误", "应用保留")[status & 3], *(text for bit, text, _ in names if status & bit)]
    en = [("", "busy", "application error", "reserved")[status & 3], *(text for bit, _, text in names if status & bit)]
    return "，".join(filter(None, zh)) or "正常", ", ".join(filter(None, en)) or "no error"


def _record_field(record: Record, at: int) -> Field:
    where = at + record.offset
    if record.kind != "value":
        zh, en = (
            ("厂商数据", "maker's data") if record.kind == "manufacturer" else ("还有报文", "more telegrams follow")
        )
        return Field(record.kind, record.raw.hex(" ").upper() or None, where, record.length, zh, en)
    value = record.text if record.text is not None else record.time or None
    if record.number is not None:
        value = f"{record.number.normalize():f}"
    parts = [record.meaning.quantity]
    if record.meaning.unit not in ("", "-"):
        parts.append(record.meaning.unit)
    if record.storage:
        parts.append(f"storage {record.storage}")
    if record.tariff:
        parts.append(f"tariff {record.tariff}")
    if record.device:
        parts.append(f"unit {record.device}")
    en = f"{FUNCTIONS[record.function]}: {', '.join(parts)}"
    return Field("record", value, where, record.length, f"{_FUNCTION_ZH[record.function]}：{', '.join(parts)}", en)
