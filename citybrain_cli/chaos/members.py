"""The processes of the system under test: started, killed, stopped dead, let go on, and buried whatever happens.

Each is in a process group of its own, so that SIGKILL takes its children too, and dies with the harness where the
system can see to that.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from protocols.core.errors import StoreError


def dying_with_us() -> list[str]:
    """Prefix of a command that the kernel kills when we die."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


@dataclass(slots=True)
class Member:
    """One process. ``before_start`` runs before each start; ``user``: account to run it under."""

    name: str
    argv: Sequence[str]
    log: Path
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: int = signal.SIGTERM
    before_start: Callable[[], None] | None = None
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = False  # it should be running: a death is somebody's fault
    deaths: list[tuple[float, int]] = field(default_factory=list)  # unexpected: when (monotonic s), exit code
    cpu_s: float = 0.0
    _counted_s: float = 0.0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        if self.before_start is not None:
            self.before_start()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*dying_with_us(), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                cwd="/" if self.user else None,
                start_new_session=True,
            )
        self._counted_s = 0.0
        self.wanted = True

    def kill(self) -> None:
        """SIGKILL to the whole family; back when nothing of it is left. A stopped process dies as well."""
        self.wanted = False
        if self.process is None:
            return
        family = self._family()
        self._signal(signal.SIGKILL)
        self.process.wait()
        _, alive = psutil.wait_procs(family, timeout=10)
        if alive:
            raise StoreError(f"{self.name}: {len(alive)} of its processes survive SIGKILL")
        self.process = None

    def stop(self, grace_s: float = 10.0) -> None:
        """Ask it to end; killed if it does not."""
        self.wanted = False
        if self.process is None:
            return
        if self.running:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.kill()
                return
        self.kill()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def died(self) -> bool:
        """Whether it has ended though nobody told it to; noted once."""
        if not self.wanted or self.running or self.process is None:
            return False
        self.deaths.append((time.monotonic(), self.process.returncode))
        self.wanted = False
        return True

    def count_cpu(self) -> None:
        """Add what it has used since the last time; a process that dies in between takes its last second with it."""
        total = 0.0
        for process in self._family():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
        # PostgreSQL's backends come and go: what is gone no longer counts, and is not counted twice.
        self.cpu_s += max(0.0, total - self._counted_s)
        self._counted_s = total

    def last_words(self, lines: int = 12) -> str:
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def _family(self) -> list[psutil.Process]:
        if not self.running or self.process is None:
            return []
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: int) -> None:
        if self.process is None:
            return
        for process in self._family():  # PostgreSQL's children have groups of their own
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
