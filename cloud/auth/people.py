"""Operators as the database has them, and what administrators change about them; every change is audited with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import psycopg

from cloud.audit import Entry, arecord
from cloud.auth import passwords
from cloud.auth.errors import NameTaken, NoOperator, NotPossible
from cloud.auth.operator import ROLES, Operator, Role
from cloud.auth.rules import Grant, Rules
from cloud.query.pool import Connection, Pool


def operator_of(row: Sequence[Any], rules: Rules) -> Operator:
    """Out of a row of the view ``operator_known``."""
    name, role, language, must_change, department, district, disabled, second_factor, sso, more, _ = row
    return Operator(
        name, cast(Role, role), language, must_change, department, district, tuple(Grant(*grant) for grant in more),
        second_factor, disabled, sso, rules,
    )  # fmt: skip


async def load(conn: Connection, name: str, rules: Rules) -> Operator | None:
    row = await (await conn.execute("select * from operator_known where name = %s", [name])).fetchone()
    return operator_of(row, rules) if row is not None else None


async def load_rules(conn: Connection, version: int) -> Rules:
    lines = await (await conn.execute("select role, action from access_rule")).fetchall()
    strict = await (await conn.execute("select role from access_role where second_factor")).fetchall()
    return Rules(((r[0], r[1]) for r in lines), version=version, second_factor=[r[0] for r in strict])


class People:
    """Looking after accounts. ``by`` is the administrator who does it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def operators(self, rules: Rules) -> list[Operator]:
        async with self._pool.connection() as conn:
            rows = await (await conn.execute("select * from operator_known order by name")).fetchall()
        return [operator_of(row, rules) for row in rows]

    async def add(
        self, name: str, grant: Grant, by: str, *, more: Sequence[Grant] = (), issuer: str | None = None
    ) -> str:
        """A new operator; returns the generated password, which is kept nowhere in clear. It is "" for those who have
        none: a service account, and somebody who logs in with the OpenID provider ``issuer``. Raises NameTaken."""
        without = grant.role == "service" or issuer is not None
        password = "" if without else passwords.generate()
        password_hash = "!" if without else await passwords.hashed_async(password)
        async with self._pool.connection() as conn, conn.transaction():
            try:
                await conn.execute(
                    "insert into operator (name, password_hash, role, department, district, must_change, issuer) "
                    "values (%s, %s, %s, %s, %s, %s, %s)",
                    [name, password_hash, grant.role, grant.department, grant.district, not without, issuer],
                )
            except psycopg.errors.UniqueViolation as error:
                raise NameTaken(f"there is an operator {name!r} already") from error
            await _put_more(conn, name, more)
            await arecord(conn, Entry(by, "operator.add", f"operator/{name}", {"grants": _said([grant, *more])}))
        return password

    async def reset(self, name: str, by: str) -> str | None:
        """A new generated password (ends the operator's sessions); None if there is no such operator."""
        password = passwords.generate()
        password_hash = await passwords.hashed_async(password)
        async with self._pool.connection() as conn, conn.transaction():
            row = await (
                await conn.execute("select role, issuer from operator where name = %s for update", [name])
            ).fetchone()
            if row is None:
                return None
            if row[0] == "service" or row[1] is not None:
                raise NotPossible("no_password", f"{name} logs in without a password of ours")
            await conn.execute(
                "update operator set password_hash = %s, must_change = true, failed = 0, locked_until = null "
                "where name = %s",
                [password_hash, name],
            )
            await _end(conn, name, by)
            await arecord(conn, Entry(by, "password.reset", f"operator/{name}"))
        return password

    async def set_access(self, name: str, grant: Grant, more: Sequence[Grant], by: str) -> None:
        """Another role, place, further grants. Holds from the next request on. Raises NoOperator, NotPossible."""
        async with self._pool.connection() as conn, conn.transaction():
            await conn.execute("lock table operator in share row exclusive mode")  # the last administrator is counted
            before = await _held(conn, name)
            if (grant.role == "service") != (before[0].role == "service"):
                raise NotPossible("service", "people and machines do not change into one another")
            await conn.execute(
                "update operator set role = %s, department = %s, district = %s where name = %s",
                [grant.role, grant.department, grant.district, name],
            )
            await conn.execute("delete from operator_grant where name = %s", [name])
            await _put_more(conn, name, more)
            await _one_admin_left(conn)
            detail = {"from": _said(before), "to": _said([grant, *more])}
            await arecord(conn, Entry(by, "operator.access", f"operator/{name}", detail))

    async def set_disabled(self, name: str, disabled: bool, by: str) -> None:
        """Shut an account, with all its sessions and tokens, or open it again. Raises NoOperator, NotPossible."""
        async with self._pool.connection() as conn, conn.transaction():
            await conn.execute("lock table operator in share row exclusive mode")
            await _held(conn, name)
            await conn.execute("update operator set disabled = %s where name = %s", [disabled, name])
            await _one_admin_left(conn)
            if disabled:
                await _end(conn, name, by)
            action = "operator.disable" if disabled else "operator.enable"
            await arecord(conn, Entry(by, action, f"operator/{name}"))

    async def roles(self) -> list[dict[str, Any]]:
        """Each with its names, its actions and whether it asks for a second factor."""
        async with self._pool.connection() as conn:
            rows = await (
                await conn.execute(
                    "select r.role, r.zh, r.en, r.second_factor, coalesce(array_agg(a.action order by a.action) "
                    "filter (where a.action is not null), '{}') from access_role r "
                    "left join access_rule a using (role) "
                    "group by r.role order by array_position(%s::text[], r.role)",
                    [list(ROLES)],
                )
            ).fetchall()
        return [dict(zip(("role", "zh", "en", "second_factor", "actions"), row, strict=True)) for row in rows]

    async def set_role(self, role: str, actions: Sequence[str], second_factor: bool, by: str) -> None:
        """What a role may do. Raises NoOperator for a role that is not there, NotPossible for the administrator's."""
        if role == "admin" and list(actions) != ["*"]:
            raise NotPossible("admin", "an administrator may do everything")
        async with self._pool.connection() as conn, conn.transaction():
            done = await conn.execute(
                "update access_role set second_factor = %s where role = %s", [second_factor, role]
            )
            if not done.rowcount:
                raise NoOperator(f"there is no role {role!r}")
            await conn.execute("delete from access_rule where role = %s", [role])
            await conn.cursor().executemany(
                "insert into access_rule (role, action) values (%s, %s)", [(role, a) for a in sorted(set(actions))]
            )
            detail = {"actions": sorted(set(actions)), "second_factor": second_factor}
            await arecord(conn, Entry(by, "role.change", f"role/{role}", detail))


async def _held(conn: Connection, name: str) -> list[Grant]:
    row = await (
        await conn.execute("select role, department, district from operator where name = %s", [name])
    ).fetchone()
    if row is None:
        raise NoOperator(f"there is no operator {name!r}")
    more = await (
        await conn.execute("select role, department, district from operator_grant where name = %s", [name])
    ).fetchall()
    return [Grant(*row), *(Grant(*r) for r in more)]


async def put_grants(conn: Connection, name: str, grants: Sequence[Grant]) -> bool:
    """Exactly these, the first being the main one; whether anything changed. In the caller's transaction."""
    if set(await _held(conn, name)) == set(grants):
        return False
    first = grants[0]
    await conn.execute(
        "update operator set role = %s, department = %s, district = %s where name = %s",
        [first.role, first.department, first.district, name],
    )
    await conn.execute("delete from operator_grant where name = %s", [name])
    await _put_more(conn, name, grants[1:])
    return True


async def _put_more(conn: Connection, name: str, more: Sequence[Grant]) -> None:
    await conn.cursor().executemany(
        "insert into operator_grant (name, role, department, district) values (%s, %s, %s, %s) on conflict do nothing",
        [(name, g.role, g.department, g.district) for g in more],
    )


async def _one_admin_left(conn: Connection) -> None:
    row = await (
        await conn.execute(
            "select 1 from operator where role = 'admin' and department = '*' and district = '*' and not disabled"
        )
    ).fetchone()
    if row is None:
        raise NotPossible("last_admin", "somebody must remain who looks after the operators")


async def _end(conn: Connection, name: str, by: str) -> None:
    await conn.execute(
        "update operator_session set ended_at = now(), ended_by = %s where name = %s and ended_at is null", [by, name]
    )


def _said(grants: Sequence[Grant]) -> list[str]:
    return [g.role if g.city_wide else f"{g.role}@{g.department}/{g.district}" for g in grants]
