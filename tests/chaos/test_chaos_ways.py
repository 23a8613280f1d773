"""The ways between field and city: a relay on loopback, a cable between namespaces where the machine allows it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import pytest

from citybrain_cli.chaos import link
from citybrain_cli.chaos.proxy import Proxy
from citybrain_cli.chaos.weather import CALM, Weather
from tests.fixtures.wait import until


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that gives back what it gets; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with echo() as port:
        proxy = Proxy(0, port, seed=1)
        await proxy.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            yield proxy, reader, writer
        finally:
            writer.close()
            await proxy.cut()


def test_a_calm_relay_passes_everything() -> None:
    async def go() -> None:
        async with relayed() as (proxy, reader, writer):
            sent = os.urandom(300_000)
            writer.write(sent)
            assert await asyncio.wait_for(reader.readexactly(len(sent)), 10) == sent
            assert proxy.counts()["connections"] == 1

    asyncio.run(go())


def test_a_hole_keeps_the_connection_open_and_gives_nothing() -> None:
    async def go() -> None:
        async with relayed() as (proxy, reader, writer):
            await proxy.set(Weather(swallow=True), cut=False)
            writer.write(b"anybody there?")
            await writer.drain()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(100), 0.3)
            assert not reader.at_eof()
            await proxy.set(CALM, cut=False)
            assert await asyncio.wait_for(reader.readexactly(14), 10) == b"anybody there?"

    asyncio.run(go())


def test_delay_is_paid_once_not_by_each_piece() -> None:
    async def go() -> None:
        async with relayed() as (proxy, reader, writer):
            await proxy.set(Weather(delay_s=0.2), cut=False)
            loop = asyncio.get_running_loop()
            begun_s = loop.time()
            writer.write(bytes(100_000))  # some seventy pieces
            await asyncio.wait_for(reader.readexactly(100_000), 10)
            assert 0.4 <= loop.time() - begun_s < 5

    asyncio.run(go())


def test_a_cut_throws_out_and_refuses() -> None:
    async def go() -> None:
        async with relayed() as (proxy, reader, _):
            port = proxy.port
            await proxy.set(CALM, cut=True)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 10)
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(go())


def test_the_relays_process_obeys_and_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as target, socket.create_server(("127.0.0.1", 0)) as free:
        to, listen = target.getsockname()[1], free.getsockname()[1]
        free.close()
        argv = [sys.executable, "-m", "citybrain_cli.chaos.proxy", "--listen", str(listen), "--to", str(to)]
        with _way([*argv, "--seed", "1"]) as way:
            assert way.tell({"loss": 0.5, "delay_s": 0.01}) == {"set": True}
            assert "error" in way.tell({"loss": 7})
            assert "error" in way.tell([])
            assert way.tell({"ask": "counts"}) == {"connections": 0, "passed": 0, "late": 0}
            assert way.tell({"cut": True}) == {"set": True}
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", listen)) != 0


# -- the cable

_MAY = os.geteuid() == 0 and Path("/dev/net/tun").exists()


class _way:
    """The helper's process."""

    def __init__(self, argv: list[str]) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.to: IO[bytes] = self.process.stdin
        self.words: IO[bytes] = self.process.stdout
        self.complaints: IO[bytes] = self.process.stderr

    def __enter__(self) -> _way:
        line = self.words.readline()
        assert line, self.complaints.read().decode()[-500:]
        assert json.loads(line) == {"ready": True}
        return self

    def __exit__(self, *_: object) -> None:
        self.to.close()  # the end of its commands is its end
        try:
            assert self.process.wait(10) == 0
        finally:
            self.process.kill()
            self.process.wait()
            self.words.close()
            self.complaints.close()

    def tell(self, what: object) -> object:
        self.to.write(json.dumps(what).encode() + b"\n")
        self.to.flush()
        return json.loads(self.words.readline())


@pytest.fixture
def namespaces() -> Iterator[tuple[int, int]]:
    """Two processes that hold a network namespace each: city, field."""
    if not _MAY:
        pytest.skip("network namespaces and TUN devices need root and /dev/net/tun")
    held = [subprocess.Popen(["unshare", "--net", "sleep", "120"], stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        ours = Path("/proc/self/ns/net").readlink()
        for one in held:
            until(
                lambda one=one: one.poll() is not None or Path(f"/proc/{one.pid}/ns/net").readlink() != ours,
                "a namespace of its own",
            )
            if one.poll() is not None:
                pytest.skip("no network namespaces are allowed here")
        yield held[0].pid, held[1].pid
    finally:
        for one in held:
            one.kill()
            one.wait()


def _inside(pid: int, *argv: str) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", *argv]


_ECHO = """
import socket
with socket.create_server(("{host}", 7777)) as server:
    print("listening", flush=True)
    while True:
        conn, _ = server.accept()
        while data := conn.recv(65536):
            conn.sendall(data)
        conn.close()
"""
#: Sends, and prints how much comes back within so many seconds.
_TALK = """
import os, socket, sys
sent = bytes({size})
with socket.create_connection(("{host}", 7777), timeout={timeout}) as conn:
    got = 0
    conn.sendall(sent)
    try:
        while got < len(sent):
            got += len(conn.recv(65536)) or sys.exit("closed")
    except TimeoutError:
        pass
    print(got)
"""


def _talk(pid: int, size: int, timeout_s: float) -> int:
    """Bytes that came back, over a new connection."""
    text = _TALK.format(host=link.CITY, size=size, timeout=timeout_s)
    done = subprocess.run(
        _inside(pid, sys.executable, "-c", text), capture_output=True, text=True, timeout=60, check=False
    )
    return int(done.stdout) if done.returncode == 0 else -1


def test_real_tcp_over_the_cable_sees_loss_delay_and_silence(namespaces: tuple[int, int]) -> None:
    city, field = namespaces
    argv = [sys.executable, "-m", "citybrain_cli.chaos.link", "--field", str(field), "--seed", "1"]
    with _way(_inside(city, *argv)) as way:
        server = subprocess.Popen(
            _inside(city, sys.executable, "-c", _ECHO.format(host=link.CITY)), stdout=subprocess.PIPE
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline()
            assert _talk(field, 200_000, 10) == 200_000
            way.tell({"loss": 0.2, "delay_s": 0.02})
            assert _talk(field, 20_000, 30) == 20_000  # TCP sends again until it is through
            counts = way.tell({"ask": "counts"})
            assert isinstance(counts, dict)
            assert counts["up"]["lost"] > 0
            way.tell({"swallow": True})
            assert _talk(field, 100, 0.5) == -1  # nobody answers the SYN
            assert way.tell({"delay_s": -1}) == {"error": "loss is 0 to 1, delay_s 0 to 60"}
            way.tell({})
            assert _talk(field, 1000, 10) == 1000
        finally:
            server.kill()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()
