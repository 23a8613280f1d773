"""A user-space cable between two network namespaces: two TUN devices and a process that drops and delays IP packets.

The kernel's own TCP runs over it on both sides, so loss, delay and silence are real to it. The kernel here need not
know ``netem``.

```
 namespace "city": broker, workers          this process            namespace "field": agents
   10.77.0.1  cbcity ◀── tun ──▶ Lane (loss, delay, swallow) ◀── tun ──▶ cbfield  10.77.0.2
```
Runs as ``python -m citybrain_cli.chaos.link --field PID --seed N`` in the city's namespace, as root. One JSON object a
line on standard input sets the weather, or asks with ``{"ask": "counts"}``; each is answered by one line.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from citybrain_cli.chaos.weather import Lane, Weather
from protocols.core.errors import ConfigError

CITY, FIELD = "10.77.0.1", "10.77.0.2"
CITY_DEVICE, FIELD_DEVICE = "cbcity", "cbfield"
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_MTU = 1500
_READ_AT_ONCE = 64


def open_tun(name: str) -> int:
    """A TUN device in the calling thread's network namespace. Raises OSError."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd


def enter_network_of(pid: int) -> None:
    """Move the calling thread into another process's network namespace (setns(2)). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open("rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def configure(device: str, ours: str, theirs: str) -> None:
    """Address and route of a point-to-point device in our namespace. Raises ConfigError with what `ip` said."""
    for argv in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "addr", "add", ours, "peer", theirs, "dev", device],
        ["ip", "link", "set", device, "mtu", str(_MTU), "up"],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"{' '.join(argv)}: {done.stderr.strip()}")


class Cable:
    """Both directions between two file descriptors that carry one packet a read."""

    def __init__(self, city: int, field: int, seed: int) -> None:
        self._ends = {city: (field, Lane(seed)), field: (city, Lane(seed + 1))}
        self._commands = b""

    def set(self, weather: Weather) -> None:
        for _, lane in self._ends.values():
            lane.weather = weather

    def counts(self) -> dict[str, dict[str, int]]:
        (_, down), (_, up) = self._ends.values()
        return {"up": up.counts(), "down": down.counts()}

    def run(self, commands: int) -> None:
        """Until the commands end."""
        while True:
            now_s = time.monotonic()
            due = [at_s for _, lane in self._ends.values() if (at_s := lane.next_s()) is not None]
            timeout_s = max(0.0, min(due) - now_s) if due else None
            ready, _, _ = select.select([*self._ends, commands], [], [], timeout_s)
            now_s = time.monotonic()
            for fd in ready:
                if fd == commands:
                    if not self._obey(commands):
                        return
                else:
                    self._read(fd, now_s)
            for target, lane in self._ends.values():
                for packet in lane.take(now_s):
                    try:
                        os.write(target, packet)
                    except OSError:  # the device is down (a cut cable) or its queue is full: packets get lost
                        lane.lost += 1

    def _read(self, fd: int, now_s: float) -> None:
        lane = self._ends[fd][1]
        for _ in range(_READ_AT_ONCE):
            try:
                lane.put(os.read(fd, 1 << 16), now_s)
            except OSError:  # nothing more, or the device is down
                return

    def _obey(self, commands: int) -> bool:
        data = os.read(commands, 1 << 16)
        if not data:
            return False
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            answer(line, self)
        return True


def answer(line: bytes, cable: Cable) -> None:
    """One command, one line of answer on standard output."""
    try:
        what = json.loads(line)
        if "ask" in what:
            said: dict[str, object] = dict(cable.counts())
        else:
            cable.set(Weather.from_json(what))
            said = {"set": True}
    except (ValueError, KeyError, TypeError) as error:
        said = {"error": str(error)}
    print(json.dumps(said), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--field", type=int, required=True, help="a process in the other namespace")
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args(argv)
    city = open_tun(CITY_DEVICE)
    configure(CITY_DEVICE, CITY, FIELD)
    enter_network_of(options.field)
    field = open_tun(FIELD_DEVICE)
    configure(FIELD_DEVICE, FIELD, CITY)
    print(json.dumps({"ready": True}), flush=True)
    Cable(city, field, options.seed).run(sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
