"""Columns of recorded streams for the measurements; made-up ones where ../shared is not there (and then said so)."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STREAMS = Path(__file__).parents[2] / "shared" / "streams"


@dataclass(frozen=True)
class Stream:
    """``values`` float64 (rows, series); ``decimals`` per series: the sensor's printed resolution."""

    name: str
    step_ms: int
    names: tuple[str, ...]
    decimals: tuple[int, ...]
    values: NDArray[np.float64]


def _printed_decimals(column: list[str]) -> int:
    """Decimals that 99.5 % of the printed values do not exceed: a few rows carry conversion noise."""
    places = sorted(len(text.partition(".")[2].rstrip("0")) if "e" not in text.lower() else 6 for text in column)
    return min(6, places[min(len(places) - 1, int(len(places) * 0.995))])


def _load(
    name: str, path: str, columns: int, step_ms: int, delimiter: str, rows: int, resolution: int | None = None
) -> Stream | None:
    full = STREAMS / path
    if not full.exists():
        return None
    with gzip.open(full, "rt", encoding="utf-8") as file:
        reader = csv.reader(file, delimiter=delimiter)
        header = next(reader)
        table = [row[1 : columns + 1] for _, row in zip(range(rows), reader, strict=False)]
    table = [[cell if cell not in ("", "NA", "NaN") else "nan" for cell in row] for row in table]
    texts = list(zip(*table, strict=True))
    printed = tuple(_printed_decimals([t for t in column if t != "nan"] or ["0"]) for column in texts)
    decimals = (resolution,) * columns if resolution is not None else printed
    values = np.array(table, dtype=np.float64)
    return Stream(name, step_ms, tuple(header[1 : columns + 1]), decimals, values)


def _made_up(rows: int) -> Stream:
    rng = np.random.default_rng(7)
    steps = rng.normal(0, 0.02, (rows, 10)).cumsum(axis=0)
    return Stream("made_up", 1000, tuple(f"p{i}" for i in range(10)), (2,) * 10, np.round(20 + steps, 2))


def load_all(rows: int = 20_000) -> list[Stream]:
    found = [
        _load("gecco2018", "gecco2018/water_quality_first_half.csv.gz", 9, 60_000, ",", rows),
        # The published files print two decimals; this copy prints the simulator's float32 in full.
        _load("batadal", "batadal/train_normal.csv.gz", 10, 3_600_000, ",", rows, resolution=2),
        _load("skab", "skab/anomaly-free.csv.gz", 8, 1_000, ";", rows),
    ]
    return [stream for stream in found if stream is not None] or [_made_up(rows)]
