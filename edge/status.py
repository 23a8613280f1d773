"""The installer's status page: one small HTTP answer on loopback, readable on a laptop with no internet.

``GET /`` is a page in Chinese and English, ``GET /status.json`` the numbers. It shows what ``citybrain edge status``
prints. The address stands in ``status.json`` of the state folder, because port 0 lets the system choose.
"""

from __future__ import annotations

import asyncio
import html
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from protocols.core.errors import ConfigError

Health = Callable[[], tuple[dict[str, float], dict[str, str]]]

_LABELS = {
    "link_up": ("上行已连接", "uplink connected"),
    "outbox_event_batches": ("待发事件批次", "event batches waiting"),
    "outbox_data_batches": ("待发数据批次", "data batches waiting"),
    "outbox_backfill_batches": ("待补传批次", "backfill batches waiting"),
    "outbox_oldest_s": ("最早待发(秒)", "oldest waiting (s)"),
    "thinned_readings": ("因存满丢弃", "dropped, outbox full"),
    "readings_seen": ("已读数", "readings seen"),
    "readings_kept": ("已保留", "readings kept"),
    "events": ("事件", "events"),
    "cpu_pct": ("处理器 %", "CPU %"),
    "memory_mb": ("内存 MB", "memory MB"),
    "disk_free_mb": ("磁盘剩余 MB", "disk free MB"),
}

_STYLE = (
    "body{font:16px/1.5 system-ui,'Noto Sans CJK SC',sans-serif;margin:2rem auto;max-width:44rem;padding:0 1rem;"
    "background:#0f172a;color:#e2e8f0}h1{font-size:1.3rem}table{border-collapse:collapse;width:100%}"
    "td{padding:.4rem .6rem;border-bottom:1px solid #1e293b}td:last-child{text-align:right;font-variant-numeric:"
    "tabular-nums}.bad{color:#fca5a5}"
)


class StatusPage:
    def __init__(
        self,
        gateway: str,
        listen: str,
        state_dir: Path,
        health: Health,
        devices: Callable[[], Mapping[str, bool]] = dict,
    ) -> None:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"gateway.status_listen {listen!r}: host:port")
        self._host, self._port = host, int(port)
        self._gateway = gateway
        self._file = state_dir / "status.json"
        self._health = health
        self._devices = devices

    async def run(self) -> None:
        server = await asyncio.start_server(self._answer, self._host, self._port, limit=8192)
        host, port = server.sockets[0].getsockname()[:2]
        self._file.write_text(json.dumps({"url": f"http://{host}:{port}/"}), encoding="utf-8")
        async with server:
            await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ", 2)[1] if request.count(b" ") >= 2 else b""
            status, kind, body = self._page(path)
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
                "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
                "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a browser that went away, or no HTTP at all
        finally:
            writer.close()

    def _page(self, path: bytes) -> tuple[str, str, bytes]:
        values, texts = self._health()
        if path == b"/status.json":
            body = {
                "gateway": self._gateway,
                "pid": os.getpid(),
                "values": values,
                "texts": texts,
                "devices": dict(self._devices()),
            }
            return "200 OK", "application/json", json.dumps(body, ensure_ascii=False).encode()
        if path != b"/":
            return "404 Not Found", "text/plain", b"not found"
        rows = [
            f"<tr><td>{zh}<br><small>{en}</small></td><td>{values[name]:,.0f}</td></tr>"
            for name, (zh, en) in _LABELS.items()
            if name in values
        ]
        rows += [
            f"<tr class=bad><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>"
            for name, text in texts.items()
        ]
        page = (
            "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=5>"
            f"<title>{html.escape(self._gateway)}</title><style>{_STYLE}</style>"
            f"<h1>网关 Gateway {html.escape(self._gateway)}</h1><table>{''.join(rows)}</table>"
        )
        return "200 OK", "text/html", page.encode()
