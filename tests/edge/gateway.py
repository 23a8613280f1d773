"""A small gateway's configuration and its pipeline over a real outbox, for tests in virtual time."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edge.clock import LoopClock
from edge.config import EdgeConfig, load
from edge.devices import Devices
from edge.outbox import Outbox
from edge.pipeline import Pipeline, inline
from protocols.core.model import Event, Sweep
from protocols.uplink import batch as wire
from protocols.uplink.columns import SeriesCode
from protocols.uplink.topics import Lane
from scenarios.engine import Engine

START_MS = 1_772_409_600_000  # 2026-03-02 08:00 +08:00

CONFIG = """
[gateway]
id = "gw-t"
shard = 3
location = [117.3, 31.8]
status_listen = ""

[mqtt]
url = "mqtt://127.0.0.1:1"

[[connector]]
id = "dust"
kind = "hj212-server"
listen = "127.0.0.1:9001"
[[connector.device]]
id = "dust-1"
type = "env/dust_station"
mn = "010000A8900016F000169DC0"

[[connector]]
id = "gas"
kind = "modbus-rtu"
port = "/dev/none"
[[connector.device]]
id = "gas-1"
type = "gas/combustible"
unit = 11

[[report]]
device = "*"
mode = "all"

[[place]]
device = "gas-1"
lon = 117.31
lat = 31.81
"""


def config(folder: Path, text: str = CONFIG) -> EdgeConfig:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


class Rig:
    """A pipeline as the agent builds it, commits inline. Make it inside the virtual loop."""

    def __init__(self, folder: Path, text: str = CONFIG) -> None:
        self.clock = LoopClock(START_MS)
        self.path = folder / "outbox.db"
        self.outbox = Outbox(self.path, now_ms=self.clock.now_ms())
        self.lane: Lane = "data"
        self.committed = 0
        self.pipeline = Pipeline(
            self.outbox,
            Engine([], "edge"),
            Devices(config(folder, text)),
            self.clock,
            flush_s=0.5,
            lane=lambda: self.lane,
            committed=self._committed,
            offload=inline,
        )

    def _committed(self) -> None:
        self.committed += 1

    def sweep(
        self,
        *values: float,
        device: str = "gas-1",
        points: Sequence[str] = ("ch4_lel",),
        lag_ms: int = 0,
        exchange: str = "",
        quality: Sequence[int] = (),
        done: Callable[[], None] | None = None,
    ) -> None:
        now_ms = self.clock.now_ms()
        grades = np.array(quality or [0] * len(values), dtype=np.uint8)
        self.pipeline.sweep(
            Sweep(device, now_ms - lag_ms, now_ms, tuple(points), np.array(values, dtype=float), grades, exchange), done
        )

    def batches(self, lane: Lane = "data") -> list[wire.Batch]:
        return batches(self.outbox, lane)

    def values(self, lane: Lane = "data") -> list[float]:
        """All readings of a lane, in the order of the rows."""
        named = {d.alias: d for d in self.outbox.series()}
        out: list[float] = []
        for batch in self.batches(lane):
            found = batch.readings
            for alias, integer, grade in zip(found.alias.tolist(), found.integer, found.quality, strict=True):
                number = wire.to_float(np.array([integer]), np.array([grade]), named[alias].decimals)
                out.append(float(number[0]))
        return out

    def events(self) -> list[Event]:
        return [event for batch in self.batches("event") for event in batch.events]


def batches(outbox: Outbox, lane: Lane) -> list[wire.Batch]:
    known: dict[int, SeriesCode] = {d.alias: d.code for d in outbox.series()}
    return [wire.decode(wire.open_envelope(row.payload), known) for row in outbox.rows(lane, 0, limit=100_000)]


@contextmanager
def full_disk(bytes_left: int = 0) -> Iterator[None]:
    """No file of this process may grow: the error is the one a full disk gives, from the same system call."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
