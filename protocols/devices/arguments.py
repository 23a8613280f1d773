"""Whether an order's arguments fit its command: asked where it is given, and again where it is carried out."""

from __future__ import annotations

import math
from collections.abc import Mapping

from protocols.devices import Argument, CommandType


def check_arguments(kind: CommandType, given: Mapping[str, object]) -> str:
    """What is wrong with them, "" if nothing."""
    wanted = {argument.name: argument for argument in kind.argument}
    if unknown := sorted(set(given) - set(wanted)):
        return f"{kind.name} knows no {', '.join(unknown)}; it takes {', '.join(wanted) or 'nothing'}"
    for name, argument in wanted.items():
        if name not in given:
            return f"{name} is missing"
        if wrong := _wrong(argument, given[name]):
            return f"{name}: {wrong}"
    return ""


def _wrong(argument: Argument, value: object) -> str:
    if argument.kind == "bool":
        return "" if isinstance(value, bool) else "true or false"
    if argument.kind == "text":
        if not isinstance(value, str):
            return "a text"
        return "" if not argument.one_of or value in argument.one_of else f"one of {', '.join(argument.one_of)}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "a number"
    if argument.kind == "integer" and value != int(value):
        return "a whole number"
    assert argument.range is not None  # noqa: S101 - numbers have one, the device type was checked
    low, high = argument.range
    return "" if low <= value <= high else f"{low:g} to {high:g} {argument.unit}".rstrip()
