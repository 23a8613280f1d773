"""The rule of places: Casbin's answer, the SQL filter's answer and the plain sentence are one and the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import psycopg
import pytest
from fastapi.routing import APIRoute
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.api.deps import THINGS, May, anybody, logged_in
from cloud.app import API, create_app
from cloud.auth import policy, sight
from cloud.auth.operator import ROLES, Operator, Role
from cloud.auth.people import load_rules
from cloud.auth.rules import CITY, Grant, Rules, Scope, within
from cloud.config import Settings
from cloud.query.pool import Pool
from cloud.query.sight import Sight
from tests.fixtures.postgres import Postgres, new_database

NAMES = st.sampled_from(["*", "", "housing", "street", "baohe", "fire"])
PLACES = st.builds(
    Scope,
    st.frozensets(st.sampled_from(["housing", "street", "fire"]), max_size=2),
    st.sampled_from(["", "baohe", "street"]),
    st.frozensets(st.sampled_from(["housing", "fire"]), max_size=1),
)


@pytest.fixture(scope="module")
def db(postgres: Postgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(new_database(postgres), autocommit=True) as conn:
        yield conn


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES), max_size=3), PLACES)
def test_the_database_filters_as_the_rules_decide(
    db: psycopg.Connection[Any], pairs: list[tuple[str, str]], place: Scope
) -> None:
    wanted = any(
        (department == "*" or department in place.departments)
        and (district == "*" or (district != "" and district == place.district))
        for department, district in pairs
    )
    assert any(within(d, a, place.departments, place.district) for d, a in pairs) == wanted
    seen = Sight(frozenset(pairs))
    if seen.everything:
        assert wanted and seen.where("case", "x") == "true"
        return
    row = db.execute(
        "select within_grants(%(sight_departments)s::text[], %(sight_districts)s::text[], %(d)s::text[], %(a)s)",
        seen.params | {"d": sorted(place.departments), "a": place.district},
    ).fetchone()
    assert row == (wanted,)


def operator(*grants: Grant, rules: Rules, only: frozenset[str] | None = None) -> Operator:
    first, *more = grants
    return Operator(
        "x",
        cast(Role, first.role),
        "zh-CN",
        False,
        first.department,
        first.district,
        tuple(more),
        rules=rules,
        only=only,
    )


@pytest.fixture(scope="module")
def built_in(postgres: Postgres) -> Rules:
    async def read() -> Rules:
        pool = Pool(new_database(postgres), 1)
        async with pool.connection() as conn:
            rules = await load_rules(conn, 1)
        await pool.close()
        return rules

    return asyncio.run(read())


def test_the_first_three_roles_may_what_they_always_might(built_in: Rules) -> None:
    least = {
        "view": "viewer", "twin.read": "viewer", "ledger.read": "viewer", "token.manage": "viewer",
        "alarm.acknowledge": "operator", "case.act": "operator", "evidence.open": "operator",
        "command.send": "operator", "command.approve": "operator", "diagnostics.pull": "operator",
    }  # fmt: skip
    rank = {"viewer": 0, "operator": 1, "admin": 2}
    for role in rank:
        for action in policy.ACTIONS:
            person = operator(Grant(role), rules=built_in)
            assert policy.allowed(person, action) == (rank[role] >= rank[least.get(action, "admin")]), (role, action)


def test_every_line_of_the_tables_is_an_action_and_a_role(built_in: Rules) -> None:
    assert {role for role, _ in built_in.lines} == set(ROLES)
    assert {action for _, action in built_in.lines} <= {*policy.ACTIONS, "*"}


def test_support_sees_and_does_not_act(built_in: Rules) -> None:
    case = Scope(frozenset({"housing"}), "baohe", frozenset({"street"}))
    helper = operator(Grant("clerk", "street"), rules=built_in)
    assert policy.allowed(helper, "view", case) and not policy.allowed(helper, "case.act", case)
    lead = operator(Grant("clerk", "housing", "baohe"), rules=built_in)
    assert policy.allowed(lead, "case.act", case)
    assert not policy.allowed(lead, "case.act", Scope(frozenset({"housing"}), "shushan"))


def test_what_concerns_the_city_needs_a_role_for_the_city(built_in: Rules) -> None:
    local = operator(Grant("admin", "*", "baohe"), Grant("viewer"), rules=built_in)
    here = Scope(frozenset(), "baohe")
    for action in policy.CITY_WIDE:
        assert not policy.allowed(local, action, here) and not policy.anywhere(local, action)
    assert policy.allowed(local, "gateway.revoke", here) and not policy.allowed(local, "gateway.revoke", CITY)
    assert policy.anywhere(local, "gateway.revoke") and policy.allowed(local, "token.manage")


def test_grants_add_up_and_do_not_mix(built_in: Rules) -> None:
    """A clerk here and a viewer there is not a clerk there."""
    two = operator(Grant("clerk", "housing", "baohe"), Grant("viewer", "*", "shushan"), rules=built_in)
    there = Scope(frozenset({"housing"}), "shushan")
    assert policy.allowed(two, "view", there) and not policy.allowed(two, "case.act", there)
    assert sight.of(two).pairs == {("housing", "baohe"), ("*", "shushan")}
    assert sight.of(two, "case.act").pairs == {("housing", "baohe")}


def test_a_token_narrows(built_in: Rules) -> None:
    token = operator(Grant("admin"), rules=built_in, only=frozenset({"view"}))
    assert [a for a in policy.ACTIONS if policy.allowed(token, a)] == ["view"]
    assert sight.of(token, "case.act").pairs == frozenset()
    above = operator(Grant("viewer"), rules=built_in, only=frozenset({"view", "case.act"}))
    assert not policy.anywhere(above, "case.act")


def test_nothing_is_allowed_before_the_tables_were_read() -> None:
    person = operator(Grant("admin"), rules=Rules(()))
    assert not any(policy.anywhere(person, action) for action in policy.ACTIONS)


#: Open on purpose: each checks for itself, or tells nothing.
UNGUARDED = {
    "POST /login", "GET /health",
    # A gateway that enrols has no log-in: claim code or certificate speak for it.
    "GET /enrol/ca", "POST /enrol", "POST /enrol/renew",
}  # fmt: skip


def _checks(route: APIRoute) -> list[Any]:
    found, todo = [], list(route.dependant.dependencies)
    while todo:
        one = todo.pop()
        found.append(one.call)
        todo += one.dependencies
    return found


def _routes(app: Any) -> list[APIRoute]:
    """All routes, those of included routers too, however FastAPI nests them."""
    out, todo = [], [("", r) for r in app.routes]
    while todo:
        prefix, route = todo.pop()
        if isinstance(route, APIRoute):
            out.append((prefix, route))
        for inner in getattr(getattr(route, "original_router", None), "routes", ()):
            todo.append((prefix + str(getattr(route, "prefix", "")), inner))
    return [r for _, r in out]


def test_every_route_names_its_action(dsn: str, tmp_path: Any) -> None:
    app = create_app(Settings(dsn=dsn, state_dir=str(tmp_path), console=False))
    described = {
        f"{method.upper()} {path.removeprefix(API)}" for path, item in app.openapi()["paths"].items() for method in item
    }
    named: dict[str, str] = {}
    for route in _routes(app):
        for method in set(route.methods or ()) - {"HEAD"}:
            checks = _checks(route)
            action = next((c.action for c in checks if isinstance(c, May)), "")
            own = "one's own account" if logged_in in checks or anybody in checks else ""
            path = route.path.removeprefix(API).replace(":path}", "}")
            named[f"{method} {path}"] = action or own
            if action:
                assert action in policy.ACTIONS
            for name in route.param_convertors:
                # A path that names a thing by another word would not be looked up, and so not be scoped.
                assert not (name.endswith("_id") and name not in THINGS and name not in NOT_PLACED), (route.path, name)
    missing = {route for route in described if not named.get(route)} - UNGUARDED
    assert not missing, f"open to everybody: {sorted(missing)}"
    assert described <= set(named)


#: Ids of what belongs to the whole city or to the caller himself.
NOT_PLACED = {"session_id", "token_id", "entry_id"}
