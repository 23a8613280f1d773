"""Is the agent on trial as healthy as the one before? It says so itself; the launcher waits for that word.

Healthy: the way to the core is open, what waits in the outbox does not pile up, and no connector is worse than under
the version before (a meter that was dead yesterday does not condemn an update).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

HEALTH_FILE = "health.json"
_LANES = ("event", "data", "backfill")
_FRESH_S = 60.0  # an outbox whose oldest row is younger than this drains

Values = tuple[Mapping[str, float], Mapping[str, str]]


def failing(texts: Mapping[str, str]) -> list[str]:
    """Connectors that are in trouble."""
    return sorted(name for name in texts if name.startswith("connector_"))


def judge(values: Mapping[str, float], texts: Mapping[str, str], before: Collection[str], waited: float) -> str:
    """What is wrong, "" if nothing. ``before``: connectors in trouble before the update; ``waited``: rows in the outbox
    at the first look."""
    if not values.get("link_up"):
        return f"no way to the core: {texts.get('link', 'not connected yet')}"
    waiting = sum(values.get(f"outbox_{lane}_batches", 0.0) for lane in _LANES)
    if waiting > waited and values.get("outbox_oldest_s", 0.0) > _FRESH_S:
        return f"the outbox does not drain: {waiting:.0f} batches wait, {waited:.0f} before"
    worse = [name for name in failing(texts) if name not in before]
    return f"{worse[0]}: {texts[worse[0]]}" if worse else ""


class Witness:
    """Says to the launcher how the agent on trial is. ``token`` comes from the launcher: word of an earlier start does
    not count."""

    def __init__(self, root: Path, token: str, before: Collection[str], steady_s: float) -> None:
        self._path = root / HEALTH_FILE
        self._token = token
        self._before = before
        self._steady_s = steady_s

    async def run(self, health: Callable[[], Values], *, every_s: float = 0.5) -> None:
        """Until it has been healthy for long enough."""
        loop = asyncio.get_running_loop()
        since: float | None = None
        waited: float | None = None
        while True:
            values, texts = health()
            if waited is None:
                waited = sum(values.get(f"outbox_{lane}_batches", 0.0) for lane in _LANES)
            wrong = judge(values, texts, self._before, waited)
            now = loop.time()
            since = None if wrong else now if since is None else since
            healthy = since is not None and now - since >= self._steady_s
            self._say(healthy, wrong or "healthy")
            if healthy:
                return
            await asyncio.sleep(every_s)

    def _say(self, healthy: bool, detail: str) -> None:
        part = self._path.with_suffix(".part")
        try:
            part.write_text(json.dumps({"run": self._token, "healthy": healthy, "detail": detail[:400]}), "utf-8")
            os.replace(part, self._path)  # noqa: PTH105
        except OSError:
            return  # a full disk: said again in a moment; the launcher's patience has an end
