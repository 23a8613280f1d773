"""Digest login (RFC 2617; RFC 7616 for SHA-256): what a camera answers to a nonce, and which nonces count.

GB/T 28181-2016 devices use MD5, mostly without qop; the 2022 edition allows SHA-256 and SM3 and wants plain MD5 to be
switchable. A nonce is good for one registration and a short while, so a captured answer is worth nothing later.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal

ALGORITHMS = ("MD5", "SHA-256", "SM3")
_HASHES = {"MD5": "md5", "SHA-256": "sha256", "SM3": "sm3"}

Verdict = Literal["ok", "stale", "wrong"]


def _hash(algorithm: str, text: str) -> str:
    # MD5 is what cameras speak; the connector's ``md5 = false`` refuses it.
    return hashlib.new(_HASHES[algorithm], text.encode(), usedforsecurity=False).hexdigest()


def response(method: str, password: str, given: Mapping[str, str]) -> str | None:
    """The response that fits these parameters (``username``, ``realm``, ``nonce``, ``uri`` exactly as the device sent
    it, and with qop ``nc``, ``cnonce``). None for an algorithm nobody here knows."""
    algorithm = (given.get("algorithm") or "MD5").upper()
    session = algorithm.endswith("-SESS")
    algorithm = algorithm.removesuffix("-SESS")
    if algorithm not in _HASHES or _HASHES[algorithm] not in hashlib.algorithms_available:
        return None
    nonce, cnonce, qop = given.get("nonce", ""), given.get("cnonce", ""), given.get("qop", "")
    first = _hash(algorithm, f"{given.get('username', '')}:{given.get('realm', '')}:{password}")
    if session:
        first = _hash(algorithm, f"{first}:{nonce}:{cnonce}")
    second = _hash(algorithm, f"{method}:{given.get('uri', '')}")
    if qop:
        return _hash(algorithm, f"{first}:{nonce}:{given.get('nc', '')}:{cnonce}:{qop}:{second}")
    return _hash(algorithm, f"{first}:{nonce}:{second}")


def fits(method: str, password: str, given: Mapping[str, str]) -> bool:
    wanted = response(method, password, given)
    # As bytes: a stranger's text may be anything, and comparing texts in constant time takes ASCII only.
    told = given.get("response", "").lower().encode("utf-8", "surrogateescape")
    return wanted is not None and hmac.compare_digest(wanted.encode(), told)


class Nonces:
    """Issues nonces that prove their own age and owner, and remembers which were used.

    ``secret``: random bytes of this run. At most ``keep`` used ones are remembered; older ones have expired anyway
    unless more than that register within ``life_ms``."""

    def __init__(self, secret: bytes, *, life_ms: int = 60_000, keep: int = 20_000) -> None:
        self._secret = secret
        self._life_ms = life_ms
        self._keep = keep
        self._used: OrderedDict[str, int] = OrderedDict()

    def issue(self, owner: str, now_ms: int) -> str:
        return f"{now_ms:012x}{self._mac(owner, now_ms)}"

    def _mac(self, owner: str, now_ms: int) -> str:
        return hmac.new(self._secret, f"{now_ms}:{owner}".encode(), "sha256").hexdigest()[:32]

    def use(self, nonce: str, owner: str, now_ms: int) -> Verdict:
        """``ok`` once; ``stale`` for one of ours that is too old or was used; ``wrong`` for anybody else's."""
        try:
            issued_ms = int(nonce[:12], 16)
        except ValueError:
            return "wrong"
        if len(nonce) != 44 or not hmac.compare_digest(nonce[12:].encode(), self._mac(owner, issued_ms).encode()):
            return "wrong"
        while self._used and next(iter(self._used.values())) < now_ms - self._life_ms:
            self._used.popitem(last=False)
        if not 0 <= now_ms - issued_ms <= self._life_ms or nonce in self._used:
            return "stale"
        self._used[nonce] = issued_ms
        if len(self._used) > self._keep:
            self._used.popitem(last=False)
        return "ok"
