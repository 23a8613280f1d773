"""Tells systemd that the agent is up and that its event loop still turns: sd_notify(3), and WatchdogSec of its unit.

An agent that hangs without ending looks healthy to everybody but this: no word within ``WatchdogSec``, and systemd
starts it anew. Without systemd (``NOTIFY_SOCKET`` is not set) it does nothing. ``STOPPING=1`` is not said: the agent's
parts also end to start anew with another configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

_SHORTEST_S = 0.05


class Watchdog:
    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        usec = environ.get("WATCHDOG_USEC", "")
        asked = usec.isascii() and usec.isdecimal() and int(usec) > 0
        #: Half of what systemd allows, as its manual advises; None: no watchdog asked for.
        self.every_s = max(_SHORTEST_S, int(usec) / 2e6) if asked else None

    async def run(self) -> None:
        """Say ready, then say alive for as long as the loop turns; until cancelled."""
        if not self._address:
            return
        self._say(b"READY=1")
        while self.every_s is not None:
            await asyncio.sleep(self.every_s)
            self._say(b"WATCHDOG=1")

    def _say(self, word: bytes) -> None:
        """A datagram that is lost is said again half a period later."""
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(word, address)
