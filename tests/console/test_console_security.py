"""Accounts in the browser: a second factor from set-up to log-in, a token, and a clerk who sees his own work only."""

from __future__ import annotations

import time

import httpx
import pyotp
import pytest

from cloud.auth import passwords
from tests.cloud_api import city
from tests.console.conftest import Browser, Console

PASSWORD = "Feihe-bridge-5513"


@pytest.fixture(scope="module", autouse=True)
def people(console: Console) -> None:
    with console.db() as conn:
        conn.execute("update gateway set district = split_part(gateway_id, '-', 2)")
        for name, role, department in (
            ("安全员", "operator", "*"), ("住建经办", "clerk", "housing"), ("主管", "admin", "*"),
        ):  # fmt: skip
            conn.execute(
                "insert into operator (name, password_hash, role, department, must_change) "
                "values (%s, %s, %s, %s, false)",
                [name, passwords.hashed(PASSWORD), role, department],
            )


def _code(secret: str, taken: set[str]) -> str:
    """A code not taken yet, of a step within the drift that is forgiven."""
    step = int(time.time()) // 30
    return next(c for s in (step - 1, step, step + 1) if (c := pyotp.TOTP(secret).generate_otp(s)) not in taken)


def test_a_second_factor_from_set_up_to_log_in(browser: Browser) -> None:
    taken: set[str] = set()
    browser.log_in("安全员", PASSWORD)
    browser.settled()
    browser.click("[data-tool=user]")
    browser.click("[data-tool=security]")
    browser.click("[data-setup]")
    browser.see(".cb-qr")
    browser.until(lambda: browser.js("return document.querySelector('.cb-qr').naturalWidth > 50"), "no QR code")
    secret = browser.see("[data-secret]").get_attribute("data-secret")
    assert secret
    browser.fill("input[name=code]", "000000")
    browser.click("button[type=submit]")
    browser.see(".cb-alert", "验证码不正确")
    assert browser.see("[data-secret]").get_attribute("data-secret") == secret  # no need to scan again
    code = _code(secret, taken)
    taken.add(code)
    browser.fill("input[name=code]", code)
    browser.click("button[type=submit]")
    browser.see("h2", "恢复码")
    codes = [e.text for e in browser.all(".cb-codes li")]
    assert len(codes) == 10
    browser.complaints()  # the refused code
    browser.click("button[type=submit]")
    browser.settled()

    browser.log_in("安全员", PASSWORD)
    browser.see("h2", "二次验证")
    browser.open("/alarms")  # no way around it
    browser.see("h2", "登录")
    browser.log_in("安全员", PASSWORD)
    browser.see("h2", "二次验证")
    browser.fill("input[name=code]", code)
    browser.click("button[type=submit]")
    browser.see(".cb-alert", "已用过")
    browser.fill("input[name=code]", codes[0])
    browser.click("button[type=submit]")
    browser.settled()
    browser.open("/security")
    browser.see("[data-factor]", "剩余 9 个恢复码")
    browser.complaints()


def test_a_token_is_shown_once_and_works_until_it_is_revoked(console: Console, browser: Browser) -> None:
    browser.open("/security")
    browser.click("[data-new-token]")
    browser.fill(".cb-dialog textarea", "大屏")
    browser.click("[data-ok]")
    browser.see(".cb-dialog h2", "新令牌")
    token = browser.see(".cb-dialog .cb-secret").text
    assert token.startswith("cbt_")
    browser.js("document.querySelector('.cb-veil').click()")  # a slip of the mouse does not lose it
    browser.see(".cb-dialog .cb-secret", token)
    browser.click("[data-ok]")
    headers = {"authorization": f"Bearer {token}"}
    me = httpx.get(f"{console.url}/api/v1/me", headers=headers).json()
    assert me["actions"] == ["view", "twin.read", "ledger.read"]
    browser.see("td", "大屏")
    assert token not in browser.driver.page_source
    browser.click("[data-act=revoke]")
    browser.see(".cb-dialog h2", "撤销令牌「大屏」")
    browser.click("[data-ok]")
    browser.see(".cb-toast", "已撤销")
    assert httpx.get(f"{console.url}/api/v1/me", headers=headers).status_code == 401
    assert browser.complaints() == []


def test_a_clerk_sees_the_cases_of_his_department(console: Console, browser: Browser) -> None:
    browser.log_in("住建经办", PASSWORD)
    browser.settled()
    browser.open("/cases")
    browser.see("[data-case]")
    with console.db() as conn:
        own, other = city.case_id(conn, "crane-2"), city.case_id(conn, "gas-2")
    assert browser.all(f"[data-case='{own}']") and not browser.all(f"[data-case='{other}']")
    browser.open(f"/cases?id={other}")
    browser.see("[data-case]")
    assert not browser.all(f"[data-case-open='{other}']")
    browser.open("/gateways")
    browser.see(".cb-empty")
    assert not browser.all("[data-gateway]")
    browser.open("/operators")
    browser.see(".cb-empty", "只有管理员")


def test_an_administrator_gives_a_role_for_a_place(console: Console, browser: Browser) -> None:
    browser.log_in("主管", PASSWORD)
    browser.settled()
    browser.open("/operators")
    browser.click("tr[data-id='住建经办']")
    browser.see("[data-operator='住建经办']")
    browser.js(
        "const pick = document.querySelector('aside select:last-of-type'); pick.value = 'shushan';"
        "pick.dispatchEvent(new Event('change'))"
    )
    browser.click("[data-do=save]")
    browser.see(".cb-toast", "已保存")
    browser.see("tr[data-id='住建经办']", "蜀山区")
    browser.click("[data-session] [data-do=end]")
    browser.see(".cb-toast", "会话已结束")
    browser.click("[data-do=disable]")
    browser.see(".cb-dialog h2", "停用 住建经办")
    browser.click("[data-ok]")
    browser.see("tr[data-id='住建经办']", "已停用")
    with console.db() as conn:
        row = conn.execute("select role, department, district, disabled from operator where name = '住建经办'")
        assert row.fetchone() == ("clerk", "housing", "shushan", True)
        acts = conn.execute(
            "select action from audit_entry where what = 'operator/住建经办' and who = '主管' order by entry_id"
        ).fetchall()
    assert [a[0] for a in acts] == ["operator.access", "session.end", "operator.disable"]
    assert browser.complaints() == []


@pytest.mark.parametrize(
    ("path", "status"), [("/api/v1/nowhere", 404), ("/login/nowhere", 404), ("/loginx", 303), ("/second-factor", 303)]
)
def test_below_open_paths_there_is_nothing_open(console: Console, path: str, status: int) -> None:
    answer = httpx.get(console.url + path)
    assert answer.status_code == status
    assert answer.headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in str(
        answer.headers["content-security-policy"]
    )


def test_the_process_wrote_no_error(console: Console) -> None:
    text = console.log.read_text()
    assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:3000]
