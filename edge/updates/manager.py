"""The twin document ``update`` on a gateway: from what is wanted to what is in force, told as it is.

```
 document ─▶ in force already? ─▶ applied
    │ no
    ▼
 stage (thread: look up, fetch, unpack, check) ─▶ ready ─▶ window ─▶ armed ─▶ this agent stops
                                                                              launcher: trial ─▶ kept or taken back
 the agent that runs then finds the outcome in the boot record and tells it: applied | rolled_back | failed
```
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge.clock import Clock
from edge.updates.config import UpdatesConfig
from edge.updates.health import Values, Witness, failing
from edge.updates.record import Record
from edge.updates.slots import Slots
from edge.updates.stage import Stager, satisfied, still_whole
from edge.updates.wiring import Tell
from protocols.core.errors import CityBrainError, ContractError, LinkRefused, StoreError, TransportError
from protocols.updates.document import Wanted, parse

log = logging.getLogger("citybrain.edge.updates")

_LOOK_S = 0.5
_AGAIN_FIRST_S, _AGAIN_MOST_S = 5.0, 600.0


def stop_agent() -> None:
    """End this agent in good order; the launcher starts what the record says then."""
    os.kill(os.getpid(), signal.SIGTERM)


class Updates:
    """One per agent that the launcher started. ``superseded(version)``: a newer document has come."""

    def __init__(
        self,
        config: UpdatesConfig,
        base: Path,
        root: Path,
        clock: Clock,
        *,
        health: Callable[[], Values],
        superseded: Callable[[int], bool] = lambda _: False,
        restart: Callable[[], None] = stop_agent,
        trial: str = "",
        again_first_s: float = _AGAIN_FIRST_S,
    ) -> None:
        self._config = config
        self._base = base
        self._clock = clock
        self._health = health
        self._superseded = superseded
        self._restart = restart
        self._trial = trial
        self._again_first_s = again_first_s
        self.slots = Slots(root)
        self.counters = {"update_bytes": 0, "update_deltas": 0, "update_wholes": 0, "update_retries": 0}

    async def run(self) -> None:
        """On trial: say how it goes until the launcher knows. Otherwise there is nothing to do."""
        if not self._trial:
            return
        trial = (await asyncio.to_thread(self.slots.record))["trial"]
        if trial is not None:
            witness = Witness(self.slots.root, self._trial, trial.get("before", ()), float(trial["steady_s"]))
            await witness.run(self._health)

    def in_force(self) -> dict[str, Any]:
        """As a report's document: versions and content ids by kind, the slot, and the record's state."""
        record = self.slots.record()
        now = self.slots.in_force(record)
        shown: dict[str, Any] = {
            "agent": {"name": now.agent.name, "version": now.agent.version, "content": now.agent_content},
            "slot": record["good"]["slot"],
            "state": record["state"],
        }
        for kind in ("models", "packs", "templates"):
            shown[kind] = [{"name": h.name, "version": h.version} for h in now.items if h.kind == kind]
        if record["note"]:
            shown["note"] = record["note"]
        return shown

    async def handle(self, document: Mapping[str, Any], version: int, tell: Tell) -> None:
        """The twin's handler. Raises ContractError for a document that is none."""
        wanted = parse(document)
        if not self._config.url:
            tell("refused", "updates are switched off here: [updates] url is empty")
            return
        try:
            await self._bring(wanted, version, _Once(tell))
        except (ContractError, LinkRefused) as error:
            await self._give_up(version)
            tell("failed", str(error), self._shown())

    async def _bring(self, wanted: Wanted, version: int, tell: _Once) -> None:
        again_s = self._again_first_s
        while not self._superseded(version):
            try:
                record = await asyncio.to_thread(self.slots.record)
                outcome = record["outcome"]
                if outcome is not None and outcome["document"] == version:
                    tell(outcome["state"], outcome["detail"], self.in_force())
                    await asyncio.to_thread(self.slots.tidy, record)
                    return
                if record["state"] in ("armed", "trying"):
                    tell("applying", f"{record['trial']['version']} on trial, start {max(1, record['tries'])}")
                    await asyncio.sleep(_LOOK_S)
                    continue
                if await asyncio.to_thread(self._done, record, wanted):
                    tell("applied", "", self.in_force())
                    return
                if not await asyncio.to_thread(self._ready, record, version):
                    tell("applying", "fetching")
                    await asyncio.to_thread(self._stage, wanted, version)
                    again_s = self._again_first_s
                if await self._may_change(wanted, version, tell):
                    await self._arm(wanted, version, tell)
            except LinkRefused:
                raise
            except (TransportError, StoreError) as error:
                self.counters["update_retries"] += 1
                tell("applying", f"waits: {error}")
                await self._pause(again_s, version)
                again_s = min(again_s * 2, _AGAIN_MOST_S)
        await self._give_up(version)

    async def _pause(self, seconds: float, version: int) -> None:
        """Or until a newer document has come."""
        for _ in range(math.ceil(seconds / _LOOK_S)):
            if self._superseded(version):
                return
            await asyncio.sleep(min(_LOOK_S, seconds))

    def _done(self, record: Record, wanted: Wanted) -> bool:
        """In force already; something staged for another document is dropped then."""
        if not satisfied(self.slots.in_force(record), wanted):
            return False
        if record["state"] in ("staging", "ready"):
            self.slots.step(record, "cancel")
        return True

    def _ready(self, record: Record, version: int) -> bool:
        """Staged for this document, before this agent started perhaps, and still whole."""
        if record["state"] != "ready" or record["trial"]["document"] != version:
            return False
        return still_whole(self.slots, record)

    def _stage(self, wanted: Wanted, version: int) -> None:
        stager = Stager(self._config, self._base, self.slots, lambda: self._superseded(version))
        try:
            stager.stage(wanted, version)
        finally:
            self.counters["update_bytes"] += stager.figures.downloaded_bytes
            self.counters["update_deltas"] += stager.figures.deltas
            self.counters["update_wholes"] += stager.figures.wholes

    async def _may_change(self, wanted: Wanted, version: int, tell: _Once) -> bool:
        """Wait for the window. False: another document is wanted meanwhile."""
        while wanted.window is not None and not wanted.window.open(self._clock.now_ms()):
            tell("applying", f"ready; waits for its window {wanted.window.start} to {wanted.window.end}")
            if self._superseded(version):
                return False
            await asyncio.sleep(_LOOK_S)
        return not self._superseded(version)

    async def _arm(self, wanted: Wanted, version: int, tell: _Once) -> None:
        _, texts = self._health()
        record = await asyncio.to_thread(self.slots.record)
        trial = {
            **record["trial"],
            "within_s": wanted.health.within_s,
            "steady_s": wanted.health.steady_s,
            "before": failing(texts),
        }
        tell("applying", f"{trial['version']} is started on trial")
        await asyncio.to_thread(self.slots.step, record, "arm", trial=trial)
        log.info("update %d: this agent stops so that %s can be tried", version, trial["version"])
        self._restart()
        await asyncio.Event().wait()  # until the stop reaches us

    async def _give_up(self, version: int) -> None:
        """What was staged for a document that will not be applied is dropped."""
        with contextlib.suppress(StoreError):
            record = await asyncio.to_thread(self.slots.record)
            if record["state"] in ("staging", "ready") and record["trial"]["document"] <= version:
                record = await asyncio.to_thread(self.slots.step, record, "cancel")
                await asyncio.to_thread(self.slots.tidy, record)

    def _shown(self) -> dict[str, Any] | None:
        try:
            return self.in_force()
        except CityBrainError:
            return None


class _Once:
    """Tells each thing once in a row."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last = ("", "")

    def __call__(self, state: str, detail: str = "", document: Mapping[str, Any] | None = None) -> None:
        if (state, detail) != self._last:
            self._last = (state, detail)
            self._tell(state, detail, document)
