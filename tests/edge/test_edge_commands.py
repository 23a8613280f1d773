"""The command desk: who may order what, once, and what is said of it; over the outbox's own durable state."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from edge.clock import LoopClock
from edge.commands import Desk, Target
from edge.connectors.base import Command, Outcome
from edge.order_socket import SOCKET, LocalSocket, give
from edge.outbox import Outbox
from protocols.core.errors import LinkDown
from protocols.devices import parse
from tests.edge.gateway import START_MS

TYPE = parse(
    """
[device]
id = "test/valve"
zh = "阀"
en = "valve"
protocol = "modbus"
provenance = "made for this test"
[[point]]
name = "position"
range = [0.0, 100.0]
modbus = { address = 0 }
[[command]]
name = "move"
zh = "调节"
en = "move"
key = "holding:1:u16"
read_back = "position"
argument = [
  { name = "to", unit = "%", range = [0, 100] }, { name = "mode", kind = "text", one_of = ["slow", "fast"] },
]
[[command]]
name = "stop"
zh = "停"
en = "stop"
""",
    type_id="test/valve",
    where="test",
)
GOOD: dict[str, float | int | str | bool] = {"to": 40, "mode": "slow"}


class Valve:
    """A connector that writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[Command] = []
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def command(self, command: Command) -> Outcome:
        if self.error is not None:
            raise self.error
        self.told.append(command)
        self.begun.set()
        if self.hold is not None:
            await self.hold.wait()
        return Outcome("done", read_back={"position": 40.0})


def desk(folder: Path, valve: Valve, reports: list[tuple[str, ...]], allow: str = "move") -> Desk:
    outbox = Outbox(folder / "outbox.db", now_ms=START_MS, max_bytes=1 << 20)
    target = Target(TYPE, valve, frozenset({allow}))

    def report(*what: str) -> None:
        reports.append(what)

    return Desk({"v": target}, outbox, LoopClock(START_MS), report)


def order(name: str = "move", command_id: str = "1", **changes: float | str | None) -> Command:
    arguments = {**GOOD, **changes}
    return Command(command_id, "v", name, {k: v for k, v in arguments.items() if v is not None})


def test_an_order_is_carried_out_once_whatever_comes_again(tmp_path: Path) -> None:
    async def body() -> None:
        valve = Valve()
        one = desk(tmp_path, valve, [])
        first = await one.order(order())
        assert first.state == "done"
        assert first.read_back == {"position": 40.0}
        assert await one.order(order()) == first
        assert len(valve.told) == 1
        # After a restart too.
        assert await desk(tmp_path, valve, []).order(order()) == first
        assert len(valve.told) == 1

    asyncio.run(body())


def test_a_crash_while_it_waits_leaves_unknown_and_no_second_actuation(tmp_path: Path) -> None:
    async def body() -> None:
        valve = Valve()
        valve.hold = asyncio.Event()
        task = asyncio.create_task(desk(tmp_path, valve, []).order(order()))
        await valve.begun.wait()
        again = await desk(tmp_path, valve, []).order(order())  # what a restarted agent finds
        assert (again.state, again.code) == ("unknown", "interrupted")
        assert len(valve.told) == 1
        task.cancel()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (order("open"), "unknown_command"),
        (Command("1", "w", "move", GOOD), "unknown_device"),
        (Command("", "v", "move", GOOD), "id"),
        (order(to=101), "argument"),
        (order(to=float("nan")), "argument"),
        (order(to=True), "argument"),
        (order(to="40"), "argument"),
        (order(to=None), "argument"),
        (order(mode="warp"), "argument"),
        (order(speed=3), "argument"),
    ],
)
def test_a_bad_order_is_refused_before_anything_is_sent(tmp_path: Path, command: Command, code: str) -> None:
    valve = Valve()
    outcome = asyncio.run(_order(tmp_path, valve, command))
    assert (outcome.state, outcome.code) == ("refused", code)
    assert outcome.detail
    assert not valve.told


async def _order(folder: Path, valve: Valve, command: Command) -> Outcome:
    return await desk(folder, valve, []).order(command)


def test_read_only_until_the_device_allows_it_and_the_attempt_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        valve, reports = Valve(), list[tuple[str, ...]]()
        outcome = await desk(tmp_path, valve, reports, allow="stop").order(order())
        assert (outcome.state, outcome.code) == ("refused", "not_allowed")
        assert [report[:3] for report in reports] == [("cmd.rejected", "v", "not_allowed")]
        assert not valve.told

    asyncio.run(body())


def test_an_order_that_is_too_old_expires(tmp_path: Path) -> None:
    valve = Valve()
    late = Command("1", "v", "move", GOOD, expires_ms=START_MS - 1)
    assert asyncio.run(_order(tmp_path, valve, late)).state == "expired"
    assert not valve.told


def test_a_link_that_is_down_sent_nothing_so_the_order_may_come_again(tmp_path: Path) -> None:
    async def body() -> None:
        valve = Valve()
        one = desk(tmp_path, valve, [])
        valve.error = LinkDown("no line")
        assert (await one.order(order())).code == "transport.down"
        valve.error = None
        assert (await one.order(order())).state == "done"

    asyncio.run(body())


def test_the_local_socket_belongs_to_the_agents_user_and_survives_nonsense(tmp_path: Path) -> None:
    async def body() -> None:
        valve = Valve()
        path = tmp_path / SOCKET
        clock = LoopClock(START_MS)
        task = asyncio.create_task(LocalSocket(path, desk(tmp_path, valve, []), clock).run())
        await asyncio.sleep(0)  # one turn of the loop: listening needs no waiting
        assert path.exists()
        assert path.stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"id": 3}\n')
        assert json.loads(await reader.readline())["code"] == "malformed"
        writer.close()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"x" * 100_000 + b"\n")
        assert await reader.read() == b""
        writer.close()
        outcome = await give(path, {"id": "7", "device": "v", "name": "move", "arguments": GOOD}, 5)
        assert outcome.state == "done"
        assert valve.told[0].expires_ms > START_MS
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not path.exists()

    asyncio.run(body())
