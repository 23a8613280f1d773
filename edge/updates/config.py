"""Where a gateway gets its updates from and how much room they may take."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from protocols.core.errors import ConfigError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class UpdatesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed updates from the core. Who signs is what the root file says, not who answers at the address."""

    url: str = ""  # https://core:8600/updates/ ; "" switches updates off. http is taken on loopback alone
    root_file: str = "updates-root.json"  # the trusted root, put here at enrolment
    ca_file: str = ""  # certificate authority of the web server; "": the system's
    max_disk_mb: Annotated[int, msgspec.Meta(ge=16)] = 2048  # downloads, slots and content together
    keep_free_mb: Annotated[int, msgspec.Meta(ge=0)] = 64  # never fill the disk further than this
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0  # silence of the server
    max_kbit_s: Annotated[int, msgspec.Meta(ge=0)] = 0  # pace of downloads; 0: as fast as it goes


def check(config: UpdatesConfig) -> None:
    """Raises ConfigError."""
    if not config.url:
        return
    parts = urlsplit(config.url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ConfigError(f"url {config.url!r}: https://host/updates/")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigError(f"url {config.url!r}: http is for loopback alone; take https")
