"""How a device answers a request from its memory, as a pure function: for the simulator and the master's tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from protocols.modbus.messages import (
    ENCAPSULATED,
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    MASK_WRITE,
    MAX_READ,
    MAX_WRITE,
    READ_COILS,
    READ_HOLDING,
    READ_INPUTS,
    READ_WRITE,
    READS,
    WRITE_COIL,
    WRITE_REGISTER,
    WRITE_REGISTERS,
    Answer,
    ExceptionReply,
    Identification,
    Identify,
    MaskWrite,
    OtherRequest,
    ReadRequest,
    ReadWrite,
    Reply,
    Request,
    WriteRequest,
)

#: (function, address, count) -> registers or bits as ints; None: the device has no such address.
Read = Callable[[int, int, int], Sequence[int] | None]
#: (function, address, values) -> taken?
Write = Callable[[int, int, Sequence[int]], bool]


def answer(
    request: Request, read: Read, write: Write | None = None, *, identity: Mapping[int, bytes] | None = None
) -> Answer | None:
    """What the device says; None to a broadcast (unit 0). ``identity``: its objects for 43/14, None if it has none."""
    match request:
        case ReadRequest():
            return _read(request, read)
        case WriteRequest():
            return _write(request, write)
        case MaskWrite():
            return _mask(request, read, write)
        case ReadWrite():
            return _read_write(request, read, write)
        case Identify() if identity:
            return _identify(request, identity)
        case Identify():
            return ExceptionReply(request.unit, ENCAPSULATED, ILLEGAL_FUNCTION, request.transaction)
        case OtherRequest(unit, pdu, transaction):
            return ExceptionReply(unit, pdu[0] & 0x7F, ILLEGAL_FUNCTION, transaction)


def _read(request: ReadRequest, read: Read) -> Answer:
    unit, transaction, function, address = request.unit, request.transaction, request.function, request.address
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


def _write(request: WriteRequest, write: Write | None) -> Answer | None:
    unit, transaction, function, address = request.unit, request.transaction, request.function, request.address
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


def _mask(request: MaskWrite, read: Read, write: Write | None) -> Answer | None:
    unit, address, transaction = request.unit, request.address, request.transaction
    if write is None:
        return ExceptionReply(unit, MASK_WRITE, ILLEGAL_FUNCTION, transaction)
    held = read(READ_HOLDING, address, 1)
    value = held[0] & request.and_mask | request.or_mask & ~request.and_mask & 0xFFFF if held else 0
    if not held or not write(WRITE_REGISTER, address, (value,)):
        return ExceptionReply(unit, MASK_WRITE, ILLEGAL_ADDRESS, transaction)
    if unit == 0:
        return None
    return Reply(unit, MASK_WRITE, address, 1, (request.and_mask, request.or_mask), transaction=transaction)


def _read_write(request: ReadWrite, read: Read, write: Write | None) -> Answer:
    unit, transaction = request.unit, request.transaction
    if write is None:
        return ExceptionReply(unit, READ_WRITE, ILLEGAL_FUNCTION, transaction)
    if not (1 <= request.count <= MAX_READ[READ_WRITE] and 1 <= len(request.values) <= MAX_WRITE[READ_WRITE]):
        return ExceptionReply(unit, READ_WRITE, ILLEGAL_VALUE, transaction)
    taken = write(WRITE_REGISTERS, request.write_address, request.values)
    found = read(READ_HOLDING, request.address, request.count) if taken else None
    if found is None or len(found) != request.count:
        return ExceptionReply(unit, READ_WRITE, ILLEGAL_ADDRESS, transaction)
    return Reply(unit, READ_WRITE, request.address, request.count, tuple(found), transaction=transaction)


def _identify(request: Identify, identity: Mapping[int, bytes]) -> Answer:
    """As many objects as one answer takes; the asker goes on from ``next_object``."""
    top = {1: 2, 2: 0x7F, 3: 0xFF, 4: request.object_id}.get(request.code)
    if top is None:
        return ExceptionReply(request.unit, ENCAPSULATED, ILLEGAL_VALUE, request.transaction)
    wanted = [number for number in sorted(identity) if request.object_id <= number <= top]
    if not wanted:
        return ExceptionReply(request.unit, ENCAPSULATED, ILLEGAL_ADDRESS, request.transaction)
    objects: list[tuple[int, bytes]] = []
    room = 253 - 7
    for number in wanted:
        text = identity[number][:244]
        if (room := room - 2 - len(text)) < 0:
            more = number
            return Identification(request.unit, request.code, tuple(objects), more, transaction=request.transaction)
        objects.append((number, text))
    return Identification(request.unit, request.code, tuple(objects), transaction=request.transaction)
