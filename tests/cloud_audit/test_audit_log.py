"""Sealing and checking in a real database, with somebody in it who may write every table."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citybrain_cli.main import main
from cloud.audit import Entry, heads, merkle, record
from cloud.audit.log import leaf_bytes
from cloud.audit.proofs import check_proof
from cloud.audit.reads import consistency, prove
from cloud.audit.sequencer import GAP_WAIT_S, LogBehind, Sealing, Sequencer, accept
from cloud.audit.verify import Report, verify
from protocols.core.errors import ContractError
from tests.fixtures.postgres import Postgres, new_database
from tests.fixtures.wait import until

T0 = 1_772_400_000_000
Conn = psycopg.Connection[Any]


def connect(dsn: str) -> Conn:
    return psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC")


class Log:
    """A database, a key, and a clock that each pass moves by a second."""

    def __init__(self, dsn: str, state_dir: Path) -> None:
        self.dsn = dsn
        self.conn = connect(dsn)
        self.state_dir = state_dir
        self.signer = heads.load_signer(state_dir)
        self.sequencer = Sequencer(self.signer, state_dir, sign_every_s=0.0)
        self.now_ms = T0

    def write(self, count: int, who: str = "王敏") -> None:
        for number in range(count):
            record(self.conn, Entry(who, "case.act", f"case/{number}", {"to": "closed", "n": number, "因": "已修复"}))

    def seal(self, after_s: float = 1.0) -> int | None:
        self.now_ms += round(after_s * 1000)
        return self.sequencer.seal(self.conn, self.now_ms, self.now_ms / 1000)

    def filled(self, *sizes: int) -> Log:
        for size in sizes:
            self.write(size)
            assert self.seal() == size
        return self

    def check(self, *saved: str) -> Report:
        return verify(self.conn, [self.signer.verifier], saved)

    def head(self) -> str:
        row = self.conn.execute("select note from audit_head order by head_no desc limit 1").fetchone()
        assert row is not None
        return str(row[0])

    def as_owner(self, *statements: str) -> None:
        """What somebody does who owns the tables."""
        for table in ("audit_entry", "audit_leaf", "audit_node", "audit_head"):
            self.conn.execute(f"alter table {table} disable trigger only_adds".encode())
        for statement in statements:
            assert self.conn.execute(statement.encode()).rowcount != 0, statement

    def kinds(self, *saved: str) -> list[tuple[str, tuple[int, int] | None]]:
        return [(finding.kind, finding.entries) for finding in self.check(*saved).findings]


@pytest.fixture
def audit(dsn: str, tmp_path: Path) -> Log:
    return Log(dsn, tmp_path)


def test_sealed_and_whole(audit: Log) -> None:
    audit.filled(3, 1, 13, 8)
    assert audit.seal() == 0
    report = audit.check(audit.head())
    assert report.findings == [] and (report.entries, report.heads, report.signatures) == (25, 4, 5)
    for name in (heads.KEY_FILE, heads.HEADS_FILE):
        assert stat.S_IMODE((audit.state_dir / name).stat().st_mode) == 0o600
    assert audit.seal(3601.0) == 0
    assert audit.check().heads == 5  # an hour without deeds is said too


def test_the_database_refuses_changes(audit: Log) -> None:
    audit.filled(2)
    for statement in (
        "update audit_entry set who = 'x'",
        "delete from audit_entry",
        "truncate audit_entry",
        "delete from audit_leaf",
        "update audit_head set note = ''",
        "delete from audit_node",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            audit.conn.execute(statement.encode())


@pytest.mark.parametrize(
    "change",
    [
        "update audit_entry set who = '王洋' where entry_id = 7",
        "update audit_entry set action = 'case.acT' where entry_id = 7",
        "update audit_entry set what = 'case/7' where entry_id = 7",
        "update audit_entry set at = at + interval '1 microsecond' where entry_id = 7",
        "update audit_entry set at = 'infinity' where entry_id = 7",
        "update audit_entry set detail = replace(detail::text, 'closed', 'closes')::json where entry_id = 7",
        "update audit_entry set detail = (detail::text || ' ')::json where entry_id = 7",
    ],
)
def test_one_byte_of_one_row_is_named(audit: Log, change: str) -> None:
    audit.filled(5, 6, 4)
    audit.as_owner(change)
    assert audit.kinds() == [("changed", (7, 7))]
    assert "7" in audit.check().findings[0].zh


def test_every_kind_of_change_is_told_apart(postgres: Postgres, tmp_path: Path) -> None:
    two = "where entry_id in (3, 9)"
    away = "update audit_leaf set entry_id = 1000 + entry_id where leaf_index in (5, 6)"
    swap = "update audit_leaf set entry_id = case entry_id when 1006 then 7 else 6 end where entry_id > 1000"
    cases: list[tuple[list[str], list[tuple[str, tuple[int, int] | None]]]] = [
        ([f"update audit_entry set who = 'x' {two}"], [("changed", (3, 3)), ("changed", (9, 9))]),
        (["delete from audit_entry where entry_id = 4"], [("removed", (4, 4))]),
        (["update audit_leaf set hash = sha256('x') where leaf_index = 6"], [("leaf", (7, 7))]),
        (["delete from audit_leaf where leaf_index = 6"], [("missing_leaves", None), ("late", (7, 7))]),
        ([away, swap], [("changed", (7, 7)), ("changed", (6, 6))]),
        (["update audit_node set hash = sha256('x') where level = 2 and position = 1"], [("node", None)]),
        (["delete from audit_node where level = 1 and position = 0"], [("node", None)]),
        (["delete from audit_head where head_no = 2"], [("chain", None)]),
        (["delete from audit_head where head_no = 1"], [("chain", None)]),
        (["update audit_head set size = 12 where head_no = 2"], [("head", None)]),
        (["update audit_head set note = replace(note, 'time 17', 'time 16') where head_no = 3"], [("signature", None)]),
        (["insert into audit_head select 4, size, at, replace(note, 'a', 'b') from audit_head where head_no = 3"],
         [("signature", None)]),
        (["insert into audit_entry (who, action, what, at) values ('x', 'y', 'z', now() - interval '2 minutes')"],
         [("unsealed", (16, 16))]),
    ]  # fmt: skip
    for number, (statements, wanted) in enumerate(cases):
        log = Log(new_database(postgres), tmp_path / str(number)).filled(5, 6, 4)
        log.as_owner(*statements)
        assert log.kinds() == wanted, statements
        log.conn.close()


def rehash(log: Log, entry_id: int) -> None:
    """The owner also recomputes the leaf of a row he changed."""
    row = log.conn.execute(
        "select entry_id, trunc(extract(epoch from at) * 1000000)::text, who, action, what, detail::text"
        " from audit_entry where entry_id = %s",
        (entry_id,),
    ).fetchone()
    assert row is not None
    log.conn.execute(
        "update audit_leaf set hash = %s where entry_id = %s", (merkle.leaf_hash(leaf_bytes(*row)), entry_id)
    )


def rebuild(log: Log) -> None:
    """... and every node above."""
    frontier = merkle.Frontier()
    for (hash_,) in log.conn.execute("select hash from audit_leaf order by leaf_index").fetchall():
        for level, position, made in frontier.append(bytes(hash_)):
            log.conn.execute(
                "update audit_node set hash = %s where level = %s and position = %s", (made, level, position)
            )


def test_an_owner_who_recomputes_hashes_cannot_sign(audit: Log) -> None:
    audit.filled(5, 6, 4)
    audit.as_owner("update audit_entry set who = '王洋' where entry_id = 7")
    rehash(audit, 7)
    assert audit.kinds() == [("order", None)]
    assert "6 to 7" in audit.check().findings[0].en  # the pair of leaves it is in
    rebuild(audit)
    assert audit.kinds() == [("head", (6, 11))]  # what was sealed between two heads
    stranger = heads.load_signer(audit.state_dir / "stranger")
    frontier = merkle.Frontier()
    notes: list[str] = []
    for at, (hash_,) in enumerate(audit.conn.execute("select hash from audit_leaf order by 1 limit 0").fetchall()):
        frontier.append(bytes(hash_))
        assert at >= 0
    for (hash_,) in audit.conn.execute("select hash from audit_leaf order by leaf_index").fetchall():
        frontier.append(bytes(hash_))
        if frontier.size in (5, 11, 15):
            notes.append(stranger.sign(frontier.size, frontier.root(), T0, notes[-1] if notes else None))
    for number, note in enumerate(notes, 1):
        audit.conn.execute("update audit_head set note = %s where head_no = %s", (note, number))
    assert [kind for kind, _ in audit.kinds()] == ["signature"] * 3
    assert verify(audit.conn).good  # without the key nobody can tell: the report counts no signature
    assert verify(audit.conn).signatures == 0


def test_a_cut_tail_shows_against_a_kept_head(audit: Log) -> None:
    audit.filled(5, 6)
    kept = audit.head()
    audit.filled(4)
    assert audit.check(kept).good
    audit.as_owner(
        "delete from audit_entry where entry_id > 8", "delete from audit_leaf where entry_id > 8",
        "delete from audit_node where (position + 1) << level > 8", "delete from audit_head where size > 8",
    )  # fmt: skip
    assert audit.kinds() == []  # by itself the rest is a good log
    assert audit.kinds(kept) == [("cut", None)]
    with pytest.raises(LogBehind):  # and the key's own memory says so before anything new is signed
        Sequencer(audit.signer, audit.state_dir).seal(audit.conn, audit.now_ms, 0.0)


def test_another_history_is_not_signed_on_until_somebody_answers_for_it(audit: Log) -> None:
    audit.filled(6)
    audit.as_owner("update audit_entry set who = '王洋' where entry_id = 2")
    rehash(audit, 2)
    rebuild(audit)
    again = Sequencer(audit.signer, audit.state_dir, sign_every_s=0.0)
    with pytest.raises(LogBehind):
        again.seal(audit.conn, audit.now_ms, 0.0)
    lost = accept(audit.conn, audit.state_dir, "李强", "restored from the backup of 3 May", audit.now_ms)
    assert lost is not None and lost.size == 6
    assert again.seal(audit.conn, audit.now_ms + 1000, 1.0) == 1
    row = audit.conn.execute("select who, action, detail from audit_entry order by entry_id desc limit 1").fetchone()
    assert row is not None and row[:2] == ("李强", "audit.accepted") and row[2]["signed_size"] == 6


def test_a_number_that_never_came_is_put_on_record(audit: Log) -> None:
    audit.filled(2)
    audit.write(1)
    audit.as_owner("delete from audit_entry where entry_id = 3")  # before its seal
    with connect(audit.dsn) as slow, slow.transaction(), slow.transaction():
        record(slow, Entry("slow", "y", "z"))  # number 4 is still under way
        audit.filled(2)
        for _ in range(3):
            assert audit.seal(GAP_WAIT_S) == 0  # it might still be that one's
    assert audit.seal() == 1  # number 4
    assert audit.seal(GAP_WAIT_S + 1) == 1
    row = audit.conn.execute("select action, detail from audit_entry order by entry_id desc limit 1").fetchone()
    assert row is not None and row == ("audit.gap", {"first": 3, "last": 3})
    report = audit.check()
    assert report.good and report.gaps == 1
    audit.conn.execute(
        "insert into audit_entry (entry_id, who, action, what) overriding system value values (3, 'x', 'y', 'z')"
    )
    assert audit.seal() == 0
    assert audit.kinds() == [("late", (3, 3))]


def test_many_writers_one_sequencer_no_waiting(audit: Log) -> None:
    """Four threads write, three seal; nobody waits for anybody, and each entry is in the tree once."""
    done = threading.Event()
    errors: list[BaseException] = []

    def guarded(step: Callable[[Conn], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                with connect(audit.dsn) as conn:
                    step(conn)
            except BaseException as error:
                errors.append(error)

        return run

    def write(conn: Conn) -> None:
        for number in range(60):
            with conn.transaction(force_rollback=number % 10 == 9):
                record(conn, Entry("w", "case.act", f"case/{number}"))

    def seal(conn: Conn) -> None:
        sequencer = Sequencer(audit.signer, audit.state_dir, sign_every_s=0.0)
        now = T0
        while not done.is_set():
            now += 1
            sequencer.seal(conn, now, now / 1000)

    writers = [threading.Thread(target=guarded(write)) for _ in range(4)]
    sealers = [threading.Thread(target=guarded(seal)) for _ in range(3)]
    for thread in [*writers, *sealers]:
        thread.start()
    for thread in writers:
        thread.join(30)
    done.set()
    for thread in sealers:
        thread.join(30)
    audit.now_ms += 60_000
    audit.seal()
    assert errors == []
    report = audit.check()
    assert report.findings == [] and report.entries == 4 * 54 and report.unsealed == 0


def test_an_open_transaction_holds_nobody_up(audit: Log) -> None:
    with connect(audit.dsn) as slow, slow.transaction():
        record(slow, Entry("slow", "a", "b"))
        audit.filled(3)
        assert audit.check().good
    assert audit.seal() == 1  # commit order, not number order
    row = audit.conn.execute("select entry_id from audit_leaf order by leaf_index desc limit 1").fetchone()
    assert row == (1,) and audit.check().good


def test_proofs_stand_without_the_database(audit: Log) -> None:
    audit.filled(5, 6, 4)
    keys = [audit.signer.verifier]
    for entry in (1, 8, 15):
        proof = prove(audit.conn, entry)
        text = json.dumps(asdict(proof))
        assert check_proof(text, keys) == ""
        assert check_proof(text.replace("closed", "reopen"), keys) == "the entry is not the one that was sealed there"
        assert "key was not given" in check_proof(text, [])
        assert "signature" in check_proof(
            json.dumps(asdict(proof) | {"head": proof.head.replace("time 1", "time 2")}), keys
        )
        assert check_proof(text[:-2], keys).startswith("it is no proof")
    for entry, reason in ((16, "unknown"),):
        with pytest.raises(ContractError) as error:
            prove(audit.conn, entry)
        assert error.value.reason == reason
    audit.write(1)
    with pytest.raises(ContractError, match="not sealed"):
        prove(audit.conn, 16)
    told = consistency(audit.conn, 5, 11)
    path = [bytes.fromhex(text) for text in told.path]
    assert merkle.check_consistency(5, 11, bytes.fromhex(told.old_root), bytes.fromhex(told.new_root), path)
    for old, new in ((0, 5), (5, 16), (6, 5)):
        with pytest.raises(ContractError):
            consistency(audit.conn, old, new)


@given(st.text(max_size=200), st.dictionaries(st.text(max_size=8), st.floats() | st.text() | st.none(), max_size=4))
def test_whatever_was_typed_is_logged(text: str, detail: dict[str, object]) -> None:
    from cloud.audit.log import _row

    for part in _row(Entry(text, text, text, detail)):
        part.encode()
        assert "\x00" not in part
    json.loads(_row(Entry(text, text, text, detail))[3])


def test_the_database_takes_whatever_was_typed(audit: Log) -> None:
    nasty = "a\x00\ud800é\u2028😀'\"\\"
    record(audit.conn, Entry(nasty, nasty, nasty * 90, {nasty: nasty, "nan": float("nan"), "n": [1, {"x": nasty}]}))
    record(audit.conn, Entry("x", "y", "z", {"much": "长" * 20_000}))
    assert audit.seal() == 2
    assert audit.check().good
    row = audit.conn.execute("select detail from audit_entry where entry_id = 2").fetchone()
    assert row is not None and row[0]["kept"] == "digest"


@given(st.tuples(*[st.text(max_size=6)] * 4), st.tuples(*[st.text(max_size=6)] * 4))
def test_no_two_entries_have_the_same_bytes(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    try:
        bytes_of = [leaf_bytes(1, "2", *texts) for texts in (one, other)]
    except UnicodeEncodeError:
        return  # half characters are never stored
    assert (bytes_of[0] == bytes_of[1]) == (one == other)


def test_a_process_seals_by_itself_and_says_when_it_cannot(audit: Log, tmp_path: Path) -> None:
    sealing = Sealing(audit.dsn, audit.state_dir)
    sealing.start()
    try:
        audit.write(3)
        until(lambda: audit.check().signatures, "the entries are sealed and signed")
        assert audit.seal() is None or audit.seal() == 0  # while one does it, others need not
        assert sealing.error == ""
    finally:
        sealing.stop()
    audit.as_owner(
        "delete from audit_entry", "delete from audit_leaf", "delete from audit_node", "delete from audit_head"
    )
    behind = Sealing(audit.dsn, audit.state_dir)
    behind.start()
    try:
        until(lambda: "citybrain audit accept" in behind.error, "it says why it does not seal")
    finally:
        behind.stop()
    assert audit.conn.execute("select count(*) from audit_head").fetchone() == (0,)


def test_commands(audit: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "core.toml"
    config.write_text(f'dsn = "{audit.dsn}"\nstate_dir = "{audit.state_dir}"\n', encoding="utf-8")
    by = ["--config", str(config)]
    audit.write(4)
    assert main(["audit", "seal", *by]) == 0
    assert main(["audit", "verify", *by]) == 0
    assert "日志完整" in capsys.readouterr().out
    assert main(["audit", "sth", "--dsn", audit.dsn]) == 0
    kept = tmp_path / "kept.txt"
    kept.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["audit", "show", *by, "--action", "case.*", "--limit", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["audit", "export", *by]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["leaf"] for line in lines[:-1]] == [0, 1, 2, 3] and lines[-1]["head"] == kept.read_text()
    first = lines[0]
    names = ("entry", "at_us", "who", "action", "what", "detail")
    assert merkle.leaf_hash(leaf_bytes(*(first[name] for name in names))).hex() == first["hash"]
    assert main(["audit", "proof", "3", *by]) == 0
    proof = tmp_path / "proof.json"
    proof.write_text(capsys.readouterr().out, encoding="utf-8")
    public = str(audit.state_dir / heads.PUBLIC_FILE)
    assert main(["audit", "check", str(proof), "--key", public]) == 0
    proof.write_text(proof.read_text().replace("closed", "opened"), encoding="utf-8")
    assert main(["audit", "check", str(proof), "--key", public]) == 1
    audit.as_owner("update audit_entry set who = 'nobody' where entry_id = 2")
    capsys.readouterr()
    assert main(["audit", "verify", "--dsn", audit.dsn, "--sth", str(kept), "--key", public, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["findings"][0]["entries"] == [2, 2] and told["signatures"] == 2
    kept.write_text(kept.read_text().replace("time 1", "time 2"), encoding="utf-8")
    assert main(["audit", "verify", *by, "--sth", str(kept)]) == 1
    assert "伪造" in capsys.readouterr().out
    assert main(["audit", "verify"]) == 2  # no database named
