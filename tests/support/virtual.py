"""Playing a scene in virtual time inside a test: the rig, a sink that remembers, and the two joined.

def body(rig): ...           # async; rig.link_factory(bus) is what a connector wants
result = play(SCENE_TEXT, body)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from firmware_sim.ledger import Ledger
from firmware_sim.rig.virtual_loop import run_virtual
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import Scene, parse_scene
from protocols.core.errors import TransportError
from protocols.core.model import Sweep

if TYPE_CHECKING:
    from edge.connectors.base import Connector

T = TypeVar("T")

#: ``../shared`` beside the project: recorded data that some tests use where it is there.
SHARED = Path(__file__).resolve().parents[3] / "shared"
#: 2026-03-02 08:00:00 +08:00, a Monday.
MORNING_MS = 1_772_409_600_000


def play(
    scene: Scene | str,
    body: Callable[[VirtualRig], Awaitable[T]],
    *,
    ledger: Ledger | None = None,
    streams_folder: Path | None = None,
) -> T:
    """Run ``body`` with the running rig of ``scene`` (a Scene or its text) on a virtual loop."""
    found = parse_scene(scene, "test.toml") if isinstance(scene, str) else scene
    start_ms = found.start_ms if found.start_ms is not None else MORNING_MS

    async def main() -> T:
        async with VirtualRig(found, ledger=ledger, start_ms=start_ms, streams_folder=streams_folder) as rig:
            return await body(rig)

    return run_virtual(main(), start_ms)


@dataclass
class Report:
    event_type: str
    device: str
    code: str
    detail: str
    point: str


@dataclass
class RecordingSink:
    """A connector's sink that keeps everything. ``durable``: call ``on_durable`` at once, as a fast disk would."""

    durable: bool = True
    sweeps: list[Sweep] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    states: list[tuple[str, bool]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    pending: list[Callable[[], None]] = field(default_factory=list)

    def sweep(self, sweep: Sweep, on_durable: Callable[[], None] | None = None) -> None:
        self.sweeps.append(sweep)
        if on_durable is not None:
            if self.durable:
                on_durable()
            else:
                self.pending.append(on_durable)

    def report(self, event_type: str, device: str, code: str, detail: str = "", *, point: str = "") -> None:
        self.reports.append(Report(event_type, device, code, detail, point))

    def device_state(self, device: str, *, online: bool, detail: str = "") -> None:
        self.states.append((device, online))

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        self.counts[name] += by

    def values(self, device: str, point: str) -> list[float]:
        """All values of one point, in the order in which they came."""
        return [
            float(sweep.values[sweep.points.index(point)])
            for sweep in self.sweeps
            if sweep.device == device and point in sweep.points
        ]


@contextlib.asynccontextmanager
async def running(connectors: Iterable[Connector], sink: RecordingSink, restart_s: float = 1.0) -> AsyncIterator[None]:
    """Run connectors as the supervisor does: one that lost its link is started again after ``restart_s``."""

    async def keep(connector: Connector) -> None:
        while True:
            with contextlib.suppress(TransportError):
                await connector.run(sink)
            await asyncio.sleep(restart_s)

    tasks = [asyncio.create_task(keep(connector), name=connector.id) for connector in connectors]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()  # a connector that ended by itself ended by a programming error
