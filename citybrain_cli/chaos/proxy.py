"""Where no namespaces are allowed: a TCP relay in front of the broker that can be cut, go silent or be slow.

It relays a stream, so what it calls loss is what TCP makes of loss: a piece that must be sent again arrives one
retransmission timeout later, and all behind it waits. A cut closes every connection and refuses new ones; silence keeps
them open, takes everything and passes nothing on.

Runs as ``python -m citybrain_cli.chaos.proxy --listen PORT --to PORT --seed N``; commands as for the cable (link.py),
and ``{"cut": true}``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Sequence

from citybrain_cli.chaos.weather import CALM, Weather

_PIECE_BYTES = 1400
_TIMEOUT_S = 0.2  # Linux's smallest retransmission timeout
_PIECES = 1000  # on their way in one direction; beyond it the sender's window closes


class Proxy:
    """One listening port, one target on loopback. ``port``: where it listens (0: not)."""

    def __init__(self, listen: int, to: int, seed: int) -> None:
        self._listen, self._to = listen, to
        self._random = random.Random(seed)  # noqa: S311 - a seeded fault, not a secret
        self._weather = CALM
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = self.passed = self.late = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._listen)

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1]) if self._server is not None else 0

    async def cut(self) -> None:
        """Nobody gets in, and who was in is thrown out."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        for writer in list(self._writers):
            writer.transport.abort()

    async def set(self, weather: Weather, *, cut: bool) -> None:
        self._weather = weather
        self._changed.set()
        self._changed = asyncio.Event()
        if cut:
            await self.cut()
        elif self._server is None:
            await self.open()

    def counts(self) -> dict[str, int]:
        return {"connections": self.connections, "passed": self.passed, "late": self.late}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.add(far_writer)
            try:
                async with asyncio.TaskGroup() as group:
                    for source, target in ((reader, far_writer), (far_reader, writer)):
                        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)
                        group.create_task(self._take(source, pieces))
                        group.create_task(self._give(pieces, target))
            finally:
                self._writers.discard(far_writer)
                far_writer.close()
        except (OSError, ExceptionGroup):
            pass  # either side has gone; the other hears of it by the close
        except asyncio.CancelledError:
            return  # cut
        finally:
            if task is not None:
                self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _take(self, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Each piece with the time at which it arrives; one that is late delays all behind it."""
        arrives_s = 0.0
        while data := await reader.read(_PIECE_BYTES):
            weather = self._weather
            delay_s = weather.delay_s
            while weather.loss and self._random.random() < weather.loss:
                delay_s += _TIMEOUT_S
                self.late += 1
            arrives_s = max(arrives_s, asyncio.get_running_loop().time() + delay_s)
            await pieces.put((arrives_s, data))
        raise ConnectionResetError  # one direction has ended: so does the other

    async def _give(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            arrives_s, data = await pieces.get()
            if arrives_s > loop.time():
                await asyncio.sleep(arrives_s - loop.time())
            while self._weather.swallow:  # held back for as long as it is silent: TCP would send it again afterwards
                await self._changed.wait()
            writer.write(data)
            await writer.drain()
            self.passed += 1


async def serve(listen: int, to: int, seed: int) -> None:
    proxy = Proxy(listen, to, seed)
    await proxy.open()
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        try:
            what = json.loads(line)
            if "ask" in what:
                said: dict[str, object] = dict(proxy.counts())
            else:
                await proxy.set(Weather.from_json(what), cut=isinstance(what, dict) and bool(what.get("cut")))
                said = {"set": True}
        except (ValueError, KeyError, TypeError) as error:
            said = {"error": str(error)}
        print(json.dumps(said), flush=True)
    await proxy.cut()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args(argv)
    asyncio.run(serve(options.listen, options.to, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
