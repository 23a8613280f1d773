"""Rows that gateways were told are committed and that the database does not hold: it came back from a backup.

An acknowledgement follows the commit. So a gateway whose book says ``acked`` beyond our cursor was told so by a
database that knew more than this one, and has deleted those rows: they are lost, unless the broker still brings them.
What it had not deleted it sends again, in the same or in its next epoch, and that is no loss.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from protocols.uplink import uplink_pb2 as pb

#: A restore explains the loss only of a lane that still stands where it left it: one that has gone on since had lost
#: nothing by it, and what is missing beyond has another cause.
_NOTE = """
    insert into lane_forgotten as f (gateway_id, epoch, lane, acked, restore_id)
    select %(gateway)s, said.epoch, said.lane, said.acked,
           case when coalesce(c.seq, 0) = coalesce(c.restored_seq, 0)
                then (select max(restore_id) from restore_point) end
      from unnest(%(epochs)s::bigint[], %(lanes)s::text[], %(acked)s::bigint[]) as said (epoch, lane, acked)
      left join lane_cursor c on (c.gateway_id, c.epoch, c.lane) = (%(gateway)s, said.epoch, said.lane)
     where said.acked > coalesce(c.seq, 0)
        on conflict (gateway_id, epoch, lane) do update set acked = excluded.acked, heard_at = now(),
           restore_id = coalesce(f.restore_id, excluded.restore_id) where excluded.acked > f.acked
"""


def note(conn: Connection[Any], gateway_id: str, account: pb.Account) -> None:
    """In the caller's transaction. What it has itself moved so far is not acknowledged yet, so it does not matter."""
    said = [(account.epoch, lane.lane, lane.acked) for lane in account.lanes]
    said += [(lane.epoch, lane.lane, lane.acked) for lane in account.ended]
    said = [one for one in said if one[2]]
    if said:
        epochs, lanes, acked = (list(column) for column in zip(*said, strict=True))
        conn.execute(_NOTE, {"gateway": gateway_id, "epochs": epochs, "lanes": lanes, "acked": acked})
