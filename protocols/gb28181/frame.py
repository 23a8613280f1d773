"""SIP messages as cameras send them: text cut out of a TCP stream or a datagram (RFC 3261 section 7, tolerant).

Tolerated because it is in the field: LF for CRLF, compact and oddly spaced header names, a missing Content-Length on
UDP, one that counts characters of a GBK body instead of bytes, blank lines and NULs between messages. There is no
checksum, so a message ends where its Content-Length says, unless the next message begins before that: then the length
was wrong, and nobody behind it suffers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

METHODS = (
    "REGISTER", "MESSAGE", "INVITE", "ACK", "BYE", "CANCEL", "INFO", "OPTIONS", "SUBSCRIBE", "NOTIFY", "UPDATE",
    "PRACK", "REFER", "PUBLISH",
)  # fmt: skip
MOST_HEAD = 16 * 1024
#: A catalogue part is 1 to 4 channels in the standard; some platforms put hundreds into one message over TCP.
MOST_BODY = 128 * 1024
_MOST_LINE = 1_024

#: RFC 3261 section 7.3.3, and SUBSCRIBE's two.
_COMPACT = {
    "i": "Call-ID", "m": "Contact", "e": "Content-Encoding", "l": "Content-Length", "c": "Content-Type", "f": "From",
    "s": "Subject", "k": "Supported", "t": "To", "v": "Via", "o": "Event", "u": "Allow-Events",
}  # fmt: skip
_SPELLED = {"call-id": "Call-ID", "cseq": "CSeq", "www-authenticate": "WWW-Authenticate", "x-gb-ver": "X-GB-Ver"}

_START = re.compile(
    rb"(?:(?:%b) (?:sips?|tel):[^\s]{1,512} (?i:SIP)/2\.0|(?i:SIP)/2\.0 [1-6]\d\d(?: [^\r\n]{0,256})?)[ \t]*\r?\n"
    % "|".join(METHODS).encode()
)
_KEYWORDS = (*(f"{method} ".encode() for method in METHODS), b"SIP/2.0 ")
_HEAD_END = re.compile(rb"\n\r?\n")
_FOLD = re.compile(r"\r?\n[ \t]+")
_HEADER = re.compile(r"([!-9;-~]{1,64})[ \t]{0,16}:(.*)$")
_NAME = re.compile(r"[!-9;-~]{1,64}\Z")
_BETWEEN = b"\r\n\0 \t"


@dataclass(frozen=True, slots=True)
class SipMessage:
    """A request (``method``, ``uri``) or a response (``status``, ``reason``).

    ``headers`` in order, names spelled in full, without Content-Length: that is made from the body. ``length_ok``
    False: the length stated was another one and the body was found by its own end.
    """

    method: str = ""
    uri: str = ""
    status: int = 0
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length_ok: bool = field(default=True, compare=False)
    stated_length: int | None = field(default=None, compare=False)

    @property
    def is_request(self) -> bool:
        return bool(self.method)

    def get(self, name: str) -> str:
        """The first header of that name, "" if there is none."""
        lower = name.lower()
        return next((value for key, value in self.headers if key.lower() == lower), "")

    def all(self, name: str) -> tuple[str, ...]:
        lower = name.lower()
        return tuple(value for key, value in self.headers if key.lower() == lower)

    @property
    def cseq(self) -> tuple[int, str]:
        """Number and method of CSeq; (0, "") if it is none."""
        number, _, method = self.get("CSeq").strip().partition(" ")
        return (int(number) if number.isdecimal() and len(number) < 11 else 0, method.strip())


def build(message: SipMessage) -> bytes:
    """The bytes on the wire. Raises LocalProtocolError for what would break out of its line."""
    if message.is_request:
        start = f"{message.method} {message.uri} SIP/2.0"
        if message.method not in METHODS:
            raise LocalProtocolError(f"SIP method {message.method!r}", reason="method")
    else:
        start = f"SIP/2.0 {message.status} {message.reason}".rstrip()
        if not 100 <= message.status <= 699:
            raise LocalProtocolError(f"SIP status {message.status}", reason="status")
    for name, value in (("start line", start), *message.headers):
        if "\r" in value or "\n" in value or "\0" in value:
            raise LocalProtocolError(f"SIP {name} holds a line end", reason="header")
    for name, _ in message.headers:
        if not _NAME.match(name) or name.lower() == "content-length":
            raise LocalProtocolError(f"SIP header name {name!r}", reason="header")
    lines = [start, *(f"{name}: {value}" for name, value in message.headers), f"Content-Length: {len(message.body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + message.body


def parse_datagram(data: bytes) -> SipMessage | None:
    """The message in one datagram; None for a keep-alive of blank lines. Raises RemoteProtocolError."""
    data = data.lstrip(_BETWEEN)
    if not data:
        return None
    start = _START.match(data)
    if start is None:
        raise RemoteProtocolError("SIP datagram without a start line", reason="garbage")
    found = _HEAD_END.search(data, start.end() - 1)
    if found is None:
        if not data.endswith(b"\n"):
            raise RemoteProtocolError("SIP header cut off", reason="short")
        head_end = len(data)  # some leave out the blank line where there is no body
    else:
        head_end = found.end()
    if head_end > MOST_HEAD:
        raise RemoteProtocolError(f"SIP header of {head_end} bytes", reason="length")
    head = _head(data[:head_end])
    body = data[head_end:]
    stated = head.stated_length
    if stated is None or stated == len(body):
        return _with_body(head, body, length_ok=True)
    if stated < len(body) and (not _is_xml(body) or _closed(body[:stated]) or not _closed(body)):
        return _with_body(head, body[:stated], length_ok=True)
    if _closed(body):
        return _with_body(head, body, length_ok=False)
    raise RemoteProtocolError(f"SIP body of {len(body)} bytes, {stated} stated", reason="short")


def _with_body(head: SipMessage, body: bytes, *, length_ok: bool) -> SipMessage:
    return SipMessage(
        head.method, head.uri, head.status, head.reason, head.headers, body, length_ok, head.stated_length
    )


def _is_xml(body: bytes) -> bool:
    return body.lstrip().startswith(b"<")


def _closed(body: bytes) -> bool:
    """An XML body that is whole by its own account: the first element's end tag is its last word."""
    root = re.match(rb"\s*(?:<\?[^>]*\?>\s*)?<([A-Za-z]\w*)", body)
    return root is not None and body.rstrip(_BETWEEN).endswith(b"</" + root[1] + b">")


def _text(data: bytes) -> str:
    for encoding in ("utf-8", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _head(data: bytes) -> SipMessage:
    """Start line and headers. Lines that are no header are left out: one bad line costs itself."""
    text = _FOLD.sub(" ", _text(data).rstrip())
    first, _, rest = text.partition("\n")
    headers: list[tuple[str, str]] = []
    stated: int | None = None
    for line in rest.split("\n"):
        found = _HEADER.match(line.rstrip("\r"))
        if found is None:
            continue
        name, value = spelled(found[1]), found[2].strip(" \t")
        if name == "Content-Length":
            stated = int(value) if value.isdecimal() and len(value) < 10 else None
        else:
            headers.append((name, value))
    words = first.strip().split(" ", 2)
    if words[0].upper() == "SIP/2.0":
        status, reason = int(words[1]), words[2].strip() if len(words) > 2 else ""
        return SipMessage(status=status, reason=reason, headers=tuple(headers), stated_length=stated)
    return SipMessage(words[0], words[1], headers=tuple(headers), stated_length=stated)


def spelled(name: str) -> str:
    """A header name in full and as RFC 3261 writes it."""
    lower = name.lower()
    return _COMPACT.get(lower) or _SPELLED.get(lower) or "-".join(part.capitalize() for part in lower.split("-"))


class Scanner:
    """Cuts a TCP stream into messages."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._in_noise = False

    @property
    def held(self) -> int:
        """Bytes waiting for more."""
        return len(self._held)

    def feed(self, data: bytes) -> list[SipMessage | RemoteProtocolError]:
        out: list[SipMessage | RemoteProtocolError] = []
        # In slices, so that a huge read cannot make the buffer huge.
        for at in range(0, len(data), 4096):
            self._held += data[at : at + 4096]
            out.extend(self._drain())
        return out

    def idle(self) -> list[SipMessage | RemoteProtocolError]:
        """Nothing more comes: a body that is whole by its own account is taken, anything else given up."""
        out: list[SipMessage | RemoteProtocolError] = []
        if self._held.strip(_BETWEEN):
            start = _START.match(self._held)
            cut = self._cut_at(len(self._held)) if start is not None else None
            out.append(cut if cut is not None else RemoteProtocolError("SIP message cut off", reason="short"))
        self.reset()
        return out

    def reset(self) -> None:
        self._held.clear()
        self._in_noise = False

    def _drain(self) -> Iterator[SipMessage | RemoteProtocolError]:
        held = self._held
        while held:
            start = _START.search(held)
            if start is None:
                yield from self._keep_tail()
                return
            if start.start():
                yield from self._skip(start.start())
                continue
            following = _START.search(held, start.end())
            limit = following.start() if following else len(held)
            head_end = _HEAD_END.search(held, start.end() - 1)
            if head_end is None or head_end.end() > limit:
                if following is None and len(held) <= MOST_HEAD:
                    return
                yield from self._report("short" if following else "length")
                del held[: limit if following else start.end()]
                continue
            if head_end.end() > MOST_HEAD:
                yield from self._report("length")
                del held[: start.end()]
                continue
            head = _head(bytes(held[: head_end.end()]))
            stated = head.stated_length or 0
            if stated > MOST_BODY:
                yield from self._report("length")
                del held[: head_end.end()]
                continue
            end = head_end.end() + stated
            if limit < end and following is not None:
                # The next message begins inside this one's body: the length was too long.
                cut = self._cut_at(limit)
                if cut is None:
                    yield from self._report("length")
                else:
                    self._in_noise = False
                    yield cut
                del held[:limit]
                continue
            if len(held) < end:
                return
            message = _with_body(head, bytes(held[head_end.end() : end]), length_ok=True)
            del held[:end]
            self._in_noise = False
            yield message

    def _cut_at(self, end: int) -> SipMessage | None:
        """The message at the front if its XML body ends before ``end`` by its own account."""
        start = _START.match(self._held)
        found = _HEAD_END.search(self._held, start.end() - 1) if start else None
        if found is None or found.end() > end:
            return None
        body = bytes(self._held[found.end() : end])
        return _with_body(_head(bytes(self._held[: found.end()])), body, length_ok=False) if _closed(body) else None

    def _keep_tail(self) -> Iterator[RemoteProtocolError]:
        """No start line is whole: keep what may become one, let the rest go."""
        held = self._held
        floor = max(0, len(held) - _MOST_LINE)
        line = held.rfind(b"\n", floor) + 1 or floor
        starts = [at for word in _KEYWORDS for at in _places(held, word, line)]
        keep = min(starts, default=len(held))
        if keep:
            yield from self._skip(keep)

    def _skip(self, count: int) -> Iterator[RemoteProtocolError]:
        noise = bytes(self._held[:count])
        del self._held[:count]
        if noise.strip(_BETWEEN):
            yield from self._report("garbage")

    def _report(self, reason: str) -> Iterator[RemoteProtocolError]:
        if reason == "garbage" and self._in_noise:
            return
        self._in_noise = True
        yield RemoteProtocolError(f"SIP message refused: {reason}", reason=reason)


def _places(held: bytearray, word: bytes, since: int) -> Iterator[int]:
    """Where ``word`` stands whole behind ``since``, or has begun at the end."""
    at = held.find(word, since)
    while at >= 0:
        yield at
        at = held.find(word, at + 1)
    for size in range(min(len(word) - 1, len(held) - since), 0, -1):
        if held.endswith(word[:size]):
            yield len(held) - size
