"""From the body of a telegram to a message: what is there is read, what cannot be read is kept as ``rest``.

The checksum has already been right when this runs, so nothing here refuses a telegram for one odd element; only a body
too short for its opening is no message.
"""

from __future__ import annotations

import re
from dataclasses import replace

from protocols.core.errors import RemoteProtocolError
from protocols.sl651.elements import (
    BY_NAME,
    ELEMENTS,
    SLOTS,
    STATION_TYPES,
    TIME_STEP,
    Element,
    is_number,
    series_width,
    step_ms,
)
from protocols.sl651.frame import Telegram
from protocols.sl651.messages import (
    CODED,
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
_ASCII_OPENING = re.compile(r"\s*([0-9A-Fa-f]{4})\s*(\d{12})", re.ASCII)
_STEP_NAME = re.compile(r"DR[DHN](\d\d)", re.ASCII)
_WORD = re.compile(r"[^ \r\n\t]+")
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
    if func in CODED:
        station, at = _station(body)
        return Plain(serial, sent, station, body[at:])
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
        elif elements and elements[-1].id == TIME_STEP and (stepped := _stepped(body, at, elements[-1].raw)):
            elements += stepped
            at = max(one.at + one.size for one in stepped)
        elif (one := _element(body, at)) is not None:
            elements.append(one)
            at += one.size
        else:
            break
    close()
    return Report(serial, sent, station, kind, tuple(groups), manual, picture, body[at:])


def _element(body: bytes, at: int) -> Element | None:
    """The element that begins there; None if it is not all there."""
    width = 2 if body[at] == 0xFF else 1
    if at + width >= len(body):
        return None
    identifier, definition = body[at : at + width].hex().upper(), body[at + width]
    begin, size = at + width + 1, definition >> 3
    slot = series_width(identifier)
    if slot and size % slot:
        size = SLOTS * slot  # F5 5C is in the field: eleven bytes are said, an hour is twenty-four
    end = begin + size
    if end > len(body):
        return None
    return Element(identifier, definition, body[begin:end], at=at, size=end - at)


def _stepped(body: bytes, at: int, step: bytes) -> list[Element]:
    """What follows a time step (31 and 38): identifiers once, then the values of step after step. Empty where ordinary
    elements stand there."""
    end = body.find(b"\xf0\xf0", at)
    end = len(body) if end < 0 else end
    if _ordinary(body, at, end):
        return []
    heads: list[Element] = []
    while (head := _head(body[:end], at)) is not None:
        heads.append(replace(head, step_ms=head.step_ms if series_width(head.id) else step_ms(step)))
        at += head.size
        widths = [one.definition >> 3 for one in heads]
        room = end - at
        if room and room % sum(widths) == 0:
            break
    else:
        return []
    raws = [b""] * len(heads)
    place = at
    while place < end:
        for n, width in enumerate(widths):
            raws[n] += body[place : place + width]
            place += width
    # The last identifier takes the bytes of all the values.
    heads[-1] = replace(heads[-1], size=end - heads[-1].at)
    return [replace(one, raw=raw) for one, raw in zip(heads, raws, strict=True)]


def _head(body: bytes, at: int) -> Element | None:
    """Identifier and definition byte of an element that is known, or a maker's own; None if there is none."""
    width = 2 if body[at : at + 1] == b"\xff" else 1
    head = body[at : at + width + 1]
    identifier = head[:width].hex().upper()
    if len(head) <= width or not head[width] >> 3 or not (identifier in ELEMENTS or (width == 2 and head[1] < 0xF0)):
        return None
    return Element(identifier, head[width], at=at, size=width + 1)


def _ordinary(body: bytes, at: int, end: int) -> bool:
    """Whether known elements with their usual lengths fill the bytes up to there."""
    while at < end:
        one = _element(body[:end], at)
        known = None if one is None else ELEMENTS.get(one.id)
        if one is None or known is None or known.definition >> 3 != one.definition >> 3:
            return False
        at += one.size
    return True


# -- ASCII


def _read_ascii(telegram: Telegram) -> Message:
    text = telegram.body.decode("latin-1")
    # Sixteen digits, then the words: by the standard at once (..0000ST), others put a blank there or between the two.
    opening = _ASCII_OPENING.match(text)
    if opening is None:
        raise RemoteProtocolError("SL 651 body without serial number and time", reason="format")
    serial, sent = int(opening[1], 16), opening[2]
    words = [(word[0], word.start()) for word in _WORD.finditer(text, opening.end())]
    if not words:
        return Plain(serial, sent)
    return _ascii_report(serial, sent, words)


def _ascii_kind(word: str) -> str:
    """The kind of station that a word says: by its letter, or as two hex digits; "" for none."""
    code = f"{ord(word):02X}" if len(word) == 1 else word.upper()
    return code if code in STATION_TYPES else ""


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
        step = _STEP_NAME.fullmatch(name)
        if name == "ST" and value:
            station = value
            n += 2
            if n < len(words) and (said := _ascii_kind(words[n][0])):
                kind = said
                n += 1
        elif name == "TT" and value:
            close()
            observed, group_at = value, at
            n += 2
        elif value or step:
            # A time step says itself (DRN05: five minutes); behind one a name has as many values as it likes.
            last = n if step and not is_number(value) else n + 1
            while last + 1 < len(words) and is_number(words[last][0]) and is_number(words[last + 1][0]):
                last += 1
            text = " ".join(word for word, _ in words[n + 1 : last + 1]) or (step[1] if step else "")
            known = BY_NAME.get(name.upper())
            size = words[last][1] + len(words[last][0]) - at
            elements.append(Element(known.id if known else name, text=text, at=at, size=size))
            n = last + 1
        else:
            rest.append(name)
            n += 1
    close()
    return Report(serial, sent, station, kind, tuple(groups), rest=" ".join(rest).encode("latin-1"))
