"""citybrain-launcher: starts the agent of the slot that the boot record names, and takes a bad one back by itself.

It is the one part that an update never replaces, so it uses the standard library alone and stays small. Run it as
``python3 launcher.pyz ROOT [agent arguments]`` from a unit that restarts it; `citybrain edge slots init` makes it.

```
 ROOT/ boot.0 boot.1   the record (record.py)           a/ b/  slots: manifest.json, site/
       content/g<n>/   models, packs, templates         lock   held by launcher and agent: never two agents
       health.json     what the agent on trial says of itself
```
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edge.updates.record import MAX_TRIES, Record, broken, read, recover, step, write

STOP_S, QUICK_S, LOCK_S = 20.0, 10.0, 60.0
LOCKED, NOTHING, USAGE = 75, 78, 64  # exit codes, as in sysexits.h


class Launcher:
    def __init__(self, root: Path, arguments: Sequence[str]) -> None:
        self._root, self._arguments = root, list(arguments)
        self._stop = False
        self._quick = 0  # how often in a row the agent ended at once

    def run(self) -> int:
        lock = self._lock()
        if lock is None:
            return say("another agent of this folder is still running", LOCKED)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        while not self._stop:
            record = read(self._root) or recover(self._root)
            if record is None:
                return say(f"{self._root}: no boot record and no whole slot: install an agent", NOTHING)
            try:
                self._one(record, lock)
            except OSError as error:  # the disk takes no record, or a slot cannot be read: the good one must run
                say(f"{error}; the version in force runs", 0)
                self._good(record["good"], lock)
        return 0

    def _one(self, record: Record, lock: int) -> None:
        """One start: decide, run, see how it ends. Raises OSError before anything runs."""
        root = self._root
        if record["state"] in ("armed", "trying"):
            if record["tries"] >= MAX_TRIES:
                write(root, step(record, "unhealthy", f"it ended or lost power {MAX_TRIES} times on trial"))
            elif wrong := broken(root, record["trial"]):
                write(root, step(record, "broken", wrong))
            else:
                self._trial(write(root, step(record, "start")), lock)
        elif self._quick >= MAX_TRIES and record["state"] == "steady" and record["previous"]:
            wrong = broken(root, record["good"])
            self._quick = 0
            if wrong and not broken(root, record["previous"]):
                write(root, step(record, "lost", wrong))
        else:
            self._good(record["good"], lock)

    def _good(self, side: Record, lock: int) -> None:
        started = time.monotonic()
        try:
            self._ended(self._start(side, lock, ""))
        except OSError as error:
            say(f"slot {side['slot']}: {error}", 0)
        self._pause(started)

    def _trial(self, record: Record, lock: int) -> None:
        trial, token = record["trial"], secrets.token_hex(8)
        started = time.monotonic()
        child = self._start(trial, lock, token)
        said, proven = "it said nothing", False
        while child.poll() is None and not self._stop:
            news = self._health(token)
            said, proven = str(news.get("detail", said)), proven or news.get("healthy") is True
            late = time.monotonic() - started > trial["within_s"]
            try:
                if proven:
                    write(self._root, step(record, "healthy", said))
                    break
                if late:
                    self._end(child)
                    write(self._root, step(record, "unhealthy", f"not healthy in {trial['within_s']:g} s: {said}"))
                    return
            except OSError as error:  # a full disk: what has proven itself goes on running until it can be said
                say(str(error), 0)
                if not proven:
                    return
            time.sleep(0.1)
        self._ended(child)  # by itself, or because we were told to stop: then the next start counts

    def _health(self, token: str) -> Record:
        try:
            news = json.loads((self._root / "health.json").read_text("utf-8"))
            return news if isinstance(news, dict) and news.get("run") == token else {}
        except (OSError, ValueError):
            return {}

    def _start(self, side: Record, lock: int, trial: str) -> subprocess.Popen[bytes]:
        """``trial``: the token by which the agent's word about itself is known; "": it is no trial."""
        slot, content = self._root / side["slot"], side["content"]
        entry = json.loads((slot / "manifest.json").read_text("utf-8"))["entry"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(slot / "site"),
            "CITYBRAIN_SLOTS": str(self._root),
            "CITYBRAIN_SLOT": side["slot"],
            "CITYBRAIN_TRIAL": trial,
            "CITYBRAIN_CONTENT": str(self._root / "content" / content) if content else "",
        }
        argv = [sys.executable, "-s", "-P", *entry, *self._arguments]
        return subprocess.Popen(argv, env=environment, pass_fds=(lock,), preexec_fn=with_us)

    def _ended(self, child: subprocess.Popen[bytes]) -> None:
        """Wait for the agent's end; end it if we are to stop."""
        while child.poll() is None:
            if self._stop:
                self._end(child)
            time.sleep(0.1)

    def _pause(self, started: float) -> None:
        """An agent that ends at once is not started again at once."""
        self._quick = self._quick + 1 if time.monotonic() - started < QUICK_S else 0
        again = time.monotonic() + (min(30.0, 0.25 * 2**self._quick) if self._quick > 1 else 0.0)
        while time.monotonic() < again and not self._stop:
            time.sleep(0.1)

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _on_stop(self, *_: object) -> None:
        self._stop = True

    def _lock(self) -> int | None:
        lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        until = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > until:
                    return None
                time.sleep(0.1)


def with_us() -> None:
    """Linux: an agent whose launcher was killed is asked to stop; until it has, the lock keeps the next one waiting."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def say(text: str, code: int) -> int:
    print(f"citybrain-launcher: {text}", file=sys.stderr, flush=True)
    return code


def main() -> int:
    if len(sys.argv) < 2:
        return say("usage: launcher.pyz ROOT [agent arguments]", USAGE)
    return Launcher(Path(sys.argv[1]).absolute(), sys.argv[2:]).run()


if __name__ == "__main__":
    sys.exit(main())
