"""Which fault happens when: drawn from a seed, so that a run can be repeated; pure.

Each kind comes once, in an order of its own for each seed, before any comes again. A fault may begin while another is
still on, but never two on the same target. The last stretch is left free for the system to recover.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_S = 4.0  # the system is left to run so long before the first fault
_PAUSE_S = (1.5, 5.0)
_OVERLAP = 0.3  # share of faults that begin while the one before is on


@dataclass(frozen=True, slots=True)
class Kind:
    """What a plan must know of a fault. ``length_s``: shortest and longest, from inject to heal."""

    name: str
    target: str
    length_s: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Planned:
    """``pick`` chooses among several targets (modulo their number), ``amount``, 0 to 1: how much, where, which way."""

    number: int
    name: str
    target: str
    at_s: float
    length_s: float
    pick: int
    amount: float

    @property
    def until_s(self) -> float:
        return self.at_s + self.length_s


def make(seed: int, seconds: float, kinds: Sequence[Kind], *, shorten: float = 1.0) -> list[Planned]:
    """Faults of a run of so many seconds, in order of time. ``shorten`` scales their lengths and the pauses."""
    draw = random.Random(seed)  # noqa: S311 - a plan that can be repeated, not a secret
    out: list[Planned] = []
    turn: list[Kind] = []
    free_s: dict[str, float] = {}  # target -> when nothing is wrong with it any more
    at_s = FIRST_S * shorten
    while kinds:
        if not turn:
            turn = list(kinds)
            draw.shuffle(turn)
        kind = turn.pop()
        length_s = draw.uniform(*kind.length_s) * shorten
        at_s = max(at_s, free_s.get(kind.target, 0.0))
        if at_s + length_s > seconds:
            break
        out.append(
            Planned(
                len(out),
                kind.name,
                kind.target,
                round(at_s, 2),
                round(length_s, 2),
                draw.randrange(1 << 16),
                draw.random(),
            )
        )
        free_s[kind.target] = at_s + length_s + 0.5
        if draw.random() < _OVERLAP:
            at_s += length_s * draw.uniform(0.3, 0.9)
        else:
            at_s += length_s + draw.uniform(*_PAUSE_S) * shorten
    return out
