"""What systemd hears of the agent, on a real notification socket."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from edge.watchdog import Watchdog


def words(channel: socket.socket) -> list[bytes]:
    found = []
    channel.setblocking(False)
    while True:
        try:
            found.append(channel.recv(100))
        except BlockingIOError:
            return found


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_then_alive_and_silent_while_the_loop_hangs(tmp_path: Path, abstract: bool) -> None:
    name = f"@citybrain-test-{time.monotonic_ns()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name[1:] if abstract else name)

        async def run() -> tuple[list[bytes], list[bytes]]:
            watchdog = Watchdog({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "100000"})
            assert watchdog.every_s == 0.05
            task = asyncio.create_task(watchdog.run())
            while True:
                heard = []
                while len(heard) < 3:
                    await asyncio.sleep(0.01)
                    heard += words(channel)
                time.sleep(0.2)  # noqa: ASYNC251 - the loop hangs, that is the test
                during = words(channel)
                task.cancel()
                return heard, during

        heard, during = asyncio.run(run())
    assert heard[0] == b"READY=1" and set(heard[1:]) == {b"WATCHDOG=1"} and during == []


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "x"},
    ],
)
def test_without_systemd_it_ends_at_once(environ: dict[str, str]) -> None:
    asyncio.run(asyncio.wait_for(Watchdog(environ).run(), 5))
