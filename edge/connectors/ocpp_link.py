"""Charging stations' WebSockets as links: one message a read, lines parted again on writing.

The handshake decides here: sub-protocol (the version), the station's name from the path, password, certificate. What
a station is told about a refusal is the HTTP status only.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import ssl
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from edge.connectors.base import Link
from edge.connectors.road_config import OcppServerConfig
from protocols.core.errors import ConfigError, LinkDown, LinkRefused
from protocols.ocpp.frame import MAX_BYTES, SUBPROTOCOLS, Version

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response
    from websockets.typing import Subprotocol

log = logging.getLogger(__name__)

#: A handshake that takes longer is given up: half-open connections must not pile up.
HANDSHAKE_S = 10.0
#: Mobile networks drop what is silent for some minutes; a ping finds out.
PING_S = 60.0
MAX_IDENTITY = 48


class OcppLink:
    """One station's connection. ``identity`` and ``version`` come from the handshake."""

    def __init__(self, link: Link, identity: str, version: Version) -> None:
        self._link = link
        self.identity = identity
        self.version: Version = version

    async def read(self) -> bytes:
        return await self._link.read()

    async def write(self, data: bytes) -> None:
        await self._link.write(data)

    async def close(self) -> None:
        await self._link.close()


class _Socket:
    """A WebSocket as a Link."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        from websockets.exceptions import ConnectionClosed

        while True:
            try:
                data = await self._socket.recv()
            except ConnectionClosed:
                return b""
            if data:  # an empty message says nothing, and nothing means closed to whoever reads links
                return data.encode() if isinstance(data, str) else data

    async def write(self, data: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            for line in data.split(b"\n"):
                if line:
                    await self._socket.send(line.decode("utf-8"))
        except ConnectionClosed as error:
            raise LinkDown(f"websocket closed: {error}") from error

    async def close(self) -> None:
        await self._socket.close()


def identity_of(path: str) -> str:
    """The station's name: the last part of the path, "" if there is none."""
    return unquote(urlsplit(path).path.rstrip("/").rpartition("/")[2])[:MAX_IDENTITY]


def entries(file: Path) -> dict[str, str]:
    """``name value`` lines; # begins a remark. Raises ConfigError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from error
    out: dict[str, str] = {}
    for line in lines:
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            out[name] = value.strip()
    return out


def password_fits(header: str, identity: str, stored: str) -> bool:
    """Whether an Authorization header carries that station's password. Keys of OCPP 1.6 security are bytes; they are
    stored as hex and sent as they are, or as the hex text (fact sheet "Security profiles")."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "basic" or not stored:
        return False
    try:
        user, colon, password = base64.b64decode(given.strip(), validate=True).partition(b":")
    except binascii.Error:
        return False
    right_user = hmac.compare_digest(user, identity.encode())
    plain = hmac.compare_digest(password, stored.encode())
    as_hex = hmac.compare_digest(password.hex(), stored.lower())
    return bool(colon) and right_user and (plain or as_hex)


def _chosen(socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The newest version that both speak. With none in common the handshake is finished all the same, as the standard
    wants, and the connection closed then."""
    return next(
        (one for one in offered if one == "ocpp2.0.1"), next((one for one in offered if one in SUBPROTOCOLS), None)
    )


class OcppListener:
    """Listens and hands over each station that got through the handshake."""

    def __init__(
        self, config: OcppServerConfig, where: tuple[str, int], base: Path, refused: Callable[[str, str], None]
    ) -> None:
        self._config = config
        self._host, self._port = where
        self._base = base
        self._refused = refused
        self._arrived: asyncio.Queue[Link] = asyncio.Queue()
        self._server: Server | None = None

    @property
    def port(self) -> int:
        """The real one once open, also when 0 was asked for."""
        return self._port

    async def accept(self) -> Link:
        """The next station."""
        return await self._arrived.get()

    async def open(self) -> None:
        """Raises LinkDown, LinkRefused, ConfigError."""
        from websockets.asyncio.server import serve

        try:
            self._server = await serve(
                self._serve,
                self._host,
                self._port,
                select_subprotocol=_chosen,
                process_request=self._judge,
                ssl=self._tls(),
                compression=None,  # of little use on short texts, and 300 kB of memory a station
                open_timeout=HANDSHAKE_S,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                max_size=MAX_BYTES,
                max_queue=8,
                server_header=None,
                logger=logging.getLogger("citybrain.edge.websockets"),
            )
        except PermissionError as error:
            raise LinkRefused(f"listen on {self._host}:{self._port}: {error.strerror}") from error
        except OSError as error:
            raise LinkDown(f"listen on {self._host}:{self._port}: {error.strerror or error}") from error
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _tls(self) -> ssl.SSLContext | None:
        config = self._config
        if not config.tls_cert_file:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._base / config.tls_cert_file, self._base / config.tls_key_file)
            if config.client_ca_file:
                context.load_verify_locations(self._base / config.client_ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"connector {config.id!r}: tls: {error}") from error
        return context

    def _judge(self, socket: ServerConnection, request: Request) -> Response | None:
        """None lets the handshake go on."""
        identity = identity_of(request.path)
        if not identity:
            self._refused("path", "a station's URL ends with its name")
            return socket.respond(HTTPStatus.NOT_FOUND, "")
        if not self._config.passwords_file:
            return None
        try:
            stored = entries(self._base / self._config.passwords_file).get(identity, "")
        except ConfigError as error:
            log.error("%s: %s", self._config.id, error)
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")
        if password_fits(request.headers.get("Authorization", ""), identity, stored):
            return None
        self._refused("password", f"station {identity!r} has no or another password")
        answer = socket.respond(HTTPStatus.UNAUTHORIZED, "")
        answer.headers["WWW-Authenticate"] = 'Basic realm="charging"'
        return answer

    async def _serve(self, socket: ServerConnection) -> None:
        version = SUBPROTOCOLS.get(socket.subprotocol or "")
        request: Any = socket.request
        if version is None or request is None:
            self._refused("subprotocol", "the station offers neither ocpp1.6 nor ocpp2.0.1")
            return  # which closes the connection, the handshake having been finished as the standard wants
        link = _Socket(socket)
        await self._arrived.put(OcppLink(link, identity_of(request.path), version))
        await socket.wait_closed()  # by either side; returning any sooner would close it
