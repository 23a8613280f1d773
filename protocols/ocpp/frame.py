"""OCPP-J frames: a JSON array in one WebSocket text message (OCPP-J 1.6 section 4; 2.0.1 has the same three).

``[2, id, action, payload]`` CALL, ``[3, id, payload]`` CALLRESULT, ``[4, id, code, text, details]`` CALLERROR.

Read strictly as JSON: a repeated key is refused (Python would keep the last one in silence), so are NaN and what is
nested beyond all reason. Numbers with a fraction come as Decimal: limits have one decimal, and 21.4 has to stay that.
Integer ids are kept as they are: stations that send them want the same JSON value back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

Version = Literal["1.6", "2.0.1"]
VERSIONS: tuple[Version, ...] = ("1.6", "2.0.1")
#: WebSocket sub-protocol of each version; the negotiated one decides the schema, never the payload.
SUBPROTOCOLS: dict[str, Version] = {"ocpp1.6": "1.6", "ocpp2.0.1": "2.0.1"}

#: The largest messages are reports of variables and local lists; nothing a street's charger says comes near.
MAX_BYTES = 262_144
MAX_DEPTH = 24
MAX_ID = 36
#: Digits of a number; the largest that stations send is 2**63 - 1.
MAX_EXPONENT = 24

MessageId = str | int

CODES_16 = frozenset(
    {
        *("NotImplemented", "NotSupported", "InternalError", "ProtocolError", "SecurityError"),
        *("FormationViolation", "PropertyConstraintViolation", "OccurenceConstraintViolation"),
        *("TypeConstraintViolation", "GenericError"),
    }
)
CODES_201 = (CODES_16 - {"FormationViolation"}) | {
    *("FormatViolation", "OccurrenceConstraintViolation", "MessageTypeNotSupported", "RpcFrameworkError"),
}
#: Every spelling of either version is understood.
KNOWN_CODES = CODES_16 | CODES_201


@dataclass(frozen=True, slots=True)
class Call:
    id: MessageId
    action: str
    payload: Any


@dataclass(frozen=True, slots=True)
class CallResult:
    """``action``: what it answers, filled in by whoever knows the request; "" on the wire."""

    id: MessageId
    payload: Any
    action: str = ""


@dataclass(frozen=True, slots=True)
class CallError:
    id: MessageId
    code: str
    description: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known_code(self) -> bool:
        return self.code in KNOWN_CODES


Message = Call | CallResult | CallError


class FrameError(RemoteProtocolError):
    """``id`` of the frame if it could still be read: then it may be answered with ``code``."""

    def __init__(self, message: str, *, reason: str, id: MessageId | None = None, offset: int | None = None) -> None:
        super().__init__(message, reason=reason, offset=offset)
        self.id = id


class _Repeated(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        again = next(key for key in keys if keys.count(key) > 1)
        raise _Repeated(f"the key {again[:40]!r} is there twice")
    return found


def _decimal(text: str) -> Decimal:
    """A number of this world: 1e999999999 would make a schema's arithmetic fail, or last for ever."""
    found = Decimal(text)
    if found and found.adjusted() > MAX_EXPONENT:
        raise ValueError(f"a number of {found.adjusted()} digits")
    return found if not found or found.adjusted() > -MAX_EXPONENT else Decimal(0)


def _integer(text: str) -> int:
    if len(text) > MAX_EXPONENT:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


#: The beginning of a CALL that is no JSON further on: its id can still be answered.
_FRONT = re.compile(rb'^\s*\[\s*2\s*,\s*(?:"([^"\\\x00-\x1f]{1,64})"|(-?\d{1,18}))\s*,')


def parse(data: bytes) -> Message:
    """One frame. Raises FrameError (``not_json``, ``not_a_message_array``, ``malformed_call``, ``size``,
    ``duplicate_key``). A call without payload has None, which breaks every schema."""
    if len(data) > MAX_BYTES:
        raise FrameError(f"{len(data)} bytes, at most {MAX_BYTES} are read", reason="size", id=_front_id(data))
    if _depth(data) > MAX_DEPTH:
        raise FrameError(f"nested deeper than {MAX_DEPTH}", reason="not_json", id=_front_id(data))
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(
            text, object_pairs_hook=_object, parse_float=_decimal, parse_int=_integer, parse_constant=_constant
        )
    except _Repeated as error:
        raise FrameError(str(error), reason="duplicate_key", id=_front_id(data)) from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        offset = getattr(error, "pos", None)
        raise FrameError(f"not JSON: {error}", reason="not_json", id=_front_id(data), offset=offset) from error
    return _message(found)


def _message(found: Any) -> Message:
    def wrong(text: str) -> FrameError:
        named = found[1] if isinstance(found, list) and len(found) > 1 and _is_id(found[1]) else None
        call = isinstance(found, list) and bool(found) and found[0] == 2
        return FrameError(text, reason="not_a_message_array", id=named if call else None)

    if not isinstance(found, list):
        raise wrong(f"a {_kind(found)} where an array belongs")
    if len(found) < 3:
        raise wrong(f"an array of {len(found)}; a message has 3 to 5 elements")
    kind, message_id = found[0], found[1]
    if isinstance(kind, bool) or kind not in (2, 3, 4):
        raise wrong(f"message type {str(kind)[:20]}; known: 2 call, 3 result, 4 error")
    if not _is_id(message_id):
        raise wrong(f"a message id that is a {_kind(message_id)}")
    if kind == 2:
        if len(found) > 4 or not isinstance(found[2], str):
            # Its sender can be told: it is a call with an id.
            text = "a call has an id, the name of an action and a payload"
            raise FrameError(text, reason="malformed_call", id=message_id)
        return Call(message_id, found[2], found[3] if len(found) == 4 else None)
    if kind == 3:
        if len(found) != 3:
            raise wrong("a result has an id and a payload")
        return CallResult(message_id, found[2])
    # Code alone has been seen; text and details may be missing.
    code, text, details = (*found[2:5], "", {})[:3] if len(found) >= 4 else (found[2], "", {})
    if len(found) > 5 or not isinstance(code, str):
        raise wrong("an error has an id, a code, a text and details")
    return CallError(
        message_id, code, text if isinstance(text, str) else "", details if isinstance(details, dict) else {}
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "text", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number")


def _front_id(data: bytes) -> MessageId | None:
    found = _FRONT.match(data[:256])
    if found is None:
        return None
    if found[2]:
        return int(found[2])
    return found[1].decode("utf-8", "replace")


def _depth(data: bytes) -> int:
    """Deepest nesting of brackets outside texts, before a recursive parser sees it."""
    depth = deepest = 0
    for found in _MARKS.finditer(data):
        mark = found[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth > deepest:
                deepest = depth
                if deepest > MAX_DEPTH:
                    break
        elif mark in (b"]", b"}"):
            depth -= 1
    return deepest


_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def _json(value: Any) -> Any:
    if isinstance(value, Decimal):
        whole = value == value.to_integral_value()
        return int(value) if whole and abs(value) < 10**15 else float(value)
    raise LocalProtocolError(f"{type(value).__name__} cannot be said in JSON", reason="encode")


def encode(message: Message) -> bytes:
    """The frame's bytes. Raises LocalProtocolError."""
    match message:
        case Call():
            more = [] if message.payload is None else [message.payload]
            body: list[Any] = [2, message.id, message.action, *more]
        case CallResult():
            body = [3, message.id, message.payload]
        case CallError():
            body = [4, message.id, message.code, message.description[:255], dict(message.details)]
    try:
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_json)
    except (ValueError, TypeError, RecursionError) as error:
        raise LocalProtocolError(f"cannot be said in JSON: {error}", reason="encode") from error
    data = text.encode("utf-8", "replace")
    if len(data) > MAX_BYTES:
        raise LocalProtocolError(f"{len(data)} bytes, at most {MAX_BYTES}", reason="encode")
    return data
