"""The real launcher with small agents that are well, ill, dead or mute; launcher and agents are killed for real."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edge.updates import record as boot
from edge.updates.install import init, launcher_file
from edge.updates.slots import Slots
from edge.updates.unpack import unpack
from protocols.core.errors import ConfigError, ContractError
from tests.fixtures.process import Server
from tests.fixtures.wait import until
from tests.updates.test_updates_slots import pack


class Gateway:
    """Slots with version 1.0 and its launcher as a process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.root = folder / "slots"
        init(self.root, pack(folder, "1.0")[0])
        argv = [sys.executable, str(self.root / "launcher.pyz"), str(self.root), "--some", "argument"]
        self.process = Server(argv, folder / "launcher.log")

    def starts(self) -> list[tuple[str, str, bool, int]]:
        """(version, slot, on trial, pid) of every start of an agent."""
        path = self.root / "starts"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(v, slot, trial == "True", int(pid)) for v, slot, trial, pid in (line.split() for line in lines)]

    def record(self) -> boot.Record:
        found = boot.read(self.root)
        assert found is not None
        return found

    def arm(self, version: str, mood: str, *, within_s: float = 20.0) -> None:
        """As the agent does: stage, arm, stop."""
        path, content = pack(self.folder, version, mood)
        slots = Slots(self.root)
        record = slots.begin(slots.record(), 7, version, agent=True, content="")
        unpack(path, slots.folder(record["trial"]), content, slots.folder(record["good"]))
        trial = {**record["trial"], "within_s": within_s, "steady_s": 0.0, "before": []}
        slots.step(slots.step(record, "filled"), "arm", trial=trial)

    def stop_agent(self) -> None:
        os.kill(self.starts()[-1][3], signal.SIGTERM)

    def runs(self, version: str) -> None:
        """That version runs, and nothing else of ours does."""

        def only() -> bool:
            starts = self.starts()
            living = [s for s in starts if psutil.pid_exists(s[3]) and psutil.Process(s[3]).status() != "zombie"]
            return bool(starts) and starts[-1][0] == version and living == [starts[-1]]

        until(only, f"{version} alone runs")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path / "gw")
    made.process.spawn()
    until(lambda: made.starts(), "the first agent runs")
    yield made
    made.process.kill()


def ended(gateway: Gateway, state: str) -> boot.Record:
    def outcome() -> boot.Record | None:
        record = gateway.record()
        return record if record["state"] == "steady" and record["outcome"] else None

    record = until(outcome, "the trial has ended")
    assert record is not None and record["outcome"]["state"] == state, record
    return record


def test_a_version_that_is_well_is_kept(gateway: Gateway) -> None:
    gateway.arm("2.0", "well")
    gateway.stop_agent()
    record = ended(gateway, "applied")
    assert (record["good"]["version"], record["previous"]["version"], record["good"]["slot"]) == ("2.0", "1.0", "b")
    gateway.runs("2.0")
    gateway.stop_agent()  # it dies one day: it is started again, and no trial
    until(lambda: len(gateway.starts()) == 3, "started again")
    assert [s[:3] for s in gateway.starts()] == [("1.0", "a", False), ("2.0", "b", True), ("2.0", "b", False)]
    gateway.process.end()
    assert not any(psutil.pid_exists(s[3]) for s in gateway.starts())


@pytest.mark.parametrize("mood", ["ill", "mute"])
def test_a_version_that_does_not_get_well_is_taken_back(gateway: Gateway, mood: str) -> None:
    gateway.arm("2.0", mood, within_s=1.5)
    gateway.stop_agent()
    record = ended(gateway, "rolled_back")
    assert record["outcome"]["detail"] == f"not healthy in 1.5 s: {'ill' if mood == 'ill' else 'it said nothing'}"
    assert record["good"]["version"] == "1.0"
    gateway.runs("1.0")


def test_a_version_that_dies_is_tried_three_times(gateway: Gateway) -> None:
    gateway.arm("2.0", "dies")
    gateway.stop_agent()
    record = ended(gateway, "rolled_back")
    assert "3 times" in record["outcome"]["detail"]
    gateway.runs("1.0")
    assert [s[:3] for s in gateway.starts()] == [("1.0", "a", False), *[("2.0", "b", True)] * 3, ("1.0", "a", False)]


def test_power_lost_on_trial_tries_again(gateway: Gateway) -> None:
    gateway.arm("2.0", "ill")
    gateway.stop_agent()
    until(lambda: gateway.starts()[-1][0] == "2.0", "the trial runs")
    gateway.process.kill()
    assert gateway.record()["state"] == "trying" and gateway.record()["tries"] == 1
    gateway.process.spawn()
    until(lambda: len(gateway.starts()) == 3, "tried again")
    assert gateway.record()["tries"] == 2
    gateway.runs("2.0")


def test_a_killed_launcher_leaves_no_second_agent(gateway: Gateway) -> None:
    """The launcher alone is killed; its agent is asked to stop, and the next launcher waits until it has."""
    launcher = next(
        p for p in psutil.process_iter(["cmdline"])
        if str(gateway.root / "launcher.pyz") in (p.info["cmdline"] or []) and "setpriv" not in p.info["cmdline"][0]
    )  # fmt: skip
    launcher.kill()
    until(lambda: not gateway.process.running, "the launcher is gone")
    gateway.process.spawn()
    until(lambda: len(gateway.starts()) == 2, "started again")
    gateway.runs("1.0")


def test_a_second_launcher_waits_for_the_first(gateway: Gateway) -> None:
    argv = [sys.executable, str(gateway.root / "launcher.pyz"), str(gateway.root)]
    second = Server(argv, gateway.folder / "second.log")
    second.spawn()
    gateway.stop_agent()
    until(lambda: len(gateway.starts()) == 2, "the first one started it again")
    gateway.runs("1.0")
    gateway.process.end()
    until(lambda: len(gateway.starts()) == 3, "now the second one may")
    second.kill()


def test_a_damaged_slot_falls_back_to_the_one_before(gateway: Gateway) -> None:
    gateway.arm("2.0", "well")
    gateway.stop_agent()
    ended(gateway, "applied")
    (gateway.root / "b" / "site" / "stand_in.py").write_text("raise SystemExit(1)")
    gateway.stop_agent()
    until(lambda: gateway.record()["good"]["version"] == "1.0", "the one before is good again", timeout_s=40)
    gateway.runs("1.0")
    assert "another hash" in gateway.record()["note"]


def test_a_disk_that_takes_no_record_keeps_the_good_one_running(gateway: Gateway) -> None:
    """The record's files cannot be replaced (a directory is in the way): no trial, the version in force runs."""
    gateway.arm("2.0", "well")
    for name in ("boot.new",):
        (gateway.root / name).mkdir()
    gateway.stop_agent()
    until(lambda: len(gateway.starts()) == 2, "an agent runs")
    gateway.runs("1.0")
    assert gateway.record()["state"] == "armed"
    (gateway.root / "boot.new").rmdir()
    gateway.stop_agent()
    assert ended(gateway, "applied")["good"]["version"] == "2.0"


def test_nothing_to_run_is_said(tmp_path: Path) -> None:
    root = tmp_path / "slots"
    root.mkdir()
    (tmp_path / "launcher.pyz").write_bytes(launcher_file())
    server = Server([sys.executable, str(tmp_path / "launcher.pyz"), str(root)], tmp_path / "log")
    server.spawn()
    until(lambda: not server.running, "it ends")
    assert "install an agent" in server.words()


def test_a_gateway_is_set_up_once(tmp_path: Path) -> None:
    path, _ = pack(tmp_path, "1.0")
    init(tmp_path / "slots", path)
    with pytest.raises(ConfigError, match="set up already"):
        init(tmp_path / "slots", path)
    cut = tmp_path / "cut.tar.zst"
    cut.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ContractError):
        init(tmp_path / "other", cut)
    assert boot.read(tmp_path / "other") is None
    shutil.rmtree(tmp_path / "slots")
