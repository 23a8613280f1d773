"""From a command of a meter's device type to the frame that carries it out.

The ``key`` of a command (``protocols/devices``) is one of

    relay:open        also close, allow_close, alarm, alarm_off, protect, protect_off (function 1C)
    freeze            instant freeze (16)
    clear:demand      also events (19, 1B); clearing the whole meter is not offered
    write:04001401    one number under that identifier (14); the argument is the number
    clock             the gateway's time, to this meter alone (the broadcast frame under its own address is not
                      answered by any meter: date and time are written, 04000101 and 04000102)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import get_args

from protocols.core.errors import ConfigError, LocalProtocolError
from protocols.dlt645.identifiers import lookup
from protocols.dlt645.orders import Clear, Freeze, Key, Order, Relay, RelayAction, Write
from protocols.dlt645.values import encode, encode_moment

#: Meters keep Beijing time wherever they hang.
BEIJING = timezone(timedelta(hours=8))
#: A relay order without a time of its own is void after this.
_VALID_S = 600

Arguments = Mapping[str, float | int | str | bool]


def check_key(key: str, where: str) -> None:
    """Whether a command's ``key`` can be carried out. Raises ConfigError."""
    match key.split(":"):
        case ["relay", action] if action in get_args(RelayAction):
            return
        case ["freeze"] | ["clock"] | ["clear", "demand" | "events"]:
            return
        case ["write", di] if (form := lookup(di)) is not None and form.kind == "number" and not form.items:
            return
    raise ConfigError(f"{where}: key {key!r}: relay:<action>, freeze, clock, clear:demand, clear:events or write:<di>")


def orders(key: str, arguments: Arguments, who: Key, now_ms: int, expires_ms: int) -> list[Order]:
    """What is sent, in this order, each confirmed before the next. Raises LocalProtocolError."""
    now = _local(now_ms)
    match key.split(":"):
        case ["relay", action]:
            until = _local(expires_ms) if expires_ms else now + timedelta(seconds=_VALID_S)
            return [Relay(action, until, who)]  # type: ignore[arg-type]  # check_key has seen it
        case ["freeze"]:
            return [Freeze()]
        case ["clear", "demand"]:
            return [Clear("demand", who)]
        case ["clear", "events"]:
            return [Clear("events", who, "FFFFFFFF")]
        case ["clock"]:
            return [Write(di, encode_moment(di, now), who) for di in ("04000101", "04000102")]
        case ["write", di]:
            return [Write(di, encode(di, [_number(di, arguments)]), who)]
    raise LocalProtocolError(f"meters know no order {key!r}", reason="key")


def needs_password(key: str) -> bool:
    """A freeze needs none; everything else changes something."""
    return key != "freeze"


def _number(di: str, arguments: Arguments) -> Decimal:
    value = next(iter(arguments.values()), math.nan)
    form = lookup(di)
    if isinstance(value, str) or not math.isfinite(value) or form is None:
        raise LocalProtocolError("one number is written", reason="argument")
    return Decimal(f"{float(value):.{form.decimals}f}")


def _local(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(BEIJING)
