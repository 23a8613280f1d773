"""How a meter answers, as a pure function: shared by the simulator and the tests of the master."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Literal

from protocols.core.errors import RemoteProtocolError
from protocols.dlt645.messages import (
    BROADCAST,
    FREEZE,
    AddressReply,
    BroadcastTime,
    Command,
    Done,
    ErrorReply,
    Read,
    ReadAddress,
    ReadReply,
    Reply,
    Request,
    address_matches,
)
from protocols.dlt645.orders import Order, order
from protocols.dlt645.values import encode, lookup

#: The data of an identifier, None if the meter has no such item.
Source = Callable[[str], bytes | None]
#: Carries out an order; the error byte (bits of ERROR_BITS) if it refuses, 0 if it did it.
Obey = Callable[[Order], int]
Edition = Literal["2007", "1997"]

OTHER, NO_DATA, NO_RIGHT = 0x01, 0x02, 0x04
_CHUNK = 190  # leaves room for identifier and SEQ within 200


def answer(
    request: Request, *, meter: str, source: Source, obey: Obey | None = None, edition: Edition = "2007"
) -> Reply | None:
    """What the meter of that address says; None: it stays silent (not meant, or a broadcast)."""
    everybody = request.addr == BROADCAST
    if everybody and isinstance(request, Command) and request.function == FREEZE:
        _obeyed(request, meter, obey)
        return None
    # A lone 1997 meter answers the broadcast address; a 2007 one never does.
    meant = address_matches(request.addr, meter) or (everybody and edition == "1997" and isinstance(request, Read))
    if isinstance(request, BroadcastTime) or not meant:
        return None
    if isinstance(request, ReadAddress):
        return AddressReply(meter, meter) if edition == "2007" else None
    if isinstance(request, Command):
        return _obeyed(request, meter, obey)
    if edition == "1997" and len(request.di) == 8:
        return ErrorReply(meter, 0x01, NO_DATA)
    if isinstance(request, Read):
        return _read(request.di, 0, meter, source)
    return _read(request.di, request.seq, meter, source)


def _obeyed(request: Command, meter: str, obey: Obey | None) -> Reply:
    if obey is None:
        return ErrorReply(meter, request.function, OTHER)
    try:
        refused = obey(order(request))
    except RemoteProtocolError:
        refused = OTHER
    return ErrorReply(meter, request.function, refused) if refused else Done(meter, request.function)


def _read(di: str, seq: int, meter: str, source: Source) -> Reply:
    data = source(di)
    function = (0x12 if seq else 0x11) if len(di) == 8 else (0x02 if seq else 0x01)
    if data is None or (seq and seq * _CHUNK >= len(data)):
        return ErrorReply(meter, function, NO_DATA)
    part, more = data[seq * _CHUNK : (seq + 1) * _CHUNK], len(data) > (seq + 1) * _CHUNK
    return ReadReply(meter, di, part, more, seq or None)


def table_source(numbers: Mapping[str, Decimal | None], *, blocks: bool = True) -> Source:
    """Serve numeric identifiers, and (``blocks``) the FF blocks made of them, in the order of their identifiers."""

    def source(di: str) -> bytes | None:
        if di in numbers:
            return encode(di, [numbers[di]])
        if blocks and len(di) == 4 and di.endswith("F") and lookup(di) is not None:
            older = sorted(known for known in numbers if len(known) == 4 and known[:3] == di[:3] and known != di)
            return encode(di, [numbers[known] for known in older]) if older else None
        if not blocks or len(di) != 8 or "FF" not in (di[4:6], di[6:]) or lookup(di) is None:
            return None
        members = sorted(known for known in numbers if len(known) == 8 and _in_block(known, di))
        # PP 00 is the total of power and does not exist for voltage and current: the meter has what the table has.
        return encode(di, [numbers[known] for known in members]) if members else None

    return source


def _in_block(di: str, block: str) -> bool:
    pairs = zip((di[n : n + 2] for n in range(0, 8, 2)), (block[n : n + 2] for n in range(0, 8, 2)), strict=True)
    return all(b in ("FF", d) for d, b in pairs)
