"""An ingest worker: owns shards, commits what their gateways send, answers after the commit.

```
 broker ─▶ ShardSession (one a shard) ─▶ inbox (bounded) ─▶ Committer ─▶ PostgreSQL
              ▲                                                  │
              └────────── acknowledgements, after the commit ◀───┘
```
A shard belongs to the worker that holds its advisory lock; `members.py` says which ones are our part. If the database
goes away the worker keeps its messages, waits and tries again; the broker and the outboxes hold the rest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from cloud.cases.policy import CasePolicy
from cloud.ingest.committer import Committer
from cloud.ingest.config import WorkerConfig
from cloud.ingest.downlink import Downlink
from cloud.ingest.group import Inbound, Reply
from cloud.ingest.inbox import Inbox
from cloud.ingest.members import KEEPALIVES, SESSION, SHARD_SPACE, Members
from cloud.ingest.rules import Rules
from cloud.ingest.shard_session import ShardSession
from cloud.store.disk import DiskWatch
from scenarios.packs import bind_all

log = logging.getLogger("citybrain.cloud.ingest")

_ADOPT_EVERY_S = 0.5
_TICK_EVERY_S = 1.0
_GATHER_S = 0.01
_IDLE_S = 0.1
_GROUP_BYTES = 16 << 20


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Worker:
    """Run :meth:`run` in a thread of its own or as the process; :meth:`stop` from anywhere."""

    def __init__(self, config: WorkerConfig, base: Path, *, now_ms: Callable[[], int] = wall_ms) -> None:
        self._config = config
        self._base = base
        self._now_ms = now_ms
        self._downlink = Downlink()
        self._policies = {bound.pack.id: CasePolicy.from_pack(bound.pack) for bound in bind_all(config.scenario)}
        self._inbox = Inbox()
        self._sessions: dict[int, ShardSession] = {}
        self._owned: set[int] = set()
        self._stop = threading.Event()
        self._held: list[Inbound] = []  # taken from the inbox, not yet committed
        self._turned = time.monotonic()
        self._members = Members(config.dsn, config.allowed_shards(), lambda: self._turned)
        self.counts: dict[str, int] = {}
        self.disk = DiskWatch()

    def stop(self) -> None:
        self._stop.set()

    @property
    def shards(self) -> frozenset[int]:
        """Those it owns now."""
        return frozenset(self._owned)

    def run(self) -> None:
        """Until :meth:`stop`. Database errors are waited out; anything else ends the worker."""
        delay_s = 0.2
        try:
            while not self._stop.is_set():
                try:
                    with psycopg.connect(
                        self._config.dsn,
                        autocommit=True,
                        application_name="citybrain-worker",
                        options=SESSION,
                        **KEEPALIVES,
                    ) as conn:
                        delay_s = 0.2
                        self._serve(conn)
                except psycopg.OperationalError as error:
                    log.warning("database lost, trying again: %s", str(error).strip().splitlines()[0])
                    self._turned = time.monotonic()
                    self._stop.wait(delay_s)
                    delay_s = min(delay_s * 2, 5.0)
        finally:
            self._members.stop()
            for session in self._sessions.values():
                session.close()

    def _serve(self, conn: Connection[Any]) -> None:
        # A new connection holds no locks and no caches: claim again. Sessions stay; only the owner of the lock commits.
        self._owned.clear()
        rules = Rules(self._config.scenario)
        committer = Committer(conn, rules, self._policies, self._now_ms)
        committer.disk = self.disk
        self.disk.forget()
        self._members.join(conn)
        next_adopt = 0.0
        next_tick = next_down = time.monotonic() + _TICK_EVERY_S
        while not self._stop.is_set():
            now = self._turned = time.monotonic()
            if now >= next_adopt:
                self._adopt(conn, committer, rules)
                next_adopt = now + _ADOPT_EVERY_S
            self.disk.look(conn)
            group = self._gather()
            if group:
                self._commit(conn, committer, rules, group)
            if now >= next_tick:
                committer.tick(conn, sorted(self._owned))
                self.counts = {
                    **committer.counts, "inbox_messages": len(self._inbox), "inbox_peak_bytes": self._inbox.peak,
                }  # fmt: skip
                next_tick = now + _TICK_EVERY_S
            if committer.came_online or now >= next_down:
                self._send_down(conn, committer)
                next_down = now + _TICK_EVERY_S

    def _commit(self, conn: Connection[Any], committer: Committer, rules: Rules, group: list[Inbound]) -> None:
        try:
            replies = committer.commit(conn, group)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as error:
            replies = self._commit_singly(conn, committer, rules, group, error)
        self._held = []
        for message in group:
            message.done()
        for reply in replies:
            session = self._sessions.get(reply.shard)
            if session is not None:
                session.acknowledge_gateway(reply.gateway, reply.ack)

    def _commit_singly(
        self, conn: Connection[Any], committer: Committer, rules: Rules, group: list[Inbound], error: Exception
    ) -> list[Reply]:
        """One message of the group is one the database will never take: find it, set it aside, keep the rest."""
        log.error("the database refused a group of %d, trying one by one: %s", len(group), error)
        replies: list[Reply] = []
        waiting = deque(group)
        while waiting:
            message = waiting.popleft()
            committer.forget()
            rules.reload(conn)
            try:
                replies += committer.commit(conn, [message], follow=False)
            except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as refusal:
                committer.forget()
                rules.reload(conn)
                replies += committer.set_aside(conn, message, refusal)
            behind = committer.behind(conn, message)
            if behind is not None:
                waiting.appendleft(behind)
        return replies

    def _gather(self) -> list[Inbound]:
        """What has come in, up to a group; what an earlier attempt did not commit comes first.

        What came by the session of a shard that is no longer ours is left to its owner, to whom the broker sends it;
        as long as we do not know which ones are ours, nothing is touched."""
        if self._members.target is None or not self.disk.taking:
            self._stop.wait(_IDLE_S)
            return []
        group = self._held or self._inbox.gather(self._config.group_messages, _GROUP_BYTES, _IDLE_S, _GATHER_S)
        self._held = [message for message in group if message.shard is None or message.shard in self._owned]
        return self._held

    # -- shards -----------------------------------------------------------------------------------------------------

    def _adopt(self, conn: Connection[Any], committer: Committer, rules: Rules) -> None:
        """Give away what is not our part, take what is and nobody holds."""
        target = self._members.target
        if target is None:
            return
        for shard in sorted(self._owned - target):
            self._release(conn, committer, rules, shard)
        for shard in sorted(target - self._owned):
            row = conn.execute("select pg_try_advisory_lock(%s, %s)", (SHARD_SPACE, shard)).fetchone()
            if row is None or not row[0]:
                session = self._sessions.pop(shard, None)
                if session is not None:
                    session.close()  # another worker took it while our database was away
                continue
            self._owned.add(shard)
            rules.own(conn, shard)
            committer.own(conn, shard)
            if shard not in self._sessions:
                self._sessions[shard] = ShardSession(
                    self._config.broker, self._base, shard, self._inbox, self._gateways_of(shard)
                )
                log.info("shard %d is ours", shard)
        for shard in sorted(self._sessions.keys() - self._owned - target):
            self._sessions.pop(shard).close()

    def _gateways_of(self, shard: int) -> Callable[[], Sequence[str]]:
        return lambda: tuple(self._members.gateways.get(shard, ()))

    def _release(self, conn: Connection[Any], committer: Committer, rules: Rules, shard: int) -> None:
        """In this order: hear nothing more, leave the engines' state behind, let go."""
        session = self._sessions.pop(shard, None)
        if session is not None:
            session.close()
        self._owned.discard(shard)
        rules.disown(conn, shard, self._now_ms())
        committer.disown(conn, shard)
        conn.execute("select pg_advisory_unlock(%s, %s)", (SHARD_SPACE, shard))
        log.info("shard %d is given to another worker", shard)

    # -- downwards --------------------------------------------------------------------------------------------------

    def _send_down(self, conn: Connection[Any], committer: Committer) -> None:
        self._downlink.returned(committer.came_online)
        committer.came_online.clear()
        self._downlink.round(conn, sorted(self._owned), self._now_ms(), self._publish_down)

    def _publish_down(self, shard: int, gateway: str, channel: str, payload: bytes) -> Callable[[], bool] | None:
        session = self._sessions.get(shard)
        return session.send_down(gateway, channel, payload) if session is not None and session.connected else None
