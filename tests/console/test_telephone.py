"""A duty officer's telephone: every view fits its width, a row's values keep their headings, the rail is in reach."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud.auth import passwords
from tests.console.conftest import Browser, Console

PASSWORD = "Sanhe-old-street-6071"
WIDTH, HEIGHT = 390, 844
IN_REACH = (
    "const open = document.querySelector('.cb-rail a.on');"  # one's own account has no place in the rail
    f"return !open || open.getBoundingClientRect().right <= {WIDTH}"
)
VIEWS = ("/gateways", "/identity", "/ledger", "/orders", "/fleet", "/audit", "/security", "/operators")


@pytest.fixture(autouse=True)
def officer(console: Console, browser: Browser) -> Iterator[None]:
    with console.db() as conn:
        conn.execute(
            "insert into operator (name, password_hash, role, must_change, language)"
            " values ('夜班', %s, 'admin', false, 'en')",  # the longer of the two languages
            (passwords.hashed(PASSWORD),),
        )
    browser.resize(WIDTH, HEIGHT)
    yield
    browser.resize(1366, 768)
    with console.db() as conn:
        conn.execute("delete from operator where name = '夜班'")


def test_nothing_has_to_be_pushed_sideways(browser: Browser) -> None:
    browser.log_in("夜班", PASSWORD)
    for view in VIEWS:
        browser.open(view)
        browser.see(".cb-page h1")
        browser.see("[data-nav]")
        browser.until(lambda: not any(e.is_displayed() for e in browser.all(".cb-skel")), f"{view} has not loaded")
        widest = "Math.max(...[document.documentElement, ...document.querySelectorAll('.cb-frame, .cb-page')].map("
        assert browser.js(f"return {widest}(e) => e.scrollWidth))") <= WIDTH, view
        browser.until(lambda: browser.js(IN_REACH), f"{view} is out of reach in the rail")
        bottom = browser.js("return document.querySelector('.cb-rail').getBoundingClientRect().bottom")
        assert bottom == HEIGHT, view
    cell = "tr[data-id='夜班'] td[data-label=Role]"
    browser.see(cell, "Administrator")
    before = f'return getComputedStyle(document.querySelector("{cell}"), "::before").content'
    assert browser.js(before) == '"Role"'
    assert browser.complaints() == []
