"""The whole way: an operator's order and wish, by worker, broker and a real agent process, to a device and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cloud.commands import service as commands
from cloud.twin import service as twin
from tests.cloud_ingest.site import Core, enrol, query
from tests.fixtures.broker import Broker, StartBroker, _free_ports
from tests.fixtures.process import Server
from tests.fixtures.wait import until

SCENE = """
id = "box"
[[bus]]
id = "line"
kind = "modbus-tcp"
listen = "127.0.0.1:{port}"
[[device]]
id = "box-1"
type = "io/relay_box_8"
bus = "line"
address = 1
"""
AGENT = """
[gateway]
id = "gw-1"
shard = 3
status_listen = ""
[mqtt]
url = "{broker}"
username = "gw-1"
password_file = "{password}"
keepalive_s = 2
ack_timeout_s = 2.0
[outbox]
flush_s = 0.1
[[connector]]
id = "box"
kind = "modbus-tcp"
address = "127.0.0.1:{port}"
[[connector.device]]
id = "box-1"
type = "io/relay_box_8"
unit = 1
poll_s = 1
allow = ["set_relay_1"]
"""


class Site:
    """A broker, a simulated relay box, and an agent that can be killed."""

    def __init__(self, folder: Path, broker: Broker, dsn: str) -> None:
        (self.port,) = _free_ports(1)
        self.dsn = dsn
        scene, self.config = folder / "box.toml", folder / "gateway.toml"
        scene.write_text(SCENE.format(port=self.port))
        self.config.write_text(AGENT.format(port=self.port, broker=broker.url, password=broker.password_file("gw-1")))
        command = [sys.executable, "-m", "citybrain_cli.main"]
        self.box = Server([*command, "sim", "run", str(scene)], folder / "sim.log")
        self.agent = Server([*command, "edge", "run", str(self.config)], folder / "agent.log")

    def online(self) -> bool:
        return query(self.dsn, "select online from gateway") == [(True,)]

    def order(self, *, on: bool, life_s: int = 60, **more: Any) -> str:
        with psycopg.connect(self.dsn) as conn:
            row = commands.request(
                conn, "box-1", "set_relay_1", {"on": on}, "li", now_ms=_now_ms(conn), life_s=life_s, **more
            )
            return commands.approve(conn, row.command_id, "wang", now_ms=_now_ms(conn)).command_id

    def state(self, command_id: str) -> str:
        return str(query(self.dsn, "select state from command where command_id = %s", command_id)[0][0])

    def wait(self, command_id: str, state: str) -> None:
        until(lambda: self.state(command_id) == state, f"the order is {state}", timeout_s=30)

    def twin(self) -> tuple[str, int]:
        with psycopg.connect(self.dsn) as conn:
            (found,) = twin.states(conn, "gw-1")
            return found.state, found.version

    def want(self, document: dict[str, Any]) -> int:
        with psycopg.connect(self.dsn) as conn:
            return twin.desire(conn, "gw-1", "config", document, "li")


def _now_ms(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("select (extract(epoch from now()) * 1000)::bigint").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def site(tmp_path: Path, dsn: str, start_broker: StartBroker) -> Iterator[Site]:
    broker = start_broker([("gw-1", 3)])
    enrol(dsn, ("gw-1", 3))
    found = Site(tmp_path, broker, dsn)
    found.box.spawn()
    found.agent.spawn()
    with Core(dsn, broker):
        until(found.online, "the gateway is there", timeout_s=30)
        until(
            lambda: query(dsn, "select 1 from device where online and device_type <> ''"),
            "the box answers",
            timeout_s=30,
        )
        yield found
        found.agent.kill()
        found.box.kill()


def test_an_order_reaches_the_relay_and_its_reading_back_reaches_the_operator(site: Site) -> None:
    first = site.order(on=True)
    site.wait(first, "done")
    assert query(site.dsn, "select read_back from command where command_id = %s", first) == [({"relay_1": 1.0},)]
    until(
        lambda: (
            query(site.dsn, "select value from last_value join series using (series_id) where point = 'relay_1'")
            == [(1.0,)]
        ),
        "the reading shows it too",
    )
    until(
        lambda: query(site.dsn, "select sent_at is not null, received_at is not null from command") == [(True, True)],
        "every step has its time",
    )

    # Offline: it waits, and nobody is told that it was delivered. Back: it is carried out.
    site.agent.kill()
    until(lambda: not site.online(), "the core has noticed", timeout_s=30)
    second, void = site.order(on=False), site.order(on=True, life_s=5)
    until(lambda: site.state(void) == "expired", "what has no time left is void", timeout_s=30)
    assert site.state(second) == "queued"
    assert query(site.dsn, "select tried_at from command where command_id = %s", void) == [(None,)]
    site.agent.spawn()
    site.wait(second, "done")

    # What the gateway does not allow it refuses, whatever the city wants.
    with psycopg.connect(site.dsn) as conn:
        row = commands.request(conn, "box-1", "set_relay_2", {"on": True}, "li", now_ms=_now_ms(conn))
        third = commands.approve(conn, row.command_id, "wang", now_ms=_now_ms(conn)).command_id
    site.wait(third, "refused")
    assert query(site.dsn, "select code from command where command_id = %s", third) == [("not_allowed",)]


def test_a_configuration_is_proven_or_taken_back(site: Site) -> None:
    local = site.config.read_text(encoding="utf-8")
    assert 'allow = ["set_relay_1"]' in local
    box = {
        "id": "box",
        "kind": "modbus-tcp",
        "address": f"127.0.0.1:{site.port}",
        "device": [{"id": "box-1", "type": "io/relay_box_8", "unit": 1, "poll_s": 1, "allow": ["set_relay_2"]}],
    }
    first = site.want({"connector": [box]})
    until(lambda: site.twin() == ("applied", first), "it is in force", timeout_s=40)
    refused = site.order(on=True)
    site.wait(refused, "refused")  # by the new configuration set_relay_1 is not allowed

    # The schema cannot know that no such device type exists; the gateway does, and says so.
    broken = {**box, "device": [{"id": "box-1", "type": "io/no_such", "unit": 1}]}
    second = site.want({"connector": [broken]})
    until(lambda: site.twin() == ("refused", second), "the gateway refuses", timeout_s=40)

    # A change that was wanted while the gateway was away, and a kill in the middle of trying it.
    site.agent.kill()
    until(lambda: not site.online(), "the core has noticed", timeout_s=30)
    third = site.want({})
    site.agent.spawn()
    until(lambda: site.twin()[0] in ("received", "applying"), "it is being tried", timeout_s=40)
    site.agent.kill()
    site.agent.spawn()
    until(lambda: site.twin() == ("applied", third), "it is in force after all", timeout_s=60)
    site.wait(site.order(on=True), "done")
    assert site.config.read_text(encoding="utf-8") == local  # the installer's file is the installer's
    reported = query(site.dsn, "select document from twin_reported")[0][0]
    assert json.loads(json.dumps(reported)) == {}


def test_doctor_is_a_word_for_the_gateway_itself(site: Site) -> None:
    """An agent without that command says so; it never stays silent."""
    with psycopg.connect(site.dsn) as conn:
        row = commands.request(conn, "gw-1", "doctor", {}, "li", now_ms=_now_ms(conn))
    assert row.state == "queued"  # moves nothing on the street: one person is enough
    until(lambda: site.state(row.command_id) in ("done", "refused", "failed"), "it answers", timeout_s=60)
