"""The case desk: open cases by the clock that runs out next, then closed ones, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.rows import class_row

from cloud.query import alarms
from cloud.query.cursor import Page, cut, decode
from cloud.query.pool import Connection
from cloud.query.rows import Case, CaseDetail, Transition
from cloud.query.sight import EVERYTHING, Sight

_COLUMNS = ", ".join(Case.__slots__)
#: States in which nobody has to act any more.
DONE = ("closed", "not_filed", "merged", "void", "false_alarm")
_KEY = """
    (state = any(%(done)s))::int,
    extract(epoch from case when state = any(%(done)s) then opened_at else least(
        case when accepted_at is null then accept_due end, case when onsite_at is null then onsite_due end, close_due)
        end)::float8
        * case when state = any(%(done)s) then -1 else 1 end,
    case_id
"""


async def cases(
    conn: Connection,
    *,
    states: Sequence[str] = (),
    open_only: bool = False,
    department: str = "",
    type_: str = "",
    text: str = "",
    sight: Sight = EVERYTHING,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[Case]:
    key = decode(cursor, (int, float, int))
    where = [sight.where("case", "case_file")]
    params: dict[str, Any] = {"limit": limit + 1, "done": list(DONE)} | sight.params
    if states:
        where.append("state = any(%(states)s)")
        params["states"] = list(states)
    if open_only:
        where.append("not state = any(%(done)s)")
    for column, value in (("department", department), ("type", type_)):
        if value:
            where.append(f"{column} = %({column})s")
            params[column] = value
    if text:
        where.append("(number ilike %(text)s or title_zh ilike %(text)s or title_en ilike %(text)s)")
        params["text"] = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    if key:
        where.append(f"({_KEY}) > (%(k0)s::int, %(k1)s::float8, %(k2)s::bigint)")
        params |= {f"k{i}": v for i, v in enumerate(key)}
    query = f"select {_COLUMNS} from case_file where {' and '.join(where)} order by {_KEY} limit %(limit)s"  # noqa: S608
    async with conn.cursor(row_factory=class_row(Case)) as cur:
        rows = await (await cur.execute(query.encode(), params)).fetchall()
    return cut(rows, limit, [_sort_key(row) for row in rows])


def _sort_key(row: Case) -> list[float | int | str]:
    done = row.state in DONE
    due = min(
        [row.close_due]
        + ([row.accept_due] if row.accepted_at is None else [])
        + ([row.onsite_due] if row.onsite_at is None else [])
    )
    return [int(done), -row.opened_at.timestamp() if done else due.timestamp(), row.case_id]


async def case(conn: Connection, case_id: int, *, sight: Sight = EVERYTHING) -> CaseDetail | None:
    where = sight.where("case", "case_file")
    query = f"select {_COLUMNS} from case_file where case_id = %(id)s and {where}"  # noqa: S608 - from constants
    async with conn.cursor(row_factory=class_row(Case)) as cur:
        await cur.execute(query.encode(), {"id": case_id} | sight.params)
        found = await cur.fetchone()
    if found is None:
        return None
    return CaseDetail(found, await alarms.of_case(conn, case_id), await transitions(conn, case_id))


async def transitions(conn: Connection, case_id: int) -> list[Transition]:
    async with conn.cursor(row_factory=class_row(Transition)) as cur:
        await cur.execute(
            "select transition_id, at, who, action, from_state, to_state, reason from case_transition "
            "where case_id = %s order by transition_id",
            [case_id],
        )
        return await cur.fetchall()
