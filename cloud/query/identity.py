"""What operators see of identities: claims, certificates, devices that wait. Codes and keys are never among it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from cloud.query.pool import Connection
from cloud.query.sight import Sight


@dataclass(frozen=True, slots=True)
class Claim:
    gateway_id: str
    shard: int
    made_by: str
    made_at: datetime
    expires_at: datetime
    attempts: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """``state``: current | superseded | revoked | ended."""

    serial: str
    issued_at: datetime
    not_before: datetime
    not_after: datetime
    state: str


@dataclass(frozen=True, slots=True)
class Pending:
    gateway_id: str
    device_id: str
    device_type: str
    source: str
    detail: str
    first_at: datetime
    last_at: datetime
    times: int
    state: str
    decided_by: str


@dataclass(frozen=True, slots=True)
class Identity:
    """One gateway. ``state``: none | claimed | valid | ended | revoked."""

    gateway_id: str
    name_zh: str
    name_en: str
    shard: int
    admission: str
    state: str
    not_after: datetime | None
    claim_until: datetime | None
    reason: str
    pending: int


async def claims(conn: Connection, sight: Sight) -> list[Claim]:
    statement = f"""
        select c.gateway_id, c.shard, c.made_by, c.made_at, c.expires_at, c.attempts
        from gateway_claim c join gateway g using (gateway_id)
        where c.used_at is null and c.voided_at is null and c.expires_at > now() and {sight.where("gateway", "g")}
        order by c.made_at desc limit 500"""  # noqa: S608 - the condition is our own text
    async with conn.cursor(row_factory=class_row(Claim)) as cursor:
        await cursor.execute(statement.encode(), sight.params)
        return await cursor.fetchall()


async def certificates(conn: Connection, gateway_id: str) -> list[Certificate]:
    async with conn.cursor(row_factory=class_row(Certificate)) as cursor:
        await cursor.execute(
            "select serial, issued_at, not_before, not_after, case when revoked_at is not null then 'revoked'"
            " when not_after < now() then 'ended' when superseded_at is not null then 'superseded' else 'current' end"
            " as state from gateway_certificate where gateway_id = %s order by issued_at desc limit 100",
            (gateway_id,),
        )
        return await cursor.fetchall()


async def pending(conn: Connection, sight: Sight, gateway_id: str = "", state: str = "pending") -> list[Pending]:
    statement = f"""
        select p.gateway_id, p.device_id, p.device_type, p.source, p.detail, p.first_at, p.last_at, p.times, p.state,
               p.decided_by
        from device_pending p join gateway g using (gateway_id)
        where p.state = %(state)s and (%(gateway)s = '' or p.gateway_id = %(gateway)s) and {sight.where("gateway", "g")}
        order by p.last_at desc limit 500"""  # noqa: S608 - the condition is our own text
    async with conn.cursor(row_factory=class_row(Pending)) as cursor:
        await cursor.execute(statement.encode(), {"state": state, "gateway": gateway_id, **sight.params})
        return await cursor.fetchall()


async def identities(conn: Connection, sight: Sight, *, limit: int = 500) -> list[Identity]:
    """Gateways with what is wrong first."""
    statement = f"""
        with one as (
            select g.gateway_id, g.name_zh, g.name_en, g.shard, g.admission, coalesce(a.reason, '') as reason,
                   case when a.revoked_at is not null then 'revoked' when c.not_after < now() then 'ended'
                        when c.not_after is not null then 'valid' when k.expires_at is not null then 'claimed'
                        else 'none' end as state,
                   c.not_after, k.expires_at as claim_until,
                   (select count(*) from device_pending p
                    where p.gateway_id = g.gateway_id and p.state = 'pending') as pending
            from gateway g
            left join gateway_access a using (gateway_id)
            left join lateral (
                select not_after from gateway_certificate x where x.gateway_id = g.gateway_id and x.revoked_at is null
                order by issued_at desc limit 1) c on true
            left join lateral (
                select expires_at from gateway_claim y where y.gateway_id = g.gateway_id and y.used_at is null
                and y.voided_at is null and y.expires_at > now() order by made_at desc limit 1) k on true
            where {sight.where("gateway", "g")})
        select gateway_id, name_zh, name_en, shard, admission, state, not_after, claim_until, reason, pending
        from one order by state = 'valid', state = 'none', gateway_id limit %(limit)s"""  # noqa: S608 - as above
    async with conn.cursor(row_factory=class_row(Identity)) as cursor:
        await cursor.execute(statement.encode(), {"limit": limit, **sight.params})
        return await cursor.fetchall()
