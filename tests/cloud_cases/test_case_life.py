"""The whole life of cases in both flows, and everything that is refused on the way."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cloud.cases import (
    FLOWS,
    CaseConflict,
    CaseError,
    CaseNotFound,
    Flow,
    IllegalAction,
    ReasonNeeded,
    Refused,
    act,
    allowed_actions,
    load,
)
from tests.cloud_cases.make import (
    MONDAY,
    beijing,
    bring_to,
    emergency_policy,
    event,
    ingest,
    new_case,
    policy,
    reachable,
)

MINUTE = 60_000
DAY = 86_400_000
RULES = {"event": policy, "emergency": emergency_policy}


def history(conn: Connection, case_id: int) -> list[tuple[Any, ...]]:
    return conn.execute(
        "select who, action, from_state, to_state, reason from case_transition where case_id = %s "
        "order by transition_id",
        (case_id,),
    ).fetchall()


def row(conn: Connection, case_id: int) -> tuple[Any, ...]:
    found = conn.execute("select to_jsonb(c) from case_file c where case_id = %s", (case_id,)).fetchone()
    assert found is not None
    return found


def test_event_flow_from_alarm_to_closed(conn: Connection) -> None:
    case = new_case(conn)
    assert (case.state, case.version, [e.type for e in case.events]) == ("reported", 1, ["wf.case.opened"])
    steps = [
        ("accept", "li", "accepted", "wf.stage.changed"),
        ("file", "li", "filed", "wf.stage.changed"),
        ("dispatch", "li", "dispatched", "wf.case.dispatched"),
        ("start", "wang", "in_progress", "wf.stage.changed"),
        ("feed_back", "wang", "fed_back", "wf.stage.changed"),
        ("check", "zhao", "checked", "wf.stage.changed"),
        ("close", "li", "closed", "wf.case.closed"),
    ]
    ids = {case.events[0].id}
    for number, (action, who, state, event_type) in enumerate(steps, start=1):
        assert action in [a.id for a in allowed_actions(case, MONDAY, who)]
        case = act(conn, case.case_id, action, who, "", case.version, now_ms=MONDAY + number * MINUTE)
        assert (case.state, case.version) == (state, number + 1)
        assert load(conn, case.case_id) == type(case)(**{f: getattr(case, f) for f in case.__slots__} | {"events": ()})
        (born,) = case.events
        assert (born.type, born.source, born.scenario, born.ts_ms) == (
            event_type, "site-1", case.scenario, MONDAY + number * MINUTE,
        )  # fmt: skip
        assert born.values["case"] == case.number and born.values["unit"] == "housing"
        ids.add(born.id)
    assert len(ids) == 8
    assert (case.accepted_ms, case.onsite_ms, case.closed_ms) == tuple(MONDAY + n * MINUTE for n in (1, 4, 7))
    assert history(conn, case.case_id) == [
        ("rule:urban_mgmt/construction_site", "open", "", "reported", "env.noise.exceed yellow"),
        ("li", "accept", "reported", "accepted", ""),
        ("li", "file", "accepted", "filed", ""),
        ("li", "dispatch", "filed", "dispatched", ""),
        ("wang", "start", "dispatched", "in_progress", ""),
        ("wang", "feed_back", "in_progress", "fed_back", ""),
        ("zhao", "check", "fed_back", "checked", ""),
        ("li", "close", "checked", "closed", ""),
    ]


def test_emergency_flow_from_candidate_to_closed(conn: Connection) -> None:
    case = new_case(conn, rule=emergency_policy(), level="orange", type="gas.leak.high")
    assert (case.state, case.flow, case.facts.around_the_clock) == ("candidate", "emergency", True)
    steps = [
        ("confirm", "confirmed", ""),
        ("respond", "responding_2", ""),  # no grade said: the one of an orange case
        ("respond_1", "responding_1", ""),
        ("respond_3", "responding_3", "险情减轻"),
        ("control", "controlled", ""),
        ("recover", "recovering", ""),
        ("review", "reviewed", ""),
        ("close", "closed", ""),
    ]
    for action, state, reason in steps:
        case = act(conn, case.case_id, action, "duty", reason, now_ms=MONDAY)
        assert case.state == state
    assert (case.accepted_ms, case.onsite_ms, case.closed_ms) == (MONDAY, MONDAY, MONDAY)
    assert [(h[1], h[3], h[4]) for h in history(conn, case.case_id)][2:5] == [
        ("respond_2", "responding_2", ""),
        ("respond_1", "responding_1", ""),
        ("respond_3", "responding_3", "险情减轻"),
    ]


def test_false_alarm_ends_an_emergency(conn: Connection) -> None:
    case = new_case(conn, rule=emergency_policy())
    with pytest.raises(ReasonNeeded):
        act(conn, case.case_id, "false_alarm", "duty", "  ")
    case = act(conn, case.case_id, "false_alarm", "duty", "传感器进水", now_ms=MONDAY)
    assert (case.state, case.closed_ms, allowed_actions(case)) == ("false_alarm", MONDAY, [])


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())
def test_each_state_refuses_every_action_it_does_not_know(conn: Connection, flow: Flow) -> None:
    """Exhaustive over states and actions of both flows: refused by name, with what is allowed, and nothing written."""
    actions = {action for other in FLOWS.values() for _, action in other.moves} | {"open", "decide", "void", ""}
    for number, state in enumerate(sorted(reachable(flow))):
        case = new_case(conn, rule=RULES[flow.id](), key=f"site-{number}/laeq:day")
        case = bring_to(conn, case, state)
        before = row(conn, case.case_id), history(conn, case.case_id)
        known = [action.id for action in flow.actions(state)]
        assert {a.id for a in allowed_actions(case)} == set(known)
        for action in sorted(actions - set(known)):
            with pytest.raises(IllegalAction) as caught:
                act(conn, case.case_id, action, "li", "说明", case.version, now_ms=MONDAY)
            assert caught.value.allowed == tuple(known)
            assert all(name in str(caught.value) and name in caught.value.zh for name in known)
        for action in known:
            if flow.moves[state, action].reason:
                with pytest.raises(ReasonNeeded):
                    act(conn, case.case_id, action, "li", "", case.version, now_ms=MONDAY)
        assert (row(conn, case.case_id), history(conn, case.case_id)) == before


def test_an_old_version_is_a_conflict_and_changes_nothing(conn: Connection) -> None:
    case = new_case(conn)
    act(conn, case.case_id, "accept", "li", "", 1)
    with pytest.raises(CaseConflict) as caught:
        act(conn, case.case_id, "not_file", "wang", "重复", 1)
    assert (caught.value.expected, caught.value.actual) == (1, 2)
    assert load(conn, case.case_id).state == "accepted"
    with pytest.raises(CaseNotFound):
        act(conn, 987_654, "accept", "li")
    with pytest.raises(CaseNotFound):
        load(conn, 987_654)


def test_two_operators_at_once_one_wins_and_the_other_is_told(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        case = new_case(conn)
    outcomes: list[str] = []
    gate = threading.Barrier(2)

    def operator(action: str) -> None:
        with psycopg.connect(dsn) as conn:
            gate.wait()
            try:
                outcomes.append(act(conn, case.case_id, action, "li", "重复", case.version).state)
            except CaseError as error:
                outcomes.append(error.code)

    threads = [threading.Thread(target=operator, args=(action,)) for action in ("accept", "not_file")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "case.conflict" in outcomes and len(outcomes) == 2
    with psycopg.connect(dsn) as conn:
        after = load(conn, case.case_id)
        assert after.version == 2 and after.state in outcomes
        assert len(history(conn, case.case_id)) == 2


def test_who_fed_back_does_not_check_but_another_may(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "in_progress")
    case = act(conn, case.case_id, "feed_back", "wang")
    assert "check" not in [a.id for a in allowed_actions(case, who="wang")]
    with pytest.raises(Refused, match="another person"):
        act(conn, case.case_id, "check", "wang")
    with pytest.raises(Refused, match="a rule cannot check"):
        act(conn, case.case_id, "check", "rule:urban_mgmt/construction_site")
    assert act(conn, case.case_id, "check", "zhao").state == "checked"


def test_a_cleared_alarm_is_the_sensors_check(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "in_progress")
    case = act(conn, case.case_id, "feed_back", "wang")
    ingest(conn, [event("clear", MONDAY + MINUTE)], MONDAY)
    by_rule = act(conn, case.case_id, "check", "rule:urban_mgmt/construction_site")
    assert by_rule.state == "checked"
    act(conn, case.case_id, "send_back", "li", "照片不清")
    act(conn, case.case_id, "feed_back", "wang")
    assert act(conn, case.case_id, "check", "wang").state == "checked"
    assert history(conn, case.case_id)[-1][4] == "[sensor: all alarms cleared]"


def test_returned_twice_goes_to_mediation(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "dispatched")
    case = act(conn, case.case_id, "return", "wang", "非本辖区", now_ms=MONDAY)
    assert case.events[0].type == "wf.case.returned" and case.events[0].values["reason"] == "非本辖区"
    act(conn, case.case_id, "dispatch", "li", now_ms=MONDAY)
    case = act(conn, case.case_id, "return", "wang", "非本部门", now_ms=MONDAY)
    assert [a.id for a in allowed_actions(case)] == ["mediate"]
    with pytest.raises(Refused, match="mediates"):
        act(conn, case.case_id, "dispatch", "li", now_ms=MONDAY)
    act(conn, case.case_id, "mediate", "centre", "权属不清", now_ms=MONDAY)
    assert act(conn, case.case_id, "dispatch", "centre", now_ms=MONDAY).state == "dispatched"


def test_a_case_is_returned_within_a_tenth_of_its_limit(conn: Connection) -> None:
    """24 h of working time from Monday 10:00: a tenth are 144 minutes, the lunch break does not count."""
    case = bring_to(conn, new_case(conn), "dispatched")
    last = beijing("2026-03-02 14:24")
    assert "return" in [a.id for a in allowed_actions(case, last)]
    assert "return" not in [a.id for a in allowed_actions(case, last + 1)]
    with pytest.raises(Refused, match="144 min"):
        act(conn, case.case_id, "return", "wang", "非本辖区", now_ms=last + 1)
    assert act(conn, case.case_id, "return", "wang", "非本辖区", now_ms=last).state == "returned"


def test_reopened_once_within_seven_days_with_new_clocks(conn: Connection) -> None:
    closed = bring_to(conn, new_case(conn), "closed")
    assert allowed_actions(closed, MONDAY + 7 * DAY + 1) == []
    with pytest.raises(Refused, match="7 days"):
        act(conn, closed.case_id, "reopen", "li", "复发", now_ms=MONDAY + 7 * DAY + 1)
    case = act(conn, closed.case_id, "reopen", "li", "复发", now_ms=MONDAY + 7 * DAY)
    assert (case.state, case.onsite_ms, case.closed_ms) == ("reopened", None, None)
    assert case.accepted_ms == closed.accepted_ms and case.accept_due_ms == closed.accept_due_ms
    assert case.onsite_due_ms == beijing("2026-03-09 12:00") and case.close_due_ms == beijing("2026-03-12 15:00")
    for action, who in (("dispatch", "li"), ("start", "wang"), ("feed_back", "wang"), ("check", "li"), ("close", "li")):
        case = act(conn, case.case_id, action, who, now_ms=MONDAY + 8 * DAY)
    assert (case.state, case.closed_ms, allowed_actions(case)) == ("closed", MONDAY + 8 * DAY, [])
    with pytest.raises(Refused, match="once"):
        act(conn, case.case_id, "reopen", "li", "又复发", now_ms=MONDAY + 8 * DAY)


def test_merging_hands_the_alarms_over(conn: Connection) -> None:
    kept, double = new_case(conn), new_case(conn, key="site-2/laeq:day")
    with pytest.raises(Refused, match="another, open case"):
        act(conn, double.case_id, "merge", "li", "同一事项", into=double.case_id)
    with pytest.raises(CaseNotFound):
        act(conn, double.case_id, "merge", "li", "同一事项", into=987_654)
    merged = act(conn, double.case_id, "merge", "li", "同一事项", into=kept.case_id, now_ms=MONDAY)
    assert (merged.state, merged.closed_ms) == ("merged", MONDAY)
    counts = conn.execute("select case_id, count(*) from case_alarm group by 1 order by 1").fetchall()
    assert counts == [(kept.case_id, 2), (double.case_id, 1)]
    with pytest.raises(Refused, match="another, open case"):
        act(conn, kept.case_id, "merge", "li", "同一事项", into=double.case_id)


def test_a_case_finishes_on_the_drawing_it_began_with(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new drawing is installed while the case is running; the old one is in the database and is used."""
    from cloud.cases import moves, process

    case = new_case(conn)
    old = process.current("event")
    newer = process.Definition(old.xml.replace("事件流程 Event flow", "事件流程 Event flow 2"))
    assert newer.sha256 != old.sha256
    monkeypatch.setattr(process, "current", lambda flow: newer)
    used: list[str] = []
    real = moves.of_run

    def watched(*args: Any) -> process.Definition:
        definition = real(*args)
        used.append(definition.sha256)
        return definition

    monkeypatch.setattr(moves, "of_run", watched)
    assert act(conn, case.case_id, "accept", "li").state == "accepted"
    assert used == [old.sha256]


def test_a_whole_life_stays_small(conn: Connection) -> None:
    case = bring_to(conn, new_case(conn), "reopened")
    (size,) = conn.execute(
        "select length(workflow::text) from case_file where case_id = %s", (case.case_id,)
    ).fetchone() or (0,)
    assert 1_000 < size < 20_000
