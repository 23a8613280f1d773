"""The rules of an alarm's life, one by one, without a database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cloud.alarms import Alarm, AlarmChange, alarm_id_of
from cloud.alarms.fold import CHATTER_WINDOW_MS, concerns_alarms, fold
from protocols.core.model import Event, EvidenceRef
from tests.cloud_cases.make import SCENARIO, event

T = 1_772_000_000_000


def run(*batches: Sequence[Event]) -> tuple[list[Alarm], list[AlarmChange], Counter[str]]:
    """Alarms after all batches, the changes of the last one, and what was set aside."""
    alarms: dict[str, Alarm] = {}
    counts: Counter[str] = Counter()
    changes: list[AlarmChange] = []
    for batch in batches:
        changes = fold(list(alarms.values())[-6:], batch, "gw-1", T, counts)
        alarms.update({change.alarm.alarm_id: change.alarm for change in changes})
    return list(alarms.values()), changes, counts


def test_raise_opens_one_alarm_named_by_its_onset() -> None:
    (alarm,), (change,), _ = run([event("raise", T)])
    assert alarm.alarm_id == alarm_id_of(SCENARIO, "site-1/laeq:day", T)
    assert (alarm.device_id, alarm.point, alarm.gateway_id) == ("site-1", "laeq", "gw-1")
    assert (alarm.state, alarm.level, alarm.peak_level, alarm.repeats) == ("raised", "yellow", "yellow", 0)
    assert change.kind == "raised" and change.before is None and change.peak_rose


def test_second_raise_while_open_counts_a_repeat() -> None:
    (alarm,), (change,), _ = run([event("raise", T)], [event("raise", T + 5)])
    assert (alarm.repeats, alarm.onset_ms, change.kind) == (1, T, "repeated")


def test_level_moves_and_peak_stays() -> None:
    up, down = event("update", T + 1, "red"), event("update", T + 2, "blue")
    (alarm,), (change,), _ = run([event("raise", T)], [up])
    assert (alarm.level, alarm.peak_level, change.kind, change.peak_rose) == ("red", "red", "escalated", True)
    (alarm,), (change,), _ = run([event("raise", T)], [up], [down])
    assert (alarm.level, alarm.peak_level, change.kind, change.peak_rose) == ("blue", "red", "lowered", False)


def test_clear_closes_and_the_next_raise_is_another_alarm() -> None:
    alarms, changes, _ = run([event("raise", T)], [event("clear", T + 9)], [event("raise", T + CHATTER_WINDOW_MS)])
    assert [(a.state, a.onset_ms, a.cleared_ms) for a in alarms] == [
        ("cleared", T, T + 9),
        ("raised", T + CHATTER_WINDOW_MS, None),
    ]
    assert [change.kind for change in changes] == ["raised"]


def test_raised_and_cleared_in_one_batch_is_still_told_as_raised() -> None:
    (alarm,), (change,), _ = run([event("raise", T), event("update", T + 1, "red"), event("clear", T + 2)])
    assert (alarm.state, alarm.peak_level, change.kind) == ("cleared", "red", "raised")


def test_an_older_fact_changes_neither_level_nor_state() -> None:
    alarms, changes, counts = run([event("raise", T), event("update", T + 10, "orange")], [event("clear", T + 5)])
    assert (alarms[0].state, alarms[0].level, changes, counts["late"]) == ("raised", "orange", [], 1)


def test_a_late_update_may_lift_the_peak_and_bring_evidence() -> None:
    still = EvidenceRef("aa")
    late = event("update", T + 5, "red", evidence=(still,))
    (alarm,), (change,), _ = run([event("raise", T), event("clear", T + 10)], [late])
    assert (alarm.state, alarm.level, alarm.peak_level, alarm.evidence) == ("cleared", "yellow", "red", (still,))
    assert change.kind == "updated" and change.peak_rose


def test_two_updates_of_one_millisecond_leave_the_higher_in_any_order() -> None:
    first, second = event("update", T + 5, "orange"), event("update", T + 5, "blue")
    for order in ([first, second], [second, first]):
        (alarm,), _, _ = run([event("raise", T)], order)
        assert alarm.level == "orange"


def test_clear_or_update_of_an_unknown_alarm_leaves_no_alarm_and_is_counted() -> None:
    alarms, changes, counts = run([event("clear", T), event("update", T + 1, "red")])
    assert (alarms, changes, counts["orphan"]) == ([], [], 2)
    _, changes, counts = run([event("raise", T)], [event("clear", T + 1)], [event("clear", T + 2)])
    assert (changes, counts["orphan"]) == ([], 1)


def test_passing_the_peak_wants_a_new_acknowledgement_and_nothing_less_does() -> None:
    (raised,), _, _ = run([event("raise", T)])
    taken = Alarm(
        **{name: getattr(raised, name) for name in Alarm.__slots__} | {"state": "acknowledged", "acked_ms": T + 1}
    )
    (same,) = fold([taken], [event("update", T + 2, "blue")], None, T, Counter())
    assert same.alarm.state == "acknowledged" and same.alarm.acked_ms == T + 1
    (worse,) = fold([taken], [event("update", T + 2, "red")], None, T, Counter())
    assert worse.alarm.state == "raised" and worse.alarm.acked_ms is None


def test_the_sixth_raise_in_ten_minutes_reopens_the_last_alarm_and_hints_at_a_fault() -> None:
    flapping = [
        event(state, T + n * 60_000 + off) for n in range(6) for state, off in (("raise", 0), ("clear", 30_000))
    ]
    alarms, _, _ = run(flapping[:10])
    assert len(alarms) == 5
    alarms, changes, _ = run(flapping[:10], flapping[10:11])
    assert len(alarms) == 5
    last = alarms[-1]
    assert (last.state, last.grouped, last.repeats, last.onset_ms) == ("raised", True, 1, T + 4 * 60_000)
    (change,) = changes
    assert change.kind == "grouped"
    assert change.hint is not None and change.hint.type == "dev.fault" and change.hint.source == "site-1"


def test_chattering_lasts_until_ten_quiet_minutes() -> None:
    flapping = [
        event(state, T + n * 60_000 + off) for n in range(6) for state, off in (("raise", 0), ("clear", 30_000))
    ]
    quiet_since = T + 5 * 60_000 + 30_000
    still = event("raise", quiet_since + CHATTER_WINDOW_MS - 1)
    alarms, changes, _ = run(flapping, [still])
    assert len(alarms) == 5 and changes[0].kind == "repeated" and changes[0].hint is None
    calm = event("raise", quiet_since + CHATTER_WINDOW_MS)
    alarms, changes, _ = run(flapping, [calm])
    assert len(alarms) == 6 and changes[0].kind == "raised" and not alarms[-1].grouped


def test_five_raises_in_ten_minutes_are_no_chattering() -> None:
    spaced = [event(state, T + n * 120_000 + off) for n in range(8) for state, off in (("raise", 0), ("clear", 60_000))]
    alarms, _, _ = run(spaced)
    assert len(alarms) == 8 and not any(alarm.grouped for alarm in alarms)


def test_an_exercise_never_touches_a_real_alarm() -> None:
    drill = [event("update", T + 1, "red", drill=True), event("clear", T + 2, drill=True)]
    alarms, changes, counts = run([event("raise", T)], drill)
    assert (alarms[0].state, alarms[0].peak_level, changes, counts["drill_ignored"]) == ("raised", "yellow", [], 2)


def test_a_real_raise_takes_an_open_exercise_over() -> None:
    (alarm,), (change,), _ = run([event("raise", T, "red", drill=True)], [event("raise", T, "yellow", id="real")])
    assert (alarm.drill, alarm.level, alarm.peak_level, change.kind) == (False, "yellow", "yellow", "raised")
    _, changes, counts = run([event("raise", T, "red", drill=True)], [event("clear", T + 1)])
    assert changes == [] and counts["drill_ignored"] == 1


def test_what_never_becomes_an_alarm() -> None:
    assert not concerns_alarms(event("", T))
    assert not concerns_alarms(event("raise", T, "info"))
    assert not concerns_alarms(event("raise", T, quality="manual"))
    assert concerns_alarms(event("raise", T, quality="suspect"))


def test_no_number_is_null_so_that_a_replay_is_equal() -> None:
    (alarm,), _, _ = run([event("raise", T, values={"x": float("nan"), "limit": float("inf"), "n": 3})])
    assert alarm.values == {"x": None, "limit": None, "n": 3}
