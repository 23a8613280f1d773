"""Takes secrets out of text before it leaves the gateway: known ones by value, others by their looks."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HIDDEN = "***"
_LOOKS = (
    re.compile(r"-----BEGIN [^-]*PRIVATE KEY-----.*?(-----END [^-]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user:password@ in a URL
    re.compile(
        r"(?i)\b(password|passwd|pwd|secret|token|api[-_]?key|authorization|claim|credential|密码|口令)"
        r"(\"?\s*[:=：＝]\s*\"?)((?:bearer|basic)\s+)?[^\s\"',;&)}\]]+"
    ),
    re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"\bcbt_[A-Za-z0-9_-]{8,}"),  # our own API tokens
)
_SHORTEST = 6  # a value shorter than this would take half the words out of a log


class Redactor:
    """``secrets``: values that must never be seen, whatever stands around them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(re.escape(secret) for secret in known)) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(_HIDDEN, text)
        for look in _LOOKS:
            text = look.sub(_replaced, text)
        return text


def _replaced(found: re.Match[str]) -> str:
    if found.re.groups >= 2 and found.group(2):  # name, sign: both stay readable
        return f"{found.group(1)}{found.group(2)}{_HIDDEN}"
    return _HIDDEN
