"""NATS's keys and tokens, as much as an answer to its authorization call needs.

Public keys are Ed25519 with a prefix byte and a CRC-16 (XMODEM), in base32; tokens are JWTs (RFC 7519) whose algorithm
is called ``ed25519-nkey``. Source: the documents of NATS, "NKeys" and "Auth Callout" (ADR-26).
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.identity.ca import write_private
from protocols.core.errors import ConfigError

_ACCOUNT = 0  # 'A' in base32
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class AccountKey:
    """Signs as the account that the broker trusts for its authorization call."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        body = bytes([_ACCOUNT]) + raw
        checked = body + binascii.crc_hqx(body, 0).to_bytes(2, "little")
        self.public = base64.b32encode(checked).rstrip(b"=").decode()

    @classmethod
    def open(cls, path: Path) -> AccountKey:
        """The key in ``path``, made at first use (0600). Raises ConfigError."""
        if not path.exists():
            raw = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            write_private(path, raw.hex().encode())
        try:
            return cls(bytes.fromhex(path.read_text().strip()))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: not a key of 32 bytes in hexadecimal ({type(error).__name__})") from error

    def sign(self, claims: dict[str, Any]) -> str:
        """The token of ``claims``; ``iss`` is added."""
        head = _b64(json.dumps(_HEADER, separators=(",", ":")).encode())
        body = _b64(json.dumps({**claims, "iss": self.public}, separators=(",", ":")).encode())
        signed = f"{head}.{body}"
        return f"{signed}.{_b64(self._key.sign(signed.encode()))}"


def claims_of(token: str) -> dict[str, Any]:
    """What a token says; its signature is not checked (the broker's own connection brought it). Raises ValueError."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("not a token of three parts")
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    if not isinstance(claims, dict):
        raise ValueError("not a token of claims")
    return claims
