"""Events, policies and cases the tests of this folder are made of."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
from psycopg import Connection

from cloud.alarms import AlarmChange, apply_events
from cloud.alarms.times import at
from cloud.cases import FLOWS, Case, CasePolicy, Flow, act, open_for
from protocols.core.model import Event

BEIJING = timezone(timedelta(hours=8))
SCENARIO = "urban_mgmt/construction_site"


def beijing(text: str) -> int:
    """ "2026-03-02 10:00" on the city's wall clock, in UTC milliseconds."""
    return round(datetime.fromisoformat(text).replace(tzinfo=BEIJING).timestamp() * 1000)


MONDAY = beijing("2026-03-02 10:00")  # a working Monday


def event(state: str, ts_ms: int, level: str = "yellow", key: str = "site-1/laeq:day", **more: Any) -> Event:
    fields: dict[str, Any] = {
        "id": f"{key}/{ts_ms}/{state}/{level}",
        "type": "env.noise.exceed",
        "ts_ms": ts_ms,
        "seen_ms": ts_ms,
        "source": key.partition(":")[0],
        "scenario": SCENARIO,
        "level": level,
        "state": state,
        "key": key,
        "values": {"x": float(ts_ms % 100), "unit": "dB"},
    }
    return Event(**{**fields, **more})


def store(conn: Connection[Any], events: list[Event]) -> None:
    """Write events the way ingest does: each once."""
    for e in events:
        device, _, point = e.source.partition("/")
        conn.execute(
            """insert into event (event_id, ts, seen_at, type, level, state, key, scenario, device_id, point, "values",
                   evidence, drill) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
               on conflict do nothing""",
            (
                e.id, at(e.ts_ms), at(e.seen_ms), e.type, e.level, e.state, e.key, e.scenario, device, point,
                msgspec.json.encode(dict(e.values)).decode(), msgspec.json.encode(e.evidence).decode(), e.drill,
            ),
        )  # fmt: skip


def ingest(conn: Connection[Any], events: list[Event], now_ms: int) -> list[AlarmChange]:
    store(conn, events)
    return apply_events(conn, events, None, now_ms)


def alarms(conn: Connection[Any]) -> list[dict[str, Any]]:
    """The whole alarm table, evidence as a set: its order is the order of arrival."""
    cursor = conn.execute("select to_jsonb(a) from alarm a order by scenario, key, onset_at")
    found = [row[0] for row in cursor.fetchall()]
    for alarm in found:
        alarm["evidence"] = sorted(ref["sha256"] for ref in alarm["evidence"])
    return found


def policy(**more: Any) -> CasePolicy:
    fields: dict[str, Any] = {
        "scenario": SCENARIO,
        "type": "site_nuisance",
        "department": "housing",
        "sla_h": {"accept": 0.5, "onsite": 2, "close": 24},
        "from_level": "yellow",
        "support": ("urban_mgmt", "ecology"),
    }
    return CasePolicy(**{**fields, **more})


def emergency_policy(**more: Any) -> CasePolicy:
    return policy(
        scenario="urban_mgmt/underground_pipeline", type="pipeline_hazard", department="operator",
        sla_h={"accept": 0.1, "onsite": 0.5, "close": 24}, support=("housing",), **more,
    )  # fmt: skip


def new_case(conn: Connection[Any], now_ms: int = MONDAY, rule: CasePolicy | None = None, **more: Any) -> Case:
    (change,) = ingest(conn, [event("raise", now_ms, **more)], now_ms)
    case = open_for(conn, change, rule or policy(), now_ms)
    assert case is not None and case.opened
    return case


def next_states(flow: Flow, state: str) -> set[str]:
    return {move.to_state for move in flow.actions(state)}


def reachable(flow: Flow) -> set[str]:
    found, edge = {flow.first}, {flow.first}
    while edge:
        edge = {target for state in edge for target in next_states(flow, state)} - found
        found |= edge
    return found


def path_to(flow: Flow, state: str) -> list[str]:
    """The shortest list of actions from the first state to this one."""
    paths: dict[str, list[str]] = {flow.first: []}
    queue = [flow.first]
    for source in queue:
        for move in flow.actions(source):
            if move.to_state not in paths:
                paths[move.to_state] = [*paths[source], move.id]
                queue.append(move.to_state)
    return paths[state]


def bring_to(conn: Connection[Any], case: Case, state: str, now_ms: int = MONDAY) -> Case:
    """Take the shortest way to a state, two people taking turns, so that nobody checks his own work."""
    for number, action in enumerate(path_to(FLOWS[case.flow], state)):
        case = act(conn, case.case_id, action, f"officer-{number % 2}", "说明", case.version, now_ms=now_ms)
    assert case.state == state
    return case
