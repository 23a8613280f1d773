"""A captured GB/T 26875.3 frame, field by field: what `citybrain decode gb26875` shows.

Also takes a data unit alone (kind ``data_unit``). Names of ``values`` are those of the published vectors.
"""

from __future__ import annotations

from decimal import Decimal
from functools import reduce
from operator import xor
from typing import Any

from protocols.core.cutter import Cut
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict
from protocols.gb26875 import names, objects, units
from protocols.gb26875.frame import END, HEADER, MAX_DATA, OVERHEAD, START, Scanner, checksum
from protocols.gb26875.messages import COMMANDS, CONTROL, REQUEST, Packet, parse, parse_time
from protocols.gb26875.objects import NumberedComponentState, Object, Raw, text_of
from protocols.gb26875.units import Content, Unit

PROTOCOL = "gb26875"

#: Attribute of an object -> name in the vectors, zh, en.
_LABELS: dict[str, tuple[str, str, str]] = {
    "system": ("sys", "系统类型", "system type"),
    "address": ("sys_addr", "系统地址", "system address"),
    "component": ("comp", "部件类型", "component type"),
    "number": ("comp_addr", "部件地址", "component address"),
    "digits": ("addr_ascii", "部件地址(ASCII)", "component address, ASCII"),
    "state": ("state", "状态", "state"),
    "raw_text": ("text", "说明", "text"),
    "kind": ("analog", "模拟量类型", "analogue kind"),
    "value": ("value", "模拟量值", "analogue value"),
    "operation": ("op", "操作标志", "operation"),
    "operator": ("operator", "操作员编号", "operator"),
    "major": ("major", "主版本号", "major version"),
    "minor": ("minor", "次版本号", "minor version"),
    "amount": ("amount", "记录数", "records wanted"),
    "reserved": ("reserved", "预留", "reserved"),
    "minutes": ("minutes", "应答时限", "time allowed"),
}
_DETAIL = {
    "checksum": "the sum of the bytes between start mark and sum does not fit",
    "end": "no 23 23 where the length says that the frame ends",
    "length": f"the length field asks for more than {MAX_DATA} bytes",
    "short": "the frame is not whole: more bytes are missing",
    "start": "no start mark 40 40",
    "garbage": "bytes that belong to no frame",
    "empty": "nothing to read",
}


def explain(capture: Capture) -> Explanation:
    """Whatever is in the capture: frames, damaged frames, or a data unit alone."""
    layout: units.Layout = "standard" if capture.strict else "auto"
    if capture.kind == "data_unit" or "adu_hex" in capture.extra:
        return Explanation(PROTOCOL, (_tell_unit_alone(capture.data, layout),))
    scanner = Scanner()
    found = scanner.feed(capture.data)
    frames = [
        _tell(one, layout) if isinstance(one, Cut) else _refuse(capture.data, one.reason, one.offset or 0)
        for one in found
    ]
    rest = scanner.rest
    if not frames and not rest:
        frames = [_refuse(capture.data, "empty" if not capture.data else "start", 0)]
    if not any(one.ok for one in frames):
        # A single broken frame: say what is wrong with it, not what the bytes in it look like.
        frames = [_diagnose(capture.data)] if frames or rest else frames
        rest = b""
    return Explanation(PROTOCOL, tuple(frames), rest=rest)


# -- refused


def _diagnose(data: bytes) -> Told:
    at = data.find(START)
    if not data:
        return _refuse(data, "empty", 0)
    if at < 0:
        return _refuse(data, "short" if START.startswith(data) else "start", 0)
    held = data[at:]
    if len(held) < HEADER:
        return _refuse(data, "start" if at else "short", 0)
    length = int.from_bytes(held[24:26], "little")
    if at:
        return _refuse(data, "start", 0)
    if length > MAX_DATA:
        return _refuse(data, "length", 0)
    if len(held) < OVERHEAD + length:
        return _refuse(data, "short", 0)
    frame = held[: OVERHEAD + length]
    return _refuse(data, "end" if frame[-2:] != END else "checksum", 0)


def _refuse(data: bytes, reason: str, offset: int) -> Told:
    held = data[offset:]
    hints: list[str] = []
    verdict: Verdict | None = None
    length = len(held)
    if held[:2] == START and len(held) >= HEADER:
        said = int.from_bytes(held[24:26], "little")
        if said <= MAX_DATA and len(held) >= OVERHEAD + said:
            frame = held[: OVERHEAD + said]
            length = len(frame)
            verdict = Verdict("sum of bytes 2 .. n+26, mod 256", f"{frame[-3]:02X}", f"{checksum(frame):02X}")
            hints += _sum_hints(frame) if reason == "checksum" else []
        hints += _length_hints(held, said)
    elif reason == "start":
        hints.append("起始符应为 40 40 / the start mark is 40 40, low byte first everywhere behind it")
        if held[1:3] == START or START in held:
            hints.append(f"a start mark stands at byte {offset + held.find(START)}: stray bytes before the frame")
    text = _DETAIL.get(reason, reason)
    return Told(offset, length, "", error=reason, detail=text, hints=tuple(hints), checksum=verdict)


def _sum_hints(frame: bytes) -> list[str]:
    stored = frame[-3]
    rules = {
        "the start mark is added too": sum(frame[:-3]),
        "the bytes are combined by XOR": reduce(xor, frame[2:-3], 0),
        "only the data unit is added": sum(frame[HEADER:-3]),
        "the two's complement of the sum is sent": -sum(frame[2:-3]),
    }
    found = [f"checksum fits if {rule}" for rule, value in rules.items() if value & 0xFF == stored]
    return found or ["one byte differs somewhere: captured by hand, or damaged on the way"]


def _length_hints(held: bytes, said: int) -> list[str]:
    real = len(held) - OVERHEAD
    hints = []
    if held.endswith(END) and real != said and 0 <= real <= MAX_DATA:
        fits = checksum(held) == held[-3]
        hints.append(
            f"the length field says {said}, the frame holds {real} bytes of data"
            + ("; the sum fits that" if fits else "")
        )
    swapped = int.from_bytes(held[24:26], "big")
    if said > MAX_DATA and OVERHEAD + swapped == len(held):
        hints.append("the length fits if its high byte comes first: this device is not little endian")
    return hints


# -- read


def _tell(cut: Cut, layout: units.Layout) -> Told:
    frame = cut.data
    packet = parse(frame)
    zh, en = COMMANDS.get(
        packet.command,
        ("自定义命令" if packet.command >= 128 else "预留", "private" if packet.command >= 128 else "reserved"),
    )
    at = cut.offset
    fields = [
        Field("start", "4040", at, 2, "启动符", "start mark"),
        Field("serial", packet.serial, at + 2, 2, "业务流水号", "serial number"),
        Field("version", list(packet.version), at + 4, 2, "协议版本号:主、用户", "version: main, user"),
        Field("time", _time(packet.stamp), at + 6, 6, "时间标签", "time"),
        Field("src", packet.source, at + 12, 6, "源地址", "source"),
        Field("dst", packet.destination, at + 18, 6, "目的地址", "destination"),
        Field("adu_len", len(packet.data), at + 24, 2, "应用数据单元长度", "length of the data unit"),
        Field("cmd", packet.command, at + 26, 1, f"命令字节:{zh}", f"command: {en}"),
    ]
    values: dict[str, Any] = {
        "ok": True,
        **{field.name: field.value for field in fields[1:]},
        "cmd_name": en,
    }
    hints: list[str] = []
    if packet.time is None:
        blank = not any(packet.stamp)
        what = "全零" if blank else "无效"
        hints.append(f"时间标签{what} / header time is {'all zero' if blank else 'no time'}: use the time of arrival")
    title = f"{zh} {en}"
    unit = units.unit_of(packet)
    if unit is not None:
        content = units.content(unit, layout)
        fields += _unit_fields(unit, content, at + HEADER)
        values["adu"] = _unit_values(unit, content)
        hints += _unit_hints(unit, content)
        title += ": " + " ".join(names.TYPES.get(unit.type, _own(unit.type)))
        if isinstance((first := content.objects[0] if content.objects else None), objects.ComponentState):
            values["source_reading"] = _loop_and_node(packet, first)
    elif packet.data:
        fields.append(Field("adu", packet.data.hex().upper(), at + HEADER, len(packet.data), "应用数据单元", "data"))
        hints.append("the data unit has one byte only: no type and count")
    elif packet.command in (CONTROL, REQUEST):
        hints.append("a command or request without data unit asks for nothing")
    end = at + len(frame)
    verdict = Verdict("sum of bytes 2 .. n+26, mod 256", f"{frame[-3]:02X}", f"{checksum(frame):02X}")
    fields.append(Field("checksum", verdict.stored, end - 3, 1, "校验和", "checksum"))
    fields.append(Field("end", "2323", end - 2, 2, "结束符", "end mark"))
    return Told(at, len(frame), title, tuple(fields), values, verdict, hints=tuple(hints))


def _loop_and_node(packet: Packet, state: objects.ComponentState) -> dict[str, Any]:
    """The same as Hikvision's tools print it: addresses in wire order, the component's address as loop and node."""
    return {
        "sn": packet.serial,
        "time": _time(packet.stamp),
        "srcAddr_wire_order": bytes.fromhex(packet.source)[::-1].hex().upper(),
        "sysType": state.system,
        "sysAddr": state.address,
        "compType": state.component,
        "compCirc": state.number & 0xFFFF,
        "compNode": state.number >> 16,
        "compStatus": state.state,
    }


def _tell_unit_alone(data: bytes, layout: units.Layout) -> Told:
    unit = units.unit_from(data)
    if unit is None:
        return Told(
            0, len(data), "", error="short" if data else "empty", detail="a data unit has type and count at least"
        )
    content = units.content(unit, layout)
    return Told(
        0,
        len(data),
        " ".join(names.TYPES.get(unit.type, _own(unit.type))),
        tuple(_unit_fields(unit, content, 0)),
        {"ok": True, "adu": _unit_values(unit, content)},
        hints=tuple(_unit_hints(unit, content)),
    )


def _own(type_byte: int) -> tuple[str, str]:
    return ("自定义类型", "a maker's own type") if type_byte >= 128 else ("预留类型", "reserved type")


def _time(stamp: bytes) -> str | None:
    local = parse_time(stamp)
    return None if local is None else local.isoformat()


def _unit_values(unit: Unit, content: Content) -> dict[str, Any]:
    out: dict[str, Any] = {"type": unit.type, "count": unit.count, "raw": unit.body.hex().upper()}
    if content.object_len is not None:
        out["object_len"] = content.object_len
    out["layout"] = content.layout
    out["objects"] = [_object_values(one) for one in content.objects]
    return out


def _object_values(one: Object) -> dict[str, Any]:
    if isinstance(one, Raw):
        return {"raw": one.data.hex().upper()}
    out: dict[str, Any] = {}
    for name, form in one.fields:
        value = getattr(one, name)
        key = _LABELS[name][0]
        if isinstance(value, bytes):
            out |= {"len": len(value)} if form == "text" else {}
            value = text_of(value)
        out[key] = value
    if "major" in out:
        out["version"] = f"{out.pop('major')}.{out.pop('minor')}"
    if "state" in out:
        out["bits"] = names.bits_of(out["state"])
    if isinstance(one, NumberedComponentState):
        # The published names of this maker's layout.
        out |= {"text_bytes_from": 11, "text_contains": one.text, "state_byte": one.state}
    if isinstance(one, objects.Analog) and one.kind in names.ANALOGS:
        _, en, step, unit = names.ANALOGS[one.kind]
        out |= {"quantity": en, "scaled": str(one.value * Decimal(step)), "unit": unit}
    if objects.has_time(type(one)):
        out["time"] = _time(getattr(one, "stamp", b""))
    return out


def _meaning(one: Object, name: str, value: Any) -> tuple[str, str]:
    """What a number stands for, zh and en; empty where it says itself."""
    table: dict[str, dict[int, tuple[str, str]]] = {"system": names.SYSTEMS, "component": names.COMPONENTS}
    if name in table:
        return table[name].get(value, ("自定义" if value >= 128 else "预留", "own" if value >= 128 else "reserved"))
    if name == "kind" and value in names.ANALOGS:
        zh, en, step, unit = names.ANALOGS[value]
        return f"{zh} {step} {unit}", f"{en}, step {step} {unit}"
    if name == "operation":
        return names.named_bits(value, names.OPERATION_BITS)
    if name == "state":
        bits = names.SYSTEM_BITS if isinstance(one, objects.SystemState) else names.COMPONENT_BITS
        return names.named_bits(value, names.TRANSMITTER_BITS if isinstance(one, objects.TransmitterState) else bits)
    return "", ""


def _unit_fields(unit: Unit, content: Content, at: int) -> list[Field]:
    zh, en = names.TYPES.get(unit.type, _own(unit.type))
    out = [
        Field("adu.type", unit.type, at, 1, f"类型标志:{zh}", f"type: {en}"),
        Field("adu.count", unit.count, at + 1, 1, "信息对象数目", "objects"),
    ]
    at += 2
    for number, one in enumerate(content.objects):
        prefix = f"adu.objects[{number}]."
        if isinstance(one, Raw):
            out.append(Field(prefix + "raw", one.data.hex().upper(), at, len(one.data), "原始数据", "raw"))
            at += len(one.data)
            continue
        for name, form in one.fields:
            value = getattr(one, name)
            key, label_zh, label_en = _LABELS[name]
            if form == "text":
                out.append(Field(prefix + "text_len", len(value), at, 1, "说明长度", "length of the text"))
                at += 1
            size = objects.field_size(form) or len(value)
            shown = text_of(value) if isinstance(value, bytes) else value
            what_zh, what_en = _meaning(one, name, value)
            label_zh, label_en = (
                (f"{label_zh}:{what_zh}", f"{label_en}: {what_en}") if what_zh else (label_zh, label_en)
            )
            out.append(Field(prefix + key, shown, at, size, label_zh, label_en))
            at += size
        if stamp := getattr(one, "stamp", b""):
            out.append(Field(prefix + "time", _time(stamp), at, len(stamp), "时间", "time"))
            at += len(stamp)
    return out


def _unit_hints(unit: Unit, content: Content) -> list[str]:
    hints: list[str] = []
    kind = objects.OBJECTS.get(unit.type)
    if content.layout == "raw" and kind is not None:
        due = objects.fixed_size(kind)
        due_text = f"{due} or {due + 6}" if objects.has_time(kind) else str(due)
        size = "no whole number of" if content.object_len is None else content.object_len
        hints.append(
            f"信息对象长度不符 / an object has {size} bytes, the standard's {due_text}: a maker's own layout, kept raw"
        )
    elif content.layout == "ascii8":
        hints.append("objects of 50 bytes: address as 8 ASCII digits, one state byte, 32 bytes of text (a maker's own)")
    elif content.layout in ("no_time", "last_no_time"):
        hints.append("信息对象缺少时间 / this device leaves the time of its objects away: use the time of arrival")
    if unit.type >= 128:
        hints.append("types 128 to 255 are a maker's own")
    for one in content.objects:
        if getattr(one, "state", None) == 0:
            hints.append("状态为 0:测试状态,不是正常 / a state of 0 means under test, not fine")
            break
    return hints
