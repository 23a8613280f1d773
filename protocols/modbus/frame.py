"""Modbus frames cut out of a byte stream: RTU, TCP (MBAP) and ASCII.

RTU has no start mark and its 3.5 characters of silence do not survive USB adapters and TCP boxes, so an RTU frame is
found by the length its function implies and a right CRC, at whatever offset; the candidate that is complete first
wins. Silence (:meth:`idle`) ends what is left and says what was wrong with it. Checksums and framing of what we send
are pymodbus's.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from pymodbus.framer.ascii import FramerAscii
from pymodbus.framer.rtu import FramerRTU
from pymodbus.framer.socket import FramerSocket
from pymodbus.pdu import DecodePDU

from protocols.core.errors import RemoteProtocolError

Side = Literal["request", "reply", "any"]
Framing = Literal["rtu", "tcp", "ascii"]

MAX_RTU = 256
MAX_TCP_PDU = 253
MAX_ASCII = 513


@dataclass(frozen=True, slots=True)
class Adu:
    unit: int
    pdu: bytes
    transaction: int = 0


Found = Adu | RemoteProtocolError

_DECODER = DecodePDU(False)
_FRAMERS = {"rtu": FramerRTU(_DECODER), "tcp": FramerSocket(_DECODER), "ascii": FramerAscii(_DECODER)}


def build(adu: Adu, framing: Framing) -> bytes:
    """The bytes on the wire."""
    return bytes(_FRAMERS[framing].encode(adu.pdu, adu.unit, adu.transaction))


def crc(data: bytes) -> bytes:
    """The two CRC bytes as they follow ``data`` on the wire (low byte first)."""
    return int(FramerRTU.compute_CRC(data)).to_bytes(2, "big")


def lrc(data: bytes) -> int:
    return int(FramerAscii.compute_LRC(data))


class Scanner(Protocol):
    def feed(self, data: bytes) -> list[Found]: ...

    def idle(self) -> list[Found]: ...

    def reset(self) -> None: ...

    @property
    def held(self) -> int: ...


ENCAPSULATED, _IDENTIFICATION = 43, 14

#: Frame sizes of replies and requests by function: fixed, or (position of the byte count, bytes besides the data).
_REPLY_SIZE: dict[int, int | tuple[int, int]] = {
    1: (2, 5), 2: (2, 5), 3: (2, 5), 4: (2, 5), 5: 8, 6: 8, 15: 8, 16: 8, 22: 10, 23: (2, 5),
}  # fmt: skip
_REQUEST_SIZE: dict[int, int | tuple[int, int]] = {
    1: 8, 2: 8, 3: 8, 4: 8, 5: 8, 6: 8, 15: (6, 9), 16: (6, 9), 22: 10, 23: (10, 13),
}  # fmt: skip

#: Functions of the standard that are framed by their length here, and those that are not: their bytes stay raw.
FUNCTIONS = frozenset({*_REPLY_SIZE, ENCAPSULATED, 7, 8, 11, 12, 17, 20, 21, 24})


class RtuScanner:
    """``lenient`` also takes a CRC with its bytes swapped.

    Set by a master before each request: ``echo``, the bytes of the request, passed over silently when an adapter sends
    them back; ``expected``, how the right answer begins and how long it is. Bytes that begin so are waited for: values
    inside an answer may look like a shorter frame with a right CRC (one in 65536 tries).
    """

    def __init__(self, side: Side, *, lenient: bool = False) -> None:
        self._sides = {
            "request": (_REQUEST_SIZE,),
            "reply": (_REPLY_SIZE,),
            "any": (_REPLY_SIZE, _REQUEST_SIZE),
        }[side]
        self._exceptions = side != "request"
        self._ambiguous = side == "any"
        self._lenient = lenient
        self._held = bytearray()
        self._in_noise = False
        self.echo = b""
        self.echoes = 0
        self.expected: tuple[bytes, int] | None = None

    @property
    def held(self) -> int:
        return len(self._held)

    def reset(self) -> None:
        self._held.clear()
        self._in_noise = False
        self.echo = b""
        self.expected = None

    def feed(self, data: bytes) -> list[Found]:
        out: list[Found] = []
        for at in range(0, len(data), MAX_RTU):
            self._held += data[at : at + MAX_RTU]
            out.extend(self._drain(at_rest=False))
        return out

    def idle(self) -> list[Found]:
        """Silence ends a frame: what is whole, then one verdict on what is left."""
        return [*self._drain(at_rest=True), *self._verdict()]

    def _verdict(self) -> list[Found]:
        held, silent = bytes(self._held), self._in_noise
        self._held.clear()
        self._in_noise = False
        if not held or (silent and len(held) < 4):
            return []
        sizes = self._sizes(held, 0)
        if len(held) >= 4 and crc(held[:-2]) == held[-2:]:
            reason = "byte_count"  # whole and undamaged, but not as long as it says
        elif sizes and len(held) >= min(sizes):
            reason = "crc"
        else:
            reason = "short" if sizes else "garbage"
        return [RemoteProtocolError(f"Modbus RTU frame refused: {reason}", reason=reason)]

    def _drain(self, *, at_rest: bool) -> Iterator[Found]:
        while self._held:
            if not at_rest and self._answer_is_coming():
                return
            size = self._whole_answer()
            hit: tuple[int, int] | None = (0, size) if size else None  # start, end
            for start in range(0 if size else len(self._held)):
                if hit is not None and start >= hit[1]:
                    break
                end = self._complete(start)
                if end is not None and (hit is None or end < hit[1]):
                    hit = (start, end)
            if hit is None:
                while self._held and (len(self._held) > MAX_RTU or not self._plausible()):
                    del self._held[:1]
                    yield from self._noise("garbage")
                return
            start, end = hit
            if start:
                sizes = self._sizes(bytes(self._held), 0)
                yield from self._noise("crc" if sizes and start >= min(sizes) else "garbage")
            frame = bytes(self._held[start:end])
            del self._held[:end]
            self._in_noise = False
            if frame == self.echo:
                self.echo = b""
                self.echoes += 1
            else:
                yield Adu(frame[0], frame[1:-2])

    def _answer_is_coming(self) -> bool:
        if self.expected is None:
            return False
        begin, size = self.expected
        return len(self._held) < size and bytes(self._held[: len(begin)]) == begin[: len(self._held)]

    def _whole_answer(self) -> int:
        """Size of the expected answer if it stands whole at the front, else 0."""
        if self.expected is None:
            return 0
        begin, size = self.expected
        return size if self._held.startswith(begin) and self._complete(0) == size else 0

    def _noise(self, reason: str) -> Iterator[RemoteProtocolError]:
        if not self._in_noise:
            yield RemoteProtocolError(f"Modbus RTU bytes that are no frame: {reason}", reason=reason)
        self._in_noise = True

    def _plausible(self) -> bool:
        return len(self._held) < 2 or bool(self._sizes(bytes(self._held), 0)) or self._may_be_echo(0)

    def _may_be_echo(self, start: int) -> bool:
        return bool(self.echo) and self.echo.startswith(bytes(self._held[start : start + len(self.echo)]))

    def _sizes(self, held: bytes | bytearray, start: int) -> list[int]:
        """Lengths a frame at ``start`` may have; an unknown one (byte count not there yet) counts as the largest."""
        if len(held) < start + 2:
            return []
        function = held[start + 1]
        if function & 0x80:
            known = function & 0x7F in _REPLY_SIZE or function & 0x7F == ENCAPSULATED
            return [5] if self._exceptions and known else []
        out = []
        for table in self._sides:
            size = table.get(function)
            if isinstance(size, int):
                if not self._ambiguous or _sensible_read(bytes(held[start : start + 6])):
                    out.append(size)
            elif function == ENCAPSULATED:
                if len(held) > start + 2 and held[start + 2] != _IDENTIFICATION:
                    continue
                out.append(_encapsulated_size(held, start, reply=table is _REPLY_SIZE))
            elif size is not None:
                at, rest = size
                total = rest + held[start + at] if len(held) > start + at else MAX_RTU
                if total <= MAX_RTU:
                    out.append(total)
        return out

    def _complete(self, start: int) -> int | None:
        held = self._held
        size = len(self.echo)
        if size and held[start : start + size] == self.echo:
            return start + size
        for size in sorted(self._sizes(held, start)):
            end = start + size
            if end > len(held):
                continue
            found, wanted = bytes(held[end - 2 : end]), crc(bytes(held[start : end - 2]))
            if found == wanted or (self._lenient and found == wanted[::-1]):
                return end
        return None


def _encapsulated_size(held: bytes | bytearray, start: int, *, reply: bool) -> int:
    """A frame of 43/14; an answer says its length object by object, unknown counts as the largest."""
    if not reply:
        return 7
    at = start + 8
    for _ in range(held[start + 7] if len(held) > start + 7 else 256):
        if len(held) < at + 2:
            return MAX_RTU
        at += 2 + held[at + 1]
    return min(at + 2 - start, MAX_RTU)


def _sensible_read(frame: bytes) -> bool:
    """Whether eight bytes can be a read request: seen from the side, eight bytes of a reply must not pass for one."""
    return len(frame) < 6 or frame[1] > 4 or 1 <= int.from_bytes(frame[4:6], "big") <= (2000 if frame[1] <= 2 else 125)


class TcpScanner:
    """MBAP frames. There is no checksum, so the header is trusted from the left and only a senseless one is skipped.

    Devices have been seen that count one byte too few: the byte count inside decides then, if it is the one a master
    expects (``expected_bytes``, set before each read).
    """

    def __init__(self, side: Side) -> None:
        self._side = side
        self.expected_bytes: int | None = None
        self._held = bytearray()
        self._in_noise = False

    @property
    def held(self) -> int:
        return len(self._held)

    def reset(self) -> None:
        self._held.clear()
        self._in_noise = False

    def feed(self, data: bytes) -> list[Found]:
        out: list[Found] = []
        for at in range(0, len(data), 1024):
            self._held += data[at : at + 1024]
            out.extend(self._drain())
        return out

    def idle(self) -> list[Found]:
        left, silent = bool(self._held), self._in_noise
        self.reset()
        return [RemoteProtocolError("Modbus TCP frame cut off", reason="short")] if left and not silent else []

    def _drain(self) -> Iterator[Found]:
        held = self._held
        while len(held) >= 6:
            length = int.from_bytes(held[4:6], "big")
            reason = "" if 2 <= length <= MAX_TCP_PDU + 1 else "length"
            if held[2] or held[3]:
                reason = "protocol_id"
            if reason:
                if not self._in_noise:
                    yield RemoteProtocolError(f"Modbus TCP header refused: {reason}", reason=reason)
                self._in_noise = True
                del held[:1]
                continue
            if len(held) >= 9:
                length += self._short_by_one(length)
            if len(held) < 6 + length or (length == 2 and len(held) < 9 and held[7] & 0x80):
                return
            adu = Adu(held[6], bytes(held[7 : 6 + length]), int.from_bytes(held[:2], "big"))
            del held[: 6 + length]
            self._in_noise = False
            yield adu

    def _short_by_one(self, length: int) -> int:
        function, count = self._held[7], self._held[8]
        if self._side == "request":
            return 0
        if function & 0x80:
            return 1 if length == 2 else 0
        # Only for the very answer that was asked for: one byte too many would eat into the next frame.
        return 1 if function in (1, 2, 3, 4) and count == self.expected_bytes and length == count + 2 else 0


class AsciiScanner:
    """``:`` + hex + LRC + CR LF. A new colon always starts a new frame: it cannot stand inside one."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._in_noise = False

    @property
    def held(self) -> int:
        return len(self._held)

    def reset(self) -> None:
        self._held.clear()
        self._in_noise = False

    def feed(self, data: bytes) -> list[Found]:
        out: list[Found] = []
        for byte in data:
            if byte == 0x3A:
                if self._held:
                    out.extend(self._noise("short"))
                self._held[:] = b":"
            elif not self._held:
                if byte not in b"\r\n":
                    out.extend(self._noise("garbage"))
            elif byte == 0x0A:
                out.extend(self._judge(bytes(self._held[1:]).removesuffix(b"\r")))
                self._held.clear()
            elif len(self._held) > MAX_ASCII:
                out.extend(self._noise("length"))
                self._held.clear()
            else:
                self._held.append(byte)
        return out

    def idle(self) -> list[Found]:
        left = bool(self._held)
        self.reset()
        return [RemoteProtocolError("Modbus ASCII frame cut off", reason="short")] if left else []

    def _judge(self, text: bytes) -> Iterator[Found]:
        if len(text) < 6 or len(text) % 2 or set(text) - _HEX:
            yield from self._noise("format")
            return
        raw = bytes.fromhex(text.decode("ascii"))
        if lrc(raw[:-1]) != raw[-1]:
            yield from self._noise("lrc")
            return
        self._in_noise = False
        yield Adu(raw[0], raw[1:-1])

    def _noise(self, reason: str) -> Iterator[RemoteProtocolError]:
        if reason != "garbage" or not self._in_noise:
            yield RemoteProtocolError(f"Modbus ASCII frame refused: {reason}", reason=reason)
        self._in_noise = True


_HEX = set(string.hexdigits.encode())


def scanner(framing: Framing, side: Side, *, lenient: bool = False) -> RtuScanner | TcpScanner | AsciiScanner:
    """The scanner of a framing. ``side``: which way the frames go that it will see."""
    if framing == "rtu":
        return RtuScanner(side, lenient=lenient)
    return TcpScanner(side) if framing == "tcp" else AsciiScanner()
