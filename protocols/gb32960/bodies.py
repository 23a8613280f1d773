"""What the data of each command mean: a typed view of a message, and data to send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.gb32960.items import Item, join, parse_items
from protocols.gb32960.messages import QUERY, Message, filled, parse_time, text_of


@dataclass(frozen=True, slots=True)
class Login:
    """Command 01. ``serial``: 1 each day, up to 65531. ``packs``: codes of the battery packs; 2025: by BMS."""

    stamp: bytes
    serial: int
    iccid: str
    code_length: int
    packs: tuple[tuple[str, ...], ...]

    def size(self, edition: str) -> int:
        """Bytes of the data that this takes."""
        codes = sum(len(bms) for bms in self.packs) * self.code_length
        return codes + (29 + len(self.packs) if edition == "2025" else 30)


@dataclass(frozen=True, slots=True)
class Logout:
    """Commands 04 and 06: the serial number of the login."""

    stamp: bytes
    serial: int


@dataclass(frozen=True, slots=True)
class PlatformLogin:
    """Command 05."""

    stamp: bytes
    serial: int
    user: str
    password: str
    encryption: int


@dataclass(frozen=True, slots=True)
class Report:
    """Commands 02 and 03. ``rest``: bytes that are no known item."""

    stamp: bytes
    items: tuple[Item, ...]
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class Stamp:
    """An answer: the time of what it answers; of a time request: the platform's time."""

    stamp: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """Command 80: numbers of the parameters wanted."""

    stamp: bytes
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Command 81, and the answer to 80: parameter number -> value (text of hosts and versions)."""

    stamp: bytes
    values: tuple[tuple[int, int | str], ...]


@dataclass(frozen=True, slots=True)
class Control:
    """Command 82. ``order``: CONTROL_NAMES; ``parameter``: its bytes."""

    stamp: bytes
    order: int
    parameter: bytes = b""


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """Command 0B (2025)."""

    kind: int
    key: bytes
    valid_from: bytes
    valid_to: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """Encrypted data: not readable without the key."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Opaque:
    """Empty, or a platform's own."""

    data: bytes = b""


Body = (
    Login | Logout | PlatformLogin | Report | Stamp | Query | Parameters | Control | KeyExchange | Sealed | Opaque
)  # fmt: skip

#: Commands whose data begin with a time.
_STAMPED = frozenset({0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x80, 0x81, 0x82})

#: Parameter -> bytes of its number, 0 for a text whose length is the parameter before, "v" for a version of 5 bytes.
PARAMETERS: dict[int, tuple[str, str, int]] = {
    0x01: ("本地存储时间周期", "local storage period, ms", 2), 0x02: ("正常上报时间周期", "report period, s", 2),
    0x03: ("报警上报时间周期", "alarm report period, ms", 2), 0x04: ("平台域名长度", "host name length", 1),
    0x05: ("平台域名", "host name", 0), 0x06: ("平台端口", "port", 2), 0x07: ("硬件版本", "hardware version", 5),
    0x08: ("固件版本", "firmware version", 5), 0x09: ("心跳周期", "heartbeat period, s", 1),
    0x0A: ("终端应答超时", "terminal timeout, s", 2), 0x0B: ("平台应答超时", "platform timeout, s", 2),
    0x0C: ("登入失败重试间隔", "wait after failed login, min", 1),
    0x0D: ("公共平台域名长度", "public host length", 1),
    0x0E: ("公共平台域名", "public host", 0), 0x0F: ("公共平台端口", "public port", 2),
    0x10: ("抽样监测", "sampling", 1),
}  # fmt: skip
_SIZE_2025 = {0x02: 1, 0x03: 1}
CONTROL_NAMES: dict[int, tuple[str, str]] = {
    1: ("远程升级", "upgrade"), 2: ("终端关机", "shut down"), 3: ("终端复位", "reset"),
    4: ("恢复出厂设置", "factory reset"),
    5: ("断开通信链路", "drop the link"), 6: ("终端报警", "alarm"), 7: ("开启抽样监测", "start sampling"),
}  # fmt: skip


def read(message: Message) -> Body:
    """What a message says. Raises RemoteProtocolError (reason ``length``) where its data are too short for that."""
    data = message.data
    if not message.is_plain and data:
        return Sealed(data)
    if not message.is_command:
        if message.command == QUERY and len(data) >= 7:
            return _parameters(message)
        return Stamp(data[:6]) if len(data) >= 6 else Opaque(data)
    match message.command:
        case 0x01:
            return _login(message)
        case 0x02 | 0x03:
            items, rest = parse_items(_at_least(message, 6)[6:], message.edition)
            return Report(data[:6], items, rest)
        case 0x04 | 0x06:
            return Logout(_at_least(message, 8)[:6], int.from_bytes(data[6:8], "big"))
        case 0x05:
            _at_least(message, 41)
            return PlatformLogin(
                data[:6], int.from_bytes(data[6:8], "big"), text_of(data[8:20]), text_of(data[20:40]), data[40]
            )
        case 0x80:
            return _query(message)
        case 0x81:
            return _parameters(message)
        case 0x82:
            return Control(_at_least(message, 7)[:6], data[6], data[7:])
        case 0x0B:
            length = int.from_bytes(_at_least(message, 3)[1:3], "big")
            _at_least(message, 15 + length)
            return KeyExchange(
                data[0], data[3 : 3 + length], data[3 + length : 9 + length], data[9 + length : 15 + length]
            )
    return Opaque(data)


def beginning(message: Message) -> Body:
    """What can be said of data that :func:`read` refuses: the time, of a login its number too."""
    data = message.data
    if message.command not in _STAMPED or len(data) < 6:
        return Opaque(data)
    if message.command == 0x01 and len(data) >= 30:
        return Login(data[:6], int.from_bytes(data[6:8], "big"), text_of(data[8:28]), data[29], ((),))
    return Stamp(data[:6])


def deviating(message: Message) -> Report | None:
    """A report as the standard has none, for a reader of captures: items under an answer flag, or without the time in
    front. None unless the items fill the data; nobody stores such a thing, its time cannot be trusted."""
    if message.command not in (0x02, 0x03) or not message.is_plain or len(message.data) <= 6:
        return None
    with_time, without = (message.data[:6], message.data[6:]), (b"", message.data)
    order = (without, with_time) if parse_time(message.data[:6]) is None else (with_time, without)
    for stamp, data in order:
        items, rest = parse_items(data, message.edition)
        if items and not rest:
            return Report(stamp, items)
    return None


def _at_least(message: Message, size: int) -> bytes:
    if len(message.data) < size:
        text = f"GB/T 32960 command {message.command:#04x}: {len(message.data)} bytes of data, {size} are due"
        raise RemoteProtocolError(text, reason="length")
    return message.data


def _login(message: Message) -> Login:
    data = _at_least(message, 30)
    stamp, serial, iccid = data[:6], int.from_bytes(data[6:8], "big"), text_of(data[8:28])
    if message.edition == "2025":
        counts = tuple(_at_least(message, 29 + data[28])[29 : 29 + data[28]])
        at = 29 + len(counts)
        _at_least(message, at + 24 * sum(counts))
        packs: list[tuple[str, ...]] = []
        for count in counts:
            packs.append(tuple(text_of(data[at + 24 * n : at + 24 * n + 24]) for n in range(count)))
            at += 24 * count
        return Login(stamp, serial, iccid, 24, tuple(packs))
    count, size = data[28], data[29]
    _at_least(message, 30 + count * size)
    codes = tuple(text_of(data[30 + size * n : 30 + size * (n + 1)]) for n in range(count)) if size else ()
    return Login(stamp, serial, iccid, size, (codes,))


def _query(message: Message) -> Query | Parameters:
    """Numbers alone. Some terminals send their values with the flag of a command: then there are more bytes."""
    data = _at_least(message, 7)
    if len(data) > 7 + data[6]:
        try:
            return _parameters(message)
        except RemoteProtocolError:
            pass
    return Query(data[:6], tuple(data[7 : 7 + data[6]]))


def _parameters(message: Message) -> Parameters:
    data = _at_least(message, 7)
    out: list[tuple[int, int | str]] = []
    at, text_size = 7, 0
    for _ in range(data[6]):
        if at >= len(data):
            raise RemoteProtocolError("GB/T 32960 parameter list ends early", reason="length")
        number = data[at]
        if number not in PARAMETERS:
            raise RemoteProtocolError(f"GB/T 32960 parameter {number:#04x}: nobody knows its size", reason="parameter")
        size = _SIZE_2025.get(number) if message.edition == "2025" else None
        size = size or PARAMETERS[number][2] or text_size
        raw = _at_least(message, at + 1 + size)[at + 1 : at + 1 + size]
        is_text = PARAMETERS[number][2] in (0, 5)
        out.append((number, text_of(raw) if is_text else int.from_bytes(raw, "big")))
        text_size = raw[0] if number in (0x04, 0x0D) else 0
        at += 1 + size
    return Parameters(data[:6], tuple(out))


# -- data to send


def login_data(stamp: bytes, serial: int, iccid: str, packs: Sequence[str] = ()) -> bytes:
    """Data of command 01, 2016: pack codes of one length."""
    size = max((len(code.encode("gb18030")) for code in packs), default=0)
    codes = b"".join(filled(code, size, "pack code") for code in packs)
    return stamp + serial.to_bytes(2, "big") + filled(iccid, 20, "ICCID") + bytes((len(packs), size)) + codes


def login_data_2025(stamp: bytes, serial: int, iccid: str, packs: Sequence[Sequence[str]] = ()) -> bytes:
    """Data of command 01, 2025: pack codes of 24 bytes by BMS."""
    codes = b"".join(filled(code, 24, "pack code") for bms in packs for code in bms)
    counts = bytes(len(bms) for bms in packs)
    return stamp + serial.to_bytes(2, "big") + filled(iccid, 20, "ICCID") + bytes((len(packs),)) + counts + codes


def report_data(stamp: bytes, items: Sequence[Item]) -> bytes:
    """Data of commands 02 and 03."""
    return stamp + join(items)


def query_data(stamp: bytes, ids: Sequence[int]) -> bytes:
    """Data of command 80."""
    return stamp + bytes((len(ids), *ids))


def set_data(stamp: bytes, number: int, value: int, edition: str) -> bytes:
    """Data of command 81: one numeric parameter. Raises LocalProtocolError."""
    size = (_SIZE_2025.get(number) if edition == "2025" else None) or PARAMETERS[number][2]
    if not 0 <= value < 1 << 8 * size:
        raise LocalProtocolError(f"GB/T 32960-{edition} parameter {number:#04x}: {value} does not fit", reason="range")
    return stamp + bytes((1, number)) + value.to_bytes(size, "big")


def control_data(stamp: bytes, order: int, parameter: bytes = b"") -> bytes:
    """Data of command 82."""
    return stamp + bytes((order,)) + parameter
