"""The systemd units: sandboxed, bounded, without secrets, and pointing at things that are there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from citybrain_cli.main import _parser
from cloud.identity.broker import config as broker_config

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy").glob("*/*.service"))
#: Of 10; what `systemd-analyze security` calls "OK" ends at 4.9. The gateway opens serial lines and asks how well its
#: clock is kept.
MOST_EXPOSED = {
    "citybrain-agent.service": 2.3, "citybrain-console.service": 1.5, "citybrain-worker@.service": 1.5,
    "citybrain-broker.service": 1.5, "citybrain-broker-guard.service": 1.5,
}  # fmt: skip
DEMANDED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes",
    "CapabilityBoundingSet": "", "DevicePolicy": "closed", "RestrictSUIDSGID": "yes", "RestrictNamespaces": "yes",
    "LockPersonality": "yes", "UMask": "0077", "ProtectKernelModules": "yes", "Restart": "always",
}  # fmt: skip


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        if (pair := re.fullmatch(r"([A-Z]\w+)=(.*)", line)) is not None:
            found.setdefault(pair[1], []).append(pair[2])
    return found


def test_there_is_one_for_each_part() -> None:
    assert {unit.name for unit in UNITS} == set(MOST_EXPOSED)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_sandbox_and_bounds(unit: Path) -> None:
    found = settings(unit)
    for name, value in DEMANDED.items():
        assert found.get(name) == [value], f"{unit.name}: {name}"
    assert found["User"] != ["root"] and "MemoryMax" in found and "TasksMax" in found
    assert not {name for name in found if name.startswith("Environment")} - {"Environment"}
    for text in found.get("Environment", []):
        assert not re.search(r"(?i)password|secret|token|key", text), unit.name
    assert all(text.partition(":")[2].startswith("/etc/citybrain/") for text in found.get("LoadCredential", []))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_it_starts_is_a_command_of_ours(unit: Path) -> None:
    for line in [*settings(unit)["ExecStart"], *settings(unit).get("ExecStartPre", [])]:
        program, *arguments = line.split()
        if program.endswith("/citybrain"):
            assert _parser().parse_args(arguments).do
        elif arguments[0].endswith(".pyz"):  # `edge slots init` says how the launcher is called
            assert arguments[0] == f"{arguments[1]}/launcher.pyz" and arguments[2] == "/etc/citybrain/agent.toml"
        elif program.endswith("/nats-server"):
            out = broker_config.load(ROOT / "deploy" / "broker" / "broker.toml").out
            assert arguments == ["-c", f"{out}/nats.conf"] and out == f"/var/lib/{settings(unit)['StateDirectory'][0]}"
        else:
            assert arguments[:2] == ["-m", "cloud.app"] and (ROOT / "cloud" / "app.py").exists()


def test_the_agent_is_watched_and_may_open_serial_lines_only() -> None:
    found = settings(ROOT / "deploy/gateway/citybrain-agent.service")
    assert found["Type"] == ["notify"] and int(found["WatchdogSec"][0]) >= 30
    assert all(re.fullmatch(r"char-tty\w+ rw", text) for text in found["DeviceAllow"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemds_own_judgement(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    score = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    if score is None:
        pytest.skip(f"this systemd judges no files: {done.stderr[:200]}")
    assert float(score[1]) <= MOST_EXPOSED[unit.name], done.stdout
