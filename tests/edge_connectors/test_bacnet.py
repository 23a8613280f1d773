"""The BACnet connector against a simulated controller on the loopback, each with a UDP port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pytest

pytest.importorskip("bacpypes3")

from edge.clock import WallClock
from edge.connectors.bacnet import BacnetClient
from edge.connectors.base import Command, Commandable
from edge.connectors.config import check
from edge.connectors.industry_config import BacnetConfig, BacnetDevice
from firmware_sim.clock import WallClock as SimClock
from firmware_sim.devices.bacnet_device import BacnetBus
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.scene import parse_scene
from protocols.core.errors import ConfigError, LinkDown
from protocols.core.model import Quality
from tests.support.virtual import RecordingSink, running

T = TypeVar("T")
TYPE = "building/bacnet_ahu"

SCENE = """
id = "t"
[[bus]]
id = "building"
kind = "bacnet-device"
listen = "127.0.0.1:PORT"
[[device]]
id = "ahu-1"
type = "building/bacnet_ahu"
bus = "building"
address = 3001
[device.signals]
supply_temperature = { sine = { mean = 18.0, amplitude = 4.0, period_s = 10 } }
return_temperature = { base = 24.5 }
fan_running = { stuck = 1.0 }
mode = { stuck = 2.0 }
"""


def free_ports(number: int) -> list[int]:
    held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(number)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


class Building:
    def __init__(self, scene: str, **options: Any) -> None:
        self.sink = RecordingSink()
        self.ledger = MemoryLedger()
        clock = SimClock()
        world = World(clock, clock.now_ms(), self.ledger)
        theirs, ours = free_ports(2)
        parsed = parse_scene(scene.replace("PORT", str(theirs)), "test.toml")
        self.bus = BacnetBus(parsed.bus[0], parsed, world)
        device: dict[str, Any] = {"instance": 3001, "poll_s": 0.3, "address": f"127.0.0.1:{theirs}"}
        device |= {key: options.pop(key) for key in list(options) if key in ("instance", "poll_s", "cov")}
        settings: dict[str, Any] = {"timeout_s": 0.5, "retries": 0, "slow_poll_s": 0.5, **options}
        self.config = BacnetConfig(
            id="building",
            address=f"127.0.0.1/32:{ours}",
            device=(BacnetDevice(id="ahu-1", type=TYPE, **device),),
            **settings,
        )
        check(self.config)
        self.client = BacnetClient(self.config, WallClock())

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        await self.power_on()
        try:
            async with running([self.client], self.sink, restart_s=0.2):
                yield
        finally:
            await self.power_off()

    async def power_on(self) -> None:
        await self.bus.open()
        self._running = asyncio.create_task(self.bus.run())

    async def power_off(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.bus.close()

    async def until(self, found: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(40):
                while not found():  # noqa: ASYNC110 - what others do over sockets has no event of ours
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"never: {what}; {self.sink.states} {self.sink.reports}") from None


def play(body: Callable[[Building], Awaitable[T]], scene: str = SCENE, **options: Any) -> T:
    async def main() -> T:
        building = Building(scene, **options)
        async with building.serving():
            return await body(building)

    return asyncio.run(main())


def fault(**keys: object) -> str:
    return SCENE + "[[device.fault]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())


def order(name: str, **arguments: float) -> Command:
    return Command("o-1", "ahu-1", name, arguments)


def test_points_are_read_together() -> None:
    async def body(building: Building) -> None:
        await building.until(lambda: len(building.sink.sweeps) >= 2, "two sweeps")
        assert building.sink.states == [("ahu-1", True)]
        found = dict(zip(building.sink.sweeps[0].points, building.sink.sweeps[0].values.tolist(), strict=True))
        assert set(found) == {p.name for p in building.client._devices[0].kind.points}
        assert found["return_temperature"] == 24.5 and found["fan_running"] == 1 and found["mode"] == 2
        assert found["temperature_setpoint"] == 21.0  # nobody has written: the relinquish default
        assert building.sink.reports == []

    play(body, cov=False)


def test_changes_come_between_two_polls() -> None:
    async def body(building: Building) -> None:
        await building.until(lambda: len(building.sink.values("ahu-1", "supply_temperature")) >= 3, "changes")
        assert len([sweep for sweep in building.sink.sweeps if len(sweep.points) > 1]) == 1  # one poll, long ago
        told = {round(e["v"]["supply_temperature"], 2) for e in building.ledger.entries() if e["k"] == "told"}
        heard = [round(value, 2) for value in building.sink.values("ahu-1", "supply_temperature")]
        assert set(heard[1:]) <= told

    play(body, poll_s=60.0)


def test_a_device_without_read_property_multiple_is_read_one_by_one() -> None:
    async def body(building: Building) -> None:
        await building.until(lambda: len(building.sink.sweeps) >= 2, "two sweeps")
        assert len(building.sink.sweeps[0].points) == 6 and building.sink.reports == []

    play(body, fault(kind="no_rpm"), cov=False)


def test_a_device_that_refuses_subscriptions_is_polled() -> None:
    async def body(building: Building) -> None:
        await building.until(lambda: building.sink.counts["cov_refused"] == 6, "every subscription is refused")
        await building.until(lambda: len(building.sink.sweeps) >= 3, "polls")
        assert building.sink.counts["cov_refused"] == 6  # and not asked again with every poll

    play(body, fault(kind="no_cov"))


@pytest.mark.parametrize(
    ("kind", "quality", "events"),
    [("fault_flag", Quality.BAD, {"dev.fault"}), ("overridden", Quality.MANUAL, set())],
)
def test_status_flags_become_quality(kind: str, quality: Quality, events: set[str]) -> None:
    async def body(building: Building) -> None:
        await building.until(lambda: len(building.sink.sweeps) >= 2, "two sweeps")
        assert {int(q) for q in building.sink.sweeps[-1].quality} == {quality}
        assert {report.event_type for report in building.sink.reports} == events
        assert len(building.sink.reports) in (0, 6)  # each point once

    play(body, fault(kind=kind), cov=False)


def test_a_device_that_loses_power_is_lost_and_found_again() -> None:
    async def body(building: Building) -> None:
        await building.until(lambda: ("ahu-1", True) in building.sink.states, "online")
        await building.power_off()
        await building.until(lambda: ("ahu-1", False) in building.sink.states, "lost")
        await building.power_on()
        await building.until(lambda: building.sink.states[-1] == ("ahu-1", True), "back")

    play(body, cov=False)


def test_another_device_at_the_address_is_not_read() -> None:
    async def body(building: Building) -> None:
        await building.until(lambda: building.sink.states == [("ahu-1", False)], "not there")
        assert {report.code for report in building.sink.reports} == {"wrong_address"}
        assert building.sink.sweeps == []

    play(body, instance=3002)


def test_commands_take_a_slot_and_give_it_back() -> None:
    async def body(building: Building) -> None:
        assert isinstance(building.client, Commandable)
        await building.until(lambda: building.sink.sweeps, "connected")
        done = await building.client.command(order("set_temperature", temperature=23.5))
        assert (done.state, done.read_back) == ("done", {"temperature_setpoint": 23.5})
        assert (await building.client.command(order("release_temperature"))).state == "done"
        await building.until(
            lambda: building.sink.values("ahu-1", "temperature_setpoint")[-1] == 21.0, "the default is back"
        )
        assert (await building.client.command(order("fan_on"))).read_back == {"fan_command": 1.0}
        orders = [(e["object"], e["priority"]) for e in building.ledger.entries() if e["k"] == "order"]
        assert orders == [("analog-value:1", "8"), ("analog-value:1", "8"), ("binary-output:1", "8")]

    play(body, cov=False)


def test_a_switch_on_the_spot_wins() -> None:
    async def body(building: Building) -> None:
        await building.until(lambda: building.sink.sweeps, "connected")
        outcome = await building.client.command(order("fan_on"))
        assert (outcome.state, outcome.code, outcome.read_back) == ("failed", "read_back", {"fan_command": 0.0})

    play(body, fault(kind="overridden"), cov=False)


def test_a_command_without_an_answer_is_unknown() -> None:
    async def body(building: Building) -> None:
        await building.until(lambda: building.sink.sweeps, "connected")
        await building.power_off()
        assert (await building.client.command(order("fan_on"))).state == "unknown"

    play(body, cov=False)


def test_commands_to_what_was_not_found_and_a_port_that_is_taken() -> None:
    async def main() -> None:
        building = Building(SCENE, cov=False)
        with pytest.raises(LinkDown):
            await building.client.command(order("fan_on"))
        async with running([building.client], building.sink):
            await asyncio.sleep(0.2)
            assert (await building.client.command(order("fan_on"))).code == "not_found"
        port = int(building.config.address.rpartition(":")[2])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", port))
            with pytest.raises(LinkDown, match="in use"):
                await building.client.run(building.sink)

    asyncio.run(main())


def test_a_foreign_device_finds_others_through_the_bbmd() -> None:
    """The BBMD forwards our Who-Is; it is a device itself, so its own I-Am comes back."""
    from bacpypes3.ipv4.app import BBMDApplication
    from bacpypes3.local.device import DeviceObject
    from bacpypes3.pdu import IPv4Address

    async def main() -> None:
        theirs, ours = free_ports(2)
        where = IPv4Address(f"127.0.0.1/32:{theirs}")
        router = DeviceObject(objectIdentifier=("device", 77), objectName="bbmd", vendorIdentifier=999)
        bbmd = BBMDApplication(router, where)
        config = BacnetConfig(
            id="b",
            address=f"127.0.0.1/32:{ours}",
            device=(BacnetDevice(id="ahu-1", type=TYPE, instance=77, poll_s=0.3, cov=False),),
            bbmd=f"127.0.0.1:{theirs}",
            timeout_s=1.0,
            retries=0,
        )
        sink = RecordingSink()
        client = BacnetClient(config, WallClock())
        async with running([client], sink):
            async with asyncio.timeout(40):
                while client._devices[0].address is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        assert str(client._devices[0].address).endswith(str(theirs))
        bbmd.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"address": "192.168.1.10"}, "address/bits"),
        ({"address": "host:1"}, "address/bits"),
        ({"address": "192.168.1.10/24:x"}, "address/bits"),
    ],
)
def test_a_wrong_configuration_is_named(change: dict[str, str], words: str) -> None:
    good: dict[str, Any] = {"id": "b", "address": "192.168.1.10/24:47808"}
    device = (BacnetDevice(id="a", type=TYPE, instance=5),)
    check(BacnetConfig(**good, device=device))
    with pytest.raises(ConfigError, match=words):
        check(BacnetConfig(**{**good, **change}, device=device))
