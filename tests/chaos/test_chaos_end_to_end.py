"""The command itself: a system of its own, real kills, and a verdict; an agent that lies is found out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from citybrain_cli.chaos.faults import FAULTS
from citybrain_cli.main import main

ROOT = Path(__file__).parents[2]


def _chaos(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, report and what it said; each run has its own folder, so that a killed test leaves no processes."""
    report = folder / "report.json"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "firmware-sim")])
    done = subprocess.run(
        [sys.executable, "-m", "citybrain_cli.main", "chaos", "--json", str(report), *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, json.loads(report.read_text()) if report.exists() else {}, done.stderr


def test_kills_cuts_and_torn_files_lose_nothing(tmp_path: Path) -> None:
    code, report, said = _chaos(
        tmp_path, "--minutes", "0.1", "--shorten", "0.15", "--seed", "616", "--agents", "1", "--workers", "1",
        "--rate-readings", "2000", "--rate-events", "100",
        "--faults", "agent-kill,worker-kill,broker-kill,database-kill,net-cut,power-cut",
    )  # fmt: skip
    assert code == 0, said
    assert report["verdict"] == "sound"
    assert len({fault["fault"] for fault in report["faults"]}) == 6
    totals = report["totals"]
    assert totals["accepted_readings"] > 2000
    assert totals["committed_readings"] >= totals["accepted_readings"]
    assert {one["gateway"] for one in report["proof"]} == {"chaos-0", "chaos-devices"}
    assert report["stations"]["uploads_lost"] == 0
    assert report["spoiled_rows_are_named"]
    assert all(report["spoiled_rows_are_named"].values())


def test_an_agent_that_lies_is_found_out(tmp_path: Path) -> None:
    code, report, said = _chaos(
        tmp_path, "--minutes", "0.1", "--agents", "1", "--workers", "1", "--rate-readings", "200", "--rate-events",
        "20", "--faults", "agent-kill", "--shorten", "0.2", "--network", "proxy", "--patience", "3",
        "--agent-command", f"{sys.executable} {Path(__file__).with_name('liar.py')}",
    )  # fmt: skip
    assert code == 1, said
    assert report["verdict"] == "broken"
    assert report["totals"]["lost_readings"] > 0
    assert report["totals"]["lost_events"] > 0
    assert any(finding.startswith("lost: ") for finding in report["gateways"][0]["findings"])


@pytest.mark.parametrize(
    "arguments", [["--faults", "earthquake"], ["--minutes", "0"], ["--rate-readings", "1"], ["--agents", "99"]]
)
def test_nonsense_is_refused_before_anything_starts(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", *arguments]) == 2
    assert capsys.readouterr().err.startswith("citybrain: ")


def test_the_faults_are_told_with_what_they_may_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(FAULTS)
    assert {line.split()[0] for line in lines} == FAULTS.keys()
