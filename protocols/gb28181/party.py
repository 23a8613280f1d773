"""What platform and camera have in common: requests that are repeated until answered, answers that are given again.

Sans-IO: messages come in by :meth:`Party.feed` with whom they came from, :meth:`Party.take_output` gives what is to be
sent to whom. On UDP a request is repeated after 0.5, 1, 2, 4, 4 ... s (RFC 3261 section 17.1); a request that comes
again (same sender, branch, Call-ID and CSeq) gets the same answer and means nothing new.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from protocols.gb28181 import headers
from protocols.gb28181.frame import SipMessage

T1_MS, T2_MS = 500, 4_000
#: Shorter than RFC 3261's 32 s: an order to a camera that comes half a minute late is worse than none.
ANSWER_MS = 8_000
#: How long an answer is kept for a request that comes again.
REMEMBER_MS = 32_000
_MOST_OPEN = 4_096
_MOST_REMEMBERED = 4_096

CHINA = timezone(timedelta(hours=8))

REASONS = {
    100: "Trying", 200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 481: "Call/Transaction Does Not Exist", 486: "Busy Here", 488: "Not Acceptable Here",
    503: "Service Unavailable",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a message came from and an answer goes to. ``link``: which TCP connection (0 on UDP)."""

    host: str
    port: int
    transport: Literal["udp", "tcp"] = "udp"
    link: int = 0

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Finished:
    """One of our requests was answered, or not: ``status`` 0 means that nothing came."""

    context: Any
    status: int
    message: SipMessage | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class _Open:
    __slots__ = ("context", "due_ms", "message", "peer", "until_ms", "wait_ms")

    def __init__(self, message: SipMessage, peer: Peer, context: Any, now_ms: int, answer_ms: int) -> None:
        self.message = message
        self.peer = peer
        self.context = context
        self.wait_ms = T1_MS
        self.until_ms = now_ms + answer_ms
        self.due_ms = now_ms + T1_MS if peer.transport == "udp" else self.until_ms


class Party:
    """``token``: random text for tags, branches and Call-IDs (a test gives a counter). ``host``, ``port``: what Via and
    Contact say; the other side answers to where the packet came from."""

    def __init__(self, id: str, realm: str, host: str, port: int, token: Callable[[], str], agent: str) -> None:
        self.id = id
        self.realm = realm
        self.host, self.port = host, port
        self.agent = agent
        self._token = token
        self._cseq = 0
        self._open: OrderedDict[str, _Open] = OrderedDict()  # by branch
        self._answered: OrderedDict[tuple[Any, ...], tuple[int, SipMessage]] = OrderedDict()
        self._output: list[tuple[Peer, SipMessage]] = []
        self.given_up = 0  # requests thrown away because too many were open

    def take_output(self) -> list[tuple[Peer, SipMessage]]:
        out, self._output = self._output, []
        return out

    # -- in

    def feed(self, message: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        """One message; what it means. Unreadable ones are answered 400 or dropped, never raised."""
        if not message.is_request:
            return self._response(message, peer, now_ms)
        key = (peer, message.method, headers.tag(message.get("From")), message.get("Call-ID"), message.get("CSeq"),
               (headers.via(message.get("Via")) or _NO_VIA).branch, hash(message.body))  # fmt: skip
        known = self._answered.get(key)
        if known is not None and message.method != "ACK":
            self._output.append((peer, known[1]))
            return []
        before = len(self._output)
        events = self._request(message, peer, now_ms)
        for _, sent in self._output[before:]:
            if not sent.is_request and sent.get("Call-ID") == message.get("Call-ID"):
                self._answered[key] = (now_ms, sent)
        while len(self._answered) > _MOST_REMEMBERED:
            self._answered.popitem(last=False)
        return events

    def _response(self, message: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        via = headers.via(message.get("Via"))
        branch = via.branch if via is not None else ""
        one = self._open.get(branch)
        if one is None or message.cseq[1] != one.message.method:
            return self._late(message, peer, now_ms)
        if message.status < 200:
            one.due_ms = one.until_ms  # it is being worked on: no more repeats
            return []
        del self._open[branch]
        return self._finished(Finished(one.context, message.status, message), one.message, peer, now_ms)

    # -- what a kind of party does

    def _request(self, message: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        raise NotImplementedError

    def _finished(self, end: Finished, request: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        return [end]

    def _late(self, message: SipMessage, peer: Peer, now_ms: int) -> list[Any]:
        """A response to nothing open (repeated 200 of an INVITE)."""
        return []

    # -- out

    def _send(
        self, method: str, uri: str, to: str, peer: Peer, now_ms: int, context: Any = None, *,
        call_id: str = "", from_tag: str = "", cseq: int = 0, more: Sequence[tuple[str, str]] = (), body: bytes = b"",
        answer_ms: int = ANSWER_MS,
    ) -> SipMessage:  # fmt: skip
        """Send a request; ``to`` is the whole To header."""
        self._cseq += 1
        branch = f"z9hG4bK{self._token()}"
        message = SipMessage(method, uri, headers=(
            ("Via", f"SIP/2.0/{peer.transport.upper()} {self.host}:{self.port};rport;branch={branch}"),
            ("From", f"<sip:{self.id}@{self.realm}>;tag={from_tag or self._token()}"),
            ("To", to),
            ("Call-ID", call_id or f"{self._token()}@{self.host}"),
            ("CSeq", f"{cseq or self._cseq} {method}"),
            ("Max-Forwards", "70"),
            ("User-Agent", self.agent),
            *more,
        ), body=body)  # fmt: skip
        self._output.append((peer, message))
        if method != "ACK":
            self._open[branch] = _Open(message, peer, context, now_ms, answer_ms)
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
                self.given_up += 1
        return message

    def _answer(
        self, request: SipMessage, peer: Peer, status: int, more: Sequence[tuple[str, str]] = (), body: bytes = b"",
        to_tag: str = "",
    ) -> None:  # fmt: skip
        """Answer a request: its Via with where it came from, its From, To with a tag, Call-ID and CSeq."""
        vias = list(request.all("Via"))
        if vias:
            vias[0] = _received(vias[0], peer)
        to = request.get("To")
        if status != 100 and "tag=" not in to:
            to = f"{to};tag={to_tag or self._token()}"
        head = [("Via", via) for via in vias]
        head += [("From", request.get("From")), ("To", to), ("Call-ID", request.get("Call-ID"))]
        head += [("CSeq", request.get("CSeq")), ("User-Agent", self.agent), *more]
        response = SipMessage(status=status, reason=REASONS.get(status, "Error"), headers=tuple(head), body=body)
        self._output.append((peer, response))

    # -- time

    def deadline(self) -> int | None:
        return min((min(one.due_ms, one.until_ms) for one in self._open.values()), default=None)

    def tick(self, now_ms: int) -> list[Any]:
        """Repeat what is due, give up what is overdue."""
        while self._answered and next(iter(self._answered.values()))[0] < now_ms - REMEMBER_MS:
            self._answered.popitem(last=False)
        out: list[Any] = []
        for branch, one in list(self._open.items()):
            if now_ms >= one.until_ms:
                self._open.pop(branch, None)
                out += self._finished(Finished(one.context, 0), one.message, one.peer, now_ms)
            elif now_ms >= one.due_ms:
                one.wait_ms = min(2 * one.wait_ms, T2_MS)
                one.due_ms = now_ms + one.wait_ms
                self._output.append((one.peer, one.message))
        return out


_NO_VIA = headers.Via("", "", 0, "", "", None)


def _received(via: str, peer: Peer) -> str:
    """The topmost Via with the address the packet came from (RFC 3581): cameras behind NAT learn it from there."""
    first, comma, rest = via.partition(",")
    parts = [part for part in first.split(";") if part.split("=")[0].strip().lower() not in ("rport", "received")]
    parts += [f"rport={peer.port}", f"received={peer.host}"]
    return ";".join(parts) + comma + rest


def date_text(now_ms: int) -> str:
    """The Date of a 200 to REGISTER: local time, milliseconds, no zone. Devices set their clock from it."""
    return datetime.fromtimestamp(now_ms / 1000, CHINA).strftime("%Y-%m-%dT%H:%M:%S.") + f"{now_ms % 1000:03d}"


def time_text(moment_ms: int) -> str:
    """A time in a body: local, whole seconds."""
    return datetime.fromtimestamp(moment_ms / 1000, CHINA).strftime("%Y-%m-%dT%H:%M:%S")


def time_ms(text: str) -> int | None:
    """A local time in a body or Date header, with or without fraction and zone. None for what is no time."""
    try:
        moment = datetime.fromisoformat(text.strip().replace("/", "-"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=CHINA)
    try:
        return round(moment.timestamp() * 1000)
    except (OverflowError, ValueError):
        return None
