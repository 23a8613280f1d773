"""PostgreSQL holds no NUL in texts: what carries one is refused where it comes in, with a clear word."""

from __future__ import annotations

from collections.abc import Mapping


def has_nul(value: object) -> bool:
    """Whether a text, or any text or key within tables and lists, holds U+0000."""
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, Mapping):
        return any(has_nul(key) or has_nul(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(has_nul(item) for item in value)
    return False
