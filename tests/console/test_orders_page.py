"""Two people and one relay: asked for on the device's page, agreed to on the orders' page; a document goes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud.auth import passwords
from cloud.commands import service as commands
from cloud.twin import service as twin
from protocols.uplink.batch import CommandOutcome, Reported
from tests.console.conftest import Browser, Console

PASSWORD = "Nanfei-harbour-3105"
BOX, GATEWAY = "page-box", "gw-baohe-01"


@pytest.fixture(scope="module", autouse=True)
def people(console: Console) -> Iterator[None]:
    with console.db() as conn:
        for name, role in (("吴静", "operator"), ("郑涛", "admin")):
            conn.execute(
                "insert into operator (name, password_hash, role, must_change) values (%s, %s, %s, false)",
                (name, passwords.hashed(PASSWORD), role),
            )
        conn.execute(
            "insert into device (device_id, gateway_id, device_type, name_zh)"
            " values (%s, %s, 'io/relay_box_8', '水泵箱')",
            (BOX, GATEWAY),
        )
    yield
    with console.db() as conn:  # other files count what the city has
        for table in ("command", "twin_reported", "twin_desired"):
            conn.execute(f"delete from {table} where gateway_id = %s".encode(), (GATEWAY,))
        conn.execute("delete from device where device_id = %s", (BOX,))
        conn.execute("delete from operator where name in ('吴静', '郑涛')")


def test_a_relay_is_switched_by_two(console: Console, browser: Browser) -> None:
    browser.log_in("吴静", PASSWORD)
    browser.settled()
    browser.open(f"/device?id={BOX}")
    browser.click("[data-order=set_relay_1]")
    browser.see(".cb-dialog", "第二人")
    browser.fill(".cb-dialog textarea", "on=maybe")
    browser.click("[data-ok]")
    browser.see(".cb-toast .bad", "true or false")
    browser.click("[data-order=set_relay_1]")
    browser.fill(".cb-dialog textarea", "on=true")
    browser.click("[data-ok]")
    browser.see(".cb-toast", "已登记")
    browser.open("/orders")
    browser.see("td", "继电器1")
    browser.see("td", "待第二人同意")
    assert not browser.all("[data-act=approve]")  # not by the one who asked

    browser.log_in("郑涛", PASSWORD)
    browser.settled()
    browser.open("/orders")
    browser.click("[data-act=approve]")
    browser.see(".cb-dialog", "on = true · 吴静 申请")  # read once more before it moves
    browser.click("[data-ok].danger")
    browser.see("td", "排队")
    browser.see("td", "郑涛 已同意")
    with console.db() as conn:
        (row,) = commands.recent(conn, device_id=BOX)
        assert row.state == "queued"
        done = CommandOutcome(row.command_id, "done", "", "", {"relay_1": 1.0}, 0)
        commands.heard(conn, GATEWAY, done)
    browser.see("td", "已执行并回读")
    browser.see("td", "relay_1 = 1.0")


def test_a_configuration_shows_its_versions_and_goes_back(console: Console, browser: Browser) -> None:
    with console.db() as conn:
        for size in (64, 128):
            twin.desire(conn, GATEWAY, "config", {"outbox": {"max_mb": size}}, "郑涛", f"{size} MB")
        twin.heard(conn, GATEWAY, Reported("config", 2, "rolled_back", "no answer of the core within 120 s", None, 0))
    browser.open("/gateways")
    browser.click(f"[data-gateway={GATEWAY}]")
    browser.see("header", "网关已自动回滚")
    browser.see("header", "期望版本 2 · 实际版本 待确认")
    browser.see("td", "/outbox/max_mb")
    browser.click("[data-act=back]")
    browser.see(".cb-dialog", "回滚到版本 1")
    browser.click("[data-ok]")
    browser.see("header", "待网关接收")
    with console.db() as conn:
        assert twin.history(conn, GATEWAY, "config")[0].document == {"outbox": {"max_mb": 64}}
