"""A serial line without a cable: the agent opens a pty by the configured name as it would open /dev/ttyUSB0.

The simulator keeps the agent's side of the pty open itself. So the agent may close and open it as it likes, and the
line is still there, as a cable is: without that, the first close would make every read here fail with EIO.
"""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from pathlib import Path

from protocols.core.errors import LinkDown, LinkRefused

READ_BYTES = 4096


class PtyLink:
    """The device end of a pty whose other end is linked at ``path``. Make it with :meth:`open`."""

    def __init__(self, path: Path, master_fd: int, slave_fd: int) -> None:
        self.path = path
        self._master_fd = master_fd
        self._slave_fd = slave_fd
        self._target = os.ttyname(slave_fd)
        self._closed = False
        self._woken = asyncio.Event()

    @classmethod
    def open(cls, path: str | Path) -> PtyLink:
        """Make the pty and link it at ``path``. An old link is replaced; anything else of that name is not."""
        where = Path(path)
        if where.exists() and not where.is_symlink():
            raise LinkRefused(f"{where} exists and is no link: not replaced")
        master_fd, slave_fd = os.openpty()
        try:
            tty.setraw(slave_fd, termios.TCSANOW)  # no echo, no line editing: bytes go through as they are
            os.set_blocking(master_fd, False)
            where.parent.mkdir(parents=True, exist_ok=True)
            fresh = where.with_name(f".{where.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(os.ttyname(slave_fd))
            fresh.replace(where)
        except OSError as error:
            os.close(master_fd)
            os.close(slave_fd)
            raise LinkRefused(f"cannot offer a serial line at {where}: {error.strerror or error}") from error
        return cls(where, master_fd, slave_fd)

    async def read(self) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            if self._closed:
                raise LinkDown(f"{self.path}: read on a closed line")
            try:
                return os.read(self._master_fd, READ_BYTES)
            except BlockingIOError:
                self._woken.clear()
                loop.add_reader(self._master_fd, self._woken.set)
                try:
                    await self._woken.wait()
                finally:
                    if not self._closed:
                        loop.remove_reader(self._master_fd)
            except OSError as error:
                raise LinkDown(f"{self.path}: {error.strerror or error}") from error

    async def write(self, data: bytes) -> None:
        """Put the bytes on the line. What nobody takes out of a full line is lost, as on a wire."""
        if self._closed:
            raise LinkDown(f"{self.path}: write on a closed line")
        try:
            os.write(self._master_fd, data)
        except BlockingIOError:
            return
        except OSError as error:
            raise LinkDown(f"{self.path}: {error.strerror or error}") from error

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self.path.is_symlink() and str(self.path.readlink()) == self._target:
            self.path.unlink()
        asyncio.get_running_loop().remove_reader(self._master_fd)
        self._woken.set()  # whoever still reads learns that it is over
        os.close(self._slave_fd)
        os.close(self._master_fd)
