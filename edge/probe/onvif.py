"""Cameras on this network by WS-Discovery: one question to everybody, answers for a few seconds. Reads only.

Our own, because the one library there is answers as a host of its own on port 3702, works by threads and trusts the XML
it gets; asking needs one socket and forty lines. Answers come from anybody: size and number are bounded, document types
refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

GROUP = ("239.255.255.250", 3702)
MOST_FOUND = 4_096
MOST_BYTES = 16_384
#: The question is sent again: it is a datagram, and the network may be busy answering.
REPEATS, REPEAT_S = 3, 0.4

_ADDRESSING = "{http://schemas.xmlsoap.org/ws/2004/08/addressing}"
_DISCOVERY = "{http://schemas.xmlsoap.org/ws/2005/04/discovery}"
_SCOPE = re.compile(r"onvif://www\.onvif\.org/([A-Za-z_]+)/(.*)")


@dataclass(frozen=True, slots=True)
class Found:
    """One camera that answered. ``address``: ``host:port`` for the configuration; ``endpoint``: its own identity."""

    address: str
    name: str = ""
    hardware: str = ""
    location: str = ""
    endpoint: str = ""
    xaddrs: tuple[str, ...] = ()


def question(message_id: str) -> bytes:
    """A probe for network video transmitters."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
        'xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" '
        'xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery" '
        'xmlns:n="http://www.onvif.org/ver10/network/wsdl">'
        f"<s:Header><a:MessageID>urn:uuid:{message_id}</a:MessageID>"
        "<a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>"
        "<a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action></s:Header>"
        "<s:Body><d:Probe><d:Types>n:NetworkVideoTransmitter</d:Types></d:Probe></s:Body></s:Envelope>"
    ).encode()


def answers(data: bytes, source: str) -> list[Found]:
    """What an answer says; [] for what is none. ``source``: the host it came from, for cameras that name an address we
    cannot reach."""
    if len(data) > MOST_BYTES or b"<!" in data.replace(b"<!--", b""):
        return []
    try:
        # No document type gets here, so there is nothing to expand.
        tree = ET.fromstring(data)  # noqa: S314
    except (ET.ParseError, ValueError):
        return []
    out = []
    for match in list(tree.iter(f"{_DISCOVERY}ProbeMatch"))[:64]:
        xaddrs = tuple((match.findtext(f"{_DISCOVERY}XAddrs") or "").split()[:8])
        scopes = {
            found[1].lower(): unquote(found[2])
            for scope in (match.findtext(f"{_DISCOVERY}Scopes") or "").split()[:64]
            if (found := _SCOPE.match(scope))
        }
        endpoint = match.findtext(f"{_ADDRESSING}EndpointReference/{_ADDRESSING}Address") or ""
        address = _address(xaddrs, source)
        out.append(
            Found(
                address, scopes.get("name", "")[:64], scopes.get("hardware", "")[:64],
                scopes.get("location", "")[:64], endpoint.strip()[:128], xaddrs,
            )
        )  # fmt: skip
    return out


def _address(xaddrs: Sequence[str], source: str) -> str:
    """The web service's address on the host that answered, else the first one named."""
    places = []
    for text in xaddrs:
        with contextlib.suppress(ValueError):
            parts = urlsplit(text)
            places.append((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)))
    port = next((port for host, port in places if host == source), places[0][1] if places else 80)
    return f"{source}:{port}"


class _Listener(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.found: dict[str, Found] = {}

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        for one in answers(data, str(addr[0])):
            if len(self.found) < MOST_FOUND:
                self.found.setdefault(one.endpoint or one.address, one)

    def error_received(self, exc: Exception) -> None:
        """No route on one interface says nothing about the others."""


async def discover(timeout_s: float, targets: Sequence[tuple[str, int]] = ()) -> list[Found]:
    """Ask and listen for ``timeout_s``; each camera once, by address. ``targets``: ask these hosts directly instead of
    everybody (a network that does not carry multicast)."""
    loop = asyncio.get_running_loop()
    found: dict[str, Found] = {}
    transports: list[asyncio.DatagramTransport] = []
    listeners: list[_Listener] = []
    try:
        for interface in [0] if targets else _interfaces():
            with contextlib.suppress(OSError):
                transport, listener = await loop.create_datagram_endpoint(_Listener, sock=_socket(interface))
                transports.append(transport)
                listeners.append(listener)
        data = question(str(uuid.uuid4()))  # the same identity each time: who has answered need not again
        until_s = loop.time() + timeout_s
        for _ in range(REPEATS):
            for transport in transports:
                for target in targets or [GROUP]:
                    transport.sendto(data, target)
            await asyncio.sleep(min(REPEAT_S, max(0.0, until_s - loop.time())))
        await asyncio.sleep(max(0.0, until_s - loop.time()))
    finally:
        for transport in transports:
            transport.close()
    for listener in listeners:
        found |= listener.found
    return sorted(found.values(), key=lambda one: one.address)


def _interfaces() -> list[int]:
    """Every interface but the loopback; the system's choice where they cannot be listed."""
    with contextlib.suppress(OSError):
        return [index for index, name in socket.if_nameindex() if name != "lo"] or [0]
    return [0]


def _socket(interface: int) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setblocking(False)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)  # this network only
    if interface:
        one.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"\0" * 4, b"\0" * 4, interface)
        )
    one.bind(("", 0))
    return one


def snippet(found: Sequence[Found]) -> str:
    """A connector for what was found, as TOML to paste; the login is the installer's to fill in."""
    out = ["[[connector]]", 'id = "onvif"', 'kind = "onvif"']
    for number, one in enumerate(found, 1):
        about = " ".join(part for part in (one.name, one.hardware, one.location) if part)
        out += ["", f"# {about}" if about else "#", "[[connector.device]]", f'id = "camera-{number}"']
        out += ['type = "camera/onvif_ptz"', f'address = "{one.address}"', 'username = "admin"']
        out.append(f'password_file = "camera-{number}.secret"')
    return "\n".join(out) + "\n"
