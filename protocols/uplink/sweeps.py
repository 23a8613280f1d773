"""Blocks of one time and a few series, number by number.

What is polled one by one, or reported by exception, comes as blocks of one to a few readings. For these the array
operations of ``columns.py`` cost some 0.1 ms a block, whatever is in it; plain integers cost a tenth. Both forms of the
work give the same bytes and the same readings (SPEC.md, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from protocols.core.errors import ContractError
from protocols.core.model import Quality
from protocols.uplink.varint import UInt64s

MOST_SERIES = 8  # beyond it arrays are cheaper
FLOAT_BITS = 255  # SeriesDecl.decimals: the integer is the bit pattern of a float64

LAG_CONSTANT, LAG_EACH, QUALITY_RUNS = 1, 2, 4
_MASK, _SIGN, _RANGE = (1 << 64) - 1, 1 << 63, 1 << 64
_LAG_MOST = (1 << 31) - 1
_WORST = max(Quality)


class Code(Protocol):
    @property
    def decimals(self) -> int: ...

    @property
    def reference(self) -> int: ...


def _wrapped(number: int) -> int:
    """Modulo 2^64, two's complement."""
    number &= _MASK
    return number - _RANGE if number >= _SIGN else number


def _zigzag(number: int) -> int:
    number = _wrapped(number)
    return ((number << 1) ^ (number >> 63)) & _MASK


def _unzigzag(number: int) -> int:
    return (number >> 1) ^ -(number & 1)


def fold_float_bits(number: int) -> int:
    """The eight bytes of a double, reversed, as a signed integer."""
    return int.from_bytes((number & _MASK).to_bytes(8, "little"), "big", signed=True)


def encode(
    names: Sequence[int],
    integers: Sequence[int],
    grades: Sequence[int],
    step_ms: int,
    lag_ms: int,
    codes: Mapping[int, Code],
) -> list[int]:
    """The numbers of one block: aliases in rising order, a value and a quality each. ``step_ms``: since the block
    before."""
    runs: list[int] = []
    last = -1
    for name in names:
        if runs and name == last + 1:
            runs[-1] += 1
        else:
            runs += (name - last - 1, 1)
        last = name
    flags = (LAG_CONSTANT if lag_ms else 0) | (QUALITY_RUNS if any(grades) else 0)
    out = [(len(runs) >> 1 << 3) | flags, 1, *runs, _zigzag(step_ms)]
    if lag_ms:
        out.append(_zigzag(lag_ms))
    if flags & QUALITY_RUNS:
        lengths: list[int] = []
        for number, grade in enumerate(grades):
            if number and grade == grades[number - 1]:
                lengths[-2] += 1
            else:
                lengths += (1, grade)
        out += (len(lengths) >> 1, *lengths)
    for name, integer, grade in zip(names, integers, grades, strict=True):
        code = codes[name]
        if grade == Quality.MISSING:
            out.append(0)
        else:
            folded = fold_float_bits(integer) if code.decimals == FLOAT_BITS else integer
            out.append(_zigzag(folded - code.reference))
    return out


class Cells:
    """Decoded readings, as plain lists until somebody wants arrays."""

    def __init__(self) -> None:
        self.alias: list[int] = []
        self.ts_ms: list[int] = []
        self.lag_ms: list[int] = []
        self.integer: list[int] = []
        self.quality: list[int] = []

    def __len__(self) -> int:
        return len(self.alias)


def decode(
    numbers: UInt64s,
    at: int,
    previous_ms: int,
    codes: Mapping[int, Code],
    left_out: set[int] | None,
    cells: Cells,
) -> tuple[int, int, int] | None:
    """The block at ``at`` into ``cells``: (where the next one begins, its time, how many series it had). None, and
    nothing done: it is not a small one, or one so odd that arrays shall judge it. Raises ContractError as
    ``columns.decode_blocks``."""
    block = numbers[at : at + _MOST_NUMBERS].tolist()
    if len(block) < 2 or block[1] != 1 or block[0] & LAG_EACH:
        return None
    flags, here = block[0] & 7, 2 + 2 * (block[0] >> 3)
    names = _names(block[2:here]) if 2 < here <= 2 + 2 * MOST_SERIES else []
    series = len(names)
    if not series or len(block) < here + 1:
        return None
    ts_ms = _wrapped(previous_ms + _unzigzag(block[here]))
    here += 1
    lag_ms, grades = 0, [0] * series
    try:
        if flags & LAG_CONSTANT:
            lag_ms = max(-_LAG_MOST - 1, min(_LAG_MOST, _unzigzag(block[here])))
            here += 1
        if flags & QUALITY_RUNS:
            runs = block[here]
            if runs > series:
                return None
            here += 1 + 2 * runs
            grades = _grades(block[here - 2 * runs : here], 2 * runs, series)
        block[here + series - 1]
    except IndexError:
        raise ContractError("a block is longer than the batch", reason="truncated") from None
    for name, number, grade in zip(names, block[here : here + series], grades, strict=True):
        code = codes.get(name)
        if code is None:
            if left_out is None:
                raise ContractError(f"series {name} was never declared", reason="undeclared_series")
            left_out.add(name)
            continue
        integer = _wrapped(_unzigzag(number) + code.reference)
        cells.alias.append(name)
        cells.ts_ms.append(ts_ms)
        cells.lag_ms.append(lag_ms)
        cells.integer.append(fold_float_bits(integer) if code.decimals == FLOAT_BITS else integer)
        cells.quality.append(grade)
    return at + here + series, ts_ms, series


#: Head, rows, runs, time, lag, quality, values: as long as a small block can be.
_MOST_NUMBERS = 2 + 2 * MOST_SERIES + 1 + 1 + 1 + 2 * MOST_SERIES + MOST_SERIES


def _names(spans: list[int]) -> list[int]:
    """Aliases of runs (gap, length) one after another; empty if they are too many or none a run may have."""
    names: list[int] = []
    last = -1
    for gap, length in zip(spans[::2], spans[1::2], strict=False):
        if gap > 1 << 31 or not 0 < length <= MOST_SERIES - len(names):
            return []
        names += range(last + gap + 1, last + gap + 1 + length)
        last += gap + length
    return names if 2 * len(names) >= len(spans) and len(spans) % 2 == 0 else []


def _grades(runs: list[int], wanted: int, series: int) -> list[int]:
    if len(runs) < wanted:
        raise IndexError
    if not runs or sum(runs[::2]) != series:
        raise ContractError("quality does not cover the block", reason="malformed")
    if max(runs[1::2]) > _WORST:
        raise ContractError("a quality that does not exist", reason="malformed")
    return [grade for length, grade in zip(runs[::2], runs[1::2], strict=True) for _ in range(length)]
