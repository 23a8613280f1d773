"""What a rollout says about itself is told in Chinese: the sentences of the machine itself, not copies of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cloud.console.said import said
from cloud.console.words import Words
from cloud.updates.waves import Fact, Member, MemberState, Plan, Rollout, decide

NOW = datetime(2026, 3, 2, tzinfo=UTC)
ROLLOUT = Rollout("running", 0, NOW, Plan(waves=("100%",), error_pct=10.0))


def _told(*states: MemberState, error_pct: float = 10.0) -> str:
    members = [Member(f"gw-{n}", 0, state, 1) for n, state in enumerate(states)]
    rollout = replace(ROLLOUT, plan=replace_plan(error_pct))
    return said(Words("zh-CN"), decide(rollout, members, {}, NOW).rollout.reason)


def replace_plan(error_pct: float) -> Plan:
    return Plan(waves=("100%",), error_pct=error_pct)


def test_reasons_of_a_rollout() -> None:
    assert _told("pending", "pending") == "等待离线的网关上线"
    assert _told("failed", "applied") == "第 1 批：2 台中 1 台出错，超过 10%"
    assert _told("failed", "applied", error_pct=60.0) == "第 1 批：生效的网关不足 90%"


def test_details_of_a_gateway() -> None:
    late = Member("gw-1", 0, "offered", 1, offered_at=NOW - timedelta(days=3))
    for fact, expected in (
        (Fact(online=False), "超时无结果，网关离线"),
        (Fact(online=True), "超时无结果"),
        (Fact(online=True, wanted=7), "期望配置已改为版本 7"),
    ):
        (member,) = decide(ROLLOUT, [late], {"gw-1": fact}, NOW).members
        assert said(Words("zh-CN"), member.detail) == expected
        assert said(Words("en"), member.detail) == member.detail


def test_a_gateways_own_sentence_stays() -> None:
    assert said(Words("zh-CN"), "disk has 180 MB free") == "disk has 180 MB free"
