"""Working time. A limit of four hours given at 16:30 on a Friday ends on Monday, unless Monday is a holiday.

A calendar is a function W(t), the working milliseconds since a fixed day; a distance is a difference of two values of
it and a deadline its inverse, both by bisection over a table of days that grows as it is asked. Times are UTC
milliseconds; the city's clock is UTC+8 all year (China has no summer time).
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from collections.abc import Iterable
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

DAY_MS = 86_400_000
_LOCAL_MS = 8 * 3_600_000
_FIRST = date(2020, 1, 1)
_FIRST_MS = (_FIRST - date(1970, 1, 1)).days * DAY_MS - _LOCAL_MS  # its local midnight

#: Office hours in milliseconds of the local day: 8:30-12:00 and 14:00-17:30.
OFFICE_HOURS = tuple((round(a * 3_600_000), round(b * 3_600_000)) for a, b in ((8.5, 12), (14, 17.5)))


class Calendar(Protocol):
    def between(self, start_ms: int, end_ms: int) -> int:
        """Time that counts between two instants; negative if the second is the earlier."""

    def shift(self, start_ms: int, duration_ms: int) -> int:
        """The first instant at which so much counted time has passed since start (before it, if negative)."""


class RoundTheClock:
    def between(self, start_ms: int, end_ms: int) -> int:
        return end_ms - start_ms

    def shift(self, start_ms: int, duration_ms: int) -> int:
        return start_ms + duration_ms


class WorkingCalendar:
    """Mon-Fri in office hours, less the days off, plus the weekend days worked instead."""

    def __init__(self, off: Iterable[date] = (), work: Iterable[date] = ()) -> None:
        self._off = frozenset(off)
        self._work = frozenset(work)
        self._worked_ms = [0]  # before day i, counted from _FIRST

    def between(self, start_ms: int, end_ms: int) -> int:
        return self._until(end_ms) - self._until(start_ms)

    def shift(self, start_ms: int, duration_ms: int) -> int:
        if duration_ms == 0:
            return start_ms
        target = max(self._until(start_ms) + duration_ms, 0)
        while self._worked_ms[-1] < target:
            self._grow(len(self._worked_ms))
        day = max(bisect_left(self._worked_ms, target) - 1, 0)  # the day on which the target is reached
        left = target - self._worked_ms[day]
        for begin, end in OFFICE_HOURS:
            if left <= end - begin:
                return _FIRST_MS + day * DAY_MS + begin + left
            left -= end - begin
        raise AssertionError("a working day holds the time its table says")

    def _until(self, at_ms: int) -> int:
        day, in_day = divmod(at_ms - _FIRST_MS, DAY_MS)
        if day < 0:
            return 0
        if day >= len(self._worked_ms):
            self._grow(day)
        if not self._works(day):
            return self._worked_ms[day]
        return self._worked_ms[day] + sum(min(max(in_day - begin, 0), end - begin) for begin, end in OFFICE_HOURS)

    def _grow(self, day: int) -> None:
        full = sum(end - begin for begin, end in OFFICE_HOURS)
        for known in range(len(self._worked_ms) - 1, day):
            self._worked_ms.append(self._worked_ms[-1] + (full if self._works(known) else 0))

    def _works(self, day: int) -> bool:
        when = _FIRST + timedelta(days=day)
        return when in self._work or (when.weekday() < 5 and when not in self._off)


def local_day(at_ms: int) -> date:
    return date(1970, 1, 1) + timedelta(milliseconds=at_ms + _LOCAL_MS)


@cache
def working_calendar() -> WorkingCalendar:
    """The city's own, from ``holidays.toml``."""
    years: dict[str, Any] = tomllib.loads(files(__package__).joinpath("holidays.toml").read_text(encoding="utf-8"))
    off: list[date] = []
    work: list[date] = []
    for year in years.values():
        for first, last in year["off"]:
            begin, end = date.fromisoformat(first), date.fromisoformat(last)
            off += [begin + timedelta(days=n) for n in range((end - begin).days + 1)]
        work += map(date.fromisoformat, year["work"])
    return WorkingCalendar(off, work)


_ROUND_THE_CLOCK = RoundTheClock()


def calendar_of(around_the_clock: bool) -> Calendar:
    return _ROUND_THE_CLOCK if around_the_clock else working_calendar()
