"""What happens to packets on their way: lost, late, swallowed. Pure: seeded, time is an argument.

A queue has a bound, as a router's has; what does not fit is dropped and counted.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

#: A link of this size holds what 10 Mbit/s carry in some 3 s; a real modem's buffer is rarely larger.
QUEUE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Weather:
    """``loss``: share of packets, each way. ``delay_s``: each way. ``swallow``: all goes in, nothing comes out."""

    loss: float = 0.0
    delay_s: float = 0.0
    swallow: bool = False

    @classmethod
    def from_json(cls, what: object) -> Weather:
        """Raises ValueError or TypeError."""
        if not isinstance(what, dict):
            raise ValueError("weather is an object")
        loss, delay_s = float(str(what.get("loss", 0.0))), float(str(what.get("delay_s", 0.0)))
        if not 0 <= loss <= 1 or not 0 <= delay_s <= 60:
            raise ValueError("loss is 0 to 1, delay_s 0 to 60")
        return cls(loss, delay_s, bool(what.get("swallow", False)))


CALM = Weather()


class Lane:
    """One direction. Packets come out in the order in which they went in: what is late delays what follows."""

    def __init__(self, seed: int, queue_bytes: int = QUEUE_BYTES) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a seeded fault, not a secret
        self._queue: deque[tuple[float, bytes]] = deque()
        self._room = queue_bytes
        self.weather = CALM
        self.passed = self.lost = self.swallowed = self.crowded = 0

    def put(self, packet: bytes, now_s: float) -> None:
        if self.weather.swallow:
            self.swallowed += 1
        elif self.weather.loss and self._random.random() < self.weather.loss:
            self.lost += 1
        elif len(packet) > self._room:
            self.crowded += 1
        else:
            due_s = now_s + self.weather.delay_s
            if self._queue:
                due_s = max(due_s, self._queue[-1][0])
            self._queue.append((due_s, packet))
            self._room -= len(packet)

    def take(self, now_s: float) -> list[bytes]:
        """What has arrived by now."""
        out: list[bytes] = []
        while self._queue and self._queue[0][0] <= now_s:
            packet = self._queue.popleft()[1]
            self._room += len(packet)
            if self.weather.swallow:
                self.swallowed += 1
            else:
                out.append(packet)
        self.passed += len(out)
        return out

    def next_s(self) -> float | None:
        """When the next packet arrives; None: none is on its way."""
        return self._queue[0][0] if self._queue else None

    def counts(self) -> dict[str, int]:
        return {
            "passed": self.passed,
            "lost": self.lost,
            "swallowed": self.swallowed,
            "crowded": self.crowded,
        }
