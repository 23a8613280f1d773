"""Which alarms open a case, which join one, which do neither."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cloud.cases import Case, CasePolicy, PolicyInvalid, act, load, open_for, opening, rows
from cloud.cases.policy import Auto
from tests.cloud_cases.make import MONDAY, beijing, bring_to, emergency_policy, event, ingest, new_case, policy

MINUTE = 60_000


def offer(conn: Connection, *events: Any, rule: CasePolicy | None = None, now_ms: int = MONDAY) -> list[Case | None]:
    return [open_for(conn, change, rule or policy(), now_ms) for change in ingest(conn, list(events), now_ms)]


def cases(conn: Connection) -> int:
    (count,) = conn.execute("select count(*) from case_file").fetchone() or (0,)
    return int(count)


def test_a_new_case_says_what_where_who_and_until_when(conn: Connection) -> None:
    conn.execute("insert into gateway (gateway_id, shard) values ('gw-1', 3)")
    conn.execute(
        "insert into device (device_id, gateway_id, name_zh, name_en, lon, lat, h3_9) "
        "values ('site-1', 'gw-1', '滨湖工地噪声计', 'Binhu noise meter', 117.3, 31.7, 'h')"
    )
    case = new_case(conn)
    assert (case.title_zh, case.title_en) == ("滨湖工地噪声计：噪声超标", "Binhu noise meter: noise over the limit")
    assert (case.number, case.type, case.flow) == ("HF-site_nuisance-20260302-00001", "site_nuisance", "event")
    assert (case.department, case.support, case.level) == ("housing", ("urban_mgmt", "ecology"), "yellow")
    assert (case.lon, case.lat, case.opened_ms) == (117.3, 31.7, MONDAY)
    assert case.accept_due_ms == beijing("2026-03-02 10:30")
    assert case.onsite_due_ms == beijing("2026-03-02 12:00")
    assert case.close_due_ms == beijing("2026-03-05 15:00")
    (opened,) = case.events
    assert (opened.type, opened.level, opened.location, opened.drill) == (
        "wf.case.opened",
        "info",
        (117.3, 31.7),
        False,
    )
    assert load(conn, case.case_id).number == case.number


def test_an_unknown_device_and_event_type_are_shown_by_their_ids(conn: Connection) -> None:
    case = new_case(conn, type="lab.made_up")
    assert (case.title_zh, case.title_en) == ("site-1：lab.made_up", "site-1: lab.made_up")


def test_red_and_orange_run_around_the_clock_others_in_office_hours(conn: Connection) -> None:
    night = beijing("2026-03-06 22:00")  # a Friday
    calm = new_case(conn, night, key="site-1/laeq:day")
    grave = new_case(conn, night, key="site-2/laeq:day", level="orange")
    assert calm.accept_due_ms == beijing("2026-03-09 09:00")
    assert grave.accept_due_ms == beijing("2026-03-06 22:30") and grave.close_due_ms == beijing("2026-03-07 22:00")
    emergency = new_case(conn, night, rule=emergency_policy(), key="pipe-1/ch4:lel")
    assert emergency.level == "yellow" and emergency.accept_due_ms == night + 6 * MINUTE


def test_below_the_packs_level_nothing_opens_until_it_rises(conn: Connection) -> None:
    assert offer(conn, event("raise", MONDAY, "blue")) == [None]
    (case,) = offer(conn, event("update", MONDAY + 1, "yellow"))
    assert case is not None and case.opened and case.level == "yellow"


def test_an_alarm_that_came_and_went_in_one_batch_opens_its_case(conn: Connection) -> None:
    (case,) = offer(conn, event("raise", MONDAY), event("update", MONDAY + 1, "orange"), event("clear", MONDAY + 2))
    assert case is not None and case.opened and case.level == "orange"


def test_an_exercise_opens_nothing(conn: Connection) -> None:
    assert offer(conn, event("raise", MONDAY, "red", drill=True)) == [None]
    assert cases(conn) == 0


def test_a_second_alarm_of_the_place_joins_and_may_raise_the_level(conn: Connection) -> None:
    case = new_case(conn)
    (joined,) = offer(conn, event("raise", MONDAY + 1, key="site-1/lamax:night"))
    assert joined is not None and not joined.opened and joined.events == ()
    assert (joined.case_id, joined.version, joined.level) == (case.case_id, 1, "yellow")
    (risen,) = offer(conn, event("raise", MONDAY + 2, "red", key="site-1/pm10:hour"))
    assert risen is not None and (risen.case_id, risen.level, risen.version) == (case.case_id, "red", 2)
    (other,) = offer(conn, event("raise", MONDAY + 3, key="site-2/laeq:day"))
    assert other is not None and other.opened and other.number.endswith("-00002")
    joins = conn.execute(
        "select action, from_state = to_state, reason from case_transition where case_id = %s order by transition_id",
        (case.case_id,),
    ).fetchall()
    assert [(action, stays) for action, stays, _ in joins[1:]] == [
        ("join", True),
        ("join", True),
        ("raise_level", True),
    ]
    assert joins[3][2] == "yellow -> red: env.noise.exceed"


def test_repeating_the_call_changes_nothing(conn: Connection) -> None:
    (change,) = ingest(conn, [event("raise", MONDAY)], MONDAY)
    first = open_for(conn, change, policy(), MONDAY)
    assert first is not None
    for _ in range(3):
        assert open_for(conn, change, policy(), MONDAY + 5) is None
    assert cases(conn) == 1 and load(conn, first.case_id).version == 1


def test_the_same_place_in_another_scenario_or_case_type_is_another_case(conn: Connection) -> None:
    changes = ingest(conn, [event("raise", MONDAY), event("raise", MONDAY, key="site-1/lamax:night")], MONDAY)
    assert open_for(conn, changes[0], policy(), MONDAY) is not None
    other_type = open_for(conn, changes[1], policy(type="slag_truck_violation"), MONDAY)
    assert other_type is not None and other_type.opened


def test_what_happens_after_the_case_has_ended(conn: Connection) -> None:
    """A closed case does not silence a device, but the same unchanged alarm does not come back as a case either."""
    case = bring_to(conn, new_case(conn), "closed")
    assert offer(conn, event("raise", MONDAY + 1)) == [None]  # still open, repeats
    assert offer(conn, event("update", MONDAY + 2, "blue")) == [None]
    (worse,) = offer(conn, event("update", MONDAY + 3, "red"))
    assert worse is not None and worse.opened and worse.case_id != case.case_id
    bring_to(conn, worse, "closed")
    assert offer(conn, event("clear", MONDAY + 4, "red")) == [None]
    (again,) = offer(conn, event("raise", MONDAY + 5))
    assert again is not None and again.opened and cases(conn) == 3


def test_a_chattering_alarm_whose_case_was_closed_is_a_new_matter_when_it_returns(conn: Connection) -> None:
    flapping = [
        event(state, MONDAY + n * MINUTE + off) for n in range(5) for state, off in (("raise", 0), ("clear", 30_000))
    ]
    first = [case for case in offer(conn, *flapping) if case is not None and case.opened]
    assert len(first) == 1  # the other four joined
    bring_to(conn, first[0], "closed")
    (grouped,) = offer(conn, event("raise", MONDAY + 5 * MINUTE))
    assert grouped is not None and grouped.opened


@pytest.mark.parametrize(
    ("auto", "state", "types"),
    [
        ("reported", "reported", ["wf.case.opened"]),
        ("accepted", "accepted", ["wf.case.opened", "wf.stage.changed"]),
        ("filed", "filed", ["wf.case.opened", "wf.stage.changed", "wf.stage.changed"]),
        ("dispatched", "dispatched", ["wf.case.opened", "wf.stage.changed", "wf.stage.changed", "wf.case.dispatched"]),
    ],
)
def test_a_rule_carries_the_case_as_far_as_the_policy_says(
    conn: Connection, auto: Auto, state: str, types: list[str]
) -> None:
    case = new_case(conn, rule=policy(auto=auto))
    assert (case.state, [e.type for e in case.events], case.opened) == (state, types, True)
    assert len({e.id for e in case.events}) == len(types)
    assert load(conn, case.case_id).state == state
    if auto == "dispatched":
        assert case.accepted_ms == MONDAY
        assert act(conn, case.case_id, "start", "wang", "", case.version, now_ms=MONDAY).state == "in_progress"


def test_numbers_count_per_local_day_over_all_types(conn: Connection) -> None:
    late, early = beijing("2026-03-02 23:59"), beijing("2026-03-03 00:01")
    numbers = [
        new_case(conn, late, key="a/x:r").number,
        new_case(conn, late, rule=emergency_policy(), key="b/x:r").number,
        new_case(conn, early, key="c/x:r").number,
    ]
    assert numbers == [
        "HF-site_nuisance-20260302-00001",
        "HF-pipeline_hazard-20260302-00002",
        "HF-site_nuisance-20260303-00001",
    ]


def test_a_rolled_back_case_leaves_no_gap_in_the_numbers(conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        assert new_case(conn, key="a/x:r").number.endswith("-00001")
    assert new_case(conn, key="b/x:r").number.endswith("-00001")


def test_two_workers_opening_for_one_place_leave_one_case(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        changes = ingest(
            conn, [event("raise", MONDAY), event("raise", MONDAY, "red", key="site-1/lamax:night")], MONDAY
        )
    gate = threading.Barrier(2)
    outcomes: list[Case | None] = []

    def worker(number: int) -> None:
        with psycopg.connect(dsn) as conn:
            gate.wait()
            outcomes.append(open_for(conn, changes[number], policy(), MONDAY))

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(case is not None and case.opened for case in outcomes) == [False, True]
    with psycopg.connect(dsn) as conn:
        assert cases(conn) == 1
        assert conn.execute("select count(*) from case_alarm").fetchone() == (2,)
        (found,) = rows.open_cases(conn)
        assert found.level == "red"


def test_a_case_that_is_closed_while_an_alarm_waits_to_join_is_not_joined(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        case = bring_to(conn, new_case(conn), "checked")
        (change,) = ingest(conn, [event("raise", MONDAY, key="site-1/lamax:night")], MONDAY)
    outcomes: list[Case | None] = []

    def worker() -> None:
        with psycopg.connect(dsn) as conn:
            outcomes.append(open_for(conn, change, policy(), MONDAY))

    thread = threading.Thread(target=worker)
    with psycopg.connect(dsn) as closing, psycopg.connect(dsn, autocommit=True) as watch:
        act(closing, case.case_id, "close", "li", now_ms=MONDAY)
        thread.start()
        while watch.execute("select count(*) from pg_locks where not granted").fetchone() == (0,):
            assert thread.is_alive(), "the worker did not wait for the closing transaction"
    thread.join()
    (fresh,) = outcomes
    assert fresh is not None and fresh.opened and fresh.case_id != case.case_id


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"type": "no_such_type"}, "unknown case type"),
        ({"type": "none"}, "no process yet"),
        ({"type": "care_visit"}, "care flow"),
        ({"department": "nobody"}, "unknown department nobody"),
        ({"support": ("housing", "nobody")}, "unknown department nobody"),
        ({"sla_h": {"accept": 1, "close": 2}}, "sla_h"),
        ({"sla_h": {"accept": -1, "onsite": 1, "close": 2}}, "negative"),
        ({"from_level": "info"}, "from_level"),
        ({"type": "pipeline_hazard", "auto": "dispatched"}, "confirmed by a person"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(PolicyInvalid, match=says) as caught:
        policy(**wrong)
    assert caught.value.zh.startswith("urban_mgmt/construction_site：")


def test_every_pack_gives_a_policy() -> None:
    from scenarios.packs import load_all

    packs = load_all()
    assert packs
    for pack in packs:
        rule = CasePolicy.from_pack(pack)
        assert (rule.scenario, rule.type) == (pack.id, pack.case.type)
        assert rule.limits_ms["close"] == pack.case.sla_h.close * 3_600_000


def test_every_rule_action_is_a_move() -> None:
    """The way of a rule through the drawing: each action leads to the state it is named by."""
    from cloud.cases import FLOWS

    at = "reported"
    for state, action in opening._AUTO_ACTIONS.items():
        at = FLOWS["event"].moves[at, action].to_state
        assert at == state
