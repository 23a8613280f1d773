"""What registers may mean when nobody says: every kind in every order that has a sensible shape.

For the installer who holds a frame and a display in hand: one of these is what the display shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from protocols.modbus.points import raw, text

_WIDE = {1: ("u16", "i16"), 2: ("u32", "f32", "i32"), 4: ("u64", "i64", "f64")}
_SIGN_FIRST = {1: ("i16", "u16"), 4: ("i64", "u64", "f64")}
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
#: Pairs and fours are told from each register of an answer up to this size (a flag may stand in front of them), of a
#: longer one from each second and fourth only.
_EACH = 16


def interpretations(registers: Sequence[int]) -> list[dict[str, Any]]:
    """``type``, ``order``, ``from``, ``count``, ``value`` of each reading, the likelier ones first: the whole answer
    before its parts, the usual order before the others, fractions where they come out as human numbers; what does not
    stand where pairs usually stand comes last."""
    words = list(registers)
    out = [
        {"type": kind, "order": order, "from": at, "count": width, "value": _number(words[at:][:width], kind, order)}
        for width, kinds in _WIDE.items()
        for at in range(0, len(words) - width + 1, 1 if len(words) <= _EACH else width)
        for kind in kinds
        for order in (ORDERS if width > 1 else ORDERS[:1])
    ]
    out.sort(key=lambda one: _rank(one, words))  # stable: equals stay as they are
    characters = text(words)
    if len(characters) > 2 and characters.isprintable() and characters.isascii():
        out.append({"type": "text", "order": "ABCD", "from": 0, "count": len(words), "value": characters})
    return out


def _rank(one: dict[str, Any], words: Sequence[int]) -> tuple[bool, bool, bool, bool, int]:
    fractions = one["type"] == "f32" and len(words) > 2 and _human(words)
    signed = one["type"][0] == "i"
    negative = words[one["from"]] >= 0x8000
    # A set top bit speaks for a sign in 16 and 64 bits; 32 bits are mostly counters.
    kind = _SIGN_FIRST[one["count"]].index(one["type"]) if negative and one["count"] != 2 else int(signed) * 2
    astride = bool(one["from"] % one["count"])
    return (astride, not fractions, one["count"] != len(words), one["order"] != "ABCD", kind)


def _human(words: Sequence[int]) -> bool:
    """Every pair as a fraction in the usual order is a number that somebody would measure."""
    pairs = [abs(float(raw(words[at : at + 2], "f32"))) for at in range(0, len(words) - 1, 2)]
    return len(words) % 2 == 0 and all(value == 0 or 1e-3 <= value <= 1e7 for value in pairs)


def _number(words: Sequence[int], kind: str, order: str) -> int | float | str:
    number = raw(words, kind, order)
    if kind[0] != "f":
        return int(number)
    # The shortest text of its own precision: 28.456, not 28.45599937438965.
    shortest = float(str(np.float32(number))) if kind == "f32" else float(number)
    return shortest if np.isfinite(shortest) else str(shortest)


def named(registers: Sequence[int]) -> dict[str, str] | None:
    """Two registers read as a temperature and humidity transmitter (x0.1), None if they cannot be one.

    Two families are sold, one with the humidity first and one with the temperature first: a humidity is 0 to 100, and
    of two that fit the outdoor temperature is the lower.
    """
    if len(registers) != 2:
        return None
    first, second = ((word - 0x10000 if word >= 0x8000 else word) / 10 for word in registers)
    fits = [
        (temperature, humidity)
        for temperature, humidity in ((first, second), (second, first))
        if -50 <= temperature <= 85 and 0 <= humidity <= 100
    ]
    if not fits:
        return None
    temperature, humidity = min(fits)
    return {"temperature_C": f"{temperature:.1f}", "humidity_pct": f"{humidity:.1f}"}
