"""Names of artefacts: the kinds there are, where a target of the signed repository lies, how large one may be.

The kind is the first part of a target's path because the repository's delegations go by it: the key that may sign a
device template cannot sign an agent.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from protocols.core.errors import ContractError

Kind = Literal["agent", "models", "packs", "templates"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Bytes a packed artefact may have, and what it may unpack to.
MAX_PACKED_BYTES: dict[Kind, int] = {
    "agent": 512 << 20,
    "models": 512 << 20,
    "packs": 4 << 20,
    "templates": 1 << 20,
}
MAX_UNPACKED_BYTES: dict[Kind, int] = {
    "agent": 2048 << 20,
    "models": 512 << 20,
    "packs": 16 << 20,
    "templates": 4 << 20,
}
MAX_FILES = 50_000
#: A target for every machine; otherwise ``<system>-<machine>`` as Python names them, e.g. ``linux-aarch64``.
ANY_PLATFORM = "any"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z.+_-]{0,62}[0-9A-Za-z])?")
_PLATFORM = re.compile(r"any|[a-z0-9]+-[a-z0-9_]+")


def kind_of(text: str) -> Kind:
    """Raises ContractError ``kind``."""
    for kind in KINDS:
        if kind == text:
            return kind
    raise ContractError(f"kind {text[:40]!r}: one of {', '.join(KINDS)}", reason="kind")


def check_name(name: str) -> str:
    """The name itself. Raises ContractError ``name``. Names and versions become parts of paths: nothing else passes."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise ContractError(f"name {name[:70]!r}: lower-case letters, digits, _ . -, 64 at most", reason="name")
    return name


def check_version(version: str) -> str:
    """The version itself. Raises ContractError ``version``."""
    if not _VERSION.fullmatch(version) or ".." in version:
        raise ContractError(f"version {version[:70]!r}: letters, digits, . + _ -, 64 at most", reason="version")
    return version


def check_platform(platform: str) -> str:
    """The platform itself. Raises ContractError ``platform``."""
    if not _PLATFORM.fullmatch(platform) or len(platform) > 40:
        raise ContractError(f"platform {platform[:50]!r}: any, or as linux-aarch64", reason="platform")
    return platform


def full_path(kind: Kind, name: str, version: str, platform: str) -> str:
    """Where the whole artefact lies below ``targets/``."""
    return f"{kind}/{check_name(name)}/{check_version(version)}/{check_platform(platform)}.tar.zst"


def delta_path(kind: Kind, name: str, version: str, platform: str, base: str) -> str:
    """Where the difference to the content ``base`` (64 hex digits) lies."""
    return f"{kind}/{check_name(name)}/{check_version(version)}/{check_platform(platform)}.from-{base[:16]}.tar.zst"


def path_patterns(kind: Kind) -> list[str]:
    """What the role of that kind may sign."""
    return [f"{kind}/*/*/*"]
