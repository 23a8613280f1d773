"""The source's book against the rows: lost, doubled, reordered, changed, never meant; by series, with ranges.

Two independent books: the one the source kept outside its outbox (book.py), and what lies in the tables (rows.py).
Nothing that outbox, wire or core say of themselves is used, but for readings that the gateway declared thinned: these
are missing with a reason and are counted apart.

*Order* is kept when no reading was written by a later transaction than one that follows it in its series and lane.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from citybrain_cli.chaos import rows
from citybrain_cli.chaos.book import SPREAD, Book, Commit
from protocols.core.errors import StoreError

_MOST_RANGES = 20  # findings name so many ranges each; the number of readings is always whole
_NEVER = 0xFFFFFFFF  # a transaction number that no row has
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Finding:
    """``what``: lost, duplicated, reordered, changed, unknown, torn. ``count`` in readings (events, commits)."""

    what: str
    kind: str  # readings | events | commits
    where: str  # a series, or several that say the same
    count: int
    ranges: list[tuple[int, int]]

    def __str__(self) -> str:
        text = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in self.ranges[:_MOST_RANGES])
        more = f" and {len(self.ranges) - _MOST_RANGES} more ranges" if len(self.ranges) > _MOST_RANGES else ""
        return f"{self.what}: {self.count} {self.kind} of {self.where}: {text}{more}"


@dataclass(slots=True)
class Verdict:
    """Of one gateway. ``declared``: readings that are missing and that the gateway said it had thinned."""

    gateway: str
    accepted_readings: int = 0
    accepted_events: int = 0
    committed_readings: int = 0
    committed_events: int = 0
    in_doubt: int = 0  # commits the source was killed in
    in_doubt_kept: int = 0  # of them: in the database, whole
    declared: int = 0
    lives: int = 0
    findings: list[Finding] = field(default_factory=list)

    def count(self, what: str, kind: str) -> int:
        return sum(f.count for f in self.findings if f.what == what and f.kind == kind)

    @property
    def sound(self) -> bool:
        """Nothing but what was declared is missing, and nothing else is wrong."""
        others = [f for f in self.findings if f.what != "lost" or f.kind != "readings"]
        return not others and self.count("lost", "readings") == self.declared

    def summary(self) -> dict[str, Any]:
        counts = {
            f"{what}_{kind}": self.count(what, kind)
            for what in ("lost", "duplicated", "reordered", "changed", "unknown")
            for kind in ("readings", "events")
            if (what, kind) != ("changed", "events")
        }
        return {
            "gateway": self.gateway,
            "sound": self.sound,
            "accepted": {"readings": self.accepted_readings, "events": self.accepted_events},
            "committed": {"readings": self.committed_readings, "events": self.committed_events},
            **counts,
            "torn_commits": self.count("torn", "commits"),
            "declared_thinned": self.declared,
            "commits_in_doubt": self.in_doubt,
            "commits_in_doubt_kept": self.in_doubt_kept,
            "source_lives": self.lives,
            "findings": [str(f) for f in self.findings],
        }


class Readings:
    """Rows of one gateway's series, added up against what its book means."""

    def __init__(self, book: Book) -> None:
        self._book = book
        size = book.next_tick
        self._meant = _ticks(book.commits, size)
        self._accepted = _ticks([c for c in book.commits if c.number in book.accepted], size)
        self._expected_ms = np.zeros(size, np.int64)
        self._lane = np.zeros(size, np.uint8)
        lanes: dict[str, int] = {}
        for commit in book.commits:
            if commit.ticks:
                at = slice(commit.ticks[0], commit.ticks[1] + 1)
                self._expected_ms[at] = commit.first_ms + np.arange(at.stop - at.start) * book.step_ms
                self._lane[at] = lanes.setdefault(commit.lane, len(lanes))
        self._lanes = len(lanes)
        self._count = np.zeros((len(book.series), size), np.uint16)
        self._xid = np.full((len(book.series), size), _NEVER, np.uint32)
        self._changed = np.zeros((len(book.series), size), np.bool_)
        self._strange: dict[int, int] = {}  # series -> rows nobody meant
        self.total = 0

    def add(self, place: NDArray[np.int64], value: NDArray[np.float64], ms: NDArray[np.int64], xid: Any) -> None:
        """``place``: number of the row's series in the book, -1 for one that is not in it."""
        self.total += len(place)
        size = self._count.shape[1]
        whole = np.isfinite(value) & (value >= 0) & (value < float(max(1, size) * SPREAD)) & (value == np.floor(value))
        integer = np.where(whole, value, 0).astype(np.int64)
        tick = integer // SPREAD
        known = whole & (place >= 0) & (integer % SPREAD == place)
        known &= self._meant[np.where(known, tick, 0)] if size else False
        for series, count in zip(*np.unique(place[~known], return_counts=True), strict=True):
            self._strange[int(series)] = self._strange.get(int(series), 0) + int(count)
        if not known.any():
            return
        cell = place[known] * size + tick[known]
        order = np.argsort(cell, kind="stable")
        cell, written = cell[order], xid[known][order]
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        once = cell[starts]
        self._count.ravel()[once] += np.diff(starts, append=len(cell)).astype(np.uint16)
        flat_xid = self._xid.ravel()
        flat_xid[once] = np.minimum(flat_xid[once], np.minimum.reduceat(written, starts))
        moved = ms[known][order] != self._expected_ms[tick[known][order]]
        self._changed.ravel()[cell[moved]] = True

    def present(self) -> Flags:
        """(series, tick): it is there."""
        return self._count > 0

    def findings(self) -> list[Finding]:
        present = self.present()
        out = _by_series("lost", self._book, self._accepted[None, :] & ~present)
        out += _by_series("duplicated", self._book, self._count > 1, extra=self._count)
        out += _by_series("changed", self._book, self._changed)
        out += _by_series("reordered", self._book, self._reordered(present))
        for series, count in sorted(self._strange.items()):
            name = "/".join(self._book.series[series]) if series >= 0 else "series that are not in the book"
            out.append(Finding("unknown", "readings", name, count, []))
        return out

    def _reordered(self, present: Flags) -> Flags:
        late = np.zeros_like(present)
        for lane in range(self._lanes):
            mine = np.flatnonzero(self._lane == lane)
            late[:, mine] = _late(present[:, mine], self._xid[:, mine])
        return late


def check(conn: psycopg.Connection[Any], book: Book) -> Verdict:
    """Read the gateway's rows and compare. Raises psycopg.Error; StoreError if the tables are not plain."""
    readings = Readings(book)
    named = {
        (device, point): series_id
        for series_id, device, point in conn.execute(
            "select series_id, device_id, point from series join device using (device_id) where gateway_id = %s",
            (book.gateway,),
        )
    }
    place = np.full(max(named.values(), default=0) + 1, -1, np.int64)
    for number, name in enumerate(book.series):
        if name in named:
            place[named[name]] = number
    try:
        for table in rows.readings(conn, book.gateway):
            readings.add(
                place[table["series"].astype(np.int64)],
                table["value"].astype(np.float64),
                rows.to_ms(table["us"]),
                table["xid"].astype(np.uint32),
            )
        present_events, event_findings, total_events = _events(conn, book)
    except psycopg.errors.FeatureNotSupported as error:
        raise StoreError(f"these tables do not tell the order of commits: {error}") from error
    found = Verdict(
        book.gateway, book.readings, book.events, readings.total, total_events, lives=book.lives,
        findings=[*readings.findings(), *event_findings],
    )  # fmt: skip
    row = conn.execute(
        "select coalesce(sum(thinned), 0) from lane_cursor where gateway_id = %s", (book.gateway,)
    ).fetchone()
    found.declared = int(row[0]) if row else 0
    _doubts(found, book, readings.present(), present_events)
    return found


def _events(conn: psycopg.Connection[Any], book: Book) -> tuple[Flags, list[Finding], int]:
    size = book.next_event
    meant = _numbers(book.commits, size)
    accepted = _numbers([c for c in book.commits if c.number in book.accepted], size)
    count, xid = np.zeros(size, np.uint16), np.full(size, _NEVER, np.uint32)
    total = strange = 0
    for table in rows.events(conn, book.gateway):
        number = table["number"].astype(np.int64)
        total += len(number)
        known = (number < size) & (meant[np.minimum(number, max(0, size - 1))] if size else False)
        strange += int((~known).sum())
        np.add.at(count, number[known], 1)
        xid[number[known]] = table["xid"].astype(np.uint32)[known]
    present = count > 0
    late = _late(present[None, :], xid[None, :])[0]
    out: list[Finding] = []
    for what, flags in (("lost", accepted & ~present), ("duplicated", count > 1), ("reordered", late)):
        if flags.any():
            out.append(Finding(what, "events", book.gateway, int(flags.sum()), ranges(flags)))
    if strange:
        out.append(Finding("unknown", "events", book.gateway, strange, []))
    return present, out, total


def _doubts(verdict: Verdict, book: Book, readings: Flags, events: Flags) -> None:
    """A commit that was under way when its process was killed is there as a whole or not at all."""
    torn: list[int] = []
    for commit in book.commits:
        if commit.number in book.accepted:
            continue
        verdict.in_doubt += 1
        parts = []
        if commit.ticks:
            parts.append(readings[:, commit.ticks[0] : commit.ticks[1] + 1].ravel())
        if commit.events:
            parts.append(events[commit.events[0] : commit.events[1] + 1])
        there = np.concatenate(parts) if parts else np.zeros(1, np.bool_)
        if there.all():
            verdict.in_doubt_kept += 1
        elif there.any():
            torn.append(commit.number)
    if torn:
        verdict.findings.append(Finding("torn", "commits", book.gateway, len(torn), [(n, n) for n in torn]))


def _late(present: Flags, xid: NDArray[np.uint32]) -> Flags:
    """Written by a later transaction than something behind it in its row."""
    written = np.where(present, xid, _NEVER)
    earliest_behind = np.minimum.accumulate(written[:, ::-1], axis=1)[:, ::-1]
    return present & (written > earliest_behind)


def ranges(flags: Flags) -> list[tuple[int, int]]:
    """Runs of true: first and last, both included."""
    at = np.flatnonzero(flags)
    if not len(at):
        return []
    cuts = np.flatnonzero(np.diff(at) > 1)
    firsts = at[np.concatenate(([0], cuts + 1))]
    lasts = at[np.concatenate((cuts, [len(at) - 1]))]
    return [(int(a), int(b)) for a, b in zip(firsts, lasts, strict=True)]


def _by_series(what: str, book: Book, flags: Flags, *, extra: NDArray[np.uint16] | None = None) -> list[Finding]:
    """One finding for all series of which the same ticks are concerned."""
    together: dict[bytes, list[int]] = {}
    for number in np.flatnonzero(flags.any(axis=1)).tolist():
        together.setdefault(np.packbits(flags[number]).tobytes(), []).append(number)
    out = []
    for numbers in together.values():
        count = sum(int(flags[n].sum()) if extra is None else int((extra[n][flags[n]] - 1).sum()) for n in numbers)
        out.append(Finding(what, "readings", _names(book, numbers), count, ranges(flags[numbers[0]])))
    return out


def _names(book: Book, numbers: Sequence[int]) -> str:
    first = "/".join(book.series[numbers[0]])
    if len(numbers) == 1:
        return first
    last = "/".join(book.series[numbers[-1]])
    return f"{len(numbers)} series, {first} to {last}"


def _ticks(commits: Iterable[Commit], size: int) -> Flags:
    flags = np.zeros(size, np.bool_)
    for commit in commits:
        if commit.ticks:
            flags[commit.ticks[0] : commit.ticks[1] + 1] = True
    return flags


def _numbers(commits: Iterable[Commit], size: int) -> Flags:
    flags = np.zeros(size, np.bool_)
    for commit in commits:
        if commit.events:
            flags[commit.events[0] : commit.events[1] + 1] = True
    return flags
