"""Power cuts: every mixture of the outbox's files opens as it was before or after; and the check can tell if not."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from citybrain_cli.chaos import powercut, tear
from edge.outbox import Outbox

NOW_MS = 1_772_400_000_000


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[powercut.Step]:
    return powercut.history(tmp_path_factory.mktemp("history"), seed=3, steps=110)


def _around(steps: list[powercut.Step], at: int) -> list[powercut.Step]:
    return steps[at - 1 : at + 1]


def test_ordinary_commits_and_acknowledgements(steps: list[powercut.Step], tmp_path: Path) -> None:
    acknowledged = next(n for n, step in enumerate(steps) if step.name.startswith("acknowledged"))
    result = powercut.Result()
    for at in (1, 2, 5, acknowledged):
        one = powercut.try_all(tmp_path, _around(steps, at), seed=at, each=1)
        assert one.failures == []
        result.images += one.images
        result.kept_earlier += one.kept_earlier
        result.kept_later += one.kept_later
    assert result.images > 30
    assert result.kept_earlier
    assert result.kept_later


def test_the_checkpoint_and_the_log_that_begins_anew(steps: list[powercut.Step], tmp_path: Path) -> None:
    checkpoint = next(n for n in range(1, len(steps)) if steps[n].files.database != steps[n - 1].files.database)
    result = powercut.try_all(tmp_path, steps[checkpoint - 1 : checkpoint + 2], seed=1, each=1)
    assert result.failures == []
    assert {"pages length", "pages half a sector", "log header"} <= result.classes.keys()


def test_a_campaign_counts_its_classes_and_checkpoints_come_first(tmp_path: Path) -> None:
    report = powercut.campaign(tmp_path, seed=5, most=40)
    assert (report["verdict"], report["failed"]) == ("sound", 0)
    classes = report["classes"]
    assert isinstance(classes, dict)
    assert classes.keys() >= {"pages sectors", "log header", "log half a sector"}
    assert not list(tmp_path.iterdir())


def test_the_check_can_fail(steps: list[powercut.Step], tmp_path: Path) -> None:
    """A disk that lies about its syncs: the log's last commit is gone although the step had returned."""

    def opened(path: Path) -> Outbox:
        path.with_name(path.name + "-wal").unlink(missing_ok=True)
        return Outbox(path, now_ms=NOW_MS)

    result = powercut.try_all(tmp_path, _around(steps, 2), seed=1, each=1, opened=opened)
    assert result.failures


def test_half_a_commit_is_told_from_a_whole_one(steps: list[powercut.Step], tmp_path: Path) -> None:
    def opened(path: Path) -> Outbox:
        with sqlite3.connect(path) as db:
            db.execute("delete from batch where seq = 1")
        db.close()
        return Outbox(path, now_ms=NOW_MS)

    result = powercut.try_all(tmp_path, _around(steps, 3), seed=1, each=1, opened=opened)
    assert any("neither" in failure for failure in result.failures)


def test_mixtures_are_of_old_new_and_nothing_else() -> None:
    draw = random.Random(1)
    old, new = draw.randbytes(3000), draw.randbytes(5000)
    new = old[:1100] + new[1100:]
    made = list(powercut.images(powercut.Files(b"x", old), powercut.Files(b"x", new), draw, 3))
    assert all(image.files.log is not None and image.files.log[:1100] == old[:1100] for image in made)
    assert len({image.files.log for image in made}) > 10
    assert made[-1].files.log == new
    assert made[-1].after


# -- a killed process's files, torn


def test_a_torn_tail_loses_nothing_that_had_returned(steps: list[powercut.Step], tmp_path: Path) -> None:
    for number, amount in ((3, 0.0), (7, 0.3), (20, 0.99), (40, 0.6)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "outbox.db"
        step = steps[number]
        assert step.files.database is not None
        assert step.files.log is not None
        path.write_bytes(step.files.database)
        path.with_name("outbox.db-wal").write_bytes(step.files.log)
        assert "torn" in tear.tail(path, amount)
        outbox = Outbox(path, now_ms=NOW_MS)
        assert powercut.state_of(outbox) == step.state
        outbox.close()


def test_the_end_of_the_last_whole_commit_is_sqlites_own(tmp_path: Path) -> None:
    """Whatever is cut behind the place we find changes nothing; one byte before it loses the last commit."""
    path = tmp_path / "a.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode = wal")
    db.execute("create table t (x)")
    for n in range(20):
        db.execute("insert into t values (?)", (bytes([n]) * 3000,))
    log = path.with_name("a.db-wal").read_bytes()
    main = path.read_bytes()
    db.close()
    whole = tear.whole_bytes(log)
    assert whole == len(log)
    assert tear.whole_bytes(log[:-1]) < whole
    assert tear.whole_bytes(b"") == tear.whole_bytes(b"no log at all, but long enough for a header") == 0
    for cut, rows in ((whole, 20), (whole - 1, 19)):
        again = tmp_path / f"cut-{cut}"
        again.mkdir()
        (again / "a.db").write_bytes(main)
        (again / "a.db-wal").write_bytes(log[:cut])
        check = sqlite3.connect(again / "a.db")
        assert check.execute("select count(*) from t").fetchone() == (rows,)
        check.close()
        shutil.rmtree(again)
