"""Backup and restore on real databases: the same afterwards, nothing doubled, nothing lost that outboxes still hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import psycopg
import pytest

from citybrain_cli.main import main
from cloud.store import backup, keys
from cloud.store.restore import restore
from edge.outbox import Pending
from protocols.core.errors import StoreError
from tests.cloud_ingest.site import Core, Feeder, enrol, event, query
from tests.cloud_store.bench import DAY, HOUR_MS, T0_MS, Store
from tests.fixtures.broker import StartBroker
from tests.fixtures.postgres import Postgres
from tests.fixtures.wait import until

GATEWAY, SHARD = "gw-t-01", 9


@pytest.fixture
def empty(postgres: Postgres) -> str:
    """A database in which nothing has ever been."""
    name = f"empty_{os.urandom(4).hex()}"
    postgres.execute(f"create database {name}")
    return postgres.dsn(name)


@pytest.fixture
def store(dsn: str) -> Iterator[Store]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        found = Store(dsn, conn)
        found.passes(3 * DAY)
        found.all_rolled()
        found.commit([(0, T0_MS + n * HOUR_MS, n, n % 3) for n in range(72)])
        found.tidy()
        found.commit([(1, 5000, 7), (1, found.now_ms - 1000 * 86_400_000, 8)])  # 1970; years ago
        found.conn.execute(
            "insert into dead_letter (topic, reason, detail, size_bytes, payload)"
            " values ('t', 'r', E'a\\nb\\tc\\\\d 中文 \\\\. ', 3, '\\x00ff0a')"
        )
        yield found


def content(dsn: str) -> dict[str, list[object]]:
    """Every row of every table, as text; not what a restore adds on purpose."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return {
            table.name: sorted(
                row[0]
                for row in conn.execute(
                    f"select (to_jsonb(t) - 'restored_seq')::text from \"{table.name}\" t"
                ).fetchall()  # type: ignore[type-var]
            )
            for table in backup.tables(conn)
            if table.name not in ("restore_point", "audit_entry", "access_version")  # counts changes
        }


def test_what_comes_back_is_what_was_there(store: Store, empty: str, tmp_path: Path) -> None:
    file = tmp_path / "city.backup"
    summary = backup.write(store.dsn, file)
    assert summary.rows["reading"] == 74 and summary.bytes == file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600
    restored = restore(file, empty)
    assert restored.rows == summary.rows and restored.taken_at == summary.taken_at
    assert content(empty) == content(store.dsn)
    ((taken_at,),) = query(empty, "select taken_at from restore_point")
    assert taken_at == summary.taken_at
    assert query(empty, "select action from audit_entry where action = 'database.restore'") == [("database.restore",)]
    days = query(empty, "select count(*) from pg_inherits where inhparent = 'reading'::regclass")
    assert days == query(store.dsn, "select count(*) from pg_inherits where inhparent = 'reading'::regclass")
    with psycopg.connect(empty, autocommit=True) as conn:  # numbers go on, they do not begin again
        conn.execute("insert into dead_letter (topic, reason, size_bytes, payload) values ('t', 'r', 0, '')")
        conn.execute("insert into series (device_id, point) values ('meter-1', 'new')")


def test_a_backup_shows_one_moment_while_others_write(store: Store, empty: str, tmp_path: Path) -> None:
    """A transaction that is open while the backup runs is in it whole or not at all."""
    with psycopg.connect(store.dsn) as writer:
        writer.execute("insert into setting values ('half', '1')")
        backup.write(store.dsn, tmp_path / "b")
        writer.commit()
    restore(tmp_path / "b", empty)
    assert query(empty, "select count(*) from setting where name = 'half'") == [(0,)]


def test_a_database_that_holds_something_is_left_alone(store: Store, tmp_path: Path) -> None:
    backup.write(store.dsn, tmp_path / "b")
    with pytest.raises(StoreError, match="not empty"):
        restore(tmp_path / "b", store.dsn)
    assert query(store.dsn, "select count(*) from restore_point") == [(0,)]


def test_a_damaged_file_restores_nothing(store: Store, empty: str, tmp_path: Path) -> None:
    whole = tmp_path / "b"
    backup.write(store.dsn, whole)
    data = whole.read_bytes()
    bad = tmp_path / "bad"
    cases = [data[:-9], data[: len(data) // 2], b"", b"tar", data + b"x", backup.MAGIC]
    for at in range(len(backup.MAGIC), len(data), max(1, len(data) // 40)):
        cases.append(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
    for case in cases:
        bad.write_bytes(case)
        with pytest.raises(StoreError):
            restore(bad, empty)
    assert query(empty, "select to_regclass('gateway')") == [(None,)]


def test_a_backup_that_cannot_be_written_leaves_the_last_one(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "b"
    backup.write(store.dsn, file)
    before = file.read_bytes()
    with pytest.raises(StoreError):
        backup.write(store.dsn.replace("dbname=", "dbname=no_"), file)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_keys_are_sealed_and_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "core"
    (folder / "ca").mkdir(parents=True)
    (folder / "session.key").write_bytes(b"secret session")
    (folder / "ca" / "root.key").write_bytes(b"secret root")
    sealed = tmp_path / "b.keys"
    assert keys.seal(folder, sealed, "correct horse battery") == ["ca/root.key", "session.key"]
    assert b"secret" not in sealed.read_bytes() and sealed.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError, match="passphrase"):
        keys.unseal(sealed, tmp_path / "no", "wrong horse battery")
    sealed.write_bytes(sealed.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError):
        keys.unseal(sealed, tmp_path / "no", "correct horse battery")
    keys.seal(folder, sealed, "correct horse battery")
    keys.unseal(sealed, tmp_path / "back", "correct horse battery")
    assert (tmp_path / "back" / "ca" / "root.key").read_bytes() == b"secret root"
    assert (tmp_path / "back" / "session.key").stat().st_mode & 0o777 == 0o600


def test_the_commands(
    store: Store, empty: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "b"
    assert main(["cloud", "backup", store.dsn, str(file)]) == 0
    assert "--keys" in capsys.readouterr().err
    assert main(["cloud", "backup", store.dsn, str(file), "--keys", str(tmp_path)]) == 2, "no passphrase"
    monkeypatch.setenv("CITYBRAIN_PASSPHRASE", "correct horse battery")
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "session.key").write_bytes(b"1")
    assert main(["cloud", "backup", store.dsn, str(file), "--keys", str(tmp_path / "core")]) == 0
    capsys.readouterr()
    assert main(["cloud", "restore", str(file), empty, "--keys", str(tmp_path / "again")]) == 0
    told = capsys.readouterr().out
    for words in ("The gap is at most", "缺口最长", "citybrain audit accept --config", "citybrain proof", "账本"):
        assert words in told
    assert (tmp_path / "again" / "session.key").read_bytes() == b"1"
    assert main(["cloud", "tidy", empty]) == 0
    assert main(["cloud", "restore", str(file), empty]) == 1


def test_gateways_notice_a_core_that_came_back_from_its_backup(
    tmp_path: Path, dsn: str, empty: str, start_broker: StartBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    """What outboxes hold arrives once; what they had deleted after the backup is lost, and named to the row."""
    enrol(dsn, (GATEWAY, SHARD))
    broker = start_broker([(GATEWAY, SHARD)])
    with Feeder(broker, GATEWAY, SHARD, tmp_path) as feeder:
        epoch = feeder.outbox.epoch
        with Core(dsn, broker):
            feeder.feed(10)
            feeder.commit(Pending("event", events=[event(1)]))
            feeder.drained()
            summary = backup.write(dsn, tmp_path / "b")
            feeder.feed(5)
            for number in (2, 3):  # a lane on which nothing comes afterwards
                feeder.commit(Pending("event", events=[event(number)]))
            feeder.drained()  # committed after the backup: gone with the database
        acked = {lane: feeder.outbox.acked(lane) for lane in ("event", "data")}
        feeder.feed(10)
        feeder.feed(5, lane="backfill")  # a lane that has lost nothing goes on where it was
        restore(tmp_path / "b", empty)
        kept = dict(query(empty, "select lane, seq from lane_cursor"))
        with Core(empty, broker):
            both = "select count(*), count(distinct (series_id, ts)) from reading"
            until(lambda: query(empty, both)[0][0] >= 500, "what waited has come, in a new epoch", timeout_s=60)
            feeder.drained()
            heard = "select count(*) from outbox_epoch where reason = 'core_forgot' and accounted_at is not null"
            until(lambda: query(empty, heard) == [(1,)], "the gateway says why its epoch began, and what it had sent")
    assert query(empty, both) == [(500, 500)]
    assert summary.rows["reading"] == 200
    assert main(["proof", "--dsn", empty, "--gateway", GATEWAY, "--outbox", str(feeder.path), "--json"]) == 0
    (proof,) = json.loads(capsys.readouterr().out)["gateways"]
    lost = {(one["epoch"], one["lane"]): one["lost_rows"] for one in proof["lanes"] if one["lost_rows"]}
    assert lost == {(epoch, lane): acked[lane] - kept[lane] for lane in acked}
    assert lost == {(epoch, "data"): 5, (epoch, "event"): 2}
    assert (proof["lost"], proof["waiting_rows"], proof["duplicated"], proof["problems"]) == (7, 0, 0, [])
    why = f"lost: core restored from a backup of {summary.taken_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    assert {f"live data: rows 11-15 {why}", f"events: rows 2-3 {why}"} <= set(proof["notes"])
    assert any(note.endswith("min after it was made: 7 rows of this gateway lost") for note in proof["notes"])
    assert [(one["source"], one["lost_rows"]) for one in proof["restores"]] == [("b", 7)]
