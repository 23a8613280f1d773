"""Logging in and out, with password and second factor; who a session belongs to; changing the password.

An attempt is counted before the password is looked at, in one statement, so a burst of parallel guesses gets no more
tries than a patient one. Five failures lock the name for five minutes; names that do not exist behave the same. A
right password with a wrong code is a failure too. Every log-in, good or bad, is in the audit log.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow

from cloud.audit import Entry, arecord
from cloud.auth import passwords
from cloud.auth.errors import (
    AuthError,
    Locked,
    NameTaken,
    NotPossible,
    SecondFactorNeeded,
    WeakPassword,
    WrongCode,
    WrongPassword,
)
from cloud.auth.operator import ROLES, Operator, Role
from cloud.auth.people import load, load_rules, operator_of
from cloud.auth.rules import NO_RULES, Rules
from cloud.auth.second_factor import SecondFactor, looks_like_recovery
from cloud.auth.sessions import Sessions, Token
from cloud.auth.throttle import LOCK_S, MAX_FAILURES, Addresses, Strangers
from cloud.query.pool import Connection, Pool

__all__ = [
    "FIRST_NAME", "ROLES", "Accounts", "AuthError", "Locked", "Login", "NameTaken", "Operator", "Origin", "Role",
    "SecondFactorNeeded", "WeakPassword", "WrongCode", "WrongPassword", "ensure_first_operator",
]  # fmt: skip

FIRST_NAME = "admin"
#: No password fits this hash: accounts of single sign-on, and of machines that use tokens only.
NO_PASSWORD = "!"  # noqa: S105
_TOUCH_S = 60  # "last seen" of a session is at most this old: not a write for every request


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a log-in comes from, for the list of sessions and the audit log."""

    address: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Login:
    token: str
    expires_s: int
    operator: Operator


class Accounts:
    def __init__(
        self, pool: Pool, sessions: Sessions, *, idle_s: float = 12 * 3600, address_failures: int = 100
    ) -> None:
        self._pool = pool
        self.idle_s = idle_s
        self.sessions = sessions
        self.second_factor = SecondFactor(sessions.key)
        self._strangers = Strangers()
        self._addresses = Addresses(address_failures, refill_s=6.0)
        self._rules: Rules = NO_RULES

    async def login(self, name: str, password: str, code: str = "", *, origin: Origin | None = None) -> Login:
        """Raises Locked, WrongPassword, SecondFactorNeeded (password right, no code given) or WrongCode."""
        origin = origin or Origin()
        name = name.strip()[:64]
        self._addresses.check(origin.address, time.time())
        async with self._pool.connection() as conn:
            password_hash = await self._attempt(conn, name, origin)
        # No connection is held while argon2 works: a burst of log-ins must not keep the console from reading.
        if not await passwords.verify_async(password, password_hash) or password_hash is None:
            await self._failed(name, origin, "password")
            raise WrongPassword("name or password is wrong")
        return await self._enter(name, password_hash, code, origin)

    async def second(self, pending: str, code: str, *, origin: Origin | None = None) -> Login:
        """The code that was asked for after a right password. Raises as ``login``."""
        origin = origin or Origin()
        known = self.sessions.read_pending(pending, time.time())
        if known is None:
            raise WrongPassword("too late, log in again")
        name, fingerprint = known
        self._addresses.check(origin.address, time.time())
        async with self._pool.connection() as conn:
            password_hash = await self._attempt(conn, name, origin)
        if password_hash is None or self.sessions.fingerprint(password_hash) != fingerprint:
            raise WrongPassword("too late, log in again")
        return await self._enter(name, password_hash, code or "-", origin)

    async def _enter(self, name: str, password_hash: str, code: str, origin: Origin) -> Login:
        """The password was right: ask for the second factor if there is one, then open a session."""
        async with self._pool.connection() as conn:
            entered = await self._try_enter(conn, name, password_hash, code, origin)
        if isinstance(entered, Login):
            return entered
        if entered == "code_needed":
            raise SecondFactorNeeded(self.sessions.pending(name, password_hash, time.time()))
        await self._failed(name, origin, entered)
        if entered == "code":
            raise WrongCode("the code is wrong, or was used before")
        raise WrongPassword("name or password is wrong")

    async def _try_enter(
        self, conn: Connection, name: str, password_hash: str, code: str, origin: Origin
    ) -> Login | str:
        row = await (
            await conn.execute(
                "select totp_secret, disabled, role from operator where name = %s and password_hash = %s",
                [name, password_hash],
            )
        ).fetchone()
        if row is None or row[1] or row[2] == "service":
            return "disabled"
        factor = "password"
        if row[0] is not None:
            if not code:
                # The password was no guess; but it must not wipe out the wrong codes counted so far.
                await conn.execute(
                    "update operator set failed = greatest(failed - 1, 0), locked_until = null where name = %s", [name]
                )
                return "code_needed"
            taken = await self.take_code(conn, name, bytes(row[0]), code)
            if taken is None:
                return "code"
            factor = taken
        await conn.execute("update operator set failed = 0, locked_until = null where name = %s", [name])
        return await self.open_session(conn, name, factor, origin)

    async def take_code(self, conn: Connection, name: str, sealed: bytes, code: str) -> str | None:
        """``totp`` or ``recovery`` if the code is good and was never taken before; it is taken now."""
        if looks_like_recovery(code):
            done = await conn.execute(
                "update operator_recovery set used_at = now() where name = %s and code_hash = %s and used_at is null",
                [name, self.second_factor.recovery_hash(name, code)],
            )
            return "recovery" if done.rowcount else None
        step = self.second_factor.step_of(sealed, name, code, time.time())
        if step is None:
            return None
        done = await conn.execute(
            "update operator set totp_step = %(step)s where name = %(name)s and totp_step < %(step)s",
            {"step": step, "name": name},
        )
        return "totp" if done.rowcount else None

    async def open_session(self, conn: Connection, name: str, factor: str, origin: Origin) -> Login:
        """A new session of somebody who has proved who he is, by ``factor``."""
        row = await (await conn.execute("select password_hash from operator where name = %s", [name])).fetchone()
        operator = await load(conn, name, await self.rules(conn))
        if row is None or operator is None:
            raise WrongPassword("no such operator")
        text, token = self.sessions.issue(name, str(row[0]), time.time())
        async with conn.transaction():
            await conn.execute(
                "insert into operator_session (session_id, name, factor, address, agent, expires_at) "
                "values (%s, %s, %s, %s, %s, to_timestamp(%s))",
                [token.sid, name, factor, origin.address[:64], _printable(origin.agent)[:200], token.expires_s],
            )
            await conn.execute("delete from operator_session where expires_at < now() - interval '30 days'")
            detail = {"factor": factor, "address": origin.address, "session": token.sid[:6]}
            await arecord(conn, Entry(name, "login", f"operator/{name}", detail))
        return Login(text, token.expires_s, operator)

    async def _failed(self, name: str, origin: Origin, why: str) -> None:
        self._addresses.failed(origin.address, time.time())
        shown = _printable(name)
        async with self._pool.connection() as conn, conn.transaction():
            entry = Entry("stranger", "login.failed", f"operator/{shown}", {"why": why, "address": origin.address})
            await arecord(conn, entry)

    async def _attempt(self, conn: Connection, name: str, origin: Origin) -> str | None:
        """Count one attempt; the hash to verify against, None if there is no such operator. Raises Locked."""
        if "\x00" in name:
            return None  # PostgreSQL has no such text, so there is no such name
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
            self._addresses.failed(origin.address, time.time())
            raise Locked(max(int(row[0] or 1), 1))
        self._strangers.count(name, time.time())
        return None

    async def count_attempt(self, conn: Connection, name: str) -> None:
        """One more guess at somebody's code inside a session. Raises Locked."""
        await self._attempt(conn, name, Origin())

    async def rules(self, conn: Connection) -> Rules:
        """The policy as the database has it now; read again only when its version has moved."""
        row = await (await conn.execute("select version from access_version")).fetchone()
        return await self.rules_at(conn, int(row[0]) if row else 0)

    async def rules_at(self, conn: Connection, version: int) -> Rules:
        if self._rules.version != version:
            self._rules = await load_rules(conn, version)
        return self._rules

    async def check(self, text: str | None, *, active: bool = True) -> tuple[Operator, Token] | None:
        """The operator of a session that is still good: signed by us, not over, not ended, used lately, password
        unchanged, account open. ``active=False`` for what a page asks by itself: it does not count as use."""
        token = self.sessions.read(text, time.time()) if text else None
        if token is None or text is None:
            return None
        async with self._pool.connection() as conn:
            row = await (
                await conn.execute(
                    """
                    select o.*, a.version, o.password_hash, s.seen_at < now() - make_interval(secs => %(touch)s)
                      from operator_session s join operator_known o using (name), access_version a
                     where s.session_id = %(sid)s and s.name = %(name)s and s.ended_at is null
                       and s.expires_at > now() and s.seen_at > now() - make_interval(secs => %(idle)s)
                       and not o.disabled
                    """,
                    {"sid": token.sid, "name": token.name, "touch": _TOUCH_S, "idle": self.idle_s},
                )
            ).fetchone()
            if row is None:
                return None
            *known, version, password_hash, untouched = row
            if self.sessions.fingerprint(password_hash) != token.fingerprint:
                return None
            if active and untouched:
                await conn.execute("update operator_session set seen_at = now() where session_id = %s", [token.sid])
            return operator_of(known, await self.rules_at(conn, version)), token

    async def logout(self, token: Token) -> None:
        await self.end_session(token.sid, token.name)

    async def end_session(self, session_id: str, by: str) -> bool:
        async with self._pool.connection() as conn, conn.transaction():
            row = await (
                await conn.execute(
                    "update operator_session set ended_at = now(), ended_by = %s "
                    "where session_id = %s and ended_at is null returning name",
                    [by, session_id],
                )
            ).fetchone()
            if row is None:
                return False
            action = "logout" if row[0] == by else "session.end"
            await arecord(conn, Entry(by, action, f"operator/{row[0]}", {"session": session_id[:6]}))
        return True

    async def change_password(self, name: str, old: str, new: str, *, origin: Origin | None = None) -> Login:
        """Also ends every other session of this operator."""
        origin = origin or Origin()
        async with self._pool.connection() as conn:
            password_hash = await self._attempt(conn, name, origin)
        if password_hash == NO_PASSWORD:
            raise NotPossible("sso", "this account has no password here")
        if not await passwords.verify_async(old, password_hash):
            await self._failed(name, origin, "password")
            raise WrongPassword("the old password is wrong")
        reason = "same" if old == new else passwords.weakness(new, name)
        new_hash = password_hash if reason else await passwords.hashed_async(new)
        async with self._pool.connection() as conn:
            if reason:
                await conn.execute("update operator set failed = 0, locked_until = null where name = %s", [name])
                raise WeakPassword(reason)
            async with conn.transaction():
                await conn.execute(
                    "update operator set password_hash = %s, must_change = false, failed = 0, locked_until = null "
                    "where name = %s",
                    [new_hash, name],
                )
                await end_sessions(conn, name, name)
                await arecord(conn, Entry(name, "password.change", f"operator/{name}", {"address": origin.address}))
                return await self.open_session(conn, name, "password", origin)

    async def set_language(self, name: str, language: str) -> None:
        async with self._pool.connection() as conn:
            await conn.execute("update operator set language = %s where name = %s", [language, name])


async def end_sessions(conn: Connection, name: str, by: str, *, but: str = "") -> int:
    """End the sessions of an operator, all but one; in the caller's transaction."""
    done = await conn.execute(
        "update operator_session set ended_at = now(), ended_by = %s "
        "where name = %s and ended_at is null and session_id <> %s",
        [by, name, but],
    )
    return done.rowcount


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


def _printable(text: str) -> str:
    """What a stranger sends goes into the log without control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
