"""A captured Modbus line told field by field: RTU, TCP or ASCII, found out where nobody says.

With the request at hand (``capture.request``) the capture is judged as its answer: another unit, a wrong echo and a
wrong byte count are refused as a master refuses them. ``values`` lists what the registers may mean, every kind in
every order: which one it is stands in the device's sheet, not in the frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict, refused
from protocols.modbus import hints
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.frame import MAX_RTU, Adu, Found, Framing, build, crc, lrc
from protocols.modbus.guess import framing_of
from protocols.modbus.messages import (
    MASK_WRITE,
    READ_COILS,
    READ_INPUTS,
    READS,
    WRITE_COIL,
    WRITE_REGISTER,
    ExceptionReply,
    Identification,
    Identify,
    MaskWrite,
    Message,
    OtherRequest,
    ReadRequest,
    ReadWrite,
    Reply,
    WriteRequest,
    decode_request,
    encode_pdu,
)
from protocols.modbus.readings import interpretations, named

_NAME = "modbus"
_AFTER_ALL_MS = 1_000_000
_FUNCTIONS = {
    1: ("读线圈", "read coils"), 2: ("读离散输入", "read inputs"), 3: ("读保持寄存器", "read holding registers"),
    4: ("读输入寄存器", "read input registers"), 5: ("写单个线圈", "write coil"), 6: ("写单个寄存器", "write register"),
    15: ("写多个线圈", "write coils"), 16: ("写多个寄存器", "write registers"), 22: ("屏蔽写寄存器", "mask write"),
    23: ("读写寄存器", "read and write registers"), 43: ("设备标识", "device identification"),
}  # fmt: skip
_EXCEPTIONS = {
    1: ("非法功能", "illegal function"), 2: ("非法地址", "illegal address"), 3: ("非法数值", "illegal value"),
    4: ("设备故障", "device failure"), 5: ("已接受,需时较长", "accepted, takes long"), 6: ("设备忙", "busy"),
    8: ("存储校验错", "memory parity"), 10: ("网关无路径", "gateway has no path"),
    11: ("网关目标无应答", "gateway: device does not answer"),
}  # fmt: skip
_OBJECTS = {0: "vendor", 1: "product_code", 2: "version", 3: "url", 4: "product_name", 5: "model", 6: "application"}


def explain(capture: Capture) -> Explanation:
    """Every frame of a capture; kind ``checksum`` gives CRC and LRC of ``crc_of_hex``."""
    if capture.kind == "checksum":
        return _checksums(capture)
    if not capture.data:
        return refused(_NAME, "short", "nothing to read", capture=capture)
    said = str(capture.extra.get("framing", ""))
    framing: Framing = said if said in ("rtu", "tcp", "ascii") else framing_of(capture.data)  # type: ignore[assignment]
    data, lenient = _as_meant(capture, framing), not capture.strict
    asked, asked_pdu = _asked(capture.request, framing)
    endpoint = _endpoint(framing, asked, asked_pdu, lenient=lenient)
    found = endpoint.feed(data, 0) + endpoint.tick(_AFTER_ALL_MS)
    told = list(_told(data, framing, found, endpoint.adus, asked_pdu, lenient=lenient))
    if framing == "rtu" and not any(one.ok for one in told) and (raw := _unframed(data, asked_pdu)) is not None:
        told = list(_told(data, framing, [raw[0]], [Adu(data[0], raw[1])], b"", lenient=lenient))
    if not told:
        return refused(_NAME, "short", "no whole frame", capture=capture, hints=hints.shape(data, framing))
    if framing == "tcp" and data != capture.data:
        told[0] = replace(told[0], hints=(*told[0].hints, "the header counts one byte too few: read by the byte count"))
    about = {"request": _said(asked, asked_pdu)} if asked is not None else {}
    good = [one for one in told if one.ok]
    values = {"frames": len(good), **good[0].values, **about} if good else about
    return Explanation(_NAME, tuple(told), values)


def _as_meant(capture: Capture, framing: Framing) -> bytes:
    """What the bytes stand for in a lenient reading: a text copied without its CR LF, a TCP header that counts one too
    few."""
    data = capture.data
    if capture.strict:
        return data
    if framing == "ascii" and not data.endswith(b"\n"):
        return data.rstrip() + b"\r\n" if data.endswith(b"\r") or _whole_text(data) else data
    if framing == "tcp" and len(data) > 9 and data[7] in READS:
        length = int.from_bytes(data[4:6], "big")
        if len(data) - 6 == length + 1 == data[8] + 3:
            return data[:4] + (length + 1).to_bytes(2, "big") + data[6:]
    return data


def _whole_text(data: bytes) -> bool:
    try:
        plain = bytes.fromhex(data[data.rindex(b":") + 1 :].decode("ascii").strip())
    except ValueError:
        return False
    return len(plain) > 2 and lrc(plain[:-1]) == plain[-1]


class _Noting(ModbusEndpoint):
    """Keeps the bytes of each message: some cannot be built again from what they mean (a coil written with 5500)."""

    def __init__(self, role: Role, **options: Any) -> None:
        super().__init__(role, **options)
        self.adus: list[Adu | None] = []

    def _taken(self, found: list[Found]) -> list[Message | RemoteProtocolError]:
        self.adus += [one if isinstance(one, Adu) else None for one in found]
        return super()._taken(found)


def _asked(request: bytes, framing: Framing) -> tuple[Message | None, bytes]:
    """The request that the capture answers, and its PDU."""
    slave = _Noting(Role.SLAVE, framing=framing)
    heard = slave.feed(request, 0) if request else []
    for message, adu in zip(heard, slave.adus, strict=True):
        if adu is not None and not isinstance(message, RemoteProtocolError):
            return message, adu.pdu
    return None, b""


def _endpoint(framing: Framing, asked: Message | None, pdu: bytes, *, lenient: bool) -> _Noting:
    if asked is not None:
        master = _Noting(Role.MASTER, framing=framing, lenient=lenient)
        try:
            same = encode_pdu(asked) == pdu
            master.send(asked if same else OtherRequest(asked.unit, pdu, asked.transaction), 0)
            return master
        except LocalProtocolError:
            pass  # a captured request can name an illegal quantity: nobody may ask it
    return _Noting(Role.MASTER, framing=framing, listen=True, lenient=lenient)


def _unframed(data: bytes, asked_pdu: bytes) -> tuple[Message, bytes] | None:
    """A whole capture with a right CRC whose length no rule implies: a function of its own stays raw."""
    if not 4 <= len(data) <= MAX_RTU or crc(data[:-2]) != data[-2:]:
        return None
    pdu = data[1:-2]
    if pdu[0] in READS and len(pdu) == 5 and not asked_pdu and pdu[1] != 3:
        return decode_request(data[0], pdu), pdu  # nobody may ask for so many, but somebody did
    if (pdu[0] & 0x7F) in _FUNCTIONS or (asked_pdu and asked_pdu[0] != pdu[0] & 0x7F):
        return None
    if pdu[0] & 0x80 and len(pdu) == 2:
        return ExceptionReply(data[0], pdu[0] & 0x7F, pdu[1]), pdu
    return OtherRequest(data[0], pdu), pdu


def _told(
    data: bytes,
    framing: Framing,
    found: Sequence[Message | RemoteProtocolError],
    adus: Sequence[Adu | None],
    asked_pdu: bytes,
    *,
    lenient: bool,
) -> Iterator[Told]:
    cursor = 0
    for one, adu in zip(found, adus, strict=True):
        if isinstance(one, RemoteProtocolError) or adu is None:
            error = one if isinstance(one, RemoteProtocolError) else RemoteProtocolError("", reason="garbage")
            yield _refused(data[cursor:], cursor, framing, error)
            continue
        start, raw = _where(data, cursor, framing, adu)
        cursor = start + len(raw)
        if (reason := _wrong(one, adu.pdu, asked_pdu, raw, framing, lenient=lenient)) is not None:
            yield _refused(raw, start, framing, reason)
        else:
            yield _good(one, adu, start, raw, framing, lenient=lenient)


def _wrong(
    message: Message, pdu: bytes, asked_pdu: bytes, raw: bytes, framing: Framing, *, lenient: bool
) -> RemoteProtocolError | None:
    """What the endpoint lets pass because it sees the meaning only."""
    if isinstance(message, ReadRequest) and not _sayable(message) and pdu[1] == len(pdu) - 2:
        return RemoteProtocolError("Modbus reply with an odd number of bytes", reason="byte_count")
    if not lenient and not isinstance(message, OtherRequest) and not _sayable(message):
        return RemoteProtocolError("Modbus message that names an illegal quantity", reason="count")
    if asked_pdu[:1] == pdu[:1] and pdu[0] in (WRITE_COIL, WRITE_REGISTER) and asked_pdu != pdu:
        return RemoteProtocolError("Modbus write answered with another address or value", reason="echo_mismatch")
    if framing == "tcp" and not lenient and int.from_bytes(raw[4:6], "big") != len(raw) - 6:
        return RemoteProtocolError("Modbus TCP header counts one byte too few", reason="length")
    return None


def _sayable(message: Message) -> bool:
    """Whether it is something that one may say: a captured request can name an illegal quantity."""
    try:
        encode_pdu(message)
    except LocalProtocolError:
        return False
    return True


def _where(data: bytes, cursor: int, framing: Framing, adu: Adu) -> tuple[int, bytes]:
    """Where a frame stands. Devices bend the outer form (swapped CRC, short MBAP length), so unit and PDU are what is
    looked for."""
    inner = bytes((adu.unit,)) + adu.pdu
    before, behind = {"rtu": (0, 2), "tcp": (6, 0), "ascii": (1, 4)}[framing]
    if framing == "ascii":
        at = data.upper().find(inner.hex().upper().encode(), cursor)
        size = 2 * len(inner)
    else:
        at, size = data.find(inner, cursor + before), len(inner)
    if at < 0:
        return cursor, build(adu, framing)
    start = max(cursor, at - before)
    return start, data[start : at + size + behind]


def _good(message: Message, adu: Adu, start: int, raw: bytes, framing: Framing, *, lenient: bool) -> Told:
    pdu = adu.pdu
    # Offset of the unit and bytes per byte: ASCII says each as two characters.
    step = 2 if framing == "ascii" else 1
    unit_at = start + {"rtu": 0, "tcp": 6, "ascii": 1}[framing]
    fields = [] if framing != "tcp" else [
        Field("transaction", message.transaction, start, 2, "事务标识", "transaction"),
        Field("length", int.from_bytes(raw[4:6], "big"), start + 4, 2, "长度", "length"),
    ]  # fmt: skip
    fields.append(Field("unit", message.unit, unit_at, step, "单元地址", "unit"))
    zh, en = _FUNCTIONS.get(pdu[0] & 0x7F, ("其他功能", "other function"))
    fields.append(Field("func", pdu[0], unit_at + step, step, zh, en))
    body = unit_at + 2 * step
    fields += _fields(message, body, step)
    values = {"ok": True, "framing": framing, "pdu": pdu.hex().upper(), **_said(message, pdu)}
    notes: list[str] = []
    if not isinstance(message, OtherRequest) and not _sayable(message):
        notes.append("an illegal address or quantity: a device answers this with exception 3")
    verdict = _verdict(raw, framing)
    if verdict is not None:
        fields.append(Field("checksum", verdict.stored.upper(), start + len(raw) - 2 * step, 2, "校验", "checksum"))
        if not verdict.ok and lenient:
            verdict = Verdict("crc16, bytes swapped", verdict.stored, verdict.computed[2:] + verdict.computed[:2])
            notes.append("the two CRC bytes are swapped: this device wants the lenient reading")
    if isinstance(message, Reply) and message.registers and message.function != MASK_WRITE:
        values["values"] = interpretations(message.registers)
        if (guess := named(message.registers)) is not None:
            values["named"] = guess
            notes.append(f"if it is a temperature and humidity transmitter: {guess}")
    answer = isinstance(message, (Reply, ExceptionReply, Identification))
    title = f"Modbus {framing.upper()} unit {message.unit}: {en}{' answer' if answer else ''}"
    return Told(start, len(raw), title, tuple(fields), values, verdict, hints=tuple(notes))


def _verdict(raw: bytes, framing: Framing) -> Verdict | None:
    if framing == "rtu" and len(raw) >= 4:
        return Verdict("crc16", raw[-2:].hex(), crc(raw[:-2]).hex())
    if framing == "ascii":
        text = raw.strip().removeprefix(b":")
        try:
            plain = bytes.fromhex(text.decode("ascii"))
        except ValueError:
            return None
        return Verdict("lrc", plain[-1:].hex(), f"{lrc(plain[:-1]):02x}") if len(plain) > 1 else None
    return None


def _refused(raw: bytes, start: int, framing: Framing, error: ProtocolError) -> Told:
    verdict = _verdict(raw, framing) if error.reason in ("crc", "lrc") else None
    text = str(error)
    if verdict is not None and not verdict.ok:
        text += f"; the frame says {verdict.stored.upper()}, {verdict.computed.upper()} comes out"
    found = hints.checksum(raw) if error.reason == "crc" else hints.shape(raw, framing)
    return Told(start, len(raw), f"Modbus {framing.upper()}", (), {}, verdict, error.reason, text, found)


def _fields(message: Message, at: int, step: int) -> Iterator[Field]:
    match message:
        case ReadRequest(address=address, count=count):
            yield Field("address", address, at, 2 * step, "起始地址", "address")
            yield Field("count", count, at + 2 * step, 2 * step, "数量", "count")
        case WriteRequest(address=address, values=values):
            yield Field("address", address, at, 2 * step, "地址", "address")
            yield Field("values", list(values), at + 2 * step, None, "写入值", "values")
        case MaskWrite(address=address, and_mask=and_mask, or_mask=or_mask):
            yield Field("address", address, at, 2 * step, "地址", "address")
            yield Field("and_mask", f"{and_mask:04X}", at + 2 * step, 2 * step, "与掩码", "AND mask")
            yield Field("or_mask", f"{or_mask:04X}", at + 4 * step, 2 * step, "或掩码", "OR mask")
        case ReadWrite(address=address, count=count, write_address=there, values=values):
            yield Field("address", address, at, 2 * step, "读起始地址", "read from")
            yield Field("count", count, at + 2 * step, 2 * step, "读数量", "read count")
            yield Field("write_address", there, at + 4 * step, 2 * step, "写起始地址", "write to")
            yield Field("values", list(values), at + 9 * step, 2 * len(values) * step, "写入值", "values")
        case ExceptionReply(code=code):
            zh, en = _EXCEPTIONS.get(code, ("未知异常", "unknown exception"))
            yield Field("exception", code, at, step, zh, en)
        case Identify(code=code):
            yield Field("code", code, at + step, step, "读取类别", "what is asked")
        case Identification(objects=objects):
            for number, text in objects:
                yield Field(
                    _OBJECTS.get(number, f"object_{number}"), text.decode("utf-8", "replace"), zh="标识", en="object"
                )
        case Reply(registers=registers, bits=bits, function=function):
            yield from _reply_fields(message, registers, bits, function, at, step)


def _reply_fields(
    message: Reply, registers: tuple[int, ...], bits: tuple[bool, ...], function: int, at: int, step: int
) -> Iterator[Field]:
    if function in (READ_COILS, READ_INPUTS):
        yield Field("bits", [int(bit) for bit in bits], at + step, None, "状态(低位在前)", "bits, lowest first")
    elif function in (3, 4, 23):
        yield Field("bytes", 2 * len(registers), at, step, "字节数", "byte count")
        for number, word in enumerate(registers):
            where = f"{message.address + number}" if message.address else f"+{number}"
            signed = f" ({word - 0x10000})" if word >= 0x8000 else ""
            text = f"{word}{signed} = {word:04X}"
            yield Field(f"register {where}", text, at + (1 + 2 * number) * step, 2 * step, "寄存器", "register")
    else:
        yield Field("address", message.address, at, 2 * step, "地址", "address")
        yield Field("count", message.count, at + 2 * step, 2 * step, "数量或值", "count or value")


def _said(message: Message, pdu: bytes) -> dict[str, Any]:
    """A message under the vectors' names."""
    out: dict[str, Any] = {"unit": message.unit, "func": pdu[0] & 0x7F}
    if message.transaction or isinstance(message, (Reply, ExceptionReply, ReadRequest)):
        out["transaction"] = message.transaction
    match message:
        case ReadRequest(address=address, count=count):
            out |= {"address": address, "count": count}
        case WriteRequest(function=function, address=address, values=values):
            out |= {"address": address, "count": len(values)}
            if function in (5, 6):
                out["value"] = int.from_bytes(pdu[3:5], "big")
            else:
                out["data_hex"] = pdu[6:].hex().upper()
        case MaskWrite(address=address, and_mask=and_mask, or_mask=or_mask):
            out |= {"address": address, "and_mask": and_mask, "or_mask": or_mask}
        case ReadWrite(address=address, count=count, write_address=there, values=written):
            out |= {"address": address, "count": count, "write_address": there, "write_values": list(written)}
        case ExceptionReply(code=code):
            out["exception"] = code
        case Identification(objects=objects):
            out["objects"] = {str(number): text.decode("utf-8", "replace") for number, text in objects}
        case Reply(function=function):
            out |= _reply_said(message, pdu, function)
        case OtherRequest():
            out["data_hex"] = pdu[1:].hex().upper()
    return out


def _reply_said(reply: Reply, pdu: bytes, function: int) -> dict[str, Any]:
    if function in (READ_COILS, READ_INPUTS):
        return {"bits_hex": pdu[2:].hex().upper(), "bits": [int(bit) for bit in reply.bits]}
    if function in (3, 4, 23):
        return {"registers": list(reply.registers)}
    if function in (5, 6):
        return {"address": reply.address, "value": int.from_bytes(pdu[3:5], "big")}
    if function == 22:
        return {"address": reply.address, "and_mask": reply.registers[0], "or_mask": reply.registers[1]}
    return {"address": reply.address, "count": reply.count}


def _checksums(capture: Capture) -> Explanation:
    try:
        data = bytes.fromhex(str(capture.extra.get("crc_of_hex", "")))
    except ValueError:
        return refused(_NAME, "format", "crc_of_hex is not hex", capture=capture)
    wire = crc(data).hex().upper()
    values = {"crc": wire, "crc_bytes_on_wire": wire, "lrc": f"{lrc(data):02X}"}
    fields = tuple(Field(name, value, None, None, name, name) for name, value in values.items())
    return Explanation(_NAME, (Told(0, len(data), "checksums", fields, values),), values)
