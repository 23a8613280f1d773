"""The auditor looks up a deed; the administrator brings a table in and tags what it brought."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.audit import Entry, record
from cloud.auth import passwords
from tests.console.conftest import Browser, Console

PASSWORD = "Shuyuan-bridge-4410"


@pytest.fixture(scope="module", autouse=True)
def people(console: Console) -> Iterator[None]:
    with console.db() as conn:
        for name, role in (("周审", "auditor"), ("冯管", "admin")):
            conn.execute(
                "insert into operator (name, password_hash, role, must_change) values (%s, %s, %s, false)",
                (name, passwords.hashed(PASSWORD), role),
            )
        record(conn, Entry("<b>王敏</b>", "evidence.open", "evidence/abc", {"case": 7, "reason": "核查 <script>"}))
    yield
    with console.db() as conn:  # other files count what the city has
        conn.execute("delete from gateway where gateway_id like 'gw-page-%'")
        conn.execute("delete from operator where name in ('周审', '冯管')")


def test_the_auditor_finds_the_deed(browser: Browser) -> None:
    browser.log_in("周审", PASSWORD)
    browser.settled()
    browser.open("/audit")
    browser.see("h1", "审计日志")
    browser.see("td", "evidence.open")
    browser.see("td", "<b>王敏</b>")  # as text
    browser.see("[data-sealed]", "已封存并签名")
    browser.see(".cb-state.online", "已签名")
    browser.fill(".cb-search input", "nobody")
    browser.see(".cb-empty", "没有符合条件的记录")
    browser.open("/fleet")
    browser.see(".cb-empty", "批量管理需要相应权限")
    assert browser.complaints() == []


def test_a_table_comes_in_after_a_look_at_it(console: Console, browser: Browser, tmp_path: Path) -> None:
    browser.log_in("冯管", PASSWORD)
    browser.settled()
    browser.open("/fleet")
    browser.see("[data-picked]", "选中")
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("网关编号,经度\nGW,117\n", encoding="gbk")
    browser.see("[data-import]").send_keys(str(wrong))
    browser.see("[data-found] li", "gateway_id")
    assert not browser.all("[data-write]")
    good = tmp_path / "good.csv"
    good.write_text("网关编号,中文名\ngw-page-1,一号\ngw-page-2,二号\n", encoding="gbk")
    browser.see("[data-import]").send_keys(str(good))
    browser.see("[data-found]", "新增 2")
    with console.db() as conn:
        assert conn.execute("select 1 from gateway where gateway_id = 'gw-page-1'").fetchone() is None
    browser.click("[data-write]")
    browser.see("[data-found]", "已写入")
    browser.fill(".cb-search input", "id:gw-page-*")
    browser.see("[data-picked]", "选中 2 个")
    browser.click("[data-bulk=tag]")
    browser.fill(".cb-dialog textarea", "夜间")
    browser.click("[data-ok]")
    browser.see("td", "夜间")
    out = browser.see("[data-out=csv]").get_attribute("href")
    assert out is not None and "query=id%3Agw-page-%2A" in out
    assert browser.complaints() == []
