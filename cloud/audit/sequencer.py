"""Gives committed entries their place in the tree and signs what came out: one process at a time, a pass a second.

```
 any transaction ─▶ audit_entry ──(committed)──▶ pass: hash, leaf index, nodes ─▶ signed head ─▶ audit-heads.txt
```
Deeds never wait for it. An entry is open to an unseen deletion only between its commit and the next pass; what is
left then is a hole in the numbers, and a hole that no running transaction can still fill is itself put on record
(``audit.gap``). A transaction that was rolled back leaves the same hole, so a gap is a question, not a proof.

The heads are kept outside the database as well, beside the key. A database that lacks what this key has signed (cut,
restored from a backup) is not signed on: that would be two histories. :func:`accept` says so for the record first.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from cloud.audit import heads, merkle
from cloud.audit.heads import HEADS_FILE, Head, Signer
from cloud.audit.log import LEAF_COLUMNS, Entry, leaf_bytes, record
from cloud.audit.reads import nodes, size_of
from protocols.core.errors import ContractError, StoreError

log = logging.getLogger("citybrain.cloud.audit")

_LOCK = (0x6362, 0x41554454)  # the space of ours, "AUDT": whoever holds it seals
PASS_ENTRIES = 5_000
GAP_WAIT_S = 60.0
SIGN_EVERY_S = 5.0  # at most so often, or heads would outnumber entries
REFRESH_S = 3600.0  # a head at least so often: it says that nothing was done in between
_HEADS_FILE_BYTES = 4 << 20  # then the file starts anew; the one before is kept
_PASS_EVERY_S = 1.0
_HOLES = """
    select before + 1, entry_id - 1
      from (select entry_id, lag(entry_id, 1, %(settled)s) over (order by entry_id) as before
              from (select entry_id from audit_entry where entry_id > %(settled)s and entry_id <= %(newest)s
                    union select entry_id from audit_leaf where entry_id > %(settled)s) as known) as pairs
     where entry_id <> before + 1 order by 1
"""


class LogBehind(StoreError):
    """The database lacks entries whose head this key has signed."""

    code = "audit.behind"
    retry = False


@dataclass(slots=True)
class Sequencer:
    """One per process that may seal. :meth:`seal` is one pass in the caller's connection (autocommit)."""

    signer: Signer
    state_dir: Path
    sign_every_s: float = SIGN_EVERY_S
    _gaps: dict[tuple[int, int], tuple[float, int]] = field(default_factory=dict)
    _checked: bool = False
    _kept: str = ""  # the newest head in our file

    def seal(self, conn: Connection[Any], now_ms: int, monotonic_s: float) -> int | None:
        """Seal what has been committed; how many entries, None if another process is the one that seals.

        Raises LogBehind, StoreError."""
        row = conn.execute("select pg_try_advisory_lock(%s, %s)", _LOCK).fetchone()
        if row is None or not row[0]:
            self._checked = False
            return None
        try:
            if not self._checked:
                self._check_own_heads(conn)
                self._checked = True
            with conn.transaction():
                sealed = self._seal(conn, now_ms, monotonic_s)
            self._keep_heads(conn)
        finally:
            conn.execute("select pg_advisory_unlock(%s, %s)", _LOCK)
        return sealed

    def _seal(self, conn: Connection[Any], now_ms: int, monotonic_s: float) -> int:
        size = size_of(conn)
        edge = merkle.edge_nodes(size)
        kept = nodes(conn, edge)
        frontier = merkle.Frontier(size, [kept[node] for node in edge])
        settled = _one(conn, "select settled_id from audit_progress")
        self._settle(conn, settled, monotonic_s)
        rows = conn.execute(
            f"select {LEAF_COLUMNS} from audit_entry e where e.entry_id > %s"  # noqa: S608 - a constant
            " and not exists (select 1 from audit_leaf l where l.entry_id = e.entry_id) order by e.entry_id limit %s",
            (settled, PASS_ENTRIES),
        ).fetchall()
        made: list[tuple[int, int, bytes]] = []
        with conn.cursor() as cursor:
            if rows:
                with cursor.copy("copy audit_leaf (leaf_index, entry_id, hash) from stdin") as copy:
                    for row in rows:
                        hash_ = merkle.leaf_hash(leaf_bytes(*row))
                        copy.write_row((frontier.size, row[0], hash_))
                        made += frontier.append(hash_)
                with cursor.copy("copy audit_node (level, position, hash) from stdin") as copy:
                    for node in made:
                        copy.write_row(node)
        self._sign(conn, frontier, now_ms)
        return len(rows)

    def _sign(self, conn: Connection[Any], frontier: merkle.Frontier, now_ms: int) -> None:
        last = _last_head(conn)
        if last is not None:
            head = heads.read_head(last[1])
            wait_s = REFRESH_S if head.size == frontier.size else self.sign_every_s
            if 0 <= now_ms - head.at_ms < wait_s * 1000:  # a clock that went back signs at once
                return
            if head.origin != self.signer.name:
                log.warning("the audit log goes on under another key: %s after %s", self.signer.name, head.origin)
        number = 1 if last is None else last[0] + 1
        note = self.signer.sign(frontier.size, frontier.root(), now_ms, None if last is None else last[1])
        conn.execute(
            "insert into audit_head (head_no, size, at, note) values (%s, %s, to_timestamp(%s / 1000.0), %s)",
            (number, frontier.size, now_ms, note),
        )

    def _settle(self, conn: Connection[Any], settled: int, monotonic_s: float) -> None:
        """Move on over numbers that are sealed; put numbers that will never come on record."""
        row = conn.execute(
            "select max(entry_id), pg_snapshot_xmin(pg_current_snapshot())::text::bigint,"
            " pg_snapshot_xmax(pg_current_snapshot())::text::bigint from audit_leaf where entry_id > %s",
            (settled,),
        ).fetchone()
        if row is None or row[0] is None:
            return
        newest, oldest_running, next_transaction = row
        # A later snapshot than the one above: whatever had ended by then is visible in this one.
        holes = conn.execute(_HOLES, {"settled": settled, "newest": newest}).fetchall()
        waiting = conn.execute(
            "select min(entry_id) from audit_entry e where entry_id > %s"
            " and not exists (select 1 from audit_leaf l where l.entry_id = e.entry_id)",
            (settled,),
        ).fetchone()
        seen, self._gaps = self._gaps, {}
        until = newest if waiting is None or waiting[0] is None else min(newest, waiting[0] - 1)
        for first, last in holes:
            since_s, running = seen.get((first, last), (monotonic_s, next_transaction))
            over = monotonic_s - since_s >= GAP_WAIT_S and oldest_running >= running
            if over and last < until:  # in order, or one that is passed later would be told twice
                detail = {"first": first, "last": last}
                record(conn, Entry("system", "audit.gap", f"entries/{first}-{last}", detail))
                continue
            self._gaps[first, last] = since_s, running
            until = min(until, first - 1)
        if until > settled:
            conn.execute("update audit_progress set settled_id = %s", (until,))

    def _check_own_heads(self, conn: Connection[Any]) -> None:
        """The newest head we kept must be one of this database's past."""
        kept = own_heads(self.state_dir)
        if not kept:
            return
        self._kept = kept[-1]
        head = heads.check(self._kept, self.signer.verifier)
        size = size_of(conn)
        if size < head.size or (head.size and _root_at(conn, head.size) != head.root):
            raise LogBehind(
                f"the audit log holds {size} entries and is not the one this key signed at {head.size} entries"
                f" ({self.state_dir / HEADS_FILE}); restored from a backup? `citybrain audit accept` puts it on record"
            )

    def _keep_heads(self, conn: Connection[Any]) -> None:
        """After the commit: the newest head into our file, if it is not there. It names the hash of the one before."""
        last = _last_head(conn)
        if last is None or last[1] == self._kept:
            return
        path = self.state_dir / HEADS_FILE
        if path.exists() and path.stat().st_size > _HEADS_FILE_BYTES:
            path.replace(path.with_name(f"{HEADS_FILE}.1"))
        heads.append_note(path, last[1] + "\n")
        self._kept = last[1]


def own_heads(state_dir: Path) -> list[str]:
    """The heads kept beside the key, the newest last; one that a power failure cut short is left out."""
    notes: list[str] = []
    for name in (f"{HEADS_FILE}.1", HEADS_FILE):
        path = state_dir / name
        if path.exists():
            notes += heads.split_notes(path.read_text(encoding="utf-8", errors="replace"))
    while notes:
        try:
            heads.read_head(notes[-1])
            break
        except ContractError:
            notes.pop()
    return notes


def accept(conn: Connection[Any], state_dir: Path, who: str, reason: str, now_ms: int) -> Head | None:
    """Go on with a log that is not the one last signed, on the word of ``who``: the loss becomes an entry of its own.

    The old heads stay beside the new file. Returns the head that is given up, None if there was none to give up."""
    kept = own_heads(state_dir)
    if not kept:
        return None
    lost = heads.read_head(kept[-1])
    detail = {
        "signed_size": lost.size, "signed_root": lost.root.hex(), "signed_at_ms": lost.at_ms,
        "found_size": size_of(conn), "reason": reason,
    }  # fmt: skip
    record(conn, Entry(who, "audit.accepted", "audit", detail))
    for name in (HEADS_FILE, f"{HEADS_FILE}.1"):
        if (state_dir / name).exists():
            (state_dir / name).rename(state_dir / f"{name}.given-up-{now_ms}")
    return lost


class Sealing:
    """The sequencer in a thread of its own, for the life of a process."""

    def __init__(self, dsn: str, state_dir: Path) -> None:
        self._dsn = dsn
        self._state_dir = state_dir
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.error = ""  # "" while it works

    def start(self) -> None:
        sequencer = Sequencer(heads.load_signer(self._state_dir), self._state_dir)
        self._thread = threading.Thread(target=self._run, args=(sequencer,), name="audit", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self, sequencer: Sequencer) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(
                    self._dsn, autocommit=True, application_name="citybrain-audit", options="-c timezone=UTC"
                ) as conn:
                    self._serve(conn, sequencer)
            except (psycopg.Error, StoreError, ContractError, OSError) as error:
                if not self.error:
                    log.error("the audit log is not being sealed: %s", str(error).strip().splitlines()[0])
                self.error = str(error)
            self._stop.wait(5.0)

    def _serve(self, conn: Connection[Any], sequencer: Sequencer) -> None:
        while not self._stop.is_set():
            sealed = sequencer.seal(conn, time.time_ns() // 1_000_000, time.monotonic())
            if self.error:
                log.info("the audit log is being sealed again")
                self.error = ""
            if sealed != PASS_ENTRIES:
                self._stop.wait(_PASS_EVERY_S)


def _one(conn: Connection[Any], query: str) -> int:
    row = conn.execute(query.encode()).fetchone()
    if row is None:
        raise StoreError("database: the audit log has lost its place")
    return int(row[0])


def _last_head(conn: Connection[Any]) -> tuple[int, str] | None:
    row = conn.execute("select head_no, note from audit_head order by head_no desc limit 1").fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def _root_at(conn: Connection[Any], size: int) -> bytes:
    span = (0, size)
    kept = nodes(conn, merkle.nodes_of(span))
    return merkle.span_hash(span, lambda level, position: kept[level, position])
