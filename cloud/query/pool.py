"""A bounded set of database connections for one event loop.

Requests come in bursts, PostgreSQL connections are dear: at most ``size`` are open, later requests wait for one, and
give up after ``wait_s`` with an error the caller can retry. A connection that broke is thrown away, not handed out
again. Connections are in autocommit, so a read never leaves a transaction behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.rows import TupleRow

from protocols.core.errors import StoreError

Connection = psycopg.AsyncConnection[TupleRow]


async def one(conn: Connection, query: LiteralString, params: Mapping[str, Any] | None = None) -> TupleRow:
    """The row of a query that always gives exactly one, such as an aggregate."""
    row = await (await conn.execute(query, params)).fetchone()
    if row is None:
        raise StoreError("database: an aggregate gave no row")
    return row


class Pool:
    def __init__(self, dsn: str, size: int = 8, *, wait_s: float = 10.0, statement_timeout_ms: int = 15_000) -> None:
        self._dsn = dsn
        self._wait_s = wait_s
        self._options = f"-c statement_timeout={statement_timeout_ms} -c timezone=UTC"
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._closed = False

    async def connect(self) -> Connection:
        """A connection of its own, not counted in the pool (the caller closes it)."""
        try:
            return await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, options=self._options, application_name="citybrain-core-web"
            )
        except psycopg.OperationalError as error:
            raise StoreError(f"database: {error}") from error

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        try:
            await asyncio.wait_for(self._slots.acquire(), self._wait_s)
        except TimeoutError as error:
            raise StoreError(f"no database connection became free within {self._wait_s:g} s") from error
        conn: Connection | None = None
        try:
            conn = self._idle.pop() if self._idle else await self.connect()
            try:
                yield conn
            except psycopg.OperationalError as error:
                raise StoreError(f"database: {error}") from error
            if conn.closed or self._closed or conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await conn.close()
            else:
                self._idle.append(conn)
            conn = None
        finally:
            if conn is not None:  # an error or a cancelled request may have left an answer half read
                await conn.close()
            self._slots.release()

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            await self._idle.pop().close()
