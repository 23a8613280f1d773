"""Operators: log in, log out, change a password, add one.

An attempt is counted before the password is looked at, in one statement, so a burst of parallel guesses gets no more
tries than a patient one. Five failures lock the name for five minutes; names that do not exist behave the same.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, cast

import psycopg
from psycopg.rows import TupleRow

from cloud.auth import passwords
from cloud.auth.sessions import Sessions, Token
from cloud.query.pool import Connection, Pool
from protocols.core.errors import CityBrainError

Role = Literal["viewer", "operator", "admin"]
ROLE_RANK: dict[str, int] = {"viewer": 0, "operator": 1, "admin": 2}
MAX_FAILURES = 5
LOCK_S = 300
FIRST_NAME = "admin"


class AuthError(CityBrainError):
    code = "auth"


class WrongPassword(AuthError):
    code = "auth.wrong"


class Locked(AuthError):
    """Too many failures; ``retry_s`` says for how long."""

    code = "auth.locked"

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"locked for {retry_s} s after {MAX_FAILURES} failures")
        self.retry_s = retry_s


class WeakPassword(AuthError):
    code = "auth.weak"

    def __init__(self, reason: str) -> None:
        super().__init__(f"password refused: {reason}")
        self.reason = reason


class NameTaken(AuthError):
    code = "auth.name_taken"


@dataclass(frozen=True, slots=True)
class Operator:
    name: str
    role: Role
    language: str
    must_change: bool

    def may(self, role: Role) -> bool:
        return ROLE_RANK[self.role] >= ROLE_RANK[role]


@dataclass(frozen=True, slots=True)
class Login:
    token: str
    expires_s: int
    operator: Operator


class _Strangers:
    """Failure counts of names that do not exist, so that they lock like real ones. Bounded; the oldest is forgotten."""

    def __init__(self, size: int = 10_000) -> None:
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._size = size

    def count(self, name: str, now_s: float) -> None:
        failed, until_s = self._seen.pop(name, (0, 0.0))
        if until_s > now_s:
            self._seen[name] = (failed, until_s)
            raise Locked(int(until_s - now_s) + 1)
        failed = 1 if until_s else failed + 1
        self._seen[name] = (failed, now_s + LOCK_S if failed >= MAX_FAILURES else 0.0)
        while len(self._seen) > self._size:
            self._seen.popitem(last=False)


class Accounts:
    def __init__(self, pool: Pool, sessions: Sessions) -> None:
        self._pool = pool
        self.sessions = sessions
        self._strangers = _Strangers()

    async def login(self, name: str, password: str) -> Login:
        name = name.strip()[:64]
        async with self._pool.connection() as conn:
            password_hash = await self._attempt(conn, name)
            if not await passwords.verify_async(password, password_hash) or password_hash is None:
                raise WrongPassword("name or password is wrong")
            row = await (
                await conn.execute(
                    "update operator set failed = 0, locked_until = null where name = %s "
                    "returning name, role, language, must_change",
                    [name],
                )
            ).fetchone()
        if row is None:
            raise WrongPassword("name or password is wrong")
        text, token = self.sessions.issue(name, password_hash, time.time())
        return Login(text, token.expires_s, _operator(row))

    async def _attempt(self, conn: Connection, name: str) -> str | None:
        """Count one attempt; the hash to verify against, None if there is no such operator. Raises Locked."""
        row = await (
            await conn.execute(
                """
                update operator set
                    failed = case when locked_until is not null then 1 else failed + 1 end,
                    locked_until = case when locked_until is null and failed + 1 >= %(max)s
                                        then now() + make_interval(secs => %(lock)s) end
                 where name = %(name)s and (locked_until is null or locked_until <= now())
                returning password_hash
                """,
                {"name": name, "max": MAX_FAILURES, "lock": LOCK_S},
            )
        ).fetchone()
        if row is not None:
            return str(row[0])
        row = await (
            await conn.execute(
                "select ceil(extract(epoch from locked_until - now()))::int from operator where name = %s", [name]
            )
        ).fetchone()
        if row is not None:
            raise Locked(max(int(row[0] or 1), 1))
        self._strangers.count(name, time.time())
        return None

    async def check(self, text: str | None) -> tuple[Operator, Token] | None:
        """The operator of a token that is still good: signed by us, not ended, not logged out, password unchanged."""
        token = self.sessions.read(text, time.time()) if text else None
        if token is None:
            return None
        async with self._pool.connection() as conn:
            row = await (
                await conn.execute(
                    "select o.name, o.role, o.language, o.must_change, o.password_hash from operator o "
                    "where o.name = %s and not exists (select 1 from setting where setting.name = %s)",
                    [token.name, _revoked(token.sid)],
                )
            ).fetchone()
        if row is None or self.sessions.fingerprint(row[4]) != token.fingerprint:
            return None
        return _operator(row), token

    async def logout(self, token: Token) -> None:
        async with self._pool.connection() as conn:
            await conn.execute(
                "insert into setting (name, value) values (%s, to_jsonb(%s::bigint)) on conflict (name) do nothing",
                [_revoked(token.sid), token.expires_s],
            )
            await conn.execute(
                "delete from setting where name like 'session.revoked.%%' and value::bigint < %s", [int(time.time())]
            )

    async def change_password(self, name: str, old: str, new: str) -> Login:
        """Also ends every other session of this operator."""
        async with self._pool.connection() as conn:
            password_hash = await self._attempt(conn, name)
            if not await passwords.verify_async(old, password_hash):
                raise WrongPassword("the old password is wrong")
            if reason := ("same" if old == new else passwords.weakness(new, name)):
                await conn.execute("update operator set failed = 0, locked_until = null where name = %s", [name])
                raise WeakPassword(reason)
            new_hash = await passwords.hashed_async(new)
            row = await (
                await conn.execute(
                    "update operator set password_hash = %s, must_change = false, failed = 0, locked_until = null "
                    "where name = %s returning name, role, language, must_change",
                    [new_hash, name],
                )
            ).fetchone()
        if row is None:
            raise WrongPassword("no such operator")
        text, token = self.sessions.issue(name, new_hash, time.time())
        return Login(text, token.expires_s, _operator(row))

    async def set_language(self, name: str, language: str) -> None:
        async with self._pool.connection() as conn:
            await conn.execute("update operator set language = %s where name = %s", [language, name])

    async def operators(self) -> list[Operator]:
        async with self._pool.connection() as conn:
            rows = await (
                await conn.execute("select name, role, language, must_change from operator order by name")
            ).fetchall()
        return [_operator(row) for row in rows]

    async def add(self, name: str, role: Role) -> str:
        """A new operator; returns the generated password, which is kept nowhere in clear. Raises NameTaken."""
        password = passwords.generate()
        password_hash = await passwords.hashed_async(password)
        async with self._pool.connection() as conn:
            try:
                await conn.execute(
                    "insert into operator (name, password_hash, role) values (%s, %s, %s)", [name, password_hash, role]
                )
            except psycopg.errors.UniqueViolation as error:
                raise NameTaken(f"there is an operator {name!r} already") from error
        return password

    async def reset(self, name: str) -> str | None:
        """A new generated password (ends the operator's sessions); None if there is no such operator."""
        password = passwords.generate()
        password_hash = await passwords.hashed_async(password)
        async with self._pool.connection() as conn:
            done = await conn.execute(
                "update operator set password_hash = %s, must_change = true, failed = 0, locked_until = null "
                "where name = %s",
                [password_hash, name],
            )
        return password if done.rowcount else None


def ensure_first_operator(conn: psycopg.Connection[TupleRow]) -> str | None:
    """Make the first operator if there is none; returns the generated password once, to be shown and forgotten.

    Safe when several processes start together: only one of them gets a password.
    """
    if conn.execute("select 1 from operator limit 1").fetchone():
        return None
    password = passwords.generate()
    with conn.transaction():
        conn.execute("lock table operator in share row exclusive mode")
        if conn.execute("select 1 from operator limit 1").fetchone():
            return None
        conn.execute(
            "insert into operator (name, password_hash, role) values (%s, %s, 'admin')",
            [FIRST_NAME, passwords.hashed(password)],
        )
    return password


def _operator(row: TupleRow) -> Operator:
    return Operator(str(row[0]), cast(Role, row[1]), str(row[2]), bool(row[3]))


def _revoked(sid: str) -> str:
    return f"session.revoked.{sid}"
