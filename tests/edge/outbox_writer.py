"""Writes to an outbox until it is killed, and says what it was told is durable. Run as a process by the tests.

``outbox_writer.py <path> <seed>``: one line a commit, after it has returned: lane sequences, readings, digest.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np

from edge.outbox import Outbox, Pending
from protocols.core.model import SeriesInfo
from protocols.uplink.columns import Readings


def readings(rng: random.Random, outbox: Outbox, number: int) -> Readings:
    aliases = [outbox.alias(SeriesInfo(f"meter-{rng.randrange(9)}", f"p{rng.randrange(9)}"), 0) for _ in range(number)]
    base = rng.randrange(1 << 40)
    return Readings(
        np.array(aliases, np.int32),
        np.array([base + n for n in range(number)], np.int64),
        np.zeros(number, np.int32),
        np.array([rng.randrange(-1000, 1000) for _ in range(number)], np.int64),
        np.zeros(number, np.uint8),
    )


def main() -> None:
    path, seed = Path(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(seed)
    outbox = Outbox(path, now_ms=1_772_400_000_000)
    number = 0
    while True:
        number += 1
        parts = [Pending("data", readings(rng, outbox, rng.randrange(1, 30)))]
        if number % 3 == 0:
            parts.append(Pending("backfill", readings(rng, outbox, 5)))
        push = f"{seed}/{number}"
        outbox.commit(parts, now_ms=number, exchanges=[push], state={"engine": push.encode()})
        # One write call a line: a line that arrived whole was said after the commit had returned.
        sys.stdout.write(json.dumps({"totals": outbox.totals(), "exchange": push}) + "\n")
        sys.stdout.flush()
        if number % 7 == 0:
            outbox.acknowledge(outbox.epoch, "data", outbox.totals()["data"]["seq"] - 3)


if __name__ == "__main__":
    main()
