"""Readings as columns, and their block form on the wire.

A block is a rectangle: the series that share one list of times. Most sweeps of a device share it, so a block costs one
list of times for all its series. Values travel as integers at the series' resolution, column by column, each as the
difference to the one before (the first to the series' declared reference), all as LEB128. See SPEC.md section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from protocols.core.errors import ContractError, LocalProtocolError
from protocols.core.model import Int32s, Int64s, Quality, UInt8s
from protocols.uplink import sweeps, varint
from protocols.uplink.sweeps import FLOAT_BITS as FLOAT_BITS
from protocols.uplink.varint import UInt64s

MAX_READINGS = 1_000_000  # a batch that claims more is refused before memory is taken for it
MAX_BLOCKS = 10_000  # each may cost a core some 0.1 ms: a kilobyte of zstd must not keep it busy for minutes


@dataclass(frozen=True, slots=True)
class Readings:
    """Equally long columns, sorted by time within each alias.

    ``alias`` int32; ``ts_ms`` int64 source time; ``lag_ms`` int32 seen minus source; ``integer`` int64 value at the
    series' resolution (or float64 bits); ``quality`` uint8. Where quality is MISSING the integer means nothing.
    """

    alias: Int32s
    ts_ms: Int64s
    lag_ms: Int32s
    integer: Int64s
    quality: UInt8s

    def __len__(self) -> int:
        return len(self.alias)


@dataclass(frozen=True, slots=True)
class SeriesCode:
    """How one alias is coded: what the wire needs to know of a declared series."""

    decimals: int
    reference: int


def empty() -> Readings:
    return Readings(
        np.empty(0, np.int32),
        np.empty(0, np.int64),
        np.empty(0, np.int32),
        np.empty(0, np.int64),
        np.empty(0, np.uint8),
    )


def concat(parts: list[Readings]) -> Readings:
    if len(parts) == 1:
        return parts[0]
    return Readings(
        np.concatenate([p.alias for p in parts]),
        np.concatenate([p.ts_ms for p in parts]),
        np.concatenate([p.lag_ms for p in parts]),
        np.concatenate([p.integer for p in parts]),
        np.concatenate([p.quality for p in parts]),
    )


def _fold_float_bits(integers: Int64s) -> Int64s:
    """Byte-reversed bits: doubles with few significant digits become small numbers."""
    return integers.byteswap()


def encode_blocks(readings: Readings, codes: Mapping[int, SeriesCode], origin_ms: int) -> bytes:
    """Readings to the block body. ``origin_ms`` is the epoch in milliseconds. Raises LocalProtocolError ``too_big``."""
    if not len(readings):
        return b""
    order = np.lexsort((readings.ts_ms, readings.alias))
    alias, ts, lag = readings.alias[order], readings.ts_ms[order], readings.lag_ms[order]
    integer, quality = readings.integer[order].copy(), readings.quality[order]
    bounds = np.flatnonzero(np.diff(alias)) + 1
    starts = np.concatenate(([0], bounds))
    stops = np.concatenate((bounds, [len(alias)]))

    groups: dict[tuple[bytes, bytes], list[tuple[int, int, int]]] = {}
    named = zip(alias[starts].tolist(), starts.tolist(), stops.tolist(), strict=True)
    for name, start, stop in named:
        shape = (ts[start:stop].tobytes(), lag[start:stop].tobytes())
        groups.setdefault(shape, []).append((name, start, stop))

    if len(groups) > MAX_BLOCKS:
        raise LocalProtocolError(f"{len(groups)} blocks in a batch; at most {MAX_BLOCKS}", reason="too_big")
    previous_ms = origin_ms
    parts: list[UInt64s] = []
    small: list[int] = []
    for members in groups.values():
        _, first_start, first_stop = members[0]
        rows = first_stop - first_start
        if rows == 1 and len(members) <= sweeps.MOST_SERIES:
            at_ms = int(ts[first_start])
            cells = [start for _, start, _ in members]
            small += sweeps.encode(
                [name for name, _, _ in members],
                integer[cells].tolist(),
                quality[cells].tolist(),
                at_ms - previous_ms,
                int(lag[first_start]),
                codes,
            )
            previous_ms = at_ms
            continue
        if small:
            parts.append(np.array(small, dtype=np.uint64))
            small = []
        times, lags = ts[first_start:first_stop], lag[first_start:first_stop]
        index = np.concatenate([np.arange(start, stop) for _, start, stop in members])
        grades = quality[index]
        flags = 0
        tail: list[UInt64s] = []

        steps = np.diff(times, prepend=previous_ms)
        if rows > 2:
            steps[2:] = np.diff(steps[1:])  # a steady rhythm becomes zeros
        previous_ms = int(times[0])
        tail.append(varint.zigzag(steps))
        if lags.any():
            if rows > 1 and (lags != lags[0]).any():
                flags |= sweeps.LAG_EACH
                tail.append(varint.zigzag(lags.astype(np.int64)))
            else:
                flags |= sweeps.LAG_CONSTANT
                tail.append(varint.zigzag(lags[:1].astype(np.int64)))
        if grades.any():
            flags |= sweeps.QUALITY_RUNS
            cuts = np.concatenate(([0], np.flatnonzero(np.diff(grades)) + 1))
            runs = np.empty((len(cuts), 2), dtype=np.uint64)
            runs[:, 0] = np.diff(cuts, append=len(grades))
            runs[:, 1] = grades[cuts]
            tail.append(np.concatenate((np.array([len(cuts)], dtype=np.uint64), runs.ravel())))

        matrix = integer[index].reshape(len(members), rows)
        missing = grades.reshape(len(members), rows) == Quality.MISSING
        references = np.empty(len(members), dtype=np.int64)
        for row, (name, _, _) in enumerate(members):
            code = codes[name]
            references[row] = code.reference
            if code.decimals == FLOAT_BITS:
                matrix[row] = _fold_float_bits(matrix[row])
        if missing.any():
            _carry_forward(matrix, missing, references)
        tail.append(varint.zigzag(np.diff(matrix, axis=1, prepend=references[:, None]).ravel()))

        names = np.array([name for name, _, _ in members], dtype=np.int64)
        breaks = np.concatenate(([0], np.flatnonzero(np.diff(names) != 1) + 1))
        run_lengths = np.diff(breaks, append=len(names))
        run_ends = np.concatenate(([-1], names[breaks + run_lengths - 1][:-1]))
        runs_flat = np.empty((len(breaks), 2), dtype=np.uint64)
        runs_flat[:, 0] = names[breaks] - run_ends - 1  # gap since the run before
        runs_flat[:, 1] = run_lengths
        head = np.array([(len(breaks) << 3) | flags, rows], dtype=np.uint64)
        parts.extend((head, runs_flat.ravel(), *tail))
    if small:
        parts.append(np.array(small, dtype=np.uint64))
    return varint.encode(np.concatenate(parts))


def _carry_forward(
    matrix: Int64s, missing: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], references: Int64s
) -> None:
    """A missing cell repeats the value before it, so that it costs one zero byte."""
    for row in np.flatnonzero(missing.any(axis=1)).tolist():
        filled = np.where(missing[row], 0, np.arange(1, matrix.shape[1] + 1))
        last = np.maximum.accumulate(filled)
        matrix[row] = np.where(last > 0, matrix[row][np.maximum(last - 1, 0)], references[row])


def decode_blocks(
    body: bytes, codes: Mapping[int, SeriesCode], origin_ms: int, *, left_out: set[int] | None = None
) -> Readings:
    """The block body back to readings. With ``left_out``, readings of series that ``codes`` does not have are left out
    and named there, so that one wrong series does not take the others with it.

    Raises ContractError: ``truncated``, ``number_too_long``, ``undeclared_series``, ``too_many_readings``,
    ``malformed``.
    """
    numbers = varint.decode(body)
    total_numbers = len(numbers)
    at = 0
    previous_ms = origin_ms
    parts: list[Readings] = []
    small = sweeps.Cells()
    blocks = cells = 0

    def take(count: int) -> UInt64s:
        nonlocal at
        if count > total_numbers - at:
            raise ContractError("a block is longer than the batch", reason="truncated")
        at += count
        return numbers[at - count : at]

    while at < total_numbers:
        if blocks >= MAX_BLOCKS:
            raise ContractError(f"more than {MAX_BLOCKS} blocks in a batch", reason="malformed")
        blocks += 1
        found = sweeps.decode(numbers, at, previous_ms, codes, left_out, small)
        if found is not None:
            at, previous_ms, series = found
            cells += series
            continue
        if len(small):
            parts.append(_arrays(small))
            small = sweeps.Cells()
        head, rows = (int(n) for n in take(2))
        flags, runs = head & 7, head >> 3
        if not 0 < runs <= MAX_READINGS or not 0 < rows <= MAX_READINGS:
            raise ContractError("a block without series or rows", reason="malformed")
        spans = take(2 * runs).reshape(runs, 2)
        if int(spans.max()) > 1 << 31:
            raise ContractError("an impossible alias", reason="malformed")
        lengths = spans[:, 1].astype(np.int64)
        series = int(lengths.sum())
        cells += series * rows
        if cells > MAX_READINGS or int(lengths.min()) == 0:
            raise ContractError(f"more than {MAX_READINGS} readings in a batch", reason="too_many_readings")
        ends = np.cumsum(spans[:, 0].astype(np.int64) + lengths) - 1
        names = np.repeat(ends - np.cumsum(lengths) + 1, lengths) + np.arange(series)

        steps = varint.unzigzag(take(rows))
        if rows > 2:
            steps[1:] = np.cumsum(steps[1:])
        steps[:1] += np.int64(previous_ms)
        times = np.cumsum(steps)
        previous_ms = int(times[0])
        if flags & sweeps.LAG_EACH:
            lags = varint.unzigzag(take(rows))
        elif flags & sweeps.LAG_CONSTANT:
            lags = np.repeat(varint.unzigzag(take(1)), rows)
        else:
            lags = np.zeros(rows, dtype=np.int64)
        if flags & sweeps.QUALITY_RUNS:
            grade_runs = take(2 * int(take(1)[0])).reshape(-1, 2)
            counts = grade_runs[:, 0]
            if not len(counts) or int(counts.max()) > cells or int(counts.sum()) != series * rows:
                raise ContractError("quality does not cover the block", reason="malformed")
            if int(grade_runs[:, 1].max()) > max(Quality):
                raise ContractError("a quality that does not exist", reason="malformed")
            quality = np.repeat(grade_runs[:, 1].astype(np.uint8), counts.astype(np.int64))
        else:
            quality = np.zeros(series * rows, dtype=np.uint8)

        matrix = varint.unzigzag(take(series * rows)).reshape(series, rows).copy()
        float_rows: list[int] = []
        unknown: list[int] = []
        for row, name in enumerate(names.tolist()):
            code = codes.get(name)
            if code is None:
                if left_out is None:
                    raise ContractError(f"series {name} was never declared", reason="undeclared_series")
                left_out.add(name)
                unknown.append(row)
                continue
            matrix[row, :1] += np.int64(code.reference)  # a slice: numbers of arrays wrap without a warning
            if code.decimals == FLOAT_BITS:
                float_rows.append(row)
        np.cumsum(matrix, axis=1, out=matrix)
        for row in float_rows:
            matrix[row] = _fold_float_bits(matrix[row])
        if unknown:
            names, matrix = np.delete(names, unknown), np.delete(matrix, unknown, axis=0)
            quality = np.delete(quality.reshape(series, rows), unknown, axis=0).ravel()
            series -= len(unknown)
        parts.append(
            Readings(
                np.repeat(names.astype(np.int32), rows),
                np.tile(times, series),
                np.tile(np.clip(lags, -(2**31), 2**31 - 1).astype(np.int32), series),
                matrix.ravel(),
                quality,
            )
        )
    if len(small):
        parts.append(_arrays(small))
    return concat(parts) if parts else empty()


def _arrays(cells: sweeps.Cells) -> Readings:
    return Readings(
        np.array(cells.alias, np.int32),
        np.array(cells.ts_ms, np.int64),
        np.array(cells.lag_ms, np.int32),
        np.array(cells.integer, np.int64),
        np.array(cells.quality, np.uint8),
    )
