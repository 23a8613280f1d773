"""What Modbus master and slave say, as values, and their PDUs (Modbus application protocol 1.1b3, section 6).

A gateway that reads 15 000 registers a second spends its time here, so PDUs are packed and unpacked directly; the
tests hold them against pymodbus's. Lengths are checked before anything is read: only ProtocolError can come out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

READ_COILS, READ_INPUTS, READ_HOLDING, READ_INPUT_REGISTERS = 1, 2, 3, 4
WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS = 5, 6, 15, 16
MASK_WRITE, READ_WRITE, ENCAPSULATED = 22, 23, 43
#: Encapsulated interface 43: the kind that tells who the device is.
IDENTIFICATION = 14
READS = (READ_COILS, READ_INPUTS, READ_HOLDING, READ_INPUT_REGISTERS)
WRITES = (WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS)

#: Limits of one request (Modbus application protocol 1.1b3, 6.1 to 6.12, 6.17).
MAX_READ = {READ_COILS: 2000, READ_INPUTS: 2000, READ_HOLDING: 125, READ_INPUT_REGISTERS: 125, READ_WRITE: 125}
MAX_WRITE = {WRITE_COIL: 1, WRITE_REGISTER: 1, WRITE_COILS: 1968, WRITE_REGISTERS: 123, READ_WRITE: 121}

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILED, ACKNOWLEDGE, BUSY = 1, 2, 3, 4, 5, 6
GATEWAY_NO_PATH, GATEWAY_NO_ANSWER = 10, 11


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """``address`` is the one on the wire (from 0). ``transaction`` 0: the TCP master numbers it."""

    unit: int
    function: int
    address: int
    count: int
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """``values``: registers, or 0 / 1 for coils."""

    unit: int
    function: int
    address: int
    values: tuple[int, ...]
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class MaskWrite:
    """22: register = (register and and_mask) or (or_mask and not and_mask)."""

    unit: int
    address: int
    and_mask: int
    or_mask: int
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class ReadWrite:
    """23: write ``values`` at ``write_address``, then read ``count`` from ``address``, in one exchange."""

    unit: int
    address: int
    count: int
    write_address: int
    values: tuple[int, ...]
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class Identify:
    """43/14: who are you? ``code`` 1 basic, 2 regular, 3 extended, 4 one object."""

    unit: int
    code: int = 1
    object_id: int = 0
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class OtherRequest:
    """A function we do not speak: a slave answers exception 1."""

    unit: int
    pdu: bytes
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to a read (``registers`` or ``bits``), to a write (``address``, ``count``) or to 22 (both masks).

    An answer to a read does not say its address: the master fills it in from its request.
    """

    unit: int
    function: int
    address: int = 0
    count: int = 0
    registers: tuple[int, ...] = ()
    bits: tuple[bool, ...] = ()
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class Identification:
    """Answer to :class:`Identify`: (object, text). 0 maker, 1 product code, 2 version, 4 product name, 5 model.

    ``next_object``: ask again from there, None if that was all. ``conformity``: what the device can tell.
    """

    unit: int
    code: int
    objects: tuple[tuple[int, bytes], ...]
    next_object: int | None = None
    conformity: int = 1
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class ExceptionReply:
    unit: int
    function: int
    code: int
    transaction: int = 0


Request = ReadRequest | WriteRequest | MaskWrite | ReadWrite | Identify | OtherRequest
Answer = Reply | Identification | ExceptionReply
Message = Request | Answer

_BHH = struct.Struct(">BHH")
_HH = struct.Struct(">HH")


@lru_cache(maxsize=256)
def _words(count: int) -> struct.Struct:
    return struct.Struct(f">{count}H")


def _pack_bits(values: tuple[int, ...] | tuple[bool, ...]) -> bytes:
    """Bits as they travel: the first one lowest in the first byte."""
    number = 0
    for at, value in enumerate(values):
        if value:
            number |= 1 << at
    return number.to_bytes((len(values) + 7) // 8, "little")


def _unpack_bits(data: bytes, count: int) -> tuple[int, ...]:
    number = int.from_bytes(data, "little")
    return tuple(number >> at & 1 for at in range(count))


def _check_write(function: int, address: int, values: tuple[int, ...]) -> None:
    if not 1 <= len(values) <= MAX_WRITE[function]:
        text = f"Modbus function {function}: 1 to {MAX_WRITE[function]} values, not {len(values)}"
        raise LocalProtocolError(text, reason="count")
    top = 1 if function in (WRITE_COIL, WRITE_COILS) else 0xFFFF
    if any(not 0 <= value <= top for value in values) or not 0 <= address <= 0x10000 - len(values):
        raise LocalProtocolError(f"Modbus function {function}: address or value outside its range", reason="range")


def encode_pdu(message: Message) -> bytes:
    """Function code and data. Raises LocalProtocolError if it cannot be said."""
    if not 0 <= message.unit <= 255:
        raise LocalProtocolError(f"Modbus unit {message.unit}", reason="unit")
    if isinstance(message, ReadRequest):
        function, address, count = message.function, message.address, message.count
        if function not in READS:
            raise LocalProtocolError(f"Modbus function {function} reads nothing", reason="function")
        if not (1 <= count <= MAX_READ[function] and 0 <= address <= 0x10000 - count):
            raise LocalProtocolError(f"Modbus read of {count} from {address}", reason="count")
        return _BHH.pack(function, address, count)
    try:
        pdu = _encode(message)
    except (struct.error, OverflowError, ValueError) as exc:
        raise LocalProtocolError(f"Modbus PDU cannot be said: {exc}", reason="range") from exc
    if not 1 <= len(pdu) <= 253:
        raise LocalProtocolError(f"Modbus PDU of {len(pdu)} bytes", reason="length")
    return pdu


def _encode(message: Message) -> bytes:
    match message:
        case Reply():
            return _encode_reply(message)
        case ExceptionReply(function=function, code=code):
            return bytes((function | 0x80, code))
        case WriteRequest(function=function, address=address, values=values):
            if function not in WRITES:
                raise LocalProtocolError(f"Modbus function {function} writes nothing", reason="function")
            _check_write(function, address, values)
            if function == WRITE_COIL:
                return _BHH.pack(function, address, 0xFF00 if values[0] else 0)
            if function == WRITE_REGISTER:
                return _BHH.pack(function, address, values[0])
            data = _pack_bits(values) if function == WRITE_COILS else _words(len(values)).pack(*values)
            return _BHH.pack(function, address, len(values)) + bytes((len(data),)) + data
        case MaskWrite(address=address, and_mask=and_mask, or_mask=or_mask):
            return struct.pack(">BHHH", MASK_WRITE, address, and_mask, or_mask)
        case ReadWrite(address=address, count=count, write_address=write_address, values=values):
            _check_write(READ_WRITE, write_address, values)
            if not 1 <= count <= MAX_READ[READ_WRITE]:
                raise LocalProtocolError(f"Modbus read of {count} from {address}", reason="count")
            head = struct.pack(">BHHHHB", READ_WRITE, address, count, write_address, len(values), 2 * len(values))
            return head + _words(len(values)).pack(*values)
        case Identify(code=code, object_id=object_id):
            return bytes((ENCAPSULATED, IDENTIFICATION, code, object_id))
        case Identification(code=code, objects=objects, next_object=after, conformity=conformity):
            more = (0, 0) if after is None else (0xFF, after)
            head = bytes((ENCAPSULATED, IDENTIFICATION, code, conformity, *more, len(objects)))
            return head + b"".join(bytes((number, len(text))) + text for number, text in objects)
        case OtherRequest(pdu=pdu):
            return pdu
    raise LocalProtocolError(f"Modbus cannot say {type(message).__name__}", reason="function")


def _encode_reply(reply: Reply) -> bytes:
    function = reply.function
    match function:
        case 1 | 2:
            data = _pack_bits(reply.bits)
            return bytes((function, len(data))) + data
        case 3 | 4 | 23:
            return bytes((function, 2 * len(reply.registers))) + _words(len(reply.registers)).pack(*reply.registers)
        case 5:
            return _BHH.pack(function, reply.address, 0xFF00 if reply.bits[:1] == (True,) else 0)
        case 6:
            return _BHH.pack(function, reply.address, (*reply.registers, 0)[0])
        case 15 | 16:
            return _BHH.pack(function, reply.address, reply.count)
        case 22:
            return struct.pack(">BHHH", function, reply.address, *reply.registers)
    raise LocalProtocolError(f"Modbus function {function} has no reply", reason="function")


def decode_request(unit: int, pdu: bytes, transaction: int = 0) -> Request:
    """A request as a slave sees it. Counts are not judged: the slave answers exception 3 for a wrong one."""
    function, data = pdu[0], pdu[1:]
    if function in READS:
        if len(data) != 4:
            raise RemoteProtocolError(f"Modbus request {function} of {len(pdu)} bytes", reason="length")
        address, count = _HH.unpack(data)
        return ReadRequest(unit, function, address, count, transaction)
    if function in (WRITE_COIL, WRITE_REGISTER):
        if len(data) != 4:
            raise RemoteProtocolError(f"Modbus request {function} of {len(pdu)} bytes", reason="length")
        address, value = _HH.unpack(data)
        return WriteRequest(unit, function, address, (int(value == 0xFF00) if function == 5 else value,), transaction)
    if function in (WRITE_COILS, WRITE_REGISTERS):
        if len(data) < 5 or data[4] != len(data) - 5:
            raise RemoteProtocolError("Modbus write request with a wrong byte count", reason="byte_count")
        address, count = _HH.unpack(data[:4])
        if data[4] != (2 * count if function == WRITE_REGISTERS else (count + 7) // 8):
            raise RemoteProtocolError("Modbus write request: count and bytes disagree", reason="byte_count")
        registers = function == WRITE_REGISTERS
        values = _words(count).unpack(data[5:]) if registers else _unpack_bits(data[5:], count)
        return WriteRequest(unit, function, address, values, transaction)
    if function == MASK_WRITE and len(data) == 6:
        address, and_mask, or_mask = struct.unpack(">HHH", data)
        return MaskWrite(unit, address, and_mask, or_mask, transaction)
    if function == READ_WRITE:
        if len(data) < 9 or data[8] != len(data) - 9 or data[8] != 2 * int.from_bytes(data[6:8], "big"):
            raise RemoteProtocolError("Modbus read/write request with a wrong byte count", reason="byte_count")
        address, count, write_address, number = struct.unpack(">HHHH", data[:8])
        return ReadWrite(unit, address, count, write_address, _words(number).unpack(data[9:]), transaction)
    if function == ENCAPSULATED and len(data) == 3 and data[0] == IDENTIFICATION:
        return Identify(unit, data[1], data[2], transaction)
    return OtherRequest(unit, pdu, transaction)


def decode_reply(unit: int, pdu: bytes, transaction: int = 0) -> Answer:
    """A reply, by itself: bits come in whole bytes, the address of a read is 0."""
    function, size = pdu[0], len(pdu) - 1
    if function in (READ_HOLDING, READ_INPUT_REGISTERS, READ_WRITE):
        if not size or pdu[1] != size - 1 or pdu[1] % 2:
            raise RemoteProtocolError("Modbus reply with a wrong byte count", reason="byte_count")
        count = (size - 1) // 2
        return Reply(unit, function, 0, count, _words(count).unpack_from(pdu, 2), (), transaction)
    if function in (READ_COILS, READ_INPUTS):
        if not size or pdu[1] != size - 1:
            raise RemoteProtocolError("Modbus reply with a wrong byte count", reason="byte_count")
        count = 8 * (size - 1)
        bits = tuple(map(bool, _unpack_bits(pdu[2:], count)))
        return Reply(unit, function, 0, count, (), bits, transaction)
    if function & 0x80:
        if size != 1:
            raise RemoteProtocolError(f"Modbus exception reply of {len(pdu)} bytes", reason="length")
        return ExceptionReply(unit, function & 0x7F, pdu[1], transaction)
    if function in WRITES:
        if size != 4:
            raise RemoteProtocolError(f"Modbus reply {function} of {len(pdu)} bytes", reason="length")
        address, value = _HH.unpack_from(pdu, 1)
        if function == WRITE_COIL:
            return Reply(unit, function, address, 1, (), (value == 0xFF00,), transaction)
        if function == WRITE_REGISTER:
            return Reply(unit, function, address, 1, (value,), (), transaction)
        return Reply(unit, function, address, value, (), (), transaction)
    if function == MASK_WRITE:
        if size != 6:
            raise RemoteProtocolError(f"Modbus reply {function} of {len(pdu)} bytes", reason="length")
        address, and_mask, or_mask = struct.unpack(">HHH", pdu[1:])
        return Reply(unit, function, address, 1, (and_mask, or_mask), (), transaction)
    if function == ENCAPSULATED:
        return _identification(unit, pdu, transaction)
    raise RemoteProtocolError(f"Modbus reply with function {function}", reason="unknown_function")


def _identification(unit: int, pdu: bytes, transaction: int) -> Identification:
    if len(pdu) < 7 or pdu[1] != IDENTIFICATION:
        raise RemoteProtocolError("Modbus identification reply cut short", reason="length")
    objects: list[tuple[int, bytes]] = []
    at = 7
    for _ in range(pdu[6]):
        if len(pdu) < at + 2 or len(pdu) < at + 2 + pdu[at + 1]:
            raise RemoteProtocolError("Modbus identification reply cut short", reason="length")
        objects.append((pdu[at], pdu[at + 2 : at + 2 + pdu[at + 1]]))
        at += 2 + pdu[at + 1]
    if at != len(pdu):
        raise RemoteProtocolError("Modbus identification reply with bytes behind it", reason="length")
    after = pdu[5] if pdu[4] == 0xFF else None
    return Identification(unit, pdu[2], tuple(objects), after, pdu[3], transaction)
