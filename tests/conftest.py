"""Fixtures every folder may use: the real servers of ``tests/fixtures``."""

from __future__ import annotations

from tests.fixtures.broker import start_broker
from tests.fixtures.postgres import dsn, postgres

__all__ = ["dsn", "postgres", "start_broker"]
