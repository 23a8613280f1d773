"""Orders in the core: one an idempotency key, two persons for the street, states that say only what is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from cloud.commands import service
from cloud.commands.service import CommandRefused, CommandRow
from protocols.uplink.batch import CommandOutcome
from tests.cloud_ingest.site import enrol

NOW_MS = 1_772_409_600_000


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection[Any]]:
    enrol(dsn, ("gw-1", 3), ("gw-2", 4))
    with psycopg.connect(dsn, autocommit=True) as found:
        for device, gateway, kind in (
            ("box-1", "gw-1", "io/relay_box_8"),
            ("cam", "gw-1", ""),
        ):
            found.execute(
                "insert into device (device_id, gateway_id, device_type) values (%s, %s, %s)", (device, gateway, kind)
            )
        yield found


def ask(conn: Connection[Any], **changes: Any) -> CommandRow:
    fields: dict[str, Any] = {"device_id": "box-1", "name": "set_relay_1", "arguments": {"on": True}, "who": "li"}
    fields |= changes
    return service.request(
        conn, fields.pop("device_id"), fields.pop("name"), fields.pop("arguments"), fields.pop("who"),
        now_ms=NOW_MS, **fields,
    )  # fmt: skip


def told(conn: Connection[Any], row: CommandRow, state: str, code: str = "", gateway: str = "gw-1") -> CommandRow:
    service.heard(conn, gateway, CommandOutcome(row.command_id, state, code, "", {}, NOW_MS))
    return service.get(conn, row.command_id)


def entries(conn: Connection[Any]) -> list[tuple[str, str]]:
    return conn.execute("select who, action from audit_entry order by entry_id").fetchall()


def test_a_dangerous_order_waits_for_somebody_else(conn: Connection[Any]) -> None:
    row = ask(conn)
    assert row.state == "waiting" and row.dangerous
    with pytest.raises(CommandRefused, match="another person"):
        service.approve(conn, row.command_id, "li", now_ms=NOW_MS)
    assert service.approve(conn, row.command_id, "wang", now_ms=NOW_MS).state == "queued"
    with pytest.raises(CommandRefused):
        service.approve(conn, row.command_id, "zhao", now_ms=NOW_MS)
    assert entries(conn) == [("li", "command.request"), ("wang", "command.approve")]


def test_consent_after_its_time_is_worth_nothing(conn: Connection[Any]) -> None:
    row = ask(conn, life_s=10)
    with pytest.raises(CommandRefused, match="over"):
        service.approve(conn, row.command_id, "wang", now_ms=NOW_MS + 10_000)
    assert service.expire(conn, NOW_MS + 10_000) == 1
    assert (service.get(conn, row.command_id).state, service.get(conn, row.command_id).code) == ("expired", "not_sent")


def test_one_key_is_one_order(conn: Connection[Any]) -> None:
    first = ask(conn, idempotency_key="k")
    assert ask(conn, idempotency_key="k") == first
    assert ask(conn, idempotency_key="k", who="wang").command_id != first.command_id
    with pytest.raises(CommandRefused, match="another order"):
        ask(conn, idempotency_key="k", device_id="gw-1", name="doctor", arguments={})
    assert len(service.recent(conn, device_id="box-1")) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device_id": "nobody"}, "unknown_device"),
        ({"device_id": "cam"}, "unknown_command"),
        ({"name": "explode"}, "unknown_command"),
        ({"device_id": "gw-1", "name": "explode"}, "unknown_command"),
        ({"arguments": {"colour": "red"}}, "argument"),
        ({"arguments": {"x": "y" * 20_000}}, "argument"),
        ({"life_s": 1}, "life"),
        ({"life_s": 10**9}, "life"),
        ({"idempotency_key": ""}, "key"),
        ({"device_id": "x\u0000y"}, "argument"),
    ],
)
def test_what_cannot_be_ordered_is_refused_with_its_reason(
    conn: Connection[Any], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CommandRefused) as caught:
        ask(conn, **changes)
    assert caught.value.reason == reason and not service.recent(conn)


def test_what_may_have_happened_is_never_called_expired(conn: Connection[Any]) -> None:
    row = ask(conn, device_id="gw-1", name="doctor", arguments={})
    conn.execute("update command set tried_at = now() where command_id = %s", (row.command_id,))
    assert service.expire(conn, NOW_MS + 3_600_000) == 0
    with pytest.raises(CommandRefused, match="may have been carried out"):
        service.withdraw(conn, row.command_id, "li")
    assert service.expire(conn, NOW_MS + 3 * 86_400_000) == 1
    after = service.get(conn, row.command_id)
    assert (after.state, after.code) == ("unknown", "no_word")
    assert told(conn, row, "done").state == "done"  # its word comes late, and counts


def test_a_gateways_word_moves_forward_only(conn: Connection[Any]) -> None:
    row = ask(conn, device_id="gw-1", name="doctor", arguments={})
    assert told(conn, row, "done", gateway="gw-2").state == "queued"  # another gateway has no say
    assert told(conn, row, "received").state == "received"
    assert told(conn, row, "done").state == "done"
    assert told(conn, row, "received").state == "done"
    assert told(conn, row, "failed").state == "done"
    after = told(conn, row, "done")
    assert after.received_at is not None and after.ended_at is not None
    assert entries(conn)[-1] == ("gateway:gw-1", "command.done") and len(entries(conn)) == 2


def test_what_has_not_left_can_be_taken_back(conn: Connection[Any]) -> None:
    row = ask(conn)
    after = service.withdraw(conn, row.command_id, "wang", reason="wrong valve")
    assert (after.state, after.code) == ("refused", "withdrawn") and "wrong valve" in after.detail
    with pytest.raises(service.CommandNotFound):
        service.get(conn, "none")


def test_orders_do_not_pile_up_without_end(conn: Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_OPEN", 3)
    for _ in range(3):
        ask(conn)
    with pytest.raises(CommandRefused) as caught:
        ask(conn)
    assert caught.value.reason == "too_many"
