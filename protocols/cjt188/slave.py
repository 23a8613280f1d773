"""How a meter answers, as a pure function: shared by the simulator and the tests of the master."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocols.cjt188.messages import (
    ANYBODY,
    READ,
    AddressReply,
    Command,
    Done,
    ErrorReply,
    Read,
    ReadAddress,
    ReadReply,
    Reply,
    Request,
    same_class,
)


@dataclass(frozen=True, slots=True)
class Meter:
    """Who answers. ``type``: two hex digits; ``addr``: 14 digits as printed."""

    type: str
    addr: str


#: Data behind SER for an identifier, None if the meter has no such item.
Source = Callable[[str], bytes | None]
#: Carry out a command: data behind SER of the answer, None if it refuses.
Obey = Callable[[Command], bytes | None]


def refuse_all(command: Command) -> bytes | None:
    """A meter that can only be read."""
    return None


def answer(
    request: Request, *, meter: Meter, source: Source, obey: Obey = refuse_all, status: bytes = b"\0\0"
) -> Reply | None:
    """What the meter says, in the order of identifier that it was asked in; None: it was not meant and stays silent."""
    if request.addr not in (ANYBODY, meter.addr) or not same_class(request.type, meter.type):
        return None
    match request:
        case ReadAddress(ser=ser, order=order):
            return AddressReply(meter.type, meter.addr, ser, order)
        case Read(di=di, ser=ser, order=order):
            data = source(di)
            if data is None:
                return ErrorReply(meter.type, meter.addr, READ, ser or 0, status)
            return ReadReply(meter.type, meter.addr, di, data, ser, order)
        case Command(function=function, di=di, ser=ser, order=order):
            data = obey(request)
            if data is None:
                return ErrorReply(meter.type, meter.addr, function, ser or 0, status)
            return Done(meter.type, meter.addr, function, di, data, ser, order)
