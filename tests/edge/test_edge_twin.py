"""The gateway's half of its twin over the outbox's own durable state: newest wins, truthful, survives restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.clock import LoopClock
from edge.outbox import Outbox
from edge.twin import Tell, Twin
from protocols.core.errors import ConfigError
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import Reported
from tests.edge.gateway import START_MS
from tests.support.spin import spin


def desired(name: str, version: int, document: Any = None) -> bytes:
    text = json.dumps({} if document is None else document).encode()
    return pb.Desired(name=name, version=version, document_json=text).SerializeToString()


class Box:
    """An outbox, a twin on it, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.outbox = Outbox(folder / "outbox.db", now_ms=START_MS, max_bytes=1 << 20)
        self.said: list[Reported] = []
        self.applied: list[tuple[int, Mapping[str, Any]]] = []
        self.hold: asyncio.Event | None = None
        self.begin()

    def begin(self) -> None:
        self.twin = Twin(self.outbox, LoopClock(START_MS), self.said.append)
        self.twin.handlers["config"] = self.apply

    async def apply(self, document: Mapping[str, Any], version: int, tell: Tell) -> None:
        if "wrong" in document:
            raise ConfigError("/wrong: no such thing")
        self.applied.append((version, document))
        tell("applying")
        if self.hold is not None:
            await self.hold.wait()
        tell("applied", document=document)

    def states(self) -> list[tuple[int, str]]:
        return [(one.version, one.state) for one in self.said]


async def settle(box: Box, until: int) -> None:
    """Run the twin until it has said so much."""
    task = asyncio.create_task(box.twin.run())
    await spin(lambda: len(box.said) >= until or task.done())
    task.cancel()
    await asyncio.wait([task])


def test_a_document_is_received_applied_and_told(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.twin.heard(desired("config", 4, {"a": 1}))
        await settle(box, 3)
        assert box.states() == [(4, "received"), (4, "applying"), (4, "applied")]
        assert box.said[-1].document == {"a": 1}
        box.twin.heard(desired("config", 4, {"a": 1}))  # the core has not heard it
        box.twin.heard(desired("config", 3, {"a": 0}))  # and an old one, late
        await settle(box, 4)
        assert box.states()[3:] == [(4, "applied")]
        assert len(box.applied) == 1

    asyncio.run(body())


def test_a_wrong_document_is_refused_with_its_place_and_the_next_is_taken(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.twin.heard(desired("config", 1, {"wrong": True}))
        await settle(box, 2)
        assert box.states() == [(1, "received"), (1, "refused")]
        assert "/wrong" in box.said[-1].detail
        box.twin.heard(desired("config", 2))
        await settle(box, 5)
        assert box.states()[-1] == (2, "applied")

    asyncio.run(body())


def test_what_was_begun_when_the_agent_died_is_begun_again(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.hold = asyncio.Event()
        box.twin.heard(desired("config", 7, {"a": 1}))
        await settle(box, 2)  # received, applying: and then the power goes
        box.hold = None
        box.begin()
        await settle(box, 4)
        assert box.states()[2:] == [(7, "applying"), (7, "applied")]
        assert [version for version, _ in box.applied] == [7, 7]

    asyncio.run(body())


def test_a_newer_document_overtakes_one_that_is_being_applied(tmp_path: Path) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.hold = asyncio.Event()
        box.twin.heard(desired("config", 1, {"a": 1}))
        task = asyncio.create_task(box.twin.run())
        await spin(lambda: bool(box.applied))
        box.twin.heard(desired("config", 2, {"a": 2}))
        box.hold.set()
        await spin(lambda: box.states()[-1] == (2, "applied"))
        task.cancel()
        # The first never claims to be in force after the second was asked for.
        assert (1, "applied") not in box.states()
        assert box.twin.version("config") == 2

    asyncio.run(body())


@pytest.mark.parametrize(
    "payload",
    [b"\xff\xff\xff", b"", desired("", 1), desired("x" * 65, 1), desired("config", 0)],
)
def test_what_is_no_document_is_counted_and_forgotten(tmp_path: Path, payload: bytes) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.twin.heard(payload)
        assert not box.said and box.twin.counters["twin_refused"] == 1

    asyncio.run(body())


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (pb.Desired(name="config", version=1, document_json=b"[1]"), "not a JSON object"),
        (pb.Desired(name="config", version=1, document_json=b"{" * 50_000), "not a JSON object"),
        (pb.Desired(name="config", version=1, document_json=b" " * 300_000), "at most"),
        (pb.Desired(name="colour", version=1, document_json=b"{}"), "knows no document"),
    ],
)
def test_a_document_that_cannot_be_one_is_refused_and_told(tmp_path: Path, message: pb.Desired, why: str) -> None:
    async def body() -> None:
        box = Box(tmp_path)
        box.twin.heard(message.SerializeToString())
        assert [one.state for one in box.said] == ["refused"] and why in box.said[0].detail
        box.begin()  # after a restart the same is known
        box.twin.heard(message.SerializeToString())
        assert [one.state for one in box.said] == ["refused", "refused"]

    asyncio.run(body())


@given(st.lists(st.integers(1, 6), max_size=12))
def test_whatever_order_versions_arrive_in_the_newest_is_in_force(versions: list[int]) -> None:
    class Memory:
        state: bytes | None = None

        def put_state(self, _name: str, value: bytes) -> None:
            self.state = value

        def get_state(self, _name: str) -> bytes | None:
            return self.state

    async def body() -> None:
        said: list[Reported] = []
        twin = Twin(Memory(), LoopClock(START_MS), said.append)
        in_force: list[int] = []

        async def apply(_document: Mapping[str, Any], version: int, _tell: Tell) -> None:
            in_force.append(version)

        twin.handlers["config"] = apply
        for version in versions:
            twin.heard(desired("config", version))
        task = asyncio.create_task(twin.run())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        assert in_force == ([max(versions)] if versions else [])
        if versions:
            assert (said[-1].version, said[-1].state) == (max(versions), "applied")

    asyncio.run(body())
