"""Twin documents in the core: versions that never change, conflicts told, wrong ones refused with their place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection

from cloud.twin import service
from cloud.twin.diff import Change, diff
from cloud.twin.service import TwinConflict, TwinInvalid, TwinNotFound
from protocols.uplink.batch import Reported
from tests.cloud_ingest.site import enrol

NOW_MS = 1_772_409_600_000
GAS = {
    "id": "gas",
    "kind": "modbus-rtu",
    "port": "/dev/ttyS1",
    "device": [{"id": "gas-1", "type": "gas/combustible", "unit": 11}],
}


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection[Any]]:
    enrol(dsn, ("gw-1", 3))
    with psycopg.connect(dsn, autocommit=True) as found:
        yield found


def told(conn: Connection[Any], version: int, state: str, document: dict[str, Any] | None = None) -> service.TwinState:
    service.heard(conn, "gw-1", Reported("config", version, state, "", document, NOW_MS))
    return service.states(conn, "gw-1")[0]


def test_versions_follow_each_other_and_rolling_back_is_a_new_one(conn: Connection[Any]) -> None:
    first, second = {"connector": [GAS]}, {"connector": [{**GAS, "baud": 4800}]}
    assert service.desire(conn, "gw-1", "config", first, "li") == 1
    assert service.desire(conn, "gw-1", "config", second, "li", "slower line", based_on=1) == 2
    with pytest.raises(TwinConflict, match="version 2"):
        service.desire(conn, "gw-1", "config", first, "wang", based_on=1)
    assert service.roll_back(conn, "gw-1", "config", 1, "wang") == 3
    assert [(v.version, v.author) for v in service.history(conn, "gw-1", "config")] == [
        (3, "wang"),
        (2, "li"),
        (1, "li"),
    ]
    assert service.version(conn, "gw-1", "config", 3).document == first
    with pytest.raises(TwinNotFound):
        service.roll_back(conn, "gw-1", "config", 9, "wang")
    assert [row[0] for row in conn.execute("select action from audit_entry")] == ["twin.desire"] * 3


def test_the_state_is_what_the_gateway_said_of_the_newest_it_knows(conn: Connection[Any]) -> None:
    service.desire(conn, "gw-1", "config", {}, "li")
    assert service.states(conn, "gw-1")[0].state == "pending"
    assert told(conn, 1, "applying").state == "applying"
    settled = told(conn, 1, "applied", {"place": []})
    assert settled.settled and settled.document == {"place": []}
    service.desire(conn, "gw-1", "config", {"connector": [GAS]}, "li")
    pending = told(conn, 1, "applied")  # late news of the old one
    assert (pending.state, pending.wanted, pending.version, pending.settled) == ("pending", 2, 1, False)
    refused = told(conn, 2, "refused")
    assert not refused.settled and refused.document == {"place": []}  # what is in force has not changed
    assert told(conn, 99, "applied").version == 2  # nobody wanted that one


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"gateway": {"id": "x"}}, ""),
        ({"connector": [{**GAS, "baud": "fast"}]}, "/connector/0"),
        ({"outbox": {"max_mb": 0}}, "/outbox/max_mb"),
        ({"place": [{"device": "d", "lon": 200, "lat": 3}]}, "/place/0/lon"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_place(
    conn: Connection[Any], document: dict[str, Any], path: str
) -> None:
    with pytest.raises(TwinInvalid) as caught:
        service.desire(conn, "gw-1", "config", document, "li")
    assert caught.value.path.startswith(path) and not service.history(conn, "gw-1", "config")


@pytest.mark.parametrize(
    ("gateway", "name", "document", "error"),
    [
        ("gw-1", "colour", {}, TwinInvalid),
        ("gw-9", "config", {}, TwinNotFound),
        ("gw-1", "config", {"report": [{"device": "x" * 300_000}]}, TwinInvalid),
        ("gw-1", "config", {"report": [{"device": "a\u0000"}]}, TwinInvalid),
    ],
)
def test_what_cannot_be_wanted_is_refused(
    conn: Connection[Any], gateway: str, name: str, document: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        service.desire(conn, gateway, name, document, "li")


def test_a_change_is_shown_at_its_place_and_lists_are_matched_by_name() -> None:
    before = {"connector": [{"id": "a", "port": "x"}, {"id": "b", "port": "y"}], "outbox": {"max_mb": 1}}
    after = {"connector": [{"id": "b", "port": "z"}, {"id": "a", "port": "x"}], "place": [1, 2]}
    assert diff(before, after) == [
        Change("/connector/b/port", "changed", "y", "z"),
        Change("/outbox", "removed", {"max_mb": 1}, None),
        Change("/place", "added", None, [1, 2]),
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab/~", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=8,
)
TABLES = st.dictionaries(st.text("abc/~", max_size=3), VALUES, max_size=4)


@given(TABLES, TABLES)
def test_no_change_is_shown_exactly_when_there_is_none(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert diff(before, copy.deepcopy(before)) == []
    assert bool(diff(before, after)) == (repr(_plain(before)) != repr(_plain(after)))
    assert len({change.path for change in diff(before, after)}) == len(diff(before, after))


def _plain(value: Any) -> Any:
    """With keys in order, so that equal tables read the same and ``True`` is not 1."""
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    return [_plain(item) for item in value] if isinstance(value, list) else value
