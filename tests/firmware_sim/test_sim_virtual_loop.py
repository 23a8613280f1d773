"""Virtual time: jumps, stays in order, and says so when it cannot go on."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from firmware_sim.clock import LoopClock
from firmware_sim.rig.virtual_loop import ForeignThread, VirtualLoop, VirtualStall, run_virtual

START_MS = 1_772_409_600_000


def test_three_hours_of_one_second_timers_run_in_seconds() -> None:
    ticks: list[int] = []

    async def tick(clock: LoopClock) -> None:
        for _ in range(3 * 3600):
            await asyncio.sleep(1.0)
            ticks.append(clock.now_ms())

    async def main() -> float:
        clock = LoopClock(START_MS)
        await asyncio.gather(*(tick(clock) for _ in range(5)))
        return asyncio.get_running_loop().time()

    began_s = time.perf_counter()
    assert run_virtual(main(), START_MS) == pytest.approx(3 * 3600, abs=1e-3)
    assert time.perf_counter() - began_s < 20  # 54 000 timers; under a second on an idle machine
    assert ticks[::5] == [START_MS + 1000 * n for n in range(1, 3 * 3600 + 1)]


def test_timers_fire_in_the_order_of_their_time_and_then_of_their_making() -> None:
    order: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(2.0, order.append, "late")
        loop.call_later(1.0, order.append, "first")
        loop.call_later(1.0, order.append, "second")
        await asyncio.sleep(3)

    run_virtual(main())
    assert order == ["first", "second", "late"]


def test_loop_states_the_utc_it_plays() -> None:
    async def main() -> int:
        await asyncio.sleep(86_400.25)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop.now_ms()

    assert run_virtual(main(), START_MS) == START_MS + 86_400_250


def test_timeout_of_asyncio_works() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7.5):
                await asyncio.get_running_loop().create_future()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(7.5)


def test_waiting_for_nothing_is_an_error_that_names_the_place() -> None:
    async def wait_for_godot() -> None:
        await asyncio.sleep(5)
        await asyncio.Event().wait()

    with pytest.raises(
        VirtualStall, match=r"5\.000 s: nothing can run and no timer is set; waiting: .*virtual_loop\.py:\d+"
    ):
        run_virtual(wait_for_godot())


def test_spinning_without_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware_sim.rig.virtual_loop.SPIN_LIMIT", 1000)

    async def spin() -> None:
        for _ in range(10_000):
            await asyncio.sleep(0)

    with pytest.raises(VirtualStall, match="time does not move"):
        run_virtual(spin())


def test_blocking_work_for_a_thread_runs_in_place() -> None:
    async def main() -> tuple[str, float]:
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return name, asyncio.get_running_loop().time()

    assert run_virtual(main()) == (threading.current_thread().name, 0.0)


def test_a_real_thread_that_calls_in_is_refused() -> None:
    refused: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def call_in() -> None:
            try:
                loop.call_soon_threadsafe(refused.clear)
            except ForeignThread as error:
                refused.append(error)

        thread = threading.Thread(target=call_in, name="stranger")
        thread.start()
        thread.join()
        await asyncio.sleep(1)

    with pytest.raises(ForeignThread, match="stranger"):
        run_virtual(main())
    assert len(refused) == 1


def test_real_sockets_are_refused() -> None:
    async def listen() -> None:
        await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)

    async def dial() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    async def process() -> None:
        await asyncio.create_subprocess_exec("true")

    for attempt in (listen, dial, process):
        with pytest.raises(ForeignThread, match="do not run in virtual time"):
            run_virtual(attempt())
