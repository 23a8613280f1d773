"""A camera inside the agent: vision in a thread of its own, its facts on the agent's loop.

Under virtual time there are no threads: a recording is read frame by frame, each at its own moment.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge.clock import Clock
from edge.evidence import Still
from edge.pipeline import Pipeline
from edge.vision.config import CameraConfig
from edge.vision.pipeline import CameraPipeline
from edge.vision.source import FileSource
from edge.vision.worker import CameraWorker
from protocols.core.model import Fact, Quality, Sweep

_STOP_S = 5.0
_COUNTERS_EVERY_S = 10.0


class Camera:
    """One configured camera; :meth:`run` is supervised like a connector."""

    def __init__(
        self, config: CameraConfig, state_dir: Path, clock: Clock, pipeline: Pipeline, *, threaded: bool
    ) -> None:
        self._config = config
        self._state_dir = state_dir
        self._clock = clock
        self._pipeline = pipeline
        self._threaded = threaded
        self._eye: CameraWorker | CameraPipeline | None = None

    def still(self) -> Still | None:
        """Masked picture of what was looked at last."""
        eye = self._eye
        found = eye.still() if isinstance(eye, CameraWorker) else eye.last_still() if eye is not None else None
        return Still(*found) if found is not None else None

    async def run(self) -> None:
        """Until the recording ends or the camera is lost (TransportError)."""
        await (self._run_thread() if self._threaded else self._run_here())

    def _take(self, facts: Sequence[Fact]) -> None:
        for fact in facts:
            if fact.kind == "cam.state":
                code = str(fact.values.get("code", ""))
                self._pipeline.device_state(
                    self._config.id, online=code not in ("lost", "ended"), detail=str(fact.values.get("detail", ""))
                )
        self._pipeline.facts(facts)

    async def _run_thread(self) -> None:
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def emit(facts: Sequence[Fact]) -> None:
            loop.call_soon_threadsafe(self._take, list(facts))

        worker = CameraWorker(
            self._config, self._clock.now_ms, emit, models=self._state_dir / "models", state=self._state_dir / "cameras"
        )
        self._eye = worker
        task = loop.run_in_executor(None, worker.run, stop)
        counting = loop.create_task(self._count(worker))
        try:
            await asyncio.shield(task)
        finally:
            counting.cancel()
            stop.set()
            if not task.done():
                await asyncio.wait([task], timeout=_STOP_S)

    async def _count(self, worker: CameraWorker) -> None:
        """The camera's own health as readings: frame rate, skips, decode errors."""
        while True:
            await asyncio.sleep(_COUNTERS_EVERY_S)
            counters = worker.counters()
            now_ms = self._clock.now_ms()
            self._pipeline.sweep(
                Sweep(
                    self._config.id,
                    now_ms,
                    now_ms,
                    tuple(counters),
                    np.array(list(counters.values()), dtype=np.float64),
                    np.full(len(counters), Quality.GOOD, dtype=np.uint8),
                )
            )

    async def _run_here(self) -> None:
        pipeline = CameraPipeline(self._config, self._state_dir / "models")
        self._eye = pipeline
        source = FileSource(self._config.url, self._clock.now_ms())
        try:
            while (frame := source.read()) is not None:
                await asyncio.sleep(max(0, frame.ts_ms - self._clock.now_ms()) / 1000)
                self._take(pipeline.step(frame))
            self._take(pipeline.source_state("ended", self._clock.now_ms(), "the recording has ended"))
        finally:
            source.close()
