"""Links: memory pipes, TCP both ways, a serial line by pty, and the time that bytes take on a real one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import serial

from firmware_sim.links.base import Link
from firmware_sim.links.memory import CAPACITY_BYTES, memory_pair
from firmware_sim.links.pace import LineTime, PacedLink
from firmware_sim.links.pty import PtyLink
from firmware_sim.links.tcp import Backoff, TcpListener, host_port, tcp_dial
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.errors import ConfigError, LinkDown, LinkRefused

# -- memory ---------------------------------------------------------------------------------------------------------


def test_memory_pipe_carries_bytes_in_order_and_then_the_end() -> None:
    async def main() -> list[bytes]:
        near, far = memory_pair()
        await near.write(b"ab")
        await near.write(b"c")
        await near.close()
        return [await far.read(), await far.read()]

    assert run_virtual(main()) == [b"abc", b""]


def test_memory_pipe_tells_a_writer_that_nobody_is_there() -> None:
    async def main() -> None:
        near, far = memory_pair()
        await far.close()
        assert near.closed
        with pytest.raises(LinkDown):
            await near.write(b"x")
        with pytest.raises(LinkDown):
            await far.read()

    run_virtual(main())


def test_cut_cable_loses_what_is_under_way() -> None:
    async def main() -> None:
        near, far = memory_pair()
        await near.write(b"lost")
        reader = asyncio.create_task(near.read())
        await asyncio.sleep(1)
        far.break_()
        for read in (reader, asyncio.create_task(far.read())):
            with pytest.raises(LinkDown):
                await read

    run_virtual(main())


def test_memory_pipe_is_bounded() -> None:
    async def main() -> list[int]:
        near, far = memory_pair()
        done: list[int] = []

        async def write() -> None:
            for n in range(3):
                await near.write(bytes(CAPACITY_BYTES))
                done.append(n)

        writer = asyncio.create_task(write())
        await asyncio.sleep(1)
        assert done == [0]
        sizes = [len(await far.read()) for _ in range(3)]
        await writer
        return sizes

    assert run_virtual(main()) == [CAPACITY_BYTES] * 3


# -- TCP ------------------------------------------------------------------------------------------------------------


async def echo(link: Link) -> None:
    while data := await link.read():
        await link.write(data.upper())


def test_tcp_listener_serves_several_loses_power_and_comes_back() -> None:
    async def main() -> None:
        listener = TcpListener("127.0.0.1:0", echo)
        await listener.resume()
        dial = tcp_dial(listener.address)
        links = [await dial() for _ in range(2)]
        for link in links:
            await link.write(b"hello")
        assert [await link.read() for link in links] == [b"HELLO", b"HELLO"]
        await listener.pause()
        assert [await link.read() for link in links] == [b"", b""]
        with pytest.raises(LinkDown, match="cannot reach"):
            await dial()
        await listener.resume()  # on the same port
        back = await dial()
        await back.write(b"again")
        assert await back.read() == b"AGAIN"
        for link in (*links, back):
            await link.close()
        await listener.pause()

    asyncio.run(main())


def test_port_that_is_taken_is_refused_with_its_name() -> None:
    async def main() -> None:
        first = TcpListener("127.0.0.1:0", echo)
        await first.resume()
        with pytest.raises(LinkRefused, match=f"cannot listen on {first.address}"):
            await TcpListener(first.address, echo).resume()
        await first.pause()

    asyncio.run(main())


@pytest.mark.parametrize("text", ["localhost", "1.2.3.4:", ":80", "h:99999", "h:x"])
def test_address_must_be_host_and_port(text: str) -> None:
    with pytest.raises(ConfigError, match=r"bus x: connect: .* is not host:port"):
        host_port(text, "bus x: connect")


def test_backoff_doubles_to_its_limit_and_starts_over() -> None:
    backoff = Backoff(seed=1)
    waits = [backoff.next_s() for _ in range(8)]
    for wait, nominal in zip(waits, [0.5, 1, 2, 4, 5, 5, 5, 5], strict=True):
        assert 0.8 * nominal <= wait <= 1.2 * nominal
    backoff.reset()
    assert backoff.next_s() <= 0.6
    assert [Backoff(seed=1).next_s()] == waits[:1]


# -- serial line ----------------------------------------------------------------------------------------------------


def exchange(path: Path, data: bytes, want: int) -> bytes:
    """What an agent does, with the serial library everybody uses."""
    with serial.Serial(str(path), 9600, timeout=5) as port:
        port.write(data)
        return bytes(port.read(want))


def test_serial_line_survives_the_agent_closing_and_opening_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "site-485"
    every_byte = bytes(range(256))  # raw: no echo, no line ends, no control characters

    async def main() -> None:
        line = PtyLink.open(path)
        serving = asyncio.create_task(mirror(line))
        for _ in range(3):
            assert await asyncio.to_thread(exchange, path, every_byte, 256) == every_byte[::-1]
        await line.close()
        with pytest.raises(LinkDown):
            await serving
        assert not path.is_symlink()

    async def mirror(line: PtyLink) -> None:
        held = b""
        while True:
            held += await line.read()
            if len(held) == 256:
                await line.write(held[::-1])
                held = b""

    asyncio.run(main())


def test_old_link_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "line"
    path.symlink_to("/dev/null")

    async def main() -> None:
        first = PtyLink.open(path)
        second = PtyLink.open(path)  # a simulator that was killed left its link behind
        await first.close()
        assert path.is_symlink()  # the link is the second's by now
        await second.close()
        assert not path.is_symlink()

    asyncio.run(main())
    path.write_text("mine")
    with pytest.raises(LinkRefused, match="exists and is no link"):
        PtyLink.open(path)
    assert path.read_text() == "mine"


def test_writing_to_a_line_that_nobody_reads_never_blocks(tmp_path: Path) -> None:
    async def main() -> None:
        line = PtyLink.open(tmp_path / "line")
        async with asyncio.timeout(10):
            for _ in range(200):
                await line.write(bytes(1024))
        await line.close()
        await line.close()

    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    asyncio.run(main())
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


# -- line time ------------------------------------------------------------------------------------------------------


def test_bytes_take_their_time_both_ways() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        near, far = memory_pair()
        line = LineTime(2400, 11)
        paced = PacedLink(near, line)
        await far.write(bytes(24))  # 24 bytes of 11 bits at 2400 bit/s = 0.11 s
        assert await paced.read() == bytes(24)
        heard_s = loop.time()
        answer = asyncio.create_task(paced.write(bytes(48)))
        held = b""
        pieces = 0
        while len(held) < 48:
            held += await far.read()
            pieces += 1
        await answer
        assert pieces > 5  # the frame grows on the wire
        assert line.busy_s == pytest.approx(0.33)
        return heard_s, loop.time()

    assert run_virtual(main()) == pytest.approx((0.11, 0.33), abs=1e-4)


def test_late_sleeper_does_not_slow_the_line_down() -> None:
    async def main() -> float:
        line = LineTime(9600, 10)
        await asyncio.gather(*(line.carry(96) for _ in range(10)))  # booked at once, 0.1 s each
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(1.0, abs=1e-4)
