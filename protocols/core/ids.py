"""Identities: time-ordered ones for what is born here and now, derived ones for what must come out the same again."""

from __future__ import annotations

import hashlib
import os
import uuid


def uuid7(now_ms: int) -> str:
    """A version 7 UUID (RFC 9562 section 5.7): sorts by time, 74 random bits."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (
        (now_ms & ((1 << 48) - 1)) << 80
        | 0x7 << 76
        | (random >> 68 & 0xFFF) << 64
        | 0b10 << 62
        | random & (1 << 62) - 1
    )
    return str(uuid.UUID(int=value))


def derived_id(*parts: object) -> str:
    """A version 8 UUID from the SHA-256 of the parts: the same happening always gets the same identity."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    value = int.from_bytes(digest[:16], "big")
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return str(uuid.UUID(int=value))
