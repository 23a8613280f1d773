"""Sparkplug both ways and ChirpStack over a real broker: wills, retained states, sessions, acknowledgements."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from citybrain_cli.up.broker import binary
from edge.agent import assemble, run_parts
from edge.clock import WallClock
from edge.config import load
from edge.connectors.chirpstack import Chirpstack
from edge.connectors.industry_config import ChirpstackConfig, ChirpstackDevice, SparkplugDevice, SparkplugHostConfig
from edge.connectors.mqtt_link import dial
from edge.connectors.sparkplug_host import SparkplugHost
from firmware_sim.clock import WallClock as SimClock
from firmware_sim.devices.sparkplug_node import nodes_of
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.links.mqtt import Published, mqtt_dial
from firmware_sim.scene import parse_scene
from protocols.core.errors import LinkDown, LinkRefused, TransportError
from protocols.sparkplug_b.datatypes import DataType
from protocols.sparkplug_b.host import Born, Died, HostApplication, Said
from protocols.sparkplug_b.messages import Metric
from protocols.sparkplug_b.node import EdgeNode
from tests.edge_connectors.test_sparkplug_host import SCENE, TYPE
from tests.fixtures.process import Server
from tests.fixtures.wait import until
from tests.support.virtual import RecordingSink, running


class OpenBroker:
    """nats-server with its MQTT listener and one user, as somebody else's broker would be."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        with socket.socket() as probe, socket.socket() as other:
            probe.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, port = probe.getsockname()[1], other.getsockname()[1]
        config = folder / "broker.conf"
        config.write_text(
            f'server_name: other\nlisten: "127.0.0.1:{port}"\n'
            f'jetstream {{ store_dir: "{folder}/store" }}\n'
            f'mqtt {{ listen: "127.0.0.1:{self.port}", ack_wait: "2s" }}\n'
            "authorization { users = [ { user: city, password: right } ] }\n"
        )
        (folder / "password").write_text("right\n")
        (folder / "wrong").write_text("wrong\n")
        self.folder = folder
        self._server = Server([binary(), "-c", str(config)], folder / "broker.log")

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server.spawn()
        until(self._listens, "the broker listens")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self._server.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[OpenBroker]:
    found = OpenBroker(tmp_path / "broker")
    found.start()
    yield found
    found.kill()


async def soon(found: Callable[[], object], what: str, timeout_s: float = 20) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not found():  # noqa: ASYNC110 - what others do over sockets has no event of ours
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


@contextlib.asynccontextmanager
async def plant(broker: OpenBroker, scene: str = SCENE) -> AsyncIterator[MemoryLedger]:
    """Simulated edge nodes on the broker."""
    clock, ledger = SimClock(), MemoryLedger()
    parsed = parse_scene(scene, "test.toml")
    world = World(clock, clock.now_ms(), ledger)
    tasks = [
        asyncio.create_task(node.run(_dial_with_password(broker))) for node in nodes_of(parsed.bus[0], parsed, world)
    ]
    try:
        yield ledger
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _dial_with_password(broker: OpenBroker):  # type: ignore[no-untyped-def]
    return mqtt_dial(f"127.0.0.1:{broker.port}", "test", username="city", password="right")


def host(broker: OpenBroker, file: str = "password") -> SparkplugHost:
    device = SparkplugDevice(id="pump-1", type=TYPE, node="city/gw1", device="m1")
    config = SparkplugHostConfig(
        id="plant", url=broker.url, device=(device,), username="city", password_file=file, keepalive_s=2
    )
    return SparkplugHost(config, WallClock(), dial(config, broker.folder))


def test_births_data_and_the_will_of_a_node_without_power(broker: OpenBroker) -> None:
    async def main() -> None:
        sink = RecordingSink()
        async with running([host(broker)], sink):
            node, now_ms = EdgeNode("city", "gw1"), SimClock().now_ms()
            node.define("m1", [Metric("Inputs/Level", 2.5, DataType.DOUBLE)], now_ms)
            will = node.connecting(now_ms)
            last = Published(will.topic, will.payload, will.qos)
            pipe = await _dial_with_password(broker)("gw1", node.subscriptions(), last)
            node.connected(now_ms)

            def flush() -> None:
                for out in node.take_output():
                    pipe.publish(Published(out.topic, out.payload, out.qos, out.retain))

            async def listen() -> None:
                while True:
                    message = await pipe.receive()
                    node.receive(message.topic, message.payload, SimClock().now_ms())
                    node.tick(SimClock().now_ms() + 1000)  # a demand for births is met at once
                    flush()

            listener = asyncio.create_task(listen())
            flush()
            await soon(lambda: sink.values("pump-1", "level"), "the birth")
            node.update("m1", [Metric("Inputs/Level", 2.75)], SimClock().now_ms())
            flush()
            await soon(lambda: sink.values("pump-1", "level")[-1] == 2.75, "data")
            assert sink.states == [("pump-1", True)]
            listener.cancel()
            await pipe.break_()
            await soon(lambda: sink.states[-1] == ("pump-1", False), "the will")

    asyncio.run(main())


def test_a_command_over_the_wire(broker: OpenBroker) -> None:
    async def main() -> None:
        sink, connector = RecordingSink(), host(broker)
        async with plant(broker) as ledger, running([connector], sink):
            await soon(lambda: sink.values("pump-1", "level"), "levels")
            from tests.edge_connectors.test_sparkplug_host import order

            outcome = await connector.command(order("set_level", level=3.25))
            assert (outcome.state, outcome.read_back) == ("done", {"level_setpoint": 3.25})
            assert [e["value"] for e in ledger.entries() if e["k"] == "order"] == ["3.25"]

    asyncio.run(main())


def test_a_killed_broker_is_survived(broker: OpenBroker) -> None:
    async def main() -> None:
        sink = RecordingSink()
        async with plant(broker), running([host(broker)], sink):
            await soon(lambda: sink.values("pump-1", "level"), "levels")
            await asyncio.to_thread(broker.kill)
            await soon(lambda: ("pump-1", False) in sink.states, "the broker is away")
            before = len(sink.values("pump-1", "level"))
            await asyncio.to_thread(broker.start)
            await soon(lambda: len(sink.values("pump-1", "level")) > before + 1, "levels again", 40)
            assert any(sweep.historical for sweep in sink.sweeps)

    asyncio.run(main())


def test_a_wrong_password_is_refused_for_good(broker: OpenBroker) -> None:
    async def main() -> None:
        with pytest.raises(LinkRefused):
            await host(broker, "wrong").run(RecordingSink())
        await asyncio.to_thread(broker.kill)
        with pytest.raises(LinkDown):
            await host(broker).run(RecordingSink())

    asyncio.run(main())


def test_an_unacknowledged_uplink_comes_again_after_a_restart(broker: OpenBroker) -> None:
    eui = "0102030405060702"
    device = ChirpstackDevice(id="temp-1", type="lorawan/temperature_humidity", dev_eui=eui)
    config = ChirpstackConfig(
        id="lora", url=broker.url, device=(device,), username="city", password_file="password", keepalive_s=5
    )

    def connector() -> Chirpstack:
        return Chirpstack(config, WallClock(), dial(config, broker.folder))

    def uplink(n: int) -> Published:
        found = {"deduplicationId": f"id-{n}", "fCnt": n, "fPort": 2, "object": {"temperature": 20.0 + n}}
        return Published(f"application/a/device/{eui}/event/up", json.dumps(found).encode(), 1)

    async def main() -> None:
        server = await _dial_with_password(broker)("server", [], None)
        slow = RecordingSink(durable=False)
        async with running([connector()], slow):
            await asyncio.sleep(0.5)  # subscribed for the first time: the session begins
            server.publish(uplink(1))
            await soon(lambda: slow.values("temp-1", "temperature"), "the first uplink")
        server.publish(uplink(2))  # while nobody listens
        sink = RecordingSink()
        async with running([connector()], sink):
            await soon(lambda: set(sink.values("temp-1", "temperature")) == {21.0, 22.0}, "both, after the restart")
        assert {sweep.exchange for sweep in slow.sweeps} < {sweep.exchange for sweep in sink.sweeps}
        again = RecordingSink()
        async with running([connector()], again):
            await asyncio.sleep(3)  # longer than the broker's ack_wait
            assert again.sweeps == []  # what is on disk does not come again
        await server.close()

    asyncio.run(main())


AGENT = """
[gateway]
id = "gw-1"
shard = 3
status_listen = ""
[mqtt]
url = "mqtt://127.0.0.1:1"
[[connector]]
kind = "sparkplug-host"
id = "plant"
url = "URL"
username = "city"
password_file = "password"
[[connector.device]]
id = "pump-1"
type = "industry/sparkplug_pump_station"
node = "city/gw1"
device = "m1"
allow = ["set_level"]
[northbound.sparkplug]
url = "URL"
group = "hefei"
username = "city"
password_file = "password"
commands = true
"""


def test_an_agent_takes_in_other_nodes_and_is_one_itself(broker: OpenBroker) -> None:
    """Simulated plant -> our host connector -> pipeline -> our edge node -> somebody's host; and an order back."""
    file = broker.folder / "agent.toml"
    file.write_text(AGENT.replace("URL", broker.url))

    async def main() -> None:
        parts = assemble(load(file), broker.folder, WallClock(), lane=lambda: "data", committed=lambda: None)
        scada = HostApplication("scada", group="hefei")
        events: list[object] = []
        link = await _dial_with_password(broker)("scada", scada.subscriptions(), None)

        async def listen() -> None:
            with contextlib.suppress(TransportError):
                while True:
                    message = await link.receive()
                    events.extend(scada.receive(message.topic, message.payload, SimClock().now_ms()))
                    for out in scada.take_output():
                        link.publish(Published(out.topic, out.payload, out.qos, out.retain))

        def said(name: str) -> list[object]:
            return [m.value for e in events if isinstance(e, Said) for m in e.metrics if m.name == name]

        listener = asyncio.create_task(listen())
        agent = asyncio.create_task(run_parts(parts))
        async with plant(broker) as ledger:
            await soon(lambda: said("level"), "levels at the SCADA")
            births = {str(event.source) for event in events if isinstance(event, Born)}
            assert births == {"hefei/gw-1", "hefei/gw-1/pump-1"}
            source = next(e.source for e in events if isinstance(e, Born) and e.source.device == "pump-1")
            order = scada.write(source, "Command/set_level", 3.5, SimClock().now_ms())
            link.publish(Published(order.topic, order.payload))
            await soon(lambda: "done" in said("Command/set_level/Result"), "the order's result")
            assert [e["value"] for e in ledger.entries() if e["k"] == "order"] == ["3.5"]
            refused = scada.write(source, "Command/pump_stop", True, SimClock().now_ms())
            link.publish(Published(refused.topic, refused.payload))
            await soon(lambda: said("Command/pump_stop/Result"), "the refusal")
            assert "not_allowed" in str(said("Command/pump_stop/Result")[-1])
        await soon(lambda: any(isinstance(e, Died) for e in events), "the plant's death reaches the SCADA")
        health, _ = parts.telemetry.health()
        assert health["northbound_published"] > 0 and health["northbound_dropped"] == 0
        assert health["northbound_orders"] == 2
        agent.cancel()
        await asyncio.gather(agent, return_exceptions=True)
        parts.outbox.close()
        listener.cancel()
        await link.close()

    asyncio.run(main())
