"""Where everything of one installation lives, and what was chosen for it once: ports, passwords, topology.

```
 var/            up.json          ports, chosen at the first start and kept
                 secrets/         one file a password, 0600, generated here
                 broker/ db/      data of the embedded servers
                 core/            session key, worker configuration
                 edge/<gateway>/  configuration and outbox of each agent
                 pty/ sim/ log/
```
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocols.core.errors import ConfigError

_WANTED = {"console": 8600, "mqtt": 18830, "nats": 14222, "hj212": 19001, "crane": 15020, "rtsp": 18554}


class Ports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    console: int
    mqtt: int
    nats: int
    hj212: int
    crane: int
    rtsp: int


@dataclass(frozen=True, slots=True)
class Layout:
    root: Path
    ports: Ports
    moved: dict[str, tuple[int, int]]  # ports that were taken: name -> (wanted, chosen)

    def path(self, *parts: str) -> Path:
        """A path below the root; its folder exists."""
        full = self.root.joinpath(*parts)
        full.parent.mkdir(parents=True, exist_ok=True)
        return full

    def secret(self, name: str) -> str:
        """A generated password in a file of its own, made once."""
        path = self.path("secrets", name)
        if not path.exists():
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text(encoding="utf-8")

    def secret_path(self, name: str) -> Path:
        self.secret(name)
        return self.path("secrets", name)


def write_private(path: Path, text: str) -> None:
    """Readable by us alone from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def open_layout(root: Path, *, fresh: bool, console: int | None = None) -> Layout:
    """Make or reopen the state folder. Raises ConfigError in one line that says what to do."""
    if fresh and root.exists():
        marker = root / "up.json"
        if any(root.iterdir()) and not marker.exists():
            raise ConfigError(
                f"--fresh would delete {root}, which is not a citybrain state folder; choose another --state"
            )
        shutil.rmtree(root, ignore_errors=True)
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o755)
        (root / ".writable").write_text("")
        (root / ".writable").unlink()
    except OSError as error:
        raise ConfigError(f"{root}: {error.strerror}; choose a folder you may write with --state FOLDER") from error
    kept = _kept(root / "up.json")
    chosen: dict[str, int] = {}
    moved: dict[str, tuple[int, int]] = {}
    for name, standard in _WANTED.items():
        wanted = console if name == "console" and console else kept.get(name, standard)
        port = wanted
        while not free(port) or port in chosen.values():
            port += 1
            if port > 65_000:
                raise ConfigError(f"no free port for {name} from {wanted} on")
        if port != wanted:
            moved[name] = (wanted, port)
        chosen[name] = port
    (root / "up.json").write_text(json.dumps(chosen, indent=1))
    return Layout(root, Ports(**chosen), moved)


def _kept(path: Path) -> dict[str, int]:
    try:
        table = json.loads(path.read_text())
        return {name: int(table[name]) for name in _WANTED if name in table}
    except (OSError, ValueError, TypeError):
        return {}
