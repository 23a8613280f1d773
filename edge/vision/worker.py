"""Runs one camera in a thread of its own: open, read, analyse, hand on the facts. Vision never blocks the agent's loop.

Opening again after a lost link is the supervisor's: ``run`` ends with the typed error, after saying ``lost``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.vision.config import CameraConfig
from edge.vision.pipeline import CameraPipeline
from edge.vision.source import FileSource, Source, open_source
from protocols.core.errors import TransportError
from protocols.core.model import Fact

SNAPSHOT_MS = 60_000


class CameraWorker:
    """One camera. ``emit`` is called in the worker's thread with each frame's facts; it must return at once.

    ``state`` is a folder: the learnt empty view is kept there, so that a restart beside a parked car does not take it
    for part of the street.
    """

    def __init__(
        self,
        config: CameraConfig,
        now_ms: Callable[[], int],
        emit: Callable[[Sequence[Fact]], None],
        *,
        models: Path | None = None,
        state: Path | None = None,
    ) -> None:
        self.config = config
        self.pipeline = CameraPipeline(config, models)
        self._now_ms = now_ms
        self._emit = emit
        self._kept = None if state is None else state / f"{config.id}.background.png"
        self._kept_ms = now_ms()
        self._source: Source | None = None
        self._lock = threading.Lock()
        if self._kept is not None and self._kept.is_file():
            self.pipeline.restore(self._kept.read_bytes())

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set or a recording ends. Raises TransportError when the camera is lost or refuses."""
        try:
            self._source = open_source(self.config.url, self._now_ms, min_gap_ms=900 / self.config.analyse_fps)
            self._follow(self._source, stop)
        except TransportError as error:
            self._say(self.pipeline.source_state("lost", self._now_ms(), str(error)))
            raise
        finally:
            if self._source is not None:
                self._source.close()
            self._keep()

    def still(self) -> tuple[bytes, str] | None:
        """Masked still of what was last looked at; may be called from any thread."""
        with self._lock:
            return self.pipeline.last_still()

    def counters(self) -> dict[str, float]:
        """For metrics; names with units."""
        of = self.pipeline.counters
        return {
            "fps": round(of.fps, 2),
            "frames_total": of.frames,
            "analysed_total": of.analysed,
            "stale_total": of.stale,
            "skipped_total": self._source.skipped if self._source else 0,
            "decode_errors_total": self._source.decode_errors if self._source else 0,
            "gate_share": round(of.gate_share, 3),
            "detector_runs_total": of.detector_runs,
            "detector_ms": round(of.detector_ms / of.detector_runs, 2) if of.detector_runs else 0.0,
        }

    def _follow(self, source: Source, stop: threading.Event) -> None:
        while not stop.is_set():
            frame = source.read()
            if frame is None:
                self._say(self.pipeline.source_state("ended", self._now_ms(), "the stream has ended"))
                return
            ahead_ms = frame.ts_ms - self._now_ms()
            if isinstance(source, FileSource) and ahead_ms > 0 and stop.wait(ahead_ms / 1000):
                return  # a recording plays at its own pace
            with self._lock:
                facts = self.pipeline.step(frame)
            self._say(facts)
            if self._now_ms() - self._kept_ms >= SNAPSHOT_MS:
                self._keep()

    def _say(self, facts: Sequence[Fact]) -> None:
        if facts:
            self._emit(facts)

    def _keep(self) -> None:
        self._kept_ms = self._now_ms()
        data = self.pipeline.snapshot()
        if self._kept is None or not data:
            return
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        part = self._kept.with_suffix(".part")
        part.write_bytes(data)
        part.replace(self._kept)
