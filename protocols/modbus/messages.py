"""What Modbus master and slave say, as values, and their PDUs.

The PDU classes are pymodbus's; here they are fenced: lengths are checked before pymodbus sees remote bytes, so that
only ProtocolError can come out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from pymodbus.pdu import DecodePDU, ExceptionResponse
from pymodbus.pdu import bit_message as bits_pdu
from pymodbus.pdu import register_message as registers_pdu

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

READ_COILS, READ_INPUTS, READ_HOLDING, READ_INPUT_REGISTERS = 1, 2, 3, 4
WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS = 5, 6, 15, 16
READS = (READ_COILS, READ_INPUTS, READ_HOLDING, READ_INPUT_REGISTERS)
WRITES = (WRITE_COIL, WRITE_REGISTER, WRITE_COILS, WRITE_REGISTERS)

#: Limits of one request (Modbus application protocol 1.1b3, 6.1 to 6.12).
MAX_READ = {READ_COILS: 2000, READ_INPUTS: 2000, READ_HOLDING: 125, READ_INPUT_REGISTERS: 125}
MAX_WRITE = {WRITE_COIL: 1, WRITE_REGISTER: 1, WRITE_COILS: 1968, WRITE_REGISTERS: 123}

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
class OtherRequest:
    """A function we do not speak: a slave answers exception 1."""

    unit: int
    pdu: bytes
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to a read (``registers`` or ``bits``) or to a write (``address``, ``count``).

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
class ExceptionReply:
    unit: int
    function: int
    code: int
    transaction: int = 0


Request = ReadRequest | WriteRequest | OtherRequest
Message = ReadRequest | WriteRequest | OtherRequest | Reply | ExceptionReply

_READ_REQUEST: dict[int, Any] = {
    1: bits_pdu.ReadCoilsRequest,
    2: bits_pdu.ReadDiscreteInputsRequest,
    3: registers_pdu.ReadHoldingRegistersRequest,
    4: registers_pdu.ReadInputRegistersRequest,
}
_READ_REPLY: dict[int, Any] = {
    1: bits_pdu.ReadCoilsResponse,
    2: bits_pdu.ReadDiscreteInputsResponse,
    3: registers_pdu.ReadHoldingRegistersResponse,
    4: registers_pdu.ReadInputRegistersResponse,
}
_DECODE_REPLY = DecodePDU(False)


def _check_write(function: int, address: int, values: tuple[int, ...]) -> None:
    if not 1 <= len(values) <= MAX_WRITE[function]:
        text = f"Modbus function {function}: 1 to {MAX_WRITE[function]} values, not {len(values)}"
        raise LocalProtocolError(text, reason="count")
    top = 1 if function in (WRITE_COIL, WRITE_COILS) else 0xFFFF
    if any(not 0 <= value <= top for value in values) or not 0 <= address <= 0x10000 - len(values):
        raise LocalProtocolError(f"Modbus function {function}: address or value outside its range", reason="range")


def _pymodbus_write(message: WriteRequest) -> Any:
    registers, bits = list(message.values), [bool(value) for value in message.values]
    match message.function:
        case 5:
            return bits_pdu.WriteSingleCoilRequest(address=message.address, bits=bits)
        case 6:
            return registers_pdu.WriteSingleRegisterRequest(address=message.address, registers=registers)
        case 15:
            return bits_pdu.WriteMultipleCoilsRequest(address=message.address, bits=bits)
        case _:
            return registers_pdu.WriteMultipleRegistersRequest(address=message.address, registers=registers)


def encode_pdu(message: Message) -> bytes:
    """Function code and data. Raises LocalProtocolError if it cannot be said."""
    if not 0 <= message.unit <= 255:
        raise LocalProtocolError(f"Modbus unit {message.unit}", reason="unit")
    match message:
        case OtherRequest(pdu=pdu):
            if not 1 <= len(pdu) <= 253:
                raise LocalProtocolError(f"Modbus PDU of {len(pdu)} bytes", reason="length")
            return pdu
        case ExceptionReply(function=function, code=code):
            return _pymodbus(ExceptionResponse(function, code))
        case ReadRequest(function=function, address=address, count=count):
            if function not in READS:
                raise LocalProtocolError(f"Modbus function {function} reads nothing", reason="function")
            if not (1 <= count <= MAX_READ[function] and 0 <= address <= 0x10000 - count):
                raise LocalProtocolError(f"Modbus read of {count} from {address}", reason="count")
            return _pymodbus(_READ_REQUEST[function](address=address, count=count))
        case WriteRequest(function=function, address=address, values=values):
            if function not in WRITES:
                raise LocalProtocolError(f"Modbus function {function} writes nothing", reason="function")
            _check_write(function, address, values)
            return _pymodbus(_pymodbus_write(message))
        case Reply():
            return _encode_reply(message)


def _encode_reply(reply: Reply) -> bytes:
    function = reply.function
    if function in (READ_COILS, READ_INPUTS):
        return _pymodbus(_READ_REPLY[function](bits=list(reply.bits)))
    if function in (READ_HOLDING, READ_INPUT_REGISTERS):
        return _pymodbus(_READ_REPLY[function](registers=list(reply.registers)))
    if function == WRITE_COIL:
        return _pymodbus(bits_pdu.WriteSingleCoilResponse(address=reply.address, bits=[*reply.bits, False][:1]))
    if function == WRITE_REGISTER:
        values = [*reply.registers, 0][:1]
        return _pymodbus(registers_pdu.WriteSingleRegisterResponse(address=reply.address, registers=values))
    if function == WRITE_COILS:
        return _pymodbus(bits_pdu.WriteMultipleCoilsResponse(address=reply.address, count=reply.count))
    if function == WRITE_REGISTERS:
        return _pymodbus(registers_pdu.WriteMultipleRegistersResponse(address=reply.address, count=reply.count))
    raise LocalProtocolError(f"Modbus function {function} has no reply here", reason="function")


def _pymodbus(pdu: Any) -> bytes:
    try:
        return bytes((pdu.function_code,)) + bytes(pdu.encode())
    except (ValueError, struct.error) as exc:
        raise LocalProtocolError(f"Modbus PDU cannot be said: {exc}", reason="range") from exc


def decode_request(unit: int, pdu: bytes, transaction: int = 0) -> Request:
    """A request as a slave sees it. Counts are not judged: the slave answers exception 3 for a wrong one."""
    function, data = pdu[0], pdu[1:]
    if function in READS:
        if len(data) != 4:
            raise RemoteProtocolError(f"Modbus request {function} of {len(pdu)} bytes", reason="length")
        address, count = struct.unpack(">HH", data)
        return ReadRequest(unit, function, address, count, transaction)
    if function in (WRITE_COIL, WRITE_REGISTER):
        if len(data) != 4:
            raise RemoteProtocolError(f"Modbus request {function} of {len(pdu)} bytes", reason="length")
        address, value = struct.unpack(">HH", data)
        return WriteRequest(unit, function, address, (int(value == 0xFF00) if function == 5 else value,), transaction)
    if function in (WRITE_COILS, WRITE_REGISTERS):
        if len(data) < 5 or data[4] != len(data) - 5:
            raise RemoteProtocolError("Modbus write request with a wrong byte count", reason="byte_count")
        address, count = struct.unpack(">HH", data[:4])
        wanted = 2 * count if function == WRITE_REGISTERS else (count + 7) // 8
        if data[4] != wanted:
            raise RemoteProtocolError("Modbus write request: count and bytes disagree", reason="byte_count")
        if function == WRITE_REGISTERS:
            values = struct.unpack(f">{count}H", data[5:])
        else:
            values = tuple(data[5 + n // 8] >> n % 8 & 1 for n in range(count))
        return WriteRequest(unit, function, address, values, transaction)
    return OtherRequest(unit, pdu, transaction)


def decode_reply(unit: int, pdu: bytes, transaction: int = 0) -> Reply | ExceptionReply:
    """A reply, by itself: bits come in whole bytes, the address of a read is 0."""
    function, data = pdu[0], pdu[1:]
    if function & 0x80:
        if len(data) != 1:
            raise RemoteProtocolError(f"Modbus exception reply of {len(pdu)} bytes", reason="length")
        return ExceptionReply(unit, function & 0x7F, data[0], transaction)
    if function in READS:
        registers = function in (READ_HOLDING, READ_INPUT_REGISTERS)
        if not data or data[0] != len(data) - 1 or (registers and data[0] % 2):
            raise RemoteProtocolError("Modbus reply with a wrong byte count", reason="byte_count")
    elif function in WRITES:
        if len(data) != 4:
            raise RemoteProtocolError(f"Modbus reply {function} of {len(pdu)} bytes", reason="length")
    else:
        raise RemoteProtocolError(f"Modbus reply with function {function}", reason="unknown_function")
    found = _DECODE_REPLY.decode(pdu)
    if found is None:
        raise RemoteProtocolError(f"Modbus reply {function} cannot be read", reason="format")
    bits = tuple(bool(bit) for bit in found.bits)
    words = tuple(int(word) for word in found.registers)
    if function in READS:
        return Reply(unit, function, 0, len(words) or len(bits), words, bits, transaction)
    count = 1 if function in (WRITE_COIL, WRITE_REGISTER) else int(found.count)
    return Reply(unit, function, int(found.address), count, words, bits, transaction)
