"""The gateway's identity on its disk: private from the first byte, changed whole or not at all.

```
 identity.pem   key, certificate, chain: ONE file, so that a power cut never pairs a new key with an old certificate
 ca.pem         the city's root
 next.key next.csr   a renewal under way: kept until its answer is here, so that a repeat is the same request
```
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protocols.core.errors import ConfigError, StoreError


@dataclass(frozen=True, slots=True)
class Request:
    """A certificate request and the key it is for, both PEM."""

    key_pem: bytes
    csr_pem: str


def new_request(name: str) -> Request:
    """A fresh P-256 key and its request (PKCS #10, RFC 2986); the core writes the names itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Request(key_pem, csr.public_bytes(serialization.Encoding.PEM).decode())


class IdentityFiles:
    """Files below ``folder``. Raises StoreError where the disk does not take or give them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity = folder / "identity.pem"
        self.ca = folder / "ca.pem"
        self._next_key = folder / "next.key"
        self._next_csr = folder / "next.csr"

    def pending(self, name: str) -> Request:
        """The request under way, or a new one; durable before it is returned."""
        try:
            if self._next_csr.exists():
                return Request(self._next_key.read_bytes(), self._next_csr.read_text())
        except (OSError, ValueError):
            self.drop_pending()
        request = new_request(name)
        self._write(self._next_key, request.key_pem)
        self._write(self._next_csr, request.csr_pem.encode())  # last: its presence says that both are there
        return request

    def drop_pending(self) -> None:
        for path in (self._next_csr, self._next_key):
            path.unlink(missing_ok=True)

    def take(self, request: Request, certificate_pem: str, root_pem: str) -> None:
        """The answer is here: from now on this is who we are. Raises ConfigError for an answer to another key."""
        try:
            leaf = x509.load_pem_x509_certificate(certificate_pem.encode())
            key = serialization.load_pem_private_key(request.key_pem, None)
        except (ValueError, TypeError) as error:
            raise ConfigError("the core answered with no readable certificate") from error
        if leaf.public_key() != key.public_key():
            raise ConfigError("the core answered with a certificate for another key")
        if root_pem:
            self._write(self.ca, root_pem.encode())
        self._write(self.identity, request.key_pem + certificate_pem.encode())
        self.drop_pending()

    def certificate(self) -> x509.Certificate:
        """Raises StoreError."""
        try:
            return x509.load_pem_x509_certificate(self.identity.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.identity}: {error}") from error

    def certificate_pem(self) -> str:
        return self.certificate().public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, message: bytes) -> bytes:
        """ECDSA with SHA-256 by the key in force. Raises StoreError."""
        try:
            key = serialization.load_pem_private_key(self.identity.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{self.identity}: {type(error).__name__}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StoreError(f"{self.identity}: not an elliptic key")
        return key.sign(message, ec.ECDSA(hashes.SHA256()))

    def _write(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(path.name + ".new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
