"""The agent's own health, as numbers with units: heartbeat, status page and the installer's command read the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from edge.clock import Clock
from edge.clock_guard import ClockGuard
from edge.identity.rotate import Rotation
from edge.outbox import Outbox
from edge.pipeline import Pipeline
from edge.supervisor import Supervised
from edge.uplink.uplink import Uplink

_MB = 1 << 20


class Telemetry:
    def __init__(
        self, state_dir: Path, clock: Clock, outbox: Outbox, pipeline: Pipeline, supervised: list[Supervised]
    ) -> None:
        self._state_dir = state_dir
        self._clock = clock
        self._outbox = outbox
        self._pipeline = pipeline
        self._supervised = supervised
        self._process = psutil.Process()
        self._started_ms = clock.now_ms()
        self.uplink: Uplink | None = None
        self.identity: Rotation | None = None

    def health(self) -> tuple[dict[str, float], dict[str, str]]:
        """(values by name, texts by name)."""
        now_ms = self._clock.now_ms()
        depth = self._outbox.depth(now_ms)
        values: dict[str, float] = {
            "uptime_s": (now_ms - self._started_ms) / 1000,
            "cpu_pct": self._process.cpu_percent(),
            "memory_mb": self._process.memory_info().rss / _MB,
            "disk_free_mb": shutil.disk_usage(self._state_dir).free / _MB,
            "outbox_oldest_s": depth.oldest_ms / 1000,
            "outbox_mb": depth.payload_bytes / _MB,
            "thinned_readings": depth.thinned,
        }
        if isinstance(self._clock, ClockGuard):
            values |= self._clock.figures()
        values |= {f"outbox_{lane}_batches": rows for lane, rows in depth.rows.items()}
        for lane, totals in self._outbox.totals().items():
            values[f"accepted_{lane}_readings"] = totals["readings"]
            values[f"accepted_{lane}_events"] = totals["events"]
        values |= {name: count for name, count in self._pipeline.counters.items() if "," not in name}
        texts = {f"connector_{s.name}": s.error for s in self._supervised if s.error}
        if self.identity is not None:
            own_values, own_texts = self.identity.health()
            values |= own_values
            texts |= own_texts
        if self._pipeline.tap is not None:
            values |= {f"northbound_{name}": count for name, count in self._pipeline.tap.counters.items()}
        if self.uplink is not None:
            values |= {f"link_{name}": count for name, count in self.uplink.counters.items()}
            values["link_up"] = float(self.uplink.connected)
            if self.uplink.last_error:
                texts["link"] = self.uplink.last_error
        return values, texts
