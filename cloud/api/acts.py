"""The few things that change something: taking an alarm, moving a case.

The services behind them are synchronous and work inside one transaction of the caller; here each gets a connection
and a thread of its own, bounded, so that the event loop never waits for a lock in the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

from cloud.alarms import service as alarm_service
from cloud.cases import service as case_service
from protocols.core.errors import StoreError

ResultT = TypeVar("ResultT")


class Acts:
    def __init__(self, dsn: str, *, workers: int = 4) -> None:
        self._dsn = dsn
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="acts")

    async def _run(self, step: Callable[[psycopg.Connection[TupleRow]], ResultT]) -> ResultT:
        def work() -> ResultT:
            try:
                with psycopg.connect(
                    self._dsn, options="-c statement_timeout=15000 -c lock_timeout=5000 -c timezone=UTC"
                ) as conn:
                    return step(conn)
            except psycopg.OperationalError as error:
                raise StoreError(f"database: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def acknowledge(self, alarm_id: str, who: str) -> None:
        await self._run(lambda conn: alarm_service.acknowledge(conn, alarm_id, who))

    async def act(self, case_id: int, action: str, who: str, reason: str, version: int) -> None:
        await self._run(lambda conn: case_service.act(conn, case_id, action, who, reason, version))

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)
