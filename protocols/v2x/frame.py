"""What stands around a message: nothing, a vendor's wrapper, a J2735 header, a radio header. No field can be found by
byte offset inside UPER, so the wrapping must be taken off exactly; which one a link uses is its configuration.

Vendor wrapper (from field captures, fact sheet "seen wrapper"): 0-7 device id, 8-15 milliseconds since 1970 (little
endian), then length (2, little endian) and frame; for batches of BSM a count (1) before (length, frame) pairs.
J2735: 0-1 message id (a 15-bit number behind the extension bit), 2.. length (1 byte below 128, else 2 with the top
bits 10), message. Radio captures: WSMP header (IEEE 1609.3) and IEEE 1609.2 wrapper ``03 80`` (plain) or ``03 81``
(signed) before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

WRAPPER_BYTES = 16
#: Times a wrapper may carry: 2010 to 2100. A frame without a wrapper read as one has a year far outside.
_EARLIEST_MS, _LATEST_MS = 1_262_304_000_000, 4_102_444_800_000

J2735_NAMES: dict[int, str] = {
    18: "MapData",
    19: "SPAT",
    20: "BasicSafetyMessage",
    29: "SignalRequestMessage",
    30: "SignalStatusMessage",
    31: "TravelerInformation",
    32: "PersonalSafetyMessage",
    41: "SensorDataSharingMessage",
}


@dataclass(frozen=True, slots=True)
class Wrapped:
    """``frames``: (offset, bytes) of each. ``batch``: a count stood before them."""

    device_id: str
    time_ms: int
    frames: tuple[tuple[int, bytes], ...]
    batch: bool = False


@dataclass(frozen=True, slots=True)
class J2735Frame:
    """``offset``: of the message's own bytes; ``trailing``: bytes behind its declared length."""

    message_id: int
    offset: int
    body: bytes
    trailing: bytes = b""

    @property
    def type_name(self) -> str:
        return J2735_NAMES.get(self.message_id, "")


def unwrap(data: bytes) -> Wrapped:
    """Take the vendor's wrapper off. Raises RemoteProtocolError (``short``, ``length``, ``time``)."""
    if len(data) < WRAPPER_BYTES + 2:
        raise RemoteProtocolError(f"{len(data)} bytes: shorter than the wrapper", reason="short")
    time_ms = int.from_bytes(data[8:16], "little")
    if not _EARLIEST_MS <= time_ms < _LATEST_MS:
        raise RemoteProtocolError("the wrapper's time is no year of this century", reason="time", offset=8)
    frames = _pairs(data, WRAPPER_BYTES, 1)
    batch = frames is None
    if frames is None:
        frames = _pairs(data, WRAPPER_BYTES + 1, data[WRAPPER_BYTES])
    if frames is None:
        declared = int.from_bytes(data[16:18], "little")
        left = len(data) - WRAPPER_BYTES - 2
        raise RemoteProtocolError(f"the wrapper announces {declared} bytes, {left} follow", reason="length", offset=16)
    text = data[:8].rstrip(b"\0")
    printable = text.isascii() and text.decode("ascii", "replace").isprintable()
    return Wrapped(text.decode("ascii") if printable else data[:8].hex(), time_ms, tuple(frames), batch)


def _pairs(data: bytes, at: int, count: int) -> list[tuple[int, bytes]] | None:
    """``count`` (length, frame) pairs that fill the data exactly."""
    out: list[tuple[int, bytes]] = []
    for _ in range(count):
        length = int.from_bytes(data[at : at + 2], "little")
        if not length or at + 2 + length > len(data):
            return None
        out.append((at + 2, data[at + 2 : at + 2 + length]))
        at += 2 + length
    return out if out and at == len(data) else None


def wrap(device_id: bytes, time_ms: int, frames: list[bytes], *, batch: bool = False) -> bytes:
    """Put the vendor's wrapper on. Raises LocalProtocolError."""
    if len(device_id) > 8 or not frames or (len(frames) > 1 and not batch) or len(frames) > 255:
        raise LocalProtocolError("device id of at most 8 bytes; several frames only as a batch", reason="encode")
    if any(not 0 < len(frame) < 65_536 for frame in frames) or not 0 <= time_ms < 2**64:
        raise LocalProtocolError("a frame has 1 to 65535 bytes, the time 64 bits", reason="encode")
    head = device_id.ljust(8, b"\0") + time_ms.to_bytes(8, "little")
    count = bytes((len(frames),)) if batch else b""
    return head + count + b"".join(len(frame).to_bytes(2, "little") + frame for frame in frames)


def j2735(data: bytes, offset: int = 0) -> J2735Frame:
    """Read id and length of a J2735 message frame. Raises RemoteProtocolError (``short``, ``length``, ``header``)."""
    if len(data) < 4:
        raise RemoteProtocolError("shorter than id and length", reason="short")
    if data[0] & 0x80:
        raise RemoteProtocolError("the frame itself has extensions, no J2735 edition does", reason="header", offset=0)
    length, at = data[2], 3
    if length & 0x80:
        if length & 0x40:
            raise RemoteProtocolError("the length is fragmented: 16 kB and more", reason="length", offset=2)
        length, at = (length & 0x3F) << 8 | data[3], 4
    if at + length > len(data):
        raise RemoteProtocolError(f"{length} bytes declared, {len(data) - at} follow", reason="length", offset=2)
    return J2735Frame(int.from_bytes(data[:2], "big"), offset + at, data[at : at + length], data[at + length :])


def j2735_frame(message_id: int, body: bytes) -> bytes:
    """Put id and length before a message. Raises LocalProtocolError."""
    if not 0 <= message_id < 32_768 or not 0 < len(body) < 16_384:
        raise LocalProtocolError("id below 32768, 1 to 16383 bytes", reason="encode")
    length = bytes((len(body),)) if len(body) < 128 else (0x8000 | len(body)).to_bytes(2, "big")
    return message_id.to_bytes(2, "big") + length + body


def payload_of_radio(data: bytes) -> tuple[int, bytes]:
    """Offset and bytes of the message behind radio headers; (0, data) if there are none. The headers are parsed, never
    searched through: ``00 14`` occurs inside them. Signatures are not checked."""
    at = _wsmp(data)
    body = data[at:]
    if body[:2] == b"\x03\x81" and body[3:6] == b"\x40\x03\x80":
        at += 4  # hash algorithm, then what was signed: again a 1609.2 structure
        body = data[at:]
    if body[:2] != b"\x03\x80" or len(body) < 4:
        return (at, data[at:]) if at else (0, data)
    length, more = body[2], 3
    if length & 0x80:
        size = length & 0x7F
        length, more = int.from_bytes(body[3 : 3 + size], "big"), 3 + size
    if length == 0 or more + length > len(body):
        return 0, data
    return at + more, body[more : more + length]


def _wsmp(data: bytes) -> int:
    """Bytes of a WSMP header (version 3) at the start, 0 if there is none. Some radios put a byte 01 before it."""
    start = 1 if data[:2] in (b"\x01\x03", b"\x01\x0b") else 0
    head = data[start : start + 2]
    if len(data) < 6 or head[:1] not in (b"\x03", b"\x0b") or head in (b"\x03\x80", b"\x03\x81"):
        return 0
    at = start + 1
    if head[0] & 0x08:
        count, at = data[at], at + 1
        for _ in range(min(count, 8)):
            if at + 1 >= len(data):
                return 0
            at += 2 + data[at + 1]
    if at + 3 >= len(data) or data[at] != 0:  # the transport carries a PSID
        return 0
    first = data[at + 1]
    at += 1 + (1 if first < 0x80 else 2 if first < 0xC0 else 3 if first < 0xE0 else 4)
    if at >= len(data):
        return 0
    length, at = (data[at], at + 1) if data[at] < 0x80 else (int.from_bytes(data[at : at + 2], "big") & 0x3FFF, at + 2)
    return at if length and at + length <= len(data) + 4 else 0
