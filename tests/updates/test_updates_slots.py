"""The boot record: its table, and a power cut at every file operation of a change of version.

A forked child walks the whole way with the real code (stage, arm, launcher's decisions) and is killed with SIGKILL at
its n-th file operation; n runs over all of them. Besides, the newest file of the record or the last file written is
torn in half. Then the machine "boots": whatever is found must be the old version or the new one, whole, never both,
never none, and the way can be walked to its end from there.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.updates import bundles
from edge.updates import record as boot
from edge.updates.install import init
from edge.updates.slots import Slots
from edge.updates.unpack import unpack
from protocols.updates.bundle import content_id, write_manifest
from tests.updates.repo import agent

README = Path(boot.__file__).with_name("README.md")


def pack(folder: Path, version: str, mood: str = "well") -> tuple[Path, str]:
    tree = agent(version, mood)
    manifest = bundles.manifest_of("agent", "citybrain", version, tree, entry=["-m", "stand_in"])
    path = folder / f"{version}.tar.zst"
    path.write_bytes(bundles.pack(manifest, tree))
    return path, content_id(write_manifest(manifest))


def prepared(folder: Path) -> tuple[Path, Path, str]:
    """Slots with version 1 and the bundle of version 2."""
    folder.mkdir(parents=True, exist_ok=True)
    old, _ = pack(folder, "1.0")
    new, content = pack(folder, "2.0")
    init(folder / "slots", old)
    return folder / "slots", new, content


def stage(root: Path, new: Path, content: str) -> None:
    """What the agent does until it stops for the trial."""
    slots = Slots(root)
    record = slots.record()
    if record["state"] in ("staging", "ready"):
        record = slots.step(record, "cancel")
    record = slots.begin(record, 7, "2.0", agent=True, content="")
    unpack(new, slots.folder(record["trial"]), content, slots.folder(record["good"]))
    record = slots.step(record, "filled")
    trial = {**record["trial"], "within_s": 5.0, "steady_s": 0.0, "before": []}
    slots.step(record, "arm", trial=trial)


def launcher(root: Path, *, healthy: bool) -> str:
    """What the launcher does at a start, without the waiting: the version that it lets run in the end."""
    while True:
        record = boot.read(root) or boot.recover(root)
        assert record is not None
        if record["state"] not in ("armed", "trying"):
            return str(record["good"]["version"])
        if record["tries"] >= boot.MAX_TRIES:
            boot.write(root, boot.step(record, "unhealthy", "too often"))
        elif wrong := boot.broken(root, record["trial"]):
            boot.write(root, boot.step(record, "broken", wrong))
        else:
            record = boot.write(root, boot.step(record, "start"))
            boot.write(root, boot.step(record, "healthy" if healthy else "unhealthy", "as told"))


def killed_at(step: int, way: Callable[[], object]) -> bool:
    """Run ``way`` in a child that dies at its n-th file operation. False: it came to its end."""
    child = os.fork()
    if child == 0:
        seen = itertools.count()

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
            if (writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")) and next(
                seen
            ) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            way()
        except BaseException:
            os._exit(9)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.waitstatus_to_exitcode(status) != 0


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newest(root: Path) -> Path | None:
    files = [p for p in root.rglob("*") if p.is_file() and p.name not in ("boot.0", "boot.1", "launcher.pyz")]
    return max(files, key=lambda p: p.stat().st_mtime_ns, default=None)


def truthful(root: Path) -> str:
    """The invariants after a boot; the version that is in force."""
    record = boot.read(root)
    assert record is not None
    assert not boot.broken(root, record["good"])
    manifest = json.loads((root / record["good"]["slot"] / "manifest.json").read_text())
    assert manifest["version"] == record["good"]["version"]
    outcome = record["outcome"]
    if record["good"]["version"] == "2.0":
        assert outcome is None or (outcome["state"], outcome["document"]) == ("applied", 7)
    else:
        assert outcome is None or outcome["state"] in ("rolled_back", "failed")
    return str(manifest["version"])


@pytest.mark.parametrize("healthy", [True, False])
def test_a_power_cut_at_every_step(tmp_path: Path, healthy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # as for os.sync: a killed process loses nothing
    first, new, content = prepared(tmp_path / "first")
    seen: set[str] = set()
    for step in itertools.count():
        cut = tmp_path / f"cut-{step}"
        shutil.copytree(first, cut)

        def way(root: Path = cut) -> None:
            stage(root, new, content)
            launcher(root, healthy=healthy)

        if not killed_at(step, way):
            break
        for torn in ("", "record", "file"):
            root = tmp_path / f"cut-{step}-{torn}"
            shutil.copytree(cut, root)  # times are kept: the newest file is known
            if torn == "record":
                tear(max(root.glob("boot.?"), key=lambda p: p.stat().st_mtime_ns))
            elif torn == "file" and (last := newest(root)) is not None and root / "a" not in last.parents:
                tear(last)
            launcher(root, healthy=healthy)
            seen.add(truthful(root))
            record = boot.read(root)
            assert record is not None
            seen.add(record["state"])
            if record["outcome"] is None:  # the gateway is told again by its twin, and goes on
                stage(root, new, content)
                launcher(root, healthy=healthy)
            assert truthful(root) == ("2.0" if healthy else "1.0") or torn == "file"
            shutil.rmtree(root)
    assert step > 12
    assert "1.0" in seen and ("2.0" in seen) == healthy
    assert {"steady", "staging", "ready"} <= seen
    assert launcher(cut, healthy=healthy) == ("2.0" if healthy else "1.0")


def test_both_records_lost_runs_the_slot_that_is_whole(tmp_path: Path) -> None:
    root, _, _ = prepared(tmp_path)
    for path in root.glob("boot.?"):
        tear(path)
    assert boot.read(root) is None
    assert launcher(root, healthy=True) == "1.0"
    record = boot.read(root)
    assert record is not None and "lost" in record["note"]
    tear(root / "a" / "site" / "stand_in.py")
    for path in root.glob("boot.?"):
        path.unlink()
    assert boot.recover(root) is None


def test_a_trial_that_is_not_whole_is_never_started(tmp_path: Path) -> None:
    root, new, content = prepared(tmp_path)
    stage(root, new, content)
    tear(root / "b" / "site" / "agent_data.py")
    assert launcher(root, healthy=True) == "1.0"
    record = boot.read(root)
    assert record is not None and record["outcome"]["state"] == "failed" and "hash" in record["outcome"]["detail"]


def test_tries_end(tmp_path: Path) -> None:
    """Power lost on trial again and again: three starts, then the old one, and told so."""
    root, new, content = prepared(tmp_path)
    stage(root, new, content)
    for _ in range(boot.MAX_TRIES):
        record = boot.read(root)
        assert record is not None and record["state"] in ("armed", "trying")
        boot.write(root, boot.step(record, "start"))
    assert launcher(root, healthy=True) == "1.0"
    record = boot.read(root)
    assert record is not None and record["outcome"]["state"] == "rolled_back"


def test_a_full_disk_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _, _ = prepared(tmp_path)
    before = boot.read(root)
    assert before is not None

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(os, "fsync", full)
        boot.write(root, boot.step(before, "begin", trial=None))
    assert boot.read(root) == before


@given(st.lists(st.sampled_from(["begin", "filled", "cancel", "arm", "start", "healthy", "unhealthy", "broken"])))
@settings(max_examples=300)
def test_whatever_happens_one_side_is_good(events: list[str]) -> None:
    """Only what was on trial becomes good, only by `healthy`, and a trial is there exactly where the table says."""
    record = boot.first("a", "1.0")
    for number, event in enumerate(events):
        if (record["state"], event) not in boot.TABLE:
            with pytest.raises(KeyError):
                boot.step(record, event)
            continue
        side = {"slot": "b" if record["good"]["slot"] == "a" else "a", "version": f"{number}", "content": ""}
        more = {"trial": {**side, "document": number}, "outcome": None} if event == "begin" else {}
        after = boot.step(record, event, "why", **more)
        assert (after["trial"] is None) == (after["state"] == "steady")
        assert after["gen"] == record["gen"] + 1
        if event == "healthy":
            assert after["good"] == {key: record["trial"][key] for key in ("slot", "version", "content")}
            assert after["previous"] == record["good"] and after["outcome"]["state"] == "applied"
        else:
            assert after["good"] == record["good"]
        record = after


def test_the_table_in_the_readme_is_the_table() -> None:
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\w+) \|", README.read_text("utf-8"), re.MULTILINE)
    told = {(state, event): after for state, event, after in rows if state not in ("from", "state")}
    assert told == boot.TABLE
