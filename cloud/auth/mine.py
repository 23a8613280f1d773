"""An operator and his own account: setting up a second factor, the list of his sessions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from cloud.audit import Entry, arecord
from cloud.auth.errors import NoOperator, NotPossible, WrongCode
from cloud.auth.operator import Operator
from cloud.auth.second_factor import Setup
from cloud.auth.service import Accounts, end_sessions
from cloud.query.pool import Connection, Pool


@dataclass(frozen=True, slots=True)
class SessionRow:
    session_id: str
    name: str
    factor: str
    address: str
    agent: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime


_COLUMNS = ", ".join(SessionRow.__slots__)


class Mine:
    def __init__(self, pool: Pool, accounts: Accounts) -> None:
        self._pool = pool
        self._accounts = accounts

    def setup(self, operator: Operator, sealed: str = "") -> Setup:
        if operator.second_factor:
            raise NotPossible("has_one", "there is a second factor already; remove it first")
        if operator.sso:
            raise NotPossible("sso", "the second factor of this account is the provider's affair")
        return self._accounts.second_factor.setup(operator.name, time.time(), sealed)

    async def confirm(self, operator: Operator, sealed: str, code: str, session_id: str) -> list[str]:
        """The first code proves the telephone: keep the secret, end the other sessions. Returns recovery codes."""
        factor = self._accounts.second_factor
        secret = factor.read_setup(sealed, operator.name, time.time())
        step = factor.step(secret, code, time.time()) if secret else None
        if secret is None or step is None:
            raise WrongCode("the code is wrong, or the set-up is too old")
        codes = factor.recovery_codes()
        async with self._pool.connection() as conn, conn.transaction():
            done = await conn.execute(
                "update operator set totp_secret = %s, totp_step = %s where name = %s and totp_secret is null",
                [factor.seal(secret, operator.name), step, operator.name],
            )
            if not done.rowcount:
                raise NotPossible("has_one", "there is a second factor already; remove it first")
            await self._put_codes(conn, operator.name, codes)
            await end_sessions(conn, operator.name, operator.name, but=session_id)
            await arecord(conn, Entry(operator.name, "totp.enrol", f"operator/{operator.name}"))
        return codes

    async def renew_codes(self, operator: Operator, code: str) -> list[str]:
        """New recovery codes; the old ones open nothing any more. Needs a code."""
        await self._prove(operator.name, code)
        codes = self._accounts.second_factor.recovery_codes()
        async with self._pool.connection() as conn, conn.transaction():
            await self._put_codes(conn, operator.name, codes)
            await arecord(conn, Entry(operator.name, "totp.codes", f"operator/{operator.name}"))
        return codes

    async def remove(self, operator: Operator, code: str) -> None:
        """Give one's own second factor up. Needs a code; not possible where a role asks for one."""
        if any(grant.role in operator.rules.second_factor for grant in operator.grants):
            raise NotPossible("required", "a role of yours asks for a second factor")
        await self._prove(operator.name, code)
        await self.take_away(operator.name, operator.name)

    async def take_away(self, name: str, by: str) -> None:
        """For an administrator, when telephone and recovery codes are lost. Ends the operator's sessions."""
        async with self._pool.connection() as conn, conn.transaction():
            done = await conn.execute(
                "update operator set totp_secret = null where name = %s and totp_secret is not null", [name]
            )
            if not done.rowcount:
                raise NoOperator(f"{name!r} has no second factor")
            await conn.execute("delete from operator_recovery where name = %s", [name])
            if by != name:
                await end_sessions(conn, name, by)
            await arecord(conn, Entry(by, "totp.remove", f"operator/{name}"))

    async def _prove(self, name: str, code: str) -> None:
        """Raises WrongCode; wrong codes count like wrong passwords (Locked)."""
        async with self._pool.connection() as conn:
            await self._accounts.count_attempt(conn, name)
            row = await (await conn.execute("select totp_secret from operator where name = %s", [name])).fetchone()
            taken = (
                await self._accounts.take_code(conn, name, bytes(row[0]), code)
                if row is not None and row[0] is not None
                else None
            )
            if taken is not None:
                await conn.execute("update operator set failed = 0, locked_until = null where name = %s", [name])
        if taken is None:
            raise WrongCode("the code is wrong, or was used before")

    async def _put_codes(self, conn: Connection, name: str, codes: list[str]) -> None:
        await conn.execute("delete from operator_recovery where name = %s", [name])
        hashed = [(name, self._accounts.second_factor.recovery_hash(name, code)) for code in codes]
        await conn.cursor().executemany("insert into operator_recovery (name, code_hash) values (%s, %s)", hashed)

    async def codes_left(self, name: str) -> int:
        async with self._pool.connection() as conn:
            row = await (
                await conn.execute("select count(*) from operator_recovery where name = %s and used_at is null", [name])
            ).fetchone()
        return int(row[0]) if row else 0

    async def sessions(self, name: str | None) -> list[SessionRow]:
        """Living sessions of one operator, or of all; the one used last first."""
        query = (
            f"select {_COLUMNS} from operator_session where ended_at is null and expires_at > now() "  # noqa: S608
            "and seen_at > now() - make_interval(secs => %(idle)s) "
            "and (%(name)s::text is null or name = %(name)s) order by seen_at desc, session_id limit 500"
        )
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(query.encode(), {"name": name, "idle": self._accounts.idle_s})).fetchall()
        return [SessionRow(*row) for row in rows]

    async def end(self, session_id: str, by: str, *, of: str | None) -> bool:
        """``of``: only if it belongs to this operator."""
        async with self._pool.connection() as conn:
            row = await (
                await conn.execute(
                    "select name from operator_session where session_id = %s and ended_at is null", [session_id]
                )
            ).fetchone()
        if row is None or (of is not None and row[0] != of):
            return False
        return await self._accounts.end_session(session_id, by)
