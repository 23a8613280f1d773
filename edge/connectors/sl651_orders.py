"""Orders to an SL 651 station, as a device type writes them in a command's ``key``:

    read_now                   37  what it measures now; the values become readings
    read_clock                 51  its clock
    set_clock                  4A  to the gateway's time, then read back with 51
    read_version               45
    read_settings 20:08 38:12  43  operating parameters, identifier:definition (``read_basic``: 41, the basic table)
    set 27:08                  42  operating parameter 27 to the order's only argument, then read back with 43
    history 39:23 000100       38  element 39 each hour (dd hh mm) between the arguments ``begin`` and ``end``

Orders that move something (pumps, valves, gates: 4C to 4E) are not here: what their bodies hold is not known to us.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from protocols.core.errors import LocalProtocolError
from protocols.devices import CommandType
from protocols.sl651 import messages as sl651
from protocols.sl651.elements import bcd, to_bcd
from protocols.sl651.messages import CHINA, Message, Question, Report, Setting, Settings, Version, stamp, to_ms

Arguments = Mapping[str, float | int | str | bool]
#: A clock that was set may differ by so much when it is read.
CLOCK_SLACK_MS = 10_000
_PLAIN = {
    "read_now": sl651.READ_NOW,
    "read_clock": sl651.READ_CLOCK,
    "set_clock": sl651.SET_CLOCK,
    "read_version": sl651.VERSION,
}


class BadOrder(ValueError):
    """The key or an argument cannot be said to a station."""


@dataclass(frozen=True, slots=True)
class Order:
    """A question to send; ``func`` and ``message`` without serial number and time, which the sender adds."""

    func: int
    wanted: tuple[tuple[str, int], ...] = ()
    settings: tuple[Setting, ...] = ()
    begin: str = ""
    end: str = ""
    step: str = ""

    def message(self, serial: int, now_ms: int) -> Message:
        sent = stamp(now_ms)
        if self.settings:
            return Settings(serial, sent, self.settings)
        if self.wanted:
            return Question(serial, sent, self.wanted, self.begin, self.end, self.step)
        return sl651.Plain(serial, sent)

    @property
    def read_back(self) -> Order | None:
        """The question that shows whether it happened."""
        if self.func == sl651.SET_CLOCK:
            return Order(sl651.READ_CLOCK)
        if self.func == sl651.SET_RUN:
            return Order(sl651.READ_RUN, tuple((one.id, one.definition) for one in self.settings))
        return None


def order_of(what: CommandType, arguments: Arguments) -> Order:
    """The order behind a command. Raises BadOrder."""
    word, *more = what.key.split()
    try:
        if word in _PLAIN:
            return Order(_PLAIN[word])
        if word in ("read_settings", "read_basic"):
            func = sl651.READ_RUN if word == "read_settings" else sl651.READ_BASIC
            return Order(func, tuple(_entry(text) for text in more))
        if word == "set":
            identifier, definition = _entry(more[0])
            value = Decimal(str(next(iter(arguments.values()))))
            return Order(sl651.SET_RUN, settings=(Setting(identifier, definition, to_bcd(value, definition)),))
        if word == "history":
            begin, end = _hour(arguments.get("begin")), _hour(arguments.get("end"))
            if begin > end:
                raise BadOrder("it ends before it begins")
            return Order(sl651.READ_PERIOD, (_entry(more[0]),), begin=begin, end=end, step=more[1])
    except (IndexError, ValueError, StopIteration, LocalProtocolError) as error:
        raise BadOrder(str(error) or f"{what.key!r} is incomplete") from None
    raise BadOrder(f"{what.key!r} is no order")


def _entry(text: str) -> tuple[str, int]:
    identifier, _, definition = text.partition(":")
    return identifier, int(definition, 16)


def _hour(text: object) -> str:
    """yymmddhh of a local time as people write it."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        raise BadOrder(f"{text!r} is no time; write 2026-03-02T08:00") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=CHINA)
    return stamp(round(moment.timestamp()) * 1000, 8)


def shown(message: Message | None) -> dict[str, float | str]:
    """What an answer says, for the one who ordered."""
    out: dict[str, float | str] = {}
    match message:
        case Settings():
            for one in message.items[:32]:
                value = bcd(one.raw, one.definition & 7)
                out[one.id] = value if value is not None else one.raw.hex().upper()
        case Version():
            out["version"] = message.text.decode("gbk", "replace")
        case Report():
            out["elements"] = float(sum(len(group.elements) for group in message.groups))
        case None | sl651.Continued():
            return out
        case _:
            out["time"] = sl651.iso(message.sent) or message.sent
    return out


def happened(order: Order, answer: Message | None, now_ms: int) -> bool:
    """Whether the read-back shows what was ordered."""
    if order.func == sl651.SET_CLOCK:
        told_ms = None if answer is None or isinstance(answer, sl651.Continued) else to_ms(answer.sent)
        return told_ms is not None and abs(told_ms - now_ms) <= CLOCK_SLACK_MS
    wanted = {one.id: bcd(one.raw, one.definition & 7) for one in order.settings}
    found = {one.id: bcd(one.raw, one.definition & 7) for one in answer.items} if isinstance(answer, Settings) else {}
    return all(
        value is not None and (read := found.get(identifier)) is not None and Decimal(read) == Decimal(value)
        for identifier, value in wanted.items()
    )
