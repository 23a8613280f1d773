"""What every simulated device is given: the time, the seed, the ledger; and its own senses, made from its signals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from firmware_sim.clock import Clock
from firmware_sim.ledger import Ledger
from firmware_sim.scene import Device
from firmware_sim.signals import Signal
from protocols import devices
from protocols.devices import DeviceType


@dataclass(frozen=True)
class World:
    """One run of one scene. ``start_ms``: the UTC of second 0."""

    clock: Clock
    start_ms: int
    ledger: Ledger
    seed: int = 1
    streams_folder: Path | None = None

    def t_s(self, now_ms: int) -> float:
        """Second of the scene."""
        return (now_ms - self.start_ms) / 1000


class Senses:
    """What a device measures: one signal for each point that has one in the scene."""

    def __init__(self, device: Device, world: World) -> None:
        self.type: DeviceType = devices.load(device.type)
        self._signals = {
            name: Signal(spec, f"{device.id}/{name}", world.seed, world.streams_folder)
            for name, spec in device.signals.items()
        }

    def __call__(self, point: str, t_s: float) -> float:
        """NaN where the scene gives the point no signal, or the recording has a gap."""
        signal = self._signals.get(point)
        return math.nan if signal is None else signal.value(t_s)

    def has(self, point: str) -> bool:
        return point in self._signals
