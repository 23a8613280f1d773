"""What transmitter and centre say to each other: packets with their data unit as it is on the wire.

A packet keeps its bytes (data unit, time), so that what was captured goes back out unchanged; ``units.py`` reads and
builds what is in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from protocols.core.errors import LocalProtocolError
from protocols.gb26875.frame import END, HEADER, MAX_DATA, START, checksum

#: Commands (byte 26). 7 to 127 are reserved, 128 to 255 a maker's own.
CONTROL, SEND, CONFIRM, REQUEST, REPLY, DENY = 1, 2, 3, 4, 5, 6
COMMANDS = {
    CONTROL: ("控制命令", "control"),
    SEND: ("发送数据", "send data"),
    CONFIRM: ("确认", "confirm"),
    REQUEST: ("请求", "request"),
    REPLY: ("应答", "reply"),
    DENY: ("否认", "deny"),
}

#: The standard names no zone; devices run on Chinese time.
ZONE = timezone(timedelta(hours=8))
NO_TIME = bytes(6)
NOBODY = "000000000000"


def parse_time(stamp: bytes) -> datetime | None:
    """Second, minute, hour, day, month, year - 2000; None where that is no time (all zero, month 13)."""
    if len(stamp) != 6:
        return None
    second, minute, hour, day, month, year = stamp
    try:
        return datetime(2000 + year, month, day, hour, minute, second)
    except ValueError:
        return None


def format_time(local: datetime) -> bytes:
    """Raises LocalProtocolError for a year the byte cannot say."""
    if not 2000 <= local.year <= 2255:
        raise LocalProtocolError(f"GB/T 26875.3 time {local}: years 2000 to 2255", reason="time")
    return bytes((local.second, local.minute, local.hour, local.day, local.month, local.year - 2000))


def time_ms(stamp: bytes) -> int | None:
    """Milliseconds since 1970 UTC of a time on the wire, None where there is none."""
    local = parse_time(stamp)
    return None if local is None else round(local.replace(tzinfo=ZONE).timestamp() * 1000)


def stamp_at(now_ms: int) -> bytes:
    """The six bytes of a moment."""
    return format_time(datetime.fromtimestamp(now_ms / 1000, ZONE).replace(tzinfo=None))


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. ``source``, ``destination``: 12 hex digits, high byte first (the wire has the low byte first).

    ``data``: the data unit as on the wire; ``stamp``: the header's time as on the wire, see :attr:`time`.
    """

    command: int
    serial: int = 0
    source: str = NOBODY
    destination: str = NOBODY
    data: bytes = b""
    stamp: bytes = NO_TIME
    version: tuple[int, int] = (1, 0)

    @property
    def time(self) -> datetime | None:
        return parse_time(self.stamp)

    @property
    def wants_answer(self) -> bool:
        return self.command in (CONTROL, SEND, REQUEST)

    @property
    def is_answer(self) -> bool:
        return self.command in (CONFIRM, REPLY, DENY)


def parse(frame: bytes) -> Packet:
    """The packet in a whole, checked frame."""
    return Packet(
        command=frame[26],
        serial=int.from_bytes(frame[2:4], "little"),
        source=frame[17:11:-1].hex().upper(),
        destination=frame[23:17:-1].hex().upper(),
        data=frame[HEADER:-3],
        stamp=frame[6:12],
        version=(frame[4], frame[5]),
    )


def encode(packet: Packet) -> bytes:
    """The bytes on the wire. Raises LocalProtocolError for what the frame cannot say."""
    if len(packet.data) > MAX_DATA:
        raise LocalProtocolError(f"GB/T 26875.3 data unit of {len(packet.data)} bytes, at most 1024", reason="length")
    if not 0 <= packet.serial <= 0xFFFF or not 0 <= packet.command <= 0xFF or len(packet.stamp) != 6:
        raise LocalProtocolError("GB/T 26875.3: serial is 0..65535, command 0..255, time 6 bytes", reason="range")
    body = b"".join(
        (
            packet.serial.to_bytes(2, "little"),
            bytes(packet.version),
            packet.stamp,
            _address(packet.source),
            _address(packet.destination),
            len(packet.data).to_bytes(2, "little"),
            bytes((packet.command,)),
            packet.data,
        )
    )
    frame = START + body + b"\0" + END
    return START + body + bytes((checksum(frame),)) + END


def _address(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError as exc:
        raise LocalProtocolError(f"GB/T 26875.3 address {text!r} is not hex", reason="address") from exc
    if len(raw) != 6 or len(text) != 12:
        raise LocalProtocolError(f"GB/T 26875.3 address {text!r}: 12 hex digits, high byte first", reason="address")
    return raw[::-1]


def answer(packet: Packet, command: int, *, data: bytes = b"", stamp: bytes | None = None) -> Packet:
    """Confirm, reply or deny: the serial number of what it answers, source and destination swapped."""
    return replace(
        packet,
        command=command,
        source=packet.destination,
        destination=packet.source,
        data=data,
        stamp=packet.stamp if stamp is None else stamp,
    )


def request_answer(packet: Packet) -> Packet:
    """What a transmitter says to a control command or a request it has nothing more to say to."""
    return answer(packet, CONFIRM if packet.command == CONTROL else REPLY, data=packet.data)
