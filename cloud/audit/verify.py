"""Recomputes the whole log and says which row was touched: `citybrain audit verify`.

Every entry is hashed again and compared with its leaf; the tree is built again and compared with the kept nodes and
with each signed head. From what agrees with what follows where the change is: in the row, in its leaf, in the order, in
a head. Memory does not grow with the log.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from psycopg import Connection

from cloud.audit import heads, merkle
from cloud.audit.heads import Head, Verifier
from cloud.audit.log import LEAF_COLUMNS, leaf_bytes
from protocols.core.errors import ContractError

Kind = Literal[
    "changed", "removed", "leaf", "missing_leaves", "order", "node", "head", "signature", "chain", "cut", "forked",
    "unsealed", "late",
]  # fmt: skip
#: Entries may wait this long for their seal before it is worth a word.
SEAL_WITHIN_S = 60
_FETCH = 4_000
_MOST_FINDINGS = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """``entries``: the entry numbers it is about, first and last, where it can be said."""

    kind: Kind
    en: str
    zh: str
    entries: tuple[int, int] | None = None


@dataclass(slots=True)
class Report:
    entries: int = 0
    heads: int = 0
    signatures: int = 0  # heads whose signature was checked and is good
    unsealed: int = 0
    gaps: int = 0  # entries that put missing numbers on record
    root: str = ""
    head: Head | None = None
    findings: list[Finding] = field(default_factory=list)
    more: int = 0  # findings beyond those kept

    @property
    def good(self) -> bool:
        return not self.findings

    def add(self, finding: Finding) -> None:
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(finding)
        else:
            self.more += 1


@dataclass(slots=True)
class _Check:
    """A root the log must have had at some size: a head of its own, or one somebody kept."""

    head: Head
    label: str
    saved: bool


def verify(conn: Connection[Any], verifiers: Sequence[Verifier] = (), saved: Sequence[str] = ()) -> Report:
    """Read-only, in one snapshot. ``verifiers``: public keys that may have signed; none: signatures stay unchecked.
    ``saved``: notes kept elsewhere, which the log must still agree with."""
    report = Report()
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read, read only")
        kept = sorted(_saved(verifiers, saved, report), key=_size)
        _walk(conn, heapq.merge(_heads(conn, verifiers, report), kept, key=_size), report)
        _outside(conn, report)
    return report


def _size(check: _Check) -> int:
    return check.head.size


def _saved(verifiers: Sequence[Verifier], saved: Sequence[str], report: Report) -> Iterator[_Check]:
    for at, note in enumerate(saved, 1):
        head = _signed(note, verifiers, f"saved head {at}", f"留存的第 {at} 个树头", report)
        if head is not None:
            yield _Check(head, f"saved head {at}", saved=True)


def _heads(conn: Connection[Any], verifiers: Sequence[Verifier], report: Report) -> Iterator[_Check]:
    before: tuple[int, str, int] | None = None  # number, note, size
    for number, note, size in _stream(conn, "audit_heads", "select head_no, note, size from audit_head order by 1"):
        report.heads += 1
        head = _signed(note, verifiers, f"head {number}", f"第 {number} 个树头", report)
        if head is None:
            before = number, note, size
            continue
        if head.size != size:
            report.add(
                Finding(
                    "head",
                    f"head {number}: its row says size {size}, what was signed says {head.size}",
                    f"第 {number} 个树头：行中大小 {size} 与签名内容 {head.size} 不符",
                )
            )
        _chained(number, head, before, report)
        before = number, note, head.size
        report.head = head
        yield _Check(head, f"head {number}", saved=False)


def _stream(conn: Connection[Any], name: str, query: str) -> Iterator[tuple[Any, ...]]:
    with conn.cursor(name=name) as cursor:
        cursor.itersize = _FETCH
        cursor.execute(query.encode())
        yield from cursor


def _signed(note: str, verifiers: Sequence[Verifier], en: str, zh: str, report: Report) -> Head | None:
    try:
        if not verifiers:
            return heads.read_head(note)
        origin = note.partition("\n")[0]
        verifier = next((one for one in verifiers if one.name == origin), verifiers[0])
        head = heads.check(note, verifier)
    except ContractError as error:
        report.add(Finding("signature", f"{en} is forged or damaged: {error}", f"{zh}系伪造或已损坏：{error}"))
        return None
    report.signatures += 1
    return head


def _chained(number: int, head: Head, before: tuple[int, str, int] | None, report: Report) -> None:
    if before is None:
        if number != 1 or head.previous is not None:
            report.add(
                Finding("chain", f"the heads before head {number} are gone", f"第 {number} 个之前的树头已被删除")
            )
        return
    if number != before[0] + 1:
        gone = f"{before[0] + 1}-{number - 1}"
        report.add(Finding("chain", f"heads {gone} are gone", f"第 {gone} 个树头已被删除"))
    elif head.previous != heads.note_hash(before[1]):
        report.add(
            Finding("chain", f"head {number} does not follow head {before[0]}", f"第 {number} 个树头与前一个不衔接")
        )
    if head.size < before[2]:
        report.add(
            Finding(
                "cut",
                f"head {number} speaks of {head.size} entries, the head before it of {before[2]}",
                f"第 {number} 个树头只有 {head.size} 条，前一个有 {before[2]} 条",
            )
        )


@dataclass(slots=True)
class _Leaf:
    index: int
    entry_id: int


class _Walk:
    """Builds the tree twice where it must: from the leaves as kept, and from the rows as they are now."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.kept = merkle.Frontier()
        self.rows: merkle.Frontier | None = None  # None: the same as ``kept`` so far
        self.doubtful: list[tuple[_Leaf, bool]] = []  # since the last head that fitted; bool: the row is gone
        self.bad_nodes: list[tuple[int, int]] = []  # spans of leaves, likewise
        self.first_entry = 0  # of the interval since the last head that fitted
        self.last_entry = 0
        self.lost = False  # nothing to hold on to any more: no head fits from here on

    def leaf(self, leaf: _Leaf, kept: bytes, now: bytes | None) -> list[tuple[int, int, bytes]]:
        if self.first_entry == 0:
            self.first_entry = leaf.entry_id
        self.last_entry = leaf.entry_id
        if now != kept:
            self.doubtful.append((leaf, now is None))
            if self.rows is None:
                self.rows = merkle.Frontier(self.kept.size, self.kept._stack)
        made = self.kept.append(kept)
        if self.rows is not None:
            self.rows.append(kept if now is None else now)
        return made

    def at(self, check: _Check) -> None:
        """Judge what came since the last head, by a head of just this size."""
        kept_fits = self.kept.root() == check.head.root
        rows_fit = kept_fits if self.rows is None else self.rows.root() == check.head.root
        if self.lost:
            return
        if kept_fits or rows_fit:
            for leaf, gone in self.doubtful:
                self._say(leaf, gone, row_is_right=rows_fit and not kept_fits)
            if kept_fits:
                self.rows = None
                for begin, end in self.bad_nodes:
                    self._node(begin, end)
            elif self.rows is not None:
                self.kept, self.rows = self.rows, None
        else:
            self._neither(check)
            self.lost = True
        self.doubtful, self.bad_nodes, self.first_entry = [], [], 0

    def end(self) -> None:
        """Past the last head: rows against leaves is all there is."""
        for leaf, gone in self.doubtful:
            self._say(leaf, gone, row_is_right=False)
        if not self.lost:
            for begin, end in self.bad_nodes:
                self._order(begin, end)

    def _say(self, leaf: _Leaf, gone: bool, *, row_is_right: bool) -> None:
        n, at = leaf.entry_id, leaf.index
        if gone:
            en, zh = f"entry {n} (leaf {at}) was removed", f"第 {n} 条记录（叶 {at}）已被删除"
            self.report.add(Finding("removed", en, zh, (n, n)))
        elif row_is_right:
            en, zh = (
                f"leaf {at} of entry {n} was changed; the row is intact",
                f"第 {n} 条的叶 {at} 被改动，记录本身完好",
            )
            self.report.add(Finding("leaf", en, zh, (n, n)))
        else:
            en, zh = f"entry {n} (leaf {at}) was changed", f"第 {n} 条记录（叶 {at}）已被改动"
            self.report.add(Finding("changed", en, zh, (n, n)))

    def _neither(self, check: _Check) -> None:
        if check.saved:
            self.report.add(
                Finding(
                    "forked",
                    f"{check.label} (size {check.head.size}) is of another history than this log",
                    f"留存的树头（{check.head.size} 条）与本日志不是同一段历史",
                    (self.first_entry, self.last_entry),
                )
            )
        named = False
        for leaf, gone in self.doubtful:
            self._say(leaf, gone, row_is_right=False)
            named = True
        for begin, end in self.bad_nodes:
            self._order(begin, end)
            named = True
        if not named and not check.saved:
            first, last = self.first_entry, self.last_entry
            self.report.add(
                Finding(
                    "head",
                    f"entries {first} to {last} do not make the tree that {check.label} signed: one of them was"
                    " changed, replaced or moved together with its hashes",
                    f"第 {first} 至 {last} 条与{check.label}签名的树不符：其中有记录连同其散列一起被改动、替换或调换",
                    (first, last),
                )
            )

    def _order(self, begin: int, end: int) -> None:
        en = f"leaves {begin} to {end - 1} were replaced or put in another order"
        self.report.add(Finding("order", en, f"叶 {begin} 至 {end - 1} 被替换或调换了次序"))

    def _node(self, begin: int, end: int) -> None:
        en = f"the kept hash over leaves {begin} to {end - 1} was changed; the entries are intact"
        self.report.add(Finding("node", en, f"叶 {begin} 至 {end - 1} 的中间散列被改动，记录本身完好"))


def _walk(conn: Connection[Any], checks: Iterator[_Check], report: Report) -> None:
    walk = _Walk(report)
    waiting = next(checks, None)
    stored = _stored_nodes(conn)
    node = next(stored, None)
    rows = _stream(
        conn,
        "audit_walk",
        f"select l.leaf_index, l.entry_id, l.hash, {LEAF_COLUMNS} from audit_leaf l"  # noqa: S608 - constants
        " left join audit_entry e on e.entry_id = l.entry_id order by l.leaf_index",
    )
    while True:
        # A head of a smaller size than the one before it has been told of already; only its root is looked at late.
        while waiting is not None and waiting.head.size <= walk.kept.size:
            if waiting.head.size == walk.kept.size:
                walk.at(waiting)
            waiting = next(checks, None)
        row = next(rows, None)
        if row is None:
            break
        index, entry_id, kept, *columns = row
        if index != walk.kept.size:
            gone = f"{walk.kept.size}-{index - 1}"
            report.add(Finding("missing_leaves", f"leaves {gone} are gone", f"叶 {gone} 已被删除"))
            walk.end()
            return  # no tree can be built over a hole
        now = None if columns[0] is None else merkle.leaf_hash(leaf_bytes(*columns))
        report.gaps += columns[3] == "audit.gap"
        for made in walk.leaf(_Leaf(index, entry_id), bytes(kept), now):
            node = _compare(node, stored, made, walk)
        report.entries += 1
    report.root = walk.kept.root().hex()
    walk.end()
    for check in () if waiting is None else (waiting, *checks):
        size = check.head.size
        report.add(
            Finding(
                "cut",
                f"the log was cut: {check.label} speaks of {size} entries, there are {report.entries}",
                f"日志被截断：{'留存的' if check.saved else ''}树头记有 {size} 条，现有 {report.entries} 条",
            )
        )


def _stored_nodes(conn: Connection[Any]) -> Iterator[tuple[int, int, bytes]]:
    """In the order in which the walk completes them."""
    query = "select level::int, position, hash from audit_node order by (position + 1) << level::int, level"
    for level, position, hash_ in _stream(conn, "audit_nodes", query):
        yield level, position, bytes(hash_)


def _compare(
    node: tuple[int, int, bytes] | None,
    stored: Iterator[tuple[int, int, bytes]],
    made: tuple[int, int, bytes],
    walk: _Walk,
) -> tuple[int, int, bytes] | None:
    """The stored node that comes next, after holding ``made`` against this one."""
    level, position, hash_ = made
    place = (position + 1) << level, level
    while node is not None and ((node[1] + 1) << node[0], node[0]) < place:
        node = next(stored, None)
    begin, end = position << level, (position + 1) << level
    if node is not None and node[:2] == (level, position):
        differs = node[2] != hash_
        node = next(stored, None)
    else:
        differs = True  # it is gone
    if differs and not any(begin <= b and e <= end for b, e in walk.bad_nodes):
        walk.bad_nodes.append((begin, end))  # the smallest says it; what contains it follows from it
    return node


def _outside(conn: Connection[Any], report: Report) -> None:
    """Entries that are in no leaf."""
    rows = conn.execute(
        "select e.entry_id, e.at < now() - make_interval(secs => %s), e.entry_id <= p.settled_id"
        " from audit_entry e cross join audit_progress p"
        " where not exists (select 1 from audit_leaf l where l.entry_id = e.entry_id) order by 1 limit 10000",
        (SEAL_WITHIN_S,),
    ).fetchall()
    report.unsealed = len(rows)
    late = [entry_id for entry_id, _, settled in rows if settled]
    old = [entry_id for entry_id, waited, settled in rows if waited and not settled]
    for entry_id in late:
        report.add(
            Finding(
                "late",
                f"entry {entry_id} is in no leaf, though its number was passed: it was put in afterwards",
                f"第 {entry_id} 条不在任何叶中而编号已过：系事后补入",
                (entry_id, entry_id),
            )
        )
    if old:
        report.add(
            Finding(
                "unsealed",
                f"{len(old)} entries from {old[0]} on wait for their seal for more than {SEAL_WITHIN_S} s: is the"
                " console process running?",
                f"自第 {old[0]} 条起有 {len(old)} 条超过 {SEAL_WITHIN_S} 秒未封存：控制台进程是否在运行？",
                (old[0], old[-1]),
            )
        )
