"""The load source's own book: what its outbox accepted, kept outside the outbox's file.

A line ``try`` is written before a commit and a line ``ok`` after it has returned. A process that is killed between the
two leaves a ``try`` without ``ok``: that commit is *in doubt*, it may be in the database whole or not at all, and its
numbers are never used again. So the book cannot claim more than was accepted. Lines go out with one ``write`` each to a
file opened for appending; what the kernel has, no SIGKILL takes back.

```
{"book":1,"gateway":"chaos-0","life":2,"step_ms":10,"series":[["chaos-0-d0","c000"], …]}     one at each start
{"try":17,"lane":"data","ticks":[340,349],"first_ms":1767225605000,"events":[170,179]}       ranges, both ends included
{"ok":17}
```
Tick ``t`` puts value ``t * 1000 + i`` into series ``i``, with the time ``first_ms + (t - ticks[0]) * step_ms``. Event
``n`` has the id ``{gateway}-{n:010d}``. An empty range is ``[]``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocols.core.errors import ContractError

BOOK_VERSION = 1
#: Value = tick * SPREAD + number of the series, so that a value in the wrong series is seen. Series are fewer.
SPREAD = 1000


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit as it was meant. Ranges hold both ends; ``None``: nothing of that kind. ``first_ms``: UTC, source."""

    number: int
    lane: str
    ticks: tuple[int, int] | None
    first_ms: int
    events: tuple[int, int] | None


@dataclass(slots=True)
class Book:
    """A book as read: all that was meant, and the numbers of those that were accepted."""

    gateway: str = ""
    series: list[tuple[str, str]] = field(default_factory=list)
    step_ms: int = 0
    lives: int = 0
    commits: list[Commit] = field(default_factory=list)
    accepted: set[int] = field(default_factory=set)
    broken_lines: int = 0
    next_tick: int = 0
    next_event: int = 0

    @property
    def readings(self) -> int:
        """Readings that were accepted."""
        return len(self.series) * sum(_length(c.ticks) for c in self.commits if c.number in self.accepted)

    @property
    def events(self) -> int:
        """Events that were accepted."""
        return sum(_length(c.events) for c in self.commits if c.number in self.accepted)

    @property
    def next_commit(self) -> int:
        return self.commits[-1].number + 1 if self.commits else 0


class BookWriter:
    """Appends; not for two processes at a time. Raises OSError when its own disk refuses: then nothing may be sent."""

    def __init__(self, path: Path, gateway: str, series: list[tuple[str, str]], step_ms: int) -> None:
        before = read(path)
        if before.series and (before.gateway, before.series, before.step_ms) != (gateway, series, step_ms):
            raise ContractError(f"{path} is the book of another source", reason="book")
        self._number, self.next_tick, self.next_event = before.next_commit, before.next_tick, before.next_event
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if _unfinished(path):
            os.write(self._fd, b"\n")  # a line that was cut by a kill stays alone
        head = {"book": BOOK_VERSION, "gateway": gateway, "life": before.lives + 1, "step_ms": step_ms}
        self._line({**head, "series": series})

    def intend(self, lane: str, ticks: int, first_ms: int, events: int) -> Commit:
        """The next ``ticks`` ticks and ``events`` events are about to be committed; their numbers are used up."""
        commit = Commit(
            self._number,
            lane,
            (self.next_tick, self.next_tick + ticks - 1) if ticks else None,
            first_ms,
            (self.next_event, self.next_event + events - 1) if events else None,
        )
        self._line(
            {
                "try": commit.number,
                "lane": lane,
                "ticks": commit.ticks or [],
                "first_ms": first_ms,
                "events": commit.events or [],
            }
        )
        self._number += 1
        self.next_tick += ticks
        self.next_event += events
        return commit

    def accepted(self, commit: Commit) -> None:
        self._line({"ok": commit.number})

    def close(self) -> None:
        os.close(self._fd)

    def _line(self, what: dict[str, Any]) -> None:
        line = json.dumps(what, separators=(",", ":")).encode() + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError("the book's disk took part of a line")


def read(path: Path) -> Book:
    """Lines cut by a kill are left out and counted; no file: an empty book. Raises ContractError for a book that
    contradicts itself."""
    book = Book()
    if not path.exists():
        return book
    for line in path.read_bytes().split(b"\n"):
        if not line:
            continue
        try:
            entry = json.loads(line)
            _enter(book, entry)
        except (ValueError, KeyError, TypeError):
            book.broken_lines += 1
    return book


def noticed_s(book: Book, since_ms: int) -> float | None:
    """Seconds from ``since_ms`` (UTC, the source's clock) until the source filed readings as backlog for the first
    time; it did before: 0."""
    for commit in book.commits:
        if commit.ticks is None:
            continue
        made_ms = commit.first_ms + (commit.ticks[1] - commit.ticks[0] + 1) * book.step_ms
        if made_ms >= since_ms and commit.lane == "backfill":
            return (made_ms - since_ms) / 1000
    return None


def _enter(book: Book, entry: dict[str, Any]) -> None:
    if "ok" in entry:
        book.accepted.add(int(entry["ok"]))
    elif "try" in entry:
        commit = Commit(
            int(entry["try"]),
            str(entry["lane"]),
            _range(entry["ticks"]),
            int(entry["first_ms"]),
            _range(entry["events"]),
        )
        again = commit.number < book.next_commit
        again |= commit.ticks is not None and commit.ticks[0] < book.next_tick
        again |= commit.events is not None and commit.events[0] < book.next_event
        if again:
            raise ContractError(f"commit {commit.number} uses numbers for the second time", reason="book")
        book.commits.append(commit)
        book.next_tick = commit.ticks[1] + 1 if commit.ticks else book.next_tick
        book.next_event = commit.events[1] + 1 if commit.events else book.next_event
    else:
        if entry["book"] != BOOK_VERSION:
            raise ContractError(f"a book of version {entry['book']}", reason="book")
        book.gateway, book.step_ms = str(entry["gateway"]), int(entry["step_ms"])
        book.series = [(str(device), str(point)) for device, point in entry["series"]]
        book.lives = int(entry["life"])


def _range(ends: Any) -> tuple[int, int] | None:
    if not ends:
        return None
    first, last = ends
    if not 0 <= int(first) <= int(last):
        raise ValueError("a range runs upwards")
    return int(first), int(last)


def _length(ends: tuple[int, int] | None) -> int:
    return ends[1] - ends[0] + 1 if ends else 0


def _unfinished(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
