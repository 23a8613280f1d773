"""The wave machine as a state machine: whatever gateways do and operators press, what it promises holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cloud.registry.enrol import enrol_gateway
from cloud.twin import service as twin
from cloud.updates import service
from cloud.updates.waves import BAD, IN_FLIGHT, Decision, Fact, Member, Plan, Rollout, cut, decide
from protocols.core.errors import ContractError
from protocols.uplink.batch import Reported

T0 = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
CHANGE = {"agent": {"name": "citybrain", "version": "2.0"}}


@given(st.integers(1, 400), st.lists(st.sampled_from(["1", "5", "1%", "10%", "50%", "100%"]), min_size=1, max_size=5))
def test_every_gateway_is_in_one_wave(count: int, waves: list[str]) -> None:
    gateways = [f"gw-{number}" for number in range(count)]
    members = cut(gateways, Plan(waves=tuple(waves)), "7")
    assert sorted(m.gateway_id for m in members) == sorted(gateways)
    assert [m.wave for m in members] == sorted(m.wave for m in members)
    assert max(m.wave for m in members) < len(waves)
    assert members == cut(reversed(gateways), Plan(waves=tuple(waves)), "7")  # always the same


@pytest.mark.parametrize("waves", [(), ("0",), ("101%",), ("-1",), ("x",), ("1.5%",), ("5",) * 21, ("٣",)])
def test_impossible_plans_are_refused(waves: tuple[str, ...]) -> None:
    with pytest.raises(ContractError):
        cut(["gw"], Plan(waves=waves), "")


class Fleet(RuleBasedStateMachine):
    """Gateways that go offline, change over, fail, get other wishes; operators who press everything."""

    @initialize(
        count=st.integers(1, 30),
        plan=st.builds(
            Plan,
            waves=st.sampled_from([("100%",), ("1", "100%"), ("1", "3", "50%", "100%"), ("10%", "50%")]),
            success_pct=st.sampled_from([50.0, 90.0, 100.0]),
            error_pct=st.sampled_from([0.0, 10.0, 50.0]),
            concurrency=st.integers(1, 6),
            timeout_s=st.just(1000),
            patience_s=st.sampled_from([0, 600]),
        ),
    )
    def begin(self, count: int, plan: Plan) -> None:
        self.now = T0
        self.members = tuple(cut([f"gw-{n}" for n in range(count)], plan, "1"))
        self.rollout = Rollout("running", 0, T0, plan)
        self.facts = {m.gateway_id: Fact(True) for m in self.members}
        self.restored: set[str] = set()
        self.stopped_once = False

    def _in_flight(self, states: frozenset[str] = IN_FLIGHT) -> list[str]:
        return [m.gateway_id for m in self.members if m.state in states]

    @rule(seconds=st.integers(1, 400))
    def tick(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self._take(decide(self.rollout, self.members, self.facts, self.now))

    def _take(self, decision: Decision) -> None:
        before = {m.gateway_id: m for m in self.members}
        if self.rollout.state != "running":
            assert not decision.offer
        else:
            assert decision.rollout.wave >= self.rollout.wave
            assert decision.rollout.state in ("running", "stopped", "done")
        self.rollout, self.members = decision.rollout, decision.members
        room = self.rollout.plan.concurrency - len(self._in_flight())
        assert len(decision.offer) <= max(0, room)
        for gateway in decision.offer:
            member = next(m for m in self.members if m.gateway_id == gateway)
            assert before[gateway].state == "pending" and member.wave <= self.rollout.wave
            assert self.facts[gateway].online
            version = self.facts[gateway].wanted + 1
            self._set(gateway, Member(gateway, member.wave, "offered", version, "", self.now))
            self._fact(gateway, wanted=version)
        for gateway in decision.restore:
            assert self.rollout.state == "aborted" and gateway not in self.restored
            self.restored.add(gateway)
            self._fact(gateway, wanted=self.facts[gateway].wanted + 1)

    def _set(self, gateway: str, member: Member) -> None:
        self.members = tuple(member if m.gateway_id == gateway else m for m in self.members)

    def _fact(self, gateway: str, **more: object) -> None:
        old = self.facts[gateway]
        known = {n: getattr(old, n) for n in ("online", "wanted", "version", "state", "detail")}
        self.facts[gateway] = Fact(**{**known, **more})  # type: ignore[arg-type]

    @rule(
        data=st.data(), state=st.sampled_from(["received", "applying", "applied", "failed", "rolled_back", "refused"])
    )
    def says(self, data: st.DataObject, state: str) -> None:
        waiting = [g for g in self._in_flight() if self.facts[g].online]
        if waiting:
            gateway = data.draw(st.sampled_from(waiting))
            self._fact(gateway, version=self.facts[gateway].wanted, state=state, detail=state)

    @rule(data=st.data(), online=st.booleans())
    def link(self, data: st.DataObject, online: bool) -> None:
        self._fact(data.draw(st.sampled_from(sorted(self.facts))), online=online)

    @rule(data=st.data())
    def somebody_wants_something_else(self, data: st.DataObject) -> None:
        gateway = data.draw(st.sampled_from(sorted(self.facts)))
        self._fact(gateway, wanted=self.facts[gateway].wanted + 1)

    @rule(press=st.sampled_from(["pause", "resume", "resume", "abort"]), sure=st.integers(0, 5))
    def operator(self, press: str, sure: int) -> None:
        state = self.rollout.state
        if press == "pause" and state == "running":
            self.rollout = Rollout("paused", self.rollout.wave, self.rollout.wave_at, self.rollout.plan)
        elif press == "resume" and state in ("paused", "stopped"):
            self.rollout = Rollout("running", self.rollout.wave, self.rollout.wave_at, self.rollout.plan)
            self.members = tuple(
                Member(m.gateway_id, m.wave, m.state, m.version, m.detail, m.offered_at, m.state in BAD)
                for m in self.members
            )
        elif press == "abort" and state in ("running", "paused", "stopped") and not sure:
            self.rollout = Rollout("aborted", self.rollout.wave, self.rollout.wave_at, self.rollout.plan)
            self.tick(1)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "members"):
            return
        assert len(self._in_flight()) <= self.rollout.plan.concurrency
        for member in self.members:
            if member.wave > self.rollout.wave and self.rollout.state != "aborted":
                assert member.state == "pending"
            if member.state == "applied":
                assert self.facts[member.gateway_id].version >= member.version
        if self.rollout.state == "done":
            assert not any(m.state == "pending" or m.state in IN_FLIGHT for m in self.members)
        if self.rollout.state == "aborted" and self.restored:
            assert not self._in_flight()


Fleet.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFleet = Fleet.TestCase


def tell(conn: psycopg.Connection[object], gateway: str, state: str, detail: str = "") -> None:
    """The gateway reports on the newest version wanted of it."""
    version = next(s.wanted for s in twin.states(conn, gateway) if s.name == "update")
    twin.heard(conn, gateway, Reported("update", version, state, detail, None, 1))


def gateways(conn: psycopg.Connection[object], count: int, online: bool = True) -> list[str]:
    names = [f"gw-{number}" for number in range(count)]
    for name in names:
        enrol_gateway(conn, name, 3, zh=name, en=name, lon=117.2, lat=31.8)
    conn.execute("update gateway set online = %s", (online,))
    return names


def state_of(conn: psycopg.Connection[object], number: int) -> dict[str, str]:
    return {m.gateway_id: m.state for m in service.members(conn, number)}


def test_a_rollout_to_its_end(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        names = gateways(conn, 4)
        twin.desire(conn, names[0], "update", {"models": [{"name": "nanodet", "version": "1"}]}, "admin")
        plan = Plan(waves=("1", "100%"), success_pct=100, error_pct=0)
        number = service.create(conn, "two", CHANGE, names, plan, "admin", T0)
        service.tick(conn, T0)
        first = [g for g, state in state_of(conn, number).items() if state == "offered"]
        assert len(first) == 1
        service.tick(conn, T0)
        assert list(state_of(conn, number).values()).count("offered") == 1  # the wave is not over
        tell(conn, first[0], "applied")
        service.tick(conn, T0)
        offered = [g for g, state in state_of(conn, number).items() if state == "offered"]
        assert sorted([*offered, *first]) == sorted(names)
        for name in offered:
            tell(conn, name, "applied")
        service.tick(conn, T0)
        row = service.rollout(conn, number)
        assert (row.state, row.counts["applied"], [list(w) for w in row.waves]) == ("done", 4, [[1, 1, 0], [3, 3, 0]])
        document = twin.history(conn, names[0], "update")[0].document
        assert document == {**CHANGE, "models": [{"name": "nanodet", "version": "1"}]}  # what was wanted stays wanted
        audited = [r[0] for r in conn.execute("select action from audit_entry where what = %s", (f"rollout/{number}",))]
        assert audited == ["rollout.create", "rollout.done"]


def test_errors_stop_it_and_abort_restores(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        names = gateways(conn, 6)
        for name in names:
            twin.desire(conn, name, "update", {"agent": {"name": "citybrain", "version": "1.0"}}, "admin")
        plan = Plan(waves=("3", "100%"), error_pct=0, success_pct=100)
        number = service.create(conn, "bad", CHANGE, names, plan, "admin", T0)
        service.tick(conn, T0)
        offered = sorted(g for g, state in state_of(conn, number).items() if state == "offered")
        tell(conn, offered[0], "applied")
        tell(conn, offered[1], "rolled_back", "not healthy")
        service.tick(conn, T0)
        row = service.rollout(conn, number)
        assert row.state == "stopped" and "1 of 3 in error" in row.reason
        service.tick(conn, T0)
        assert list(state_of(conn, number).values()).count("pending") == 3
        with pytest.raises(service.RolloutState409):
            service.pause(conn, number, "admin")
        service.abort(conn, number, "admin", T0, "enough")
        states = state_of(conn, number)
        assert states[offered[0]] == "applied" and states[offered[1]] == "rolled_back"
        assert states[offered[2]] == "cancelled"
        assert twin.history(conn, offered[2], "update")[0].document == {
            "agent": {"name": "citybrain", "version": "1.0"}
        }
        assert twin.history(conn, offered[0], "update")[0].document == CHANGE
        with pytest.raises(service.RolloutState409):
            service.resume(conn, number, "admin")


def test_offline_gateways_wait_and_are_served_when_they_return(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        names = gateways(conn, 3, online=False)
        number = service.create(conn, "x", CHANGE, names, Plan(waves=("1", "100%"), patience_s=600), "admin", T0)
        service.tick(conn, T0)
        row = service.rollout(conn, number)
        assert (row.state, row.counts["pending"], row.reason) == ("running", 3, "waits for gateways that are offline")
        conn.execute("update gateway set online = true")
        service.tick(conn, T0 + timedelta(days=3))
        assert service.rollout(conn, number).counts["offered"] == 1
        late = next(g for g, state in state_of(conn, number).items() if state == "offered")
        service.tick(conn, T0 + timedelta(days=9))
        assert state_of(conn, number)[late] == "timed_out"
        assert service.rollout(conn, number).state == "stopped"
        tell(conn, late, "applied")  # late, but true
        service.tick(conn, T0 + timedelta(days=9))
        assert state_of(conn, number)[late] == "applied"


def test_resume_forgives_the_errors_there_are(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        names = gateways(conn, 2)
        number = service.create(conn, "x", CHANGE, names, Plan(waves=("1", "100%"), error_pct=0), "admin", T0)
        service.tick(conn, T0)
        bad = next(g for g, state in state_of(conn, number).items() if state == "offered")
        tell(conn, bad, "failed", "no room")
        service.tick(conn, T0)
        assert service.rollout(conn, number).state == "stopped"
        service.resume(conn, number, "admin", "seen")
        service.tick(conn, T0)
        row = service.rollout(conn, number)
        assert (row.state, row.wave, row.counts["offered"]) == ("running", 1, 1)


def test_two_processes_do_not_move_it_twice(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as one, psycopg.connect(dsn, autocommit=True) as two:
        number = service.create(one, "x", CHANGE, gateways(one, 2), Plan(waves=("100%",)), "admin", T0)
        with one.transaction():
            one.execute("select pg_advisory_xact_lock(%s)", (service._LOCK,))
            assert service.tick(two, T0) == 0
        assert service.tick(two, T0) == 1
        assert service.rollout(two, number).counts["offered"] == 2


@pytest.mark.parametrize(
    ("change", "names", "why"),
    [
        ({}, ["gw-0"], "names no agent"),
        ({"agent": {"name": "../x", "version": "1"}}, ["gw-0"], "name"),
        ({"agent": {"name": "x", "version": "1"}, "rm": 1}, ["gw-0"], "unknown field"),
        (CHANGE, [], "gateways"),
        (CHANGE, ["gw-0", "gw-9"], "no gateway 'gw-9'"),
        ({"agent": {"name": "citybrain", "version": "9.9"}}, ["gw-0"], "is not released"),
    ],
)
def test_a_rollout_of_nonsense_is_refused(dsn: str, change: dict[str, object], names: list[str], why: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        gateways(conn, 1)
        with pytest.raises(service.RolloutInvalid, match=why):
            service.create(conn, "x", change, names, Plan(), "admin", T0, released=lambda k, n, v: v == "2.0")
        assert service.rollouts(conn) == []
