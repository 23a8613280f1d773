"""The pause between exchanges finds its own length; a TCP link gives what has come, and says when the other is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edge.connectors.base import Link
from edge.connectors.config import ModbusDevice, ModbusRtuConfig
from edge.connectors.gap import Gap
from edge.connectors.links import tcp_client
from edge.connectors.tcp_link import TcpLink
from protocols.core.errors import LinkDown
from tests.edge_connectors.peers import ModbusPeer
from tests.edge_connectors.test_modbus_bus import NOISE, play

# -- the pause


def test_it_begins_with_three_and_a_half_characters() -> None:
    assert Gap(None, 11 / 2400).s == pytest.approx(0.016, abs=0.001)
    assert Gap(None, 10 / 115_200).s == 0.00175


def test_what_a_site_has_written_stays() -> None:
    gap = Gap(0.05, 11 / 9600)
    for tries in (2, 2, 1, 3):
        gap.answered(tries)
    assert gap.s == 0.05


def test_it_grows_where_a_second_try_helps_and_shrinks_with_good_conduct() -> None:
    gap = Gap(None, 11 / 9600)
    least = gap.s
    for _ in range(20):
        gap.answered(2)
    assert gap.s == 0.1  # bounded
    for _ in range(5000):
        gap.answered(1)
    assert gap.s == least


class _Clone(ModbusPeer):
    """Firmware that is deaf for 30 ms after each of its answers."""

    free_at_s = 0.0

    async def serve(self, link: Link) -> None:
        outer = self

        class Deaf:
            async def read(self) -> bytes:
                while True:
                    data = await link.read()
                    if not data or asyncio.get_running_loop().time() >= outer.free_at_s:
                        return data

            async def write(self, data: bytes) -> None:
                await link.write(data)
                outer.free_at_s = asyncio.get_running_loop().time() + 0.03

            async def close(self) -> None:
                await link.close()

        await super().serve(Deaf())


def test_firmware_that_needs_a_rest_gets_it() -> None:
    device = ModbusDevice(id="n", type="env/noise_meter", unit=4, poll_s=0.01)
    config = ModbusRtuConfig(id="bus", port="x", device=(device,))
    peer = _Clone({4: NOISE})
    sink = play(config, peer, 20)
    assert sink.counts["polls_missed"] == 0
    # Without learning every poll would cost a time-out of 0.3 s: 60 polls in 20 s.
    assert len(sink.values("n", "laeq")) > 200


# -- TCP


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def talk(serve: Serve, body: Callable[[TcpLink], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, asyncio.timeout(10):
            link = await tcp_client("127.0.0.1", server.sockets[0].getsockname()[1])()
            assert isinstance(link, TcpLink)
            try:
                return await body(link)
            finally:
                await link.close()

    return asyncio.run(main())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_bytes_go_both_ways_and_nothing_is_lost() -> None:
    sent = bytes(range(256)) * 4096  # 1 MiB, more than any buffer on the way

    async def body(link: TcpLink) -> bytes:
        writing = asyncio.create_task(link.write(sent))
        out = bytearray()
        while len(out) < len(sent):
            out += await link.read()
        await writing
        return bytes(out)

    assert talk(echo, body) == sent


def test_what_has_come_is_had_without_waiting() -> None:
    async def body(link: TcpLink) -> tuple[bytes, bytes, bytes]:
        before = link.take()
        await link.write(b"abc")
        first = await link.read()
        await link.write(b"late")
        late = b""
        while len(late) < 4:
            await asyncio.sleep(0.001)
            late += link.take()
        return before, first, late

    assert talk(echo, body) == (b"", b"abc", b"late")


def test_the_other_end_closes() -> None:
    async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.close()

    async def body(link: TcpLink) -> None:
        assert await link.read() == b"bye"
        assert await link.read() == b""
        with pytest.raises(LinkDown, match="closed by the other end"):
            link.take()

    talk(bye, body)


def test_a_connection_that_breaks_is_down_not_closed() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async def body(link: TcpLink) -> None:
        await link.write(b"x")
        with pytest.raises(LinkDown):
            while True:
                if not await link.read():
                    raise LinkDown("closed")
                await link.write(b"x")

    talk(reset, body)


def test_a_peer_that_floods_us_has_to_wait() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 4_000_000)
        await writer.drain()

    async def body(link: TcpLink) -> int:
        await link.read()
        for _ in range(200):
            await asyncio.sleep(0.001)
        return len(link._held)

    assert talk(flood, body) < 64 * 1024 + 300_000  # the bound, and what one read of the transport may bring
