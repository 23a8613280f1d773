"""Columns of recorded real streams (``csv`` or ``csv.gz``), so that a simulated device can replay what a real one said.

The recordings lie outside the package (each keeps its own licence): by default in ``../shared/streams`` beside the
project, else where ``CITYBRAIN_STREAMS`` or ``--streams`` points. Read with the standard library and NumPy alone.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocols.core.errors import ConfigError

#: What recordings write where the sensor gave nothing.
NO_VALUE = frozenset({"", "na", "nan", "null", "none", "-999"})


def default_folder() -> Path:
    """``CITYBRAIN_STREAMS``, else ``../shared/streams`` seen from the project's root."""
    named = os.environ.get("CITYBRAIN_STREAMS")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "streams"


@lru_cache(maxsize=64)
def column(folder: Path, name: str, title: str) -> NDArray[np.float64]:
    """One column as float64, NaN where the recording has no number. Raises ConfigError naming the file."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConfigError(f"{name}: a replay must lie below the streams folder {folder}")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recording ({error.strerror or error})") from error
    except EOFError as error:
        raise ConfigError(f"{path}: the recording is cut off") from error
    text = raw.decode("utf-8-sig", errors="replace")
    head = text.split("\n", 1)[0]
    rows = csv.reader(io.StringIO(text), delimiter=";" if head.count(";") > head.count(",") else ",")
    titles = [cell.strip() for cell in next(rows, [])]
    if title not in titles:
        raise ConfigError(f"{path}: no column {title!r}; it has {', '.join(titles)}")
    at = titles.index(title)
    values = np.array([_number(row[at]) if at < len(row) else np.nan for row in rows if row], np.float64)
    if not len(values):
        raise ConfigError(f"{path}: no rows")
    values.setflags(write=False)  # shared by every device that replays it
    return values


def _number(cell: str) -> float:
    cell = cell.strip()
    if cell.lower() in NO_VALUE:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        return float("nan")
