"""A piece of disk kept back for the moment when the disk is full.

A full disk refuses even the transaction that would make room. So a file of some size lies beside the outbox; it is
given up when a commit is refused, and taken again when the disk has room for more than that.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 4 << 20  # twice what the write-ahead log may hold (file.py)
_TAKE_AGAIN_FROM_BYTES = 3 * RESERVE_BYTES


class Reserve:
    def __init__(self, outbox: Path) -> None:
        self._path = outbox.with_name(outbox.name + ".reserve")
        self._held = self._path.exists()
        self.take()

    def take(self) -> bool:
        """Lay it aside, if there is plenty of room. True if it is there."""
        if self._held:
            return True
        with suppress(OSError):
            if shutil.disk_usage(self._path.parent).free < _TAKE_AGAIN_FROM_BYTES:
                return False
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
                self._held = True
            finally:
                os.close(handle)
                if not self._held:
                    self._path.unlink(missing_ok=True)
        return self._held

    def give_up(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._held = False
