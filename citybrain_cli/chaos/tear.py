"""A power cut in the middle of a write, on the files of a killed process: the end of the write-ahead log is torn.

What an fsync has confirmed survives a power cut; what was being written after it is there in part, wrong, or not at
all. So everything up to the last whole commit in the log stays, and behind it comes what a disk may have of the next.

Format of the log: https://www.sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_MAGIC = (0x377F0682, 0x377F0683)


def whole_bytes(log: bytes) -> int:
    """Length of the log up to the end of its last whole commit; 0: there is none (nothing in it counts)."""
    last = 0
    for end, commits in _frames(log):
        if commits:
            last = end
    return last


def _frames(log: bytes) -> Iterator[tuple[int, bool]]:
    """Valid frames: where each ends, and whether it ends a transaction."""
    if len(log) < HEADER_BYTES:
        return
    magic, _, page, _, salt1, salt2, sum1, sum2 = struct.unpack(">8I", log[:HEADER_BYTES])
    if magic not in _MAGIC:
        return
    order = ">" if magic & 1 else "<"
    running = _checksum(log[:24], (0, 0), order)
    if running != (sum1, sum2):
        return
    page = 65536 if page == 1 else page
    at = HEADER_BYTES
    while at + _FRAME_HEADER_BYTES + page <= len(log):
        head = log[at : at + _FRAME_HEADER_BYTES]
        _, size_after, s1, s2, c1, c2 = struct.unpack(">6I", head)
        body = log[at + _FRAME_HEADER_BYTES : at + _FRAME_HEADER_BYTES + page]
        running = _checksum(body, _checksum(head[:8], running, order), order)
        if (s1, s2) != (salt1, salt2) or running != (c1, c2):
            return
        at += _FRAME_HEADER_BYTES + page
        yield at, size_after != 0


def _checksum(data: bytes, start: tuple[int, int], order: str) -> tuple[int, int]:
    s0, s1 = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        s0 = (s0 + first + s1) & 0xFFFFFFFF
        s1 = (s1 + second + s0) & 0xFFFFFFFF
    return s0, s1


def tail(database: Path, amount: float) -> str:
    """Tear what lies behind the last whole commit; ``amount`` 0 to 1 chooses how. Says what was done.

    A log that ends with a whole commit gets the beginning of one that was never finished."""
    path = database.with_name(database.name + "-wal")
    database.with_name(database.name + "-shm").unlink(missing_ok=True)  # shared memory: gone with the power
    if not path.exists():
        return "no write-ahead log"
    log = path.read_bytes()
    keep = whole_bytes(log)
    if keep == 0:
        return "the log holds no commit"
    rest = log[keep:]
    if not rest:
        # The next commit's first frames as they would look: the last ones again, with their old checksums.
        rest = log[max(HEADER_BYTES, keep - 3 * 4120) : keep]
    length = int(len(rest) * amount)
    torn = bytearray(rest[:length])
    for at in range(0, len(torn), 1536):  # of three sectors one never reached the disk
        torn[at : at + 512] = bytes(len(torn[at : at + 512]))
    with path.open("r+b") as file:
        file.truncate(keep)
        file.seek(keep)
        file.write(torn)
        os.fsync(file.fileno())
    return f"log torn {length} bytes behind its last whole commit"
