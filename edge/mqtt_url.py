"""Where a broker is, as a configuration writes it."""

from __future__ import annotations

from urllib.parse import urlsplit

from protocols.core.errors import ConfigError


def split_url(url: str) -> tuple[bool, str, int]:
    """Broker's address: (TLS, host, port). Raises ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r}: {error}") from error
    if parts.scheme not in ("mqtt", "mqtts") or not host:
        raise ConfigError(f"{url!r} is not mqtt://host:port or mqtts://host:port")
    return parts.scheme == "mqtts", host, port or (8883 if parts.scheme == "mqtts" else 1883)


def split_urls(urls: str) -> tuple[tuple[bool, str, int], ...]:
    """The nodes of a broker cluster, their addresses parted by commas. Raises ConfigError."""
    nodes = tuple(split_url(url.strip()) for url in urls.split(","))
    if len({tls for tls, _, _ in nodes}) > 1:
        raise ConfigError(f"{urls!r}: all with TLS or all without")
    return nodes
