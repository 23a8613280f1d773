"""Conditions (``where = "..."``) in CEL, compiled once when the pack is read.

A condition sees only what came with the sample or fact itself, so that the verdict does not depend on how a stream
was cut into batches. A sample for which the condition is not true does not exist for the rule.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def _cel() -> Any:
    """The CEL library without its command line, whose terminal tool kit costs each process 0.9 s and 20 MB at start.

    The package imports it for itself; an empty module stands in for it meanwhile.
    """
    if "cel" not in sys.modules and "cel.cli" not in sys.modules:
        sys.modules["cel.cli"] = ModuleType("cel.cli")
        try:
            import cel
        finally:
            del sys.modules["cel.cli"]
        return cel
    import cel

    return cel


cel = _cel()

#: Names a condition on readings may use.
READING_NAMES = frozenset({"x", "device", "point", "hour", "weekday"})
#: Names a condition on facts may use: the values of a fact (protocols/core/README.md) and where it was seen.
FACT_NAMES = frozenset(
    {"cls", "static", "static_s", "dwell_s", "conf", "area_m2", "clear_width_m", "zone", "device", "hour", "weekday"}
)


class Condition:
    """One compiled condition. Raises ValueError if it does not parse or names something unknown."""

    __slots__ = ("_program", "failures", "names", "source")

    def __init__(self, source: str, known: frozenset[str]) -> None:
        self._program = cel.compile(source)
        self.source = source
        self.failures = 0
        self.names: frozenset[str] = frozenset(self._program.variables())
        unknown = self.names - known
        if unknown:
            raise ValueError(f"unknown name {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")

    def holds(self, values: Mapping[str, Any]) -> bool:
        """A value that is missing where it is needed, or of a type the condition cannot take, makes it false: what
        was not said is not taken for granted, and one odd fact must not stop the rules of a whole gateway."""
        try:
            return self._program.execute({name: values[name] for name in self.names & values.keys()}) is True
        except (TypeError, RuntimeError, ValueError):
            if self.names <= values.keys():
                self.failures += 1  # all was there, so the types are wrong: worth a look
            return False
