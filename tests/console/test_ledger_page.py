"""The ledger's page: the worst gateway first, its reason in plain words, and down to the series and rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloud.auth import passwords
from cloud.ledger import gaps
from cloud.ledger.gaps import WHOLE_LANE, Piece
from tests.console.conftest import Browser, Console

PASSWORD = "Chaohu-water-2291"
GATEWAY, EPOCH = "gw-baohe-01", 1_772_400_777
T_MS = 1_772_400_000_000
_TABLES = ("lane_cursor", "lane_account", "outbox_epoch", "ledger_gap", "lane_forgotten")


@pytest.fixture(autouse=True)
def books(console: Console) -> Iterator[None]:
    with console.db() as conn:
        conn.execute(
            "insert into operator (name, password_hash, role, must_change) values ('账房', %s, 'viewer', false)",
            (passwords.hashed(PASSWORD),),
        )
        (series,) = conn.execute(
            "select series_id, device_id, point from series join device using (device_id)"
            " where gateway_id = %s order by series_id limit 1",
            (GATEWAY,),
        ).fetchall()
        conn.execute(
            "insert into outbox_epoch (gateway_id, epoch, accounted_at, account_heard_at)"
            " values (%s, %s, now(), now())",
            (GATEWAY, EPOCH),
        )
        conn.execute(
            "insert into lane_cursor (gateway_id, epoch, lane, seq, batches, readings, thinned)"
            " values (%s, %s, 'data', 400, 400, 790, 10)",
            (GATEWAY, EPOCH),
        )
        conn.execute(
            "insert into lane_account values (%s, %s, 'data', 400, 400, 800, 0, 0, 10, null, 0, 400, now(), 'equal')",
            (GATEWAY, EPOCH),
        )
        conn.execute(
            "with back as (insert into restore_point (taken_at, source) values ('2026-03-01 04:05+00', 'city.backup')"
            " returning restore_id) insert into lane_forgotten select %s, %s, 'data', 405, restore_id, now() from back",
            (GATEWAY, EPOCH),
        )
        place = (GATEWAY, EPOCH, "data", "thinned", "outbox_full")
        whole = Piece(*place, WHOLE_LANE, 318, 322, 10, T_MS, T_MS + 5000, 5)
        gaps.write(conn, [whole, Piece(*place, series[0], 318, 322, 5, T_MS, T_MS + 5000, 5)])
        conn.execute("update gateway set epoch = %s where gateway_id = %s", (EPOCH, GATEWAY))
        console.series = f"{series[1]}/{series[2]}"  # type: ignore[attr-defined]
    yield
    with console.db() as conn:  # other files count what the city has
        for table in _TABLES:
            conn.execute(f"delete from {table} where gateway_id = %s and epoch = %s".encode(), (GATEWAY, EPOCH))
        conn.execute("delete from restore_point")
        conn.execute("delete from operator where name = '账房'")


def test_the_verdict_the_reason_and_the_rows(console: Console, browser: Browser) -> None:
    browser.log_in("账房", PASSWORD)
    browser.settled()
    browser.open("/ledger")
    browser.see("h1", "数据账本")
    browser.see(f"[data-ledger] tr[data-id={GATEWAY}] td", "抽稀 10 条数据：发件箱已满")
    browser.see(f"[data-ledger] tr[data-id={GATEWAY}] td", "缺失有因")
    browser.click(f"[data-ledger] tr[data-id={GATEWAY}]")
    browser.see("td", "相符 · 至第 400 行")
    browser.see("[data-ranges] td", console.series)  # type: ignore[attr-defined]
    browser.see("[data-ranges] td", "318–322")
    browser.see("[data-ranges] td", "401–405")
    browser.see("[data-ranges] td", "中心数据库由备份恢复 · city.backup")
