"""Both ends of an OCPP-J conversation, sans-IO: MASTER is the central system, SLAVE the charging station.

WebSocket keeps messages apart, so :meth:`OcppEndpoint.feed` takes one whole message. What :meth:`OcppEndpoint.send`
gives is one message and a line feed (which JSON allows and compact JSON never has inside), so that a writer that
gathers several can part them again.

Held to: one CALL of ours outstanding (OCPP-J 1.6 section 4.1.1); a result belongs to the call with its id; an error or
a bad result is never answered. A call that comes again byte for byte gets the stored answer again, or none while the
first is still being stored: that is how a station repeats what it fears lost.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.ocpp.frame import (
    MAX_ID,
    Call,
    CallError,
    CallResult,
    FrameError,
    Message,
    MessageId,
    Version,
    encode,
    parse,
)
from protocols.ocpp.schema import actions, check, formation

TIMEOUT_MS = 30_000
#: Calls of the other side that we remember, answered or not.
REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Our call got no answer in time; whether it was carried out is not known."""

    call: Call


@dataclass(slots=True)
class _Taken:
    digest: int
    answer: bytes | None = None


Heard = Message | Unanswered


class OcppEndpoint:
    """One end of one connection. ``version`` is the negotiated sub-protocol's. ``checked`` off: what is sent may break
    the schema, as faulty stations do (the simulator plays them)."""

    def __init__(
        self, role: Role, *, version: Version = "1.6", timeout_ms: int = TIMEOUT_MS, checked: bool = True
    ) -> None:
        self.role = role
        self._checked = checked
        self.version: Version = version
        #: How often the other side broke the protocol in a way that could be lived with, by name.
        self.violations: dict[str, int] = {}
        self._timeout_ms = timeout_ms
        self._asked: tuple[Call, int] | None = None
        self._taken: OrderedDict[MessageId, _Taken] = OrderedDict()
        self._output: list[bytes] = []

    @property
    def busy(self) -> bool:
        """A call of ours waits for its answer."""
        return self._asked is not None

    def feed(self, data: bytes, now_ms: int) -> list[Heard | RemoteProtocolError]:
        """One whole WebSocket message."""
        try:
            message = parse(data)
        except FrameError as error:
            if error.id is not None:
                self._refuse(error.id, formation(self.version), str(error))
            return [error]
        match message:
            case Call():
                return self._called(message, zlib.crc32(data.strip()))
            case CallResult():
                return [self._result(message)]
            case CallError():
                return [self._error(message)]

    def _called(self, call: Call, digest: int) -> list[Heard | RemoteProtocolError]:
        if not isinstance(call.id, str) or not call.id or len(call.id) > MAX_ID:
            self._violated("message_id")
        taken = self._taken.get(call.id)
        if taken is not None:
            if taken.digest == digest:
                self._violated("repeated")
                if taken.answer is not None:
                    self._output.append(taken.answer)
                return []
            if taken.answer is None:
                self._refuse(call.id, "ProtocolError", "this message id is in use for another call")
                return [RemoteProtocolError(f"id {call.id!r:.50} is used for two calls at once", reason="message_id")]
            # By the text an id is used once on a connection; small stations count to 9 and begin again.
            self._violated("id_reused")
        if call.action not in actions(self.version):
            self._refuse(call.id, "NotImplemented", f"{call.action[:50]} is no action of OCPP {self.version}")
            return [RemoteProtocolError(f"unknown action {call.action[:50]!r}", reason="NotImplemented")]
        self._taken[call.id] = _Taken(digest)
        self._taken.move_to_end(call.id)
        while len(self._taken) > REMEMBERED:
            self._taken.popitem(last=False)
        return [call]

    def _result(self, result: CallResult) -> Heard | RemoteProtocolError:
        call = self._mine(result.id)
        if call is None:
            return RemoteProtocolError(f"a result for {result.id!r:.50}, which nobody asked", reason="unexpected")
        broken = check(call.action, result.payload, self.version, result=True)
        if broken and not isinstance(result.payload, dict):
            return RemoteProtocolError(f"{call.action}: {broken[0].text}", reason=broken[0].code)
        if broken:
            self._violated("bad_result")
        return CallResult(result.id, result.payload, call.action)

    def _error(self, error: CallError) -> Heard | RemoteProtocolError:
        if self._mine(error.id) is None:
            return RemoteProtocolError(f"an error for {error.id!r:.50}, which nobody asked", reason="unexpected")
        if not error.known_code:
            self._violated("error_code")
        return error

    def _mine(self, message_id: MessageId) -> Call | None:
        """Our call with that id, no longer outstanding."""
        if self._asked is None or self._asked[0].id != message_id:
            return None
        call, _ = self._asked
        self._asked = None
        return call

    def _refuse(self, message_id: MessageId, code: str, text: str) -> None:
        self._output.append(encode(CallError(message_id, code, text, {})) + b"\n")
        del self._output[:-REMEMBERED]

    def _violated(self, name: str) -> None:
        self.violations[name] = self.violations.get(name, 0) + 1

    def send(self, message: Heard, now_ms: int) -> bytes:
        """One message as a line. Raises LocalProtocolError: a payload that breaks the schema, a second call."""
        match message:
            case Unanswered():
                raise LocalProtocolError("nothing that is said", reason="encode")
            case Call():
                if self._asked is not None:
                    raise LocalProtocolError(f"{self._asked[0].action} is still unanswered", reason="busy")
                if message.action not in actions(self.version):
                    raise LocalProtocolError(f"OCPP {self.version} has no {message.action}", reason="action")
                if self._checked and (broken := check(message.action, message.payload, self.version)):
                    raise LocalProtocolError(f"{message.action}: {broken[0].path} {broken[0].text}", reason="schema")
                data = encode(message) + b"\n"
                self._asked = (message, now_ms)
                return data
            case CallResult():
                if message.action and (broken := check(message.action, message.payload, self.version, result=True)):
                    raise LocalProtocolError(f"{message.action}: {broken[0].path} {broken[0].text}", reason="schema")
        data = encode(message) + b"\n"
        if (taken := self._taken.get(message.id)) is not None:
            taken.answer = data
        return data

    def take_output(self) -> bytes:
        """What the protocol itself wants written since the last time: stored answers again, refusals."""
        out, self._output = b"".join(self._output), []
        return out

    def deadline(self) -> int | None:
        return None if self._asked is None else self._asked[1] + self._timeout_ms

    def tick(self, now_ms: int) -> list[Heard | RemoteProtocolError]:
        if self._asked is None or now_ms < self._asked[1] + self._timeout_ms:
            return []
        call, _ = self._asked
        self._asked = None
        return [Unanswered(call)]
