"""What an ingest worker must be told: broker, database, shards, scenarios. Frozen, from TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from protocols.core import tomlfile
from protocols.core.errors import ConfigError
from protocols.uplink.topics import SHARDS
from scenarios.binding import ScenarioBinding


class BrokerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``url``: mqtt://host:port or mqtts://host:port, or a list: the nodes of one broker cluster, tried in turn. The
    password comes from a file, never from here."""

    url: str | tuple[str, ...]
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""  # the core's client certificate with its key (core.pem of `citybrain cloud broker-rules`)
    # A broker that has vanished without a word is noticed within twice this.
    keepalive_s: Annotated[int, msgspec.Meta(ge=2, le=600)] = 5

    def nodes(self) -> tuple[tuple[bool, str, int], ...]:
        """(TLS, host, port) of each. Raises ConfigError."""
        urls = (self.url,) if isinstance(self.url, str) else self.url
        found = tuple(_node(one.strip()) for url in urls for one in url.split(","))
        if not found or len({tls for tls, _, _ in found}) > 1:
            raise ConfigError("broker.url: at least one, and all with TLS or all without")
        return found


def _node(url: str) -> tuple[bool, str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"broker.url {url!r}: {error}") from error
    if parts.scheme not in ("mqtt", "mqtts") or not host:
        raise ConfigError(f"broker.url {url!r}: mqtt://host:port or mqtts://host:port")
    tls = parts.scheme == "mqtts"
    return tls, host, port or (8883 if tls else 1883)


class WorkerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``shards``: which this worker may own (``"0-63"``, ``"3,7"``); it takes those that have gateways and no owner."""

    dsn: str
    broker: BrokerConfig
    shards: str = "0-63"
    group_messages: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 512
    scenario: tuple[ScenarioBinding, ...] = ()

    def allowed_shards(self) -> frozenset[int]:
        """Raises ConfigError."""
        out: set[int] = set()
        for part in self.shards.split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise ConfigError(f"shards: {self.shards!r} is not like 0-63 or 3,7")
            out.update(range(int(first), int(last if dash else first) + 1))
        if not out or max(out) >= SHARDS:
            raise ConfigError(f"shards: {self.shards!r}: 0 to {SHARDS - 1}")
        return frozenset(out)


def load(path: Path) -> WorkerConfig:
    """Raises ConfigError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    config = tomlfile.decode(text, WorkerConfig, str(path))
    config.allowed_shards()
    config.broker.nodes()
    return config
