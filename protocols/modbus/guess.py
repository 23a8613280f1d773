"""Which framing a capture has when nobody says: a Modbus TCP header and an RTU read request begin alike.

``01 03 00 00 00 02 C4 0B`` is an RTU request, and a TCP header that announces two bytes. A right CRC settles it; where
none is right the header has to fit the whole capture and must not be a usual RTU request with a wrong CRC.
"""

from __future__ import annotations

import re

from protocols.core.errors import RemoteProtocolError
from protocols.modbus.frame import FUNCTIONS, Framing, RtuScanner

_COLON = re.compile(rb":[0-9A-Fa-f]{4}")
#: Functions whose request is eight bytes in RTU, and those with a byte count behind the quantity.
_EIGHT, _COUNTED = range(1, 7), (15, 16)
#: Functions that a PDU of one byte can have: exception status, event counter, event log, who are you.
_BARE = (7, 11, 12, 17)


def framing_of(data: bytes) -> Framing:
    """RTU unless the capture says otherwise."""
    if (data.lstrip()[:1] == b":" or _COLON.search(data)) and not data.strip().strip(b"\0").translate(None, _TEXT):
        return "ascii"
    if _has_rtu_frame(data):
        return "rtu"
    return "tcp" if _is_tcp(data) else "rtu"


_TEXT = bytes(range(0x20, 0x7F)) + b"\r\n\t"


def _has_rtu_frame(data: bytes) -> bool:
    scanner = RtuScanner("any")
    return any(not isinstance(one, RemoteProtocolError) for one in [*scanner.feed(data), *scanner.idle()])


def _is_tcp(data: bytes) -> bool:
    if len(data) < 8 or _rtu_request(data):
        return False
    if (data[7] & 0x7F) not in FUNCTIONS:
        return data[2:4] == b"\0\0" and _walks(data)
    if data[2:4] != b"\0\0":
        # Another protocol number: believed only where the length fits exactly, so that the number can be refused.
        return data[4] == 0 and data[5] == len(data) - 6
    return _walks(data) or _nearly(data)


def _walks(data: bytes) -> bool:
    """Header by header up to the last byte."""
    at = 0
    while at + 8 <= len(data) and data[at + 2 : at + 4] == b"\0\0" and data[at + 4] <= 1:
        at += 6 + int.from_bytes(data[at + 4 : at + 6], "big")
    return at == len(data) > 0


def _nearly(data: bytes) -> bool:
    """One frame whose header counts wrong, or one that was cut off."""
    length = int.from_bytes(data[4:6], "big")
    return 2 <= length <= 254 and (len(data) - 6 < length or len(data) - 6 == length + 1)


def _rtu_request(data: bytes) -> bool:
    if len(data) == 8 and data[1] in _EIGHT:
        return data[7] not in _BARE or data[0] != 0
    return len(data) > 8 and data[1] in _COUNTED and len(data) == 9 + data[6]
