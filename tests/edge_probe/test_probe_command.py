"""`citybrain probe` as an installer runs it: a real process on a pty, snippet, JSON, Ctrl-C, wrong questions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'firmware-sim'}"}
SCENE = """
id = "probe"
[[bus]]
id = "line"
kind = "dlt645"
pty = "{pty}"
pace = false
[[device]]
id = "meter"
type = "meter/electricity_three_phase"
bus = "line"
count = 3
address = "000000000101"
[device.signals]
voltage_a = {{ base = 229.0 }}
energy_active = {{ base = 5.0 }}
"""


def citybrain(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from citybrain_cli.main import main; raise SystemExit(main())", *arguments],
        cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell that runs the tests in the background hands down "ignore Ctrl-C".
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.fixture
def pty(tmp_path: Path) -> Iterator[Path]:
    """A line with three simulated meters."""
    name, scene = tmp_path / "line", tmp_path / "scene.toml"
    scene.write_text(SCENE.format(pty=name), encoding="utf-8")
    sim = citybrain("sim", "run", str(scene))
    try:
        until = time.monotonic() + 30
        while not name.exists():
            assert sim.poll() is None and time.monotonic() < until, sim.stderr and sim.stderr.read()
            time.sleep(0.05)
        yield name
    finally:
        sim.terminate()
        sim.wait(10)


def test_found_meters_and_a_snippet(pty: Path) -> None:
    done = citybrain("probe", str(pty), "--protocol", "dlt645", "--baud", "9600", "--parity", "E")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    table = tomllib.loads(out.partition("# for the gateway")[2].partition("\n")[2])
    (connector,) = table["connector"]
    assert (connector["kind"], connector["port"], connector["baud"]) == ("dlt645", str(pty), 9600)
    assert {row["address"] for row in connector["device"]} == {f"{n:012d}" for n in (101, 102, 103)}


def test_ctrl_c_keeps_what_was_found(pty: Path) -> None:
    asking = citybrain("probe", str(pty), "--json")  # would go on for minutes
    assert asking.stderr is not None
    for told in asking.stderr:
        if "000000000101" in told:
            break
    asking.send_signal(signal.SIGINT)
    out, _ = asking.communicate(timeout=30)
    said = json.loads(out)
    assert asking.returncode == 0
    assert said["stopped"] is True
    assert "000000000101" in {row["address"] for row in said["found"]}


@pytest.mark.parametrize(
    "arguments",
    [
        ["/dev/ttyS99", "--protocol", "zigbee"],
        ["/dev/ttyS99", "--baud", "1234"],
        ["/dev/ttyS99", "--parity", "X"],
        ["/dev/ttyS99", "--units", "0-300"],
        ["/dev/ttyS99", "--units", "x"],
        ["tcp://nowhere"],
    ],
)
def test_wrong_questions_are_refused(arguments: list[str]) -> None:
    done = citybrain("probe", *arguments)
    _, err = done.communicate(timeout=30)
    assert done.returncode == 2, err
    assert "citybrain: " in err
