"""One question on a line that nobody knows yet: an answer, silence, or several voices at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from edge.connectors.base import Link
from edge.connectors.gap import Gap
from edge.connectors.line import Line
from protocols.core.endpoint import Endpoint
from protocols.core.errors import RemoteProtocolError

#: After an answer to "whoever is there" a second one may follow.
_SECOND_S = 0.3


@dataclass(frozen=True, slots=True)
class Heard:
    """``message``: a whole answer, if there was one; ``noise``: bytes came that were none (a collision, usually)."""

    message: Any = None
    noise: bool = False

    @property
    def silent(self) -> bool:
        return self.message is None and not self.noise


class Asker:
    """Counts what it asks, so that progress can be shown."""

    def __init__(self, link: Link, *, gap_s: float) -> None:
        self._link = link
        self._gap_s = gap_s
        self._lines: dict[int, tuple[Endpoint[Any], Line]] = {}
        self.asked = 0

    async def ask(self, endpoint: Endpoint[Any], message: object, wait_s: float, *, many: bool = False) -> Heard:
        """``many``: several devices may answer, so wait for a second voice behind the first. Raises TransportError."""
        _, line = self._lines.setdefault(
            id(endpoint), (endpoint, Line(self._link, endpoint, gap=Gap(self._gap_s, 0.0)))
        )
        errors: list[RemoteProtocolError] = []
        late = line.late_bytes
        self.asked += 1
        answer = await line.ask(message, wait_s, errors.append)
        if many and answer is not None:
            await asyncio.sleep(_SECOND_S)
            await line.flush()
        return Heard(answer, noise=bool(errors) or line.late_bytes > late)
