"""`citybrain edge doctor`: everything that may be wrong on a site, looked at in one go.

```
 config ─▶ clock, disk, memory ─▶ lines ─▶ name, TCP, TLS, log-in, rights ─▶ what the agent says ─▶ Report
```
Nothing here changes anything, and nothing disturbs a running agent: where one runs, its own word replaces opening its
ports a second time.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.config import EdgeConfig, load
from edge.doctor import broker, lines, machine, work
from edge.doctor.finding import AGENT, CONFIG, Finding, Report, sorted_findings
from protocols.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Said:
    """What a running agent says. ``devices``: those heard of since its start, by whether they answer."""

    values: Mapping[str, float]
    texts: Mapping[str, str]
    devices: Mapping[str, bool]
    pids: frozenset[int]


def examine(path: Path, now_ms: int | None = None) -> Report:
    """On the gateway, agent running or not. Never raises for what is wrong with the site."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    try:
        config = load(path)
    except ConfigError as error:
        wrong = CONFIG.bad(
            "config.wrong",
            f"配置有误：{error}",
            f"the configuration is wrong: {error}",
            "改正后再运行；各键说明见 docs/edge-config.md",
            "correct it; every key: docs/edge-config.md",
            about=str(path),
        )
        findings = [wrong, *machine.clock(now_ms, machine.ask_kernel()), *machine.memory()]
        return Report(gateway="", at_ms=now_ms, findings=sorted_findings(findings))
    base = path.resolve().parent
    said = ask_agent(base / config.gateway.state_dir)
    return asyncio.run(look(config, base, said, now_ms))


async def look(config: EdgeConfig, base: Path, said: Said | None, now_ms: int) -> Report:
    """``said``: None if no agent runs. Takes at most about half a minute, however much is out of reach."""
    findings = [finding async for finding in _all(config, base, said, now_ms)]
    return Report(gateway=config.gateway.id, at_ms=now_ms, findings=sorted_findings(findings))


async def _all(config: EdgeConfig, base: Path, said: Said | None, now_ms: int) -> AsyncIterator[Finding]:
    devices = frozenset(device.id for connector in config.connector for device in connector.device)
    yield CONFIG.ok(
        "config.good",
        f"配置正确：{len(config.connector)} 个连接器，{len(devices)} 台设备",
        f"configuration good: {len(config.connector)} connectors, {len(devices)} devices",
    )
    state_dir = base / config.gateway.state_dir
    for finding in machine.clock(now_ms, machine.ask_kernel()):
        yield finding
    for finding in await asyncio.to_thread(lambda: list(machine.disk(state_dir, config.outbox.max_mb << 20))):
        yield finding
    for finding in machine.memory():
        yield finding
    for connector in config.connector:
        async for finding in _line(connector, said):
            yield finding
    up = said is not None and bool(said.values.get("link_up"))
    async for finding in broker.check(config, base, now_ms, log_in=not up):
        yield finding
    if said is None:
        yield AGENT.bad(
            "agent.down",
            "代理没有在运行（或 status_listen 已关闭）",
            "the agent does not run (or status_listen is off)",
            "systemctl status citybrain-agent；journalctl -u citybrain-agent -n 50",
            "systemctl status citybrain-agent; journalctl -u citybrain-agent -n 50",
        )
        return
    for finding in work.check(said.values, said.texts, said.devices, devices):
        yield finding


async def _line(connector: Any, said: Said | None) -> AsyncIterator[Finding]:
    port = lines.serial_port(connector)
    if port is not None:
        own = frozenset[int]() if said is None else said.pids
        for finding in await asyncio.to_thread(lambda: list(lines.serial(connector.id, port, own))):
            yield finding
    if said is None:
        async for finding in lines.reach(connector.id, lines.dialled(connector)):
            yield finding
        listen = getattr(connector, "listen", "")
        if isinstance(listen, str) and listen:
            for finding in lines.listens(connector.id, listen):
                yield finding


def ask_agent(state_dir: Path) -> Said | None:
    """The running agent's status page; None if none answers."""
    try:
        url = str(json.loads((state_dir / "status.json").read_text(encoding="utf-8"))["url"])
        if not url.startswith("http://"):
            return None
        with urllib.request.urlopen(url + "status.json", timeout=5) as answer:  # noqa: S310 - checked above
            body = json.loads(answer.read(1 << 20))
        values = {str(name): float(value) for name, value in body["values"].items()}
        texts = {str(name): str(text) for name, text in body["texts"].items()}
        devices = {str(name): bool(online) for name, online in body.get("devices", {}).items()}
        pids = frozenset({int(body["pid"])}) if "pid" in body else frozenset[int]()
        return Said(values, texts, devices, pids)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
