"""The core's keys in a file of their own, under a passphrase: never beside the data in one backup.

Session key, certificate authority, signing keys lie in the core's state folder, one file each. The archive is a tar of
that folder, sealed with AES-256-GCM; the key comes from the passphrase by scrypt (RFC 7914, n 2^17, r 8, p 1: 128 MB
and about half a second a guess).
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from protocols.core.errors import ConfigError, StoreError

MAGIC = b"citybrain keys 1\n"
_SALT_BYTES, _NONCE_BYTES = 16, 12
_MOST_BYTES = 64 << 20  # keys, not data: somebody has named the wrong folder
_LEAST_PASSPHRASE = 12


def _key(passphrase: str, salt: bytes) -> bytes:
    if len(passphrase) < _LEAST_PASSPHRASE:
        raise ConfigError(f"a passphrase of at least {_LEAST_PASSPHRASE} characters, please")
    return Scrypt(salt=salt, length=32, n=1 << 17, r=8, p=1).derive(passphrase.encode())


def seal(folder: Path, path: Path, passphrase: str) -> list[str]:
    """Returns the names of the files in it. Raises StoreError, ConfigError."""
    packed = io.BytesIO()
    names: list[str] = []
    size = 0
    try:
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for file in sorted(folder.rglob("*")):
                if file.is_symlink() or not file.is_file():
                    continue
                size += file.stat().st_size
                if size > _MOST_BYTES:
                    raise StoreError(f"{folder} holds more than {_MOST_BYTES >> 20} MB: is it the folder of keys?")
                name = file.relative_to(folder).as_posix()
                tar.add(file, arcname=name, recursive=False)
                names.append(name)
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, packed.getvalue(), MAGIC)
        part = path.with_name(path.name + ".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(MAGIC + salt + nonce + sealed)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except OSError as error:
        raise StoreError(f"keys of {folder}: {error}") from error
    return names


def unseal(path: Path, folder: Path, passphrase: str) -> list[str]:
    """Into a folder that is not there or empty. Raises StoreError, ConfigError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error
    head = len(MAGIC) + _SALT_BYTES + _NONCE_BYTES
    if not content.startswith(MAGIC) or len(content) < head:
        raise StoreError(f"{path} holds no keys of citybrain")
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty")
    salt = content[len(MAGIC) : len(MAGIC) + _SALT_BYTES]
    try:
        plain = AESGCM(_key(passphrase, salt)).decrypt(content[len(MAGIC) + _SALT_BYTES : head], content[head:], MAGIC)
    except InvalidTag:
        raise StoreError(f"{path}: another passphrase, or the file has been changed") from None
    names: list[str] = []
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        for member in tar:
            tar.extract(member, folder, filter="data")
            target = folder / member.name
            target.chmod(0o600)
            names.append(member.name)
    return names
