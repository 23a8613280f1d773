"""Rollouts in the database: made, paused, resumed, aborted, moved on; every one of these on the audit record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

import msgspec
from psycopg import Connection
from psycopg.types.json import Jsonb

from cloud.audit import Entry, record
from cloud.nul import has_nul
from cloud.twin import service as twin
from cloud.updates import waves
from cloud.updates.waves import Decision, Fact, Member, MemberState, Plan, Rollout, RolloutState
from protocols.core.errors import CityBrainError, ContractError
from protocols.updates.document import TWIN_NAME, merge, parse
from protocols.updates.names import Kind

MAX_GATEWAYS = 100_000
_LOCK = 0x726F6C6C  # "roll": one process moves rollouts at a time
_CLOSED = ("aborted", "done")
#: Is this artefact released? (kind, name, version)
Released = Callable[[Kind, str, str], bool]


class RolloutError(CityBrainError):
    code = "rollout"


class RolloutInvalid(RolloutError):
    code = "rollout.invalid"


class RolloutNotFound(RolloutError):
    code = "rollout.not_found"


class RolloutState409(RolloutError):
    """It is in a state in which this cannot be done."""

    code = "rollout.state"


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """``counts``: gateways by state; ``waves``: [gateways, applied, in error] of each."""

    rollout_id: int
    title: str
    change: Mapping[str, Any]
    plan: Mapping[str, Any]
    state: RolloutState
    reason: str
    wave: int
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    counts: Mapping[str, int]
    waves: Sequence[Sequence[int]]

    @property
    def gateways(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class MemberRow:
    gateway_id: str
    wave: int
    state: str
    version: int
    detail: str
    offered_at: datetime | None
    ended_at: datetime | None


def _check_document(document: Mapping[str, Any]) -> None:
    try:
        parse(document)
    except ContractError as error:
        raise twin.TwinInvalid("", str(error)) from error


twin.CHECKS[TWIN_NAME] = _check_document


def create(
    conn: Connection[Any],
    title: str,
    change: Mapping[str, Any],
    gateways: Sequence[str],
    plan: Plan,
    who: str,
    now: datetime,
    *,
    released: Released | None = None,
) -> int:
    """A rollout, running; its number. Raises RolloutInvalid, naming what is wrong. Nothing is offered before a tick."""
    _check_new(conn, title, change, gateways, plan, released)
    with conn.transaction():
        row = conn.execute(
            "insert into rollout (title, change, plan, state, wave_at, created_by, created_at)"
            " values (%s, %s, %s, 'running', %s, %s, %s) returning rollout_id",
            (title, Jsonb(dict(change)), Jsonb(msgspec.to_builtins(plan)), now, who, now),
        ).fetchone()
        assert row is not None  # noqa: S101 - "returning" always gives the row
        number = int(row[0])
        members = waves.cut(gateways, plan, str(number))
        with conn.cursor() as cursor:
            cursor.executemany(
                "insert into rollout_gateway (rollout_id, gateway_id, wave) values (%s, %s, %s)",
                [(number, m.gateway_id, m.wave) for m in members],
            )
        _audit(conn, who, "rollout.create", number, title=title, gateways=len(members), change=dict(change))
    return number


def _check_new(
    conn: Connection[Any],
    title: str,
    change: Mapping[str, Any],
    gateways: Sequence[str],
    plan: Plan,
    released: Released | None,
) -> None:
    if not title.strip() or len(title) > 200 or has_nul([title, dict(change), list(gateways)]):
        raise RolloutInvalid("title: 1 to 200 characters, without NUL")
    try:
        wanted = parse(change)
        waves.check(plan)
    except ContractError as error:
        raise RolloutInvalid(str(error)) from error
    if wanted.agent is None and not wanted.content():
        raise RolloutInvalid("the change names no agent, models, packs or templates")
    if not 0 < len(gateways) <= MAX_GATEWAYS:
        raise RolloutInvalid(f"1 to {MAX_GATEWAYS} gateways")
    named: list[tuple[Kind, str, str]] = [
        (kind, item.name, item.version) for kind, items in wanted.content().items() for item in items
    ]
    if wanted.agent is not None:
        named.append(("agent", wanted.agent.name, wanted.agent.version))
    for kind, name, version in named:
        if released is not None and not released(kind, name, version):
            raise RolloutInvalid(f"{kind} {name} {version} is not released")
    known = {
        row[0] for row in conn.execute("select gateway_id from gateway where gateway_id = any(%s)", (list(gateways),))
    }
    if unknown := sorted(set(gateways) - known):
        raise RolloutInvalid(f"no gateway {unknown[0]!r}" + (f" and {len(unknown) - 1} more" if unknown[1:] else ""))


def pause(conn: Connection[Any], number: int, who: str, reason: str = "") -> None:
    _move(conn, number, who, "rollout.pause", ("running",), "paused", reason)


def resume(conn: Connection[Any], number: int, who: str, reason: str = "") -> None:
    """Also after it stopped by itself: whoever resumes has looked at the errors there are, and they no longer count."""
    with conn.transaction():
        _move(conn, number, who, "rollout.resume", ("paused", "stopped"), "running", reason)
        conn.execute(
            "update rollout_gateway set forgiven = true where rollout_id = %s and state = any(%s)",
            (number, sorted(waves.BAD)),
        )


def abort(conn: Connection[Any], number: int, who: str, now: datetime, reason: str = "") -> None:
    """Nobody else is offered it; who has not changed over is wanted back as he was. Raises as :func:`pause`."""
    with conn.transaction():
        _move(conn, number, who, "rollout.abort", ("running", "paused", "stopped"), "aborted", reason)
        _step(conn, number, now)


def _move(
    conn: Connection[Any], number: int, who: str, action: str, from_: tuple[str, ...], to: RolloutState, reason: str
) -> None:
    with conn.transaction():
        row = conn.execute("select state from rollout where rollout_id = %s for update", (number,)).fetchone()
        if row is None:
            raise RolloutNotFound(f"no rollout {number}")
        if row[0] not in from_:
            raise RolloutState409(f"rollout {number} is {row[0]}; this needs {' or '.join(from_)}")
        conn.execute(
            "update rollout set state = %s, reason = %s where rollout_id = %s",
            (to, reason[:500].replace("\x00", ""), number),
        )
        _audit(conn, who, action, number, reason=reason[:500])


def tick(conn: Connection[Any], now: datetime) -> int:
    """Move every open rollout on by what the gateways have said. How many there are; 0 too if another process is at it.

    ``conn`` in autocommit: each rollout is a transaction of its own."""
    moved = 0
    for (number,) in conn.execute("select rollout_id from rollout where state <> all(%s)", (list(_CLOSED),)).fetchall():
        with conn.transaction():
            row = conn.execute("select pg_try_advisory_xact_lock(%s)", (_LOCK,)).fetchone()
            if row is None or not row[0]:
                return moved
            _step(conn, number, now)
            moved += 1
    return moved


def _step(conn: Connection[Any], number: int, now: datetime) -> None:
    row = conn.execute(
        "select state, wave, wave_at, plan, reason, change, title from rollout where rollout_id = %s for update",
        (number,),
    ).fetchone()
    assert row is not None  # noqa: S101 - it was just listed
    before = Rollout(row[0], row[1], row[2], msgspec.convert(row[3], Plan), row[4])
    members, facts = _members(conn, number), _facts(conn, number)
    decision = waves.decide(before, members, facts, now)
    _keep(conn, number, before, members, decision, now)
    for gateway in decision.offer:
        _offer(conn, number, gateway, row[5], str(row[6]), now)
    for gateway in decision.restore:
        _restore(conn, number, gateway, str(row[6]))


def _members(conn: Connection[Any], number: int) -> list[Member]:
    rows = conn.execute(
        "select gateway_id, wave, state, version, detail, offered_at, forgiven from rollout_gateway"
        " where rollout_id = %s order by wave, gateway_id",
        (number,),
    )
    return [Member(*row) for row in rows]


def _facts(conn: Connection[Any], number: int) -> dict[str, Fact]:
    rows = conn.execute(
        "select m.gateway_id, coalesce(g.online, false), coalesce(t.wanted, 0), coalesce(t.version, 0),"
        " coalesce(t.state, ''), coalesce(t.detail, '') from rollout_gateway m join gateway g using (gateway_id)"
        " left join twin_reported t on t.gateway_id = m.gateway_id and t.name = %s where m.rollout_id = %s",
        (TWIN_NAME, number),
    )
    return {row[0]: Fact(*row[1:]) for row in rows}


def _keep(
    conn: Connection[Any], number: int, before: Rollout, members: Sequence[Member], decision: Decision, now: datetime
) -> None:
    """Write what has changed."""
    old = {member.gateway_id: member for member in members}
    changed = [m for m in decision.members if old[m.gateway_id] != m]
    with conn.cursor() as cursor:
        cursor.executemany(
            "update rollout_gateway set state = %s, detail = %s,"
            " ended_at = case when %s then coalesce(ended_at, %s) end where rollout_id = %s and gateway_id = %s",
            [
                (m.state, m.detail[:500], m.state != "pending" and m.state not in waves.IN_FLIGHT, now, number,
                 m.gateway_id)
                for m in changed
            ],
        )  # fmt: skip
    after = decision.rollout
    if after == before:
        return
    conn.execute(
        "update rollout set state = %s, reason = %s, wave = %s, wave_at = %s,"
        " ended_at = case when %s then %s end where rollout_id = %s",
        (after.state, after.reason, after.wave, after.wave_at, after.state in _CLOSED, now, number),
    )
    if after.state != before.state:
        _audit(conn, "system", f"rollout.{after.state}", number, reason=after.reason)


def _offer(
    conn: Connection[Any], number: int, gateway: str, change: Mapping[str, Any], title: str, now: datetime
) -> None:
    """Want the change of this gateway, laid over what was wanted before."""
    before = _wanted(conn, gateway)
    try:
        with conn.transaction():
            document = merge(before or {}, change)
            version = twin.desire(conn, gateway, TWIN_NAME, document, f"rollout:{number}", title)
    except (ContractError, twin.TwinError) as error:
        conn.execute(
            "update rollout_gateway set state = 'failed', detail = %s, ended_at = %s"
            " where rollout_id = %s and gateway_id = %s",
            (f"not offered: {error}"[:500], now, number, gateway),
        )
        return
    conn.execute(
        "update rollout_gateway set state = 'offered', version = %s, before = %s, offered_at = %s"
        " where rollout_id = %s and gateway_id = %s",
        (version, None if before is None else Jsonb(before), now, number, gateway),
    )


def _restore(conn: Connection[Any], number: int, gateway: str, title: str) -> None:
    """Want the document before again; where there was none, an empty one wants nothing."""
    row = conn.execute(
        "select before from rollout_gateway where rollout_id = %s and gateway_id = %s", (number, gateway)
    ).fetchone()
    before = row[0] if row is not None and row[0] is not None else {}
    twin.desire(conn, gateway, TWIN_NAME, before, f"rollout:{number}", f"aborted: {title}")


def _wanted(conn: Connection[Any], gateway: str) -> dict[str, Any] | None:
    row = conn.execute(
        "select document from twin_desired where gateway_id = %s and name = %s order by version desc limit 1",
        (gateway, TWIN_NAME),
    ).fetchone()
    return None if row is None else dict(row[0])


def _audit(conn: Connection[Any], who: str, action: str, number: int, **detail: object) -> None:
    record(conn, Entry(who, action, f"rollout/{number}", detail))


# -- reading ------------------------------------------------------------------------------------------------------


def rollouts(conn: Connection[Any], limit: int = 50) -> list[RolloutRow]:
    """Newest first."""
    rows = conn.execute(
        "select rollout_id, title, change, plan, state, reason, wave, created_by, created_at, ended_at from rollout"
        " order by rollout_id desc limit %s",
        (limit,),
    ).fetchall()
    return [_row(conn, row) for row in rows]


def rollout(conn: Connection[Any], number: int) -> RolloutRow:
    """Raises RolloutNotFound."""
    row = conn.execute(
        "select rollout_id, title, change, plan, state, reason, wave, created_by, created_at, ended_at from rollout"
        " where rollout_id = %s",
        (number,),
    ).fetchone()
    if row is None:
        raise RolloutNotFound(f"no rollout {number}")
    return _row(conn, row)


def members(conn: Connection[Any], number: int, state: str = "", limit: int = 500) -> list[MemberRow]:
    """Those in error first. Raises RolloutNotFound."""
    if conn.execute("select 1 from rollout where rollout_id = %s", (number,)).fetchone() is None:
        raise RolloutNotFound(f"no rollout {number}")
    rows = conn.execute(
        "select gateway_id, wave, state, version, detail, offered_at, ended_at from rollout_gateway"
        " where rollout_id = %s and (%s = '' or state = %s) order by state = any(%s) desc, wave, gateway_id limit %s",
        (number, state, state, sorted(waves.BAD), limit),
    )
    return [MemberRow(*row) for row in rows]


def _row(conn: Connection[Any], row: Sequence[Any]) -> RolloutRow:
    counts: dict[str, int] = dict.fromkeys(get_args(MemberState), 0)
    of_wave: dict[int, list[int]] = {}
    for state, wave, count in conn.execute(
        "select state, wave, count(*) from rollout_gateway where rollout_id = %s group by 1, 2", (row[0],)
    ):
        counts[state] += count
        figures = of_wave.setdefault(wave, [0, 0, 0])
        figures[0] += count
        figures[1] += count if state == "applied" else 0
        figures[2] += count if state in waves.BAD else 0
    facts = (*row, counts, [of_wave[wave] for wave in sorted(of_wave)])
    return RolloutRow(*facts)
