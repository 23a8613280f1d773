"""compose.yaml, the image recipes, the gateway's unit and their configuration agree with each other and with the code.

No container engine is needed: what they name exists, what they mount is made, and the configuration is read by the very
loaders that will read it.
"""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from citybrain_cli.main import main
from cloud import config as core_config
from cloud.identity.broker import config as broker_config
from cloud.ingest import config as worker_config
from cloud.ingest.members import SHARD_SPACE
from edge import config as edge_config
from protocols.uplink.topics import SHARDS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
JOBS = {"migrate", "prepare", "rules"}
AGENT_TOML = "/etc/citybrain/agent.toml"


def test_every_secret_is_made_once(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    subprocess.run([DEPLOY / "make_secrets.sh", "-o", secrets], check=True)
    before = {file.name: file.read_bytes() for file in secrets.iterdir()}
    for name, entry in COMPOSE["secrets"].items():
        file = secrets / Path(entry["file"]).relative_to("deploy/secrets")
        assert len(file.read_bytes()) == 48, name
        assert file.stat().st_mode & 0o444 == 0o444, f"{name}: a container's account could not read it"
    assert secrets.stat().st_mode & 0o077 == 0
    subprocess.run([DEPLOY / "make_secrets.sh", "-o", secrets], check=True)
    assert {file.name: file.read_bytes() for file in secrets.iterdir()} == before
    done = subprocess.run([DEPLOY / "make_secrets.sh", "-o", secrets, "gw-b:63"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"citybrain cloud claim" in done.stderr


def test_compose_names_only_what_is_there() -> None:
    for name, service in SERVICES.items():
        assert "image" in service, name
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        for secret in service.get("secrets", []):
            assert (secret["source"] if isinstance(secret, dict) else secret) in COMPOSE["secrets"], name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), f"{name}: {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {source}"
        assert ("networks" in service) is (name != "guard"), "an engine refuses both networks and network_mode"
        for network in service.get("networks", []):
            assert network in COMPOSE["networks"], name
        for other, wait in service.get("depends_on", {}).items():
            needs_health = wait["condition"] == "service_healthy"
            assert (other in JOBS) is (wait["condition"] == "service_completed_successfully"), f"{name}: {other}"
            assert not needs_health or "healthcheck" in SERVICES[other]


def test_every_lasting_service_has_a_health_check_and_comes_back() -> None:
    for name, service in SERVICES.items():
        if name in JOBS:
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        if name == "agent":  # its image brings one
            assert "HEALTHCHECK" in (ROOT / "edge.Dockerfile").read_text()
        else:
            assert "test" in service["healthcheck"], name


def test_own_containers_are_closed_boxes() -> None:
    for name in sorted(SERVICES.keys() - {"db"}):
        service = SERVICES[name]
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
    assert COMPOSE["networks"]["core"]["internal"] is True
    assert "field" not in SERVICES["db"]["networks"]
    assert "core" not in SERVICES["agent"]["networks"]
    assert SERVICES["console"]["ports"] == ["127.0.0.1:8600:8600"], "no TLS of its own: this machine only"


def test_mounted_configuration_is_read_by_its_reader() -> None:
    agent = edge_config.load(DEPLOY / "agent.toml")
    prepare = SERVICES["prepare"]["command"]
    assert prepare[prepare.index("--shard") - 1] == agent.gateway.id
    assert prepare[prepare.index("--shard") + 1] == str(agent.gateway.shard)
    loaded, guard = worker_config.load(DEPLOY / "worker.toml"), broker_config.load(DEPLOY / "broker.toml")
    core = core_config.load(DEPLOY / "core.toml")
    assert core.identity is not None and agent.identity is not None
    assert loaded.broker.url == agent.mqtt.url == core.identity.broker_url == "mqtts://broker:8883"
    assert "broker" in guard.hosts and agent.identity.core == core.identity.public_url
    assert loaded.scenario == agent.scenario, "both ends run the same scenarios"
    assert core.dsn == loaded.dsn == guard.dsn == SERVICES["migrate"]["command"][-1]
    assert core.identity.ca_dir == guard.ca_dir
    for path in (loaded.broker.password_file, loaded.broker.ca_file, loaded.broker.cert_file):
        assert Path(path).parent == Path(guard.out), path
    assert SERVICES["broker"]["command"][-1] == f"{guard.out}/nats.conf"
    assert agent.mqtt.cert_file == f"{agent.identity.folder}/identity.pem"


def test_nobody_but_guard_and_console_holds_the_authority() -> None:
    """And the code of the first gateway is for that gateway alone."""
    holders = {
        volume: {n for n, s in SERVICES.items() if any(v.startswith(f"{volume}:") for v in s.get("volumes", []))}
        for volume in ("ca", "label", "core")
    }
    assert holders == {
        "ca": {"prepare", "rules", "guard", "console"}, "label": {"prepare", "agent"}, "core": {"prepare", "console"},
    }  # fmt: skip
    assert SERVICES["guard"]["network_mode"] == "service:broker"
    recipe = (ROOT / "cloud.Dockerfile").read_text()
    account = re.search(r"--uid (\d+)", recipe)
    assert account is not None and SERVICES["broker"]["user"] == account[1], "it reads what the guard writes"
    for folder in ("citybrain-ca", "citybrain-broker", "citybrain-label"):
        assert recipe.count(folder) == 2, f"{folder}: made, and given to the account, before a volume takes it over"


def test_worker_health_looks_at_the_workers_own_locks() -> None:
    assert f"classid = {SHARD_SPACE} and objid < {SHARDS}" in SERVICES["worker"]["healthcheck"]["test"][-1]


def test_mount_targets_are_what_the_commands_read() -> None:
    for name, file in (("worker", "worker.toml"), ("console", "core.toml")):
        assert SERVICES[name]["command"][-1] == f"/etc/citybrain/{file}"
        assert f"./deploy/{file}:/etc/citybrain/{file}:ro" in SERVICES[name]["volumes"]
    assert "./deploy/agent.toml:/etc/citybrain/agent.toml:ro" in SERVICES["agent"]["volumes"]
    assert '"/etc/citybrain/agent.toml"]' in (ROOT / "edge.Dockerfile").read_text().splitlines()[-1]


@pytest.mark.parametrize("path", ["deploy/agent.toml", "deploy/gateway/agent.toml"])
def test_sample_configuration_passes_the_installers_check(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edge", "check", str(ROOT / path)]) == 0
    assert "good" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["edge.Dockerfile", "cloud.Dockerfile"])
def test_image_recipe(name: str) -> None:
    text = re.sub(r"\\\n", " ", (ROOT / name).read_text(encoding="utf-8"))
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    last_stage = max(i for i, line in enumerate(lines) if line[0] == "FROM")
    users = [rest for word, rest in lines[last_stage:] if word == "USER"]
    assert users == ["citybrain"], "it must not run as root"
    sent = _sent_to_a_build()
    for word, rest in lines:
        assert word in {"ARG", "FROM", "ENV", "RUN", "COPY", "WORKDIR", "LABEL", "USER", "VOLUME", "STOPSIGNAL",
                        "HEALTHCHECK", "ENTRYPOINT", "CMD"}  # fmt: skip
        if word in {"CMD", "ENTRYPOINT"}:
            assert rest.startswith("["), "a shell in between would swallow SIGTERM"
        if word == "RUN" and "install" in rest:
            assert "--require-hashes" in rest or "--no-deps ." in rest
        if word == "COPY" and "--from" not in rest and rest != ". .":
            source = rest.split()[0].replace("${EXTRA}", "vision")
            assert (ROOT / source).is_file()
            assert source in sent
    for needed in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "deploy/trim.sh", "edge/agent.py"):
        assert needed in sent
    assert not [path for path in sent if path.startswith(("var/", ".venv/", "deploy/secrets", ".git/"))]


def _sent_to_a_build() -> set[str]:
    """Files that .dockerignore lets through (its patterns here: ``*``, ``!path``, ``!path/*.ext``, ``**/name``)."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    sent: set[str] = set()
    for line in lines[1:]:
        if not line.startswith("!"):
            continue
        for found in ROOT.glob(line[1:]):
            files = found.rglob("*") if found.is_dir() else [found]
            sent |= {file.relative_to(ROOT).as_posix() for file in files if file.is_file()}
    return {path for path in sent if not path.endswith(".pyc")}


def test_unit_starts_the_agent_in_a_sandbox() -> None:
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "gateway" / "citybrain-agent.service")
    service = unit["Service"]
    assert service["User"] == "citybrain"
    config = edge_config.load(DEPLOY / "gateway" / "agent.toml")
    state = f"/var/lib/{service['StateDirectory']}"
    assert config.gateway.state_dir == state, "what it renews and stores lies where it may write"
    assert service["ExecStart"].split()[1:] == [f"{state}/slots/launcher.pyz", f"{state}/slots", AGENT_TOML]
    assert unit["Unit"]["AssertPathExists"] == f"{state}/slots/launcher.pyz"
    assert config.mqtt.cert_file == f"{state}/identity/identity.pem", "where enrolment puts it"
    drop_in = (DEPLOY / "gateway" / "password.conf").read_text()
    assert "LoadCredential=mqtt:" in drop_in and "/run/credentials/citybrain-agent.service/mqtt" in drop_in
    wanted = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "DevicePolicy": "closed",
              "CapabilityBoundingSet": "", "PrivateTmp": "yes"}  # fmt: skip
    assert {key: service[key] for key in wanted} == wanted


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_unit_in_systemds_own_eyes(tmp_path: Path) -> None:
    """Known keys only, and an exposure of 3.0 at most (0 closed, 10 open)."""
    unit = tmp_path / "citybrain-agent.service"
    text = (DEPLOY / "gateway" / "citybrain-agent.service").read_text()
    unit.write_text(text)
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert unit.name not in checked.stderr, checked.stderr
    secured = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert secured.returncode == 0, secured.stdout[-400:] + secured.stderr
