"""Golden vectors: those in the repository, and those beside the project where they are present."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent.parent / "vectors"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "protocols" / "vectors"

Vector = dict[str, Any]


def vectors(name: str, *kinds: str) -> list[Any]:
    """Parameters for pytest, one a vector of these kinds; a single skipped one where the shared set is absent."""
    own: list[Vector] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    ids = {row["id"] for row in own}
    shared = SHARED / f"{name}.json"
    out = [pytest.param(row, id=row["id"]) for row in own if row["kind"] in kinds]
    if not shared.is_file():
        skip = pytest.mark.skip(reason="../shared/protocols/vectors is not here")
        return [*out, pytest.param({}, id="shared-vectors", marks=skip)]
    more = [row for row in json.loads(shared.read_text(encoding="utf-8")) if row["id"] not in ids]
    return out + [pytest.param(row, id=row["id"]) for row in more if row["kind"] in kinds]


def data_of(row: Vector) -> bytes:
    """The bytes of a frame or stream."""
    return bytes.fromhex(row["hex"]) if "hex" in row else row["text"].encode("utf-8")
