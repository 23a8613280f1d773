"""A TCP proxy that can go silent: the connection stays open, the other end's kernel still answers, nothing passes.

``PASS`` carries bytes both ways; ``SWALLOW`` reads and throws away; ``STUCK`` does not even read, so that the sender's
buffers fill. New connections are accepted in every mode.
"""

from __future__ import annotations

import asyncio
from typing import Literal

Mode = Literal["PASS", "SWALLOW", "STUCK"]


class SilentProxy:
    """Runs on the event loop. ``silent_after``: bytes from the client after which it goes silent by itself."""

    def __init__(self, port: int, *, mode: Mode = "PASS", silent_after: int = 1 << 60) -> None:
        self._to = port
        self._mode: Mode = mode
        self._silent_after = silent_after
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.silent_since_s = 0.0
        self.opened = 0

    async def __aenter__(self) -> SilentProxy:
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def turn(self, mode: Mode) -> None:
        self._mode = mode
        self.silent_since_s = asyncio.get_running_loop().time()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers += [writer, back_writer]
        for source, sink, counts in ((reader, back_writer, True), (back_reader, writer, False)):
            task = asyncio.create_task(self._carry(source, sink, counts))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counts: bool) -> None:
        passed = 0
        try:
            while True:
                while self._mode == "STUCK":  # noqa: ASYNC110 - a test's proxy; nobody has an event for it
                    await asyncio.sleep(0.05)
                data = await source.read(4096)
                if not data:
                    if self._mode == "PASS":  # a silent link does not say either that the other end has gone
                        sink.close()
                    return
                if counts and self._mode == "PASS" and passed >= self._silent_after:
                    self.turn("SWALLOW")
                if self._mode == "PASS":
                    passed += len(data)
                    sink.write(data)
                    await sink.drain()
        except (ConnectionError, RuntimeError):
            return
