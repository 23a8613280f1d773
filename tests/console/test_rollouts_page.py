"""Updates at the console: how a rollout stands, pausing it, going on, giving it up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from cloud.auth import passwords
from cloud.updates import service
from cloud.updates.waves import Plan
from tests.console.conftest import Browser, Console

PASSWORD = "Dongpu-reservoir-8842"
GATEWAY = "gw-baohe-01"


@pytest.fixture(scope="module", autouse=True)
def rollout(console: Console) -> Iterator[None]:
    with console.db() as conn:
        for name, role in (("何平", "viewer"), ("许岚", "admin")):
            conn.execute(
                "insert into operator (name, password_hash, role, must_change) values (%s, %s, %s, false)",
                (name, passwords.hashed(PASSWORD), role),
            )
        change = {"agent": {"name": "citybrain", "version": "2.0"}}
        service.create(conn, "<b>网关程序 2.0</b>", change, [GATEWAY], Plan(), "许岚", datetime.now(UTC))
    yield
    with console.db() as conn:  # other files count what the city has
        conn.execute("delete from rollout_gateway")
        conn.execute("delete from rollout")
        conn.execute("delete from operator where name in ('何平', '许岚')")


def test_a_rollout_is_paused_resumed_and_given_up(console: Console, browser: Browser) -> None:
    browser.log_in("许岚", PASSWORD)
    browser.settled()
    browser.open("/rollouts")
    browser.see("td", "<b>网关程序 2.0</b>")  # a title is text
    browser.see("td", "待下发")
    browser.click("[data-act=pause]")
    browser.see(".cb-dialog", "暂停任务")
    browser.click("[data-ok]")
    browser.see("td", "已暂停")
    browser.click("[data-act=resume]")
    browser.click("[data-ok]")
    browser.see("td", "进行中")
    browser.click("[data-act=abort]")
    browser.fill(".cb-dialog textarea", "先不发")
    browser.click("[data-ok]")
    browser.see("td", "已中止")
    browser.see("td", "已取消")
    with console.db() as conn:
        rows = conn.execute("select who, action from audit_entry where what like 'rollout/%' order by entry_id")
        found = [(who, action) for who, action in rows.fetchall()]
    assert found == [("许岚", f"rollout.{what}") for what in ("create", "pause", "resume", "abort")]
    assert not browser.complaints()


def test_others_do_not_see_it(browser: Browser) -> None:
    browser.log_in("何平", PASSWORD)
    browser.settled()
    assert not [e for e in browser.all("nav a") if e.get_attribute("href").endswith("/rollouts")]
    browser.open("/rollouts")
    browser.see(".cb-empty", "只有管理员可以管理更新")
