"""The broker of compose.yaml, really run: deploy/nats.conf with the secrets of make_secrets.sh, TLS, log-in, rights."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from citybrain_cli.up import broker
from edge.config import MqttConfig
from edge.uplink.session import MqttSession
from protocols.core.errors import LinkDown, LinkRefused
from protocols.uplink import topics
from tests.fixtures.process import Server
from tests.fixtures.wait import until

ROOT = Path(__file__).parents[2]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """(MQTT port, secrets folder). Only paths and ports differ from what the container sees."""
    folder = tmp_path_factory.mktemp("broker")
    secrets = folder / "run" / "secrets"
    subprocess.run([ROOT / "deploy" / "make_secrets.sh", "-o", secrets, "gw-demo-01:5", "gw-b:63"], check=True)
    (secrets / "broker_crt").write_bytes((secrets / "broker.crt").read_bytes())
    (secrets / "broker_key").write_bytes((secrets / "broker.key").read_bytes())
    mqtt, nats, http = _free_port(), _free_port(), _free_port()
    text = (ROOT / "deploy" / "nats.conf").read_text()
    for old, new in (
        ('"/data"', f'"{folder / "data"}"'),
        ('"/run/secrets/', f'"{secrets}/'),
        ("0.0.0.0:8883", f"127.0.0.1:{mqtt}"),
        ("127.0.0.1:4222", f"127.0.0.1:{nats}"),
        ("127.0.0.1:8222", f"127.0.0.1:{http}"),
    ):
        assert old in text
        text = text.replace(old, new)
    config = folder / "etc" / "nats" / "nats.conf"  # the include inside is relative to this place
    config.parent.mkdir(parents=True)
    config.write_text(text)
    server = Server([broker.binary(), "-c", str(config)], folder / "log")
    server.spawn()
    until(lambda: _listens(server, mqtt), "the broker listens")
    yield mqtt, secrets
    server.end()


def _listens(server: Server, port: int) -> bool:
    assert server.running, server.words()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _session(port: int, secrets: Path, user: str, password: str, ca: str = "ca.crt", client: str = "") -> MqttSession:
    config = MqttConfig(url=f"mqtts://127.0.0.1:{port}", username=user, ca_file=str(secrets / ca))
    return MqttSession(config, client or user, password, None)


def test_rights_hold_over_tls(served: tuple[int, Path]) -> None:
    port, secrets = served

    async def talk() -> list[str]:
        core = _session(port, secrets, "core", (secrets / "mqtt_core").read_text(), client="cb-core-5")
        gateway = _session(port, secrets, "gw-demo-01", (secrets / "mqtt_gw-demo-01").read_text())
        await core.open("cb/v1/+/+/up/+")
        await gateway.open(topics.down(5, "gw-demo-01", "+"))
        core.publish(topics.down(5, "gw-demo-01", "hello"), b"")
        async with asyncio.timeout(20):
            heard = [(await gateway.receive()).topic]  # both subscriptions stand from here on
        gateway.publish(topics.up(63, "gw-b", "data"), b"in another's name")
        gateway.publish(topics.up(5, "gw-demo-01", "data"), b"mine")
        async with asyncio.timeout(20):
            heard.append((await core.receive()).topic)
        await gateway.close()
        await core.close()
        return heard

    assert asyncio.run(talk()) == ["cb/v1/5/gw-demo-01/down/hello", "cb/v1/5/gw-demo-01/up/data"]


def test_wrong_password_is_refused(served: tuple[int, Path]) -> None:
    port, secrets = served

    async def knock() -> None:
        session = _session(port, secrets, "gw-b", "guessed")
        try:
            await session.open("x")
        finally:
            await session.close()

    with pytest.raises(LinkRefused):
        asyncio.run(knock())


def test_another_authority_is_not_trusted(served: tuple[int, Path], tmp_path: Path) -> None:
    port, secrets = served
    subprocess.run([ROOT / "deploy" / "make_secrets.sh", "-o", tmp_path / "other", "gw-b:63"], check=True)

    async def knock() -> None:
        session = _session(port, tmp_path / "other", "gw-b", (secrets / "mqtt_gw-b").read_text())
        try:
            await session.open("x")
        finally:
            await session.close()

    with pytest.raises(LinkDown, match=r"(?i)certificate"):
        asyncio.run(knock())
