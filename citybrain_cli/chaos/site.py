"""What this machine allows: namespaces of our own, a cable between them, disks that can be filled.

The harness moves into a network and a mount namespace of its own before it does anything: there is no route out of it,
and what it mounts is gone with its last process. Where that is not allowed it does without, and the report says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_INSIDE = "CITYBRAIN_CHAOS_INSIDE"


@dataclass(frozen=True, slots=True)
class Site:
    """``network``: ``namespaces`` or ``proxy``. ``disks``: ``ext4 image``, ``tmpfs`` or ``none`` (cannot be filled)."""

    inside: bool
    network: str
    disks: str


def go_inside(python: Sequence[str]) -> None:
    """Start this very program anew in namespaces of its own; returns only where that is not allowed or done already.

    ``python``: the interpreter's arguments, e.g. ``["-m", "citybrain_cli.main", "chaos", "--minutes", "1"]``."""
    if os.environ.get(_INSIDE) or os.geteuid() != 0 or shutil.which("unshare") is None:
        return
    wanted = ["unshare", "--net", "--mount", "--propagation", "private"]
    if subprocess.run([*wanted, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode:
        return
    os.environ[_INSIDE] = "1"
    os.execvp("unshare", [*wanted, sys.executable, *python])  # noqa: S606


def look(network: str) -> Site:
    """``network``: ``auto``, ``namespaces`` or ``proxy``."""
    inside = bool(os.environ.get(_INSIDE))
    if inside:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    cable = inside and shutil.which("nsenter") is not None and os.access("/dev/net/tun", os.R_OK | os.W_OK)
    chosen = "namespaces" if cable and network in ("auto", "namespaces") else "proxy"
    return Site(inside, chosen, "ext4 image" if inside else "none")


def mount_disk(image: Path, folder: Path, size_bytes: int) -> str:
    """A disk of its own at ``folder``; returns its kind (``none``: it stayed an ordinary folder)."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    with image.open("wb") as file:
        file.truncate(size_bytes)  # sparse: takes what is written to it
    made = shutil.which("mkfs.ext4") is not None and _quiet(
        ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(image)]
    )
    if made and _quiet(["mount", "-o", "loop", str(image), str(folder)]):
        shutil.rmtree(folder / "lost+found", ignore_errors=True)
        return "ext4 image"
    image.unlink(missing_ok=True)
    if _quiet(["mount", "-t", "tmpfs", "-o", f"size={min(size_bytes, 2 << 30)}", "tmpfs", str(folder)]):
        return "tmpfs"
    return "none"


def unmount(folder: Path) -> None:
    _quiet(["umount", "-l", str(folder)])


def fill(folder: Path) -> Path:
    """Take all the room that is left on a disk; returns the file that holds it."""
    ballast = folder / "ballast"
    with ballast.open("ab") as file:
        step = 1 << 30
        while step >= 4096:
            free = os.statvfs(folder)
            wanted = min(step, free.f_bavail * free.f_frsize)
            try:
                if wanted < 4096:
                    break
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), wanted)
            except OSError:
                step //= 2
    return ballast


def _quiet(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
