"""Claim codes: what is printed on the box.

``SELECT-AAAAA-BBBBB-CCCCC-DDDDD`` in Crockford's base32 (no I, L, O, U; case and hyphens do not matter): 30 bits that
find the claim and 100 bits that prove it. Only a hash of the second half is kept; with 100 random bits behind it a
plain SHA-256 is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import urlencode

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ = str.maketrans("OIL", "011")
_SELECTOR, _SECRET, _GROUP = 6, 20, 5


@dataclass(frozen=True, slots=True)
class Code:
    selector: str
    secret: str

    @property
    def text(self) -> str:
        groups = [self.secret[at : at + _GROUP] for at in range(0, _SECRET, _GROUP)]
        return "-".join([self.selector, *groups])

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.secret.encode()).digest()

    def proves(self, kept: bytes) -> bool:
        """In constant time."""
        return hmac.compare_digest(self.hash, kept)


def new_code() -> Code:
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_SELECTOR + _SECRET))
    return Code(letters[:_SELECTOR], letters[_SELECTOR:])


def read(text: str) -> Code | None:
    """A code as somebody typed it; None for what cannot be one."""
    if len(text) > 80:
        return None
    letters = "".join(c for c in text.upper() if c not in "- \t").translate(_READ)
    if len(letters) != _SELECTOR + _SECRET or not set(letters) <= set(_ALPHABET):
        return None
    return Code(letters[:_SELECTOR], letters[_SELECTOR:])


def label_text(core_url: str, code: Code, fingerprint: str) -> str:
    """What the QR code holds: where the core is, how to know that it is the right one, and what lets the gateway in."""
    return "citybrain:enrol?" + urlencode({"core": core_url, "code": code.text, "ca": fingerprint})
