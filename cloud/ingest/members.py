"""Who else is at work: each worker's row and lock, its share of the shards, and an end to those that hang.

```
 worker's own session ─ holds lock (member, number) and a lock a shard ─ commits
 its second session   ─ beats once a second, reads who is there, says which shards should be ours
```
A worker is alive while its session holds its lock: a process that is killed loses it at once, as its socket closes. One
that hangs, or whose host has vanished so that the database still believes in its session, does not beat. Who sees the
same beat for six seconds of its own time ends that session, which rolls back what it had begun: nothing it does when it
wakes can be committed. A slow database slows the watching as much as the beating, so it makes nobody look dead.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection

from cloud.ingest.shares import share

log = logging.getLogger("citybrain.cloud.ingest")

SHARD_SPACE = 0x6362  # first key of the shards' advisory locks
MEMBER_SPACE = 0x6363  # and of the workers' own
BEAT_S = 1.0
HUNG_S = 6.0
_SEEN_OFTEN = 4  # and so many times, so that a pause of our own proves nothing
_STUCK_S = 120.0  # a worker whose main loop has not turned for so long stops beating

#: The server notices a client that has vanished without a word within about this many seconds, whatever we do.
SESSION = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
    " -c client_connection_check_interval=2s"
)
#: And we notice a server that has vanished.
KEEPALIVES: Mapping[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "connect_timeout": 5,
}

_READ = """
select w.worker_id, w.allowed, w.beats, m.pid,
       coalesce((select array_agg(l.objid::bigint::int) from pg_locks l where l.locktype = 'advisory' and l.granted
                 and l.classid::bigint = %(shards)s and l.objsubid = 2 and l.database = m.database and l.pid = m.pid),
                '{}')
  from ingest_worker w join pg_locks m on m.locktype = 'advisory' and m.granted and m.classid::bigint = %(members)s
       and m.objid::bigint = w.number and m.objsubid = 2
       and m.database = (select oid from pg_database where datname = current_database())
"""


@dataclass(slots=True)
class _Seen:
    beats: int
    since: float
    times: int


class Members:
    """``target``: the shards this worker should have, None as long as nobody knows. ``turned()``: the monotonic second
    in which the worker's loop last turned."""

    def __init__(self, dsn: str, allowed: frozenset[int], turned: Callable[[], float]) -> None:
        self.worker_id = secrets.token_hex(8)
        self._dsn = dsn
        self._allowed = allowed
        self._turned = turned
        self._number = 0
        self._seen: dict[str, _Seen] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._counts: dict[int, int] = {}
        self.target: frozenset[int] | None = None
        self.gateways: dict[int, list[str]] = {}
        self._thread = threading.Thread(target=self._run, name="members", daemon=True)

    def join(self, conn: Connection[Any]) -> None:
        """The worker's own session is new: take the lock that says that we live."""
        self.target = None
        number = 0
        while not number:
            number = secrets.randbelow((1 << 31) - 1) + 1
            row = conn.execute("select pg_try_advisory_lock(%s, %s)", (MEMBER_SPACE, number)).fetchone()
            if row is None or not row[0]:
                number = 0
        self._number = number
        if not self._thread.is_alive():
            self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(
                    self._dsn, autocommit=True, application_name="citybrain-members", options=SESSION, **KEEPALIVES
                ) as conn:
                    while not self._stop.is_set():
                        self._beat(conn)
                        self._wake.wait(BEAT_S)
                        self._wake.clear()
                    conn.execute("delete from ingest_worker where worker_id = %s", (self.worker_id,))
            except psycopg.OperationalError as error:
                log.info("members: database lost: %s", str(error).strip().splitlines()[0])
                self._seen.clear()
                self._stop.wait(BEAT_S)

    def _beat(self, conn: Connection[Any]) -> None:
        if time.monotonic() - self._turned() < _STUCK_S:
            conn.execute(
                "insert into ingest_worker as w (worker_id, number, host, process, allowed) values (%s, %s, %s, %s, %s)"
                " on conflict (worker_id) do update set number = excluded.number, beats = w.beats + 1, seen_at = now()",
                (self.worker_id, self._number, socket.gethostname(), os.getpid(), sorted(self._allowed)),
            )
        counts = dict(conn.execute("select shard, count(*) from gateway group by shard").fetchall())
        if counts != self._counts:
            gateways: dict[int, list[str]] = {}
            for gateway, shard in conn.execute("select gateway_id, shard from gateway"):
                gateways.setdefault(shard, []).append(gateway)
            self._counts, self.gateways = counts, gateways
        allowed: dict[str, frozenset[int]] = {}
        owned: dict[str, frozenset[int]] = {}
        now = time.monotonic()
        for worker, may_have, beats, pid, has in conn.execute(
            _READ, {"shards": SHARD_SPACE, "members": MEMBER_SPACE}
        ).fetchall():
            if worker != self.worker_id and self._hangs(worker, beats, now):
                log.error("worker %s hangs or has vanished: its session %d is ended", worker, pid)
                conn.execute("select pg_terminate_backend(%s)", (pid,))
                self._seen.pop(worker)
                continue
            allowed[worker], owned[worker] = frozenset(may_have), frozenset(has)
        self._seen = {worker: seen for worker, seen in self._seen.items() if worker in allowed}
        if self.worker_id in allowed:  # else our own session is just gone, or not yet there
            self.target = share(frozenset(counts), allowed, owned)[self.worker_id]
        conn.execute("delete from ingest_worker where seen_at < now() - interval '1 hour'")

    def _hangs(self, worker: str, beats: int, now: float) -> bool:
        seen = self._seen.get(worker)
        if seen is None or seen.beats != beats:
            self._seen[worker] = _Seen(beats, now, 1)
            return False
        seen.times += 1
        return seen.times >= _SEEN_OFTEN and now - seen.since >= HUNG_S
