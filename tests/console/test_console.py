"""A shift at the console, from the first log-in to the closed case. The tests follow one another in one browser."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from cloud.alarms.service import apply_events
from cloud.auth.service import FIRST_NAME
from protocols.core.model import Event
from tests.cloud_api import city
from tests.console.conftest import SHOTS, Browser, Console
from tests.console.picture import shrink

PASSWORD = "Chaohu-ferry-2209"
VIEWS = (
    ("map", "/", ".cb-map g.mk", "地图", "Map"),
    ("alarms", "/alarms", ".cb-table tbody tr", "告警队列", "Alarm queue"),
    ("cases", "/cases", "[data-case]", "案件台", "Case desk"),
    ("devices", "/devices", ".cb-table tbody tr", "设备", "Devices"),
    ("gateways", "/gateways", "[data-gateway]", "网关", "Gateways"),
)


def test_strangers_see_the_log_in_page_and_nothing_else(console: Console) -> None:
    for path in ("/", "/alarms", "/device?id=x", "/password", "/no-such-page"):
        answer = httpx.get(console.url + path)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/login?next=%2F")
    assert httpx.get(f"{console.url}/_nicegui_ws/socket.io/?EIO=4&transport=polling").status_code == 401
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "https://evil.example"}  # fmt: skip
    answer = httpx.get(f"{console.url}/_nicegui_ws/socket.io/?EIO=4&transport=websocket", headers=upgrade)
    assert answer.status_code == 403
    policy = httpx.get(f"{console.url}/login").headers["content-security-policy"]
    assert "script" not in policy and policy.startswith("default-src 'none'")
    form = {"name": FIRST_NAME, "password": "x"}
    foreign = httpx.post(f"{console.url}/login", data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403
    assert httpx.post(f"{console.url}/login", data={"name": "x" * 5000, "password": "x"}).status_code == 403


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "/login", "javascript:1"]
)
def test_the_log_in_page_sends_nobody_elsewhere(console: Console, target: str) -> None:
    page = httpx.get(f"{console.url}/login", params={"next": target}).text
    assert 'name="next" value="/"' in page


def test_first_log_in_changes_the_generated_password(console: Console, browser: Browser) -> None:
    browser.log_in(FIRST_NAME, "not-the-password")
    browser.see(".cb-alert", "姓名或密码不正确")
    browser.log_in(FIRST_NAME, console.first_password)
    browser.see("h2", "修改密码")
    browser.open("/alarms")  # no way around it
    browser.see("h2", "修改密码")
    for new, again, said in (
        (PASSWORD, PASSWORD + "x", "两次输入的新密码不一致"),
        ("short", "short", "新密码至少 10 个字符"),
        ("the-admin-1234", "the-admin-1234", "新密码不能包含姓名"),
        (console.first_password, console.first_password, "新密码不能与当前密码相同"),
    ):
        browser.fill("input[name=old]", console.first_password)
        browser.fill("input[name=new]", new)
        browser.fill("input[name=again]", again)
        browser.click("button[type=submit]")
        browser.see(".cb-alert", said)
    browser.fill("input[name=old]", console.first_password)
    browser.fill("input[name=new]", PASSWORD)
    browser.fill("input[name=again]", PASSWORD)
    browser.click("button[type=submit]")
    browser.settled()
    browser.complaints()  # what the refused attempts left behind (401, 422)


def test_the_session_cookie_is_out_of_reach_of_scripts(browser: Browser) -> None:
    cookie = next(c for c in browser.driver.get_cookies() if c["name"] == "citybrain_session")
    assert cookie["httpOnly"] is True and cookie["sameSite"] == "Lax"
    assert browser.js("return document.cookie") == ""


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("size", [(1366, 768), (1920, 1080)])
def test_every_view_in_both_languages_and_sizes(browser: Browser, language: str, size: tuple[int, int]) -> None:
    if browser.js("return document.documentElement.dataset.lang") != language:
        browser.click("[data-tool=lang]")
        browser.until(lambda: browser.js("return document.documentElement.dataset.lang") == language, "not switched")
    browser.resize(*size)
    browser.open("/")
    browser.settled()
    for key, path, wanted, zh, en in VIEWS:
        browser.click(f"[data-nav={key}]")
        browser.see(wanted)
        browser.at(path)
        title = zh if language == "zh" else en
        assert title in browser.see(f"[data-nav={key}] span").text or browser.see("h1").text == title
        assert browser.js("return document.documentElement.scrollWidth <= innerWidth"), (
            f"{key} is wider than the screen"
        )
        assert browser.js("const t = document.querySelector('.cb-top'); return t.scrollWidth <= t.clientWidth"), key
        hidden = browser.js(
            "return [...document.querySelectorAll('.cb-tool,.cb-safe,.cb-lv')].filter(e => {"
            " const r = e.getBoundingClientRect(); return r.right > innerWidth || r.width < 10; }).length"
        )
        assert hidden == 0, f"{hidden} parts of the strip are cut off"
    assert browser.complaints() == []


def test_nothing_comes_from_elsewhere(browser: Browser) -> None:
    names = browser.js("return performance.getEntriesByType('resource').map(e => new URL(e.name).origin)")
    assert set(names) == {browser.console.url}


def test_scripts_that_the_server_did_not_send_do_not_run(browser: Browser) -> None:
    browser.js(
        "const s = document.createElement('script'); s.textContent = 'window.foreign = 1'; document.body.append(s)"
    )
    browser.js("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.foreign = 1\">')")
    assert browser.js("return window.foreign === undefined")
    assert any("Content Security Policy" in line for line in browser.complaints())


def test_names_from_devices_are_text_and_never_markup(console: Console, browser: Browser) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    with console.db() as conn:
        rename = "update device set name_zh = %s, name_en = %s where device_id = 'baohe-noise-meter-1'"
        conn.execute(rename, [evil, evil])
        try:
            for path in ("/device?id=baohe-noise-meter-1", "/alarms?id=alarm-noise-1", "/"):
                browser.open(path)
                browser.settled()
                browser.see("h2, .cb-sub, .cb-feed .m", "<img src=x")
                assert browser.js("return document.title") != "owned"
        finally:
            conn.execute(rename, ["1号噪声计", "Noise meter 1"])
    assert browser.complaints() == []


def test_language_and_theme_are_remembered_for_the_operator(browser: Browser) -> None:
    browser.open("/")
    browser.settled()
    assert browser.js("return document.documentElement.dataset.theme") == "dark"
    browser.click("[data-tool=theme]")
    browser.until(lambda: browser.js("return document.documentElement.dataset.theme") == "light", "not light")
    browser.log_in(FIRST_NAME, PASSWORD)
    browser.settled()
    assert browser.js("return [document.documentElement.dataset.theme, document.documentElement.lang]") == [
        "light",
        "en",
    ]
    browser.click("[data-tool=theme]")
    browser.until(lambda: browser.js("return document.documentElement.dataset.theme") == "dark", "not dark")
    browser.click("[data-tool=lang]")
    browser.until(lambda: browser.js("return document.documentElement.lang") == "zh-CN", "not Chinese")


def test_devices_say_how_old_their_word_is(browser: Browser) -> None:
    browser.open("/devices")
    browser.see("tr[data-id=luyang-main-pressure-2] .cb-state.stale", "陈旧")
    browser.see("tr[data-id=baohe-noise-meter-4] .cb-state.offline", "离线")
    browser.click("[data-value=unknown]")
    browser.see("tr[data-id=luyang-combustible-4] .cb-state.unknown", "未知")
    browser.until(lambda: len(browser.all(".cb-table tbody tr")) == 1, "the filter did not work")
    assert "从未" in browser.see("tr[data-id=luyang-combustible-4]").text
    browser.click("[data-value='']")
    browser.fill("input[type=search]", "塔机")
    browser.until(lambda: len(browser.all(".cb-table tbody tr")) == 4, "the search did not work")
    browser.fill("input[type=search]", "没有这样的设备")
    browser.see(".cb-empty", "没有符合条件的设备")


def test_from_the_map_to_a_curve(browser: Browser) -> None:
    browser.open("/")
    browser.click(".cb-map g.mk[data-device=baohe-noise-meter-1]")
    browser.see(".cb-tip", "1号噪声计")
    browser.click("[data-open-device]")
    browser.see("h2", "1号噪声计")
    browser.see(".cb-value.on", "等效声级")
    browser.until(lambda: browser.all(".cb-chart canvas"), "no chart")
    browser.see("small", "条")
    browser.click(".cb-value", "最大声级")
    browser.see(".cb-panel header", "最大声级")
    browser.click("[data-value='6h']")
    browser.see("small", "抽稀")
    assert browser.complaints() == []


def test_a_value_that_arrives_is_shown(console: Console, browser: Browser) -> None:
    browser.open("/device?id=baohe-tower-crane-1")
    browser.see(".cb-value")
    with console.db() as conn:
        series = conn.execute(
            "select series_id from series where device_id = 'baohe-tower-crane-1' and point = 'height'"
        ).fetchone()
        assert series is not None
        conn.execute("update last_value set value = 77.25, ts = now(), quality = 1 where series_id = %s", series)
        conn.execute("""select pg_notify('citybrain', '{"kind": "device", "id": "baohe-tower-crane-1"}')""")
    value = browser.see(".cb-value.odd", "77.2")
    assert "可疑" in value.text and "秒前" in value.text


def test_an_unknown_device_and_an_unknown_page(browser: Browser) -> None:
    browser.open("/device?id=not-there")
    browser.see(".cb-empty", "没有找到 not-there")
    browser.open("/no/such/page")
    browser.see(".cb-empty", "没有找到 /no/such/page")
    browser.complaints()  # the 404 itself


def _raise(console: Console, key: str, level: str, type_: str = "gas.leak.low") -> str:
    """A gateway reports, and ingest's services do the rest."""
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    event = Event(
        id=f"live-{key}", type=type_, ts_ms=now_ms - 900, seen_ms=now_ms - 800, source="luyang-combustible-2/ch4_lel",
        scenario="urban_mgmt/underground_pipeline", level=level, state="raise", key=key,  # type: ignore[arg-type]
        values={"q": "ch4_lel", "x": 31.5, "limit": 25, "unit": "%LEL"},
    )  # fmt: skip
    with console.db() as conn:
        return apply_events(conn, [event], "gw-luyang-01", now_ms)[0].alarm.alarm_id


def test_an_alarm_arrives_rings_and_is_taken(console: Console, browser: Browser) -> None:
    browser.open("/alarms")
    browser.settled()
    browser.see(f"tr[data-id={city.alarm_id('gas-2')}]")
    browser.js("delete document.documentElement.dataset.rang")
    alarm_id = _raise(console, "live-1", "orange")
    browser.see(f"tr[data-id='{alarm_id}']", "可燃气一级报警", timeout_s=5)
    rang = browser.until(lambda: browser.js("return document.documentElement.dataset.rang"), "it did not ring", 5)
    assert rang in ("orange", "red")  # a red one waits too and rings again every few seconds
    browser.click(f"tr[data-id='{alarm_id}'] [data-act=take]")
    browser.see(".cb-toast", "已接警")
    browser.see(f"tr[data-id='{alarm_id}']", "已接 · admin")
    with console.db() as conn:
        row = conn.execute("select state, acked_by from alarm where alarm_id = %s", [alarm_id]).fetchone()
    assert row == ("acknowledged", FIRST_NAME)


def test_an_alarm_is_taken_from_its_card_and_leads_to_its_case(browser: Browser) -> None:
    alarm_id = city.alarm_id("lane-1")
    browser.click(f"tr[data-id={alarm_id}]")
    browser.see(".cb-still")
    browser.until(
        lambda: browser.js("return document.querySelector('.cb-still').naturalWidth === 960"), "still not loaded"
    )
    browser.click("button[data-take]", "接警")
    browser.see(f"tr[data-id={alarm_id}]", "已接 · admin")
    browser.click("[data-open-case]")
    browser.see("[data-case-open] h2", "占用消防通道")


def test_sound_can_be_muted_and_stays_so(browser: Browser) -> None:
    browser.click("[data-tool=mute]")
    browser.see("[data-tool=mute].on")
    browser.open("/")
    browser.see("[data-tool=mute].on")
    browser.click("[data-tool=mute]")
    browser.until(lambda: not browser.all("[data-tool=mute].on"), "still muted")


def _act(browser: Browser, action: str, state: str, reason: str = "") -> None:
    browser.click(f"[data-action={action}]")
    browser.see(".cb-dialog")
    if reason:
        browser.click("[data-ok]")
        browser.see(".cb-dialog .bad", "请填写理由")
        browser.fill(".cb-dialog textarea", reason)
    browser.click("[data-ok]")
    browser.see(f"[data-state={state}]")


def test_a_case_from_report_to_feedback(console: Console, browser: Browser) -> None:
    with console.db() as conn:
        case = city.case_id(conn, "lane-1")
    browser.open(f"/cases?id={case}")
    browser.see("[data-state=reported]")
    assert len(browser.all(".cb-clock")) == 3
    before = browser.see("[data-clock=close] strong").text
    browser.until(lambda: browser.see("[data-clock=close] strong").text != before, "the clock does not run", 5)
    _act(browser, "accept", "accepted")
    _act(browser, "file", "filed")
    _act(browser, "dispatch", "dispatched")
    _act(browser, "return", "returned", "不属于本街道，请派给物业所在网格")
    _act(browser, "dispatch", "dispatched")
    _act(browser, "start", "in_progress")
    _act(browser, "suspend", "suspended", "等待拖车")
    assert browser.see("[data-clock=close].paused strong").text == "计时暂停"
    _act(browser, "resume", "in_progress")
    _act(browser, "feed_back", "fed_back")
    browser.see("[data-transition=return] q", "不属于本街道")
    browser.until(lambda: browser.all("[data-action=send_back]"), "no buttons")
    assert not browser.all("[data-action=check]")  # nobody checks his own work


def _new_operator(browser: Browser, role: str, name: str) -> str:
    browser.open("/operators")
    browser.click(f"[data-add={role}]")
    browser.fill(".cb-dialog textarea", name)
    browser.click("[data-ok]")
    browser.see(".cb-dialog h2", f"{name} 的初始密码")
    password = browser.see(".cb-dialog .cb-secret").text
    browser.click("[data-ok]")
    browser.see(f"tr[data-id={name}]", "待改密码")
    return password


def _first_log_in(browser: Browser, name: str, password: str) -> None:
    browser.log_in(name, password)
    browser.fill("input[name=old]", password)
    browser.fill("input[name=new]", PASSWORD)
    browser.fill("input[name=again]", PASSWORD)
    browser.click("button[type=submit]")
    browser.settled()


def test_somebody_else_checks_and_closes(console: Console, browser: Browser) -> None:
    password = _new_operator(browser, "operator", "李强")
    _first_log_in(browser, "李强", password)
    with console.db() as conn:
        case = city.case_id(conn, "lane-1")
    browser.open(f"/cases?id={case}")
    _act(browser, "check", "checked")
    _act(browser, "close", "closed")
    browser.see("[data-transition=close]", "李强")
    browser.open("/operators")
    browser.see(".cb-empty", "只有管理员")
    with console.db() as conn:
        found = conn.execute("select state from case_file where case_id = %s", [case]).fetchone()
        steps = conn.execute("select count(*) from case_transition where case_id = %s", [case]).fetchone()
    assert found == ("closed",) and steps == (12,)


def test_two_people_at_one_case(console: Console, browser: Browser) -> None:
    """Somebody else moves the case while the dialog is open: nothing is done twice, and the page says so."""
    from cloud.cases.service import act

    with console.db() as conn:
        case = city.case_id(conn, "crane-2")
    browser.open(f"/cases?id={case}")
    browser.click("[data-action=start]")
    browser.see(".cb-dialog")
    with console.db() as conn:
        act(conn, case, "start", "赵磊")
    browser.click("[data-ok]")
    browser.see(".cb-toast .bad", "已被他人更新")
    browser.see("[data-state=in_progress]")
    browser.see("[data-transition=start]", "赵磊")


def test_a_viewer_looks_and_does_not_touch(browser: Browser) -> None:
    browser.log_in(FIRST_NAME, PASSWORD)
    browser.settled()
    password = _new_operator(browser, "viewer", "周洁")
    _first_log_in(browser, "周洁", password)
    browser.open("/alarms")
    browser.see(".cb-table tbody tr")
    assert not browser.all("[data-act=take]") and not browser.all("[data-take]")
    browser.open("/cases")
    browser.see(".cb-sub", "只读人员不能办理案件")
    assert not browser.all("[data-action]")


def test_gateways_show_that_nothing_is_missing(console: Console, browser: Browser) -> None:
    browser.open("/gateways")
    browser.see("[data-safe]", "零丢失")
    browser.click("[data-gateway=gw-luyang-01]")
    browser.see("td", "zstd frame is cut short")
    browser.see(".cb-kv", "传感器 → 入库")
    with console.db() as conn:
        conn.execute("update lane_cursor set seq = seq + 3 where gateway_id = 'gw-baohe-01' and lane = 'data'")
        try:
            browser.see("[data-safe].bad", "丢失 3 批", timeout_s=10)
            browser.see("[data-gateway=gw-baohe-01] b.bad", "3", timeout_s=10)
        finally:
            conn.execute("update lane_cursor set seq = seq - 3 where gateway_id = 'gw-baohe-01' and lane = 'data'")
    browser.see("[data-safe]:not(.bad)", "零丢失", timeout_s=10)


def test_the_keyboard_is_enough(browser: Browser) -> None:
    browser.open("/alarms")
    row = browser.see("tr[data-id=alarm-dust-1]")
    row.send_keys(Keys.ENTER)
    browser.see(".cb-cardhead h2", "扬尘超标")
    browser.open("/cases")
    browser.see("[data-case]").send_keys(Keys.ENTER)
    browser.see("[data-case-open]")


def test_logging_out_closes_the_console(browser: Browser) -> None:
    browser.click("[data-tool=user]")
    browser.click("[data-tool=logout]")
    browser.see("h2", "登录")
    browser.open("/alarms")
    browser.see("h2", "登录")


def test_an_ended_session_is_shown_out(console: Console, browser: Browser) -> None:
    """The operator's password is reset elsewhere: an open page acts no more and leaves."""
    browser.log_in("李强", PASSWORD)
    browser.settled()
    browser.open("/alarms")
    browser.see("[data-act=take]")
    with console.db() as conn:
        conn.execute("update operator set password_hash = 'void' where name = '李强'")
    browser.click("[data-act=take]")
    browser.see("h2", "登录", timeout_s=30)
    with console.db() as conn:
        taken = conn.execute("select count(*) from alarm where acked_by = '李强'").fetchone()
    assert taken == (0,)


def test_the_process_wrote_no_error(console: Console) -> None:
    text = console.log.read_text()
    assert "Traceback" not in text, text[text.index("Traceback") - 500 :][:3000]


@pytest.mark.skipif(not SHOTS, reason="pictures are taken when CITYBRAIN_SHOTS names a folder")
def test_pictures(console: Console, browser: Browser) -> None:
    with console.db() as conn:
        case = city.case_id(conn, "crane-2")
        # The shift has taken minutes; what was heard then is brought up to now, so that the pictures show a live city.
        conn.execute("update device set seen_at = seen_at + (now() - state_at - interval '5 h') where online")
        conn.execute(
            "update last_value v set ts = d.seen_at from series s join device d using (device_id) "
            "where s.series_id = v.series_id and d.online and v.quality = 0"
        )
        conn.execute("update gateway set health_at = now() - interval '8 s'")
        conn.execute("update lane_cursor set updated_at = now() - interval '3 s'")
    browser.resize(1366, 768)
    pages = {
        "map": ("/", ".cb-map g.mk"),
        "device": ("/device?id=baohe-noise-meter-1", ".cb-chart canvas"),
        "alarms": (f"/alarms?id={city.alarm_id('crane-2')}", ".cb-still"),
        "case": (f"/cases?id={case}", ".cb-clock"),
        "gateway": ("/gateways", ".cb-table tbody tr"),
    }
    browser.log_in(FIRST_NAME, PASSWORD)
    for language, theme in (("zh", "dark"), ("en", "light")):
        browser.settled()
        for key, wanted in (("lang", language), ("theme", theme)):
            if browser.js(f"return document.documentElement.dataset.{key}") != wanted:
                browser.click(f"[data-tool={key}]")
                browser.see(f":root[data-{key}={wanted}] body")
                browser.settled()
        for name, (path, ready) in pages.items():
            browser.open(path)
            browser.settled()
            browser.see(ready)
            browser.driver.execute_async_script("setTimeout(arguments[0], 1500)")  # a picture wants to settle
            browser.shot(f"console-{name}-{language}")
            assert shrink(Path(SHOTS) / f"console-{name}-{language}.png") < 200_000
