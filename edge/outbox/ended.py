"""How far the core had acknowledged the epochs that are over: a core that came back from a backup does not know it.

What is deleted here because the core had it is lost when the core loses it, and nobody but this gateway can say up to
which row that is. So it is kept beyond the epoch and told with every account (``Account.ended``).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from protocols.uplink.topics import LANES, Lane

_NAME = "outbox.ended"
#: Epochs end when a disk breaks or a core is restored; the account goes over metered links every minute.
MOST_EPOCHS = 4


def read(db: sqlite3.Connection) -> dict[int, dict[Lane, int]]:
    """Last acknowledged row by epoch and lane, the epoch that ended last at the end."""
    row = db.execute("select value from state where name = ?", (_NAME,)).fetchone()
    if row is None:
        return {}
    said = json.loads(bytes(row[0]))
    return {int(epoch): {lane: own[lane] for lane in LANES if lane in own} for epoch, own in said}


def note(db: sqlite3.Connection, epoch: int, acked: Mapping[Lane, int]) -> None:
    """In the caller's transaction. Said twice of one epoch, the higher number is the true one."""
    ended = read(db)
    known = ended.pop(epoch, {})
    ended[epoch] = {lane: most for lane in LANES if (most := max(acked.get(lane, 0), known.get(lane, 0)))}
    if epoch and ended[epoch]:
        kept = list(ended.items())[-MOST_EPOCHS:]
        db.execute("insert or replace into state values (?, ?)", (_NAME, json.dumps(kept).encode()))
