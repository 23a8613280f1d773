"""Events to alarms on the real database: whole batches, replays, disorder, two workers at once."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from cloud.alarms import AlarmNotFound, acknowledge, alarm_id_of, apply_events, load_alarm
from cloud.notify import CHANNEL, notify
from protocols.core.model import Event, EvidenceRef
from tests.cloud_cases.make import SCENARIO, alarms, event, ingest, store

T = 1_772_000_000_000
KEYS = ("site-1/laeq:day", "site-2/pm10:hour")

on_the_shared_connection = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_an_alarm_is_written_as_it_is_told(conn: Connection) -> None:
    conn.execute("insert into gateway (gateway_id, shard) values ('gw-1', 3)")
    conn.execute(
        "insert into device (device_id, gateway_id, lon, lat, h3_9) values ('site-1', 'gw-1', 117.3, 31.7, 'h')"
    )
    placed = event("raise", T, key=KEYS[1], location=(117.25, 31.85), evidence=(EvidenceRef("ab"),))
    changes = apply_events(conn, [event("raise", T), placed], "gw-1", T + 40)
    for change in changes:
        assert load_alarm(conn, change.alarm.alarm_id) == change.alarm
    of_device, own = sorted((change.alarm for change in changes), key=lambda alarm: alarm.key)
    assert (of_device.lon, of_device.lat, of_device.h3_9) == (117.3, 31.7, "h")
    assert (own.lon, own.lat) == (117.25, 31.85)
    assert own.h3_9 is not None and own.h3_9.startswith("89")
    assert own.evidence == (EvidenceRef("ab"),) and own.raised_ms == T + 40 and own.gateway_id == "gw-1"


def test_a_batch_costs_as_many_statements_as_one_event(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    real = conn.execute

    def counting(query: str, *args: object, **more: object) -> object:
        statements.append(query)
        return real(query, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(conn, "execute", counting)
    apply_events(conn, [event("raise", T)], None, T)
    for_one = len(statements)
    many = [event("raise", T + n, key=f"site-{n % 100}/laeq:{n}") for n in range(500)]
    statements.clear()
    assert len(apply_events(conn, many, None, T)) == 500
    assert len(statements) == for_one
    statements.clear()
    assert apply_events(conn, many, None, T) == []
    assert len(statements) == 1  # a replay reads, and writes nothing
    statements.clear()
    assert apply_events(conn, [event("", T)], None, T) == []
    assert statements == []


@st.composite
def ordered_streams(draw: st.DrawFn) -> list[Event]:
    """What gateways send: any raises, updates and clears of two alarms, in order, dense enough to chatter."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(KEYS),
                st.sampled_from(["raise", "raise", "clear", "update"]),
                st.sampled_from(["blue", "yellow", "orange", "red"]),
                st.integers(1, 200_000),
            ),
            min_size=1,
            max_size=24,
        )
    )
    now = T
    stream = []
    for key, state, level, gap in steps:
        now += gap
        stream.append(event(state, now, level, key))
    return stream


@given(stream=ordered_streams(), data=st.data())
@on_the_shared_connection
def test_replays_in_any_order_and_mixture_change_nothing(
    conn: Connection, stream: list[Event], data: st.DataObject
) -> None:
    with conn.transaction(force_rollback=True):
        cuts = sorted(data.draw(st.sets(st.integers(1, len(stream)), max_size=4)) | {0, len(stream)})
        for begin, end in pairwise(cuts):
            ingest(conn, stream[begin:end], T)
        reached = alarms(conn)
        again = data.draw(st.lists(st.sampled_from(stream), max_size=30))
        assert ingest(conn, again, T + 99) == []
        assert ingest(conn, data.draw(st.permutations(stream)), T + 99) == []
        assert alarms(conn) == reached
        open_keys = [alarm["key"] for alarm in reached if alarm["state"] != "cleared"]
        assert len(open_keys) == len(set(open_keys))


@given(stream=ordered_streams(), cut=st.integers(0, 24))
@on_the_shared_connection
def test_how_a_stream_is_cut_into_batches_does_not_matter(conn: Connection, stream: list[Event], cut: int) -> None:
    outcomes = []
    for batches in ([stream], [stream[:cut], stream[cut:]], [[one] for one in stream]):
        with conn.transaction(force_rollback=True):
            for batch in batches:
                ingest(conn, batch, T)
            outcomes.append(alarms(conn))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@given(
    levels=st.lists(st.sampled_from(["blue", "yellow", "orange", "red"]), max_size=4),
    cleared=st.booleans(),
    data=st.data(),
)
@on_the_shared_connection
def test_one_alarms_facts_end_the_same_in_any_order(
    conn: Connection, levels: list[str], cleared: bool, data: st.DataObject
) -> None:
    episode = [event("raise", T, evidence=(EvidenceRef("e0"),))]
    episode += [
        event("update", T + 1000 * n, level, evidence=(EvidenceRef(f"e{n}"),))
        for n, level in enumerate(levels, start=1)
    ]
    episode += [event("clear", T + 60_000)] if cleared else []
    with conn.transaction(force_rollback=True):
        ingest(conn, episode, T)
        in_order = alarms(conn)
    with conn.transaction(force_rollback=True):
        order = data.draw(st.permutations(episode))
        for one in order:
            ingest(conn, [one], T)
        reached = alarms(conn)
    states = [one.state for one in order]
    if cleared and "update" in states[states.index("clear") :] and states.index("raise") < len(states) - 1:
        for alarm in (*reached, *in_order):  # the last level of an alarm that had cleared is not rewritten
            del alarm["level"], alarm["values"]
    assert reached == in_order


def test_what_overtook_its_raise_is_found_again(conn: Connection) -> None:
    counts: Counter[str] = Counter()
    early = [event("update", T + 1000, "red"), event("clear", T + 2000)]
    store(conn, early)
    assert apply_events(conn, early, None, T, counts) == []
    assert counts == {"orphan": 2} and alarms(conn) == []
    (change,) = ingest(conn, [event("raise", T)], T)
    assert (change.kind, change.alarm.state, change.alarm.peak_level, change.alarm.cleared_ms) == (
        "raised", "cleared", "red", T + 2000,
    )  # fmt: skip


def test_acknowledge_keeps_the_first_and_survives_a_clear(conn: Connection) -> None:
    (change,) = ingest(conn, [event("raise", T)], T)
    alarm_id = change.alarm.alarm_id
    taken = acknowledge(conn, alarm_id, "li", T + 100)
    assert (taken.state, taken.acked_by, taken.acked_ms) == ("acknowledged", "li", T + 100)
    assert acknowledge(conn, alarm_id, "wang", T + 200) == taken
    (cleared,) = ingest(conn, [event("clear", T + 300)], T)
    assert (cleared.alarm.state, cleared.alarm.acked_by) == ("cleared", "li")
    with pytest.raises(AlarmNotFound):
        acknowledge(conn, "nothing", "li")


def test_acknowledge_of_a_cleared_alarm_is_recorded_and_stays_cleared(conn: Connection) -> None:
    (change,) = ingest(conn, [event("raise", T), event("clear", T + 1)], T)
    taken = acknowledge(conn, change.alarm.alarm_id, "li")
    assert (taken.state, taken.acked_by) == ("cleared", "li") and taken.acked_ms is not None
    assert load_alarm(conn, change.alarm.alarm_id) == taken


def test_a_cleared_alarm_after_acknowledging_by_the_databases_own_clock(conn: Connection) -> None:
    """The database keeps microseconds where we keep milliseconds; that must not look like somebody else's change."""
    (change,) = ingest(conn, [event("raise", T)], T)
    conn.execute("update alarm set updated_at = updated_at + interval '400 microseconds'")
    acknowledge(conn, change.alarm.alarm_id, "li")
    (cleared,) = ingest(conn, [event("clear", T + 5)], T)
    assert cleared.kind == "cleared"


def _together(dsn: str, first: Callable[[Connection], object], second: Callable[[Connection], object]) -> list[object]:
    """Run ``first``, then start ``second`` in another transaction; commit the first once the second waits for it."""
    results: list[object] = [None, None]

    def other() -> None:
        with psycopg.connect(dsn) as conn:
            results[1] = second(conn)

    thread = threading.Thread(target=other)
    with psycopg.connect(dsn) as conn, psycopg.connect(dsn, autocommit=True) as watch:
        results[0] = first(conn)
        thread.start()
        while watch.execute("select count(*) from pg_locks where not granted").fetchone() == (0,):
            assert thread.is_alive(), "the second transaction did not wait for the first"
    thread.join()
    return results


def test_two_workers_raising_the_same_alarm_leave_one(dsn: str) -> None:
    first, second = _together(
        dsn,
        lambda conn: apply_events(conn, [event("raise", T)], None, T),
        lambda conn: apply_events(conn, [event("raise", T)], None, T),
    )
    assert [change.kind for change in first] == ["raised"] and second == []  # type: ignore[attr-defined]
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*), max(repeats) from alarm").fetchone() == (1, 0)


def test_two_workers_raising_the_same_key_at_different_times_leave_one_with_a_repeat(dsn: str) -> None:
    _together(
        dsn,
        lambda conn: apply_events(conn, [event("raise", T)], None, T),
        lambda conn: apply_events(conn, [event("raise", T + 1), event("raise", T, key=KEYS[1])], None, T),
    )
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("select alarm_id, repeats from alarm order by key").fetchall()
        assert rows == [(alarm_id_of(SCENARIO, KEYS[0], T), 1), (alarm_id_of(SCENARIO, KEYS[1], T), 0)]


def test_an_alarm_acknowledged_meanwhile_is_still_cleared_and_keeps_who_took_it(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        (change,) = apply_events(conn, [event("raise", T)], None, T)
    _together(
        dsn,
        lambda conn: acknowledge(conn, change.alarm.alarm_id, "li", T + 50),
        lambda conn: apply_events(conn, [event("clear", T + 100)], None, T),
    )
    with psycopg.connect(dsn) as conn:
        alarm = load_alarm(conn, change.alarm.alarm_id)
        assert (alarm.state, alarm.acked_by, alarm.cleared_ms) == ("cleared", "li", T + 100)


def test_notices_go_out_at_commit_once_and_never_for_nothing(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn) as conn:
        listener.execute(f"listen {CHANNEL}")
        (change,) = apply_events(conn, [event("raise", T)], None, T)
        notify(conn, "alarm", change.alarm.alarm_id)
        conn.rollback()
        apply_events(conn, [event("raise", T)], None, T)
        notify(conn, "alarm", change.alarm.alarm_id)
        conn.commit()
        apply_events(conn, [event("raise", T)], None, T)
        conn.commit()
        notices = [json.loads(notice.payload) for notice in listener.notifies(timeout=1, stop_after=2)]
    assert notices == [{"kind": "alarm", "id": change.alarm.alarm_id}]
