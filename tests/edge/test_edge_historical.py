"""What a device kept while nobody listened is stored and raises nothing; the same values, live, do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.agent import assemble
from edge.clock import LoopClock
from edge.northbound.tap import Told
from edge.pipeline import inline
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.model import Sweep
from tests.edge.gateway import CONFIG, START_MS, config

RULES = """[[scenario]]
pack = "urban_mgmt/underground_pipeline"
[scenario.devices]
gas = ["gas-1"]
"""


class Ear:
    """A second listener of the pipeline."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.told: list[Told] = []
        self.states: list[tuple[str, bool]] = []

    def readings(self, device: str, told: list[Told]) -> None:
        self.told += told

    def state(self, device: str, *, online: bool) -> None:
        self.states.append((device, online))


@pytest.mark.parametrize("historical", [True, False])
def test_historical_values_raise_nothing_and_are_kept(tmp_path: Path, historical: bool) -> None:
    async def main() -> None:
        clock = LoopClock(START_MS)
        parts = assemble(
            config(tmp_path, CONFIG + RULES),
            tmp_path,
            clock,
            lane=lambda: "data",
            committed=lambda: None,
            offload=inline,
        )
        ear = parts.pipeline.tap = Ear()
        now_ms = clock.now_ms()
        for n in range(300):  # five minutes of gas at the explosive limit
            at_ms = now_ms - 300_000 + 1000 * n
            values = np.array([60.0, 2.0])
            sweep = Sweep(
                "gas-1",
                at_ms,
                now_ms,
                ("ch4_lel", "status"),
                values,
                np.zeros(2, dtype=np.uint8),
                historical=historical,
            )
            parts.pipeline.sweep(sweep)
        assert await parts.pipeline.flush()
        assert parts.pipeline.counters["readings_kept"] == 600
        assert (parts.pipeline.counters["events"] == 0) is historical
        assert ear.states == [("gas-1", True)]
        assert [one.value for one in ear.told[:2]] == [60.0, 2.0]
        assert {one.historical for one in ear.told} == {historical}
        parts.outbox.close()

    run_virtual(main(), START_MS)
