"""Which questions read a meter: FF blocks where several points share one, else single identifiers, each in its rhythm.

At 2400 baud an exchange costs a third of a second, so three voltages are one question, not three; a meter that has no
such block (D1) is asked singly from then on. A meter of the 1997 edition is asked for the same quantities under their
older identifiers; what it cannot know is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from protocols.devices import Point
from protocols.dlt645.identifiers import lookup, older

Edition = Literal["2007", "1997"]

#: Identifiers 02 xx PP 00 that exist as block 02 xx FF 00; with PP 00 (total) the block has four values, else three.
_WITH_TOTAL = {"0203", "0204", "0205", "0206"}
_PHASES_ONLY = {"0201", "0202", "0207"}
_PHASES_1997 = {"B61", "B62"}


@dataclass(frozen=True, slots=True)
class Question:
    """One identifier to read. ``points``: (point, which value of the answer). ``every``: n-th round only."""

    di: str
    every: int
    points: tuple[tuple[Point, int], ...]
    block: bool

    @property
    def reply_bytes(self) -> int:
        """How long the answer may get: frame, wake-up bytes, identifier, values (a block: as many as a frame takes)."""
        form = lookup(self.di)
        size = form.size if form is not None else 16
        values = max(4, *(index + 1 for _, index in self.points)) if self.block else 1
        return 20 + size * values


class MeterPlan:
    """``refused``: points the meter does not have, those that its edition has no identifier for among them."""

    def __init__(self, points: Iterable[Point], edition: Edition = "2007") -> None:
        self._di: dict[str, str] = {}
        members: list[Point] = []
        missing: list[str] = []
        for point in points:
            di = point_di(point) if edition == "2007" else older(point_di(point))
            if di is None:
                missing.append(point.name)
            else:
                self._di[point.name] = di
                members.append(point)
        self.refused: tuple[str, ...] = tuple(missing)
        self.questions: tuple[Question, ...] = tuple(self._questions(members))

    def due(self, round_number: int) -> list[Question]:
        """Questions of a round, the short ones first: a dead meter then costs the shortest wait."""
        return sorted((q for q in self.questions if round_number % q.every == 0), key=lambda q: q.reply_bytes)

    def refuse(self, question: Question) -> list[Question]:
        """The meter has no such data: a block falls back to its single identifiers, which are returned."""
        at = self.questions.index(question)
        singles: list[Question] = []
        if question.block and all(self._di[point.name] != question.di for point, _ in question.points):
            singles = [self.single(point) for point, _ in question.points]
        else:
            self.refused += tuple(point.name for point, _ in question.points)
        self.questions = (*self.questions[:at], *singles, *self.questions[at + 1 :])
        return singles

    def single(self, point: Point) -> Question:
        """The question that asks for one point and nothing else."""
        binding = point.dlt645
        index = binding.index if binding is not None else 0
        return Question(self._di[point.name], binding.every if binding is not None else 1, ((point, index),), False)

    def _questions(self, points: list[Point]) -> Iterable[Question]:
        blocks: dict[tuple[str, int], list[tuple[Point, int]]] = {}
        for point in points:
            binding = point.dlt645
            if binding is None:
                continue  # point_di has refused it
            # Without a block of its own: an FF identifier written in the device type, or a single one.
            own = self._di[point.name]
            di, index = _block_of(own) or (own, binding.index)
            blocks.setdefault((di, binding.every), []).append((point, index))
        for (di, every), members in blocks.items():
            first = members[0][0]
            if len(members) == 1 and self._di[first.name] != di:
                yield Question(self._di[first.name], every, ((first, 0),), False)
            else:
                block = "FF" in (di[4:6], di[6:]) or di.endswith("F")
                yield Question(di, every, tuple(members), block)


def point_di(point: Point) -> str:
    if point.dlt645 is None:
        raise ValueError(f"point {point.name} is not a DL/T 645 point")
    return point.dlt645.di


def _block_of(di: str) -> tuple[str, int] | None:
    if len(di) == 4:
        return (f"{di[:3]}F", int(di[3]) - 1) if di[:3] in _PHASES_1997 and di[3] in "123" else None
    if di[6:] != "00" or di[4:6] not in ("00", "01", "02", "03"):
        return None
    phase = int(di[4:6])
    if di[:4] in _WITH_TOTAL:
        return f"{di[:4]}FF00", phase
    if di[:4] in _PHASES_ONLY and phase:
        return f"{di[:4]}FF00", phase - 1
    return None
