"""How long a line rests between two exchanges: no longer than its devices need.

The standards want 3.5 characters (16 ms at 2400 baud). Clone firmware and USB adapters want more, and show it in one
way: the first try is not answered or garbled, the second, after a longer rest, is. That doubles the pause; long good
conduct halves it again. A device that is simply dead teaches nothing.
"""

from __future__ import annotations

_CHARACTERS = 3.5
#: Above 19200 baud the pause is fixed (serial line guide 1.02, 2.5.1.1).
_LEAST_S = 0.00175
_MOST_S = 0.1
_BETTER_AFTER = 500


class Gap:
    """``given_s``: what the site has written, which stays; None: found by itself."""

    def __init__(self, given_s: float | None, byte_s: float) -> None:
        self._fixed = given_s is not None
        self._floor_s = max(_LEAST_S, _CHARACTERS * byte_s)
        self.s = given_s if given_s is not None else self._floor_s
        self._good = 0

    def answered(self, tries: int) -> None:
        """A whole answer came at that try, counted from 1."""
        if self._fixed:
            return
        if tries > 1:
            self.s, self._good = min(_MOST_S, 2 * self.s), 0
            return
        self._good += 1
        if self._good >= _BETTER_AFTER:
            self.s, self._good = max(self._floor_s, self.s / 2), 0
