"""What the devices really did, written down on the device side: the truth that a loss proof reconciles against.

One JSON object a line, each written with a single ``write`` to a file opened for appending. So the record does not
depend on the agent in any way, and killing the simulator itself loses at most the line being written (a torn last line
is recognised and counted by the reader). Nothing is synced to disk: a power cut may lose what the kernel still held.

Lines (``k``, ``dev``, ``ms`` = clock of the rig, UTC):

- ``open``: a run began (``scene``, ``seed``); what the stations of the run before still kept is given up
- ``up``: the device has a new record to upload, which must not get lost (``cn``, ``dt`` DataTime, ``v`` values)
- ``sent``: the record went out once (``cn``, ``dt``, ``try``)
- ``ack``: its 9014 came (``cn``, ``dt``)
- ``gave_up``: the station had no room left and dropped its oldest record (``cn``, ``dt``): no fault of the agent's
- ``ans``: a polled device answered (``intact`` false if a fault damaged or withheld the answer; ``what`` was asked for)
- ``told``: a device published values that nobody acknowledges (``v``); ``order``: it was told to do something
- ``fault``: a fault was injected (``kind``, ``detail``)
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from protocols.core.errors import StoreError


class Ledger(Protocol):
    """Where device models write. Calls return at once."""

    def write(self, entry: str, device: str, now_ms: int, **more: object) -> None: ...


class FileLedger:
    """Appends to ``path``; several runs may follow one another in one file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _end_torn_line(self.path)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"{path}: cannot keep a ledger ({error.strerror})") from error

    def write(self, entry: str, device: str, now_ms: int, **more: object) -> None:
        line = _line(entry, device, now_ms, more)
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}") from error
        if written != len(line):
            raise StoreError(f"{self.path}: disk full, the ledger is no longer complete")

    def close(self) -> None:
        os.close(self._fd)


class MemoryLedger:
    """The same lines in a list, for virtual time. ``keep`` false: nobody wants to know, nothing is kept."""

    def __init__(self, *, keep: bool = True) -> None:
        self.lines: list[bytes] = []
        self._keep = keep

    def write(self, entry: str, device: str, now_ms: int, **more: object) -> None:
        if self._keep:
            self.lines.append(_line(entry, device, now_ms, more))

    def close(self) -> None:
        """Holds nothing open."""

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def totals(self) -> Totals:
        return total(self.entries())


def _line(entry: str, device: str, now_ms: int, more: Mapping[str, object]) -> bytes:
    line = {"k": entry, "dev": device, "ms": now_ms, **more}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _end_torn_line(path: Path) -> None:
    """A run that was killed in the middle of a line must not swallow the first line of the next run."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


# -- reading ---------------------------------------------------------------------------------------------------------

#: A record of a pushing device: command and DataTime as sent, e.g. ("2011", "20260302220001").
Record = tuple[str, str]


@dataclass
class DeviceTotals:
    """What one device did, by its own account."""

    uploads: dict[Record, Mapping[str, Any]] = field(default_factory=dict)  # every record made, with its values
    sent: Counter[Record] = field(default_factory=Counter)  # how often each went out
    acknowledged: set[Record] = field(default_factory=set)
    given_up: set[Record] = field(default_factory=set)
    answers: int = 0
    answers_intact: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def owed(self) -> set[Record]:
        """Records that must be at the far end: made, and not given up by the station itself."""
        return set(self.uploads) - self.given_up

    @property
    def open(self) -> set[Record]:
        """Records the station still keeps and will send again."""
        return self.owed - self.acknowledged


@dataclass
class Totals:
    devices: dict[str, DeviceTotals] = field(default_factory=dict)
    torn_lines: int = 0
    runs: int = 0

    def __getitem__(self, device: str) -> DeviceTotals:
        return self.devices[device]


def read(path: str | Path) -> Totals:
    """Totals of a ledger file. A torn line is counted, never guessed at."""
    try:
        with Path(path).open("rb") as file:
            torn, entries = 0, []
            for raw in file:
                try:
                    entry = json.loads(raw)
                except ValueError:
                    torn += 1
                    continue
                entries.append(entry)
    except OSError as error:
        raise StoreError(f"{path}: cannot read the ledger ({error.strerror})") from error
    totals = total(entries)
    totals.torn_lines = torn
    return totals


def total(entries: Iterable[Mapping[str, Any]]) -> Totals:
    """Totals of ledger entries."""
    totals = Totals()
    for entry in entries:
        kind = entry["k"]
        if kind == "open":
            totals.runs += 1
            for known in totals.devices.values():
                known.given_up |= known.open  # a simulator that starts anew has stations with empty stores
            continue
        device = totals.devices.setdefault(entry["dev"], DeviceTotals())
        if kind == "ans":
            device.answers += 1
            device.answers_intact += bool(entry["intact"])
        elif kind == "fault":
            device.faults[entry["kind"]] += 1
        else:
            _record(device, kind, (entry["cn"], entry["dt"]), entry)
    return totals


def _record(device: DeviceTotals, kind: str, record: Record, entry: Mapping[str, Any]) -> None:
    if kind == "up":
        device.uploads[record] = entry["v"]
    elif kind == "sent":
        device.sent[record] += 1
    elif kind == "ack":
        device.acknowledged.add(record)
    elif kind == "gave_up":
        device.given_up.add(record)


def devices_of(totals: Totals) -> Iterator[tuple[str, DeviceTotals]]:
    """Devices in a stable order, for a report."""
    yield from sorted(totals.devices.items())
