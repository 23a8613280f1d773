"""The processes of one installation: started in order, watched, started again, stopped in order.

A child that dies is started again after a short pause; one that keeps dying at once is given up with its last words.
Their numbers are written down, so that the next start can clear away what a killed `up` has left behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from protocols.core.errors import StoreError

_MB = 1 << 20


@dataclass(slots=True)
class Child:
    name: str
    argv: list[str]
    log: Path
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: int = signal.SIGTERM
    grace_s: float = 10.0
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    _quick_deaths: int = 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Processes:
    def __init__(self, register: Path, say: Callable[[str], None]) -> None:
        self._register = register
        self._say = say
        self.children: dict[str, Child] = {}

    def clear_leftovers(self) -> int:
        """Stop what an earlier `up` left running; returns how many there were."""
        try:
            left = json.loads(self._register.read_text())
        except (OSError, ValueError):
            return 0
        found: list[psutil.Process] = []
        for entry in left:
            try:
                process = psutil.Process(entry["pid"])
                if abs(process.create_time() - entry["created"]) < 1:
                    found.append(process)
            except (psutil.NoSuchProcess, KeyError, TypeError):
                continue
        for process in found:
            _signal(process, signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
        _, alive = psutil.wait_procs(found, timeout=8)
        for process in alive:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=3)
        self._register.unlink(missing_ok=True)
        return len(found)

    def start(self, child: Child) -> None:
        self.children[child.name] = child
        self._spawn(child)

    def _spawn(self, child: Child) -> None:
        child.log.parent.mkdir(parents=True, exist_ok=True)
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                child.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **child.environment},
                user=child.user,
                group=child.user,
                extra_groups=[] if child.user else None,
                cwd="/" if child.user else None,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the others in order
            )
        child.started = time.monotonic()
        self._write_register()

    def _write_register(self) -> None:
        entries = []
        for child in self.children.values():
            if child.process is not None and child.process.poll() is None:
                try:
                    created = psutil.Process(child.process.pid).create_time()
                except psutil.NoSuchProcess:
                    continue
                entries.append({"name": child.name, "pid": child.process.pid, "created": created})
        self._register.write_text(json.dumps(entries))

    def watch(self) -> None:
        """Start again what has died (not what was stopped). Raises StoreError for one that dies again and again."""
        for child in self.children.values():
            if child.process is None or child.process.poll() is None:
                continue
            lived_s = time.monotonic() - child.started
            child._quick_deaths = child._quick_deaths + 1 if lived_s < 5 else 0
            if child._quick_deaths >= 5:
                raise StoreError(f"{child.name} keeps stopping; its last words:\n{last_words(child.log)}")
            child.restarts += 1
            self._say(f"{child.name} stopped (code {child.process.returncode}); starting it again")
            self._spawn(child)

    def stop(self, name: str) -> None:
        child = self.children.get(name)
        if child is None or child.process is None or child.process.poll() is not None:
            return
        _signal(psutil.Process(child.process.pid), child.stop_signal)
        try:
            child.process.wait(child.grace_s)
        except subprocess.TimeoutExpired:
            self._say(f"{name} does not stop in {child.grace_s:.0f} s; killed")
            child.process.kill()
            child.process.wait()
        child.process = None

    def stop_all(self) -> None:
        """In the reverse of the order in which they were started."""
        for name in reversed(list(self.children)):
            self.stop(name)
        self._register.unlink(missing_ok=True)

    def memory_mb(self) -> dict[str, float]:
        """Proportional share where the system tells it (shared pages counted once), else resident size."""
        out: dict[str, float] = {}
        for child in self.children.values():
            if child.process is None or not child.running:
                continue
            try:
                top = psutil.Process(child.process.pid)
                family = [top, *top.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            out[child.name] = round(sum(_memory(process) for process in family) / _MB, 1)
        return out


def _memory(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", 0) or full.rss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def last_words(log: Path, lines: int = 12) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
