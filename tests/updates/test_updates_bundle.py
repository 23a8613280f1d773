"""Names, documents, windows, bundles and differences: what is well formed comes through, what is not is refused."""

from __future__ import annotations

import io
import json
import random
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.updates import bundles
from edge.updates.unpack import unpack
from protocols.core.errors import ConfigError, ContractError
from protocols.updates.bundle import (
    File,
    Manifest,
    apply_patch,
    check,
    content_id,
    patch,
    read_manifest,
    safe_path,
    write_manifest,
)  # fmt: skip
from protocols.updates.document import merge, parse, to_document
from protocols.updates.names import check_name, check_version, delta_path, full_path
from protocols.updates.window import Window

PATHS = st.lists(
    st.text("abc.-_é", min_size=1, max_size=6).filter(lambda t: t not in (".", "..")), min_size=1, max_size=3
)
TREES = st.dictionaries(PATHS.map("/".join), st.binary(max_size=300), min_size=1, max_size=6).filter(
    lambda tree: not any(a != b and b.startswith(f"{a}/") for a in tree for b in tree)
)


def manifest_of(tree: dict[str, bytes], version: str = "1") -> Manifest:
    return bundles.manifest_of("agent", "x", version, tree, entry=["-m", "x"])


def unpacked(packed: bytes, folder: Path, content: str, base: Path | None = None) -> dict[str, bytes]:
    (folder.parent / f"{folder.name}.tar.zst").write_bytes(packed)
    manifest = unpack(folder.parent / f"{folder.name}.tar.zst", folder, content, base)
    return {file.path: (folder / file.path).read_bytes() for file in manifest.files}


@given(old=TREES, new=TREES)
@settings(max_examples=40, deadline=None)
def test_whole_and_difference_give_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, old: dict[str, bytes], new: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("b")
    one, two = manifest_of(old, "1"), manifest_of(new, "2")
    ids = [content_id(write_manifest(m)) for m in (one, two)]
    assert unpacked(bundles.pack(one, old), folder / "one", ids[0]) == old
    delta = bundles.pack_delta(one, old, two, new)
    assert unpacked(delta, folder / "two", ids[1], folder / "one") == new
    assert bundles.pack(two, new) == bundles.pack(two, dict(reversed(new.items())))  # the same files, the same bytes
    assert bundles.unpack(io.BytesIO(bundles.pack(two, new))) == (two, new)


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_a_patch_gives_the_file_again(base: bytes, new: bytes) -> None:
    assert apply_patch(base, patch(base, new), len(new)) == new
    if new:
        with pytest.raises(ContractError):
            apply_patch(base, patch(base, new), len(new) - 1)  # never more than was promised


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_rubbish_for_a_patch_is_refused(base: bytes, rubbish: bytes) -> None:
    try:
        apply_patch(base, rubbish, 50)
    except ContractError as error:
        assert error.reason == "patch"


def test_a_base_that_is_not_what_it_was_is_found_out(tmp_path: Path) -> None:
    long = random.Random(1).randbytes(500)  # nothing in it repeats, so the difference needs all of it
    old, new = {"a": long, "b": b"same"}, {"a": long + b"2", "b": b"same", "c": b"3"}
    one, two = manifest_of(old), manifest_of(new, "2")
    ids = [content_id(write_manifest(m)) for m in (one, two)]
    unpacked(bundles.pack(one, old), tmp_path / "one", ids[0])
    delta = bundles.pack_delta(one, old, two, new)
    for path in ("a", "b"):
        kept = (tmp_path / "one" / path).read_bytes()
        (tmp_path / "one" / path).write_bytes(kept[:-1] + b"!")
        with pytest.raises(ContractError) as found:
            unpacked(delta, tmp_path / "two", ids[1], tmp_path / "one")
        assert found.value.reason == "base"
        assert not (tmp_path / "two" / "manifest.json").exists()
        (tmp_path / "one" / path).write_bytes(kept)
    with pytest.raises(ContractError) as found:
        unpacked(delta, tmp_path / "two", ids[1], None)
    assert found.value.reason == "base"
    assert unpacked(delta, tmp_path / "two", ids[1], tmp_path / "one") == new


def made(members: list[tuple[str, bytes, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data) if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(info, io.BytesIO(data))
    return zstd.compress(out.getvalue())


GOOD = {"a": b"content"}
HEAD = write_manifest(manifest_of(GOOD))


@pytest.mark.parametrize(
    "packed",
    [
        made([]),
        made([("f/a", b"content", tarfile.REGTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE), ("f/a", b"CONTENT", tarfile.REGTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE), ("f/a", b"content more", tarfile.REGTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE), ("f/a", b"", tarfile.SYMTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE), ("f/a", b"", tarfile.LNKTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE), ("f/../../x", b"content", tarfile.REGTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE), ("f/b", b"content", tarfile.REGTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE), *[("f/a", b"content", tarfile.REGTYPE)] * 2]),
        made([("manifest.json", HEAD + b" ", tarfile.REGTYPE), ("f/a", b"content", tarfile.REGTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE), ("p/a", b"x", tarfile.REGTYPE)]),
        made([("manifest.json", HEAD, tarfile.REGTYPE), ("f/a", b"content", tarfile.REGTYPE)])[:-9],
        zstd.compress(b"\0" * 100),
        b"no zstd",
        b"",
    ],
)
def test_bundles_that_lie_are_refused(tmp_path: Path, packed: bytes) -> None:
    with pytest.raises(ContractError):
        unpacked(packed, tmp_path / "y", content_id(HEAD))
    assert not (tmp_path / "y" / "manifest.json").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"y", "y.tar.zst"}  # nothing beside the folder


@pytest.mark.parametrize(
    "path", ["", "/a", "a/../b", "..", "a//b", "./a", "a/", "a\\b", "a\0b", "x" * 300, "a\nb", "/".join("a" * 300)]
)
def test_paths_that_leave_their_folder_are_refused(path: str) -> None:
    assert not safe_path(path)
    with pytest.raises(ContractError):
        check(Manifest("agent", "x", "1", (File(path, 1, "0" * 64),), entry=("x",)))


@given(st.binary(max_size=200))
def test_rubbish_for_a_manifest_is_refused(rubbish: bytes) -> None:
    with pytest.raises(ContractError):
        read_manifest(rubbish)


@pytest.mark.parametrize("name", ["", "A", "a/b", "../x", "a..b", "-a", ".a", "a" * 70, "ä", "a b"])
def test_names_become_paths_so_little_is_allowed(name: str) -> None:
    with pytest.raises(ContractError):
        check_name(name)
    with pytest.raises(ContractError):
        full_path("agent", name, "1", "any")


@pytest.mark.parametrize("version", ["", "1/2", "..", "1..2", " 1", "1 ", "a" * 70])
def test_versions_too(version: str) -> None:
    with pytest.raises(ContractError):
        check_version(version)
    with pytest.raises(ContractError):
        delta_path("agent", "x", version, "any", "0" * 64)


@pytest.mark.parametrize(
    "document",
    [
        {"agent": {"name": "x"}},
        {"agent": {"name": "x", "version": "1", "path": "/etc"}},
        {"models": [{"name": "x", "version": "1"}, {"name": "x", "version": "2"}]},
        {"packs": [{"name": f"p{n}", "version": "1"} for n in range(65)]},
        {"window": {"start": "24:00", "end": "01:00"}},
        {"window": {"start": "01:00", "end": "02:00", "days": []}},
        {"window": {"start": "01:00", "end": "02:00", "days": [8]}},
        {"health": {"within_s": 5, "steady_s": 5}},
        {"health": {"within_s": 0}},
        {"anything": 1},
    ],
)
def test_documents_that_make_no_sense_are_refused(document: dict[str, object]) -> None:
    with pytest.raises(ContractError):
        parse(document)


def test_a_change_is_laid_over_what_is_wanted() -> None:
    before = {"agent": {"name": "x", "version": "1"}, "models": [{"name": "b", "version": "1"}]}
    after = merge(before, {"models": [{"name": "a", "version": "7"}, {"name": "b", "version": "2"}]})
    assert after == {
        "agent": {"name": "x", "version": "1"},
        "models": [{"name": "a", "version": "7"}, {"name": "b", "version": "2"}],
    }
    assert json.loads(json.dumps(to_document(parse(after))))["models"] == after["models"]


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("window", "now", "wait_min"),
    [
        (Window("02:00", "05:00"), "2026-03-01T18:00", 0),  # 02:00 in Shanghai
        (Window("02:00", "05:00"), "2026-03-01T20:59", 0),
        (Window("02:00", "05:00"), "2026-03-01T21:00", 21 * 60),
        (Window("02:00", "05:00"), "2026-03-01T17:30", 30),
        (Window("23:00", "01:00"), "2026-03-01T16:30", 0),  # 00:30: belongs to the evening before
        (Window("23:00", "01:00"), "2026-03-01T17:00", 22 * 60),
        (Window("00:00", "00:00"), "2026-03-01T03:33", 0),  # all day
        (Window("02:00", "03:00", 0, (1,)), "2026-03-01T00:00", 26 * 60),  # a Sunday; Monday alone
        (Window("23:00", "01:00", 0, (7,)), "2026-03-02T00:30", 0),  # Monday, begun on Sunday
        (Window("23:00", "01:00", 0, (7,)), "2026-03-02T01:00", (6 * 24 + 22) * 60),
    ],
)
def test_windows(window: Window, now: str, wait_min: int) -> None:
    window.check()
    assert window.wait_ms(at(now)) == wait_min * 60_000
    assert window.open(at(now)) == (wait_min == 0)


@given(
    st.integers(0, 1439), st.integers(0, 1439), st.integers(-840, 840), st.sets(st.integers(1, 7), min_size=1),
    st.integers(0, 4_000_000_000_000),
)  # fmt: skip
def test_a_window_opens_when_it_says(start: int, end: int, offset: int, days: set[int], now_ms: int) -> None:
    clock = [f"{minute // 60:02}:{minute % 60:02}" for minute in (start, end)]
    window = Window(clock[0], clock[1], offset, tuple(sorted(days)))
    wait_ms = window.wait_ms(now_ms)
    assert 0 <= wait_ms <= 8 * 86_400_000
    assert window.open(now_ms + wait_ms)
    if wait_ms:
        assert not window.open(now_ms + wait_ms - 1)


def test_wheels_become_an_agent(tmp_path: Path) -> None:
    for name, files in {
        "one-1.whl": {"one/__init__.py": b"1", "one-1.dist-info/METADATA": b"m", "one-1.data/scripts/x": b"no"},
        "two-1.whl": {"two.py": b"2", "two-1.data/platlib/two_c.so": b"so"},
    }.items():
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            for path, data in files.items():
                wheel.writestr(path, data)
    wheels = sorted(tmp_path.glob("*.whl"))
    assert bundles.agent_tree(wheels) == {
        "site/one/__init__.py": b"1", "site/one-1.dist-info/METADATA": b"m", "site/two.py": b"2",
        "site/two_c.so": b"so",
    }  # fmt: skip
    with zipfile.ZipFile(tmp_path / "three-1.whl", "w") as wheel:
        wheel.writestr("two.py", b"another")
    with pytest.raises(ConfigError, match="not the same"):
        bundles.agent_tree(sorted(tmp_path.glob("*.whl")))
    (tmp_path / "four.whl").write_bytes(b"no zip")
    with pytest.raises(ConfigError):
        bundles.agent_tree([tmp_path / "four.whl"])
