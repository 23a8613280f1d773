"""The product's own proof beside the harness's verdict: `citybrain proof` over the same database and the same outboxes.

Two judges that share nothing but the tables. A run is sound when both say so; where they differ, one of them is wrong,
and that is a finding too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from citybrain_cli.proof.prove import prove
from protocols.core.errors import CityBrainError

_MOST_WORDS = 20


def run(conn: psycopg.Connection[Any], dsn: str, gateway: str, outbox: Path) -> dict[str, Any]:
    """``outbox``: its file, where the agent is ours. A proof that cannot be made is not sound, and says why."""
    try:
        proof = prove(conn, dsn, gateway, outbox if outbox.exists() else None)
    except CityBrainError as error:
        return {"gateway": gateway, "sound": False, "problems": [str(error)]}
    return {
        "gateway": gateway,
        "sound": proof.sound,
        "produced_readings": proof.produced,
        "committed_readings": proof.committed,
        "rows": proof.rows,
        "waiting_rows": proof.waiting_rows,
        "lost": proof.lost,
        "duplicated": proof.duplicated,
        "reordered": proof.reordered,
        "thinned": proof.thinned,
        "content_equal": proof.content_equal,
        "problems": proof.problems[:_MOST_WORDS],
        "notes": proof.notes[:_MOST_WORDS],
    }
