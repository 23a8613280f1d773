"""Session tokens: signed, dated, and void when the password changes or the operator leaves.

A token says who, since when, and carries an id and a fingerprint of the password hash. Nothing is stored for a living
session; a log-out writes the id into ``setting`` until the token would have ended anyway. The same token serves as a
cookie and as an HTTP bearer token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from itsdangerous import BadSignature, URLSafeSerializer

COOKIE = "citybrain_session"


@dataclass(frozen=True, slots=True)
class Token:
    sid: str
    name: str
    issued_s: int
    expires_s: int
    fingerprint: str


class Sessions:
    def __init__(self, key: bytes, hours: float) -> None:
        self._key = key
        self._seconds = int(hours * 3600)
        self._serializer = URLSafeSerializer(
            key, salt="citybrain.session.1", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def issue(self, name: str, password_hash: str, now_s: float) -> tuple[str, Token]:
        token = Token(
            secrets.token_urlsafe(12), name, int(now_s), int(now_s) + self._seconds, self.fingerprint(password_hash)
        )
        text = self._serializer.dumps([token.sid, token.name, token.issued_s, token.expires_s, token.fingerprint])
        return str(text), token

    def read(self, text: str, now_s: float) -> Token | None:
        """The token if we signed it and it has not ended."""
        try:
            token = Token(*self._serializer.loads(text))
        except (BadSignature, TypeError, ValueError):
            return None
        return token if token.expires_s > now_s else None

    def fingerprint(self, password_hash: str) -> str:
        return hmac.new(self._key, password_hash.encode(), hashlib.sha256).hexdigest()[:16]

    def csrf(self, sid: str) -> str:
        """What a form sends along with an unsafe request made with the cookie."""
        return hmac.new(self._key, b"csrf:" + sid.encode(), hashlib.sha256).hexdigest()[:32]


def load_key(state_dir: Path) -> bytes:
    """The signing key of this core; made at the first start, readable by its user alone."""
    path = state_dir / "session.key"
    state_dir.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) < 32:
            raise ValueError(f"{path}: shorter than 32 bytes; remove it to have a new one made") from None
        return key
    key = secrets.token_bytes(32)
    with os.fdopen(handle, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key
