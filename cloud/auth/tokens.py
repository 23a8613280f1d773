"""API tokens: for programs that act in somebody's name, each for a few actions and until a date.

``cbt_<id>_<secret>``: the id finds the row, of the 256-bit secret only a hash is kept. A token never may more than its
owner may at that moment, cannot look after operators or tokens, and stops when its owner's account is shut.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cloud.audit import Entry, arecord
from cloud.auth import policy
from cloud.auth.errors import AboveOwner, NoOperator, NotPossible
from cloud.auth.operator import Operator
from cloud.auth.people import load, operator_of
from cloud.auth.rules import Rules
from cloud.auth.service import Accounts
from cloud.query.pool import Pool

PREFIX = "cbt_"
MAX_DAYS = 366
MAX_PER_OWNER = 50
#: A token that makes tokens or operators would outlive any limit put on it.
NEVER: frozenset[str] = frozenset({"operator.manage", "token.manage"})
_FORM = re.compile(r"cbt_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class ApiToken:
    token_id: str
    name: str
    label: str
    actions: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


_COLUMNS = "token_id, name, label, actions, created_by, created_at, expires_at, used_at, revoked_at"


class Tokens:
    def __init__(self, pool: Pool, accounts: Accounts) -> None:
        self._pool = pool
        self._accounts = accounts

    async def make(
        self, owner: str, label: str, actions: Sequence[policy.Action], days: int, by: str
    ) -> tuple[ApiToken, str]:
        """A new token and its text, which is shown this once. Raises AboveOwner, NoOperator, NotPossible."""
        token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        expires_at = datetime.now(UTC) + timedelta(days=days)
        async with self._pool.connection() as conn:
            operator = await load(conn, owner, await self._accounts.rules(conn))
            if operator is None or operator.disabled:
                raise NoOperator(f"there is no operator {owner!r}")
            above = sorted(a for a in actions if a in NEVER or not policy.anywhere(operator, a))
            if above:
                raise AboveOwner(f"a token of {owner} may not: {', '.join(above)}")
            async with conn.transaction():
                await conn.execute("select 1 from operator where name = %s for update", [owner])
                held = await (
                    await conn.execute(
                        "select count(*) from api_token where name = %s and revoked_at is null and expires_at > now()",
                        [owner],
                    )
                ).fetchone()
                if held is not None and held[0] >= MAX_PER_OWNER:
                    raise NotPossible("too_many", f"{owner} has {MAX_PER_OWNER} tokens already")
                row = await (
                    await conn.execute(
                        f"insert into api_token (token_id, name, label, secret_hash, actions, created_by, expires_at) "  # noqa: S608
                        f"values (%s, %s, %s, %s, %s, %s, %s) returning {_COLUMNS}".encode(),
                        [token_id, owner, label, _hash(secret), sorted(set(actions)), by, expires_at],
                    )
                ).fetchone()
                detail = {"label": label, "actions": sorted(set(actions)), "days": days, "owner": owner}
                await arecord(conn, Entry(by, "token.make", f"token/{token_id}", detail))
        if row is None:
            raise NoOperator(owner)
        return ApiToken(*row), f"{PREFIX}{token_id}_{secret}"

    async def listed(self, owner: str | None) -> list[ApiToken]:
        """Of one owner, or of all; newest first."""
        query = (
            f"select {_COLUMNS} from api_token where %(owner)s::text is null or name = %(owner)s "  # noqa: S608
            "order by created_at desc, token_id limit 500"
        )
        async with self._pool.connection() as conn:
            rows = await (await conn.execute(query.encode(), {"owner": owner})).fetchall()
        return [ApiToken(*row) for row in rows]

    async def revoke(self, token_id: str, by: str, *, of: str | None = None) -> bool:
        """From now on it opens nothing. ``of``: only if it belongs to this owner."""
        async with self._pool.connection() as conn, conn.transaction():
            row = await (
                await conn.execute(
                    "update api_token set revoked_at = coalesce(revoked_at, now()), revoked_by = coalesce(revoked_by, "
                    "%(by)s) where token_id = %(id)s and (%(of)s::text is null or name = %(of)s) returning name",
                    {"by": by, "id": token_id, "of": of},
                )
            ).fetchone()
            if row is None:
                return False
            await arecord(conn, Entry(by, "token.revoke", f"token/{token_id}", {"owner": row[0]}))
        return True

    async def check(self, text: str) -> Operator | None:
        """The owner, narrowed to what the token is for; None if it is not good."""
        form = _FORM.fullmatch(text)
        if form is None:
            return None
        async with self._pool.connection() as conn:
            row = await (
                await conn.execute(
                    "select o.*, a.version, t.secret_hash, t.actions, t.used_at is null or t.used_at < now() - "
                    "interval '60 s' from api_token t join operator_known o using (name), access_version a "
                    "where t.token_id = %s and t.revoked_at is null and t.expires_at > now() and not o.disabled",
                    [form[1]],
                )
            ).fetchone()
            if row is None:
                return None
            *known, version, secret_hash, actions, untouched = row
            if not hmac.compare_digest(bytes(secret_hash), _hash(form[2])):
                return None
            if untouched:
                await conn.execute("update api_token set used_at = now() where token_id = %s", [form[1]])
            rules: Rules = await self._accounts.rules_at(conn, version)
        return replace(operator_of(known, rules), only=frozenset(actions) - NEVER)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


__all__ = ["MAX_DAYS", "NEVER", "PREFIX", "ApiToken", "Tokens"]
