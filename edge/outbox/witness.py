"""A small file beside the outbox that remembers how far it had come, to tell a restored copy from the original.

It is written after each commit, in place and without fsync: it may lag behind the outbox after a power cut, but it is
never ahead of it. So an outbox behind its witness is an old copy that somebody has put back, and going on from there
would give sequence numbers away that the core has already seen with other content.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from protocols.uplink.topics import LANES, Lane

_FORM = struct.Struct("<4sI" + "QQ" * len(LANES))
_MAGIC = b"CBW1"


@dataclass(frozen=True, slots=True)
class Testimony:
    epoch: int
    lanes: Mapping[Lane, tuple[int, int]]  # last row written, last row acknowledged


class Witness:
    """Never a reason to stop: a witness that cannot be written or read is none."""

    def __init__(self, outbox: Path) -> None:
        self.path = outbox.with_name(outbox.name + ".witness")
        self._handle: int | None = None

    def read(self) -> Testimony | None:
        """None if there is none, or if it is garbled."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        if len(data) != _FORM.size + 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            return None
        magic, epoch, *numbers = _FORM.unpack(data[:-4])
        if magic != _MAGIC:
            return None
        return Testimony(epoch, {lane: (numbers[2 * n], numbers[2 * n + 1]) for n, lane in enumerate(LANES)})

    def write(self, epoch: int, lanes: Mapping[Lane, tuple[int, int]]) -> None:
        numbers = [number for lane in LANES for number in lanes[lane]]
        body = _FORM.pack(_MAGIC, epoch, *numbers)
        with suppress(OSError):
            if self._handle is None:
                self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            os.pwrite(self._handle, body + zlib.crc32(body).to_bytes(4, "little"), 0)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
