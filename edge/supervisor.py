"""Keeps every connector and camera going: one that fails is started again, the others never notice.

Only expected errors are retried (the link, not the program). Lost is logged once, back is logged once; in between there
are counters. A programming error ends the agent: a wrong program must not look healthy.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from protocols.core.errors import LinkRefused, TransportError

log = logging.getLogger("citybrain.edge.supervisor")

_FIRST_S, _MOST_S, _STEADY_S = 0.5, 30.0, 20.0


class Supervised:
    """One supervised task. ``run`` serves until its link is lost."""

    def __init__(
        self, name: str, run: Callable[[], Awaitable[None]], *, jitter: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.name = name
        self._run = run
        self._jitter = jitter
        self.restarts = 0
        self.error = ""  # empty: serving

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = _FIRST_S
        while True:
            started = loop.time()
            steady = loop.call_later(_STEADY_S, self._steady)
            try:
                await self._run()
                return  # finished for good: a file that ended
            except TransportError as error:
                if not self.error:
                    log.warning("%s lost: %s", self.name, error)
                self.error = str(error)
                refused = isinstance(error, LinkRefused)
            finally:
                steady.cancel()
            self.restarts += 1
            if loop.time() - started > _STEADY_S:
                backoff_s = _FIRST_S
            await asyncio.sleep(_MOST_S if refused else backoff_s * self._jitter(0.5, 1.0))
            backoff_s = min(2 * backoff_s, _MOST_S)

    def _steady(self) -> None:
        if self.error:
            log.info("%s back", self.name)
            self.error = ""
