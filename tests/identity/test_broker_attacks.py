"""The attack table, on a real NATS and a real Mosquitto with the rules the guard writes.

For each attempt: refused or heard by nobody, the broker lives, and a neighbour works on as if nothing had been.
"""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.identity import ca as authority
from cloud.identity import revocation
from cloud.identity.ca import LocalCa, write_private
from edge.identity.files import new_request
from protocols.uplink import topics
from protocols.uplink.batch import MAX_BATCH_BYTES
from tests.fixtures.postgres import Postgres, new_database
from tests.fixtures.wait import until
from tests.identity.city import MOSQUITTO, Guarded, Link, Web, files_of, utc_now

SHARD = 5


class City:
    """A broker, its guard, three enrolled gateways; ``core`` listens to the whole shard and answers."""

    def __init__(self, web: Web, broker: Guarded, root: Path) -> None:
        self.web, self.broker, self.root = web, broker, root
        for name in ("gw-mine", "gw-theirs", "gw-gone"):
            if not (root / name).exists():
                web.enrol(name, root / name, SHARD)
        until(lambda: set(self.names) <= set(broker.guard.access.gateways), "the guard knows the gateways")
        until(lambda: not broker.guard.access.kick, "nothing is left to be done")

    names = ("gw-mine", "gw-theirs")

    def link(self, name: str, *, client_id: str = "", certificate: Path | None = None, **more: object) -> Link:
        files = files_of(self.root / name)
        return Link(self.broker.port, client_id or name, files.ca, certificate or files.identity, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def web(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with Web(new_database(postgres), tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture(
    scope="module",
    params=[
        "nats",
        pytest.param("mosquitto", marks=pytest.mark.skipif(not MOSQUITTO.exists(), reason="no Debian mosquitto here")),
    ],
)
def city(request: pytest.FixtureRequest, web: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    root = tmp_path_factory.mktemp(request.param)
    with Guarded(request.param, web.dsn, web.root / "ca", root / "broker") as broker:
        yield City(web, broker, root)


@pytest.fixture
def core(city: City) -> Iterator[Link]:
    with city.broker.core() as core:
        assert core.subscribe(topics.up_filter(SHARD)) == [1]
        yield core


def neighbour_works(city: City, core: Link, mark: bytes) -> None:
    """Up and down, through the same broker."""
    with city.link("gw-theirs") as theirs:
        assert theirs.subscribe(topics.down(SHARD, "gw-theirs", "+")) == [1]
        theirs.publish(topics.up(SHARD, "gw-theirs", "data"), mark)
        until(lambda: (topics.up(SHARD, "gw-theirs", "data"), mark) in core.heard, "the core hears the neighbour")
        core.publish(topics.down(SHARD, "gw-theirs", "ack"), mark)
        until(lambda: (topics.down(SHARD, "gw-theirs", "ack"), mark) in theirs.heard, "the neighbour hears the core")


def honest_arrives(city: City, core: Link) -> bool:
    """Whether the honest message has come; said again by a new connection: new rules may end one that is open."""
    with city.link("gw-mine") as again:
        again.publish(topics.up(SHARD, "gw-mine", "data"), b"honest")
        until(lambda: b"honest" in [payload for _, payload in core.heard] or again.lost.is_set(), "an answer")
    return any(payload == b"honest" for _, payload in core.heard)


@pytest.mark.parametrize(
    "topic",
    [
        topics.up(SHARD, "gw-theirs", "data"),
        topics.down(SHARD, "gw-theirs", "ack"),
        topics.down(SHARD, "gw-theirs", "command"),
        topics.down(SHARD, "gw-mine", "ack"),
        topics.up(SHARD + 1, "gw-mine", "data"),
        "cb/v1/5/gw-mine/up/data/deeper",
        "$SYS/REQ/USER/AUTH",
        "$JS/API/STREAM/DELETE/$MQTT_msgs",
        "$SYS/broker/clients/total",
    ],
)
@pytest.mark.parametrize("retain", [False, True], ids=["plain", "retained"])
def test_publishing_elsewhere_reaches_nobody(city: City, core: Link, topic: str, retain: bool) -> None:
    with city.link("gw-theirs") as theirs:
        theirs.subscribe(topics.down(SHARD, "gw-theirs", "+"))
        mine = city.link("gw-mine").connect()
        mine.publish(topic, b"forged", retain=retain)
        # The broker drops the message or the connection; either way the next honest one is what arrives.
        mine.close()
        until(lambda: honest_arrives(city, core), "the honest one arrives")
        assert not any(payload == b"forged" for _, payload in core.heard + theirs.heard)
    if retain:
        with city.broker.core("cb-core-60") as later:  # nothing was kept for whoever subscribes later
            later.subscribe(topics.up_filter(SHARD), topics.up_filter(SHARD + 1))
            later.publish(topics.up(SHARD, "gw-probe", "data"), b"probe")
            until(lambda: any(payload == b"probe" for _, payload in later.heard), "the probe comes back")
            assert not any(payload == b"forged" for _, payload in later.heard)


def test_subscribing_elsewhere_hears_nothing(city: City, core: Link) -> None:
    wanted = [
        "#", "+/#", "cb/#", "cb/v1/+/+/up/+", "cb/v1/5/+/down/+", "cb/v1/5/gw-theirs/down/+",
        "cb/v1/5/gw-theirs/down/ack", "$share/g/cb/v1/5/gw-theirs/down/+", "$share/g/#", "$queue/cb/#", "$SYS/#",
        "$MQTT/#", "$MQTT/sub/#", "$JS/#",
    ]  # fmt: skip
    heard: list[tuple[str, bytes]] = []
    for filter_ in wanted:  # one connection each: a broker may end it for the attempt
        nosy = city.link("gw-mine").connect()
        nosy.heard = heard
        nosy.client.on_message = lambda _c, _u, m: heard.append((m.topic, bytes(m.payload)))
        nosy.subscribe(filter_)
        neighbour_works(city, core, filter_.encode())
        nosy.close()
    assert heard == []


def test_a_will_on_anothers_topic_is_not_published(city: City, core: Link) -> None:
    for topic in (topics.up(SHARD, "gw-theirs", "state"), topics.down(SHARD, "gw-theirs", "command")):
        with city.link("gw-theirs") as theirs:
            theirs.subscribe(topics.down(SHARD, "gw-theirs", "+"))
            mine = city.link("gw-mine", will=(topic, b"forged"))
            if mine.tried():
                mine.cut()
            with city.link("gw-mine") as again:
                again.publish(topics.up(SHARD, "gw-mine", "data"), b"after the will")
                until(lambda: any(payload == b"after the will" for _, payload in core.heard), "life goes on")
            assert not any(payload == b"forged" for _, payload in core.heard + theirs.heard)


def test_its_own_will_is_published(city: City, core: Link) -> None:
    mine = city.link("gw-mine", will=(topics.up(SHARD, "gw-mine", "state"), b"gone")).connect()
    mine.cut()
    until(lambda: (topics.up(SHARD, "gw-mine", "state"), b"gone") in core.heard, "the core hears the will")


def test_another_gateways_client_id_takes_nothing_over(city: City, core: Link) -> None:
    """Neither its session nor the core's: refused, or given one's own name as client id whatever was asked."""
    with city.link("gw-theirs") as theirs:
        theirs.subscribe(topics.down(SHARD, "gw-theirs", "+"))
        for client_id in ("gw-theirs", "cb-core-5", "cb-auth", "core"):
            thief = city.link("gw-mine", client_id=client_id)
            thief.tried()
            core.publish(topics.down(SHARD, "gw-theirs", "ack"), client_id.encode())
            until(lambda: any(p == client_id.encode() for _, p in theirs.heard), "still theirs")  # noqa: B023
            assert thief.heard == []
            thief.close()
        assert not theirs.lost.is_set()
    assert not core.lost.is_set()


def test_an_oversized_payload_ends_the_sender_alone(city: City, core: Link) -> None:
    mine = city.link("gw-mine").connect()
    mine.publish(topics.up(SHARD, "gw-mine", "data"), bytes(4 * MAX_BATCH_BYTES))
    until(mine.lost.is_set, "the broker ends the connection")
    mine.close()
    neighbour_works(city, core, b"after the flood")
    assert not any(len(payload) > 2 * MAX_BATCH_BYTES for _, payload in core.heard)


def _certificate(ca: LocalCa, path: Path, name: str, now: dt.datetime, days: float) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    issued = ca.issue_gateway(name, key.public_key(), now, days)
    write_private(path, authority._key_pem(key, None) + issued.pem.encode())
    return path


def test_certificates_that_open_nothing(city: City, core: Link, tmp_path: Path) -> None:
    ours = city.web.ca
    other = LocalCa.create(tmp_path / "other", "Other city", utc_now())
    ago = utc_now() - dt.timedelta(days=30)
    attempts = {
        "another authority": _certificate(other, tmp_path / "a.pem", "gw-mine", utc_now(), 7),
        "expired": _certificate(ours, tmp_path / "b.pem", "gw-mine", ago, 7),
        "a server's": None,
        "a stranger's name": _certificate(ours, tmp_path / "c.pem", "gw-never-enrolled", utc_now(), 7),
    }
    key, issued = ours.issue_server(["gw-mine"], utc_now())
    write_private(tmp_path / "d.pem", key + issued.pem.encode())
    attempts["a server's"] = tmp_path / "d.pem"
    for what, certificate in attempts.items():
        link = city.link("gw-mine", client_id="gw-never-enrolled" if "name" in what else "", certificate=certificate)
        if link.tried():  # Mosquitto lets a name of our authority in that has no rights at all
            link.publish(topics.up(SHARD, "gw-mine", "data"), b"forged")
            link.publish(topics.up(SHARD, "gw-never-enrolled", "data"), b"forged")
            assert city.broker.kind == "mosquitto" and "name" in what, what
        link.close()
    neighbour_works(city, core, b"after the certificates")
    assert not any(payload == b"forged" for _, payload in core.heard)


def test_no_certificate_no_tls_no_way(city: City, core: Link) -> None:
    bare = Link(city.broker.port, "gw-mine", city.broker.out / "root.pem", None)
    assert not bare.tried()
    bare.close()
    core_password = Link(
        city.broker.port, "x", city.broker.out / "root.pem", None, ("core", (core.login or ("", ""))[1])
    )
    assert not core_password.tried()
    core_password.close()
    with socket.create_connection(("127.0.0.1", city.broker.port), timeout=5) as plain:
        plain.sendall(b"\x10\x13\x00\x04MQTT\x04\x02\x00\x0a\x00\x07gw-mine")  # CONNECT without TLS
        plain.settimeout(10)
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
        assert answer[:1] != b"\x20"
    neighbour_works(city, core, b"after the bare ones")


def test_garbage_before_and_inside_tls(city: City, core: Link) -> None:
    for junk in (b"\x16\x03\x01\xff\xff" + bytes(200), b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 16):
        with socket.create_connection(("127.0.0.1", city.broker.port), timeout=5) as plain:
            plain.sendall(junk)
    mine = city.link("gw-mine").connect()
    sock = mine.client.socket()
    assert sock is not None
    sock.sendall(b"\xff" * 64)
    until(mine.lost.is_set, "the broker ends the connection")
    mine.close()
    neighbour_works(city, core, b"after the garbage")


def test_revoked_while_connected(city: City, core: Link) -> None:
    """The live session ends within seconds (a minute is allowed), and the stolen files open nothing afterwards."""
    name = f"gw-revoked-{city.broker.kind}"
    city.web.enrol(name, city.root / name, SHARD)
    until(lambda: name in city.broker.guard.access.gateways, "the guard knows it")
    link = city.link(name).connect()

    def heard(sender: Link, mark: bytes) -> bool:
        """Said again until the broker has read the rules that allow it."""
        sender.publish(topics.up(SHARD, name, "data"), mark)
        return any(payload == mark for _, payload in core.heard)

    until(lambda: heard(link, b"before"), "it may speak")
    with city.web.db() as conn:
        assert revocation.revoke(conn, name, "tester", "stolen", utc_now()) == 1
    until(link.lost.is_set, "its live session is ended", timeout_s=60)
    link.close()
    until(lambda: not city.broker.guard.access.kick, "the guard is done", timeout_s=30)
    thief = city.link(name)
    assert not thief.tried()
    thief.close()
    neighbour_works(city, core, b"after the revocation")
    # A new claim, a new key: the gateway is back, the stolen files are still worth nothing.
    stolen = city.root / "stolen.pem"
    stolen.write_bytes(files_of(city.root / name).identity.read_bytes())
    city.web.enrol(name, city.root / name, SHARD)
    until(lambda: name in city.broker.guard.access.gateways, "it may come again")
    until(lambda: not city.broker.guard.access.kick, "the guard is done", timeout_s=30)
    with city.link(name) as back:
        until(lambda: heard(back, b"back"), "it is back")
        old = city.link(name, certificate=stolen)
        assert not old.tried()
        old.close()
        assert not back.lost.is_set()


def test_files_of_the_broker_are_private(city: City) -> None:
    loose = [p.name for p in city.broker.out.iterdir() if p.is_file() and p.name != "pid" and p.stat().st_mode & 0o077]
    assert loose == []


def test_nats_own_protocol_is_closed_to_gateways(city: City) -> None:
    if city.broker.kind != "nats":
        pytest.skip("NATS alone has a protocol of its own")
    for login in ('{"user":"core","pass":"x"}', '{"user":"gw-mine","pass":""}', "{}"):
        with socket.create_connection(("127.0.0.1", city.broker.nats_port), timeout=5) as link:
            link.sendall(f"CONNECT {login}\r\nSUB > 1\r\nPING\r\n".encode())
            said = b""
            while b"PONG" not in said and (part := link.recv(65_536)):
                said += part
        assert b"Authorization Violation" in said
        assert b"PONG" not in said


def test_a_request_is_no_certificate(city: City, tmp_path: Path) -> None:
    """Files half made open nothing: a key with a request in the certificate's place."""
    request = new_request("gw-mine")
    half = tmp_path / "half.pem"
    half.write_bytes(request.key_pem + request.csr_pem.encode())
    with pytest.raises(Exception, match=r"(?i)pem|ssl"):
        city.link("gw-mine", certificate=half)
