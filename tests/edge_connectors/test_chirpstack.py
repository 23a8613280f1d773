"""The ChirpStack connector against a simulated server with sensors, in virtual time over a broker in memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

from edge.clock import LoopClock
from edge.connectors.base import Command, Commandable
from edge.connectors.chirpstack import Chirpstack
from edge.connectors.industry_config import ChirpstackConfig, ChirpstackDevice
from firmware_sim.clock import LoopClock as SimClock
from firmware_sim.devices.chirpstack import server_of
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.links.mqtt import Published
from firmware_sim.rig.virtual_loop import run_virtual
from firmware_sim.scene import parse_scene
from protocols.core.errors import ConfigError, LinkDown
from protocols.core.model import Quality
from tests.support.mqtt import MemoryBroker
from tests.support.virtual import MORNING_MS, RecordingSink, running

T = TypeVar("T")
LAMP, TEMP, PARK = "0102030405060701", "0102030405060702", "0102030405060703"

SCENE = """
id = "t"
[[bus]]
id = "lora"
kind = "chirpstack"
[[device]]
id = "lamp-1"
type = "lorawan/street_lamp"
bus = "lora"
address = "0102030405060701"
interval_s = 60
options = { class = "C" }
[device.signals]
brightness = { stuck = 80.0 }
power = { base = 60.0, noise = 0.5 }
LAMP
[[device]]
id = "temp-1"
type = "lorawan/temperature_humidity"
bus = "lora"
address = "0102030405060702"
interval_s = 60
options = { battery = 88.3 }
[device.signals]
temperature = { base = 21.0, noise = 0.3 }
humidity = { base = 55.0, noise = 1.0 }
TEMP
[[device]]
id = "park-1"
type = "lorawan/parking_space"
bus = "lora"
address = "0102030405060703"
interval_s = 60
options = { generation = 3 }
[device.signals]
occupied = { steps = [[0, 0], [90, 1]] }
temperature = { stuck = -4.0 }
"""
DEVICES = (
    ChirpstackDevice(id="lamp-1", type="lorawan/street_lamp", dev_eui=LAMP, silent_s=300),
    ChirpstackDevice(id="temp-1", type="lorawan/temperature_humidity", dev_eui=TEMP, silent_s=300),
    ChirpstackDevice(id="park-1", type="lorawan/parking_space", dev_eui=PARK, silent_s=300),
)


class Field:
    def __init__(self, scene: str, *, durable: bool = True, downlink_s: float = 30.0) -> None:
        self.broker = MemoryBroker()
        self.sink = RecordingSink(durable=durable)
        self.ledger = MemoryLedger()
        world = World(SimClock(MORNING_MS), MORNING_MS, self.ledger)
        parsed = parse_scene(scene, "test.toml")
        self.server = server_of(parsed.bus[0], parsed, world)
        config = ChirpstackConfig(id="lora", url="mqtt://broker:1883", device=DEVICES, downlink_s=downlink_s)
        self.clock = LoopClock(MORNING_MS)
        self.connector = Chirpstack(config, self.clock, self.broker.dial)
        self._server: asyncio.Task[None] | None = None

    def start_server(self) -> None:
        self._server = asyncio.create_task(self.server.run(self.broker.dial_device))

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with running([self.connector], self.sink):
            await asyncio.sleep(0.1)
            self.start_server()
            yield
        await self.stop_server()

    async def stop_server(self) -> None:
        if self._server is not None:
            self._server.cancel()
            await asyncio.gather(self._server, return_exceptions=True)
            self._server = None

    def publish(self, eui: str, kind: str, found: object) -> None:
        topic = f"application/app/device/{eui}/event/{kind}"
        self.broker.publish(Published(topic, json.dumps(found).encode(), 1))

    def unacked(self) -> int:
        return len(self.broker.clients["citybrain-lora"].unacked)


def fault(scene: str, place: str, **keys: object) -> str:
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    return scene.replace(place + "\n", f"[[device.fault]]\n{lines}\n")


def play(body: Callable[[Field], Awaitable[T]], scene: str = SCENE, **options: object) -> T:
    async def main() -> T:
        field = Field(scene.replace("LAMP\n", "").replace("TEMP\n", ""), **options)  # type: ignore[arg-type]
        async with field.serving():
            return await body(field)

    return run_virtual(main(), MORNING_MS)


def dim(percent: float, number: int = 1) -> Command:
    return Command(f"o-{number}", "lamp-1", "dim", {"percent": percent})


def test_uplinks_of_both_generations_and_the_status_become_sweeps() -> None:
    async def body(field: Field) -> None:
        await asyncio.sleep(150)
        assert sorted(field.sink.states) == [("lamp-1", True), ("park-1", True), ("temp-1", True)]
        told = [e["v"]["object.temperature"] for e in field.ledger.entries() if e["dev"] == "temp-1"]
        assert field.sink.values("temp-1", "temperature") == told and len(told) == 3
        assert field.sink.values("temp-1", "battery") == [88.3]
        assert field.sink.values("park-1", "occupied") == [0.0, 0.0, 1.0]
        assert field.sink.values("park-1", "temperature") == [-4.0] * 3  # a signed byte
        assert all(value == 7.5 for value in field.sink.values("temp-1", "snr"))  # the best gateway's
        assert field.unacked() == 0 and field.sink.reports == []

    play(body)


def test_nothing_is_acknowledged_before_it_is_durable() -> None:
    async def body(field: Field) -> None:
        await asyncio.sleep(5)
        waiting = len(field.sink.pending)
        assert waiting == 4 == field.unacked()  # three uplinks and a status; joins tell nothing to keep
        for call in field.sink.pending:
            call()
        assert field.unacked() == 0

    play(body, durable=False)


def test_what_came_while_the_agent_was_away_comes_again() -> None:
    async def main() -> None:
        field = Field(SCENE.replace("LAMP\n", "").replace("TEMP\n", ""), durable=False)
        async with running([field.connector], field.sink):
            await asyncio.sleep(0.1)
            field.start_server()
            await asyncio.sleep(5)
        first = {sweep.exchange for sweep in field.sink.sweeps}
        await asyncio.sleep(60)
        field.sink.durable = True
        field.sink.sweeps.clear()
        async with running([field.connector], field.sink):
            await asyncio.sleep(1)
            again = {sweep.exchange for sweep in field.sink.sweeps}
            assert first < again and "" not in again  # the unacknowledged ones, and those of the minute between
        await field.stop_server()

    run_virtual(main(), MORNING_MS)


def test_a_repeat_has_the_same_name_so_that_it_counts_once() -> None:
    async def body(field: Field) -> None:
        await asyncio.sleep(5)
        exchanges = [sweep.exchange for sweep in field.sink.sweeps if sweep.device == "temp-1"]
        assert len(exchanges) == 4 and len(set(exchanges)) == 2  # the pipeline keeps one of each
        assert field.sink.counts["repeats"] == 3  # join, uplink, status
        assert field.unacked() == 0

    play(body, fault(SCENE, "TEMP", kind="twice"))


def test_a_counter_that_starts_again_is_no_loss() -> None:
    async def body(field: Field) -> None:
        await asyncio.sleep(600)
        assert field.sink.counts["uplinks_missed"] == 0
        assert len(field.sink.values("temp-1", "temperature")) == 10

    play(body, fault(SCENE, "TEMP", kind="counter_reset", at_s=130, for_s=10))


def test_missing_uplinks_are_counted() -> None:
    async def body(field: Field) -> None:
        await asyncio.sleep(1200)
        assert field.sink.counts["uplinks_missed"] > 0

    play(body, fault(SCENE, "TEMP", kind="drop", every=4))


def test_a_sensor_that_says_nothing_is_offline_after_its_own_time() -> None:
    async def body(field: Field) -> None:
        await asyncio.sleep(400)
        assert ("temp-1", False) in field.sink.states and ("lamp-1", False) not in field.sink.states

    play(body, fault(SCENE, "TEMP", kind="silence", at_s=30))


def test_damaged_events_are_refused_with_their_reason_and_do_not_come_again() -> None:
    async def body(field: Field) -> None:
        field.publish(TEMP, "up", {"data": "?"})
        field.publish(TEMP, "up", {"deviceInfo": {"devEui": LAMP}})
        field.publish("ffffffffffffffff", "up", {})
        field.publish("ffffffffffffffff", "up", {})
        field.broker.publish(Published(f"application/a/device/{TEMP}/event/up", b"\x0a\x02", 1))
        field.broker.publish(Published(f"application/a/device/{TEMP}/event/newkind", b"{}", 1))
        await asyncio.sleep(1)
        found = [(report.device, report.code) for report in field.sink.reports]
        assert found == [
            ("temp-1", "base64"),
            ("temp-1", "dev_eui"),
            ("lora", "stranger"),
            ("temp-1", "not_json"),
            ("lora", "event"),
        ]
        assert field.sink.counts["strangers"] == 2 and field.unacked() == 0

    play(body)


def test_servers_before_3_11_publish_without_the_level_event() -> None:
    async def body(field: Field) -> None:
        await asyncio.sleep(2)
        field.sink.sweeps.clear()
        found = {"applicationID": "7", "devEUI": TEMP, "fCnt": 3, "objectJSON": '{"temperature": 4.5}'}
        for word in ("rx", "tx"):
            topic = f"application/7/device/{TEMP}/{word}"
            field.broker.publish(Published(topic, json.dumps(found).encode(), 1))
        await asyncio.sleep(0.1)
        assert field.sink.values("temp-1", "temperature") == [4.5]
        assert field.sink.reports == [] and field.unacked() == 0

    play(body)


def test_times_that_cannot_be_are_replaced_and_marked() -> None:
    async def body(field: Field) -> None:
        field.publish(
            TEMP, "up", {"deduplicationId": "d", "time": "1970-01-01T00:00:09Z", "object": {"temperature": 3}}
        )
        await asyncio.sleep(0.1)
        sweep = field.sink.sweeps[-1]
        assert sweep.source_ms == sweep.seen_ms and list(sweep.quality) == [Quality.SUSPECT]
        assert [report.event_type for report in field.sink.reports] == ["dev.clock_skew"]

    async def later(field: Field) -> None:
        await asyncio.sleep(2)
        field.sink.sweeps.clear()
        await body(field)

    play(later)


def test_texts_nulls_and_nested_objects() -> None:
    async def body(field: Field) -> None:
        await asyncio.sleep(2)
        field.sink.sweeps.clear()
        found = {"temperature": None, "humidity": "48.5", "deep": {"er": {"still": 1}}}
        field.publish(TEMP, "up", {"deduplicationId": "e", "object": found})
        await asyncio.sleep(0.1)
        (sweep,) = field.sink.sweeps
        assert dict(zip(sweep.points, sweep.quality, strict=True)) == {
            "temperature": Quality.MISSING,
            "humidity": Quality.GOOD,
        }

    play(body)


def test_error_logs_are_faults_of_the_device() -> None:
    async def body(field: Field) -> None:
        field.publish(TEMP, "log", {"level": "ERROR", "code": "UPLINK_MIC", "description": "MIC is invalid"})
        field.publish(TEMP, "log", {"level": "INFO", "code": "OTAA", "description": "joined"})
        field.publish(TEMP, "location", {"location": {"latitude": 110.77, "longitude": 31.8}})
        await asyncio.sleep(0.1)
        assert [(r.event_type, r.code) for r in field.sink.reports] == [
            ("dev.fault", "uplink_mic"),
            ("data.rejected", "place"),
        ]

    play(body)


def test_an_order_is_done_when_the_lamp_shows_it() -> None:
    async def body(field: Field) -> None:
        assert isinstance(field.connector, Commandable)
        await asyncio.sleep(2)
        outcome = await field.connector.command(dim(35))
        assert (outcome.state, outcome.read_back) == ("done", {"brightness": 35.0})
        orders = [e for e in field.ledger.entries() if e["k"] == "order"]
        assert [(e["port"], e["data"]) for e in orders] == [(10, "23")]

    play(body)


def test_an_order_that_waits_in_the_queue_says_so() -> None:
    scene = SCENE.replace('options = { class = "C" }\n', "")

    async def body(field: Field) -> None:
        await asyncio.sleep(2)
        outcome = await field.connector.command(dim(35))
        assert (outcome.state, outcome.code) == ("unknown", "queued")
        await asyncio.sleep(120)
        assert field.sink.values("lamp-1", "brightness")[-1] == 35.0  # it came, later

    play(body, scene)


def test_an_order_that_nobody_heard() -> None:
    async def body(field: Field) -> None:
        await asyncio.sleep(2)
        outcome = await field.connector.command(dim(35))
        assert (outcome.state, outcome.code) == ("unknown", "no_ack")

    play(body, fault(SCENE, "LAMP", kind="no_ack"))


def test_orders_that_cannot_be_given() -> None:
    async def main() -> None:
        field = Field(SCENE.replace("LAMP\n", "").replace("TEMP\n", ""))
        async with running([field.connector], field.sink):
            await asyncio.sleep(0.1)
            assert (await field.connector.command(dim(35))).code == "no_application"

    run_virtual(main(), MORNING_MS)

    async def after(field: Field) -> None:
        await asyncio.sleep(2)
        assert (await field.connector.command(dim(300))).code == "argument"
        await field.broker.crash()
        await asyncio.sleep(0.5)
        with pytest.raises(LinkDown):
            await field.connector.command(dim(35))

    play(after)


def test_a_scene_with_a_wrong_eui_is_refused() -> None:
    with pytest.raises(ConfigError, match="DevEUI"):
        play(lambda field: asyncio.sleep(0), SCENE.replace('"0102030405060702"', '"07"'))
