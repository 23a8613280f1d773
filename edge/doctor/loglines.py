"""The agent's latest log lines, kept in memory so that they can be asked for from far away.

Bounded in lines and bytes; secrets are taken out when a line is kept, not when it is asked for. The system's journal
has the same lines for longer: this is for whoever cannot log in to the gateway.
"""

from __future__ import annotations

import logging
from collections import deque

from edge.doctor.redact import Redactor

_MOST_LINES, _MOST_BYTES, _MOST_LINE_BYTES = 4_000, 1 << 20, 2_000


class LogLines(logging.Handler):
    def __init__(self, redact: Redactor) -> None:
        super().__init__(logging.INFO)
        self._redact = redact
        self._lines: deque[tuple[int, str]] = deque()
        self._bytes = 0
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._redact(self.format(record))[:_MOST_LINE_BYTES]
        except Exception:
            self.handleError(record)
            return
        self._lines.append((record.levelno, line))
        self._bytes += len(line)
        while len(self._lines) > _MOST_LINES or self._bytes > _MOST_BYTES:
            self._bytes -= len(self._lines.popleft()[1])

    def newest(self, count: int, level: int, contains: str) -> list[str]:
        """The last ``count`` lines at or above a level that contain a text, oldest first."""
        found: list[str] = []
        for levelno, line in reversed(list(self._lines)):
            if levelno >= level and contains in line:
                found.append(line)
                if len(found) == count:
                    break
        return found[::-1]
