"""A captured DL/T 645 line told field by field, with the mistakes that people make with it.

Offsets count from the start of the capture. Data bytes are shown after the subtraction of 33H.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict, refused
from protocols.dlt645.frame import MAX_DATA, Frame, Scanner, build
from protocols.dlt645.hints import checksum_hints, error_hints, shape_hints, shift_hints
from protocols.dlt645.identifiers import STATUS_BITS, entry, is_block, lookup
from protocols.dlt645.messages import (
    CHANGE_BAUD,
    RELAY,
    WRITE,
    WRITE_1997,
    AddressReply,
    BroadcastTime,
    Command,
    Done,
    ErrorReply,
    Message,
    Read,
    ReadMore,
    ReadReply,
    from_frame,
    write_parts,
)
from protocols.dlt645.orders import (
    BAUDS,
    RELAY_CODES,
    ChangeBaud,
    ChangePassword,
    Clear,
    Freeze,
    Relay,
    Write,
    WriteAddress,
    order,
)
from protocols.dlt645.values import Value, located

_NAME = "dlt645"
_OVERHEAD = 12
_FUNCTIONS = {
    0x01: ("读数据(1997)", "read (1997)"), 0x02: ("读后续(1997)", "read more (1997)"),
    0x03: ("重读(1997)", "read again (1997)"), 0x04: ("写数据(1997)", "write (1997)"),
    0x08: ("广播校时", "broadcast time"), 0x11: ("读数据", "read"), 0x12: ("读后续数据", "read more"),
    0x13: ("读通信地址", "read address"), 0x14: ("写数据", "write"), 0x15: ("写通信地址", "write address"),
    0x16: ("冻结", "freeze"), 0x17: ("更改通信速率", "change baud rate"), 0x18: ("修改密码", "change password"),
    0x19: ("最大需量清零", "clear demand"), 0x1A: ("电表清零", "clear meter"), 0x1B: ("事件清零", "clear events"),
    0x1C: ("跳合闸、报警、保电", "relay, alarm, protection"),
}  # fmt: skip


def explain(capture: Capture) -> Explanation:
    """Every frame of a capture, or one value (kind ``value`` with ``di`` and ``data_after_33``)."""
    if capture.kind == "value":
        return _value(capture)
    if capture.kind:
        return refused(_NAME, "kind", f"DL/T 645 knows no captures of kind {capture.kind!r}", capture=capture)
    told: list[Told] = []
    cursor, rest = 0, b""
    data = capture.data
    for start, end, frame in _found(data):
        told += _between(data, cursor, start)[0]
        told.append(_frame(data, start, end, frame, strict=capture.strict))
        cursor = end
    tail, rest = _between(data, cursor, len(data), last=True)
    told += tail
    if not told and not rest:
        if not data:
            return refused(_NAME, "short", "nothing to read", capture=capture)
        text = "no start 68H ... 68H anywhere"
        return refused(_NAME, "start", text, capture=capture, hints=shape_hints(data))
    return Explanation(_NAME, tuple(told), _summary(told, rest), rest)


def _found(data: bytes) -> Iterator[tuple[int, int, Frame]]:
    """Good frames with where they stand, wake-up bytes included."""
    scanner = Scanner()
    cursor = 0
    for one in [*scanner.feed(data), *scanner.idle()]:
        if isinstance(one, Frame):
            raw = build(Frame(one.addr, one.ctrl, one.data))
            at = data.index(raw, cursor)
            cursor = at + len(raw)
            yield at - one.preamble, cursor, one


def _summary(told: list[Told], rest: bytes) -> dict[str, Any]:
    good = [one for one in told if one.ok]
    if not good:
        return {"rest_hex": rest.hex()} if rest else {}
    return {"frames": len(good), **good[0].values, "rest_hex": rest.hex()}


def _between(data: bytes, begin: int, end: int, *, last: bool = False) -> tuple[list[Told], bytes]:
    """What stands between two good frames: frames that were refused, and at the end the beginning of one."""
    out: list[Told] = []
    at = data.find(b"\x68", begin, end)
    while at >= 0:
        if end - at < 8:
            return out, data[at:end] if last else b""
        if data[at + 7] == 0x68:
            length = data[at + 9] if end - at > 9 else 0
            stop = at + _OVERHEAD + length
            if length <= MAX_DATA and (stop > end or end - at <= 9):
                if last:
                    return out, data[at:end]
                out.append(_refused(data, at, end, "short"))
                return out, b""
            if length > MAX_DATA:
                out.append(_refused(data, at, min(stop, end), "length"))
                stop = at + 10
            else:
                out.append(_refused(data, at, stop, "end" if data[stop - 1] != 0x16 else "checksum"))
            at = data.find(b"\x68", stop, end)
        else:
            at = data.find(b"\x68", at + 1, end)
    return out, b""


def _refused(data: bytes, start: int, stop: int, reason: str) -> Told:
    """A frame whose outer form is right but which was refused; what can be read of it is shown all the same."""
    raw = data[start:stop]
    fields = list(_head(raw, start))
    detail = {
        "short": f"the frame stops after {len(raw)} of {_OVERHEAD + raw[9] if len(raw) > 9 else '?'} bytes",
        "length": f"length byte {raw[9]:#04x}: at most {MAX_DATA} are allowed" if len(raw) > 9 else "",
        "end": f"{raw[-1]:02X}H where the frame must end with 16H",
    }.get(reason, "")
    verdict = None
    hints: tuple[str, ...] = ()
    if reason in ("checksum", "end"):
        verdict = Verdict("sum", f"{raw[-2]:02x}", f"{sum(raw[:-2]) & 0xFF:02x}")
        if not verdict.ok:
            detail = detail or f"checksum {verdict.stored.upper()}H, {verdict.computed.upper()}H comes out"
            hints = checksum_hints(raw, data[max(0, start - 4) : start])
    hints += shape_hints(raw)
    return Told(start, len(raw), "DL/T 645", tuple(fields), {}, verdict, reason, detail, hints)


def _head(raw: bytes, start: int) -> Iterator[Field]:
    yield Field("start", "68", start, 1, "起始符", "start")
    yield Field("addr", raw[6:0:-1].hex().upper(), start + 1, 6, "地址", "address")
    if len(raw) > 8:
        yield Field("ctrl", f"{raw[8]:02X}", start + 8, 1, "控制码", "control")
    if len(raw) > 9:
        yield Field("len", raw[9], start + 9, 1, "数据长度", "length")


def _frame(data: bytes, start: int, end: int, frame: Frame, *, strict: bool) -> Told:
    body = start + frame.preamble
    raw = data[body:end]
    fields: list[Field] = []
    if frame.preamble:
        fields.append(Field("preamble", frame.preamble, start, frame.preamble, "前导字节 FE", "wake-up bytes FE"))
    fields += _head(raw, body)
    values: dict[str, Any] = {
        "ok": True, "preamble": frame.preamble, "addr": frame.addr, "ctrl": f"{frame.ctrl:02X}",
        "len": len(frame.data), "from_meter": bool(frame.ctrl & 0x80), "follow": bool(frame.ctrl & 0x20),
    }  # fmt: skip
    function = frame.ctrl & 0x1F
    zh, en = _FUNCTIONS.get(function, ("未知功能", "unknown function"))
    who = ("电表应答", "meter") if frame.ctrl & 0x80 else ("主站请求", "master")
    fields.append(Field("function", f"{function:02X}", body + 8, 1, f"{who[0]}: {zh}", f"{who[1]}: {en}"))
    if frame.ctrl & 0xC0 == 0xC0:
        values["abnormal"] = True
    if frame.data:
        values["data_hex"] = frame.data.hex().upper()
    try:
        message = from_frame(frame)
    except RemoteProtocolError as error:
        # The frame is whole: makers have functions and layouts of their own.
        fields.append(Field("data", frame.data.hex().upper(), body + 10, len(frame.data), "数据", "data"))
        hints = (str(error), *shift_hints(frame))
        reason = error.reason if strict else ""
        values |= _unread(frame)
        return Told(start, end - start, en, tuple(fields), values, _sum(raw), reason, str(error), hints)
    said, more = _message(message, frame, body + 10)
    values |= said
    fields += more
    fields.append(Field("cs", f"{raw[-2]:02X}", end - 2, 1, "校验和", "checksum"))
    title = f"{who[1]} {frame.addr}: {en}"
    hints = error_hints(message) if isinstance(message, ErrorReply) else shift_hints(frame)
    return Told(start, end - start, title, tuple(fields), values, _sum(raw), hints=hints)


def _unread(frame: Frame) -> dict[str, Any]:
    """What can be said of a whole frame whose message is not known or has the wrong size."""
    function, answer = frame.ctrl & 0x1F, bool(frame.ctrl & 0x80)
    if answer and frame.ctrl & 0x40:
        return {"abnormal": True, "error_byte": None, "error_bits": []}
    if function == 0x08:
        return {"time": None}
    width = {0x01: 2, 0x02: 2, 0x11: 4, 0x12: 4}.get(function, len(frame.data) + 1)
    return {"di": frame.data[width - 1 :: -1].hex().upper()} if len(frame.data) >= width else {}


def _sum(raw: bytes) -> Verdict:
    return Verdict("sum", f"{raw[-2]:02x}", f"{sum(raw[:-2]) & 0xFF:02x}")


def _message(message: Message, frame: Frame, at: int) -> tuple[dict[str, Any], list[Field]]:
    match message:
        case Read(_, di, extra):
            fields = [_di(di, at)]
            if extra:
                fields.append(
                    Field("extra", extra.hex().upper(), at + len(di) // 2, len(extra), "附加", "which record")
                )
            return {"di": di, **({"extra_hex": extra.hex().upper()} if extra else {})}, fields
        case ReadMore(_, di, seq):
            return {"di": di, "seq": seq}, [_di(di, at), Field("seq", seq, at + 4, 1, "帧序号", "sequence")]
        case ReadReply(_, di, data, _, seq):
            values, fields = _values(di, data, at + len(di) // 2)
            if seq is not None:
                values["seq"] = seq
            return {"di": di, **values}, [_di(di, at), *fields]
        case AddressReply(_, meter):
            return {"address_reply": meter}, [Field("address_reply", meter, at, 6, "通信地址", "meter's address")]
        case BroadcastTime(time, _):
            return {"time": time.isoformat()}, [Field("time", time.isoformat(), at, 6, "时间", "time")]
        case ErrorReply(_, _, word, _):
            return _abnormal(message, at, word)
        case Done(_, function, data) if function == CHANGE_BAUD and data[:1] and data[0] in BAUDS:
            return {"baud": BAUDS[data[0]]}, [Field("baud", BAUDS[data[0]], at, 1, "通信速率", "baud rate")]
        case Command():
            return _order(message, at)
    return {}, []


def _abnormal(message: ErrorReply, at: int, word: int) -> tuple[dict[str, Any], list[Field]]:
    shown = ", ".join(message.bits) or "-"
    values = {
        "abnormal": True, "error_byte": f"{word:02X}", "error_byte_raw": f"{message.unshifted:02X}",
        "error_bits": list(message.bits),
    }  # fmt: skip
    return values, [Field("error", f"{word:02X} ({shown})", at, 1, "异常应答", "refused")]


def _di(di: str, at: int) -> Field:
    row = entry(di)
    zh, en = (row.zh, row.en) if row is not None else ("未知标识", "identifier not known")
    return Field("di", di, at, len(di) // 2, zh, en)


def _values(di: str, data: bytes, at: int) -> tuple[dict[str, Any], list[Field]]:
    form = lookup(di)
    if form is None:
        raw = data.hex().upper()
        return {"raw_hex": raw}, [Field("raw", raw, at, len(data), "原始数据", "bytes")]
    fields: list[Field] = []
    shown: list[dict[str, Any]] = []
    for number, (offset, length, value) in enumerate(located(di, form, data)):
        one = said(value, form.kind)
        shown.append(one)
        text = one.get("value", one.get("text"))
        if (when := one.get("time") or one.get("date")) is not None:
            text = when if text is None else f"{text} @ {when}"
        unit = f" [{value.unit}]" if value.unit else ""
        words = (f"第{number + 1}项{unit}", f"item {number + 1}{unit}") if len(data) > form.size else (unit, unit)
        fields.append(Field("value", text, at + offset, length, *(part.strip() or "值" for part in words)))
        if di.startswith("040005") and not value.damaged and value.number is not None:
            word = number + 1 if di.endswith("FF") else int(di[6:], 16)
            fields += _status(word, int(value.number), at + offset)
    if not shown:
        return {"value": None, "quality": "invalid"}, fields
    out = dict(shown[0])
    if len(shown) > 1 or is_block(di):
        out["values"] = [one.get("value") for one in shown]
        out["items"] = shown
    if form.unproven:
        fields.append(Field("note", "layout from public descriptions", None, None, "格式未经实测", "layout not proven"))
    return out, fields


def _status(word: int, bits: int, at: int) -> Iterator[Field]:
    for bit in range(16):
        if bits >> bit & 1 and (names := STATUS_BITS.get((word, bit))) is not None:
            yield Field(f"bit{bit}", True, at + bit // 8, 1, names[0], names[1])


def said(value: Value, kind: str) -> dict[str, Any]:
    """A value under the vectors' names."""
    out: dict[str, Any] = {}
    if kind in ("number", "demand"):
        out["value"] = None if value.number is None else _plain(value)
        out["unit"] = out["unit_physical"] = value.unit
        if value.number is None:
            out["quality"] = "invalid"
        else:
            out["value_abs"], out["sign_bit"] = out["value"].lstrip("-"), value.number < 0
    if value.damaged:
        out["damaged"] = True
        out["quality"] = "invalid"
    if value.text or kind in ("text", "digits", "bits"):
        out["text"] = out["value"] = value.text or None  # an empty text is no value either
    if kind not in ("number", "text", "digits", "bits"):
        out["date" if kind == "date" else "time"] = value.when or None
    if value.weekday is not None:
        out["weekday"] = value.weekday
    return out


def _plain(value: Value) -> str:
    return f"{value.number:f}"


def _order(message: Command, at: int) -> tuple[dict[str, Any], list[Field]]:
    values: dict[str, Any] = {}
    data = message.data
    try:
        found = order(message)
    except (RemoteProtocolError, LocalProtocolError) as error:
        if message.function in (WRITE_1997, WRITE) and len(data) >= 2:
            width = 2 if message.function == WRITE_1997 else 4
            di = data[width - 1 :: -1].hex().upper()
            if message.function == WRITE and len(data) >= 12:  # a level that is no BCD
                parts = write_parts(message)
                values = {"password": parts.password, "operator": parts.operator}
                width = 12
            rest = data[width:].hex().upper()
            return {"di": di, **values, "write_hex": rest}, [
                _di(di, at),
                Field("data", rest, at + width, None, "数据", "data"),
            ]
        if message.function == RELAY and len(data) > 8:  # a code of the maker's own, or no time after which it is void
            n1 = f"{data[8]:02X}"
            action = next((name for name, code in RELAY_CODES.items() if code == data[8]), None)
            shown = action or n1
            return {"relay": action, "n1": n1, "valid_until": None}, [
                Field("relay", shown, at + 8, 1, "控制命令", f"relay order ({error})")
            ]
        return {}, [Field("data", data.hex().upper(), at, len(data), "数据", f"data ({error})")]
    match found:
        case Write(di, stored, key):
            parts = write_parts(message)
            values = {"di": di, "password": parts.password, "operator": parts.operator, "level": key.level}
            values |= {"write_hex": stored.hex().upper()}
            return values, [
                _di(di, at),
                Field("password", parts.password, at + 4, 4, "密码及等级", "password and level"),
                Field("operator", parts.operator, at + 8, 4, "操作者代码", "operator"),
                Field("data", stored.hex().upper(), at + 12, len(stored), "写入数据", "written"),
            ]
        case WriteAddress(address):
            return {"new_address": address, "new_addr": address}, [
                Field("new_address", address, at, 6, "新通信地址", "new address")
            ]
        case Freeze(when):
            return {"freeze": when}, [Field("freeze", when, at, 4, "冻结时间", "freeze at MMDDhhmm, 99 every")]
        case ChangeBaud(baud):
            return {"baud": baud}, [Field("baud", baud, at, 1, "通信速率", "baud rate")]
        case ChangePassword(di, _, _):
            return {"di": di}, [_di(di, at), Field("passwords", "(hidden)", at + 4, 8, "原、新密码", "old and new")]
        case Clear(what, _, di):
            values = {"clear": what, **({"di": di} if di else {})}
            return values, [Field("clear", what, at, len(data), "清零", "clears")]
        case Relay(action, until, key, _):
            values = {"relay": action, "n1": f"{data[8]:02X}", "valid_until": until.isoformat(), "level": key.level}
            return values, [
                Field("password", "(hidden)", at, 4, "密码及等级", "password and level"),
                Field("operator", key.operator, at + 4, 4, "操作者代码", "operator"),
                Field("relay", action, at + 8, 1, "控制命令", "relay order"),
                Field("valid_until", until.isoformat(), at + 10, 6, "命令有效截止时间", "valid until"),
            ]


def _value(capture: Capture) -> Explanation:
    di = str(capture.extra.get("di", "")).upper()
    try:
        data = bytes.fromhex(str(capture.extra.get("data_after_33", "")))
    except ValueError:
        return refused(_NAME, "format", "data_after_33 is not hex", capture=capture)
    values, fields = _values(di, data, 0)
    told = Told(0, len(data), di, (Field("di", di, None, None, *_names(di)), *fields), {"di": di, **values})
    return Explanation(_NAME, (told,), told.values)


def _names(di: str) -> tuple[str, str]:
    row = entry(di)
    return (row.zh, row.en) if row is not None else ("未知标识", "identifier not known")
