"""Whose address a request really comes from, and whether it came by HTTPS.

Behind a proxy every connection comes from the proxy; who asked stands in ``X-Forwarded-For``. Anybody can write that
line, so it is believed only from the networks in ``trusted_proxies``, and read from its right end: each hop was written
by the one to the right of it, and the first that is no proxy of ours is the caller. What stands to the left of it is
only his word.

```
 X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.7     connection from 10.0.0.8     trusted_proxies = ["10.0.0.0/24"]
                  made up  ^ the caller  ours                        ours
```
It stands before everything else and writes the answer into the request's scope, so that log-in, audit, brakes and
limits read one and the same address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Raises ValueError; also for a network that holds everybody, whose word would be worth nothing."""
    found = tuple(ipaddress.ip_network(text) for text in texts)
    for network in found:
        if network.prefixlen == 0:
            raise ValueError(f"{network} is everybody")
    return found


def address_of(text: str) -> Address | None:
    """An address as proxies write it: plain, in brackets, with a port, an IPv4 address in IPv6's clothes."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def caller(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address that counts. ``peer``: the connection's other end; ``forwarded``: the hops, as they stand."""
    found = address_of(peer)
    if found is None:
        return peer
    hops = list(forwarded)
    while hops and any(found in network for network in trusted):
        hop = address_of(hops.pop())
        if hop is None:
            break  # garbled: whoever handed it on is the last one we know
        found = hop
    return str(found)


class Proxies:
    """ASGI middleware, the outermost."""

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope.get("client"):
            self._look(scope)
        await self._app(scope, receive, send)

    def _look(self, scope: Scope) -> None:
        peer, port = scope["client"]
        found = address_of(peer)
        if found is None:
            return
        if not any(found in network for network in self._trusted):
            scope["client"] = (str(found), port)
            return
        headers = Headers(scope=scope)
        hops = [hop for line in headers.getlist("x-forwarded-for") for hop in line.split(",")]
        real = caller(peer, hops, self._trusted)
        scope["client"] = (real, port if real == str(found) else 0)
        said = headers.getlist("x-forwarded-proto")
        proto = said[-1].rpartition(",")[2].strip().lower() if said else ""
        if proto in ("http", "https"):
            plain = {"http": "ws", "https": "wss"} if scope["type"] == "websocket" else {}
            scope["scheme"] = plain.get(proto, proto)
