"""An ingest worker: owns shards, commits what their gateways send, answers after the commit.

```
 broker ─▶ ShardSession (one a shard) ─▶ inbox (bounded) ─▶ Committer ─▶ PostgreSQL
              ▲                                                  │
              └────────── acknowledgements, after the commit ◀───┘
```
A shard belongs to the worker that holds its advisory lock. If the database goes away the worker keeps its messages,
waits and tries again; the broker and the outboxes hold the rest.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from cloud.cases.policy import CasePolicy
from cloud.ingest.committer import Committer
from cloud.ingest.config import WorkerConfig
from cloud.ingest.downlink import Downlink
from cloud.ingest.group import Inbound, Reply
from cloud.ingest.rules import Rules
from cloud.ingest.shard_session import ShardSession
from scenarios.packs import bind_all

log = logging.getLogger("citybrain.cloud.ingest")

_LOCK_SPACE = 0x6362  # first key of the shards' advisory locks
_CLAIM_EVERY_S = 2.0
_TICK_EVERY_S = 1.0
_GATHER_S = 0.01
_INBOX = 4096
_GROUP_BYTES = 16 << 20


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Worker:
    """Run :meth:`run` in a thread of its own or as the process; :meth:`stop` from anywhere."""

    def __init__(self, config: WorkerConfig, base: Path, *, now_ms: Callable[[], int] = wall_ms) -> None:
        self._config = config
        self._base = base
        self._now_ms = now_ms
        self._allowed = config.allowed_shards()
        self._policies = {bound.pack.id: CasePolicy.from_pack(bound.pack) for bound in bind_all(config.scenario)}
        self._inbox: queue.Queue[Inbound] = queue.Queue(_INBOX)
        self._sessions: dict[int, ShardSession] = {}
        self._owned: set[int] = set()
        self._stop = threading.Event()
        self._downlink = Downlink()
        self._held: list[Inbound] = []  # taken from the inbox, not yet committed
        self.counts: dict[str, int] = {}

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Until :meth:`stop`. Database errors are waited out; anything else ends the worker."""
        delay_s = 0.2
        try:
            while not self._stop.is_set():
                try:
                    with psycopg.connect(
                        self._config.dsn, autocommit=True, application_name="citybrain-worker"
                    ) as conn:
                        delay_s = 0.2
                        self._serve(conn)
                except psycopg.OperationalError as error:
                    log.warning("database lost, trying again: %s", str(error).strip().splitlines()[0])
                    self._stop.wait(delay_s)
                    delay_s = min(delay_s * 2, 5.0)
        finally:
            for session in self._sessions.values():
                session.close()

    def _serve(self, conn: Connection[Any]) -> None:
        # A new connection holds no locks and no caches: claim again. Sessions stay; only the owner of the lock commits.
        self._owned.clear()
        rules = Rules(self._config.scenario)
        committer = Committer(conn, rules, self._policies, self._now_ms)
        self._claim(conn, rules)
        next_claim = next_tick = time.monotonic() + _TICK_EVERY_S
        while not self._stop.is_set():
            group = self._gather()
            if group:
                self._commit(conn, committer, rules, group)
            now = time.monotonic()
            if now >= next_tick:
                committer.tick(conn, sorted(self._owned))
                self._downlink.round(conn, sorted(self._owned), self._now_ms(), self._publish_down)
                self.counts = dict(committer.counts)
                next_tick = now + _TICK_EVERY_S
            if now >= next_claim:
                self._claim(conn, rules)
                next_claim = now + _CLAIM_EVERY_S

    def _publish_down(self, shard: int, gateway: str, channel: str, payload: bytes) -> Callable[[], bool] | None:
        session = self._sessions.get(shard)
        return session.send_down(gateway, channel, payload) if session is not None and session.connected else None

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
        """What has come in, up to a group; what an earlier attempt did not commit comes first."""
        if self._held:
            return self._held
        try:
            group = [self._inbox.get(timeout=0.1)]
        except queue.Empty:
            return []
        size = len(group[0].payload)
        until = time.monotonic() + _GATHER_S
        while len(group) < self._config.group_messages and size < _GROUP_BYTES:
            try:
                item = self._inbox.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            group.append(item)
            size += len(item.payload)
        self._held = group
        return group

    def _claim(self, conn: Connection[Any], rules: Rules) -> None:
        """Take shards that have gateways and no owner."""
        rows = conn.execute("select gateway_id, shard from gateway").fetchall()
        for shard in sorted({int(row[1]) for row in rows} & self._allowed):
            if shard in self._owned:
                continue
            row = conn.execute("select pg_try_advisory_lock(%s, %s)", (_LOCK_SPACE, shard)).fetchone()
            if row is None or not row[0]:
                session = self._sessions.pop(shard, None)
                if session is not None:
                    session.close()  # another worker took it while our database was away
                continue
            self._owned.add(shard)
            rules.own(conn, shard)
            if shard not in self._sessions:
                gateways = [gateway for gateway, its_shard in rows if its_shard == shard]
                self._sessions[shard] = ShardSession(self._config.broker, self._base, shard, self._inbox, gateways.copy)
                log.info("shard %d is ours", shard)
