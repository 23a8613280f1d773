"""A disk that fills is said on top of every page, with the way there, and no longer once there is room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud.auth import passwords
from tests.console.conftest import Browser, Console

PASSWORD = "Chaohu-ferry-6620"
WHO, GATEWAY = "周岚", "gw-luyang-01"


@pytest.fixture(scope="module", autouse=True)
def person(console: Console) -> Iterator[None]:
    with console.db() as conn:
        conn.execute(
            "insert into operator (name, password_hash, role, must_change) values (%s, %s, 'viewer', false)",
            (WHO, passwords.hashed(PASSWORD)),
        )
    yield
    with console.db() as conn:  # other files count what the city has
        conn.execute("delete from alarm where alarm_id = 'disk-page'")
        conn.execute("delete from operator where name = %s", (WHO,))


def _room(console: Console, free_mb: int) -> None:
    with console.db() as conn:
        conn.execute(
            "update gateway set health = jsonb_set(health, '{disk_free_mb}', to_jsonb(%s::int)), health_at = now() "
            "where gateway_id = %s",
            (free_mb, GATEWAY),
        )


def test_the_line_comes_names_what_is_full_and_goes(console: Console, browser: Browser) -> None:
    browser.log_in(WHO, PASSWORD)
    browser.settled()
    line = "[data-disks]"
    browser.gone(line, "磁盘")
    with console.db() as conn:
        conn.execute(
            "insert into alarm (alarm_id, key, scenario, type, device_id, level, peak_level, state, onset_at) values "
            "('disk-page', 'core:disk', 'platform/store', 'core.disk.full', 'core', 'red', 'red', 'raised', now())"
        )
    _room(console, 41)
    browser.see(line, "数据库磁盘已满")
    said = browser.see(line, "1 个网关磁盘将满").text
    assert "庐阳区 老城管网 41 MB" in said
    links = [a.get_dom_attribute("href") for a in browser.all(f"{line} a")]
    assert links == ["/alarms?id=disk-page", f"/gateways?id={GATEWAY}"]
    for path in ("/devices", "/cases", "/ledger"):
        browser.open(path)
        browser.see(line, "数据库磁盘已满")
    browser.click(f"{line} a", "老城管网")
    browser.at("/gateways")
    with console.db() as conn:
        conn.execute("update operator set language = 'en' where name = %s", (WHO,))
    browser.open("/alarms")
    browser.see(line, "Disk nearly full on 1 of the gateways: Luyang, old town pipe network 41 MB")
    with console.db() as conn:
        conn.execute("update alarm set state = 'cleared', cleared_at = now() where alarm_id = 'disk-page'")
    _room(console, 320)
    browser.see(line, "Little room on the disk of 1")
    browser.gone(line, "database")
    _room(console, 18_000)
    browser.until(lambda: not any(e.is_displayed() for e in browser.all(line)), "the line is still there")
    assert browser.complaints() == []
