"""A new gateway gets its label, a stolen one is shut out, a meter nobody entered is accepted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud.auth import passwords
from cloud.identity import admission
from tests.console.conftest import Browser, Console

PASSWORD = "Chaohu-ferry-8812"
NEW, NEAR, OLD = "gw-page-01", "gw-page-02", "gw-baohe-01"


@pytest.fixture(scope="module", autouse=True)
def people(console: Console) -> Iterator[None]:
    with console.db() as conn:
        for name, role, district in (("钱立", "viewer", "*"), ("孙岚", "admin", "*"), ("郑川", "admin", "baohe")):
            conn.execute(
                "insert into operator (name, password_hash, role, district, must_change)"
                " values (%s, %s, %s, %s, false)",
                (name, passwords.hashed(PASSWORD), role, district),
            )
        admission.wait_for(conn, OLD, "page-meter", device_type="meter/x", source="series")
        admission.wait_for(conn, OLD, "page-junk", source="unlisted", detail="dialled in at dust")
    yield
    with console.db() as conn:  # other files count what the city has
        conn.execute("delete from device_pending")
        conn.execute("delete from device where device_id = 'page-meter'")
        for table in ("gateway_claim", "gateway_access", "gateway"):
            conn.execute(f"delete from {table} where gateway_id in (%s, %s)".encode(), (NEW, NEAR))
        conn.execute("delete from operator where name in ('钱立', '孙岚', '郑川')")


def test_claim_accept_reject_revoke(console: Console, browser: Browser) -> None:
    browser.log_in("孙岚", PASSWORD)
    browser.settled()
    browser.open("/identity")
    browser.see("td", "page-meter")
    browser.click(f"[data-id='{OLD}/page-meter'] [data-act=accept]")
    browser.see(".cb-toast", "已接受")
    browser.click(f"[data-id='{OLD}/page-junk'] [data-act=reject]")
    browser.see(".cb-empty", "没有待确认的设备")
    browser.click("[data-claim]")
    browser.fill(".cb-dialog textarea", "Not A Name")
    browser.click("[data-ok]")
    browser.see(".cb-toast .bad", "小写字母")
    browser.click("[data-claim]")
    browser.fill(".cb-dialog textarea", NEW)
    browser.click("[data-ok]")
    browser.see("[data-label]", "注册码")
    assert browser.all("[data-label] svg path")
    browser.see(f"[data-id='{NEW}']", "待注册")
    browser.click(f"[data-id='{NEW}'] [data-act=accept]")
    browser.see(f"[data-id='{NEW}']", "改为自动准入")
    browser.click(f"[data-id='{NEW}'] [data-act=revoke]")
    browser.fill(".cb-dialog textarea", "箱体被盗")
    browser.click("[data-ok]")
    browser.see(f"[data-id='{NEW}']", "已吊销")
    with console.db() as conn:
        said = conn.execute(
            "select action from audit_entry where who = '孙岚' and (action like 'gateway.%' or action like 'device.%')"
            " order by entry_id"
        ).fetchall()
        owner = conn.execute("select gateway_id from device where device_id = 'page-meter'").fetchone()
    assert [row[0] for row in said] == [
        "device.accepted", "device.rejected", "gateway.claim", "gateway.admission", "gateway.revoke",
    ]  # fmt: skip
    assert owner == (OLD,)
    assert browser.complaints() == []


def test_a_viewer_is_offered_nothing(browser: Browser) -> None:
    browser.log_in("钱立", PASSWORD)
    browser.settled()
    browser.open("/identity")
    browser.see("td", OLD)
    assert not browser.all("[data-claim]")
    assert not browser.all("[data-act]")


def test_who_is_of_one_district_claims_gateways_there(console: Console, browser: Browser) -> None:
    browser.log_in("郑川", PASSWORD)
    browser.settled()
    browser.open("/identity")
    browser.click("[data-claim]")
    browser.fill(".cb-dialog textarea", NEAR)
    browser.click("[data-ok]")
    browser.see("[data-label]", "注册码")
    with console.db() as conn:
        assert conn.execute("select district from gateway where gateway_id = %s", (NEAR,)).fetchone() == ("baohe",)
