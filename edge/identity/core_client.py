"""HTTPS to the core for enrolment and renewal: small, bounded, and nothing secret before the core is verified."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from protocols.core.errors import ConfigError, LinkDown, LinkRefused

_TIMEOUT_S = 15.0
_ANSWER_BYTES = 256 << 10
_API = "/api/v1"


class CoreRefused(LinkRefused):
    """The core understood and said no. ``problem``: its stable code; ``status``: HTTP."""

    def __init__(self, status: int, problem: str, detail: str) -> None:
        super().__init__(f"the core refuses: {detail or problem} ({status}, {problem})")
        self.status = status
        self.problem = problem


def split_core(url: str) -> tuple[str, int]:
    """Host and port of https://host[:port]. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r}: {error}") from error
    if parts.scheme != "https" or not host or parts.path.strip("/") or parts.query:
        raise ConfigError(f"{url!r} is not https://host or https://host:port")
    return host, port or 443


def ask(core: str, method: str, path: str, body: dict[str, Any] | None, context: ssl.SSLContext) -> dict[str, Any]:
    """One request, one JSON object. Raises LinkDown, CoreRefused, ConfigError."""
    host, port = split_core(core)
    connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    try:
        headers = {"content-type": "application/json", "accept": "application/json"}
        connection.request(method, _API + path, json.dumps(body).encode() if body is not None else None, headers)
        answer = connection.getresponse()
        raw = answer.read(_ANSWER_BYTES + 1)
    except ssl.SSLCertVerificationError as error:
        raise LinkRefused(f"core {host}:{port} is not the city's: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise LinkDown(f"core {host}:{port}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    try:
        said = json.loads(raw) if len(raw) <= _ANSWER_BYTES else None
    except ValueError:
        said = None
    if answer.status >= 500:
        raise LinkDown(f"core {host}:{port} answers {answer.status}")
    if not isinstance(said, dict):
        raise LinkDown(f"core {host}:{port} does not answer as a core would (status {answer.status})")
    if answer.status >= 400:
        raise CoreRefused(answer.status, str(said.get("code", "?"))[:64], str(said.get("detail", ""))[:200])
    return said


def fetch_root(core: str, fingerprint: str) -> str:
    """The city's root certificate, PEM, if it is the one whose SHA-256 we were told. Raises LinkRefused, LinkDown.

    The connection is not verified (there is nothing to verify it with yet) and carries nothing secret; what comes back
    is believed for its fingerprint alone."""
    wanted = fingerprint.replace(":", "").replace(" ", "").lower()
    if len(wanted) != 64 or any(c not in "0123456789abcdef" for c in wanted):
        raise ConfigError("the CA fingerprint is the 64 hexadecimal digits of a SHA-256")
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    pem = str(ask(core, "GET", "/enrol/ca", None, blind).get("root_pem", ""))
    try:
        der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    except ValueError as error:
        raise LinkRefused("the core shows no readable root certificate") from error
    if not hmac.compare_digest(hashlib.sha256(der).hexdigest(), wanted):
        raise LinkRefused("this is not the core on the label: its CA has another fingerprint. 根证书指纹与标签不符")
    return pem
