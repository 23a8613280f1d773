"""Orders to a vehicle terminal: which message a command is, what its answer means, how it is read back.

``key`` of a device type's command: ``8300`` text, ``8201`` position, ``8202`` follow, ``8203`` confirm alarms,
``8105=4`` terminal control with that word, ``8500=1`` vehicle control with that flag, ``8103=0029`` set that parameter
(read back by 8106).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.connectors.base import Command, Outcome
from protocols.devices import CommandType
from protocols.jt808 import parameters, platform, terminal
from protocols.jt808.body import Body
from protocols.jt808.fields import gbk
from protocols.jt808.frame import Version
from protocols.jt808.messages import Message

#: Shown on the terminal's display and spoken.
_DISPLAY_AND_SPEECH = 0b1100
#: JT/T 808, 8300: the longest text.
MAX_TEXT = 1024
_RESULTS = {1: "failed", 2: "message_wrong", 3: "not_supported"}


class BadArgument(ValueError):
    """An order that cannot be said."""


@dataclass(frozen=True, slots=True)
class Order:
    """``asks``: what is sent; ``answers``: ids of messages that may answer it, beside 0001."""

    asks: Body
    answers: frozenset[int] = frozenset()


def order_of(kind: CommandType, command: Command, version: Version) -> Order:
    """Raises BadArgument."""
    word, _, rest = kind.key.partition("=")
    given = command.arguments
    match word:
        case "8300":
            text = str(given["text"])
            if not 0 < len(gbk(text)) <= MAX_TEXT:
                raise BadArgument(f"text: 1 to {MAX_TEXT} bytes in GBK")
            return Order(platform.Text(_DISPLAY_AND_SPEECH, text, 1 if version == "2019" else None))
        case "8201":
            return Order(platform.QueryPosition(), frozenset({0x0201}))
        case "8202":
            return Order(platform.Follow(int(given["interval_s"]), int(given["duration_s"])))
        case "8203":
            return Order(platform.ConfirmAlarm(0, int(given["alarm"])))
        case "8105":
            return Order(platform.TerminalControl(int(rest)))
        case "8500":
            return Order(platform.VehicleControl(int(rest)), frozenset({0x0500}))
        case "8103":
            (argument,) = kind.argument
            value = int(given[argument.name]).to_bytes(4, "big")
            return Order(platform.SetParameters((parameters.Parameter(int(rest, 16), value),)))
    raise BadArgument(f"the device type's key {kind.key!r} means nothing to a JT/T 808 terminal")


def answers(message: Message, serial: int, order: Order) -> bool:
    """Whether the message answers that order: by the platform's own serial."""
    body = message.body
    if isinstance(body, terminal.TerminalAnswer):
        return body.ack_sn == serial and body.ack_id == order.asks.msg_id
    return message.msg_id in order.answers and getattr(body, "ack_sn", None) == serial


def judged(body: Body) -> Outcome | None:
    """What a general answer says; None if it is no refusal."""
    if isinstance(body, terminal.TerminalAnswer) and body.result:
        code = _RESULTS.get(body.result, "refused")
        return Outcome("refused", code, f"the terminal answered {body.result} ({code})")
    return None


def parameter_shown(body: Body, wanted: parameters.Parameter) -> Outcome | None:
    """Read-back of a parameter: done if it shows what was set, failed if something else, None if it does not tell."""
    if not isinstance(body, terminal.ParameterAnswer):
        return None
    found = next((one for one in body.params if one.id == wanted.id), None)
    if found is None:
        return None
    number = int.from_bytes(found.value, "big")
    shown: Mapping[str, float] = {parameters.PARAMETERS.get(wanted.id, f"{wanted.id:04x}"): float(number)}
    if number == int.from_bytes(wanted.value, "big"):
        return Outcome("done", read_back=shown)
    return Outcome("failed", "read_back", f"the terminal still has {number}", shown)
