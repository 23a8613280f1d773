"""compose.yaml without containers: each service's command as a plain process, from an empty database to a gateway that
has enrolled by its one-time code, is let in by its certificate, and whose word the worker has put into the database.

Only paths, ports and names differ from what the containers see; the broker, the database and every process are real.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from citybrain_cli.up import broker
from tests.fixtures.broker import _free_ports
from tests.fixtures.postgres import Postgres
from tests.fixtures.process import Server
from tests.fixtures.wait import until
from tests.identity.city import Link

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
DSN = "host=db user=citybrain dbname=citybrain"
SCRIPTS = {"core-prepare": "core-prepare.sh", "core-entrypoint": "core-entrypoint.sh"}


class Host:
    """Volumes as folders, the configuration as each service sees it, its command as it would be run."""

    def __init__(self, root: Path, dsn: str) -> None:
        self.root, self.dsn = root, dsn
        self.mqtt, self.nats, monitor, self.console, dust, status = _free_ports(6)
        self._names = [
            (DSN, dsn), ("mqtts://broker:8883", f"mqtts://localhost:{self.mqtt}"),
            ("https://console:8600", f"https://localhost:{self.console}"), ("0.0.0.0:8883", f"127.0.0.1:{self.mqtt}"),
            ("0.0.0.0:8600", f"127.0.0.1:{self.console}"), ("127.0.0.1:8600", f"127.0.0.1:{self.console}"),
            ("127.0.0.1:4222", f"127.0.0.1:{self.nats}"), ("127.0.0.1:8222", f"127.0.0.1:{monitor}"),
            ("0.0.0.0:9001", f"127.0.0.1:{dust}"), ("127.0.0.1:8601", f"127.0.0.1:{status}"),
            ("('127.0.0.1', 4222)", f"('127.0.0.1', {self.nats})"),
        ]  # fmt: skip
        bin_ = root / "bin"
        bin_.mkdir()
        for name, argv in (("citybrain", "-m citybrain_cli.main"), ("python", "")):
            (bin_ / name).write_text(f'#!/bin/sh\nexec {sys.executable} {argv} "$@"\n')
            (bin_ / name).chmod(0o755)
        self._servers: list[Server] = []
        self.environ = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def here(self, service: str, text: str) -> str:
        """``text`` with this machine's names, and the folders that are mounted into ``service``."""
        for old, new in self._names:
            text = text.replace(old, new)
        mounts = [entry.split(":") for entry in SERVICES[service].get("volumes", [])]
        for source, target, *_ in sorted(mounts, key=lambda entry: -len(entry[1])):
            if source.startswith("./"):
                copy = self.root / service / Path(target).name
                copy.parent.mkdir(exist_ok=True)
                if target in text and not copy.exists():
                    copy.write_text(self.here(service, (ROOT / source).read_text(encoding="utf-8")))
                text = text.replace(target, str(copy))
            else:
                folder = self.root / "volumes" / source
                folder.mkdir(parents=True, exist_ok=True)
                text = re.sub(rf"{re.escape(target)}(?=[/'\"]|$)", str(folder), text, flags=re.MULTILINE)
        return text

    def argv(self, service: str, command: list[str]) -> list[str]:
        first, *rest = [self.here(service, word) for word in command]
        return [str(DEPLOY / SCRIPTS[first]) if first in SCRIPTS else first, *rest]

    def job(self, service: str) -> None:
        argv = self.argv(service, SERVICES[service]["command"])
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{service}: {done.stdout}{done.stderr}"

    def start(self, service: str, command: list[str], **environ: str) -> Server:
        said = [f"{key}={self.here(service, value)}" for key, value in {**self.environ, **environ}.items()]
        server = Server(["env", "-i", *said, *self.argv(service, command)], self.root / f"{service}.log")
        server.spawn()
        self._servers.append(server)
        return server

    def healthy(self, service: str, server: Server, port: int) -> None:
        """By the health check that compose.yaml gives it; first asked when its ``port`` is open, for asking costs."""
        _, *test = SERVICES[service]["healthcheck"]["test"]
        argv = self.argv(service, test)

        def well() -> bool:
            assert server.running, f"{service}:\n{server.words()}"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    return False
            return subprocess.run(argv, env=self.environ, capture_output=True, check=False).returncode == 0

        until(well, f"{service} is healthy", timeout_s=60)

    def volume(self, name: str) -> Path:
        return self.root / "volumes" / name

    def stop(self) -> None:
        for server in reversed(self._servers):
            server.end()


@pytest.fixture(scope="module")
def host(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    postgres.execute("create database composed")
    host = Host(tmp_path_factory.mktemp("compose"), postgres.dsn("composed"))
    try:
        for job in ("migrate", "prepare", "rules"):
            host.job(job)
        server = host.start("broker", [broker.binary(), *SERVICES["broker"]["command"]])
        until(lambda: not server.running or host.volume("broker").joinpath("store", "jetstream").exists(), "a store")
        host.healthy("guard", host.start("guard", SERVICES["guard"]["command"]), host.nats)
        host.start("worker", SERVICES["worker"]["command"])
        host.healthy("console", host.start("console", SERVICES["console"]["command"]), host.console)
        host.start("agent", _agent_command(host), **_agent_environment(host))
        yield host
    finally:
        host.stop()


def _agent_command(host: Host) -> list[str]:
    """ENTRYPOINT and CMD of its image."""
    lines = (ROOT / "edge.Dockerfile").read_text().splitlines()
    words = re.findall(r'"([^"]+)"', next(line for line in lines if line.startswith("CMD")))
    assert 'ENTRYPOINT ["edge-entrypoint"]' in lines
    return [str(DEPLOY / "edge-entrypoint.sh"), *words]


def _agent_environment(host: Host) -> dict[str, str]:
    assert SERVICES["agent"]["environment"] == {"CITYBRAIN_LABEL_FILE": "/run/citybrain-label/label"}
    return {**SERVICES["agent"]["environment"], "CITYBRAIN_STATE": str(host.volume("agent"))}


def test_the_demonstration_gateway_comes_by_its_code_and_is_heard(host: Host) -> None:
    with psycopg.connect(host.dsn, autocommit=True) as conn:

        def heard() -> bool:
            row = conn.execute("select online from gateway where gateway_id = 'gw-demo-01' and shard = 5").fetchone()
            return bool(row and row[0])

        until(heard, "agent, broker, guard and worker have met", timeout_s=60)
    identity = host.volume("agent") / "identity" / "identity.pem"
    assert identity.stat().st_mode & 0o077 == 0
    assert "password" not in (host.root / "agent" / "agent.toml").read_text()


def test_who_has_no_certificate_is_not_let_in(host: Host, tmp_path: Path) -> None:
    root = host.volume("ca") / "root.pem"
    assert not Link(host.mqtt, "gw-demo-01", root, None).tried()
    password = (host.volume("broker") / "core-password").read_text()
    assert not Link(host.mqtt, "cb-core-5", root, None, ("core", password)).tried(), "a password alone opens nothing"


def test_what_is_prepared_at_every_start_changes_nothing(host: Host) -> None:
    label = host.volume("label") / "label"
    kept = [label, host.volume("core") / "tls" / "server.pem", host.volume("ca") / "root.pem"]
    before = [path.read_bytes() for path in kept]
    host.job("prepare")
    assert [path.read_bytes() for path in kept] == before
    assert label.read_text().startswith("citybrain:enrol?")
