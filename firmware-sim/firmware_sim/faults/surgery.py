"""Damages one whole frame in a given way, knowing where the protocol keeps its checksum and its address.

A wrong address goes out with a right checksum: only so does it get past the framing to the code it is meant to try.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from protocols.hj212.frame import checksum
from protocols.jt808 import frame as jt808
from protocols.modbus.frame import crc
from protocols.sl651.frame import crc as sl651_crc
from protocols.traffic_signal.frame import build as signal_frame
from protocols.traffic_signal.frame import crc16, escape, unescape

#: Modbus TCP: transaction, protocol, length, unit.
_MBAP_BYTES = 7
#: HJ 212: ## and length; checksum and line end. Many a receiver forgives errors in both.
_HJ212_HEAD, _HJ212_TAIL = 6, 6
_MN = re.compile(rb"MN=([^;]+);")
_CRC = re.compile(rb"([0-9A-Fa-f]{4})\r\n\Z")


def operate(fault: str, bus: str, frame: bytes, rng: random.Random) -> bytes:
    """The damaged frame; b"" if nothing is left of it. ``bus``: the kind of bus."""
    anatomy = ANATOMY.get(bus, Anatomy())
    match fault:
        case "drop":
            return b""
        case "first_byte":
            return frame[1:]
        case "truncate":
            return frame[: rng.randrange(1, len(frame))] if len(frame) > 1 else b""
        case "garble":
            return _garbled(anatomy, frame, rng)
        case "wrong_checksum":
            return anatomy.wrong_checksum(frame)
        case "wrong_address":
            return anatomy.readdressed(frame)
    raise AssertionError(f"{fault} does nothing to a frame")


def _garbled(anatomy: Anatomy, frame: bytes, rng: random.Random) -> bytes:
    """One byte changed, where the checksum watches. One, because that is what each of these checksums is certain to
    notice: damage that no receiver can notice would only blame the innocent."""
    damaged = bytearray(frame)
    damaged[rng.choice(anatomy.watched(frame))] ^= rng.randrange(1, 256)
    return bytes(damaged)


def _whole(frame: bytes) -> range:
    return range(len(frame))


def _last_byte(frame: bytes) -> bytes:
    return frame[:-1] + bytes((frame[-1] ^ 0x5A,))


def _unchanged(frame: bytes) -> bytes:
    return frame


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Where a protocol keeps what. ``watched``: offsets its checksum covers (and itself); ``wrong_checksum`` and
    ``readdressed``: the frame with only that changed. A frame that an earlier fault crippled may stay as it is."""

    watched: Callable[[bytes], range] = _whole
    wrong_checksum: Callable[[bytes], bytes] = _last_byte
    readdressed: Callable[[bytes], bytes] = _unchanged


# -- HJ 212


def _hj212_watched(frame: bytes) -> range:
    if len(frame) <= _HJ212_HEAD + _HJ212_TAIL:
        return range(len(frame))
    return range(_HJ212_HEAD, len(frame) - _HJ212_TAIL)


def _hj212_checksum(frame: bytes) -> bytes:
    if (found := _CRC.search(frame)) is None:
        return _last_byte(frame)
    return frame[:-6] + b"%04X" % (int(found[1], 16) ^ 0x5A00) + frame[-2:]


def _hj212_address(frame: bytes) -> bytes:
    found = _MN.search(frame)
    if found is None or _CRC.search(frame) is None:
        return frame
    changed = bytearray(frame)
    last = found.end(1) - 1
    changed[last] = ord("1" if changed[last] == ord("0") else "0")
    body = bytes(changed[_HJ212_HEAD:-_HJ212_TAIL])
    return bytes(changed[:_HJ212_HEAD]) + body + checksum(body).encode() + b"\r\n"


# -- DL/T 645


def _dlt645_watched(frame: bytes) -> range:
    return range(max(0, frame.find(0x68)), len(frame))  # not the wake-up bytes in front


def _dlt645_checksum(frame: bytes) -> bytes:
    return frame[:-2] + bytes(byte ^ 0x5A for byte in frame[-2:-1]) + frame[-1:]


def _dlt645_address(frame: bytes) -> bytes:
    start = frame.find(0x68)
    if start < 0 or len(frame) < start + 12:
        return frame
    changed = bytearray(frame)
    # The lowest two digits of the meter number, which come first; counted up so that they stay digits.
    lowest = f"{changed[start + 1]:02X}"
    changed[start + 1] = int(f"{(int(lowest) + 1) % 100:02d}", 16) if lowest.isdecimal() else 0
    changed[-2] = sum(changed[start:-2]) & 0xFF
    return bytes(changed)


# -- CJ/T 188 and M-Bus


def _cjt188_address(frame: bytes) -> bytes:
    start = frame.find(0x68)
    if start < 0 or len(frame) < start + 13:
        return frame
    changed = bytearray(frame)
    lowest = f"{changed[start + 2]:02X}"  # behind the type byte
    changed[start + 2] = int(f"{(int(lowest) + 1) % 100:02d}", 16) if lowest.isdecimal() else 0
    changed[-2] = sum(changed[start:-2]) & 0xFF
    return bytes(changed)


def _mbus_checksum(frame: bytes) -> bytes:
    return frame if len(frame) < 5 else _dlt645_checksum(frame)  # E5 has none


def _mbus_address(frame: bytes) -> bytes:
    if len(frame) < 9:
        return frame
    changed = bytearray(frame)
    changed[5] = changed[5] % 250 + 1
    changed[-2] = sum(changed[4:-2]) & 0xFF
    return bytes(changed)


# -- SL 651


def _sl651_address(frame: bytes) -> bytes:
    if len(frame) < 17 or frame[:2] != b"\x7e\x7e":
        return frame
    changed = bytearray(frame)
    changed[7] = changed[7] ^ 0x01  # the last two digits of the station's address in an up-link
    return bytes(changed[:-2]) + sl651_crc(bytes(changed[:-2])).to_bytes(2, "big")


# -- Modbus


def _mbap(frame: bytes) -> range:
    return range(min(_MBAP_BYTES, len(frame)))  # there is no checksum: the header is what a receiver can judge


def _unit_at(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes((frame[at] % 247 + 1,)) + frame[at + 1 :]


def _rtu_address(frame: bytes) -> bytes:
    if len(frame) < 4:
        return frame
    body = _unit_at(frame, 0)[:-2]
    return body + crc(body)


def _tcp_address(frame: bytes) -> bytes:
    return _unit_at(frame, _MBAP_BYTES - 1) if len(frame) >= _MBAP_BYTES + 3 else frame


# -- GB/T 20999 (escaped, as on TCP)


def _signal_checksum(frame: bytes) -> bytes:
    inner = unescape(frame[1:-1])
    crc_wrong = (crc16(inner[:-2]) ^ 0x5A5A).to_bytes(2, "big")
    return frame[:1] + escape(inner[:-2] + crc_wrong) + frame[-1:]


def _signal_address(frame: bytes) -> bytes:
    payload = bytearray(unescape(frame[1:-1])[2:-2])
    if len(payload) < 11:
        return frame
    payload[6] ^= 0x01  # lowest byte of the controller's number
    return signal_frame(bytes(payload), "stream")


# -- GB/T 26875.3: source address at 12, command at 26, sum before the end mark


def _gb26875_watched(frame: bytes) -> range:
    return range(26, len(frame) - 2) if len(frame) >= 30 else range(len(frame))


def _gb26875_checksum(frame: bytes) -> bytes:
    return frame[:-3] + bytes(byte ^ 0x5A for byte in frame[-3:-2]) + frame[-2:]


def _gb26875_address(frame: bytes) -> bytes:
    if len(frame) < 30:
        return frame
    changed = bytearray(frame)
    changed[12] ^= 1
    changed[-3] = sum(changed[2:-3]) & 0xFF
    return bytes(changed)


# -- GB/T 32960: VIN from 4, data from 24


def _gb32960_watched(frame: bytes) -> range:
    return range(24, len(frame)) if len(frame) >= 25 else range(len(frame))


def _gb32960_address(frame: bytes) -> bytes:
    if len(frame) < 25:
        return frame
    changed = bytearray(frame)
    before = changed[4]
    changed[4] = ord("X") if before != ord("X") else ord("Y")
    changed[-1] ^= before ^ changed[4]
    return bytes(changed)


# -- JT/T 808 (escaped) and NMEA 0183


def _between_delimiters(frame: bytes) -> range:
    return range(1, max(2, len(frame) - 1))


def _jt808_checksum(frame: bytes) -> bytes:
    try:
        plain = jt808.unescape(frame[1:-1])
    except jt808.EscapeError:
        return frame
    return b"\x7e" + jt808.escape(plain[:-1] + bytes((plain[-1] ^ 0x5A,))) + b"\x7e"


def _jt808_address(frame: bytes) -> bytes:
    found = jt808.judge(frame[1:-1])
    if not isinstance(found, jt808.Frame):
        return frame
    last = "1" if found.phone[-1] == "0" else "0"
    return jt808.build(replace(found, phone=found.phone[:-1] + last))


def _nmea_checksum(frame: bytes) -> bytes:
    star = frame.rfind(b"*")
    if star < 0 or len(frame) < star + 3:
        return frame
    return frame[: star + 1] + b"%02X" % (int(frame[star + 1 : star + 3], 16) ^ 0x5A) + frame[star + 3 :]


#: By kind of bus; a kind without a row has its checksum in the last byte and no address in its frames.
ANATOMY: dict[str, Anatomy] = {
    "hj212-client": Anatomy(_hj212_watched, _hj212_checksum, _hj212_address),
    "gb26875-client": Anatomy(_gb26875_watched, _gb26875_checksum, _gb26875_address),
    "gb32960-client": Anatomy(_gb32960_watched, readdressed=_gb32960_address),
    "dlt645": Anatomy(_dlt645_watched, _dlt645_checksum, _dlt645_address),
    "sl651-client": Anatomy(readdressed=_sl651_address),
    "cjt188": Anatomy(_dlt645_watched, _dlt645_checksum, _cjt188_address),
    "mbus": Anatomy(wrong_checksum=_mbus_checksum, readdressed=_mbus_address),
    "modbus-rtu": Anatomy(readdressed=_rtu_address),
    "gb20999": Anatomy(wrong_checksum=_signal_checksum, readdressed=_signal_address),
    "jt808-client": Anatomy(_between_delimiters, _jt808_checksum, _jt808_address),
    "nmea": Anatomy(_between_delimiters, _nmea_checksum),
    "modbus-tcp": Anatomy(watched=_mbap, readdressed=_tcp_address),
}
