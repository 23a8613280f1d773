"""The second factor: time-based one-time codes (RFC 6238) and recovery codes for the day the telephone is gone.

A code is taken once: the time step of the last one is kept, and only later steps count. One step of drift each way is
forgiven. The secret lies sealed with the core's key, so that a copy of the database alone makes no codes; recovery
codes are kept as keyed hashes. A secret that is being set up travels sealed with the operator's name and a date, so
nothing is stored before a first code has proved that the telephone has it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

import pyotp
import segno
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

STEP_S = 30
DRIFT_STEPS = 1
RECOVERY_CODES = 10
SETUP_S = 600
_NONCE_BYTES = 12
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # read from paper: no i l o 0 1


@dataclass(frozen=True, slots=True)
class Setup:
    """What an operator is shown once. ``qr`` is an SVG as a data URI; ``sealed`` comes back with the first code."""

    secret: str
    uri: str
    qr: str
    sealed: str


class SecondFactor:
    def __init__(self, key: bytes, issuer: str = "citybrain") -> None:
        self._aead = AESGCM(hmac.digest(key, b"citybrain.totp.seal", "sha256"))
        self._hash_key = hmac.digest(key, b"citybrain.totp.recovery", "sha256")
        self._issuer = issuer

    def setup(self, name: str, now_s: float, sealed: str = "") -> Setup:
        """A new secret; or the one of a set-up that is still going on, after a code that was mistyped."""
        secret = self.read_setup(sealed, name, now_s) or pyotp.random_base32()
        uri = pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=self._issuer)
        body = json.dumps([secret, int(now_s) + SETUP_S]).encode()
        sealed = urlsafe_b64encode(self._seal(body, f"setup:{name}")).decode()
        qr = segno.make(uri, error="m", micro=False).svg_data_uri(scale=4, border=3)
        return Setup(secret, uri, str(qr), sealed)

    def read_setup(self, sealed: str, name: str, now_s: float) -> str | None:
        """The secret if we sealed it for this operator and not too long ago."""
        try:
            secret, until_s = json.loads(self._open(urlsafe_b64decode(sealed.encode()), f"setup:{name}") or b"null")
        except (ValueError, TypeError):
            return None
        return str(secret) if until_s > now_s else None

    def seal(self, secret: str, name: str) -> bytes:
        return self._seal(secret.encode(), f"totp:{name}")

    def step_of(self, sealed: bytes, name: str, code: str, now_s: float) -> int | None:
        """The time step whose code this is; None if it is none of now's. The caller takes each step once."""
        opened = self._open(sealed, f"totp:{name}")
        if opened is None:
            return None
        return self.step(opened.decode(), code, now_s)

    def step(self, secret: str, code: str, now_s: float) -> int | None:
        code = code.replace(" ", "")
        if len(code) != 6 or not (code.isascii() and code.isdecimal()):
            return None
        totp, now_step = pyotp.TOTP(secret), int(now_s) // STEP_S
        found = None
        for step in range(now_step - DRIFT_STEPS, now_step + DRIFT_STEPS + 1):
            if hmac.compare_digest(totp.generate_otp(step), code):
                found = step
        return found

    def recovery_codes(self) -> list[str]:
        """Ten codes of 49 bits, shown once."""
        return [
            "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(2))
            for _ in range(RECOVERY_CODES)
        ]

    def recovery_hash(self, name: str, code: str) -> bytes:
        plain = code.strip().lower().replace("-", "").replace(" ", "")
        return hmac.digest(self._hash_key, f"{name}\0{plain}".encode(), hashlib.sha256)

    def _seal(self, body: bytes, purpose: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, body, purpose.encode())

    def _open(self, sealed: bytes, purpose: str) -> bytes | None:
        try:
            return self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, ValueError):
            return None


def looks_like_recovery(code: str) -> bool:
    return len(code.strip().replace("-", "").replace(" ", "")) == 10
