"""Messages over a byte pipe, a line each: what keeps OCPP's messages apart where there is no WebSocket."""

from __future__ import annotations

from firmware_sim.links.base import Link

MAX_LINE_BYTES = 1 << 20


class LineLink:
    """``read`` gives one line without its end; several lines may be written at once."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._held = b""

    async def read(self) -> bytes:
        while True:
            line, end, rest = self._held.partition(b"\n")
            if end:
                self._held = rest
                if line:
                    return line
                continue
            data = await self._link.read()
            if not data or len(self._held) > MAX_LINE_BYTES:
                return b""
            self._held += data

    async def write(self, data: bytes) -> None:
        await self._link.write(data)

    async def close(self) -> None:
        await self._link.close()
