"""Signing keys in files: PKCS #8 PEM, mode 0600, encrypted with a passphrase unless they must work unattended.

```
 offline (passphrase; a release station or a safe)     online (on the core, signs by itself)
   root      who may sign what                            online    snapshot and timestamp
   targets   which kinds there are, and their keys
   agent | models | packs | templates   the artefacts
```
An attacker who takes the core takes the online key alone: he can withhold news until the timestamp expires, but cannot
make a gateway run anything (TUF specification, sections 1.5.2 and 2.1).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # exported without saying so

from protocols.core.errors import ConfigError
from protocols.updates.names import KINDS

ONLINE = "online"
ROLES = ("root", "targets", *KINDS, ONLINE)


class Keys:
    """A folder of keys, ``<role>.pem``. ``passphrase`` opens the offline ones; empty: they are not encrypted."""

    def __init__(self, folder: Path, passphrase: bytes = b"") -> None:
        self._folder = folder
        self._passphrase = passphrase

    def path(self, role: str) -> Path:
        return self._folder / f"{role}.pem"

    def create(self, role: str, *, next_one: bool = False) -> CryptoSigner:
        """A new Ed25519 key; ``next_one`` puts it beside the one in force, as ``<role>.next.pem``, until
        :meth:`promote`. Raises ConfigError if there is one: a key is never overwritten."""
        path = self._next(role) if next_one else self.path(role)
        if path.exists():
            if next_one:  # of a change that was cut: it may be in the metadata already
                return self._load(path)
            raise ConfigError(f"{path} is there already; a key is never overwritten")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate()
        locked = self._passphrase and role != ONLINE
        encryption: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(self._passphrase) if locked else serialization.NoEncryption()
        )
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        return CryptoSigner(key)

    def promote(self, role: str) -> None:
        """The next key is the key; the old one is kept as ``<role>.<hex>.pem.old`` until somebody deletes it."""
        if self._next(role).exists():
            if self.path(role).exists():
                self.path(role).rename(self._folder / f"{role}.{secrets.token_hex(4)}.pem.old")
            self._next(role).rename(self.path(role))

    def signer(self, role: str, among: Collection[str]) -> CryptoSigner:
        """The key of that role whose id the metadata names; after a change that was cut it may be the next one.

        Raises ConfigError; neither key nor passphrase appears in the message."""
        for path in (self.path(role), self._next(role)):
            if path.exists():
                signer = self._load(path)
                if signer.public_key.keyid in among:
                    return signer
        if not self.path(role).exists():
            raise ConfigError(f"key {self.path(role)} is not there: bring the offline keys, or say where they are")
        raise ConfigError(f"key {self.path(role)} is not the one that the repository trusts for {role}")

    def _next(self, role: str) -> Path:
        return self._folder / f"{role}.next.pem"

    def _load(self, path: Path) -> CryptoSigner:
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"key {path}: {error.strerror}") from error
        for passphrase in (self._passphrase or None, None):
            try:
                key = serialization.load_pem_private_key(pem, passphrase)
            except (TypeError, ValueError):
                continue
            if not isinstance(key, Ed25519PrivateKey):
                raise ConfigError(f"key {path} is no Ed25519 key")
            return CryptoSigner(key)
        raise ConfigError(f"key {path} does not open with this passphrase")
