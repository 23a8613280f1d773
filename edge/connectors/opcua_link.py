"""The way into an OPC UA server: certificates, user, session; and the library's errors in our words."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from edge.connectors.industry_config import OpcuaConfig
from edge.connectors.secret import read_secret
from protocols.core.errors import ConfigError, LinkDown, LinkRefused, LinkTimeout, TransportError

#: A session that nobody uses is dropped by the server after this; the library's hour would fill it with dead ones.
_SESSION_MS = 60_000
#: Refusals that time does not heal.
_REFUSED = (
    "BadIdentityToken",
    "BadUserAccessDenied",
    "BadCertificate",
    "BadSecurity",
    "BadUserSignature",
    "BadNoMatch",
)


class OpcuaDoor:
    """What opens sessions with one server. Raises ConfigError for files that cannot be read."""

    def __init__(self, config: OpcuaConfig, base: Path) -> None:
        self._config = config
        self._base = base
        self._password = read_secret(Path(config.password_file), base) if config.password_file else ""
        self._certificates: dict[str, Any] = {}
        self._application_uri = "urn:citybrain:edge"
        if config.security != "none":
            self._load_certificates()

    async def connect(self) -> tuple[Any, asyncio.Future[Exception]]:
        """A client with an active session, and what tells the end of its connection."""
        from asyncua import Client  # a gateway without OPC UA needs no asyncua

        config = self._config
        client = Client(config.url, timeout=config.timeout_s, watchdog_intervall=config.timeout_s)
        client.name = client.description = f"citybrain {config.id}"
        client.application_uri = self._application_uri
        client.session_timeout = _SESSION_MS
        gone: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def lost(error: Exception) -> None:
            if not gone.done():
                gone.set_result(error)

        client.connection_lost_callback = lost
        if config.username:
            client.set_user(config.username)
            client.set_password(self._password)
        try:
            async with asyncio.timeout(4 * config.timeout_s):
                await self._secure(client)
                await client.connect()
        except Exception as error:
            with contextlib.suppress(Exception):
                client.disconnect_socket()
            if (told := as_transport(error)) is None:
                raise
            raise told from error
        return client, gone

    async def _secure(self, client: Any) -> None:
        config = self._config
        if config.security == "none":
            return
        from asyncua import ua
        from asyncua.crypto import security_policies

        mode = ua.MessageSecurityMode.Sign if config.security == "sign" else ua.MessageSecurityMode.SignAndEncrypt
        await client.set_security(
            getattr(security_policies, f"SecurityPolicy{config.policy}"),
            self._certificates["certificate_file"],
            self._certificates["key_file"],
            server_certificate=self._certificates.get("server_certificate_file"),
            mode=mode,
        )

    def _load_certificates(self) -> None:
        """Read once, when the agent starts: what cannot be read is a mistake of the configuration. By what is in the
        file: the library goes by the end of the name and takes a PEM file called ``.key`` for DER. Raises
        ConfigError."""
        from asyncua.crypto.uacrypto import CertProperties
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        for key in ("certificate_file", "key_file", "server_certificate_file"):
            name = getattr(self._config, key)
            if not name:
                continue
            path = self._base / name
            try:
                content = path.read_bytes()
                pem = content.lstrip().startswith(b"-----")
                if key == "key_file":
                    load = serialization.load_pem_private_key if pem else serialization.load_der_private_key
                    load(content, None)
                else:
                    found = (x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate)(content)
                    if key == "certificate_file":
                        self._application_uri = _application_uri(found) or self._application_uri
            except (OSError, ValueError, TypeError) as error:  # TypeError: a key that wants a password
                raise ConfigError(f"{path}: {error}") from error
            self._certificates[key] = CertProperties(content, extension="pem" if pem else "der")


def as_transport(error: BaseException) -> TransportError | None:
    """What the library raises for a link, in our words; None for what is a programming error."""
    from asyncua import ua

    if isinstance(error, TransportError):
        return error
    if isinstance(error, ua.UaStatusCodeError):
        name = type(error).__name__
        return LinkRefused(f"{name}: {error}") if name.startswith(_REFUSED) else LinkDown(f"{name}: {error}")
    if isinstance(error, TimeoutError):
        return LinkTimeout("the server accepts but does not answer")
    if isinstance(error, OSError | ConnectionError):
        return LinkDown(str(error) or type(error).__name__)
    if isinstance(error, ua.UaError):
        text = str(error)
        return LinkRefused(text) if "No matching endpoints" in text else LinkDown(text)
    return None


def _application_uri(certificate: Any) -> str:
    """The address that our certificate was made for: servers compare it with what the session says."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris: list[str] = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else ""
