"""Whatever a gateway could ever want to say."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from protocols.core.model import LEVELS, Event, EvidenceRef, Quality
from protocols.uplink.batch import Batch, Declaration, DeviceState, EvidenceChunk, Thinned
from protocols.uplink.columns import FLOAT_BITS, Readings

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
#: Around now, 1970, before it, and the ends of what 64 bits hold; small ranges make duplicates and steady rhythms.
TIMES = st.one_of(
    st.integers(1_772_400_000_000, 1_772_400_000_050),
    st.integers(0, 200).map(lambda n: 1_772_400_000_000 + 1000 * n),
    st.integers(-5, 5),
    INT64,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
EPOCHS = st.integers(1, (1 << 32) - 1)
SEQS = st.integers(1, (1 << 63) - 1)
DOUBLES = st.floats(allow_nan=True, allow_infinity=True)
SCALARS = st.one_of(st.booleans(), st.none(), TEXT, st.integers(-(1 << 53), 1 << 53), st.floats(-1e300, 1e300))
REFS = st.builds(
    EvidenceRef,
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    kind=st.sampled_from(["still", "clip"]),
    masked=st.booleans(),
    mime=TEXT,
)


@st.composite
def declarations(draw: st.DrawFn, most: int = 6) -> tuple[Declaration, ...]:
    aliases = draw(st.lists(st.one_of(st.integers(0, 8), st.integers(0, (1 << 31) - 1)), unique=True, max_size=most))
    return tuple(
        Declaration(
            alias,
            draw(NAMES),
            draw(NAMES),
            draw(TEXT),
            draw(st.one_of(st.integers(0, 12), st.just(FLOAT_BITS))),
            draw(st.one_of(st.just(0), st.integers(-1000, 1000), INT64)),
            draw(TEXT),
        )
        for alias in aliases
    )


@st.composite
def readings(draw: st.DrawFn, aliases: list[int], most: int = 60) -> Readings:
    """In any order, the same time twice, series that share their times and series that do not."""
    count = draw(st.integers(0, most if aliases else 0))
    lag = draw(st.sampled_from([st.just(0), st.just(250), st.one_of(st.just(0), INT32)]))
    grade = draw(st.sampled_from([st.just(0), st.sampled_from([int(q) for q in Quality])]))
    values = draw(st.sampled_from([st.integers(-300, 300), INT64, DOUBLES.map(_bits)]))
    alias = draw(st.lists(st.sampled_from(aliases), min_size=count, max_size=count)) if count else []
    together = draw(st.booleans())
    times = draw(st.lists(TIMES, min_size=count, max_size=count))
    if together:  # whole sweeps: every series at the same times
        times = [times[k - k % len(aliases)] for k in range(count)]
        alias = [aliases[k % len(aliases)] for k in range(count)]
    return Readings(
        np.array(alias, np.int32),
        np.array(times, np.int64),
        np.array(draw(st.lists(lag, min_size=count, max_size=count)), np.int32),
        np.array(draw(st.lists(values, min_size=count, max_size=count)), np.int64),
        np.array(draw(st.lists(grade, min_size=count, max_size=count)), np.uint8),
    )


def _bits(value: float) -> int:
    return int(np.array([value]).view(np.int64)[0])


@st.composite
def events(draw: st.DrawFn) -> Event:
    state = draw(st.sampled_from(["", "raise", "update", "clear"]))
    place = draw(st.one_of(st.none(), st.tuples(st.floats(-180, 180), st.floats(-90, 90))))
    return Event(
        id=draw(st.text("0123456789abcdef-", min_size=1, max_size=64)),
        type=draw(NAMES),
        ts_ms=draw(INT64),
        seen_ms=draw(INT64),
        source=draw(NAMES),
        scenario=draw(TEXT),
        level=draw(st.sampled_from(LEVELS)),
        state=state,
        key=draw(NAMES if state else TEXT),
        values=draw(st.dictionaries(TEXT, SCALARS, max_size=4)),
        quality=draw(st.sampled_from(["good", "suspect", "manual"])),
        location=None if place is None or not any(place) else place,
        evidence=tuple(draw(st.lists(REFS, max_size=2))),
        drill=draw(st.booleans()),
    )


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    declared = draw(declarations())
    return Batch(
        epoch=draw(EPOCHS),
        seq=draw(SEQS),
        readings=draw(readings([d.alias for d in declared])),
        declarations=declared,
        events=tuple(draw(st.lists(events(), max_size=3))),
        devices=tuple(draw(st.lists(st.builds(DeviceState, TEXT, st.booleans(), INT64, TEXT), max_size=3))),
        thinned=tuple(
            draw(
                st.lists(
                    st.builds(Thinned, st.integers(0, 1 << 60), TEXT, INT64, INT64, st.integers(0, (1 << 64) - 1)),
                    max_size=2,
                )
            )
        ),
        evidence=tuple(
            draw(
                st.lists(
                    st.builds(
                        EvidenceChunk, REFS, TEXT, INT64, st.integers(0, 1 << 31), st.integers(0, 1 << 31), st.binary()
                    ),
                    max_size=2,
                )
            )
        ),
    )
