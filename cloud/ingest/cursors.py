"""How far each lane has come: moved in the transaction of its rows, and told to the gateway after it."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from psycopg.errors import SerializationFailure

from cloud.ingest.group import Group, Reply
from cloud.ingest.held import Held
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.digest import to_signed


def write(conn: Connection[Any], group: Group) -> None:
    """In the caller's transaction. Raises SerializationFailure if another worker has moved a lane meanwhile."""
    if not group.lanes:
        return
    with conn.cursor() as cursor:
        # A cursor moves only from where this group found it: another worker may have taken the shard over.
        cursor.executemany(
            "insert into lane_cursor as c (gateway_id, epoch, lane, seq, batches, readings, events, bytes, digest,"
            " thinned, repeats, thinned_digest, unproven) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " on conflict (gateway_id, epoch, lane) do update set seq = excluded.seq,"
            " batches = c.batches + excluded.batches, readings = c.readings + excluded.readings,"
            " events = c.events + excluded.events, bytes = c.bytes + excluded.bytes,"
            " digest = wrapping_add(c.digest, excluded.digest), thinned = c.thinned + excluded.thinned,"
            " repeats = c.repeats + excluded.repeats,"
            " thinned_digest = wrapping_add(c.thinned_digest, excluded.thinned_digest),"
            " unproven = c.unproven + excluded.unproven, updated_at = now()"
            " where c.seq = excluded.seq - excluded.batches",
            [
                (
                    gateway, epoch, lane, c.seq, c.batches, c.readings, c.events, c.size, to_signed(c.digest),
                    c.thinned, c.repeats, to_signed(c.thinned_digest), c.unproven,
                )
                for (gateway, epoch, lane), c in group.lanes.items()
            ],
        )  # fmt: skip
        if cursor.rowcount != len(group.lanes):
            raise SerializationFailure("a lane has been moved on by another worker")


def replies(group: Group, held: Held) -> list[Reply]:
    """What the gateways are told about this group, once it is committed."""
    out: list[Reply] = []
    for key, change in group.lanes.items():
        gateway, epoch, lane = key
        shard = group.shards[gateway]
        for seq, reason in change.rejected:
            told = pb.Ack(epoch=epoch, lane=lane, committed=change.seq, rejected_seq=seq, reason=reason)
            out.append(Reply(shard, gateway, told))
        waits = held.ranges(key, change.seq)
        # If the gap has closed in this very group there is nothing to ask for.
        again = bool(change.unreadable) or change.furthest > change.seq
        ack = pb.Ack(epoch=epoch, lane=lane, committed=change.seq, resend=again, reason=change.unreadable)
        if again:
            ack.held.extend(waits)
        out.append(Reply(shard, gateway, ack))
    return out
