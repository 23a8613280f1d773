"""What a command of a signal controller's type sets, and what sends the controller back.

A type's ``key`` lists ``address=value`` pairs, ``#15`` a byte in hex, ``{stage}`` an argument, ``{crossing}`` the
device's crossing; behind ``|`` what is set when the command's time is over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from protocols.core.errors import ConfigError, LocalProtocolError
from protocols.devices import CommandType
from protocols.traffic_signal.messages import Address, Item

#: Arguments that are ours, not the controller's.
OWN_ARGUMENTS = ("for_s", "confirm")
_PAIR = re.compile(r"([\d.]+)=(?:#([0-9A-Fa-f]{2})|\{(\w+)\})\Z")


@dataclass(frozen=True, slots=True)
class Order:
    """``now`` to set, ``back`` to set again later (empty: nothing has to go back)."""

    now: tuple[Item, ...]
    back: tuple[Item, ...]


def address_of(key: str, crossing: int) -> Address:
    """Raises LocalProtocolError for what is no address."""
    return Address.of(key.replace("{crossing}", str(crossing)))


def order_of(what: CommandType, crossing: int, arguments: Mapping[str, object]) -> Order:
    """The items of one command with its arguments filled in. Raises LocalProtocolError for a number over a byte."""
    now, _, back = what.key.replace("{crossing}", str(crossing)).partition("|")
    return Order(_items(now, arguments), _items(back, arguments))


def _items(text: str, arguments: Mapping[str, object]) -> tuple[Item, ...]:
    out = []
    for pair in text.split():
        found = _PAIR.match(pair)
        if found is None:
            raise LocalProtocolError(f"{pair!r} is no address=value", reason="key")
        value = int(found[2], 16) if found[2] else arguments.get(found[3])
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 255:
            raise LocalProtocolError(f"{pair}: {value!r} is no byte", reason="range")
        out.append(Item(Address.of(found[1]), bytes((int(value),))))
    return tuple(out)


def check_orders(commands: tuple[CommandType, ...], type_id: str) -> None:
    """Every command's key can be read with its own arguments. Raises ConfigError."""
    for what in commands:
        sample = {argument.name: 1 for argument in what.argument if argument.name not in OWN_ARGUMENTS}
        try:
            order = order_of(what, 1, sample)
        except LocalProtocolError as error:
            raise ConfigError(f"{type_id}: command {what.name}: key: {error}") from error
        names = {argument.name for argument in what.argument}
        if order.back and "for_s" not in names:
            raise ConfigError(f"{type_id}: command {what.name}: what goes back needs an argument for_s")
        if what.street and "confirm" not in names:
            raise ConfigError(f"{type_id}: command {what.name}: the street needs an argument confirm")
