"""Three nodes with certificates, as `broker-rules` writes them: real nats-servers, a guard beside each, a real worker.

What must hold: a gateway gets in at any node, any guard may answer for any node, a revoked one is out wherever it was,
nobody joins as a node without certificate and password of the city, and a node that dies takes nothing with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import stat
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from citybrain_cli.up.broker import binary
from cloud.identity import revocation
from cloud.identity.broker.config import load
from cloud.identity.broker.guard import Guard
from cloud.identity.ca import LocalCa, write_private
from cloud.ingest.config import BrokerConfig, WorkerConfig
from cloud.ingest.worker import Worker
from edge.clock import WallClock
from edge.config import load as load_gateway
from edge.outbox import Outbox, Pending
from edge.uplink.uplink import Uplink
from protocols.core.errors import ConfigError
from protocols.core.model import SeriesInfo
from tests.cloud_ingest.site import T0_MS, columns
from tests.fixtures.broker import _free_ports
from tests.fixtures.cluster import NODES, current, led
from tests.fixtures.postgres import Postgres, new_database
from tests.fixtures.process import Server
from tests.fixtures.wait import until
from tests.identity.city import Link, Web, files_of, utc_now

SHARD = 9


def broker_toml(dsn: str, ca: Path, nodes: dict[str, int], node: str, mqtt: int, nats: int, monitor: int) -> str:
    table = "\n".join(f'{name} = "127.0.0.1:{port}"' for name, port in nodes.items())
    return f"""kind = "nats"
dsn = {json.dumps(dsn)}
ca_dir = {json.dumps(str(ca))}
out = "rules"
listen = "127.0.0.1:{mqtt}"
nats_listen = "127.0.0.1:{nats}"
monitor_listen = "127.0.0.1:{monitor}"
max_store = "200MB"
poll_s = 1.0
[cluster]
node = "{node}"
secret_file = "cluster.secret"
[cluster.nodes]
{table}
"""


class Node:
    """A folder as on a machine of its own: broker.toml, the shared secret, what the guard writes, a nats-server."""

    def __init__(self, folder: Path, text: str, secret: str, mqtt: int, monitor: int) -> None:
        self.folder, self.mqtt, self.monitor = folder, mqtt, f"http://127.0.0.1:{monitor}"
        folder.mkdir()
        (folder / "broker.toml").write_text(text)
        write_private(folder / "cluster.secret", secret.encode())
        self.out = folder / "rules"
        self.guard = self._guard()
        self.guard.write_now()
        self.server = Server([binary(), "-c", str(self.out / "nats.conf")], folder / "broker.log")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _guard(self) -> Guard:
        return Guard(load(self.folder / "broker.toml"))

    def start_guard(self) -> None:
        self.guard, self._stop = self._guard(), threading.Event()
        self._thread = threading.Thread(target=self.guard.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def stop_guard(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(15)

    def admitted(self) -> int:
        assert self.guard.decider is not None
        return self.guard.decider.counts["admitted"]

    def page(self, name: str) -> Any:
        with urllib.request.urlopen(f"{self.monitor}/{name}", timeout=5) as answer:  # noqa: S310 - our own, of loopback
            return json.load(answer)

    def routes(self) -> set[str]:
        """Names of the nodes it has taken."""
        return {route["remote_name"] for route in self.page("routez")["routes"]}

    def serves(self, gateway: str) -> bool:
        return any(one.get("mqtt_client") == gateway for one in self.page("connz")["connections"])


class Trio:
    """Nodes, worker on all of them, ``enrol`` a gateway that knows all of them."""

    def __init__(self, web: Web, root: Path) -> None:
        self.web, self.root = web, root
        mqtt, nats, routes, self.monitors = (
            ports[0:NODES] for ports in zip(*[iter(_free_ports(4 * NODES))] * NODES, strict=True)
        )
        names = dict(zip(("node-a", "node-b", "node-c"), routes, strict=True))
        secret = secrets.token_hex(32)
        self.route_ports = list(routes)
        self.nodes = [
            Node(
                root / name,
                broker_toml(web.dsn, web.root / "ca", names, name, mqtt[n], nats[n], self.monitors[n]),
                secret, mqtt[n], self.monitors[n],
            )
            for n, name in enumerate(names)
        ]  # fmt: skip
        self.url = ",".join(f"mqtts://localhost:{node.mqtt}" for node in self.nodes)
        out = self.nodes[0].out
        config = BrokerConfig(
            self.url, "core", str(out / "core-password"), str(out / "root.pem"), str(out / "core.pem"), keepalive_s=2
        )
        self.worker = Worker(WorkerConfig(web.dsn, config), Path("/"))
        self._thread = threading.Thread(target=self.worker.run, daemon=True)

    def __enter__(self) -> Trio:
        for node in self.nodes:
            node.server.spawn()
            node.start_guard()
        until(lambda: all(node.guard.callout_ready.is_set() for node in self.nodes), "guards answer", timeout_s=40)
        until(lambda: led(self.monitors), "the nodes have a leader", timeout_s=40)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self._thread.join(15)
        for node in self.nodes:
            node.stop_guard()
            node.server.kill()

    def enrol(self, gateway: str) -> Path:
        folder = self.root / gateway
        self.web.enrol(gateway, folder, SHARD)
        path = folder / "gateway.toml"
        text = path.read_text().replace("mqtts://localhost:8883", self.url)
        path.write_text(text.replace("[mqtt]", "[mqtt]\nkeepalive_s = 2\nack_timeout_s = 2", 1))
        until(lambda: all(gateway in node.guard.access.gateways for node in self.nodes), "the guards know it")
        return folder

    def link(self, folder: Path, node: int) -> Link:
        files = files_of(folder)
        return Link(self.nodes[node].mqtt, folder.name, files.ca, files.identity)


@pytest.fixture(scope="module")
def trio(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    with (
        Web(new_database(postgres), tmp_path_factory.mktemp("web")) as web,
        Trio(web, tmp_path_factory.mktemp("trio")) as trio,
    ):
        yield trio


def test_the_files_of_three_nodes_agree(trio: Trio) -> None:
    shared = ("core-password", "cb-auth-password", "cb-route-password", "root.pem")
    for name in shared:
        assert len({(node.out / name).read_text() for node in trio.nodes}) == 1, name
    keys = {node.guard.decider._key.public for node in trio.nodes if node.guard.decider is not None}
    assert len(keys) == 1
    for node in trio.nodes:
        assert stat.S_IMODE((node.out / "nats.conf").stat().st_mode) == 0o600
        certificate = x509.load_pem_x509_certificate((node.out / "route.pem").read_bytes())
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert len(list(usage)) == 2  # it calls and is called
        assert node.routes() == {"node-a", "node-b", "node-c"} - {node.folder.name}


def test_any_node_takes_a_gateway_and_any_guard_answers(trio: Trio) -> None:
    folder = trio.enrol("gw-any")
    for number in range(NODES):
        with trio.link(folder, number) as link:
            assert link.subscribe(f"cb/v1/{SHARD}/gw-any/down/+") == [1]
    last = trio.nodes[2]
    last.stop_guard()
    before, others = last.admitted(), sum(node.admitted() for node in trio.nodes[:2])
    with trio.link(folder, 2):
        assert last.admitted() == before
        assert sum(node.admitted() for node in trio.nodes[:2]) == others + 1
    last.start_guard()
    other = files_of(trio.enrol("gw-other"))
    assert not Link(last.mqtt, "gw-any", other.ca, other.identity).tried(), "another's client id"


def test_a_revoked_one_is_out_wherever_it_was(trio: Trio) -> None:
    folder = trio.enrol("gw-gone")
    with trio.link(folder, 1) as link:
        with trio.web.db() as conn:
            assert revocation.revoke(conn, "gw-gone", "tester", "stolen", utc_now()) == 1
        until(link.lost.is_set, "its session is ended")
    until(lambda: all("gw-gone" not in node.guard.access.gateways for node in trio.nodes), "all have looked")
    for number in range(NODES):
        assert not trio.link(folder, number).tried()

    def over() -> object:
        with trio.web.db() as conn:
            return conn.execute("select from gateway_access where kicked_at >= kick_wanted_at").fetchone() is not None

    until(over, "it is kept as done")


def strangers(trio: Trio, folder: Path) -> dict[str, tuple[str, str, str]]:
    """What a stranger shows: (its tls block, its log-in in the address, what the node's log says of it)."""
    out = trio.nodes[0].out
    good_login = f"cb-route:{(out / 'cb-route-password').read_text()}@"
    other = LocalCa.create(folder / "ca", "Other city", utc_now())
    key, issued = other.issue_server(["127.0.0.1"], utc_now(), calls=True)
    write_private(folder / "other.key", key)
    write_private(folder / "other.pem", issued.pem.encode())
    mine = files_of(trio.enrol("gw-nosy")).identity

    def tls(cert: Path, key: Path) -> str:
        return f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{out / "root.pem"}", verify: true }}'

    return {
        "no certificate": ("", good_login, "TLS route handshake error"),
        "another authority's": (
            tls(folder / "other.pem", folder / "other.key"),
            good_login,
            "TLS route handshake error",
        ),
        "a gateway's, which has no password": (tls(mine, mine), "cb-route:guessed@", "authentication error"),
    }


def test_a_stranger_cannot_join_as_a_node(trio: Trio, tmp_path: Path) -> None:
    target = trio.nodes[0]
    for number, (what, (tls, login, says)) in enumerate(strangers(trio, tmp_path).items()):
        folder = tmp_path / f"stranger-{number}"
        folder.mkdir()
        nats, route = _free_ports(2)
        config = folder / "nats.conf"
        config.write_text(
            f"server_name: stranger-{number}\nlisten: 127.0.0.1:{nats}\n"
            f"cluster {{ name: citybrain, listen: 127.0.0.1:{route}, {tls}\n"
            f'  routes: ["nats-route://{login}127.0.0.1:{trio.route_ports[0]}"] }}\n'
        )
        before = target.server.log.stat().st_size
        stranger = Server([binary(), "-c", str(config)], folder / "log")
        stranger.spawn()
        try:
            until(lambda: says in _said(target.server.log, before), f"{what}: refused")  # noqa: B023
            assert target.routes() == {"node-b", "node-c"}, what
        finally:
            stranger.kill()


def _said(log: Path, offset: int) -> str:
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(offset)
        return file.read()


def test_a_node_dies_and_nothing_is_lost(trio: Trio, tmp_path: Path) -> None:
    (trio.root / "gw-life").mkdir()
    (trio.root / "gw-life" / "gateway.toml").write_text('[gateway]\nstate_dir = "own"\n')
    folder = trio.enrol("gw-life")
    config = load_gateway(folder / "gateway.toml")
    assert config.mqtt.cert_file == str(folder / "own" / "identity" / "identity.pem"), "where it may write"
    outbox = Outbox(tmp_path / "outbox.db", now_ms=T0_MS)
    series = outbox.alias(SeriesInfo("meter", "x", "u", 1), 0)
    uplink = Uplink(
        config.mqtt, outbox, WallClock(), gateway="gw-life", shard=SHARD, password="", version="test",
        health=lambda: ({}, {}), rejected=lambda *_: None,
    )  # fmt: skip

    def feed(first: int) -> None:
        outbox.commit(
            [Pending("data", columns([(series, T0_MS + n, n) for n in range(first, first + 20)]))], now_ms=T0_MS
        )
        uplink.wake()

    async def acked(what: str) -> None:
        def empty() -> bool:
            return not sum(outbox.depth(0).rows.values())

        await asyncio.to_thread(until, empty, f"acknowledged: {what}", timeout_s=30)

    async def body() -> None:
        serving = asyncio.create_task(uplink.run())
        try:
            feed(0)
            await acked("before")
            await asyncio.to_thread(until, lambda: current(trio.monitors), "all copies are up to date", timeout_s=30)
            victim = next(node for node in trio.nodes if node.serves("gw-life"))
            victim.server.kill()
            feed(20)
            await acked("with a node dead")
            shutil.rmtree(victim.out / "store")  # a new machine in its place: same name, nothing on its disk
            victim.server.spawn()
            await asyncio.to_thread(until, lambda: current(trio.monitors), "it has everything again", timeout_s=30)
            feed(40)
            await acked("with all three again")
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            outbox.close()

    asyncio.run(body())
    with trio.web.db() as conn:
        found: Any = conn.execute(
            "select count(*), count(distinct (series_id, ts)) from reading r join series s using (series_id)"
            " where s.device_id = 'meter'"
        ).fetchone()
    assert found == (60, 60)


# -- what is refused before anything runs -----------------------------------------------------------------------------

GOOD = {"node-a": 6222, "node-b": 6223, "node-c": 6224}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('node = "node-a"', 'node = "node-x"', "none of the nodes"),
        ('node-c = "127.0.0.1:6224"', "", "not 2"),
        ('node-b = "127.0.0.1:6223"\nnode-c = "127.0.0.1:6224"', "", "not 1"),
        ('node-c = "127.0.0.1:6224"', 'node-c = "127.0.0.1:6223"', "node-b and node-c have the same address"),
        ('node-c = "127.0.0.1:6224"', 'node-c = "127.0.0.1"', "not host:port"),
        ('node-c = "127.0.0.1:6224"', 'node-c = "127.0.0.1:0"', "port"),
        ('node-c = "127.0.0.1:6224"', '"Node C" = "127.0.0.1:6224"', "lower-case"),
        ('secret_file = "cluster.secret"', "", "secret_file"),
        ('node = "node-a"', 'node = "node-a"\nunknown = 1', "unknown"),
        ('kind = "nats"', 'kind = "mosquitto"', "for NATS"),
    ],
)
def test_a_cluster_that_makes_no_sense(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "broker.toml"
    text = broker_toml("x", tmp_path / "ca", GOOD, "node-a", 8883, 4222, 8222)
    path.write_text(text)
    assert load(path).cluster is not None
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=says):
        load(path)


def test_the_secret_is_there_long_and_private(tmp_path: Path) -> None:
    LocalCa.create(tmp_path / "ca", "City", utc_now())
    path = tmp_path / "broker.toml"
    path.write_text(broker_toml("x", tmp_path / "ca", GOOD, "node-a", 8883, 4222, 8222))
    secret = tmp_path / "cluster.secret"
    with pytest.raises(ConfigError, match="openssl rand"):
        Guard(load(path))
    write_private(secret, b"short")
    with pytest.raises(ConfigError, match="shorter"):
        Guard(load(path))
    write_private(secret, secrets.token_hex(32).encode())
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        Guard(load(path))
    secret.chmod(0o600)
    Guard(load(path))


def test_a_guard_whose_broker_stays_away_ends_if_it_is_told_to(tmp_path: Path) -> None:
    LocalCa.create(tmp_path / "ca", "City", utc_now())
    path = tmp_path / "broker.toml"
    nowhere = "host=127.0.0.1 port=1 connect_timeout=2"
    path.write_text(
        f'kind = "nats"\ndsn = "{nowhere}"\nca_dir = "ca"\nout = "rules"\nend_when_lost_s = 0.2\n'
        f'nats_listen = "127.0.0.1:{_free_ports(1)[0]}"\n'
    )
    stop = threading.Event()
    Guard(load(path)).run(stop)
    assert stop.is_set()
    assert (tmp_path / "rules" / "nats.conf").exists(), "the broker's files are there without database and broker"


@pytest.mark.parametrize(
    ("address", "listening"),
    [("10.1.0.11:6222", "10.1.0.11:6222"), ("[fd00::1]:6222", "[fd00::1]:6222"), ("a.example:6222", "0.0.0.0:6222")],
)
def test_where_a_node_listens(tmp_path: Path, address: str, listening: str) -> None:
    """A name is not bound: on Debian a machine's own name stands for its loopback."""
    path = tmp_path / "broker.toml"
    text = broker_toml("x", tmp_path / "ca", GOOD, "node-a", 8883, 4222, 8222)
    path.write_text(text.replace("127.0.0.1:6222", address))
    cluster = load(path).cluster
    assert cluster is not None
    assert cluster.listening == listening
    assert cluster.host == address.rpartition(":")[0].strip("[]")
