"""Orders and twin documents over the API: consent of a second person, conflicts, places, and refusals that say why."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.cloud_api.conftest import Core, add_operator, client_of

BOX = "orders-box"
GATEWAY = "orders-gw"


@pytest.fixture(scope="module")
def people(core: Core) -> Iterator[dict[str, httpx.Client]]:
    with core.db() as conn:
        conn.execute("insert into gateway (gateway_id, shard) values (%s, 9) on conflict do nothing", (GATEWAY,))
        conn.execute(
            "insert into device (device_id, gateway_id, device_type) values (%s, %s, 'io/relay_box_8')"
            " on conflict do nothing",
            (BOX, GATEWAY),
        )
    roles = {"o-li": "operator", "o-wang": "operator", "o-see": "viewer", "o-boss": "admin"}
    for name, role in roles.items():
        add_operator(core, name, role)
    yield {name: client_of(core, name) for name in roles}
    with core.db() as conn:  # other files count what the city has
        for table in ("command", "twin_reported", "twin_desired", "device", "gateway"):
            conn.execute(f"delete from {table} where gateway_id = %s".encode(), (GATEWAY,))


def ask(client: httpx.Client, **changes: object) -> httpx.Response:
    body = {"device": BOX, "name": "set_relay_1", "arguments": {"on": True}} | changes
    return client.post("/commands", json=body)


def test_a_dangerous_order_needs_two(people: dict[str, httpx.Client]) -> None:
    asked = ask(people["o-li"], idempotency_key="k1")
    assert asked.status_code == 202 and asked.json()["state"] == "waiting"
    number = asked.json()["command_id"]
    assert ask(people["o-li"], idempotency_key="k1").json()["command_id"] == number
    own = people["o-li"].post(f"/commands/{number}/approve")
    assert (own.status_code, own.json()["reason"]) == (409, "second_person")
    assert people["o-see"].post(f"/commands/{number}/approve").status_code == 403
    agreed = people["o-wang"].post(f"/commands/{number}/approve")
    assert (agreed.status_code, agreed.json()["state"], agreed.json()["approved_by"]) == (200, "queued", "o-wang")
    back = people["o-li"].post(f"/commands/{number}/withdraw", json={"reason": "wrong box"})
    assert (back.status_code, back.json()["state"]) == (200, "refused")
    assert people["o-li"].post(f"/commands/{number}/withdraw", json={}).status_code == 409
    listed = people["o-see"].get("/commands", params={"device": BOX}).json()
    assert [one["command_id"] for one in listed] == [number]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"device": "nobody"}, 404),
        ({"name": "explode"}, 422),
        ({"arguments": {"on": "yes"}}, 422),
        ({"arguments": {"on": {"deep": 1}}}, 422),
        ({"arguments": {"on": "\u0000"}}, 422),
        ({"device": "a\u0000b"}, 404),
        ({"life_s": 0}, 422),
        ({"life_s": 10**12}, 422),
        ({"more": 1}, 422),
    ],
)
def test_what_cannot_be_ordered_is_refused(
    people: dict[str, httpx.Client], changes: dict[str, object], status: int
) -> None:
    assert ask(people["o-li"], **changes).status_code == status


def test_viewers_order_nothing(people: dict[str, httpx.Client]) -> None:
    assert ask(people["o-see"]).status_code == 403
    assert people["o-see"].get("/commands/none").status_code == 404


def test_documents_have_versions_and_conflicts_are_told(people: dict[str, httpx.Client]) -> None:
    boss, url = people["o-boss"], f"/gateways/{GATEWAY}/twin"
    first = boss.post(f"{url}/config", json={"document": {"outbox": {"max_mb": 64}}, "comment": "small disk"})
    assert (first.status_code, first.json()["version"], first.json()["author"]) == (202, 1, "o-boss")
    assert boss.post(f"{url}/config", json={"document": {}, "based_on": 0}).status_code == 409
    second = boss.post(f"{url}/config", json={"document": {"outbox": {"max_mb": 128}}, "based_on": 1})
    assert second.json()["version"] == 2
    changes = boss.get(f"{url}/config/diff", params={"before": 1, "after": 2}).json()
    assert changes == [{"path": "/outbox/max_mb", "kind": "changed", "before": 64, "after": 128}]
    assert boss.post(f"{url}/config/roll-back", json={"to_version": 1}).json()["document"] == {"outbox": {"max_mb": 64}}
    assert [one["version"] for one in boss.get(f"{url}/config/versions").json()] == [3, 2, 1]
    (state,) = people["o-see"].get(url).json()
    assert (state["wanted"], state["version"], state["state"]) == (3, 0, "pending")
    assert people["o-see"].post(f"{url}/config", json={"document": {}}).status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{GATEWAY}/twin/config", {"document": {"mqtt": {"url": "mqtt://x"}}}, 422),
        (f"{GATEWAY}/twin/config", {"document": []}, 422),
        (f"{GATEWAY}/twin/colour", {"document": {}}, 422),
        ("no-such-gw/twin/config", {"document": {}}, 404),
        (f"{GATEWAY}/twin/config/roll-back", {"to_version": 99}, 404),
        (f"{GATEWAY}/twin/config/roll-back", {"to_version": 10**30}, 422),
    ],
)
def test_documents_that_cannot_be_are_refused(
    people: dict[str, httpx.Client], path: str, body: dict[str, object], status: int
) -> None:
    answer = people["o-boss"].post(f"/gateways/{path}", json=body)
    assert answer.status_code == status
    if status == 422 and "mqtt" in str(body):
        assert "path" in answer.json()
