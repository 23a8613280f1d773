"""A captured HJ 212 packet told field by field, with every checksum rule of the field tried."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict
from protocols.hj212.frame import VARIANTS, Found, RawFrame, Scanner, Variant, checksum
from protocols.hj212.joiner import Joiner
from protocols.hj212.messages import Packet, parse, parse_time
from protocols.hj212.names import (
    COMMANDS,
    EXE_RETURNS,
    FACTORS,
    ITEM_FLAGS,
    QN_RETURNS,
    SUFFIXES,
    SYSTEMS,
    edition,
)

RULES: dict[Variant, str] = {
    "hj212": "HJ 212 annex A",
    "modbus": "CRC-16/MODBUS, high byte first",
    "modbus-swapped": "CRC-16/MODBUS, low byte first",
    "arc": "CRC-16/ARC (start 0)",
}
#: Low bytes that the standard's own rule can give.
_LOW_BYTES = frozenset({"00", "01", "40", "41", "80", "81", "C0", "C1"})
_HEADER = {
    "QN": ("请求编号", "request number"),
    "ST": ("系统编码", "system code"),
    "CN": ("命令编码", "command"),
    "PW": ("访问密码", "password"),
    "MN": ("设备唯一标识", "device id"),
    "Flag": ("标志", "flags"),
    "PNUM": ("总包数", "packets"),
    "PNO": ("包号", "packet"),
    "SK": ("密钥校验（2025）", "keyed check (2025)"),
}
_FIELDS = {
    "DataTime": ("数据时间", "time of the data"),
    "BeginTime": ("开始时间", "from"),
    "EndTime": ("截止时间", "to"),
    "SystemTime": ("系统时间", "clock"),
    "RestartTime": ("开机时间", "started at"),
    "QnRtn": ("请求返回", "answer to the request"),
    "ExeRtn": ("执行结果", "result"),
    "RtdInterval": ("实时数据间隔（秒）", "interval of real-time data, s"),
    "MinInterval": ("分钟数据间隔（分）", "interval of minute data, min"),
    "OverTime": ("超时时间（秒）", "time-out, s"),
    "ReCount": ("重发次数", "repeats"),
    "NewPW": ("新密码", "new password"),
    "PolId": ("污染物编码", "factor"),
    "InfoId": ("现场端信息编码", "information"),
    "VaseNo": ("留样瓶编号", "sample bottle"),
    "CstartTime": ("采样开始时刻", "sampling starts at"),
    "CTime": ("采样周期（小时）", "sampling period, h"),
}
_PERIODS = frozenset({"2031", "2041", "2051", "2061"})
_TEXT = re.compile(rb"=//.*?//", re.DOTALL)


def explain(capture: Capture) -> Explanation:
    """What is in the capture. Never raises."""
    if capture.kind == "checksum" or "crc_of" in capture.extra:
        return _checksum_only(str(capture.extra.get("crc_of", "")).encode() or capture.data)
    data = capture.data
    scanner = Scanner(strict=capture.strict)
    found = scanner.find(data)
    rest = data[len(data) - scanner.held :] if scanner.held else b""
    found += scanner.finish()
    told: list[Told] = []
    packets: list[Packet] = []
    for one in found:
        if isinstance(one.result, RawFrame):
            told.append(_told(data, one, one.result, packets))
        else:
            told.append(_refused(data, one, one.result))
    if not (found and isinstance(found[-1].result, RemoteProtocolError) and found[-1].result.reason == "short"):
        rest = b""  # what was held has been read after all
    return Explanation("hj212", tuple(told), _said(told, packets), rest)


def _said(told: list[Told], packets: list[Packet]) -> dict[str, Any]:
    """The whole capture: split packets are put together, the first message speaks."""
    good = [one for one in told if one.ok]
    if not good:
        return {}
    joiner = Joiner()
    whole: list[Packet] = []
    for packet in packets:
        if packet.is_split:
            whole += [one for one in joiner.add(packet, 0) if isinstance(one, Packet)]
        else:
            whole.append(packet)
    values = dict(good[0].values)
    if whole and whole[0] is not packets[0]:
        values |= {"fields": dict(whole[0].fields), "factors": {key: dict(v) for key, v in whole[0].factors.items()}}
    return {"frames": len(good), "messages": len(whole), **values, "values": [_first(one) for one in whole]}


def _first(packet: Packet) -> str | None:
    """The first measured value of a message."""
    for parts in packet.factors.values():
        for suffix, value in parts.items():
            if suffix not in ("SampleTime", "Flag", "EFlag"):
                return value
    return None


def _checksum_only(data: bytes) -> Explanation:
    values = {"crc": checksum(data), **{f"crc_{variant}": checksum(data, variant) for variant in VARIANTS}}
    fields = tuple(Field(RULES[variant], checksum(data, variant)) for variant in VARIANTS)
    return Explanation("hj212", (Told(0, len(data), "HJ 212 checksum", fields, values),), values)


# -- a good frame


def _told(data: bytes, found: Found, frame: RawFrame, packets: list[Packet]) -> Told:
    wire = data[found.at : found.at + found.size]
    printed = wire[-4:].decode("ascii", "replace")
    verdict = Verdict(RULES[frame.variant], printed, checksum(frame.data, frame.variant))
    digits = len(wire) - len(frame.data) - 6
    length = int(wire[2 : 2 + digits])
    fields = [
        Field("start", "##", found.at, 2, "包头", "start"),
        Field("len", length, found.at + 2, digits, "数据段长度", "length of the data"),
    ]
    fields += _data_fields(frame.data, found.at + 2 + digits)
    fields.append(Field("crc", printed, found.at + found.size - 4, 4, "校验码", "checksum"))
    hints: list[str] = []
    if frame.variant != "hj212":
        hints.append(
            f'the checksum fits by {RULES[frame.variant]}, not by the standard\'s rule: checksum = "{frame.variant}"'
        )
    if not frame.length_ok:
        hints.append(_length_hint(length, len(frame.data)))
    if digits != 4:
        hints.append(f"the length field has {digits} digits, the standard has four")
    try:
        packet = parse(frame)
    except RemoteProtocolError as error:
        return Told(found.at, found.size, "HJ 212", tuple(fields), {}, verdict, error.reason, str(error), tuple(hints))
    packets.append(packet)
    hints += _packet_hints(packet, frame.data)
    named = COMMANDS.get(packet.cn)
    title = f"HJ 212 CN={packet.cn} {named.zh} / {named.en}" if named else f"HJ 212 CN={packet.cn} (private)"
    return Told(found.at, found.size, title, tuple(fields), _values(packet, frame, length), verdict, hints=tuple(hints))


def _values(packet: Packet, frame: RawFrame, length: int) -> dict[str, Any]:
    values: dict[str, Any] = {"len": length, "CN": packet.cn, "ST": packet.st, "PW": packet.pw, "MN": packet.mn}
    if packet.flag is not None:
        values |= {"edition": edition(packet.flag), "wants_answer": packet.wants_answer}
    # As they were sent: an empty QN, leading zeros, a Flag that is no number.
    head = (part.partition("=") for part in _text(frame.data.partition(b"CP=&&")[0]).split(";"))
    values |= {name.strip(): value.strip() for name, _, value in head if name.strip() in ("QN", "Flag", "PNUM", "PNO")}
    values |= dict(packet.extra)
    values["fields"] = dict(packet.fields)
    values["factors"] = {code: dict(parts) for code, parts in packet.factors.items()}
    values |= {"length_ok": frame.length_ok, "crc_variant": frame.variant, "encoding": packet.encoding}
    return values


def _text(raw: bytes) -> str:
    for encoding in ("utf-8", "gbk"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")


def _pieces(data: bytes, at: int, separators: bytes) -> Iterator[tuple[bytes, int]]:
    """Parts between separators with their places; what stands between double slashes is one part."""
    shielded = _TEXT.sub(lambda m: b"\0" * len(m.group()), data)
    begin = 0
    for end in [n for n, byte in enumerate(shielded) if byte in separators] + [len(data)]:
        if data[begin:end].strip():
            yield data[begin:end], at + begin
        begin = end + 1


def _data_fields(data: bytes, at: int) -> list[Field]:
    head, mark, body = data.partition(b"CP=&&")
    out: list[Field] = []
    for raw, place in _pieces(head, at, b";"):
        name, _, value = _text(raw).partition("=")
        zh, en = _HEADER.get(name.strip(), ("其他", "other"))
        out.append(
            Field(name.strip(), value.strip(), place, len(raw), *_said_header(name.strip(), value.strip(), zh, en))
        )
    body_at = at + len(head) + len(mark)
    for raw, place in _pieces(body.removesuffix(b"&&"), body_at, b";,"):
        name, _, value = _text(raw).partition("=")
        out.append(Field(name.strip(), value.strip(), place, len(raw), *_said_item(name.strip(), value.strip())))
    return out


def _said_header(name: str, value: str, zh: str, en: str) -> tuple[str, str]:
    if name == "ST" and value in SYSTEMS:
        return f"{zh}：{SYSTEMS[value][0]}", f"{en}: {SYSTEMS[value][1]}"
    if name == "CN" and value in COMMANDS:
        return f"{zh}：{COMMANDS[value].zh}", f"{en}: {COMMANDS[value].en}"
    if name == "Flag" and value.isdecimal():
        flag = int(value)
        return (
            f"{zh}：{'需应答' if flag & 1 else '不需应答'}{'，分包' if flag & 2 else ''}，{edition(flag)} 版",
            f"{en}: {'answer wanted' if flag & 1 else 'no answer'}{', packets' if flag & 2 else ''}, {edition(flag)}",
        )
    return zh, en


def _said_item(name: str, value: str) -> tuple[str, str]:
    code, hyphen, rest = name.partition("-")
    if not hyphen:
        zh, en = _FIELDS.get(name, ("", ""))
        table = {"QnRtn": QN_RETURNS, "ExeRtn": EXE_RETURNS}.get(name, {})
        if value in table:
            return f"{zh}：{table[value][1]}", f"{en}: {table[value][2]}"
        return zh, en
    suffix = rest.rpartition("-")[2]
    zh, en, unit = FACTORS.get(code, ("", code, ""))
    suffix_zh, suffix_en = SUFFIXES.get(suffix, (suffix, suffix))
    if suffix == "Flag" and value in ITEM_FLAGS:
        return f"{zh}{suffix_zh}：{ITEM_FLAGS[value][0]}", f"{en}, {suffix_en}: {ITEM_FLAGS[value][1]}"
    numeric = suffix in ("Rtd", "Avg", "Min", "Max", "Data") or suffix.startswith("Zs")
    shown = f" ({unit})" if unit and numeric else ""
    return f"{zh}{suffix_zh}{shown}", f"{en}, {suffix_en}{shown}"


def _packet_hints(packet: Packet, data: bytes) -> list[str]:
    hints: list[str] = []
    if not data.endswith(b"&&"):
        hints.append("the closing && is missing")
    if re.search(rb";\s*&&\Z", data):
        hints.append("a ; stands before the closing &&")
    if not packet.qn:
        hints.append("no QN: a sender of the 2005 kind, it cannot be answered by number")
    elif len(packet.qn) != 17:
        hints.append(f"QN has {len(packet.qn)} digits, the standard has 17")
    if packet.flag is not None and packet.flag & 2 and not packet.pnum:
        hints.append("Flag says packet numbers are there, but there are none: read as a whole message")
    if not packet.mn or packet.mn.lower() == "null":
        hints.append("MN is empty: the station cannot be told from others")
    when = packet.fields.get("DataTime", "")
    if when and parse_time(when) is None:
        hints.append(f"DataTime {when} is no time")
    elif when and len(when) != 14:
        hints.append(f"DataTime has {len(when)} digits, the standard has 14")
    elif when and packet.cn in _PERIODS:
        hints.append("DataTime of period data is the START of the period")
    if packet.cn == "2011" and any("Avg" in parts and "Rtd" not in parts for parts in packet.factors.values()):
        hints.append("averages under CN=2011: taken as the values of the moment")
    particles = [code for code in ("a34004", "a34002", "a34001") if code in packet.factors]
    if particles and packet.is_upload:
        hints.append("units of particles (ng, ug or mg) are the station's: compare with the instrument's display")
    if packet.encoding != "utf-8":
        hints.append(f"text is {packet.encoding.upper()}, the 2017 edition has UTF-8")
    return hints


# -- what is none


def _length_hint(said: int, real: int) -> str:
    why = {6: " (checksum and line end are counted too)", 4: " (the checksum is counted too)"}.get(said - real, "")
    why = why or {10: " (the whole frame without line end is counted)", 12: " (the whole frame is counted)"}.get(
        said - real, ""
    )
    return f"the length field says {said}, the data are {real} bytes{why}"


def _refused(data: bytes, found: Found, error: RemoteProtocolError) -> Told:
    frame = data[found.at :]
    digits = frame[2:6]
    if not frame.startswith(b"##") or not digits.isdigit() or error.reason in ("short", "garbage"):
        hints = _loose_hints(data) if error.reason == "garbage" else ()
        return Told(found.at, found.size, "", error=error.reason, detail=_detail(error, frame), hints=hints)
    said = int(digits)
    end, printed = _likely_end(frame, said)
    body = frame[6:end]
    fields = (
        Field("start", "##", found.at, 2, "包头", "start"),
        Field("len", said, found.at + 2, 4, "数据段长度", "length of the data"),
        *_data_fields(body, found.at + 6),
        Field("crc", printed, found.at + end, 4, "校验码", "checksum"),
    )
    verdict = Verdict(RULES["hj212"], printed, checksum(body))
    hints = _crc_hints(body, printed.upper()) + (() if said == len(body) else (_length_hint(said, len(body)),))
    return Told(found.at, end + 4, "HJ 212", fields, {}, verdict, error.reason, str(error), hints)


def _likely_end(frame: bytes, said: int) -> tuple[int, str]:
    """Where the data end: before four hex digits behind the last && of the line, else where the length says."""
    line = re.split(rb"[\r\n]", frame, maxsplit=1)[0]
    tails = list(re.finditer(rb"&&([0-9A-Za-z]{4})", line))
    if tails:
        return tails[-1].start() + 2, tails[-1].group(1).decode("ascii")
    end = min(6 + said, max(6, len(line) - 4))
    return end, line[end : end + 4].decode("latin-1")


def _detail(error: RemoteProtocolError, frame: bytes) -> str:
    if error.reason == "short" and frame[2:6].isdigit():
        return f"{len(frame)} bytes are here, the frame has at least {int(frame[2:6]) + 10}"
    return str(error)


def _loose_hints(data: bytes) -> tuple[str, ...]:
    if b"CN=" in data and b"CP=&&" in data and b"##" not in data:
        return ("the data of a packet without ## and length: a log that cuts them off?",)
    return ()


def _crc_hints(body: bytes, printed: str) -> tuple[str, ...]:
    """What would have to be otherwise for the checksum to fit."""
    fits = [variant for variant in VARIANTS if checksum(body, variant) == printed]
    if fits:
        return (f'the checksum fits by {RULES[fits[0]]}: checksum = "{fits[0]}"',)
    trials = {
        "without the ; before the closing &&": re.sub(rb";\s*&&\Z", b"&&", body),
        "with a ; before the closing &&": re.sub(rb"&&\Z", b";&&", body),
        "without the closing &&": body.removesuffix(b"&&"),
        "with a closing &&": body if body.endswith(b"&&") else body + b"&&",
        "if CN was 2011 (a forwarder rewrites it)": body.replace(b"CN=2051", b"CN=2011", 1),
        "without the blanks": body.replace(b" ", b""),
        "if the text is GBK": _in_gbk(body),
    }
    hints = [
        f"the checksum fits {how}, by {RULES[variant]}"
        for how, trial in trials.items()
        if trial != body
        for variant in VARIANTS
        if checksum(trial, variant) == printed
    ]
    if hints:
        return tuple(hints)
    if len(printed) == 4 and printed[2:] not in _LOW_BYTES and not set(printed) - set("0123456789ABCDEF"):
        return (
            f"the standard's rule never ends in {printed[2:]}: the sender has another rule, none of the four known",
        )
    return ("no known rule fits: damaged on the way, or edited by hand",)


def _in_gbk(body: bytes) -> bytes:
    try:
        return body.decode("utf-8").encode("gbk")
    except UnicodeError:
        return body
