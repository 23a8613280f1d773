"""Cases as rows: the SQL of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, LiteralString

import msgspec
from psycopg import Connection
from psycopg.types.json import Jsonb

from cloud import audit
from cloud.alarms.times import at, ms_of
from cloud.cases.calendar import local_day
from cloud.cases.guards import Alarms
from cloud.cases.model import Case, Facts
from cloud.cases.process import Run

_COLUMNS: LiteralString = (
    "c.case_id, c.number, c.type, c.flow, c.scenario, c.level, c.state, c.title_zh, c.title_en, c.department, "
    "c.support, c.device_id, c.lon, c.lat, c.opened_at, c.accept_due, c.onsite_due, c.close_due, c.accepted_at, "
    "c.onsite_at, c.closed_at, c.version, c.workflow -> 'facts'"
)

#: The first half of the two-part advisory lock that keeps two workers from opening a case for the same place at once.
_PLACE_LOCK = 0x43415345

#: The same for telling what is overdue: many cases are written, and two doing so in different order would block.
_TELL_LOCK = 0x54454C4C


def lock_place(conn: Connection[Any], scenario: str, device_id: str, case_type: str) -> None:
    """Held until the transaction ends. A collision of the hash costs a wait, nothing else."""
    conn.execute(
        "select pg_advisory_xact_lock(%s, hashtext(%s))", (_PLACE_LOCK, f"{scenario}\x1f{device_id}\x1f{case_type}")
    )


def may_tell(conn: Connection[Any]) -> bool:
    """Whether this transaction is the one that tells what is overdue; the others need not look at every case too."""
    row = conn.execute("select pg_try_advisory_xact_lock(%s, 0)", (_TELL_LOCK,)).fetchone()
    assert row is not None  # noqa: S101
    return bool(row[0])


def by_id(conn: Connection[Any], case_id: int, *, lock: bool = False) -> tuple[Case, Run] | None:
    return _one(conn, "where c.case_id = %s", (case_id,), lock=lock)


def of_alarm(conn: Connection[Any], alarm_id: str) -> tuple[Case, Run] | None:
    """The case an alarm belongs to, locked; where it has been in several, the one still open or the latest."""
    return _one(
        conn,
        "where c.case_id in (select case_id from case_alarm where alarm_id = %s) "
        "order by c.closed_at is not null, c.case_id desc limit 1",
        (alarm_id,),
        lock=True,
    )


def open_at(conn: Connection[Any], scenario: str, device_id: str, case_type: str) -> tuple[Case, Run] | None:
    """The open case of a place, locked. An ended case has a closing time, whatever it ended as; index case_open."""
    return _one(
        conn,
        "where c.scenario = %s and c.device_id = %s and c.type = %s and c.closed_at is null order by c.case_id limit 1",
        (scenario, device_id, case_type),
        lock=True,
    )


def open_cases(conn: Connection[Any]) -> list[Case]:
    rows = conn.execute(
        f"select {_COLUMNS} from case_file c where c.closed_at is null order by c.case_id"  # noqa: S608 (constants)
    ).fetchall()
    return [_case(row) for row in rows]


def next_number(conn: Connection[Any], case_type: str, now_ms: int) -> str:
    """HF-<type>-<yyyymmdd>-<5 digits>, one count a local day over all types. The row of the day stays locked until the
    transaction ends, so that a rolled back case leaves no gap."""
    day = f"{local_day(now_ms):%Y%m%d}"
    row = conn.execute(
        """insert into setting (name, value) values (%s, '1')
           on conflict (name) do update set value = to_jsonb((setting.value #>> '{}')::int + 1)
           returning (value #>> '{}')::int""",
        (f"case_number:{day}",),
    ).fetchone()
    assert row is not None  # noqa: S101 (an upsert returns its row)
    return f"HF-{case_type}-{day}-{row[0]:05d}"


def device_names(conn: Connection[Any], device_id: str) -> tuple[str, str]:
    row = conn.execute("select name_zh, name_en from device where device_id = %s", (device_id,)).fetchone()
    zh, en = row if row is not None else ("", "")
    return zh or en or device_id, en or zh or device_id


def insert(conn: Connection[Any], case: Case, run: Run) -> Case:
    row = conn.execute(
        """insert into case_file (number, type, flow, scenario, level, state, title_zh, title_en, department, support,
               device_id, lon, lat, opened_at, accept_due, onsite_due, close_due, accepted_at, onsite_at, closed_at,
               workflow, version)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           returning case_id""",
        (
            case.number, case.type, case.flow, case.scenario, case.level, case.state, case.title_zh, case.title_en,
            case.department, list(case.support), case.device_id, case.lon, case.lat, at(case.opened_ms),
            at(case.accept_due_ms), at(case.onsite_due_ms), at(case.close_due_ms), at(case.accepted_ms),
            at(case.onsite_ms), at(case.closed_ms), _workflow(case.facts, run), case.version,
        ),
    ).fetchone()  # fmt: skip
    assert row is not None  # noqa: S101
    return replace(case, case_id=row[0])


def save(conn: Connection[Any], case: Case, run: Run) -> None:
    """Write what can change. The caller holds the row's lock."""
    conn.execute(
        """update case_file set level = %s, state = %s, accept_due = %s, onsite_due = %s, close_due = %s,
               accepted_at = %s, onsite_at = %s, closed_at = %s, workflow = %s, version = %s where case_id = %s""",
        (
            case.level, case.state, at(case.accept_due_ms), at(case.onsite_due_ms), at(case.close_due_ms),
            at(case.accepted_ms), at(case.onsite_ms), at(case.closed_ms), _workflow(case.facts, run), case.version,
            case.case_id,
        ),
    )  # fmt: skip


def link(conn: Connection[Any], case_id: int, alarm_id: str) -> bool:
    """Put an alarm into a case; False if it is there already."""
    done = conn.execute(
        "insert into case_alarm (case_id, alarm_id) values (%s, %s) on conflict do nothing", (case_id, alarm_id)
    )
    return done.rowcount == 1


def hand_over(conn: Connection[Any], from_case: int, to_case: int) -> None:
    """The alarms of a merged case count for the one it was merged into as well."""
    conn.execute(
        "insert into case_alarm (case_id, alarm_id) select %s, alarm_id from case_alarm where case_id = %s "
        "on conflict do nothing",
        (to_case, from_case),
    )


def alarms_of(conn: Connection[Any], case_id: int) -> Alarms:
    row = conn.execute(
        "select count(*), count(*) filter (where a.state = 'cleared') from case_alarm join alarm a using (alarm_id) "
        "where case_id = %s",
        (case_id,),
    ).fetchone()
    assert row is not None  # noqa: S101
    return Alarms(row[0], row[1])


def record(
    conn: Connection[Any], case_id: int, at_ms: int, who: str, action: str, from_state: str, to_state: str, reason: str
) -> None:
    conn.execute(
        """insert into case_transition (case_id, at, who, action, from_state, to_state, reason)
           values (%s, %s, %s, %s, %s, %s, %s)""",
        (case_id, at(at_ms), who, action, from_state, to_state, reason),
    )
    detail = {"from": from_state, "to": to_state, "reason": reason}
    audit.record(conn, audit.Entry(who, f"case.{action}", f"case/{case_id}", detail))


def add_marks(conn: Connection[Any], cases: Sequence[tuple[int, int, list[str]]]) -> set[int]:
    """Note reported marks, (case, version, all its marks), where the case is still at that version; returns which.
    Not a change an operator would have to look at again: the version stays."""
    rows = conn.execute(
        """update case_file c set workflow = jsonb_set(c.workflow, '{facts,marks}', u.marks::jsonb)
           from unnest(%s::bigint[], %s::int[], %s::text[]) u(case_id, version, marks)
           where c.case_id = u.case_id and c.version = u.version
             and not c.workflow #> '{facts,marks}' @> u.marks::jsonb
           returning c.case_id""",
        (
            [case_id for case_id, _, _ in cases],
            [version for _, version, _ in cases],
            [msgspec.json.encode(marks).decode() for _, _, marks in cases],
        ),
    ).fetchall()
    return {row[0] for row in rows}


def clock_ms(conn: Connection[Any]) -> int:
    """The database's clock at the beginning of the transaction."""
    row = conn.execute("select (extract(epoch from now()) * 1000)::bigint").fetchone()
    assert row is not None  # noqa: S101
    return int(row[0])


def _one(
    conn: Connection[Any], where: LiteralString, parameters: Sequence[Any], *, lock: bool
) -> tuple[Case, Run] | None:
    row = conn.execute(
        f"select {_COLUMNS}, c.workflow -> 'run' from case_file c {where} {'for update' if lock else ''}",  # noqa: S608
        parameters,
    ).fetchone()
    return None if row is None else (_case(row), msgspec.convert(row[23], Run))


def _workflow(facts: Facts, run: Run) -> Jsonb:
    return Jsonb({"facts": msgspec.to_builtins(facts), "run": msgspec.to_builtins(run)})


def _case(row: Sequence[Any]) -> Case:
    return Case(
        case_id=row[0], number=row[1], type=row[2], flow=row[3], scenario=row[4], level=row[5], state=row[6],
        title_zh=row[7], title_en=row[8], department=row[9], support=tuple(row[10]), device_id=row[11], lon=row[12],
        lat=row[13], opened_ms=ms_of(row[14]), accept_due_ms=ms_of(row[15]), onsite_due_ms=ms_of(row[16]),
        close_due_ms=ms_of(row[17]), accepted_ms=ms_of(row[18]), onsite_ms=ms_of(row[19]), closed_ms=ms_of(row[20]),
        version=row[21], facts=msgspec.convert(row[22], Facts),
    )  # fmt: skip
