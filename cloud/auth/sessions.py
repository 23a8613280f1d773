"""Session tokens: signed, dated, and void when the password changes, the session is ended or nobody uses it.

A token says who, since when, and carries an id and a fingerprint of the password hash. The id names a row of
``operator_session``, which can be listed and ended; the signature keeps guesses away from the database. The same token
serves as a cookie and as an HTTP bearer token. A log-in makes a new id every time, so nobody can be made to use one
that somebody else knows.
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
PENDING_S = 300


@dataclass(frozen=True, slots=True)
class Token:
    sid: str
    name: str
    issued_s: int
    expires_s: int
    fingerprint: str


class Sessions:
    def __init__(self, key: bytes, hours: float) -> None:
        self.key = key
        self._seconds = int(hours * 3600)
        self._serializer = _serializer(key, "citybrain.session.1")
        self._pending = _serializer(key, "citybrain.second.1")

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

    def pending(self, name: str, password_hash: str, now_s: float) -> str:
        """Stands for a right password while the second factor is asked for."""
        return str(self._pending.dumps([name, int(now_s) + PENDING_S, self.fingerprint(password_hash)]))

    def read_pending(self, text: str, now_s: float) -> tuple[str, str] | None:
        """Name and fingerprint of the password; None if it is not ours or too old."""
        try:
            name, until_s, fingerprint = self._pending.loads(text)
        except (BadSignature, TypeError, ValueError):
            return None
        return (str(name), str(fingerprint)) if until_s > now_s else None

    def fingerprint(self, password_hash: str) -> str:
        return hmac.new(self.key, password_hash.encode(), hashlib.sha256).hexdigest()[:16]

    def csrf(self, sid: str) -> str:
        """What a form sends along with an unsafe request made with the cookie."""
        return hmac.new(self.key, b"csrf:" + sid.encode(), hashlib.sha256).hexdigest()[:32]


def _serializer(key: bytes, salt: str) -> URLSafeSerializer:
    return URLSafeSerializer(key, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})


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
