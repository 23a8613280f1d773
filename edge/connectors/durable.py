"""One answer for several sweeps: it goes out when the last of them is on disk."""

from __future__ import annotations

from collections.abc import Callable


def after_all(count: int, action: Callable[[], None]) -> Callable[[], None]:
    """What to give to ``count`` sweeps as ``on_durable``: calls ``action`` once, with the last of them."""
    left = count

    def one() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            action()

    return one
