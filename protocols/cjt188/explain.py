"""A captured CJ/T 188 frame told field by field, with what is probably wrong where it was refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from protocols.cjt188 import labels
from protocols.cjt188.frame import HEADER_BYTES, OVERHEAD_BYTES, START, Found, Frame, Scanner, read
from protocols.cjt188.messages import DI_NEW_ADDRESS, DI_VALVE, ERROR, FROM_METER, FUNCTION, MORE, body_of
from protocols.cjt188.units import UNITS
from protocols.cjt188.values import LAYOUTS, Reading, Status, Value, decode, known
from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict, refused

NAME = "cjt188"


def explain(capture: Capture) -> Explanation:
    """Every frame in the capture, or the data behind SER (kind ``value`` with type, di and payload)."""
    if capture.kind == "value":
        return _value_row(capture)
    data = capture.data
    frames: list[Told] = []
    noise: list[tuple[int, int]] = []
    scanner = Scanner()
    found = scanner.feed(data)
    rest = scanner.held
    found += scanner.idle()
    behind = 0  # errors inside what is already told are echoes of the same mistake
    for one in found:
        if isinstance(one, Found):
            frames.append(_good(one, data))
            behind, rest = one.offset + one.length, rest if one.offset < len(data) - len(rest) else b""
            continue
        at = one.offset or 0
        if one.reason == "garbage":
            noise.append((at, _run(data, at)))
        elif one.reason != "short" and at >= behind:
            told = _refused(one, data, at)
            frames.append(told)
            behind = at + told.length
    if noise:
        frames = _with_noise(frames, noise, data)
    if rest and not frames:
        frames.append(_short(data, len(data) - len(rest)))
    return Explanation(NAME, tuple(frames), rest=rest)


def _run(data: bytes, at: int) -> int:
    """Length of a stretch that belongs to no frame."""
    end = data.find(START, at)
    return max(1, len(data[at : len(data) if end < 0 else end].rstrip(b"\xfe")))


def _with_noise(frames: list[Told], noise: list[tuple[int, int]], data: bytes) -> list[Told]:
    from dataclasses import replace

    notes = []
    for at, length in noise:
        part = data[at : at + length]
        shown = part.decode("ascii") if part.isascii() and part.decode("ascii").isprintable() else part[:16].hex(" ")
        notes.append(f"{length} bytes at offset {at} belong to no frame: {shown}")
    if not frames:
        hints = (*notes, "CJ/T 188 begins with FE FE 68; is this another protocol, another baud rate or parity?")
        return [Told(0, len(data), "", error="start", detail="no start byte 68 in it", hints=hints)]
    first = frames[0]
    return [replace(first, hints=(*first.hints, *notes)), *frames[1:]]


# -- whole frames


def _good(one: Found, data: bytes) -> Told:
    frame = one.frame
    raw = data[one.offset : one.offset + one.length]
    fields, values, hints = _tell(frame, one.offset)
    verdict = _verdict(raw)
    start = one.offset - frame.preamble
    if frame.preamble:
        wake = Field("preamble", frame.preamble, start, frame.preamble, "唤醒字节 FE", "wake-up bytes FE")
        fields = [wake, *fields]
    return Told(start, one.length + frame.preamble, _title(frame), tuple(fields), values, verdict, hints=tuple(hints))


def _verdict(raw: bytes) -> Verdict:
    return Verdict("sum mod 256 from 68", f"{raw[-2]:02X}", f"{sum(raw[:-2]) & 0xFF:02X}")


def _refused(error: RemoteProtocolError, data: bytes, at: int) -> Told:
    raw = data[at : at + OVERHEAD_BYTES + data[at + 10]] if len(data) - at >= HEADER_BYTES else data[at:]
    if len(raw) < OVERHEAD_BYTES:
        return Told(at, len(raw), "", error=error.reason, detail=str(error), hints=tuple(_looks_like(data[at:])))
    frame = read(raw)
    fields, values, hints = _tell(frame, at)
    verdict = _verdict(raw)
    if error.reason == "checksum":
        detail = f"the frame says checksum {verdict.stored}, its bytes add up to {verdict.computed}"
        hints = [*_checksum_hints(raw), *hints]
    else:
        detail = (
            f"byte {len(raw) - 1} is {raw[-1]:02X}, the end 16 was expected: is the length byte {raw[10]:02X} right?"
        )
    hints = [*_looks_like(data[at:]), *hints]
    return Told(at, len(raw), _title(frame), tuple(fields), values, verdict, error.reason, detail, tuple(hints))


def _short(data: bytes, at: int) -> Told:
    raw = data[at:]
    hints = list(_looks_like(raw))
    fields: list[Field] = []
    values: dict[str, Any] = {}
    if len(raw) >= HEADER_BYTES:
        wanted = OVERHEAD_BYTES + raw[10]
        detail = f"the length byte asks for {wanted} bytes from 68 on, {len(raw)} are here"
        cut = read(raw)
        fields, values, _ = _tell(Frame(cut.type, cut.addr, cut.ctrl, cut.data), at)
        if len(raw) >= 2 and raw[-1] == 0x16 and sum(raw[:-2]) & 0xFF == raw[-2]:
            hints.insert(0, f"checksum and end fit if the length byte were {len(raw) - OVERHEAD_BYTES:02X}")
    else:
        detail = f"{len(raw)} bytes that may be the start of a frame"
    return Told(at, len(raw), "", tuple(fields), values, None, "short", detail, tuple(hints))


def _checksum_hints(raw: bytes) -> Iterator[str]:
    stored, body = raw[-2], raw[:-2]
    if sum(body[1:]) & 0xFF == stored:
        yield "checksum fits if the start byte 68 is left out: not the standard's rule"
    if sum(body[HEADER_BYTES:]) & 0xFF == stored:
        yield "checksum fits if only the data are summed: not the standard's rule"
    if sum(body) & 0xFF == stored ^ 0xFF:
        yield "checksum fits if its bits are inverted: not the standard's rule"
    for preamble in range(1, 21):
        if (sum(body) + 0xFE * preamble) & 0xFF == stored:
            yield f"checksum fits if {preamble} wake-up bytes FE are summed as well"
            break
    shifted = bytes((byte + 0x33) & 0xFF for byte in body[HEADER_BYTES:])
    if sum(body[:HEADER_BYTES] + shifted) & 0xFF == stored:
        yield "checksum fits if the data are shifted by +33H: CJ/T 188 does not shift, DL/T 645 does"


def _looks_like(raw: bytes) -> Iterator[str]:
    if len(raw) > 7 and raw[7] == START:
        yield "second 68 seven bytes on: this looks like DL/T 645 (decode dlt645)"
    if len(raw) > 3 and raw[3] == START and raw[1] == raw[2]:
        yield "68 L L 68: this looks like M-Bus (decode mbus)"


# -- what is in a frame


def _title(frame: Frame) -> str:
    function = frame.ctrl & FUNCTION
    name = labels.FUNCTIONS.get(function, ("未知功能", f"control {frame.ctrl:02X}"))
    answer = ("应答", "reply") if frame.ctrl & FROM_METER else ("请求", "request")
    if frame.ctrl & FROM_METER and frame.ctrl & ERROR:
        answer = ("异常应答", "error reply")
    kind = labels.type_name(frame.type)
    return f"{kind[0]} {frame.addr} {name[0]}{answer[0]} / {kind[1]}, {name[1]} {answer[1]}"


def _tell(frame: Frame, at: int) -> tuple[list[Field], dict[str, Any], list[str]]:
    kind = labels.type_name(frame.type)
    fields = [
        Field("type", frame.type, at + 1, 1, f"仪表类型：{kind[0]}", f"meter type: {kind[1]}"),
        Field("addr", frame.addr, at + 2, 7, "地址（高位在前）", "address, as printed"),
        Field("ctrl", f"{frame.ctrl:02X}", at + 9, 1, "控制码", "control"),
        Field("len", len(frame.data), at + 10, 1, "数据长度", "length of the data"),
    ]
    values: dict[str, Any] = {
        "preamble": frame.preamble,
        "type": frame.type,
        "addr": frame.addr,
        "maker": frame.addr[:4],
        "meter_no": frame.addr[4:],
        "ctrl": f"{frame.ctrl:02X}",
        "len": len(frame.data),
    }
    hints: list[str] = []
    start = at + HEADER_BYTES
    if frame.ctrl & FROM_METER and frame.ctrl & ERROR and frame.ctrl & FUNCTION in labels.FUNCTIONS:
        _tell_error(frame.data, start, fields, values)
        return fields, values, hints
    body = body_of(frame.data)
    if body is None:
        if frame.data:
            fields.append(Field("data", frame.data.hex().upper(), start, len(frame.data), "数据", "data"))
        return fields, values, hints
    name = labels.di_name(body.di)
    wire = frame.data[:2].hex().upper()
    swapped = "" if body.order == "901F" else " (low byte first on the wire)"
    fields.append(Field("di", body.di, start, 2, f"数据标识：{name[0]}", f"identifier: {name[1]}{swapped}"))
    values |= {"di": body.di, "di_wire": wire}
    at_data = start + 2
    if body.ser is not None:
        fields.append(Field("ser", body.ser, at_data, 1, "序列号 SER", "running number SER"))
        values["ser"] = body.ser
        at_data += 1
    if frame.ctrl & FROM_METER and frame.ctrl & MORE:
        hints.append("the meter says that more data follow")
    if frame.ctrl & FUNCTION not in labels.FUNCTIONS:
        hints.append(f"control byte {frame.ctrl:02X} is none of the standard's; the data are read by their identifier")
    if body.data:
        _tell_data(frame, body.di, body.data, at_data, fields, values, hints)
    return fields, values, hints


def _tell_error(data: bytes, at: int, fields: list[Field], values: dict[str, Any]) -> None:
    values |= {"refused": True, "abnormal": True}
    if data:
        fields.append(Field("ser", data[0], at, 1, "序列号 SER", "running number SER"))
        values["ser"] = data[0]
    if data[1:]:
        _tell_status(data[1:], at + 1, fields, values)


def _tell_status(raw: bytes, at: int, fields: list[Field], values: dict[str, Any]) -> None:
    status = Status(raw)
    valve = labels.VALVE.get(status.valve, ("厂家定义", "maker's"))
    battery = ("，电池欠压", ", battery low") if status.battery_low else ("", "")
    fields.append(
        Field(
            "status", raw.hex().upper(), at, len(raw), f"状态：阀门{valve[0]}{battery[0]}",
            f"status: valve {valve[1]}{battery[1]}",
        )
    )  # fmt: skip
    values |= {"status": raw.hex().upper(), "valve_state": status.valve or None, "battery_low": status.battery_low}


def _tell_data(
    frame: Frame, di: str, data: bytes, at: int, fields: list[Field], values: dict[str, Any], hints: list[str]
) -> None:
    from_meter = bool(frame.ctrl & FROM_METER)
    # One byte of A017 is the command itself: a vendor's demo sends it under control AA, which has the reply bit.
    if from_meter and di[:2] in ("A0", "A1") and len(data) <= 2 and not (di == DI_VALVE and len(data) == 1):
        _tell_status(data, at, fields, values)
        return
    reading = decode(di, data, heat=frame.type.startswith("2"))
    _tell_reading(reading, at, fields, values, hints)
    if di == DI_NEW_ADDRESS and reading.values:
        values["new_addr"] = reading.values[0].text
    if not reading.layout and di[:2] not in ("D3", "D4") and not known(di):
        hints.append(f"identifier {di} is none that is known: its data stay raw")


def _tell_reading(reading: Reading, at: int, fields: list[Field], values: dict[str, Any], hints: list[str]) -> None:
    heat: dict[str, list[str | None]] = {}
    for value in reading.values:
        name, where = value.item.name, at + value.offset
        if value.item.kind == "status":
            _tell_status(bytes.fromhex(value.text), where, fields, values)
            continue
        shown = _shown(value)
        zh, en = labels.ITEMS.get(name, (name, name))
        unit = UNITS.get(value.unit) if value.unit is not None else None
        if value.unit is not None:
            symbol = unit.symbol if unit is not None else f"unit {value.unit:02X}?"
            zh, en = f"{zh}（{symbol}）", f"{en}, {symbol}"
        elif value.item.base:
            zh, en = f"{zh}（{value.item.base}）", f"{en}, {value.item.base}"
        fields.append(Field(name, shown, where, value.item.size, zh, en))
        if value.damaged:
            hints.append(f"{name}: the bytes are no {'time' if value.item.kind == 'time' else 'BCD digits'}")
        values[name] = shown
        code = None if value.unit is None else f"{value.unit:02X}"
        if reading.layout.startswith(("heat", "history")) and value.item.kind in ("quantity", "number"):
            heat[name] = [shown, code]
        if value.item.kind == "quantity":
            values["unit" if name == "current" else f"{name}_unit"] = code
    if reading.layout.startswith("month") and reading.values:
        values |= {"unit": values["settlement_unit"], "value": values["settlement"]}
    if heat:
        values["heat_fields"] = heat
    if reading.layout in ("volume", *(name for name in LAYOUTS if name.startswith("heat"))):
        values |= {"layout": reading.layout, "unit_place": reading.place}
    if reading.place == "before":
        hints.append("this maker puts the unit byte in front of the digits")
    if reading.rest:
        offset = at + sum(value.item.size for value in reading.values)
        fields.append(Field("raw", reading.rest.hex().upper(), offset, len(reading.rest), "其余数据", "other data"))
        values["raw"] = reading.rest.hex().upper()


def _shown(value: Value) -> str | None:
    if value.item.kind in ("time", "address", "raw", "valve"):
        return value.text or None
    return None if value.number is None else f"{value.number:f}"


# -- data without a frame


def _value_row(capture: Capture) -> Explanation:
    extra = capture.extra
    try:
        payload = bytes.fromhex(str(extra.get("payload", ""))) or capture.data
    except ValueError:
        return refused(NAME, "garbage", "the payload is not hex", capture=capture)
    di, kind = str(extra.get("di", "")).upper(), str(extra.get("type", "10")).upper()
    if len(di) != 4 or any(char not in "0123456789ABCDEF" for char in di):
        return refused(NAME, "unknown_di", f"{di!r} is no identifier of four hex digits", capture=capture)
    frame = Frame(kind, "", FROM_METER | 0x01, payload)
    fields: list[Field] = []
    values: dict[str, Any] = {"type": kind, "di": di}
    hints: list[str] = []
    if payload:
        _tell_data(frame, di, payload, 0, fields, values, hints)
    title = f"{labels.di_name(di)[0]} / {labels.di_name(di)[1]}"
    error = "" if known(di) else "unknown_di"
    detail = "" if known(di) else f"identifier {di} is none that is known: its data stay raw"
    told = Told(0, len(payload), title, tuple(fields), values, None, error, detail, tuple(hints))
    return Explanation(NAME, (told,))
