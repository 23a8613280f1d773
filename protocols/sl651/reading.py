"""From the body of a telegram to a message: what is there is read, what cannot be read is kept as ``rest``.

The checksum has already been right when this runs, so nothing here refuses a telegram for one odd element; only a body
too short for its opening is no message.
"""

from __future__ import annotations

from protocols.core.errors import RemoteProtocolError
from protocols.sl651.elements import BY_NAME, STATION_TYPES, Element
from protocols.sl651.frame import Telegram
from protocols.sl651.messages import (
    DATA,
    READ_BASIC,
    READ_ELEMENTS,
    READ_PERIOD,
    READ_RUN,
    SETTINGS,
    VERSION,
    Continued,
    Group,
    Message,
    Plain,
    Question,
    Report,
    Setting,
    Settings,
    Version,
)

_OPENING = 8  # serial number and time
_ASKS_BY_ID = frozenset({READ_ELEMENTS, READ_BASIC, READ_RUN})


def read(telegram: Telegram) -> Message:
    """The message in a telegram. Raises RemoteProtocolError (reason ``format``) if there is none in it."""
    if telegram.is_part and telegram.seq > 1 and not telegram.down:
        return Continued(telegram.body)
    return _read_ascii(telegram) if telegram.ascii else _read_hex(telegram)


def _read_hex(telegram: Telegram) -> Message:
    body, func = telegram.body, telegram.func
    if len(body) < _OPENING:
        raise RemoteProtocolError("SL 651 body without serial number and time", reason="format")
    serial, sent = int.from_bytes(body[:2], "big"), body[2:_OPENING].hex().upper()
    rest = body[_OPENING:]
    if not rest:
        return Plain(serial, sent)
    if telegram.down:
        # Some centres name the station in the body as well.
        asked = body[_station(body)[1] :]
        if func == READ_PERIOD and len(asked) >= 13:
            return _period(serial, sent, asked)
        if func in _ASKS_BY_ID:
            wanted, left = _names(asked)
            return Question(serial, sent, wanted, rest=left)
    if func in SETTINGS:
        station, at = _station(body)
        items, left = _settings(body, at)
        if items or not left:
            return Settings(serial, sent, items, station, left) if items else Plain(serial, sent, station)
        return Plain(serial, sent, station, left)
    if func == VERSION:
        station, at = _station(body)
        size = body[at] if at < len(body) else 0
        return Version(serial, sent, station, body[at + 1 : at + 1 + size], body[at + 1 + size :])
    report = _report(serial, sent, body, kinds=func in DATA)
    if func in DATA or report.groups or report.manual is not None or report.picture is not None:
        return report
    station, at = _station(body)
    return Plain(serial, sent, station, body[at:])


def _station(body: bytes) -> tuple[str, int]:
    """The station that a configuration reply names (``F1 F1`` + 5 bytes, no kind), and where what follows begins."""
    if body[_OPENING : _OPENING + 2] == b"\xf1\xf1" and len(body) >= _OPENING + 7:
        return body[_OPENING + 2 : _OPENING + 7].hex().upper(), _OPENING + 7
    return "", _OPENING


def _names(data: bytes) -> tuple[tuple[tuple[str, int], ...], bytes]:
    out: list[tuple[str, int]] = []
    at = 0
    while at < len(data):
        width = 2 if data[at] == 0xFF else 1
        if at + width >= len(data):
            break
        out.append((data[at : at + width].hex().upper(), data[at + width]))
        at += width + 1
    return tuple(out), data[at:]


def _period(serial: int, sent: str, rest: bytes) -> Question:
    begin, end = rest[:4].hex().upper(), rest[4:8].hex().upper()
    step, at = "", 8
    if rest[8:10] == b"\x04\x18":
        step, at = rest[10:13].hex().upper(), 13
    wanted, left = _names(rest[at:])
    return Question(serial, sent, wanted, begin, end, step, left)


def _settings(body: bytes, at: int) -> tuple[tuple[Setting, ...], bytes]:
    out: list[Setting] = []
    while at + 1 < len(body):
        identifier, definition = f"{body[at]:02X}", body[at + 1]
        end = at + 2 + (definition >> 3)
        if end > len(body):
            break
        out.append(Setting(identifier, definition, body[at + 2 : end], at))
        at = end
    return tuple(out), body[at:]


def _has_kind(body: bytes, at: int, kinds: bool) -> bool:
    """Whether the kind of station stands behind the station. Data reports have it, configuration replies do not; what
    is followed by an observation time decides for itself."""
    if body[at : at + 2] == b"\xf0\xf0" and body[at + 2 : at + 3] != b"\xf0":
        return False
    return at < len(body) and (kinds or body[at + 1 : at + 3] == b"\xf0\xf0")


def _report(serial: int, sent: str, body: bytes, *, kinds: bool) -> Report:
    at = _OPENING
    station = kind = observed = ""
    manual: bytes | None = None
    picture: bytes | None = None
    groups: list[Group] = []
    elements: list[Element] = []
    group_at = at

    def close() -> None:
        if elements or observed:
            groups.append(Group(observed, tuple(elements), group_at))
            elements.clear()

    while at + 1 < len(body):
        mark = body[at : at + 2]
        if mark == b"\xf1\xf1" and len(body) >= at + 7:
            station = body[at + 2 : at + 7].hex().upper()
            at += 7
            if _has_kind(body, at, kinds):
                kind = f"{body[at]:02X}"
                at += 1
        elif mark == b"\xf0\xf0" and len(body) >= at + 7:
            close()
            observed, group_at = body[at + 2 : at + 7].hex().upper(), at
            at += 7
        elif mark == b"\xf2\xf2":
            manual, at = body[at + 2 :], len(body)
        elif mark == b"\xf3\xf3":
            picture, at = body[at + 2 :], len(body)
        else:
            width = 2 if body[at] == 0xFF else 1
            data_at = at + width + 1
            if data_at > len(body):
                break
            definition = body[at + width]
            end = data_at + (definition >> 3)
            if end > len(body):
                break
            identifier = body[at : at + width].hex().upper()
            elements.append(Element(identifier, definition, body[data_at:end], at=at, size=end - at))
            at = end
    close()
    return Report(serial, sent, station, kind, tuple(groups), manual, picture, body[at:])


# -- ASCII


def _read_ascii(telegram: Telegram) -> Message:
    text = telegram.body.decode("latin-1")
    words: list[tuple[str, int]] = []
    at = 0
    for word in text.split(" "):
        if word.strip():
            words.append((word.strip(), at))
        at += len(word) + 1
    head = ""
    while words and len(head) < 16:
        head += words.pop(0)[0]
    try:
        serial = int(head[:4], 16)
    except ValueError:
        raise RemoteProtocolError("SL 651 body without serial number and time", reason="format") from None
    if len(head) < 16 or not head.isascii():
        raise RemoteProtocolError("SL 651 body without serial number and time", reason="format")
    sent = head[4:16]
    if not words:
        return Plain(serial, sent)
    return _ascii_report(serial, sent, words)


def _ascii_report(serial: int, sent: str, words: list[tuple[str, int]]) -> Report:
    station = kind = observed = ""
    groups: list[Group] = []
    elements: list[Element] = []
    rest: list[str] = []
    n = group_at = 0

    def close() -> None:
        if elements or observed:
            groups.append(Group(observed, tuple(elements), group_at))
            elements.clear()

    while n < len(words):
        name, at = words[n]
        value = words[n + 1][0] if n + 1 < len(words) else ""
        if name == "ST" and value:
            station = value
            n += 2
            if n < len(words) and len(words[n][0]) == 1 and f"{ord(words[n][0]):02X}" in STATION_TYPES:
                kind = f"{ord(words[n][0]):02X}"
                n += 1
        elif name == "TT" and value:
            close()
            observed, group_at = value, at
            n += 2
        elif value:
            known = BY_NAME.get(name.upper())
            size = words[n + 1][1] + len(value) - at
            elements.append(Element(known.id if known else name, text=value, at=at, size=size))
            n += 2
        else:
            rest.append(name)
            n += 1
    close()
    return Report(serial, sent, station, kind, tuple(groups), rest=" ".join(rest).encode("latin-1"))
