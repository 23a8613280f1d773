"""What the running agent says of itself: link, outbox, connectors, devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edge.doctor.finding import AGENT, DEVICE, LINE, Finding, Level

_WAITS_S, _WAITS_LONG_S = 120, 3600


def check(
    values: Mapping[str, float], texts: Mapping[str, str], devices: Mapping[str, bool], known: frozenset[str]
) -> Iterator[Finding]:
    """``devices``: those heard of, by whether they answer; ``known``: all that are configured."""
    yield from _link(values, texts)
    yield from _outbox(values)
    for name, text in sorted(texts.items()):
        if name.startswith("connector_"):
            connector = name.removeprefix("connector_")
            yield LINE.bad(
                "connector.down",
                f"连接器 {connector} 中断：{text}",
                f"connector {connector} is down: {text}",
                "看上面该线路的检查结果",
                "see what is said of this line",
                about=connector,
            )
    silent = sorted(device for device, online in devices.items() if not online)
    for device in silent[:50]:
        yield DEVICE.warn(
            "device.silent",
            f"设备 {device} 不应答",
            f"device {device} does not answer",
            "核对地址、波特率、校验、A/B 线；`citybrain probe` 可在该线路上查找设备",
            "address, baud, parity, A/B wires; `citybrain probe` looks for devices on the line",
            about=device,
        )
    never = sorted(known - set(devices))
    if never:
        shown = ", ".join(never[:10]) + (" ..." if len(never) > 10 else "")
        yield DEVICE.judged(
            "warn" if values.get("uptime_s", 0) > _WAITS_S else "note",
            "device.never",
            f"{len(never)} 台设备自启动以来没有消息：{shown}",
            f"{len(never)} devices not heard of since start: {shown}",
            "对主动上报的设备，核对其中心地址；对轮询的设备，看线路",
            "do they dial the right address? is the line up?",
        )
    if devices and not silent:
        yield DEVICE.ok("device.fine", f"{len(devices)} 台设备在线", f"{len(devices)} devices answer")


def _link(values: Mapping[str, float], texts: Mapping[str, str]) -> Iterator[Finding]:
    if values.get("link_up"):
        losses = int(values.get("link_losses", 0))
        yield AGENT.ok(
            "link.up", f"上行已连接，自启动断开 {losses} 次", f"the uplink is up; lost {losses} times since start"
        )
    elif "link_up" in values:
        why = texts.get("link", "")
        yield AGENT.bad(
            "link.down",
            f"上行断开：{why}",
            f"the uplink is down: {why}",
            "看上面到平台的逐步检查；数据在发件箱中，不会丢失",
            "see the steps to the core; data waits in the outbox",
        )


def _outbox(values: Mapping[str, float]) -> Iterator[Finding]:
    oldest_s = values.get("outbox_oldest_s", 0.0)
    waiting = {lane: int(values.get(f"outbox_{lane}_batches", 0)) for lane in ("event", "data", "backfill", "evidence")}
    level: Level = "bad" if oldest_s > _WAITS_LONG_S else "warn" if oldest_s > _WAITS_S else "ok"
    parts = " ".join(f"{lane} {count}" for lane, count in waiting.items() if count) or "0"
    yield AGENT.judged(
        level,
        "outbox.waits" if level != "ok" else "outbox.flows",
        f"发件箱最早一批已等 {oldest_s:.0f} 秒，待发：{parts}",
        f"oldest in the outbox: {oldest_s:.0f} s; waiting: {parts}",
        "已连接仍不减少时，平台可能没有收：请平台查看该网关的账目",
        "if it is connected and does not shrink, ask the core for this gateway's ledger",
    )
    thinned = int(values.get("thinned_readings", 0))
    if thinned:
        yield AGENT.warn(
            "outbox.thinned",
            f"发件箱曾满，已有 {thinned} 条读数被稀疏（平台知道是哪些）",
            f"the outbox was full: {thinned} readings were thinned out (the core knows which)",
            "加大 outbox.max_mb，或放宽上报死区",
            "raise outbox.max_mb, or widen the deadbands",
        )
    if values.get("memory_mb", 0) > 300:
        yield AGENT.warn(
            "agent.memory",
            f"代理占用内存 {values['memory_mb']:.0f} MB",
            f"the agent uses {values['memory_mb']:.0f} MB",
            "服务单元在 400 MB 处重启它；有摄像机时用 cameras.conf",
            "the unit restarts it at 400 MB; with cameras use cameras.conf",
        )
