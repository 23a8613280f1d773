"""The lock files, read: package, version, hashes, and on which machines it is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from protocols.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
LOCKS = ("edge", "vision", "cloud", "up", "dev")
_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)\s*(?:;\s*(?P<marker>.*))?")
_HASH = re.compile(r"--hash=([a-z0-9]+):([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Package:
    """``name`` as PEP 503 normalises it. ``marker``: PEP 508 condition, "" for everywhere. ``hashes``: SHA-256."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read(lock: str, root: Path = ROOT) -> list[Package]:
    """The packages of one lock. Raises ConfigError for a line that pins no version or has no SHA-256."""
    path = root / "locks" / f"{lock}.txt"
    try:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    out: list[Package] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _PIN.fullmatch(line.partition("--hash")[0].strip())
        hashes = tuple(value for kind, value in _HASH.findall(line) if kind == "sha256" and len(value) == 64)
        if found is None:
            raise ConfigError(f"{path}: not pinned to one version: {line[:60]}")
        if not hashes:
            raise ConfigError(f"{path}: {found['name']} has no SHA-256")
        out.append(Package(normal(found["name"]), found["version"], (found["marker"] or "").strip(), hashes))
    return out
