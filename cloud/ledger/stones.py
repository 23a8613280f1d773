"""What a batch says is missing or in doubt, as pieces of the ledger."""

from __future__ import annotations

from collections.abc import Callable

from cloud.ledger.gaps import WHOLE_LANE, Piece
from protocols.uplink.batch import Batch

_Place = tuple[str, int, str]  # gateway, epoch, lane


def stone_pieces(place: _Place, batch: Batch, series_of: Callable[[int], int]) -> list[Piece]:
    """One for the lane and one for each series named. ``series_of(alias)``: its series id, 0 if never declared."""
    out: list[Piece] = []
    for stone in batch.thinned:
        reason = stone.reason[:64] or "not_said"
        rows = (batch.seq, batch.seq)
        out.append(
            Piece(*place, "thinned", reason, WHOLE_LANE, *rows, stone.readings, *_span(stone.first_ms, stone.last_ms))
        )
        for part in stone.series:
            series_id = series_of(part.alias)
            if series_id:
                times = _span(part.first_ms, part.last_ms)
                out.append(Piece(*place, "thinned", reason, series_id, *rows, part.readings, *times))
    return out


def clock_pieces(place: _Place, batch: Batch) -> list[Piece]:
    """Readings whose times may be wrong, because the gateway's clock had not been set."""
    times = batch.readings.ts_ms
    span = (int(times.min()), int(times.max()))
    return [Piece(*place, "clock_unknown", "not_set", WHOLE_LANE, batch.seq, batch.seq, len(times), *span)]


def _span(first_ms: int, last_ms: int) -> tuple[int | None, int | None]:
    """Both 0: not said."""
    return (first_ms, last_ms) if first_ms or last_ms else (None, None)
