"""Who is there: a gateway's state, heartbeat and silence, and the one alarm that says its link is down.

A gateway that says goodbye is offline and nobody is alarmed. One whose last will the broker publishes, or that is
silent for half a minute, raises ``comm.link.down``: one alarm for the gateway instead of one for each device behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from cloud.identity import clones
from cloud.ledger.accounts import epoch
from protocols.core.ids import derived_id
from protocols.core.model import Event
from protocols.uplink import uplink_pb2 as pb
from protocols.vocabulary import event_types

SCENARIO = "platform/uplink"
_SILENT_S = 30


class Presence:
    """``since_ms``: when this worker began to listen; before that nobody's silence means anything."""

    def __init__(self, since_ms: int) -> None:
        self._since_ms = since_ms
        self._down: dict[str, int] = {}  # gateway -> onset of its open alarm, 0: none open

    def forget(self) -> None:
        """The transaction failed, or a shard changed hands: the tables know."""
        self._down.clear()

    def state(self, conn: Connection[Any], gateway: str, payload: bytes, now_ms: int) -> tuple[bool, list[Event]]:
        """Message on ``.../up/state``: (it is there, events). Raises DecodeError."""
        state = pb.State()
        state.ParseFromString(payload)
        conn.execute(
            "update gateway set online = %s, state_at = now(), version = coalesce(nullif(%s, ''), version),"
            " epoch = coalesce(nullif(%s, 0), epoch) where gateway_id = %s",
            (state.online, state.agent_version, state.epoch, gateway),
        )
        if state.epoch:
            epoch(conn, gateway, state.epoch, state.previous_epoch, state.epoch_reason)
        if state.online:
            cloned = clones.seen(conn, gateway, state.session, state.at_ms, now_ms)
            return True, self._back(conn, gateway, now_ms) + cloned
        return False, [] if state.farewell else self._gone(conn, gateway, "will", now_ms)

    def health(self, conn: Connection[Any], gateway: str, payload: bytes, now_ms: int) -> tuple[int, list[Event]]:
        """Message on ``.../up/health``: (everything before this ms has been told, events). Raises DecodeError."""
        health = pb.Health()
        health.ParseFromString(payload)
        conn.execute(
            "update gateway set health = %s, health_at = now(), online = true, state_at = now() where gateway_id = %s",
            (Jsonb({**health.values, **health.texts, "at_ms": health.at_ms}), gateway),
        )
        complete_ms = health.at_ms - round(health.values.get("outbox_oldest_s", 0.0) * 1000)
        return complete_ms, self._back(conn, gateway, now_ms)

    def tick(self, conn: Connection[Any], shards: Sequence[int], now_ms: int) -> list[tuple[str, list[Event]]]:
        """Gateways that have fallen silent without a word."""
        if now_ms - self._since_ms < 2 * _SILENT_S * 1000:
            return []
        rows = conn.execute(
            "update gateway set online = false, state_at = now() where online and shard = any(%s)"
            " and health_at < now() - make_interval(secs => %s) returning gateway_id",
            (list(shards), _SILENT_S),
        ).fetchall()
        return [(row[0], self._gone(conn, row[0], "silent", now_ms)) for row in rows]

    def _onset(self, conn: Connection[Any], gateway: str) -> int:
        found = self._down.get(gateway)
        if found is None:
            row = conn.execute(
                "select (extract(epoch from onset_at) * 1000)::bigint from alarm"
                " where scenario = %s and key = %s and state <> 'cleared'",
                (SCENARIO, _key(gateway)),
            ).fetchone()
            found = self._down[gateway] = row[0] if row else 0
        return found

    def _gone(self, conn: Connection[Any], gateway: str, code: str, now_ms: int) -> list[Event]:
        if self._onset(conn, gateway):
            return []
        self._down[gateway] = now_ms
        return [_event(gateway, "raise", code, now_ms, now_ms)]

    def _back(self, conn: Connection[Any], gateway: str, now_ms: int) -> list[Event]:
        onset_ms = self._onset(conn, gateway)
        if not onset_ms:
            return []
        self._down[gateway] = 0
        return [_event(gateway, "clear", "ok", onset_ms, now_ms)]


def _key(gateway: str) -> str:
    return f"{gateway}:link_down"


def _event(gateway: str, state: Any, code: str, onset_ms: int, now_ms: int) -> Event:
    return Event(
        id=derived_id(SCENARIO, gateway, onset_ms, state),
        type="comm.link.down",
        ts_ms=now_ms,
        seen_ms=now_ms,
        source=gateway,
        scenario=SCENARIO,
        level=event_types()["comm.link.down"].level,
        state=state,
        key=_key(gateway),
        values={"code": code},
    )
