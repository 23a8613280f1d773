"""The command of the gateway's unit, really run: launcher, slot a, the agent in it, its READY, the end in order."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import psutil

from cloud.updates import bundles
from edge.updates.install import init
from tests.fixtures.process import Server
from tests.fixtures.wait import until

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "gateway" / "citybrain-agent.service"
OURS = ("edge", "protocols", "scenarios", "citybrain_cli")


def _bundle(path: Path) -> Path:
    """What `cloud release pack-agent` makes of our wheel; other people's packages are found in this environment."""
    files = [file for name in OURS for file in (ROOT / name).rglob("*") if file.is_file() and file.suffix != ".pyc"]
    tree = {f"site/{file.relative_to(ROOT).as_posix()}": file.read_bytes() for file in files}
    entry = ["-m", "citybrain_cli.main", "edge", "run"]
    path.write_bytes(bundles.pack(bundles.manifest_of("agent", "citybrain", "0.1.0", tree, entry=entry), tree))
    return path


def test_the_units_command_starts_the_agent_of_the_slot(tmp_path: Path) -> None:
    state, config = tmp_path / "var", tmp_path / "agent.toml"
    init(state / "slots", _bundle(tmp_path / "agent.tar.zst"))
    config.write_text(
        f'[gateway]\nid = "gw-unit"\nshard = 1\nstate_dir = "{state}"\nstatus_listen = ""\n'
        '[mqtt]\nurl = "mqtt://127.0.0.1:1"\n'
    )
    line = next(text for text in UNIT.read_text().splitlines() if text.startswith("ExecStart="))
    command = line.removeprefix("ExecStart=").replace("/var/lib/citybrain", str(state))
    command = command.replace("/etc/citybrain/agent.toml", str(config)).replace("/usr/bin/python3", sys.executable)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        unit = Server(["env", f"NOTIFY_SOCKET={tmp_path / 'notify'}", *command.split()], tmp_path / "log")
        unit.spawn()
        try:
            assert systemd.recv(100) == b"READY=1", unit.words()
            running = [one for one in psutil.process_iter(["cmdline"]) if str(config) in (one.info["cmdline"] or [])]
            agents = [one for one in running if "citybrain_cli.main" in one.cmdline()]
            assert [one.environ()["PYTHONPATH"] for one in agents] == [str(state / "slots" / "a" / "site")]
        finally:
            unit.end()
    until(lambda: not any(one.is_running() for one in running), "launcher and agent have ended")
    assert (state / "outbox.db").exists()
