"""What is asked of the log: its size, kept hashes, proofs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from cloud.audit import merkle
from cloud.audit.log import LEAF_COLUMNS
from cloud.audit.merkle import Node, Span
from protocols.core.errors import ContractError, StoreError

_NODES = (
    "select n.level::int, n.position, n.hash from audit_node n"
    " join unnest(%s::int[], %s::bigint[]) as w(level, position) on n.level = w.level and n.position = w.position"
    " union all select 0, leaf_index, hash from audit_leaf where leaf_index = any(%s)"
)


@dataclass(frozen=True, slots=True)
class Proof:
    """That an entry is in the tree a signed head speaks of. Hashes and root are hexadecimal."""

    entry_id: int
    at_us: str
    who: str
    action: str
    what: str
    detail: str  # the JSON text that was hashed
    leaf_index: int
    size: int
    root: str
    path: list[str]
    head: str  # signed note


@dataclass(frozen=True, slots=True)
class Consistency:
    """That the log of ``old`` entries is the beginning of that of ``new``."""

    old: int
    new: int
    old_root: str
    new_root: str
    path: list[str]


def size_of(conn: Connection[Any]) -> int:
    """How many entries are sealed."""
    row = conn.execute("select coalesce(max(leaf_index) + 1, 0) from audit_leaf").fetchone()
    return 0 if row is None else int(row[0])


def nodes(conn: Connection[Any], wanted: Sequence[Node]) -> dict[Node, bytes]:
    """Kept hashes. Raises StoreError naming the first that is gone."""
    inner = [node for node in wanted if node[0] > 0]
    leaves = [position for level, position in wanted if level == 0]
    rows = conn.execute(
        _NODES.encode(), ([level for level, _ in inner], [position for _, position in inner], leaves)
    ).fetchall()
    found = {(int(level), int(position)): bytes(hash_) for level, position, hash_ in rows}
    for node in wanted:
        if node not in found:
            raise StoreError(f"the audit log lacks node {node}: `citybrain audit verify` says what was done to it")
    return found


def _hashes(conn: Connection[Any], spans: Sequence[Span]) -> list[bytes]:
    kept = nodes(conn, sorted({node for span in spans for node in merkle.nodes_of(span)}))
    return [merkle.span_hash(span, lambda level, position: kept[level, position]) for span in spans]


def head_at(conn: Connection[Any], size: int | None = None) -> tuple[int, str] | None:
    """(size, note) of the newest head, or of the first head at or above ``size``."""
    row = (
        conn.execute("select size, note from audit_head order by head_no desc limit 1")
        if size is None
        else conn.execute("select size, note from audit_head where size >= %s order by head_no limit 1", (size,))
    ).fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def prove(conn: Connection[Any], entry_id: int) -> Proof:
    """The proof of one entry under the newest head. Raises ContractError ``unknown`` or ``unsealed``."""
    row = conn.execute(
        f"select {LEAF_COLUMNS}, l.leaf_index from audit_entry e left join audit_leaf l using (entry_id)"  # noqa: S608
        " where e.entry_id = %s",
        (entry_id,),
    ).fetchone()
    if row is None:
        raise ContractError(f"there is no audit entry {entry_id}", reason="unknown")
    newest = head_at(conn)
    if row[6] is None or newest is None or row[6] >= newest[0]:
        raise ContractError(f"audit entry {entry_id} is not sealed yet", reason="unsealed")
    size, note = newest
    *path, root = _hashes(conn, [*merkle.inclusion_spans(row[6], size), (0, size)])
    return Proof(
        entry_id=row[0], at_us=row[1], who=row[2], action=row[3], what=row[4], detail=row[5], leaf_index=row[6],
        size=size, root=root.hex(), path=[hash_.hex() for hash_ in path], head=note,
    )  # fmt: skip


def consistency(conn: Connection[Any], old: int, new: int | None = None) -> Consistency:
    """Raises ContractError ``size``."""
    size = size_of(conn)
    new = size if new is None else new
    if not 0 < old <= new <= size:
        raise ContractError(f"sizes {old} and {new}: the log has {size} sealed entries", reason="size")
    *path, old_root, new_root = _hashes(conn, [*merkle.consistency_spans(old, new), (0, old), (0, new)])
    return Consistency(old, new, old_root.hex(), new_root.hex(), [hash_.hex() for hash_ in path])


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry as it is shown."""

    entry_id: int
    at: datetime
    who: str
    action: str
    what: str
    detail: dict[str, Any]
    leaf_index: int | None  # None: not sealed yet


def where(who: str, action: str, what: str) -> tuple[str, dict[str, Any]]:
    """The condition of a filter and its parameters. ``action`` may end in ``.*``; ``what`` is a part of it."""
    parts, params = ["true"], dict[str, Any]()
    if who:
        parts.append("e.who = %(who)s")
        params["who"] = who
    if action.endswith(".*"):
        parts.append("(e.action = %(action)s or starts_with(e.action, %(action)s || '.'))")
        params["action"] = action[:-2]
    elif action:
        parts.append("e.action = %(action)s")
        params["action"] = action
    if what:
        parts.append("e.what ilike %(what)s")
        params["what"] = "%" + what.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    return " and ".join(parts), params


LOGGED = (
    "select e.entry_id, e.at, e.who, e.action, e.what, e.detail, l.leaf_index from audit_entry e"
    " left join audit_leaf l using (entry_id)"
)


def listed(conn: Connection[Any], who: str, action: str, what: str, limit: int) -> list[Logged]:
    """Newest first."""
    condition, params = where(who, action, what)
    query = f"{LOGGED} where {condition} order by e.entry_id desc limit %(limit)s"
    return [Logged(*row) for row in conn.execute(query.encode(), params | {"limit": limit}).fetchall()]


def exported(conn: Connection[Any], first: int) -> Iterator[dict[str, object]]:
    """Sealed entries from leaf ``first`` on, each with all that its hash is made of. In the caller's transaction."""
    with conn.cursor(name="audit_export") as cursor:
        cursor.itersize = 2_000
        cursor.execute(
            f"select {LEAF_COLUMNS}, l.leaf_index, encode(l.hash, 'hex') from audit_leaf l"  # noqa: S608 - a constant
            " join audit_entry e using (entry_id) where l.leaf_index >= %s order by l.leaf_index",
            (first,),
        )
        for entry_id, at_us, who, action, what, detail, leaf_index, hash_ in cursor:
            yield {
                "leaf": leaf_index, "entry": entry_id, "at_us": at_us, "who": who, "action": action, "what": what,
                "detail": detail, "hash": hash_,
            }  # fmt: skip
