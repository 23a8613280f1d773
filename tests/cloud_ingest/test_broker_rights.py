"""What the broker lets a gateway do: its own topics and nothing else, by MQTT and by the broker's own protocol."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from protocols.uplink import topics
from tests.cloud_ingest.site import T0_MS, Core, RawGateway, declare, encode, enrol, query
from tests.fixtures.broker import Broker, StartBroker
from tests.fixtures.wait import until

MINE, THEIRS = ("gw-mine", 4), ("gw-theirs", 4)
ELSEWHERE = ("gw-elsewhere", 5)


@pytest.fixture
def broker(dsn: str, start_broker: StartBroker) -> Broker:
    enrol(dsn, MINE, THEIRS, ELSEWHERE)
    return start_broker([MINE, THEIRS, ELSEWHERE])


@pytest.fixture
def core(dsn: str, broker: Broker) -> Iterator[Core]:
    with Core(dsn, broker) as core:
        yield core


def _first(device: str) -> bytes:
    return encode(1, [(0, T0_MS, 1)], declarations=(declare(0, device),))


@pytest.mark.parametrize(
    "topic",
    [
        topics.up(THEIRS[1], THEIRS[0], "data"),
        topics.up(ELSEWHERE[1], ELSEWHERE[0], "data"),
        topics.up(5, MINE[0], "data"),
        topics.down(MINE[1], MINE[0], "ack"),
        topics.down(THEIRS[1], THEIRS[0], "ack"),
        "cb/v1/4/gw-mine/up/data/more",
        "$MQTT/sub/x",
        "$JS/API/STREAM/DELETE/$MQTT_msgs",
        "$SYS/REQ/SERVER/PING",
    ],
)
def test_what_it_publishes_elsewhere_reaches_nobody(dsn: str, broker: Broker, core: Core, topic: str) -> None:
    with RawGateway(broker, *THEIRS) as theirs, RawGateway(broker, *MINE) as mine:
        mine.send("", _first("stolen"), topic=topic)
        # Whether the broker drops the message or the connection: another connection's data go through, this does not.
        theirs.send("data", _first("their-1"))
        theirs.wait_committed("data", 1)
        with RawGateway(broker, *MINE, client_id="gw-mine-again") as again:
            again.send("data", _first("my-1"))
            again.wait_committed("data", 1)
        assert not any(ack.epoch == 0 for ack in theirs.acks)
    assert query(dsn, "select device_id from device order by 1") == [("my-1",), ("their-1",)]
    assert query(dsn, "select count(*) from dead_letter") == [(0,)]
    core.check()


def test_what_others_say_is_not_heard(broker: Broker, core: Core) -> None:
    """Nor through filters that would hold it, nor on the subjects by which the broker itself delivers."""
    heard: list[str] = []
    granted: list[int] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="nosy", protocol=mqtt.MQTTv311)
    client.username_pw_set(MINE[0], broker.password(MINE[0]))
    client.on_message = lambda _c, _u, message: heard.append(message.topic)
    client.on_subscribe = lambda _c, _u, _m, codes, _p: granted.extend(code.value for code in codes)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        wanted = [
            "#",
            "+/#",
            "cb/#",
            "cb/v1/4/+/up/+",
            "cb/v1/4/gw-theirs/down/+",
            "$MQTT/sub/#",
            "$MQTT/#",
            "$SYS/#",
            "$JS/#",
        ]
        client.subscribe([(name, 1) for name in wanted])
        until(lambda: len(granted) == len(wanted), "every subscription is answered")
        with RawGateway(broker, *THEIRS) as theirs:
            theirs.send("data", _first("their-1"))
            theirs.send("state", b"\x08\x01", retain=True)
            theirs.wait_committed("data", 1)
        with RawGateway(broker, *MINE) as mine:
            mine.send("data", _first("my-1"))
            mine.wait_committed("data", 1)
    finally:
        client.disconnect()
        client.loop_stop()
    assert [topic for topic in heard if "gw-mine/down" not in topic] == []


def test_the_brokers_own_protocol_is_closed_to_gateways(broker: Broker) -> None:
    """On that port the delivery subjects of every MQTT client would be open to whoever may use them."""
    with socket.create_connection(("127.0.0.1", broker.nats_port), timeout=5) as link:
        said = b""
        login = {"user": MINE[0], "pass": broker.password(MINE[0]), "verbose": True, "pedantic": False}
        link.sendall(f"CONNECT {json.dumps(login)}\r\nSUB $MQTT.sub.> 1\r\nPING\r\n".encode())
        while b"PONG" not in said and b"-ERR" not in said:
            part = link.recv(65_536)
            if not part:
                break
            said += part
    assert b"PONG" not in said
    assert b"Authorization Violation" in said


def test_a_stranger_and_a_wrong_password_are_refused(broker: Broker) -> None:
    for name, password in ((MINE[0], "wrong"), ("nobody", "x"), (MINE[0], broker.password(THEIRS[0])), ("core", "")):
        codes: list[bool] = []
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="gate", protocol=mqtt.MQTTv311)
        client.username_pw_set(name, password)
        client.on_connect = lambda _c, _u, _f, code, _p, codes=codes: codes.append(code.is_failure)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        try:
            until(lambda codes=codes: codes, "the broker answers")
            assert codes[0]
        finally:
            client.loop_stop()


def test_the_file_with_the_passwords_is_private(broker: Broker) -> None:
    conf = broker.layout.path("broker", "nats.conf")
    assert conf.stat().st_mode & 0o077 == 0
    assert broker.password_file(MINE[0]).stat().st_mode & 0o077 == 0
