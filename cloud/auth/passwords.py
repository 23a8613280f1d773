"""Passwords: hashed with argon2id, generated when nobody has chosen one, refused when too weak.

Hashing costs about 50 ms and 64 MiB on purpose, so at most two run at a time and never on the event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH = 10
MAX_LENGTH = 200  # argon2 would take more; an attacker's megabyte should not
_ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # without 0 O 1 l I: read from a screen
_hasher = PasswordHasher()  # the library's defaults are RFC 9106's low-memory profile
_workers = ThreadPoolExecutor(2, thread_name_prefix="argon2")
#: A hash of nothing anybody knows: verified for unknown names, so that they take as long as known ones.
_DECOY = _hasher.hash(secrets.token_urlsafe(24))


def generate() -> str:
    """A first password: 16 characters in groups of four, 92 bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))


def hashed(password: str) -> str:
    return _hasher.hash(password)


def verify(password: str, password_hash: str | None) -> bool:
    """Whether it fits; takes as long for a name that does not exist (None)."""
    if len(password) > MAX_LENGTH:
        return False
    try:
        return _hasher.verify(password_hash or _DECOY, password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


async def verify_async(password: str, password_hash: str | None) -> bool:
    return await asyncio.get_running_loop().run_in_executor(_workers, verify, password, password_hash)


async def hashed_async(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_workers, hashed, password)


def weakness(password: str, name: str) -> str | None:
    """Why a chosen password is refused: ``short``, ``long``, ``name``, ``simple``; None if it will do."""
    if len(password) < MIN_LENGTH:
        return "short"
    if len(password) > MAX_LENGTH:
        return "long"
    if len(name) > 2 and name.casefold() in password.casefold():
        return "name"
    if len(set(password)) < 5:
        return "simple"
    return None
