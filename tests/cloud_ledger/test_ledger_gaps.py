"""Ranges of the ledger: whatever is thinned, in whatever portions it is told, nothing is lost in merging."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cloud.ledger.gaps import WHOLE_LANE, Piece, merge

#: For each row of a lane: None, a sound row; else the series thinned in it and how many readings each lost.
_ROWS = st.lists(
    st.one_of(st.none(), st.dictionaries(st.integers(1, 4), st.integers(1, 9), max_size=3)), min_size=1, max_size=40
)


def _pieces(rows: list[dict[int, int] | None]) -> list[list[Piece]]:
    """By row: one piece for the lane, one for each series."""
    out = []
    for seq, row in enumerate(rows, 1):
        if row is not None:
            place = ("gw", 1, "data", "thinned", "outbox_full")
            whole = Piece(*place, WHOLE_LANE, seq, seq, sum(row.values()), seq * 10, seq * 10 + 5)
            out.append([whole, *(Piece(*place, s, seq, seq, n, seq * 10, seq * 10 + 5) for s, n in row.items())])
    return out


@given(_ROWS, st.integers(1, 7))
def test_ranges_hold_every_reading_and_join_only_what_no_sound_row_parts(
    rows: list[dict[int, int] | None], portion: int
) -> None:
    told = _pieces(rows)
    ranges: dict[int, list[Piece]] = {}
    for at in range(0, len(told), portion):
        pieces = [piece for row in told[at : at + portion] for piece in row]
        newest = {series: own[-1] for series, own in ranges.items()}
        for merged in merge(newest, pieces):
            series = merged[0].series_id
            ranges[series] = ranges.get(series, [])[:-1] + merged
    sound = [seq for seq, row in enumerate(rows, 1) if row is None]
    for series, own in ranges.items():
        mine = [
            (seq, row) for seq, row in enumerate(rows, 1) if row is not None and (series == WHOLE_LANE or series in row)
        ]
        lost = sum(sum(row.values()) if series == WHOLE_LANE else row[series] for _, row in mine)
        assert sum(piece.readings for piece in own) == lost
        assert sum(piece.row_count for piece in own) == len(mine)
        assert own[0].first_seq == mine[0][0] and own[-1].last_seq == mine[-1][0]
        for piece in own:
            assert not any(piece.first_seq <= seq <= piece.last_seq for seq in sound)
            assert (piece.first_ms, piece.last_ms) == (piece.first_seq * 10, piece.last_seq * 10 + 5)
        for before, after in pairwise(own):
            assert any(before.last_seq < seq < after.first_seq for seq in sound)


def test_a_series_with_too_many_ranges_gets_no_more_but_counts_on() -> None:
    place = ("gw", 1, "data", "thinned", "outbox_full")
    newest = {WHOLE_LANE: Piece(*place, WHOLE_LANE, 5, 6, 20, 50, 60, 2), 7: Piece(*place, 7, 5, 6, 9, 50, 60, 2)}
    pieces = [Piece(*place, WHOLE_LANE, 90, 90, 4, 900, 900), Piece(*place, 7, 90, 90, 3, 900, 900)]
    assert merge(newest, pieces, frozenset({WHOLE_LANE, 7})) == [
        [Piece(*place, WHOLE_LANE, 5, 90, 24, 50, 900, 3)],
        [Piece(*place, 7, 5, 90, 12, 50, 900, 3)],
    ]
