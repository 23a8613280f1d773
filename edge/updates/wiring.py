"""Where the agent takes updates up: the twin's handler, and its own word while it is on trial."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge.clock import Clock
from edge.twin import Twin
from edge.updates.config import UpdatesConfig
from protocols.updates.document import TWIN_NAME

if TYPE_CHECKING:
    from edge.updates.health import Values
    from edge.updates.manager import Updates


class Tell(Protocol):
    def __call__(self, state: str, detail: str = "", document: Mapping[str, Any] | None = None) -> None: ...


async def _refuse(_document: Mapping[str, Any], _version: int, tell: Tell) -> None:
    tell("refused", "this agent was not started by the launcher (`citybrain edge slots`): it cannot change its version")


def attach(twin: Twin, config: UpdatesConfig, base: Path, clock: Clock, health: Callable[[], Values]) -> Updates | None:
    """Let the twin hear of updates. None: no launcher started this agent, and documents are refused."""
    root = os.environ.get("CITYBRAIN_SLOTS", "")
    if not root:
        twin.handlers[TWIN_NAME] = _refuse
        return None
    from edge.updates.manager import Updates  # an agent without updates never loads what checks signatures

    updates = Updates(
        config,
        base,
        Path(root),
        clock,
        health=health,
        superseded=lambda version: twin.version(TWIN_NAME) > version,
        trial=os.environ.get("CITYBRAIN_TRIAL", ""),
    )
    twin.handlers[TWIN_NAME] = updates.handle
    return updates
