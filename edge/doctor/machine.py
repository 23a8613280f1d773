"""The box itself: clock, disk, memory, load. Reads only; writes one empty file into the state folder and removes it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil

from edge.clock_kernel import Kept, kept
from edge.doctor.finding import CLOCK, MACHINE, Finding

_MB = 1 << 20
_LOWEST_YEAR, _HIGHEST_YEAR = 2025, 2100
_MOST_OFF_MS = 2_000
_DISK_BAD_MB, _DISK_LOW_MB = 100, 500
_MEMORY_LOW_MB = 64


def clock(now_ms: int, kernel: Kept | None) -> Iterator[Finding]:
    """``kernel``: what the kernel says of its clock, None where it cannot be asked."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    shown = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if not _LOWEST_YEAR <= now.year < _HIGHEST_YEAR:
        yield CLOCK.bad(
            "clock.unset",
            f"时钟显示 {shown}，显然不对",
            f"the clock shows {shown}, which cannot be right",
            "接入对时服务（systemd-timesyncd 或 chrony），并检查后备电池",
            "let a time service set it (systemd-timesyncd or chrony); look at the backup battery",
        )
    elif kernel is None:
        yield CLOCK.note(
            "clock.unasked",
            f"时钟 {shown}；系统不允许查询对时状态",
            f"clock {shown}; the system does not tell whether it is kept",
        )
    elif not kernel.synchronised:
        yield CLOCK.warn(
            "clock.free",
            f"时钟 {shown}，没有对时服务在校准",
            f"clock {shown}; no time service keeps it",
            "检查 NTP 服务器是否可达（UDP 123），启用 systemd-timesyncd 或 chrony",
            "see whether the NTP server is reachable (UDP 123); enable systemd-timesyncd or chrony",
        )
    elif kernel.most_off_ms > _MOST_OFF_MS:
        yield CLOCK.warn(
            "clock.loose",
            f"时钟最大误差 {kernel.most_off_ms} ms",
            f"the clock may be off by {kernel.most_off_ms} ms",
            "检查到 NTP 服务器的网络质量",
            "look at the network to the NTP server",
        )
    else:
        yield CLOCK.ok("clock.kept", f"时钟已对时：{shown}", f"clock kept: {shown}")


def ask_kernel() -> Kept | None:
    return kept()


def disk(state_dir: Path, outbox_bytes: int) -> Iterator[Finding]:
    """``outbox_bytes``: how large the outbox may become."""
    about = str(state_dir)
    if not state_dir.is_dir():
        yield MACHINE.warn(
            "disk.no_folder",
            f"状态目录 {state_dir} 不存在",
            f"the state folder {state_dir} is not there",
            "首次运行时自动建立；若代理运行过，检查 state_dir 与挂载",
            "the first run makes it; if the agent has run before, look at state_dir and the mounts",
            about=about,
        )
        return
    try:
        with tempfile.NamedTemporaryFile(dir=state_dir, prefix=".doctor-"):
            pass
    except OSError as error:
        yield MACHINE.bad(
            "disk.not_writable",
            f"状态目录 {state_dir} 不可写：{error.strerror}",
            f"{state_dir} cannot be written: {error.strerror}",
            "以代理的账户运行检查；检查所有者、只读挂载和磁盘是否已满",
            "run the check as the agent's user; look at the owner, read-only mounts and a full disk",
            about=about,
        )
    free = shutil.disk_usage(state_dir).free
    used = sum(path.stat().st_size for path in state_dir.glob("outbox.db*") if path.is_file())
    stat = os.statvfs(state_dir)
    if free < _DISK_BAD_MB * _MB or (stat.f_files and not stat.f_favail):
        yield MACHINE.bad(
            "disk.full",
            f"磁盘几乎已满：剩余 {free // _MB} MB",
            f"the disk is nearly full: {free // _MB} MB left",
            "清理日志或旧版本；数据不会丢失，但断网时能缓存的时间变短",
            "remove logs or old versions; nothing is lost yet, but an outage is bridged for a shorter time",
            about=about,
        )
    elif free < max(_DISK_LOW_MB * _MB, outbox_bytes - used):
        yield MACHINE.warn(
            "disk.low",
            f"磁盘剩余 {free // _MB} MB，发件箱可增长到 {outbox_bytes // _MB} MB",
            f"{free // _MB} MB of disk left, the outbox may grow to {outbox_bytes // _MB} MB",
            "释放空间，或减小 outbox.max_mb",
            "free some space, or lower outbox.max_mb",
            about=about,
        )
    else:
        yield MACHINE.ok("disk.fine", f"磁盘剩余 {free // _MB} MB", f"{free // _MB} MB of disk left", about=about)


def memory() -> Iterator[Finding]:
    found = psutil.virtual_memory()
    free_mb, all_mb = found.available // _MB, found.total // _MB
    low = free_mb < _MEMORY_LOW_MB
    yield MACHINE.judged(
        "warn" if low else "ok",
        "memory.low" if low else "memory.fine",
        f"可用内存 {free_mb} / {all_mb} MB",
        f"{free_mb} of {all_mb} MB of memory available",
        "减少摄像机或其他程序；查看 `citybrain edge status` 的 memory_mb",
        "fewer cameras or other programs; see memory_mb in `citybrain edge status`",
    )
    cores = os.cpu_count() or 1
    load = os.getloadavg()[1]
    if load > 2 * cores:
        yield MACHINE.warn(
            "load.high",
            f"五分钟平均负载 {load:.1f}，共 {cores} 核",
            f"load {load:.1f} over five minutes on {cores} cores",
            "降低摄像机帧率或检测频率，或关闭其他程序",
            "lower the cameras' frame rate or detection rate, or stop other programs",
        )
