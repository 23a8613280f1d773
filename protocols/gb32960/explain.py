"""A captured GB/T 32960 frame, field by field: what `citybrain decode gb32960` shows.

Also takes one item alone (kind ``item``, its type in ``item_type``). Names of ``values`` are those of the published
vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import xor
from typing import Any

from protocols.core.cutter import Cut
from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict
from protocols.gb32960 import bodies, frame, items, messages
from protocols.gb32960.fields import Form, Group, Reader, Unscaled, Values
from protocols.gb32960.labels import label
from protocols.gb32960.messages import Message

PROTOCOL = "gb32960"
_RULE = "XOR of bytes 2 .. n+23"
_DETAIL = {
    "checksum": "the XOR of the bytes behind the start mark does not fit",
    "truncated": "the length word asks for more bytes than there are",
    "start": "no start mark 23 23 (2016) or 24 24 (2025)",
    "command": "the command byte is none of the standard's",
    "answer": "the answer flag is none of the standard's",
    "encryption": "the encryption byte is none of the standard's",
    "vin": "the 17 bytes of the VIN are no text",
    "length": f"the length word says more than {frame.MAX_DATA}",
    "garbage": "bytes that belong to no frame",
    "empty": "nothing to read",
    "item": "these bytes are no such item",
}


def explain(capture: Capture) -> Explanation:
    """Whatever is in the capture: frames, damaged frames, or an item alone."""
    if capture.kind == "item" or "item_type" in capture.extra:
        return Explanation(PROTOCOL, (_item_alone(capture),))
    scanner = frame.Scanner()
    found = scanner.feed(capture.data)
    cuts = [one for one in found if isinstance(one, Cut)]
    if not cuts:
        return Explanation(PROTOCOL, (_diagnose(capture.data),))
    frames = [
        _tell(one) if isinstance(one, Cut) else _refuse(capture.data, one.reason, one.offset or 0) for one in found
    ]
    values = {
        **next(told.values for told in frames if told.ok),
        "frames": len(cuts),
        "cmds": [cut.data[2] for cut in cuts],
        "frame_hex": [cut.data.hex() for cut in cuts],
        "pending_hex": scanner.rest.hex(),
    }
    return Explanation(PROTOCOL, tuple(frames), values, scanner.rest)


# -- refused


def _diagnose(data: bytes) -> Told:
    """Why there is no frame in it: what the first thing that looks like one lacks."""
    at = min((n for n in (data.find(mark) for mark in frame.MARKS) if n >= 0), default=-1)
    if at < 0:
        cut_mark = data in (b"#", b"$")
        return _refuse(data, "truncated" if cut_mark else "start" if data else "empty", 0)
    held = data[at:]
    for reason, position, good in (
        ("command", 2, frame.COMMANDS),
        ("answer", 3, frame.ANSWERS),
        ("encryption", 21, frame.ENCRYPTIONS),
    ):
        if len(held) > position and held[position] not in good:
            return _refuse(data, reason, at)
    if len(held) >= 21 and not frame.plausible_vin(held[4:21]):
        return _refuse(data, "vin", at)
    if len(held) < frame.HEADER:
        return _refuse(data, "truncated", at)
    length = int.from_bytes(held[22:24], "big")
    if length > frame.MAX_DATA:
        return _refuse(data, "length", at)
    return _refuse(data, "truncated" if len(held) < frame.OVERHEAD + length else "checksum", at)


def _refuse(data: bytes, reason: str, offset: int) -> Told:
    reason = "truncated" if reason == "short" else reason
    held = data[offset:]
    hints: list[str] = []
    verdict: Verdict | None = None
    length = len(held)
    if held[:2] in frame.MARKS and len(held) >= frame.HEADER:
        said = int.from_bytes(held[22:24], "big")
        real = len(held) - frame.OVERHEAD
        if reason == "checksum" and real >= said:
            whole = held[: frame.OVERHEAD + said]
            length = len(whole)
            verdict = Verdict(_RULE, f"{whole[-1]:02X}", f"{frame.checksum(whole):02X}")
            hints += _sum_hints(whole)
        if real != said and reason in ("checksum", "truncated", "length"):
            fits = real >= 0 and frame.checksum(held) == held[-1]
            hints.append(f"数据长度写 {said},实有 {real} / the length word says {said}, there are {real} bytes of data")
            if fits:
                hints.append("the checksum fits if the capture is one frame: the length word is wrong")
    elif reason == "start" and held[:1] in (b"#", b"$"):
        hints.append("the start mark is two equal bytes, ## or $$")
    return Told(
        offset, length, "", error=reason, detail=_DETAIL.get(reason, reason), hints=tuple(hints), checksum=verdict
    )


def _sum_hints(whole: bytes) -> list[str]:
    rules = {
        "the bytes are added, not combined by XOR": sum(whole[2:-1]),
        "the XOR begins behind command and answer flag": reduce(xor, whole[4:-1], 0),
        "the XOR takes the data only": reduce(xor, whole[frame.HEADER : -1], 0),
    }
    found = [f"checksum fits if {rule}" for rule, value in rules.items() if value & 0xFF == whole[-1]]
    return found or ["one byte differs somewhere: printed examples with a wrong checksum are known, do not decode"]


# -- read


def _tell(cut: Cut) -> Told:
    data, at = cut.data, cut.offset
    message = messages.parse(data)
    zh, en = messages.COMMAND_NAMES.get(message.command, ("自定义", "own"))
    answer = messages.ANSWER_NAMES.get(message.answer, str(message.answer))
    cipher = messages.ENCRYPTION_NAMES.get(message.encryption, str(message.encryption))
    fields = [
        Field("version", message.edition, at, 2, "起始符(版本)", "start mark, issue"),
        Field("cmd", message.command, at + 2, 1, f"命令标识:{zh}", f"command: {en}"),
        Field("ack", message.answer, at + 3, 1, "应答标志", f"answer flag: {answer}"),
        Field("vin", message.vin, at + 4, 17, "唯一识别码", "VIN"),
        Field("encrypt", message.encryption, at + 21, 1, "数据加密方式", f"encryption: {cipher}"),
        Field("data_len", len(message.data), at + 22, 2, "数据单元长度", "length of the data"),
    ]
    values: dict[str, Any] = {"ok": True, **{field.name: field.value for field in fields}, "cmd_name": en}
    hints: list[str] = []
    if message.encryption == messages.UNSAID:
        hints.append("加密方式为 00 / encryption 00 is none of the standard's: read as data in clear")
    try:
        body = bodies.read(message)
    except RemoteProtocolError as error:
        body = bodies.beginning(message)
        hints.append(str(error))
        values["data_hex"] = message.data.hex()
    odd = isinstance(body, bodies.Report) and (body.rest or messages.parse_time(body.stamp) is None)
    other = bodies.deviating(message) if odd or not message.is_command else None
    if other is not None and other != body:
        body = other
        hints.append("a report under an answer flag" if other.stamp else "a report without the time in front")
    _tell_body(message, body, at + frame.HEADER, fields, values, hints)
    _tell_reply(message, values)
    verdict = Verdict(_RULE, f"{data[-1]:02X}", f"{frame.checksum(data):02X}")
    values |= {"checksum": data[-1], "checksum_ok": verdict.ok}
    fields.append(Field("checksum", verdict.stored, at + len(data) - 1, 1, "校验码", "checksum"))
    return Told(at, len(data), f"{zh} {en}", tuple(fields), values, verdict, hints=tuple(hints))


def _tell_reply(message: Message, values: dict[str, Any]) -> None:
    """What a platform answers; of the answer to a time request only the beginning is known."""
    if not message.is_command or message.command in (messages.ACTIVATE, messages.ACTIVATED):
        return
    if message.command == messages.CLOCK:
        raw = messages.encode(replace(message, answer=messages.OK, data=bytes(6)))
        values |= {"reply_prefix_hex": raw[: frame.HEADER].hex(), "reply_total_bytes": len(raw)}
    elif message.is_plain:
        values["reply_hex"] = messages.encode(messages.reply(message)).hex()


def _tell_body(
    message: Message, body: bodies.Body, at: int, fields: list[Field], values: dict[str, Any], hints: list[str]
) -> None:
    def add(name: str, value: Any, offset: int, length: int, zh: str, en: str) -> None:
        fields.append(Field(name, value, at + offset, length, zh, en))
        values[name] = value

    stamp = getattr(body, "stamp", None)
    if stamp:
        local = messages.parse_time(stamp)
        add("time", None if local is None else local.isoformat(" "), 0, 6, "数据采集时间", "time, UTC+8")
        if local is None:
            hints.append("时间无效 / no valid time: use the time of arrival")
    match body:
        case bodies.Login():
            values["left"] = len(message.data) - body.size(message.edition)
            add("sn", body.serial, 6, 2, "登入流水号", "login serial number")
            add("iccid", body.iccid, 8, 20, "ICCID", "ICCID")
            if message.edition == "2025":
                values["packs_per_bms"] = [len(bms) for bms in body.packs]
                add(
                    "batteries",
                    [list(bms) for bms in body.packs],
                    28,
                    len(message.data) - 28,
                    "电池包编码",
                    "pack codes",
                )
            else:
                add("battery_code_len", body.code_length, 29, 1, "编码长度", "length of a pack code")
                add("batteries", list(body.packs[0]), 30, len(message.data) - 30, "储能系统编码", "pack codes")
        case bodies.Logout():
            values["left"] = len(message.data) - 8
            add("sn", body.serial, 6, 2, "登出流水号", "serial number")
        case bodies.PlatformLogin():
            values["left"] = len(message.data) - 41
            add("sn", body.serial, 6, 2, "登入流水号", "serial number")
            add("user", body.user, 8, 12, "平台用户名", "user")
            add("password", body.password, 20, 20, "平台密码", "password")
            add("declared_encrypt", body.encryption, 40, 1, "加密规则", "encryption")
        case bodies.Report():
            _tell_report(message, body, at + len(body.stamp), fields, values, hints)
        case bodies.Query():
            add("params", list(body.ids), 7, len(body.ids), "查询参数", "parameters asked for")
        case bodies.Parameters():
            names = {f"{n:02X}": value for n, value in body.values}
            add("params", names, 7, len(message.data) - 7, "参数", "parameters")
        case bodies.Control():
            add("control", body.order, 6, 1, *bodies.CONTROL_NAMES.get(body.order, ("控制命令", "order")))
            add("parameter_hex", body.parameter.hex(), 7, len(body.parameter), "命令参数", "its parameter")
        case bodies.KeyExchange():
            add("key_kind", body.kind, 0, 1, "密钥类型", "kind of key")
            add("key_hex", body.key.hex(), 3, len(body.key), "密钥", "key")
        case bodies.Sealed():
            add("data_hex", body.data.hex(), 0, len(body.data), "密文", "cipher text")
            values["encrypted"] = True
            hints.append("数据已加密,无密钥不可读 / encrypted: not readable without the key")
        case bodies.Opaque() if body.data:
            add("data_hex", body.data.hex(), 0, len(body.data), "数据单元", "data")


def _tell_report(
    message: Message, body: bodies.Report, at: int, fields: list[Field], values: dict[str, Any], hints: list[str]
) -> None:
    shown: list[dict[str, Any]] = []
    for number, one in enumerate(body.items):
        shown.append({"type": one.type, "name": one.name, **one.values})
        prefix = f"items[{number}]."
        fields.append(Field(prefix + "type", one.type, at, 1, *label(one.name)))
        known = items.forms_of(one.type, message.edition)
        if known is not None:
            _spans(known, Reader(one.body), at + 1, prefix, fields)
        at += len(one.data)
        hints += _item_hints(one, message.edition)
    values |= {"items": shown, "left": len(body.rest)}
    if body.rest:
        values["rest_hex"] = body.rest.hex()
        fields.append(Field("rest", body.rest.hex(), at, len(body.rest), "未识别", "not understood"))
        hints.append(
            f"item {body.rest[0]:02X}: unknown, or its length does not fit (makers send 80 to FE without a length); "
            f"{len(body.rest)} bytes kept raw"
        )


def _spans(forms: Sequence[Form], source: Reader, at: int, prefix: str, fields: list[Field]) -> None:
    """A field for each value, with the bytes it came from."""
    seen: Values = {}
    for form in forms:
        start, before = source.at, set(seen)
        if isinstance(form, Group):
            count = source.number(1)
            fields.append(Field(prefix + form.name, count, at + start, 1, *label(form.name)))
            for number in range(count if count * form.least <= source.left else 0):
                _spans(form.forms, source, at, f"{prefix}{form.name}[{number}].", fields)
            continue
        if isinstance(form, Unscaled):
            _spans(form.forms, source, at, prefix + "raw.", fields)
            continue
        form.read(source, seen)
        fields += [
            Field(prefix + key, value, at + start, source.at - start, *label(key))
            for key, value in seen.items()
            if key not in before
        ]


def _item_hints(one: items.Item, edition: str) -> list[str]:
    values = one.values
    if one.name == "position":
        hints = []
        if values["valid"] and values["lon"] == 0 and values["lat"] == 0:
            hints.append("定位有效但坐标为 0,0 / says valid at 0,0: no position")
        if edition == "2016":
            hints.append("datum not stated in the 2016 issue: taken as WGS 84")
        elif values["datum"] == "gcj02":
            hints.append("坐标为 GCJ-02,入库前换算 / GCJ-02: convert before use")
        return hints
    if one.name == "alarm":
        names = [" ".join(items.ALARM_BITS[n]) for n in values["flags"] if n < len(items.ALARM_BITS)]
        hints = ["报警 / alarms: " + "; ".join(names)] if names else []
        if values["flags"] and values["level"] == 0:
            hints.append("alarm flags are set but the level is 0: the maker's table disagrees with itself")
        return hints
    return []


def _item_alone(capture: Capture) -> Told:
    said = capture.extra.get("item_type")
    kind = said if isinstance(said, int) else int(said) if isinstance(said, str) and said.isdecimal() else -1
    editions: tuple[items.Edition, ...] = ("2016", "2025")
    wanted = str(capture.extra.get("version", ""))
    for edition in editions:
        if wanted in ("", edition) and (values := items.read_body(kind, capture.data, edition)) is not None:
            fields: list[Field] = []
            known = items.forms_of(kind, edition)
            if known is not None:
                _spans(known, Reader(capture.data), 0, "", fields)
            values = {"ok": True, "type": kind, "name": items.name_of(kind, edition), **values}
            return Told(0, len(capture.data), f"item {kind:02X} ({edition})", tuple(fields), values)
    return Told(0, len(capture.data), "", error="item", detail=_DETAIL["item"])
