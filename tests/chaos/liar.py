"""An agent that lies: each tenth commit it says it has, and never sends. For a test that the harness finds it out."""

from __future__ import annotations

import sys
from typing import Any

from citybrain_cli.chaos import source
from edge.outbox import Outbox

_commits = 0
_honest = Outbox.commit


def _commit(self: Outbox, *arguments: Any, **named: Any) -> None:
    global _commits
    _commits += 1
    if _commits % 10:
        _honest(self, *arguments, **named)


Outbox.commit = _commit  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(source.main())
