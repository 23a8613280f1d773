"""A captured Modbus line told field by field: RTU, TCP or ASCII, found out where nobody says.

With the request at hand (``capture.request``) the capture is judged as its answer: another unit, a wrong echo and a
wrong byte count are refused as a master refuses them. ``values`` lists what the registers may mean, every kind in
every order: which one it is stands in the device's sheet, not in the frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict, refused
from protocols.modbus import hints
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.frame import Adu, Framing, build, crc, lrc
from protocols.modbus.messages import (
    READ_COILS,
    READ_INPUTS,
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
    framing = _framing(capture)
    request: Message | None = None
    if capture.request:
        slave = ModbusEndpoint(Role.SLAVE, framing=framing)
        heard = [one for one in slave.feed(capture.request, 0) if not isinstance(one, RemoteProtocolError)]
        request = heard[0] if heard and _sayable(heard[0]) else None
    endpoint = _endpoint(capture, framing, request)
    found = endpoint.feed(capture.data, 0) + endpoint.tick(_AFTER_ALL_MS)
    told = list(_told(capture.data, framing, found, lenient=not capture.strict))
    if not told:
        return refused(_NAME, "short", "no whole frame", capture=capture, hints=hints.shape(capture.data, framing))
    about = {"request": _said(request)} if request is not None else {}
    good = [one for one in told if one.ok]
    values = {"frames": len(good), **good[0].values, **about} if good else about
    return Explanation(_NAME, tuple(told), values)


def _sayable(message: Message) -> bool:
    """Whether it is something that one may ask: a captured request can name an illegal quantity."""
    try:
        encode_pdu(message)
    except LocalProtocolError:
        return False
    return True


def _endpoint(capture: Capture, framing: Framing, request: Message | None) -> ModbusEndpoint:
    lenient = not capture.strict
    if request is None:
        return ModbusEndpoint(Role.MASTER, framing=framing, listen=True, lenient=lenient)
    master = ModbusEndpoint(Role.MASTER, framing=framing, lenient=lenient)
    try:
        master.send(request, 0)
    except LocalProtocolError:
        return ModbusEndpoint(Role.MASTER, framing=framing, listen=True, lenient=lenient)
    return master


def _framing(capture: Capture) -> Framing:
    """What is said, else what it looks like: a colon, a Modbus TCP header that fits, else RTU."""
    said = str(capture.extra.get("framing", ""))
    if said in ("rtu", "tcp", "ascii"):
        return said  # type: ignore[return-value]  # just checked
    data = capture.data
    if data.lstrip()[:1] == b":":
        return "ascii"
    length = int.from_bytes(data[4:6], "big")
    header = len(data) >= 8 and data[2:4] == b"\0\0" and 2 <= length <= 254 and len(data) >= 6 + length
    if header and not (len(data) >= 4 and crc(data[:-2]) == data[-2:]):
        return "tcp"
    return "rtu"


def _told(data: bytes, framing: Framing, found: Sequence[Any], *, lenient: bool) -> Iterator[Told]:
    cursor = 0
    for one in found:
        if isinstance(one, RemoteProtocolError):
            yield _refused(data[cursor:], cursor, framing, one)
            continue
        try:
            start, raw = _where(data, cursor, framing, one)
        except LocalProtocolError as error:
            # Well framed, but nobody may ask it: a device answers with exception 3.
            yield Told(cursor, len(data) - cursor, "", error=error.reason, detail=str(error))
            return
        cursor = start + len(raw)
        yield _good(one, start, raw, framing, lenient=lenient)


def _where(data: bytes, cursor: int, framing: Framing, message: Message) -> tuple[int, bytes]:
    """Where the frame of a message stands. Devices bend the outer form (swapped CRC, short MBAP length), so unit and
    PDU are what is looked for."""
    pdu = encode_pdu(message)
    inner = bytes((message.unit,)) + pdu
    before, behind = {"rtu": (0, 2), "tcp": (6, 0), "ascii": (1, 4)}[framing]
    if framing == "ascii":
        at = data.upper().find(inner.hex().upper().encode(), cursor)
        size = 2 * len(inner)
    else:
        at, size = data.find(inner, cursor), len(inner)
    if at < 0:
        return cursor, build(Adu(message.unit, pdu, message.transaction), framing)
    start = max(cursor, at - before)
    return start, data[start : at + size + behind]


def _good(message: Message, start: int, raw: bytes, framing: Framing, *, lenient: bool) -> Told:
    pdu = encode_pdu(message)
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
    values = {"ok": True, "framing": framing, "pdu": pdu.hex().upper(), **_said(message)}
    notes: list[str] = []
    verdict = _verdict(raw, framing)
    if verdict is not None:
        fields.append(Field("checksum", verdict.stored.upper(), start + len(raw) - 2 * step, 2, "校验", "checksum"))
        if not verdict.ok and lenient:
            verdict = Verdict("crc16, bytes swapped", verdict.stored, verdict.computed[2:] + verdict.computed[:2])
            notes.append("the two CRC bytes are swapped: this device wants the lenient reading")
    if isinstance(message, Reply) and message.registers:
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


def _said(message: Message) -> dict[str, Any]:
    """A message under the vectors' names."""
    pdu = encode_pdu(message)
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
