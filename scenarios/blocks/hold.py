"""Debounce: something must be true for a time, or in k of the last n samples, before it counts.

Between two samples nothing is known, so truth is only continued over a gap the device's reporting interval explains
(``gap_ms``); after a longer silence counting begins anew.
"""

from __future__ import annotations

from typing import Any, Protocol


class Debounce(Protocol):
    #: True while a true sample still matters: such a series is looked at sample by sample.
    busy: bool

    def feed(self, ts_ms: int, true: bool) -> int | None:
        """One sample. Returns the onset (time of the first sample of the run) while the condition is met."""

    def run_out(self, until_ms: int) -> tuple[int, int] | None:
        """(onset, due) if the hold was met between the last sample and ``until_ms`` (exclusive)."""

    def reset(self) -> None: ...

    def save(self) -> list[Any]: ...

    def load(self, saved: list[Any]) -> None: ...


class Hold:
    """True without a break for ``hold_ms``; 0: at once."""

    __slots__ = ("_count", "_gap_ms", "_hold_ms", "_last_ms", "_onset_ms", "busy")

    def __init__(self, hold_ms: int, gap_ms: int) -> None:
        self._hold_ms = hold_ms
        self._gap_ms = gap_ms
        self.reset()

    def reset(self) -> None:
        self.busy = False
        self._onset_ms = 0
        self._last_ms = 0
        self._count = 0

    def feed(self, ts_ms: int, true: bool) -> int | None:
        if not true:
            self.busy = False
            return None
        if not self.busy or ts_ms - self._last_ms > self._gap_ms:
            self._onset_ms = ts_ms
            self._count = 0
        self.busy = True
        self._last_ms = ts_ms
        self._count += 1
        return self._onset_ms if ts_ms - self._onset_ms >= self._hold_ms else None

    def run_out(self, until_ms: int) -> tuple[int, int] | None:
        """Values hold between samples, but one sample alone is not a run: two are needed, and no gap after them."""
        due_ms = self._onset_ms + self._hold_ms
        if (
            self.busy
            and self._count >= 2
            and self._last_ms < due_ms < until_ms
            and due_ms - self._last_ms <= self._gap_ms
        ):
            return self._onset_ms, due_ms
        return None

    def save(self) -> list[Any]:
        return [self.busy, self._onset_ms, self._last_ms, self._count]

    def load(self, saved: list[Any]) -> None:
        self.busy, self._onset_ms, self._last_ms, self._count = saved


class KofN:
    """True in ``k`` of the last ``n`` samples, the newest among them."""

    __slots__ = ("_gap_ms", "_k", "_n", "_recent", "busy")

    def __init__(self, k: int, n: int, gap_ms: int) -> None:
        self._k = k
        self._n = n
        self._gap_ms = gap_ms
        self.reset()

    def reset(self) -> None:
        self.busy = False
        self._recent: list[tuple[int, bool]] = []

    def feed(self, ts_ms: int, true: bool) -> int | None:
        recent = self._recent
        if recent and ts_ms - recent[-1][0] > self._gap_ms:
            recent.clear()
        recent.append((ts_ms, true))
        del recent[: -self._n]
        hits = [ts for ts, hit in recent if hit]
        self.busy = bool(hits)
        return hits[0] if true and len(hits) >= self._k else None

    def run_out(self, until_ms: int) -> tuple[int, int] | None:
        del until_ms  # only samples count here
        return None

    def save(self) -> list[Any]:
        return [self.busy, self._recent]

    def load(self, saved: list[Any]) -> None:
        self.busy = saved[0]
        self._recent = [(ts, hit) for ts, hit in saved[1]]


def debounce(hold_s: float, k: int, n: int, gap_ms: int) -> Debounce:
    return KofN(k, n, gap_ms) if k else Hold(round(hold_s * 1000), gap_ms)
