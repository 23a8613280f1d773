"""What a batch carries besides readings, events and pictures: each part goes to the service that owns it."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from cloud.commands import service as commands
from cloud.identity import admission
from cloud.twin import service as twin
from protocols.uplink.batch import Batch


def take(conn: Connection[Any], gateway_id: str, batch: Batch) -> None:
    """In the transaction of the batch: told and stored together, or neither."""
    for event in batch.events:
        admission.heard(conn, gateway_id, event)
    if not (batch.outcomes or batch.reported):
        return
    with conn.transaction():
        for outcome in batch.outcomes:
            commands.heard(conn, gateway_id, outcome)
        for report in batch.reported:
            twin.heard(conn, gateway_id, report)
