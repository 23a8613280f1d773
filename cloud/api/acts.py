"""The few things that change something: taking an alarm, moving a case; and what may be done with a case.

The services behind them are synchronous and work inside one transaction of the caller; here each gets a connection
and a thread of its own, bounded, so that the event loop never waits for a lock in the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
from psycopg.rows import TupleRow

from cloud.alarms import service as alarm_service
from cloud.cases import service as case_service
from cloud.cases.flows import Action
from cloud.ingest.events import insert as insert_events
from protocols.core.errors import StoreError

ResultT = TypeVar("ResultT")


class Acts:
    def __init__(self, dsn: str, *, workers: int = 4) -> None:
        self._dsn = dsn
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="acts")

    async def run(self, step: Callable[[psycopg.Connection[TupleRow]], ResultT]) -> ResultT:
        def work() -> ResultT:
            try:
                with psycopg.connect(
                    self._dsn, options="-c statement_timeout=15000 -c lock_timeout=5000 -c timezone=UTC"
                ) as conn:
                    return step(conn)
            except psycopg.OperationalError as error:
                raise StoreError(f"database: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def offers(self, case_id: int, who: str) -> list[Action]:
        """What this person may do with the case now. Raises CaseNotFound."""

        def step(conn: psycopg.Connection[TupleRow]) -> list[Action]:
            return case_service.allowed_actions(case_service.load(conn, case_id), int(time.time() * 1000), who)

        return await self.run(step)

    async def acknowledge(self, alarm_id: str, who: str) -> None:
        await self.run(lambda conn: alarm_service.acknowledge(conn, alarm_id, who))

    async def act(self, case_id: int, action: str, who: str, reason: str, version: int) -> None:
        """Raises what cloud.cases refuses, CaseConflict among it. The event of the move is stored with it."""

        def step(conn: psycopg.Connection[TupleRow]) -> None:
            case = case_service.act(conn, case_id, action, who, reason, version)
            insert_events(conn, case.events, None)

        await self.run(step)

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)
