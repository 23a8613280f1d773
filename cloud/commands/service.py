"""Orders from asking to outcome. A state says only what is known; nothing is called delivered that is not."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from protocols.uplink.batch import CommandOutcome


def heard(conn: Connection[Any], gateway_id: str, outcome: CommandOutcome) -> None:
    """The gateway says what became of an order. Repeats and news about ended orders change nothing."""
    ended = outcome.state != "received"
    conn.execute(
        "update command set state = %s, code = %s, detail = %s, read_back = %s,"
        " received_at = coalesce(received_at, now()), ended_at = case when %s then now() end"
        " where command_id = %s and gateway_id = %s and ended_at is null",
        (
            outcome.state, outcome.code[:64], outcome.detail[:500], Jsonb(dict(outcome.read_back)), ended, outcome.id,
            gateway_id,
        ),
    )  # fmt: skip
