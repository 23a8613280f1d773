"""The lines to the devices: serial ports, addresses to dial, ports to listen on.

A port that a running agent serves is left alone: nothing is opened twice, no meter is asked twice at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from edge.connectors.config import TCP_PREFIX, ConnectorConfig, split_address
from edge.doctor.finding import CONFIG, LINE, Finding
from protocols.core.errors import ConfigError

DIAL_S = 3.0
_AT_A_TIME = 16


def serial(connector: str, port: str, own_pids: frozenset[int], dev: Path = Path("/dev")) -> Iterator[Finding]:
    """A device file. ``own_pids``: processes that may hold it, because they are ours."""
    path = Path(port)
    try:
        mode = path.stat().st_mode
    except OSError:
        there = ", ".join(sorted(str(p) for kind in ("ttyUSB*", "ttyACM*", "ttyAMA*") for p in dev.glob(kind)))
        yield LINE.bad(
            "serial.missing",
            f"串口 {port} 不存在；现有：{there or '无'}",
            f"no serial port {port}; there is {there or 'none'}",
            "插好 USB 转接器；用 /dev/serial/by-id/ 下的名字，重启后不变",
            "plug the adapter in; names below /dev/serial/by-id/ stay the same after a restart",
            about=connector,
        )
        return
    if not stat.S_ISCHR(mode):
        yield LINE.bad(
            "serial.no_device",
            f"{port} 不是设备文件",
            f"{port} is no device file",
            "改正配置中的 port",
            "correct `port` in the configuration",
            about=connector,
        )
        return
    if not os.access(path, os.R_OK | os.W_OK):
        yield LINE.bad(
            "serial.permission",
            f"没有读写 {port} 的权限",
            f"no permission to read and write {port}",
            "把运行账户加入该文件的组：usermod -aG dialout citybrain，然后重启服务",
            "add the agent's user to the file's group: usermod -aG dialout citybrain; restart the service",
            about=connector,
        )
        return
    for pid, name in _holders(path):
        if pid not in own_pids:
            yield LINE.bad(
                "serial.busy",
                f"{port} 被其他程序占用：{name}（进程 {pid}）",
                f"{port} is held by {name} (process {pid})",
                "停止该程序；ModemManager 常会抢占串口，可停用",
                "stop it; ModemManager likes to grab serial ports and can be disabled",
                about=connector,
            )
            return
    yield LINE.ok("serial.fine", f"串口 {port} 可用", f"{port} is usable", about=connector)


def _holders(path: Path) -> Iterator[tuple[int, str]]:
    """Processes that have the device open, as far as we may see."""
    wanted = path.resolve()
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if any(fd.readlink() == wanted for fd in (process / "fd").iterdir()):
                yield int(process.name), (process / "comm").read_text(errors="replace").strip()


def serial_port(config: ConnectorConfig) -> str | None:
    port = getattr(config, "port", None)
    return port if isinstance(port, str) and not port.startswith(TCP_PREFIX) else None


def dialled(config: ConnectorConfig) -> list[tuple[str, int]]:
    """Where this connector dials over TCP."""
    out: list[tuple[str, int]] = []
    port = getattr(config, "port", "")
    if isinstance(port, str) and port.startswith(TCP_PREFIX):
        out.append(split_address(port.removeprefix(TCP_PREFIX), "port"))
    url = getattr(config, "url", "")
    if isinstance(url, str) and url:
        parts = urlsplit(url)
        usual = {"mqtt": 1883, "mqtts": 8883, "opc.tcp": 4840, "http": 80, "https": 443}
        if parts.hostname:
            out.append((parts.hostname, parts.port or usual.get(parts.scheme, 0)))
    kind = type(config).__struct_config__.tag
    if kind in ("modbus-tcp", "gb20999"):
        address = str(getattr(config, "address", ""))
        if not address.startswith("udp://"):
            out.append(split_address(address.removeprefix(TCP_PREFIX), "address"))
    if kind == "onvif":
        out += [split_address(str(device.address), "address") for device in config.device if hasattr(device, "address")]
    return [(host, number) for host, number in out if number]


async def reach(connector: str, targets: Sequence[tuple[str, int]]) -> AsyncIterator[Finding]:
    limit = asyncio.Semaphore(_AT_A_TIME)

    async def one(host: str, port: int) -> Finding:
        async with limit:
            return await _reach(connector, host, port)

    for finding in await asyncio.gather(*(one(host, port) for host, port in targets)):
        yield finding


async def _reach(connector: str, host: str, port: int) -> Finding:
    what = f"{host}:{port}"
    try:
        async with asyncio.timeout(DIAL_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except TimeoutError:
        return LINE.bad(
            "dial.silent",
            f"{what} {DIAL_S:g} 秒内没有应答",
            f"{what} does not answer within {DIAL_S:g} s",
            "检查设备电源、网线、IP 与网段、防火墙",
            "power, cable, IP address and network, firewall",
            about=connector,
        )
    except ConnectionRefusedError:
        return LINE.bad(
            "dial.refused",
            f"{what} 拒绝连接：主机在，但端口没有服务",
            f"{what} refuses: the host is there, nothing listens",
            "检查端口号；有的设备只允许一个主站，先断开其他主站",
            "check the port number; some devices take one master only: disconnect the other",
            about=connector,
        )
    except OSError as error:
        return LINE.bad(
            "dial.failed",
            f"{what} 无法连接：{error.strerror or error}",
            f"{what}: {error.strerror or error}",
            "检查地址与路由",
            "check the address and the route",
            about=connector,
        )
    return LINE.ok("dial.fine", f"{what} 可连接", f"{what} answers", about=connector)


def listens(connector: str, listen: str) -> Iterator[Finding]:
    """Whether we could listen there. Only where no agent of ours runs."""
    try:
        host, port = split_address(listen, "listen")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except ConfigError as error:
        yield CONFIG.bad(
            "listen.wrong",
            str(error),
            str(error),
            "改正配置中的 listen，写成 地址:端口",
            "correct `listen` in the configuration: address:port",
            about=connector,
        )
    except OSError as error:
        busy = error.errno == errno.EADDRINUSE
        yield LINE.bad(
            "listen.busy" if busy else "listen.failed",
            f"{listen} {'已被其他程序占用' if busy else f'不能监听：{error.strerror}'}",
            f"{listen} {'is taken by another program' if busy else f'cannot be listened on: {error.strerror}'}",
            "`ss -ltnp` 查看占用者；1024 以下端口需要特权" if busy else "检查本机是否有该地址；1024 以下端口需要特权",
            "`ss -ltnp` names the program" if busy else "is the address one of ours? ports below 1024 need a right",
            about=connector,
        )
    else:
        yield LINE.ok("listen.free", f"{listen} 可监听", f"{listen} is free", about=connector)
