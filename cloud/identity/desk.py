"""Enrolment for the web process: threads and connections of its own, so that no gateway waits for an operator's page.

Signing and the row lock of a claim block; a flood of strangers must not take the event loop or the pool of the console.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from cloud.identity import admission, claims, revocation
from cloud.identity.config import IdentitySettings
from cloud.identity.enrolment import Enrolled, Enrolment, refused
from cloud.identity.errors import IdentityRefused
from cloud.identity.limiter import Refusals
from cloud.identity.signer import Signer, open_signer
from protocols.core.errors import ConfigError, StoreError

ResultT = TypeVar("ResultT")
_WORKERS = 4


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class IdentityDesk:
    """``settings`` None: enrolment is not set up; revoking and accepting devices work all the same."""

    def __init__(
        self,
        dsn: str,
        settings: IdentitySettings | None,
        state_dir: Path,
        *,
        city: str = "citybrain",
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._dsn = dsn
        self.settings = settings
        self._state_dir = state_dir
        self._city = city
        self._now = now
        self._signer: Signer | None = None
        self._opening = threading.Lock()
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="identity")
        self._local = threading.local()
        self.refusals = Refusals()

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    # -- for gateways ---------------------------------------------------------------------------------------------

    async def root(self) -> tuple[str, str]:
        """The city's root, PEM, and its fingerprint."""
        signer = (await self._in_thread(self._open))[1]
        return signer.root_pem, signer.fingerprint

    async def enrol(self, code: str, csr: str, peer: str) -> Enrolled:
        """Raises IdentityRefused."""
        return await self._answer(peer, lambda conn, e: e.enrol(conn, code, csr, peer, self._now()))

    async def renew(self, certificate: str, csr: str, signature: str, peer: str) -> Enrolled:
        """Raises IdentityRefused."""
        return await self._answer(peer, lambda conn, e: e.renew(conn, certificate, csr, signature, self._now()))

    async def _answer(self, peer: str, step: Callable[[Connection[TupleRow], Enrolment], Enrolled]) -> Enrolled:
        wait_s = self.refusals.wait_s(peer, time.monotonic())
        if wait_s:
            raise IdentityRefused(f"too many refused attempts; try again in {wait_s:.0f} s", reason="busy")

        def work() -> Enrolled:
            settings, signer = self._open()
            try:
                return self._with(lambda conn: step(conn, Enrolment(settings, signer)))
            except IdentityRefused as refusal:
                said = refusal
                times = self.refusals.refused(peer, said.reason, time.monotonic())
                self._with(lambda conn: refused(conn, said, peer, times))
                raise

        return await self._in_thread(work)

    # -- for operators --------------------------------------------------------------------------------------------

    async def claim(self, wanted: claims.Wanted, who: str, days: float | None) -> claims.Made:
        """Raises ConfigError."""
        settings, _ = await self._in_thread(self._open)
        life = settings.claim_days if days is None else days
        return await self._in_thread(lambda: self._with(lambda conn: claims.make(conn, wanted, who, self._now(), life)))

    async def revoke(self, gateway_id: str, who: str, reason: str) -> int | None:
        return await self._in_thread(
            lambda: self._with(lambda conn: revocation.revoke(conn, gateway_id, who, reason, self._now()))
        )

    async def decide(self, gateway_id: str, device_id: str, decision: admission.Decision, who: str) -> bool:
        return await self._in_thread(
            lambda: self._with(lambda conn: admission.decide(conn, gateway_id, device_id, decision, who))
        )

    async def set_admission(self, gateway_id: str, mode: admission.Mode, who: str) -> bool:
        return await self._in_thread(lambda: self._with(lambda conn: admission.set_mode(conn, gateway_id, mode, who)))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _open(self) -> tuple[IdentitySettings, Signer]:
        """The authority, made at first use. Raises ConfigError."""
        if self.settings is None:
            raise ConfigError("enrolment is not set up: [identity] is missing in the core's configuration")
        with self._opening:
            if self._signer is None:
                self._signer = open_signer(self.settings, self._state_dir, self._city, self._now())
            return self.settings, self._signer

    async def _in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    def _with(self, step: Callable[[Connection[TupleRow]], ResultT]) -> ResultT:
        """On this thread's own connection, opened again when it broke."""
        conn: Connection[TupleRow] | None = getattr(self._local, "conn", None)
        try:
            if conn is None or conn.closed:
                conn = self._local.conn = psycopg.connect(
                    self._dsn,
                    autocommit=True,
                    options="-c statement_timeout=15000 -c lock_timeout=5000 -c timezone=UTC",
                    application_name="citybrain-identity",
                )
            return step(conn)
        except psycopg.OperationalError as error:
            if conn is not None:
                conn.close()
            self._local.conn = None
            raise StoreError(f"database: {error}") from error
