"""Every vector of every protocol through what `citybrain decode` shows: read or refused as the vector says, and each
field that the vector names comes out under that name with that value."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any

import pytest

from protocols.core.explain import Explanation, from_vector
from protocols.registry import FAMILIES, family
from tests.protocols.vectors import HERE, SHARED, Vector

#: Keys of ``expect`` that say how to judge, or what to send (each protocol's own test does that), not what is said;
#: ``meaning`` is prose: the same bytes have been put in two ways.
_JUDGEMENT = frozenset(
    {
        "ok",
        "error",
        "call_error_codes",
        "vendor",
        "encode",
        "reply",
        "reply_result",
        "meaning",
        "reply_text",
        "reply_text_without_handler",
    }
)


def _rows() -> list[Any]:
    out: list[Any] = []
    for name in FAMILIES:
        rows: dict[str, Vector] = {}
        for folder in (SHARED, HERE):
            file = folder / f"{name}.json"
            if file.is_file():
                rows |= {row["id"]: row for row in json.loads(file.read_text(encoding="utf-8"))}
        if not rows:
            skip = pytest.mark.skip(reason="no vectors of this protocol are here")
            out.append(pytest.param(name, {}, id=f"{name}-none", marks=skip))
        out += [pytest.param(name, row, id=row["id"]) for row in rows.values()]
    return out


def _same(found: Any, wanted: Any) -> bool:
    """``wanted`` is a subset of ``found``; decimal numbers may be text or numbers."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and _same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list) and _readings(wanted):
        return isinstance(found, (list, tuple)) and all(any(_same(a, b) for a in found) for b in wanted)
    if isinstance(wanted, list):
        return (
            isinstance(found, (list, tuple))
            and (len(found) == len(wanted) or (_begins(wanted) and len(found) > len(wanted)))
            and all(_same(a, b) for a, b in zip(found, wanted, strict=False))
        )
    if isinstance(wanted, bool) or wanted is None or isinstance(found, bool) or found is None:
        return found is wanted
    if isinstance(wanted, str) and isinstance(found, str) and wanted.lower() == found.lower():
        return True
    try:
        return Decimal(str(found)) == Decimal(str(wanted))
    except InvalidOperation:
        return False


def _readings(wanted: list[Any]) -> bool:
    """What the same registers may mean: a decoder tells every reading, the vector names the ones its sheet means."""
    return bool(wanted) and all(isinstance(one, dict) and {"type", "order"} <= set(one) for one in wanted)


def _begins(wanted: list[Any]) -> bool:
    """Of long lists of structures a vector names the first ones (phases of a crossing, points of a path)."""
    return bool(wanted) and all(isinstance(one, dict) for one in wanted)


def _missing(told: Explanation, expect: Vector) -> dict[str, Any]:
    said = told.said()
    return {
        key: (said.get(key, "<absent>"), wanted)
        for key, wanted in expect.items()
        if key not in _JUDGEMENT and not _same(said.get(key), wanted)
    }


def _judge(told: Explanation, expect: Vector) -> None:
    if expect.get("ok") is False:
        assert not told.ok, told.said()
        assert told.detail  # a refusal gives its reason
        # No code at all: what is refused but never answered (a bad CALLRESULT).
        wanted = expect.get("call_error_codes") or [expect.get("error", told.error)]
        assert told.error in wanted
        return
    assert told.ok, (told.error, told.detail)
    assert not _missing(told, expect)


@pytest.mark.parametrize(("name", "row"), _rows())
def test_a_vector_is_told_as_it_says(name: str, row: Vector) -> None:
    expect: Vector = row.get("expect") or {}
    explain = family(name).explainer()
    if "strict" not in expect:
        _judge(explain(from_vector(row)), expect)
        return
    _judge(explain(from_vector(row, strict=True)), expect["strict"])
    _judge(explain(from_vector(row)), expect["lenient"])
