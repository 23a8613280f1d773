"""Restarts with growing pauses; lost and back are each said once; a wrong program ends the agent."""

from __future__ import annotations

import asyncio
import logging

import pytest

from edge.supervisor import Supervised
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.errors import ConfigError, LinkDown, LinkRefused, LinkTimeout, TransportError


def play(story: list[tuple[float, Exception | None]]) -> tuple[list[float], Supervised]:
    """Each entry: serve so long (s), then fail so (None: finished for good). The times at which it was started."""
    starts: list[float] = []

    async def run() -> None:
        starts.append(asyncio.get_running_loop().time())
        serve_s, error = story[len(starts) - 1]
        await asyncio.sleep(serve_s)
        if error is not None:
            raise error

    supervised = Supervised("meters", run, jitter=lambda _low, high: high)
    run_virtual(supervised.run())
    return starts, supervised


def test_pauses_grow_to_half_a_minute() -> None:
    starts, supervised = play([(0, LinkDown("no"))] * 10 + [(0, None)])
    assert starts == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5, 121.5, 151.5]
    assert supervised.restarts == 10


def test_jitter_halves_a_pause_at_most() -> None:
    asked: list[tuple[float, float]] = []
    calls = 0

    async def run() -> None:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise LinkTimeout("no")

    def jitter(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    run_virtual(Supervised("x", run, jitter=jitter).run())
    assert asked == [(0.5, 1.0)] * 3


def test_who_served_for_a_while_begins_anew() -> None:
    starts, _ = play([(0, LinkDown("a")), (0, LinkDown("b")), (100, LinkDown("c")), (0, LinkDown("d")), (0, None)])
    assert starts == [0, 0.5, 1.5, 102.0, 103.0]


def test_what_time_does_not_heal_waits_longest() -> None:
    assert play([(0, LinkRefused("no right")), (0, None)])[0] == [0, 30.0]


def test_lost_once_back_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "citybrain.edge.supervisor")
    story: list[tuple[float, Exception | None]] = [(1, LinkDown("cable"))] * 5
    story += [(60, LinkDown("again"))] + [(1, LinkDown("cable"))] * 3 + [(60, None)]
    _, supervised = play(story)
    said = [record.message for record in caplog.records]
    assert said == ["meters lost: cable", "meters back", "meters lost: again", "meters back"]
    assert supervised.error == ""


def test_the_error_stands_while_it_lasts() -> None:
    seen: list[str] = []

    async def body() -> None:
        async def run() -> None:
            raise LinkDown("cable")

        supervised = Supervised("x", run)
        task = asyncio.create_task(supervised.run())
        await asyncio.sleep(5)
        seen.append(supervised.error)
        task.cancel()

    run_virtual(body())
    assert seen == ["cable"]


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), ConfigError("wrong"), OSError("raw")])
def test_a_programming_error_is_not_retried(error: Exception) -> None:
    assert not isinstance(error, TransportError)
    with pytest.raises(type(error)):
        play([(0, error), (0, None)])
