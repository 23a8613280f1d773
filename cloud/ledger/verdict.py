"""What a gateway's books come to, in plain words. Pure.

*complete*: everything the gateway has spoken of is in the database. *waiting*: the rest is still in its outbox.
*explained*: something is missing, and why is known and counted. *missing*: it is not known why, or the books differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from cloud.ledger.model import STATES, Dropped, Finding, GapSum, LaneBooks, State, Unplaced

#: An account comes every minute: a gateway that is online and has sent none for so long does not keep its book.
SILENT_AFTER = timedelta(minutes=5)

LANES = {
    "event": ("事件", "events"),
    "data": ("实时数据", "live data"),
    "backfill": ("补传数据", "backlog"),
    "evidence": ("图片证据", "pictures"),
}
REASONS = {
    "outbox_full": ("发件箱已满", "outbox full"),
    "clock_unknown": ("时钟未知", "clock unknown"),
    "expired": ("超过保存期限", "too old"),
    "byte_budget": ("流量额度用完", "byte budget used up"),
    "row_damaged": ("行已损坏", "row damaged on the gateway's disk"),
    "not_set": ("时钟未校准", "clock not set"),
    "memory_full": ("内存已满", "memory full"),
    "disk_refused": ("磁盘拒绝写入", "disk refused"),
    "unknown_device": ("未知设备", "unknown device"),
    "damaged": ("发件箱损坏", "outbox damaged"),
    "restored": ("发件箱被旧副本替换", "outbox replaced by an old copy"),
    "core_restored": ("中心数据库由备份恢复", "core restored from a backup"),
    "core_forgot": ("曾确认而库中没有，且无恢复记录", "acknowledged once and not here, no restore on record"),
    "newer_version": ("来自更新版本的网关", "from a newer agent"),
    "foreign_device": ("设备属于其他网关", "device of another gateway"),
    "undeclared_series": ("未声明的序列", "series never declared"),
    "declaration": ("序列声明矛盾", "contradicting declaration"),
    "not_protobuf": ("无法解析", "cannot be opened"),
    "no_sequence": ("没有序号", "without a sequence number"),
    "too_big": ("过大", "too big"),
    "time": ("时间不可能", "impossible time"),
    "event": ("事件无效", "invalid event"),
    "database_refused": ("数据库拒绝", "refused by the database"),
}


def reason_words(reason: str) -> tuple[str, str]:
    return REASONS.get(reason, (reason or "原因未说明", reason or "no reason given"))


def forgotten_reason(lane: LaneBooks) -> str:
    return "core_forgot" if lane.restore_id is None else "core_restored"


def forgotten_words(lane: LaneBooks) -> tuple[str, str]:
    if lane.restore_id is None or lane.restore_taken_at is None:
        return reason_words("core_forgot")
    at = f"{lane.restore_taken_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"中心数据库由 {at} 的备份恢复", f"core restored from a backup of {at}"


def lane_words(lane: str) -> tuple[str, str]:
    return LANES.get(lane, (lane, lane))


def findings(
    lanes: Sequence[LaneBooks],
    gaps: Iterable[GapSum],
    dropped: Iterable[Dropped],
    unplaced: Iterable[Unplaced],
    *,
    online: bool | None,
    heard_at: datetime | None,
    now: datetime,
    since: datetime | None,
) -> list[Finding]:
    """Worst first. ``heard_at``: when the last account came. ``since``: what became known before does not count any
    more; None: everything counts."""
    out: list[Finding] = []
    for lane in lanes:
        out += _of_lane(lane, since)
    for gap in gaps:
        if since is None or gap.told_at >= since:
            out.append(_of_gap(gap))
    for drop in dropped:
        if (drop.readings or drop.events) and (since is None or drop.changed_at >= since):
            zh, en = reason_words(drop.reason)
            out.append(
                Finding(
                    "explained", "dropped", drop.reason, "", drop.epoch, 0, drop.readings,
                    f"入库前丢弃 {drop.readings} 条数据、{drop.events} 个事件：{zh}",
                    f"dropped before the outbox: {drop.readings} readings, {drop.events} events: {en}",
                )
            )  # fmt: skip
    for letters in unplaced:
        if since is None or letters.last_at >= since:
            zh, en = reason_words(letters.reason)
            out.append(
                Finding(
                    "missing", "unplaced", letters.reason, "", 0, letters.letters, 0,
                    f"{letters.letters} 条消息无法归位：{zh}",
                    f"{letters.letters} messages that could not be placed: {en}",
                )
            )  # fmt: skip
    out += _silence(heard_at, online, now)
    return sorted(out, key=lambda finding: -STATES.index(finding.state))


def state_of(found: Sequence[Finding]) -> State:
    return max((finding.state for finding in found), key=STATES.index, default="complete")


def _of_lane(lane: LaneBooks, since: datetime | None) -> list[Finding]:
    out: list[Finding] = []
    lane_zh, lane_en = lane_words(lane.lane)

    def say(state: State, kind: str, reason: str, rows: int, zh: str, en: str) -> None:
        said = Finding(state, kind, reason, lane.lane, lane.epoch, rows, 0, f"{lane_zh}：{zh}", f"{lane_en}: {en}")
        out.append(said)

    if lane.holes:
        say("missing", "holes", "", lane.holes, f"有 {lane.holes} 行下落不明", f"{lane.holes} rows unaccounted for")
    if lane.content == "differs":
        say(
            "missing", "differs", "", 0,
            f"至第 {lane.checked_seq} 行，网关与数据库的账目不符", f"up to row {lane.checked_seq} both books differ",
        )  # fmt: skip
    beyond = lane.seq + lane.forgotten  # what follows was never acknowledged
    if lane.forgotten and (since is None or lane.forgotten_at is None or lane.forgotten_at >= since):
        zh, en = forgotten_words(lane)
        rows_zh, rows_en = _rows(lane.seq + 1, beyond)
        say(
            "missing" if lane.restore_id is None else "explained", "lost", forgotten_reason(lane), lane.forgotten,
            f"{rows_zh}丢失：{zh}", f"{rows_en} lost: {en}",
        )  # fmt: skip
    if lane.left_behind and (since is None or lane.left_at is None or lane.left_at >= since):
        zh, en = reason_words(lane.left_because)
        rows_zh, rows_en = _rows(beyond + 1, lane.produced)
        known = lane.left_because in ("damaged", "restored")
        say(
            "explained" if known else "missing", "lost", lane.left_because, lane.left_behind,
            f"{rows_zh}丢失：{zh}", f"{rows_en} lost: {en}",
        )  # fmt: skip
    if lane.waiting:
        rows_zh, rows_en = _rows(beyond + 1, lane.produced)
        say("waiting", "waiting", "", lane.waiting, f"{rows_zh}仍在网关等待", f"{rows_en} still wait on the gateway")
    return out


def _of_gap(gap: GapSum) -> Finding:
    zh, en = reason_words(gap.reason)
    if gap.kind == "thinned":
        words = f"抽稀 {gap.readings} 条数据：{zh}", f"{gap.readings} readings thinned: {en}"
    elif gap.kind == "clock_unknown":
        words = f"{gap.readings} 条数据时间存疑：{zh}", f"times of {gap.readings} readings in doubt: {en}"
    else:
        words = f"{gap.row_count} 行被整体或部分拒收：{zh}", f"{gap.row_count} rows set aside in whole or part: {en}"
    return Finding("explained", gap.kind, gap.reason, "", 0, gap.row_count, gap.readings, *words)


def _silence(heard_at: datetime | None, online: bool | None, now: datetime) -> list[Finding]:
    if heard_at is None:
        words = "网关尚未报过账", "the gateway has sent no account yet"
        return [Finding("unknown", "silent", "", "", 0, 0, 0, *words)]
    if online and now - heard_at > SILENT_AFTER:
        minutes = int((now - heard_at).total_seconds() // 60)
        words = f"网关在线，但已 {minutes} 分钟未报账", f"online, but no account for {minutes} minutes"
        return [Finding("unknown", "silent", "late", "", 0, 0, 0, *words)]
    return []


def _rows(first: int, last: int) -> tuple[str, str]:
    return (f"第 {first} 行", f"row {first}") if first == last else (f"第 {first}–{last} 行", f"rows {first}-{last}")
