"""Orders from the core: once, through every crash; the outcome told until it is durable."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.clock import LoopClock
from edge.commands import Desk, Target
from edge.connectors.base import Command, Outcome
from edge.core_orders import CoreOrders
from edge.interlocks import InterlockConfig, Interlocks, check
from edge.outbox import Outbox
from protocols.core.errors import ConfigError, LinkDown
from protocols.core.model import Quality, Sweep
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import CommandOutcome
from tests.edge.gateway import START_MS
from tests.edge.test_edge_commands import TYPE, Valve
from tests.support.spin import spin

LIFE_MS = 60_000


def order(command_id: str = "c1", **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "id": command_id, "device": "v", "name": "move", "arguments_json": json.dumps({"to": 40, "mode": "slow"}),
        "expires_ms": START_MS + LIFE_MS,
    }  # fmt: skip
    return pb.Order(**{**fields, **changes}).SerializeToString()


class Box:
    def __init__(self, folder: Path, interlock: Callable[[str, str], str] = lambda *_: "") -> None:
        self.outbox = Outbox(folder / "outbox.db", now_ms=START_MS, max_bytes=1 << 20)
        self.valve = Valve()
        self.said: list[CommandOutcome] = []
        self.durable = True
        self.interlock = interlock
        self.begin()

    def begin(self) -> None:
        """What a start of the agent does."""
        target = Target(TYPE, self.valve, frozenset({"move"}))
        clock = LoopClock(START_MS)
        self.desk = Desk({"v": target}, self.outbox, clock, lambda *_: None, gateway="gw-1", interlock=self.interlock)
        self.orders = CoreOrders(self.desk, clock, self.say)

    def say(self, outcome: CommandOutcome, on_durable: Callable[[], None]) -> None:
        self.said.append(outcome)
        if self.durable:
            on_durable()

    def states(self, command_id: str = "c1") -> list[str]:
        return [one.state for one in self.said if one.id == command_id]

    async def run(self, until: int) -> None:
        task = asyncio.create_task(self.orders.run())
        await spin(lambda: len(self.said) >= until or task.done())
        task.cancel()
        await asyncio.wait([task])


def test_an_order_is_received_done_and_told_once_however_often_it_arrives(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.orders.heard(order())
        box.orders.heard(order())  # the broker delivers twice
        await box.run(3)
        box.orders.heard(order())  # and the core asks again
        assert box.states() == ["received", "received", "done", "done"]
        assert dict(box.said[-1].read_back) == {"position": 40.0}
        assert len(box.valve.told) == 1

    asyncio.run(body())


def test_accepted_and_not_begun_survives_a_power_cut(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.orders.heard(order())
        box.begin()  # before anything was sent
        await box.run(2)
        assert box.states() == ["received", "done"] and len(box.valve.told) == 1

    asyncio.run(body())


def test_a_power_cut_while_the_device_was_asked_says_unknown_and_never_asks_again(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.valve.hold = asyncio.Event()
        box.orders.heard(order())
        task = asyncio.create_task(box.orders.run())
        await box.valve.begun.wait()
        box.begin()
        await box.run(2)
        box.orders.heard(order())
        assert box.states() == ["received", "unknown", "unknown"]
        assert len(box.valve.told) == 1
        task.cancel()

    asyncio.run(body())


def test_an_outcome_that_was_not_yet_durable_is_told_again_after_a_restart(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.durable = False
        box.orders.heard(order())
        await box.run(2)
        box.durable = True
        box.begin()
        await box.run(3)
        assert box.states() == ["received", "done", "done"]
        assert len(box.valve.told) == 1

    asyncio.run(body())


def test_void_orders_are_not_carried_out(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.orders.heard(order(expires_ms=START_MS))
        await box.run(2)
        assert box.states() == ["received", "expired"] and not box.valve.told

    asyncio.run(body())


def test_a_link_that_is_down_is_a_refusal_and_the_same_id_stays_refused(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.valve.error = LinkDown("the cable is out")
        box.orders.heard(order())
        await box.run(2)
        box.valve.error = None
        box.orders.heard(order())
        assert box.states() == ["received", "refused", "refused"] and not box.valve.told

    asyncio.run(body())


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff", b"", order(""), order("x" * 129), order(device=""), order(expires_ms=0), order(arguments_json="[1]"),
        order(arguments_json='{"a": {"b": 1}}'), order(arguments_json="{" * 9000), order(arguments_json=" " * 20_000),
    ],
)  # fmt: skip
def test_what_is_no_order_is_counted_and_forgotten(tmp_path: Path, payload: bytes) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.orders.heard(payload)
        assert not box.said and box.orders.counters["orders_malformed"] == 1

    asyncio.run(body())


def test_the_gateway_itself_takes_its_own_commands_and_no_others(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)

        async def doctor(arguments: Mapping[str, Any]) -> Outcome:
            return Outcome("done", detail=f"looked at {arguments.get('what', 'all')}")

        box.desk.own["doctor"] = doctor
        box.orders.heard(order("c1", device="gw-1", name="doctor", arguments_json='{"what": "disk"}'))
        box.orders.heard(order("c2", device="gw-1", name="explode", arguments_json=""))
        await box.run(4)
        assert box.states("c1") == ["received", "done"] and box.states("c2") == ["received", "refused"]

    asyncio.run(body())


def test_old_orders_are_forgotten_but_none_whose_time_is_not_over(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        for n in range(600):
            late = n % 2 == 0
            await box.desk.order(
                Command(f"n{n}", "v", "move", {"to": 1, "mode": "slow"}, START_MS + (1 if late else 10**9))
            )
        told = len(box.valve.told)
        for n in range(1, 600, 2):  # those that could still be repeated
            assert (
                await box.desk.order(Command(f"n{n}", "v", "move", {"to": 1, "mode": "slow"}, START_MS + 10**9))
            ).state
        assert len(box.valve.told) == told

    asyncio.run(body())


LOCK = InterlockConfig("v", "mo*", "level > 3.5", {"level": "tank/level"}, 60.0, "the tank is full")


def sweep(value: float, quality: Quality = Quality.GOOD, seen_ms: int = START_MS) -> Sweep:
    return Sweep("tank", seen_ms, seen_ms, ("level",), np.array([value]), np.array([quality], dtype=np.uint8))


@pytest.mark.parametrize(
    ("seen", "held"),
    [
        (None, "not known"),
        (sweep(2.0), ""),
        (sweep(4.0), "the tank is full (tank/level = 4)"),
        (sweep(float("nan"), Quality.MISSING), "not known"),
        (sweep(2.0, Quality.SUSPECT), "not known"),
        (sweep(2.0, seen_ms=START_MS - 61_000), "61 s old"),
        (sweep(2.0, seen_ms=START_MS + 61_000), "61 s old"),
    ],
)
def test_an_interlock_refuses_while_it_holds_and_while_nobody_can_say(
    tmp_path: Path, seen: Sweep | None, held: str
) -> None:
    async def body() -> None:
        locks = Interlocks([LOCK], LoopClock(START_MS))
        if seen is not None:
            locks.see(seen)
        box = Box(tmp_path, locks.held)
        box.orders.heard(order())
        await box.run(2)
        assert held in locks.held("v", "move") and bool(held) == bool(locks.held("v", "move"))
        assert box.states()[-1] == ("refused" if held else "done")
        assert locks.held("v", "stop") == "" and locks.held("w", "move") == ""

    asyncio.run(body())


@pytest.mark.parametrize(
    "wrong",
    [
        InterlockConfig("v", "move", "level >", {"level": "tank/level"}),
        InterlockConfig("v", "move", "depth > 1.0", {"level": "tank/level"}),
        InterlockConfig("v", "move", "level > 1.0", {}),
        InterlockConfig("v", "move", "level > 1.0", {"level": "tank"}),
        InterlockConfig("v", "move", "true", {"level": "tank/level"}),
    ],
)
def test_an_interlock_that_would_not_hold_is_refused_at_the_start(wrong: InterlockConfig) -> None:
    with pytest.raises(ConfigError):
        check(wrong)


def test_an_interlock_that_cannot_be_worked_out_holds() -> None:
    async def body() -> None:
        config = InterlockConfig("v", "move", "level.startsWith('a')", {"level": "tank/level"})
        locks = Interlocks([config], LoopClock(START_MS))
        locks.see(sweep(1.0))
        assert "cannot be worked out" in locks.held("v", "move")

    asyncio.run(body())
