"""A download is killed at any byte and goes on; what is not what was signed is thrown away."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import pytest

from edge.updates.fetch import Http, download
from protocols.core.errors import ContractError, LinkDown, LinkRefused, StoreError
from tests.fixtures.process import Server
from tests.fixtures.wait import until
from tests.updates.repo import Web, config

DATA = random.Random(4).randbytes(3 << 20)  # seeded: the same bytes each time
SHA256 = hashlib.sha256(DATA).hexdigest()
CODE = """
import sys
from pathlib import Path
from edge.updates.config import UpdatesConfig
from edge.updates.fetch import Http, download
url, target, length, sha256 = sys.argv[1:]
download(Http(UpdatesConfig(url), Path("/")), url, Path(target), int(length), sha256)
print("whole", flush=True)
"""


def fetch(web: Web, target: Path, **more: int) -> Path:
    return download(Http(config(web.url), target.parent), f"{web.url}file", target, len(DATA), SHA256, **more)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "file").write_bytes(DATA)
    return folder


def test_killed_again_and_again_it_comes_to_its_end(files: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    part = tmp_path / "target.part"
    points = sorted(random.Random(7).randrange(len(DATA)) for _ in range(4))
    with Web(files) as web:
        web.pace_s = 0.003
        argv = [sys.executable, "-c", CODE, f"{web.url}file", str(target), str(len(DATA)), SHA256]
        sent = 0
        for point in points:
            child = Server(argv, tmp_path / "log")
            child.spawn()
            until(lambda at=point: part.exists() and part.stat().st_size >= at, f"{point} bytes are there")
            child.kill()
            assert not target.exists()
            sent = part.stat().st_size
        web.pace_s = 0.0
        last = Server(argv, tmp_path / "log")
        last.spawn()
        until(lambda: target.exists() or not last.running, "it is whole")
        last.end()
        assert target.read_bytes() == DATA
        assert web.asked[-1][1] == f"bytes={sent}-"  # not one byte again
        assert not part.exists()


def test_a_connection_cut_anywhere_goes_on(files: Path, tmp_path: Path) -> None:
    target = tmp_path / "d" / "target"
    with Web(files) as web:
        web.stop_after = 1_100_001
        for _ in range(2):
            with pytest.raises(LinkDown):
                fetch(web, target)
        assert fetch(web, target).read_bytes() == DATA
        assert [r for _, r in web.asked] == ["", "bytes=1100001-", "bytes=2200002-"]
        fetch(web, target)
        assert len(web.asked) == 3  # it is there: nothing is asked


def test_a_server_without_ranges_costs_a_new_beginning(files: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with Web(files) as web:
        web.stop_after = 1000
        with pytest.raises(LinkDown):
            fetch(web, target)
        web.stop_after, web.ranges = None, False
        assert fetch(web, target).read_bytes() == DATA


def test_a_part_with_rubbish_in_it_is_found_out(files: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for rubbish in (b"\0" * 5000, DATA + b"more", DATA[:-1] + b"?"):
        (tmp_path / "target.part").write_bytes(rubbish)
        with Web(files) as web:
            try:
                fetch(web, target)
            except ContractError as error:
                assert error.reason == "hash"
                assert not (tmp_path / "target.part").exists()
                fetch(web, target)
        assert target.read_bytes() == DATA
        target.unlink()


def test_it_never_takes_the_last_of_the_disk(files: Path, tmp_path: Path) -> None:
    with Web(files) as web, pytest.raises(StoreError, match="no room"):
        fetch(web, tmp_path / "target", keep_free_bytes=1 << 60)
    assert list(tmp_path.glob("target*")) == []


def test_what_is_not_there_is_no_reason_to_try_for_ever(files: Path, tmp_path: Path) -> None:
    with Web(files) as web:
        with pytest.raises(LinkRefused):
            download(Http(config(web.url), tmp_path), f"{web.url}other", tmp_path / "t", 1, SHA256)
        url = web.url
    with pytest.raises(LinkDown):
        download(Http(config(url), tmp_path), f"{url}file", tmp_path / "t", 1, SHA256)


def test_it_keeps_the_pace_it_is_given(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("edge.updates.fetch.time.sleep", slept.append)
    with Web(files) as web:
        fetch(web, tmp_path / "target", max_bytes_s=64 << 10)
    assert sum(slept) > 40  # of the 48 s that 3 MB take at that pace


def test_another_wish_stops_it(files: Path, tmp_path: Path) -> None:
    with Web(files) as web, pytest.raises(LinkDown, match="another document"):
        http = Http(config(web.url), tmp_path)
        download(http, f"{web.url}file", tmp_path / "t", len(DATA), SHA256, cancelled=lambda: True)
