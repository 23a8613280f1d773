"""The Sparkplug host connector against simulated edge nodes, in virtual time over a broker in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import numpy as np
import pytest

from edge.clock import LoopClock
from edge.connectors.base import Command, Commandable, Outcome
from edge.connectors.industry_config import SparkplugDevice, SparkplugHostConfig
from edge.connectors.sparkplug_host import SparkplugHost
from firmware_sim.clock import LoopClock as SimClock
from firmware_sim.devices.sparkplug_node import nodes_of
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_loop import run_virtual
from firmware_sim.scene import parse_scene
from protocols.core.errors import LinkDown
from protocols.core.model import Quality
from protocols.sparkplug_b import topics
from protocols.sparkplug_b.datatypes import DataType
from protocols.sparkplug_b.host import BD_SEQ
from protocols.sparkplug_b.messages import Metric, Payload, Property, encode
from tests.support.mqtt import MemoryBroker
from tests.support.virtual import MORNING_MS, RecordingSink, running

T = TypeVar("T")
TYPE = "industry/sparkplug_pump_station"

SCENE = """
id = "t"
[[bus]]
id = "plant"
kind = "sparkplug-node"
[[device]]
id = "pump-1"
type = "industry/sparkplug_pump_station"
bus = "plant"
address = "city/gw1/m1"
options = { keep = 100 }
[device.signals]
level = { base = 2.0, noise = 0.05 }
flow = { base = 120.0, noise = 2 }
pump_running = { stuck = 1.0 }
mode = { stuck = 1.0 }
level_setpoint = { stuck = 2.5 }
"""


class Plant:
    """Broker, simulated nodes, connector and what the connector told."""

    def __init__(self, scene: str, devices: tuple[SparkplugDevice, ...]) -> None:
        self.broker = MemoryBroker()
        self.sink = RecordingSink()
        self.ledger = MemoryLedger()
        world = World(SimClock(MORNING_MS), MORNING_MS, self.ledger)
        parsed = parse_scene(scene, "test.toml")
        self.nodes = nodes_of(parsed.bus[0], parsed, world)
        config = SparkplugHostConfig(id="plant", url="mqtt://broker:1883", device=devices)
        self.clock = LoopClock(MORNING_MS)
        self.host = SparkplugHost(config, self.clock, self.broker.dial)
        self._tasks: list[asyncio.Task[None]] = []

    def start_nodes(self) -> None:
        for node in self.nodes:
            self._tasks.append(asyncio.create_task(node.run(self.broker.dial_device)))

    async def stop_nodes(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with running([self.host], self.sink):
            yield
        await self.stop_nodes()

    def publish(self, kind: str, payload: Payload, device: str = "m1") -> None:
        from firmware_sim.links.mqtt import Published

        topic = str(topics.Topic(kind, "city", "gw1", device if kind.startswith("D") else ""))
        self.broker.publish(Published(topic, encode(payload)))

    def reasons(self, event: str = "data.rejected") -> list[str]:
        return [report.code for report in self.sink.reports if report.event_type == event]


PUMP = SparkplugDevice(id="pump-1", type=TYPE, node="city/gw1", device="m1")


def play(
    body: Callable[[Plant], Awaitable[T]], scene: str = SCENE, devices: tuple[SparkplugDevice, ...] = (PUMP,)
) -> T:
    async def main() -> T:
        plant = Plant(scene, devices)
        async with plant.serving():
            await asyncio.sleep(0.1)  # subscribed
            return await body(plant)

    return run_virtual(main(), MORNING_MS)


def order(name: str, **arguments: float) -> Command:
    return Command("o-1", "pump-1", name, arguments)


def test_births_and_data_become_sweeps() -> None:
    async def body(plant: Plant) -> None:
        plant.start_nodes()
        await asyncio.sleep(10.5)
        assert plant.sink.states == [("pump-1", True)]
        assert plant.sink.values("pump-1", "mode")[-1] == 1.0  # the word REMOTE
        assert plant.sink.values("pump-1", "pump_running")[-1] == 1.0
        told = [e["v"]["Inputs/Level"] for e in plant.ledger.entries() if e["k"] == "told" and "Inputs/Level" in e["v"]]
        levels = plant.sink.values("pump-1", "level")
        assert len(levels) >= 9 and levels[-9:] == told[-9:]
        missing = [s for s in plant.sink.sweeps if "supply_voltage" in s.points]
        assert missing[0].quality[missing[0].points.index("supply_voltage")] == Quality.MISSING  # null in the birth

    play(body)


def test_a_host_that_comes_later_asks_for_births() -> None:
    async def main() -> None:
        plant = Plant(SCENE, (PUMP,))
        plant.start_nodes()
        await asyncio.sleep(5)
        async with plant.serving():
            await asyncio.sleep(3)
            assert plant.sink.states == [("pump-1", True)]
            assert plant.nodes[0].births == 2
            assert plant.sink.reports == []

    run_virtual(main(), MORNING_MS)


def test_a_death_is_told_once_and_a_node_that_never_comes_too() -> None:
    async def body(plant: Plant) -> None:
        await asyncio.sleep(31)
        assert plant.sink.states == [("pump-1", False)]
        plant.start_nodes()
        await asyncio.sleep(3)
        await plant.stop_nodes()
        await asyncio.sleep(1)
        assert plant.sink.states == [("pump-1", False), ("pump-1", True), ("pump-1", False)]

    play(body)


def test_power_cut_lets_the_will_speak_and_the_node_comes_back() -> None:
    scene = SCENE + '[[device.fault]]\nkind = "restart"\nat_s = 5\nfor_s = 10\n'

    async def body(plant: Plant) -> None:
        plant.start_nodes()
        await asyncio.sleep(8)
        assert plant.sink.states == [("pump-1", True), ("pump-1", False)]
        await asyncio.sleep(12)
        assert plant.sink.states[-1] == ("pump-1", True)

    play(body, scene)


def test_lost_messages_cost_a_rebirth_and_nothing_wrong_is_stored() -> None:
    scene = SCENE + '[[device.fault]]\nkind = "drop"\nevery = 7\n'

    async def body(plant: Plant) -> None:
        plant.start_nodes()
        await asyncio.sleep(120)
        assert plant.nodes[0].births > 2
        assert "seq_gap" in plant.reasons()
        told = {e["v"]["Inputs/Level"] for e in plant.ledger.entries() if e["k"] == "told" and "Inputs/Level" in e["v"]}
        assert set(plant.sink.values("pump-1", "level")) - {float("nan")} <= told
        assert plant.sink.states == [("pump-1", True)]

    play(body, scene)


def test_damaged_payloads_are_reported_and_the_next_ones_are_read() -> None:
    scene = SCENE + '[[device.fault]]\nkind = "truncate"\nevery = 5\nat_s = 4\n'

    async def body(plant: Plant) -> None:
        plant.start_nodes()
        await asyncio.sleep(60)
        assert set(plant.reasons()) & {"short", "protobuf"}
        assert len(plant.sink.values("pump-1", "level")) > 20

    play(body, scene)


def test_data_kept_while_the_broker_was_away_are_historical() -> None:
    async def body(plant: Plant) -> None:
        plant.start_nodes()
        await asyncio.sleep(5)
        await plant.broker.crash()
        await asyncio.sleep(20)
        plant.broker.up = True
        await asyncio.sleep(30)
        late = [sweep for sweep in plant.sink.sweeps if sweep.historical and sweep.seen_ms > sweep.source_ms]
        assert len(late) >= 15
        told = [e["v"]["Inputs/Level"] for e in plant.ledger.entries() if e["k"] == "told" and "Inputs/Level" in e["v"]]
        heard = set(plant.sink.values("pump-1", "level"))
        assert sum(value not in heard for value in told) <= 1  # the birth replaced at most one value unheard

    play(body)


def test_a_broker_that_is_away_for_long_takes_the_devices_with_it() -> None:
    async def body(plant: Plant) -> None:
        plant.start_nodes()
        await asyncio.sleep(5)
        await plant.broker.crash()
        await asyncio.sleep(10)
        assert plant.sink.states == [("pump-1", True), ("pump-1", False)]

    play(body)


def test_commands_are_done_when_the_data_show_them() -> None:
    async def body(plant: Plant) -> None:
        assert isinstance(plant.host, Commandable)
        plant.start_nodes()
        await asyncio.sleep(5)
        assert await plant.host.command(order("set_level", level=3.25)) == Outcome(
            "done", read_back={"level_setpoint": 3.25}
        )
        assert (await plant.host.command(order("pump_stop"))).read_back == {"pump_running": 0.0}
        assert [e["value"] for e in plant.ledger.entries() if e["k"] == "order"] == ["3.25", "False"]

    play(body)


def test_a_command_that_changes_nothing_has_failed() -> None:
    scene = SCENE + '[[device.fault]]\nkind = "stuck"\n'

    async def body(plant: Plant) -> None:
        plant.start_nodes()
        await asyncio.sleep(5)
        outcome = await plant.host.command(order("pump_stop"))
        assert (outcome.state, outcome.code, outcome.read_back) == ("failed", "read_back", {"pump_running": 1.0})

    play(body, scene)


def test_commands_to_what_is_not_there() -> None:
    async def body(plant: Plant) -> None:
        await asyncio.sleep(1)
        assert (await plant.host.command(order("pump_stop"))).code == "no_birth"
        await plant.broker.crash()
        await asyncio.sleep(0.5)
        with pytest.raises(LinkDown):
            await plant.host.command(order("pump_stop"))

    play(body)


def test_a_node_that_dies_meanwhile_leaves_the_command_unknown() -> None:
    async def body(plant: Plant) -> None:
        plant.publish("NBIRTH", Payload(MORNING_MS, (Metric(BD_SEQ, 0, 4),), 0))
        plant.publish("DBIRTH", Payload(MORNING_MS, (Metric("Outputs/Pump", True, DataType.BOOLEAN),), 1))
        await asyncio.sleep(1)
        outcome = await plant.host.command(order("pump_stop"))
        assert (outcome.state, outcome.code) == ("unknown", "no_read_back")

    play(body)


def test_times_qualities_and_faults_of_single_metrics() -> None:
    async def body(plant: Plant) -> None:
        now = plant.clock.now_ms()
        plant.publish("NBIRTH", Payload(now, (Metric(BD_SEQ, 0, 4),), 0))
        metrics = (
            Metric("Inputs/Level", 1.5, 10, timestamp_ms=now - 3_600_000),  # unchanged since an hour: believed
            Metric("Inputs/Flow", 9.5, 10, timestamp_ms=1_000),  # 1970: the clock was never set
            Metric("Supply Voltage", 24.0, 9, timestamp_ms=now, properties={"Quality": Property(0, 3)}),
            Metric("Inputs/Mode", "BROKEN", 12, timestamp_ms=now),
        )
        plant.publish("DBIRTH", Payload(now, metrics, 1))
        await asyncio.sleep(1)
        found = {
            point: (sweep.source_ms, float(value), Quality(quality))
            for sweep in plant.sink.sweeps
            for point, value, quality in zip(sweep.points, sweep.values, sweep.quality, strict=True)
        }
        assert found["level"] == (now - 3_600_000, 1.5, Quality.GOOD)
        assert found["flow"][0] >= now and found["flow"][1:] == (9.5, Quality.SUSPECT)
        assert found["supply_voltage"][2] is Quality.BAD
        assert found["mode"][2] is Quality.MISSING and np.isnan(found["mode"][1])
        assert plant.reasons("dev.clock_skew") == ["offset"]
        assert plant.reasons().count("no_metric") == 2  # pump and set-point are not in this birth

    play(body)


def test_strangers_are_counted_and_told_once() -> None:
    async def body(plant: Plant) -> None:
        for n in range(3):
            plant.publish("NBIRTH", Payload(MORNING_MS, (Metric(BD_SEQ, 0, 4),), 0))
            plant.publish("DBIRTH", Payload(MORNING_MS, (Metric("x", n, 3),), 1), device="other")
        await asyncio.sleep(1)
        assert plant.sink.counts["strangers"] == 3
        assert plant.reasons().count("stranger") == 1
        assert plant.sink.sweeps == []

    play(body)


def test_nodes_of_others_are_named_once_and_never_asked_for_births() -> None:
    from firmware_sim.links.mqtt import Published

    async def body(plant: Plant) -> None:
        for n in range(3):
            payload = encode(Payload(MORNING_MS, (Metric("x", n, 3),), 7 * n))
            plant.broker.publish(Published("spBv1.0/elsewhere/NDATA/gw9", payload))
        plant.broker.publish(Published("spBv1.0/elsewhere/NCMD/gw9", b"\xff"))
        await asyncio.sleep(1)
        assert plant.sink.counts["strangers"] == 3 and plant.reasons() == ["stranger"]
        assert not [one for one in plant.broker.seen if "gw9" in one.topic and b"Rebirth" in one.payload]

    play(body)


def test_a_deaf_node_is_asked_seldom() -> None:
    scene = SCENE + '[[device.fault]]\nkind = "deaf"\n[[device.fault]]\nkind = "drop"\nevery = 9\n'

    async def body(plant: Plant) -> None:
        plant.start_nodes()
        await asyncio.sleep(300)
        asked = [one for one in plant.broker.seen if b"Rebirth" in one.payload and "/NCMD/" in one.topic]
        assert 2 <= len(asked) <= 7

    play(body, scene)


def test_two_pumps_behind_one_device_are_told_apart_by_their_prefix() -> None:
    both = tuple(
        SparkplugDevice(id=f"pump-{n}", type=TYPE, node="city/gw1", device="m1", prefix=f"P{n}/") for n in (1, 2)
    )

    async def body(plant: Plant) -> None:
        plant.publish("NBIRTH", Payload(MORNING_MS, (Metric(BD_SEQ, 0, 4),), 0))
        metrics = tuple(Metric(f"P{n}/Inputs/Level", float(n), 10) for n in (1, 2))
        plant.publish("DBIRTH", Payload(MORNING_MS, metrics, 1))
        await asyncio.sleep(1)
        assert plant.sink.values("pump-1", "level") == [1.0]
        assert plant.sink.values("pump-2", "level") == [2.0]

    play(body, devices=both)


def test_leaving_says_goodbye_as_a_host() -> None:
    async def main() -> None:
        plant = Plant(SCENE, (PUMP,))
        async with plant.serving():
            await asyncio.sleep(1)
            state = plant.broker.retained["spBv1.0/STATE/citybrain-plant"]
            assert topics.parse_state(state.payload)[0] is True
        state = plant.broker.retained["spBv1.0/STATE/citybrain-plant"]
        assert topics.parse_state(state.payload)[0] is False and state.retain and state.qos == 1

    run_virtual(main(), MORNING_MS)
