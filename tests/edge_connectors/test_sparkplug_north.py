"""The gateway as an edge node: what its pipeline keeps reaches somebody else's host, whatever the broker does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from edge.clock import LoopClock
from edge.connectors.base import Command, Outcome
from edge.northbound.config import SparkplugNorthConfig
from edge.northbound.sparkplug_node import SparkplugNorth
from edge.northbound.tap import Told
from firmware_sim.links.mqtt import Published
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.errors import TransportError
from protocols.core.model import Quality
from protocols.devices import load
from protocols.sparkplug_b import topics
from protocols.sparkplug_b.host import Born, Died, HostApplication, Said, Source
from tests.support.mqtt import MemoryBroker
from tests.support.virtual import MORNING_MS

T = TypeVar("T")
PUMP = Source("hefei", "gw-1", "pump-1")


class Memory:
    def __init__(self) -> None:
        self.state: dict[str, bytes] = {}

    def put_state(self, name: str, value: bytes) -> None:
        self.state[name] = value

    def get_state(self, name: str) -> bytes | None:
        return self.state.get(name)


class Scada:
    """A gateway's northbound end, a broker, and a host application of our own codec on the other side."""

    def __init__(self, **options: Any) -> None:
        self.broker = MemoryBroker()
        self.host = HostApplication("scada")
        self.events: list[Any] = []
        self.journal = Memory()
        self.ordered: list[Command] = []
        self.clock = LoopClock(MORNING_MS)
        self.options = {"url": "mqtt://scada:1883", "group": "hefei", "keepalive_s": 10, **options}
        self.north = self.new_north()
        self.refuse_orders = False

    def new_north(self) -> SparkplugNorth:
        kinds = {"pump-1": load("industry/sparkplug_pump_station"), "other": load("env/noise_meter")}
        config = SparkplugNorthConfig(**self.options)
        dial, journal = self.broker.dial, self.journal
        return SparkplugNorth(
            config, kinds, self.clock, dial, journal, gateway="gw-1", version="1.0", order=self._order
        )

    async def _order(self, command: Command) -> Outcome:
        self.ordered.append(command)
        return Outcome("refused", "not_allowed") if self.refuse_orders else Outcome("done")

    async def listen(self) -> None:
        link = await self.broker.dial_device("scada", ["spBv1.0/#"], None)
        with contextlib.suppress(TransportError):
            while True:
                message = await link.receive()
                self.events += self.host.receive(message.topic, message.payload, self.clock.now_ms())
                for out in self.host.take_output():
                    link.publish(Published(out.topic, out.payload, out.qos, out.retain))

    async def keep_running(self) -> None:
        while True:
            with contextlib.suppress(TransportError):
                await self.north.run()
            await asyncio.sleep(1)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.listen()), asyncio.create_task(self.keep_running())]
        await asyncio.sleep(0.1)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def tell(self, value: float, quality: int = Quality.GOOD, point: str = "level", device: str = "pump-1") -> None:
        self.north.readings(device, [Told(point, self.clock.now_ms(), value, quality)])

    def levels(self, *, historical: bool = False) -> list[float | None]:
        return [
            metric.value
            for event in self.events
            if isinstance(event, Said) and event.source == PUMP
            for metric in event.metrics
            if metric.name == "level" and bool(metric.is_historical) is historical
        ]


def play(body: Callable[[Scada], Awaitable[T]], **options: Any) -> T:
    async def main() -> T:
        scada = Scada(**options)
        async with scada.serving():
            return await body(scada)

    return run_virtual(main(), MORNING_MS)


def test_births_with_units_then_data() -> None:
    async def body(scada: Scada) -> None:
        scada.north.state("pump-1", online=True)
        scada.tell(2.5)
        await asyncio.sleep(1)
        scada.tell(2.6)
        await asyncio.sleep(1)
        births = [event for event in scada.events if isinstance(event, Born)]
        assert [str(birth.source) for birth in births] == ["hefei/gw-1", "hefei/gw-1/pump-1"]
        level = next(one for one in births[1].metrics if one.name == "level")
        assert level.properties is not None and level.properties["engUnit"].value == "m"
        assert scada.levels() == [2.5, 2.6]
        assert not any((one.name or "").startswith("Command/") for one in births[1].metrics)  # read-only

    play(body)


def test_a_device_is_not_announced_before_it_was_heard_of() -> None:
    async def body(scada: Scada) -> None:
        await asyncio.sleep(1)
        assert [str(event.source) for event in scada.events if isinstance(event, Born)] == ["hefei/gw-1"]

    play(body)


def test_quality_and_no_value() -> None:
    async def body(scada: Scada) -> None:
        scada.tell(2.5)
        scada.tell(float("nan"), Quality.MISSING)
        scada.tell(2.7, Quality.BAD)
        await asyncio.sleep(1)
        metrics = [m for event in scada.events if isinstance(event, Said) for m in event.metrics if m.name == "level"]
        assert [(m.value, m.is_null, m.quality) for m in metrics] == [
            (2.5, None, None),
            (None, True, None),
            (2.7, None, 0),
        ]

    play(body)


def test_a_rebirth_on_request_keeps_unit_and_value() -> None:
    async def body(scada: Scada) -> None:
        scada.tell(2.5)
        await asyncio.sleep(2)
        scada.events.clear()
        scada.host.rebirth(PUMP, scada.clock.now_ms())
        scada.tell(2.6)  # any message: the listener publishes what the host wants
        await asyncio.sleep(2)
        level = [m for e in scada.events if isinstance(e, Born) and e.source == PUMP for m in e.metrics]
        found = next(m for m in level if m.name == "level")
        assert found.value == 2.6 and found.properties is not None and found.properties["engUnit"].value == "m"

    play(body)


def test_a_device_that_goes_offline_dies_and_is_born_again() -> None:
    async def body(scada: Scada) -> None:
        scada.tell(2.5)
        await asyncio.sleep(1)
        scada.north.state("pump-1", online=False)
        await asyncio.sleep(1)
        assert [str(event.source) for event in scada.events if isinstance(event, Died)] == ["hefei/gw-1/pump-1"]
        scada.events.clear()
        scada.north.state("pump-1", online=True)
        scada.tell(2.9)
        await asyncio.sleep(1)
        assert isinstance(scada.events[0], Born) and scada.levels() == [2.9]

    play(body)


def test_what_the_broker_did_not_take_comes_later_as_historical() -> None:
    async def body(scada: Scada) -> None:
        scada.tell(1.0)
        await asyncio.sleep(1)
        await scada.broker.crash()
        for n in range(2, 30):
            await asyncio.sleep(1)
            scada.tell(float(n))
        await asyncio.sleep(0.5)  # the host is back before the gateway: QoS 0 reaches only who listens
        scada.broker.up = True
        listener = asyncio.create_task(scada.listen())
        await asyncio.sleep(5)
        assert scada.levels(historical=True)[-28:] == [float(n) for n in range(2, 30)]
        assert scada.north.counters["dropped"] == 0
        # What left just before the crash may have been lost with it: it comes again, marked.
        assert 1.0 in scada.levels(historical=True)
        listener.cancel()

    play(body)


def test_the_store_is_bounded_and_says_what_it_lost() -> None:
    async def body(scada: Scada) -> None:
        await scada.broker.crash()
        await asyncio.sleep(1)
        for n in range(25):
            scada.tell(float(n))
        await asyncio.sleep(0.5)  # the host is back before the gateway: QoS 0 reaches only who listens
        scada.broker.up = True
        listener = asyncio.create_task(scada.listen())
        await asyncio.sleep(5)
        assert scada.levels(historical=True) == [float(n) for n in range(15, 25)]
        told = [
            m.value for e in scada.events if isinstance(e, Said) for m in e.metrics if m.name == "Node Info/Dropped"
        ]
        assert told == [15] == [scada.north.counters["dropped"]]
        listener.cancel()

    play(body, keep=10)


def test_nothing_is_published_while_the_primary_host_is_away() -> None:
    async def body(scada: Scada) -> None:
        scada.tell(1.0)
        await asyncio.sleep(2)
        assert scada.events == []
        online = topics.state_payload(online=True, timestamp_ms=scada.clock.now_ms())
        scada.broker.publish(Published("spBv1.0/STATE/main", online, 1, True))
        await asyncio.sleep(2)
        assert scada.levels(historical=True) == [1.0]
        offline = topics.state_payload(online=False, timestamp_ms=scada.clock.now_ms())
        scada.broker.publish(Published("spBv1.0/STATE/main", offline, 1, True))
        await asyncio.sleep(1)
        assert [str(event.source) for event in scada.events if isinstance(event, Died)][-1] == "hefei/gw-1"
        scada.tell(2.0)
        await asyncio.sleep(1)
        assert 2.0 not in scada.levels() + scada.levels(historical=True)

    play(body, primary_host="main")


def test_orders_go_to_the_desk_and_their_result_comes_back() -> None:
    async def body(scada: Scada) -> None:
        scada.tell(1.0)
        await asyncio.sleep(1)
        order = scada.host.write(PUMP, "Command/set_level", 3.5, scada.clock.now_ms())
        for _ in range(2):  # a broker may deliver twice: the same identity, so the desk does it once
            scada.broker.publish(Published(order.topic, order.payload))
        await asyncio.sleep(1)
        assert [(o.device, o.name, dict(o.arguments)) for o in scada.ordered] == 2 * [
            ("pump-1", "set_level", {"level": 3.5})
        ]
        assert scada.ordered[0].id == scada.ordered[1].id
        results = [
            m.value for e in scada.events if isinstance(e, Said) for m in e.metrics if "Result" in (m.name or "")
        ]
        assert results == ["done", "done"]
        scada.broker.publish(Published(order.topic, scada.host.write(PUMP, "level", 1.0, 5).payload))
        await asyncio.sleep(1)
        assert len(scada.ordered) == 2  # a reading is nothing to be ordered

    play(body, commands=True)


def test_without_leave_no_order_is_taken() -> None:
    async def body(scada: Scada) -> None:
        scada.tell(1.0)
        await asyncio.sleep(1)
        order = scada.host.write(PUMP, "level", 3.5, scada.clock.now_ms())
        scada.broker.publish(Published(order.topic, order.payload))
        await asyncio.sleep(1)
        assert scada.ordered == []

    play(body)


def test_devices_that_are_not_chosen_stay_at_home() -> None:
    async def body(scada: Scada) -> None:
        scada.tell(50.0, point="laeq", device="other")
        await asyncio.sleep(1)
        assert not [event for event in scada.events if getattr(event, "source", PUMP).device == "other"]

    play(body, devices=("pump-*",))


def test_each_connection_has_its_own_number_also_after_a_restart() -> None:
    async def body(scada: Scada) -> None:
        def numbers() -> list[object]:
            births = [e for e in scada.events if isinstance(e, Born) and not e.source.device]
            return [next(m.value for m in birth.metrics if m.name == "bdSeq") for birth in births]

        await asyncio.sleep(1)
        for task in [t for t in asyncio.all_tasks() if "keep_running" in repr(t.get_coro())]:
            task.cancel()
        await asyncio.sleep(0.1)
        assert isinstance(scada.events[-1], Died)  # it said goodbye
        scada.north = scada.new_north()
        again = asyncio.create_task(scada.keep_running())
        await asyncio.sleep(1)
        first, second = numbers()
        assert first != second
        again.cancel()

    play(body)
