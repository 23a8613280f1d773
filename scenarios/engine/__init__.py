"""The scenario engine."""

from __future__ import annotations

from scenarios.engine.engine import Engine

__all__ = ["Engine"]
