"""What goes down: orders and twin documents, from their tables to the gateways that are there to hear them.

```
 command, twin_reported ─▶ due ─▶ the shard's session ─▶ broker ─▶ gateway
        ▲                   │ "tried" is committed before anything leaves
        └── sent: once the broker has confirmed; received, done ...: only when the gateway says so
```
Everything here may be sent twice: an order has an id, a document a version, and the gateway knows both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from cloud.commands import service as commands
from protocols.uplink import uplink_pb2 as pb

_AGAIN_S = 20.0  # a gateway that is online and says nothing is told again
_MOST = 500  # messages a round

#: Publishes (shard, gateway, channel, payload) with QoS 1; the result says whether the broker has confirmed.
Publish = Callable[[int, str, str, bytes], Callable[[], bool] | None]


@dataclass(frozen=True, slots=True)
class _OnItsWay:
    command_id: str
    confirmed: Callable[[], bool]


class Downlink:
    """One a worker. :meth:`round` is called every second or so, with a connection that is in no transaction."""

    def __init__(self) -> None:
        self._on_their_way: list[_OnItsWay] = []
        self._twins: dict[tuple[str, str], tuple[int, int]] = {}  # (gateway, name) -> version, sent at (ms)
        self.counts = {"orders_sent": 0, "twins_sent": 0}

    def returned(self, gateways: Iterable[str]) -> None:
        """These gateways have just connected: what they had not confirmed goes again at once."""
        back = set(gateways)
        for key in [key for key in self._twins if key[0] in back]:
            del self._twins[key]

    def round(self, conn: Connection[Any], shards: Sequence[int], now_ms: int, publish: Publish) -> None:
        """Raises psycopg.Error; what was not confirmed then goes again."""
        if not shards:
            return
        self._note_confirmed(conn)
        with conn.transaction():
            commands.expire(conn, now_ms)
        self._orders(conn, shards, now_ms, publish)
        self._documents(conn, shards, now_ms, publish)

    def _note_confirmed(self, conn: Connection[Any]) -> None:
        confirmed = [one.command_id for one in self._on_their_way if one.confirmed()]
        if confirmed:
            conn.execute(
                "update command set sent_at = now(), state = case when state = 'queued' then 'sent' else state end"
                " where command_id = any(%s) and sent_at is null",
                (confirmed,),
            )
            gone = set(confirmed)
            self._on_their_way = [one for one in self._on_their_way if one.command_id not in gone]

    def _orders(self, conn: Connection[Any], shards: Sequence[int], now_ms: int, publish: Publish) -> None:
        with conn.transaction():
            rows = conn.execute(
                "update command c set tried_at = to_timestamp(%(now)s / 1000.0) from gateway g"
                " where g.gateway_id = c.gateway_id and c.command_id in ("
                "   select o.command_id from command o join gateway h using (gateway_id)"
                "   where h.online and h.shard = any(%(shards)s) and o.state in ('queued', 'sent')"
                "   and o.ended_at is null and o.expires_at > to_timestamp(%(now)s / 1000.0)"
                "   and (o.tried_at is null"
                "     or o.tried_at < to_timestamp(%(now)s / 1000.0) - make_interval(secs => %(again)s))"
                "   order by o.created_at limit %(most)s)"
                " returning g.shard, c.gateway_id, c.command_id, c.device_id, c.name, c.arguments,"
                " (extract(epoch from c.expires_at) * 1000)::bigint, (extract(epoch from c.created_at) * 1000)::bigint",
                {"now": now_ms, "shards": list(shards), "again": _AGAIN_S, "most": _MOST},
            ).fetchall()
        for shard, gateway, command_id, device, name, arguments, expires_ms, issued_ms in rows:
            order = pb.Order(
                id=command_id,
                device=device,
                name=name,
                arguments_json=json.dumps(arguments, ensure_ascii=False) if arguments else "",
                expires_ms=expires_ms,
                issued_ms=issued_ms,
            )
            confirmed = publish(shard, gateway, "command", order.SerializeToString())
            if confirmed is not None:
                self._on_their_way.append(_OnItsWay(command_id, confirmed))
                self.counts["orders_sent"] += 1
        del self._on_their_way[: -10 * _MOST]  # a broker that confirms nothing: the orders stay queued in the table

    def _documents(self, conn: Connection[Any], shards: Sequence[int], now_ms: int, publish: Publish) -> None:
        rows = conn.execute(
            "select g.shard, t.gateway_id, t.name, t.wanted from twin_reported t join gateway g using (gateway_id)"
            " where t.wanted > t.version and g.online and g.shard = any(%s)",
            (list(shards),),
        ).fetchall()
        due = []
        for shard, gateway, name, wanted in rows:
            version, sent_ms = self._twins.get((gateway, name), (0, 0))
            if version != wanted or now_ms - sent_ms >= _AGAIN_S * 1000:
                due.append((shard, gateway, name, wanted))
        for shard, gateway, name, wanted in due[:_MOST]:
            row = conn.execute(
                "select document::text from twin_desired where gateway_id = %s and name = %s and version = %s",
                (gateway, name, wanted),
            ).fetchone()
            if row is None:
                continue
            desired = pb.Desired(name=name, version=wanted, document_json=row[0].encode())
            if publish(shard, gateway, "twin", desired.SerializeToString()) is not None:
                self._twins[gateway, name] = (wanted, now_ms)
                self.counts["twins_sent"] += 1
