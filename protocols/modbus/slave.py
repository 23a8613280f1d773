"""How a device answers a request from its memory, as a pure function: for the simulator and the master's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from protocols.modbus.messages import (
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    MAX_READ,
    MAX_WRITE,
    READ_COILS,
    READ_INPUTS,
    READS,
    WRITE_COIL,
    WRITE_REGISTER,
    ExceptionReply,
    OtherRequest,
    ReadRequest,
    Reply,
    Request,
)

#: (function, address, count) -> registers or bits as ints; None: the device has no such address.
Read = Callable[[int, int, int], Sequence[int] | None]
#: (function, address, values) -> taken?
Write = Callable[[int, int, Sequence[int]], bool]


def answer(request: Request, read: Read, write: Write | None = None) -> Reply | ExceptionReply | None:
    """What the device says; None to a broadcast (unit 0)."""
    unit, transaction = request.unit, request.transaction
    if isinstance(request, OtherRequest):
        return ExceptionReply(unit, request.pdu[0] & 0x7F, ILLEGAL_FUNCTION, transaction)
    function, address = request.function, request.address
    if isinstance(request, ReadRequest):
        if function not in READS:
            return ExceptionReply(unit, function, ILLEGAL_FUNCTION, transaction)
        if not 1 <= request.count <= MAX_READ[function]:
            return ExceptionReply(unit, function, ILLEGAL_VALUE, transaction)
        found = read(function, address, request.count)
        if found is None or len(found) != request.count:
            return ExceptionReply(unit, function, ILLEGAL_ADDRESS, transaction)
        if function in (READ_COILS, READ_INPUTS):
            bits = tuple(bool(value) for value in found)
            return Reply(unit, function, address, request.count, bits=bits, transaction=transaction)
        return Reply(unit, function, address, request.count, registers=tuple(found), transaction=transaction)
    if not 1 <= len(request.values) <= MAX_WRITE[function]:
        return ExceptionReply(unit, function, ILLEGAL_VALUE, transaction)
    taken = write is not None and write(function, address, request.values)
    if unit == 0:
        return None
    if not taken:
        return ExceptionReply(unit, function, ILLEGAL_ADDRESS if write else ILLEGAL_FUNCTION, transaction)
    values = request.values
    if function == WRITE_COIL:
        return Reply(unit, function, address, 1, bits=(bool(values[0]),), transaction=transaction)
    registers = values if function == WRITE_REGISTER else ()
    return Reply(unit, function, address, len(values), registers=registers, transaction=transaction)
