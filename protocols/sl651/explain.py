"""A captured SL 651 telegram told field by field."""

from __future__ import annotations

from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict
from protocols.sl651.elements import DOOR_BIT, STATION_TYPES, STATUS_BITS, Element
from protocols.sl651.frame import (
    ASCII_HEAD,
    ASCII_TAIL,
    HEX_HEAD,
    HEX_TAIL,
    End,
    Found,
    Header,
    Scanner,
    Telegram,
    checksum_of,
    crc,
    header_at,
)
from protocols.sl651.joiner import Joiner
from protocols.sl651.messages import (
    CODED,
    FUNCTIONS,
    Continued,
    Message,
    Plain,
    Question,
    Report,
    Settings,
    Version,
    iso,
)
from protocols.sl651.reading import read
from protocols.sl651.settings_text import meaning

_RULE = "CRC-16/MODBUS, high byte first"
_ENDS = {
    End.ETX: ("报文结束", "last"),
    End.ETB: ("后续有报文", "more follows"),
    End.ENQ: ("询问", "question"),
    End.EOT: ("传输结束，退出", "got it, hang up"),
    End.ACK: ("肯定确认，继续发送", "got it, send on"),
    End.NAK: ("否定应答，重发", "send that packet again"),
    End.ESC: ("传输结束，终端保持在线", "got it, stay on line 10 minutes"),
}


def explain(capture: Capture) -> Explanation:
    """What is in the capture. Never raises."""
    data = _unhexed(capture.data)
    scanner = Scanner()
    found = scanner.find(data)
    rest = data[len(data) - scanner.held :] if scanner.held else b""
    found += scanner.finish()
    told: list[Told] = []
    telegrams: list[Telegram] = []
    for one in found:
        if isinstance(one.result, Telegram):
            told.append(_told(data[one.at : one.at + one.size], one.at, one.result))
            telegrams.append(one.result)
        elif not (rest and one.result.reason == "short" and one.at >= len(data) - len(rest)):
            told.append(_refused(data, one))
    if rest and not telegrams:
        told.append(_cut(data, len(data) - len(rest)))
    return Explanation("sl651", tuple(told), _said(told, telegrams), rest)


def _said(told: list[Told], telegrams: list[Telegram]) -> dict[str, Any]:
    """The whole capture: packets are put together, the first telegram speaks; noise around it is only told."""
    good = [one for one in told if one.ok]
    if not good:
        return {}
    joiner = Joiner()
    messages = 0
    for telegram in telegrams:
        joins = telegram.total > 1 and telegram.end is not End.NAK
        messages += 1 if not joins else sum(isinstance(one, Telegram) for one in joiner.add(telegram, 0))
    return {"frames": len(good), "messages": messages, **good[0].values}


def _unhexed(data: bytes) -> bytes:
    """A telegram that came as hex digits (by SMS, or from a log) is read as the bytes it stands for."""
    text = data.strip()
    if text[:4].upper() == b"7E7E":
        try:
            return bytes.fromhex(text.decode("ascii"))
        except ValueError:
            return data
    return data


# -- a good telegram


def _told(data: bytes, at: int, telegram: Telegram) -> Told:
    title_zh, title_en = FUNCTIONS.get(telegram.func, ("自定义", "maker's own"))
    header = header_at(data, 0)
    if header is None:  # a telegram has one: the scanner has read it
        return Told(at, len(data), "", error="format", detail="no header")
    values: dict[str, Any] = {
        "encoding": "ascii" if telegram.ascii else "hex",
        "dir": "down" if telegram.down else "up",
        "center": f"{telegram.center:02X}",
        "station": telegram.station,
        "password": telegram.password,
        "func": f"{telegram.func:02X}",
        "len": header.length,
        "end": telegram.end.name,
    }
    fields = _header_fields(telegram, header, at)
    hints: list[str] = []
    body_at = at + header.body_at
    if telegram.total:
        width = 6 if telegram.ascii else 3
        values |= {"total": telegram.total, "seq": telegram.seq}
        fields.append(
            Field("packet", f"{telegram.seq}/{telegram.total}", body_at, width, "包序号/总数", "packet/packets")
        )
        body_at += width
    try:
        message: Message = read(telegram)
    except RemoteProtocolError as error:
        hints.append(str(error))
        fields.append(Field("body", telegram.body.hex().upper(), body_at, len(telegram.body), "报文正文", "body"))
    else:
        fields += _body_fields(telegram, message, body_at, values, hints)
    _header_hints(telegram, values, hints)
    tail = ASCII_TAIL if telegram.ascii else HEX_TAIL
    end_zh, end_en = _ENDS[telegram.end]
    fields.append(Field("end", telegram.end.name, at + len(data) - tail, 1, end_zh, end_en))
    stored, computed = checksum_of(data, is_ascii=telegram.ascii)
    fields.append(Field("crc", _shown(stored, telegram.ascii), at + len(data) - tail + 1, tail - 1, "校验码", "CRC"))
    verdict = Verdict(_RULE, _shown(stored, telegram.ascii), _shown(computed, telegram.ascii))
    title = f"SL 651 {telegram.func:02X} {title_zh} / {title_en}"
    return Told(at, len(data), title, tuple(fields), values, verdict, hints=tuple(hints))


def _shown(check: bytes, is_ascii: bool) -> str:
    return check.decode("latin-1") if is_ascii else check.hex().upper()


def _header_fields(telegram: Telegram, header: Header, at: int) -> list[Field]:
    scale, start = (2, 1) if telegram.ascii else (1, 2)

    def field(name: str, value: Any, offset: int, length: int, zh: str, en: str) -> Field:
        return Field(name, value, at + start + scale * offset, scale * length, zh, en)

    station_at, center_at = (0, 5) if telegram.down else (1, 0)
    func_zh, func_en = FUNCTIONS.get(telegram.func, ("自定义", "maker's own"))
    addresses = [
        field("station", telegram.station, station_at, 5, "遥测站地址", "station"),
        field("center", f"{telegram.center:02X}", center_at, 1, "中心站地址", "centre"),
    ]
    return [
        Field("start", "01" if telegram.ascii else "7E7E", at, start, "起始符", "start"),
        *sorted(addresses, key=lambda one: one.offset or 0),
        field("password", telegram.password, 6, 2, "密码", "password"),
        field("func", f"{telegram.func:02X}", 8, 1, func_zh, func_en),
        field("direction", "down" if telegram.down else "up", 9, 1, "上下行标识", "direction"),
        field("len", header.length, 9, 2, "正文长度", "length of the body"),
        Field(
            "stx",
            "SYN" if telegram.total else "STX",
            at + (ASCII_HEAD if telegram.ascii else HEX_HEAD) - 1,
            1,
            "正文起始符",
            "start of the body",
        ),
    ]


def _header_hints(telegram: Telegram, values: dict[str, Any], hints: list[str]) -> None:
    named = values.get("body_station", "")
    if telegram.center in (0, 0xFF):
        hints.append(f"centre address {telegram.center:02X} is outside 1..255; stations send it all the same")
    if named and named != telegram.station:
        if named == telegram.swapped_station:
            hints.append("the two addresses of the header stand in the other direction's order: the body says so")
        else:
            hints.append(f"the body names another station: {named}")
    asks = telegram.end in (End.ENQ, End.EOT, End.ACK, End.NAK, End.ESC)
    if asks != telegram.down:
        hints.append(
            f"end byte {telegram.end.name} belongs to the {'centre' if asks else 'station'}, the direction bits say "
            f"the other; read the other way round the station is {telegram.swapped_station}"
        )


def _body_fields(
    telegram: Telegram, message: Message, at: int, values: dict[str, Any], hints: list[str]
) -> list[Field]:
    if isinstance(message, Continued):
        hints.append("a further packet holds neither serial number nor time: it goes on where the one before ended")
        return [Field("data", message.data.hex().upper(), at, len(message.data), "后续数据", "continued data")]
    wide = telegram.ascii
    sent = iso(message.sent)
    values |= {"serial": message.serial, "time": sent}
    fields = [
        Field("serial", message.serial, at, 4 if wide else 2, "流水号", "serial number"),
        Field("time", sent or message.sent, at + (4 if wide else 2), 12 if wide else 6, "发报时间", "time of sending"),
    ]
    if sent is None:
        hints.append(f"time of sending {message.sent} is none: the clock is not set; take the time of arrival")
    elif sent >= "2050":
        hints.append(f"year {sent[:4]}: the clock is not set; take the time of arrival and flag it")
    body = telegram.body
    match message:
        case Report():
            fields += _report_fields(message, body, at, values, hints)
        case Settings():
            fields += _station_fields(message.station, body, at, values)
            fields += _settings_fields(telegram.func, message, at, values)
        case Question():
            fields += _question_fields(message, at, values)
        case Version():
            text = message.text.decode("gbk", "replace")
            values["version"] = text
            fields += _station_fields(message.station, body, at, values)
            text_at = at + len(body) - len(message.rest) - len(message.text)
            fields.append(Field("version", text, text_at, len(message.text), "软件版本", "version"))
        case Plain():
            fields += _station_fields(message.station, body, at, values)
    if message.rest and telegram.func in CODED:
        data = message.rest.hex().upper()
        values["data"] = data
        fields.append(Field("data", data, at + len(body) - len(message.rest), len(message.rest), "编码数据", "codes"))
    elif message.rest:
        rest_at = at + len(body) - len(message.rest)
        values["rest"] = message.rest.hex().upper()
        fields.append(Field("rest", values["rest"], rest_at, len(message.rest), "未解析", "not read"))
        hints.append(f"{len(message.rest)} bytes at the end of the body could not be read as elements")
    return fields


def _station_fields(station: str, body: bytes, at: int, values: dict[str, Any]) -> list[Field]:
    """What the body says the station is; in the usual place behind the time, or somewhere."""
    if not station:
        return []
    values["body_station"] = station
    usual = body[8:10] == b"\xf1\xf1"
    return [Field("body_station", station, at + 8 if usual else None, 7 if usual else None, "测站地址", "station")]


def _report_fields(report: Report, body: bytes, at: int, values: dict[str, Any], hints: list[str]) -> list[Field]:
    fields = _station_fields(report.station, body, at, values)
    if report.kind:
        zh, en = STATION_TYPES.get(report.kind, ("自定义", "maker's own"))
        values["type"] = report.kind
        at_kind = at + 15 if fields and fields[0].offset is not None else None
        fields.append(Field("type", report.kind, at_kind, 1, f"测站分类：{zh}", f"kind of station: {en}"))
    observed = [iso(group.observed) for group in report.groups if group.observed]
    if observed:
        values["obs"] = observed
    elements: list[list[Any]] = []
    for group in report.groups:
        if group.observed:
            shown = iso(group.observed)
            fields.append(Field("obs", shown or group.observed, at + group.at, 7, "观测时间", "observation time"))
            if shown is None:
                hints.append(f"observation time {group.observed} is none")
        for one in group.elements:
            name = one.id if one.type is None or not one.text else one.type.name
            value = list(one.value) if isinstance(one.value, tuple) else one.value
            elements.append([name, value])
            fields.append(_element_field(one, value, at))
            _element_hints(one, hints)
    values["elements"] = elements
    if report.manual is not None:
        text = report.manual.decode("gbk", "replace")
        values["manual"] = text
        fields.append(
            Field("manual", text, at + len(body) - len(report.manual), len(report.manual), "人工置数", "made by hand")
        )
    if report.picture is not None:
        start = report.picture[:4].hex().upper()
        values["picture_starts"] = start
        size = len(report.picture)
        fields.append(Field("picture", start, at + len(body) - size, size, "图片", f"picture, {size} bytes of it here"))
        if not report.picture.startswith(b"\xff\xd8"):
            hints.append("the picture does not begin as a JPEG does (FFD8)")
    return fields


def _element_field(one: Element, value: Any, at: int) -> Field:
    kind = one.type
    zh, en = (kind.zh, kind.en) if kind else ("厂家自定义要素", "maker's own element")
    unit = f" ({kind.unit})" if kind and kind.unit else ""
    return Field(one.id, value, at + one.at, one.size, zh + unit, en + unit)


def _element_hints(one: Element, hints: list[str]) -> None:
    if one.id == "45" and (bits := one.bits) is not None:
        said = [en for n, (_, en) in enumerate(STATUS_BITS) if n != DOOR_BIT and bits >> n & 1]
        said += [] if bits >> DOOR_BIT & 1 else ["cabinet door open"]
        hints.append(f"status {bits:08X}: {', '.join(said) or 'nothing'}")
    kind = one.type
    if kind and kind.definition and one.definition and one.definition != kind.definition:
        hints.append(
            f"element {one.id} comes with definition {one.definition:02X}, usual is {kind.definition:02X}; the sent "
            "one is what counts"
        )
    value = one.value
    if isinstance(value, str) and value.strip("9.") == "" and len(value) >= 7:
        hints.append(f"element {one.id} = {value}: nines all through are how some stations say no value")


def _settings_fields(func: int, message: Settings, at: int, values: dict[str, Any]) -> list[Field]:
    values["params"] = [[one.id, one.raw.hex().upper()] for one in message.items]
    said = {one.id: text for one in message.items if (text := meaning(func, one))}
    if said:
        values["meaning"] = said
    return [
        Field(one.id, one.raw.hex().upper(), at + one.at, 2 + len(one.raw), "配置参数", said.get(one.id, "setting"))
        for one in message.items
    ]


def _question_fields(message: Question, at: int, values: dict[str, Any]) -> list[Field]:
    fields: list[Field] = []
    values["wanted"] = [identifier for identifier, _ in message.wanted]
    if message.begin:
        values |= {"from": iso(message.begin), "to": iso(message.end), "step": _step(message.step)}
        fields += [
            Field("from", iso(message.begin) or message.begin, at + 8, 4, "起始时间", "from"),
            Field("to", iso(message.end) or message.end, at + 12, 4, "结束时间", "to"),
            Field("step", _step(message.step), at + 16, 5, "时间步长", "step"),
        ]
    fields.append(Field("wanted", values["wanted"], None, None, "查询要素", "asked for"))
    return fields


def _step(digits: str) -> str:
    """dd hh mm in words."""
    if len(digits) != 6 or not digits.isdecimal():
        return digits
    parts = [(int(digits[at : at + 2]), unit) for at, unit in ((0, "d"), (2, "h"), (4, "min"))]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 min"


# -- what is none


def _refused(data: bytes, found: Found) -> Told:
    error = found.result
    reason = error.reason if isinstance(error, RemoteProtocolError) else "format"
    header = header_at(data, found.at)
    if header is None or len(data) < found.at + header.size:
        hints = _length_hint(data, found.at, header) if header else ()
        return Told(found.at, found.size, "", error=reason, detail=str(error), hints=hints)
    whole = data[found.at : found.at + header.size]
    is_ascii = header.telegram.ascii
    stored, computed = checksum_of(whole, is_ascii=is_ascii)
    verdict = Verdict(_RULE, _shown(stored, is_ascii), _shown(computed, is_ascii))
    hints = _crc_hints(whole, stored, computed) + _length_hint(data, found.at, header)
    fields = tuple(_header_fields(header.telegram, header, found.at))
    func_zh, func_en = FUNCTIONS.get(header.telegram.func, ("自定义", "maker's own"))
    title = f"SL 651 {header.telegram.func:02X} {func_zh} / {func_en}"
    return Told(found.at, len(whole), title, fields, {}, verdict, reason, str(error), hints)


def _crc_hints(whole: bytes, stored: bytes, computed: bytes) -> tuple[str, ...]:
    if stored == computed:
        return ("the checksum fits, but the end byte or the packet numbers mean nothing",)
    hints = []
    if stored == computed[::-1]:
        hints.append("the checksum fits if it is read low byte first (as Modbus sends it); SL 651 sends it high first")
    if crc(whole[2:-2]).to_bytes(2, "big") in (stored, stored[::-1]):
        hints.append("the checksum fits without the two start bytes 7E 7E; they are part of it")
    if not hints:
        hints.append("many published telegrams have an edited date and the old checksum; a real one is sent again")
    return tuple(hints)


def _length_hint(data: bytes, at: int, header: Header | None) -> tuple[str, ...]:
    """Whether the checksum fits at the end of what is there: then the length field is wrong."""
    if header is None or header.telegram.ascii:
        return ()
    rest = data[at:].rstrip(b"\r\n")
    if len(rest) > HEX_HEAD + HEX_TAIL and len(rest) != header.size and crc(rest[:-2]).to_bytes(2, "big") == rest[-2:]:
        return (f"the checksum fits if the length field says {len(rest) - HEX_HEAD - HEX_TAIL}, not {header.length}",)
    return ()


def _cut(data: bytes, at: int) -> Told:
    header = header_at(data, at)
    size = len(data) - at
    if header is None:
        return Told(at, size, "", error="short", detail=f"{size} bytes that may be the start of a telegram")
    fields = tuple(_header_fields(header.telegram, header, at))
    detail = f"{size} of {header.size} bytes are here"
    hints = _length_hint(data, at, header)
    return Told(at, size, "SL 651", fields, {}, None, "short", detail, hints)
