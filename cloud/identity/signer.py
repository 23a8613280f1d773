"""Who signs gateways: the built-in authority, or somebody else's by a command of theirs.

An outside authority's answer is not believed blindly: it must be for the key that was asked for, name the gateway as
the broker's rules expect it, and chain to the root that gateways will trust.
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from cloud.identity.ca import Issued, LocalCa, root_fingerprint, serial_of
from cloud.identity.config import IdentitySettings
from cloud.identity.errors import IdentityRefused
from cloud.identity.names import gateway_of
from protocols.core.errors import ConfigError, StoreError

_COMMAND_S = 30.0


class Signer(Protocol):
    root_pem: str

    @property
    def fingerprint(self) -> str: ...
    def issue(self, gateway_id: str, csr: x509.CertificateSigningRequest, now: dt.datetime, days: float) -> Issued: ...
    def verify(self, pem: str) -> x509.Certificate:
        """The leaf, if it is this authority's; dates are not looked at. Raises ValueError."""
        ...


class Builtin:
    """The authority of :class:`LocalCa` as a signer."""

    def __init__(self, ca: LocalCa) -> None:
        self.ca = ca
        self.root_pem = ca.root_pem
        self.fingerprint = ca.fingerprint

    def issue(self, gateway_id: str, csr: x509.CertificateSigningRequest, now: dt.datetime, days: float) -> Issued:
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise IdentityRefused("the key must be an elliptic one", reason="request")
        return self.ca.issue_gateway(gateway_id, key, now, days)

    def verify(self, pem: str) -> x509.Certificate:
        return self.ca.verify(pem)


class Command:
    """Runs ``argv`` for each certificate; it may take 30 s."""

    def __init__(self, argv: tuple[str, ...], roots: Path) -> None:
        self._argv = argv
        try:
            self.root_pem = roots.read_text()
            self._roots = x509.load_pem_x509_certificates(self.root_pem.encode())
        except (OSError, ValueError) as error:
            raise ConfigError(f"identity.sign_roots {roots}: {error}") from error
        self.fingerprint = root_fingerprint(self.root_pem.encode())

    def issue(self, gateway_id: str, csr: x509.CertificateSigningRequest, now: dt.datetime, days: float) -> Issued:
        environment = {
            "CITYBRAIN_GATEWAY": gateway_id,
            "CITYBRAIN_DAYS": f"{days:g}",
            "PATH": os.environ.get("PATH", ""),
        }
        try:
            done = subprocess.run(
                self._argv,
                input=csr.public_bytes(serialization.Encoding.PEM),
                capture_output=True,
                timeout=_COMMAND_S,
                env=environment,
                check=True,
            )
            chain = x509.load_pem_x509_certificates(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise StoreError(f"the outside authority gave no certificate: {type(error).__name__}") from error
        leaf = chain[0]
        if leaf.public_key() != csr.public_key() or gateway_of(leaf) != gateway_id:
            raise StoreError("the outside authority's certificate is for another key or another name")
        self._verify_chain(chain, now)
        pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain).decode()
        return Issued(serial_of(leaf), pem, leaf.not_valid_before_utc, leaf.not_valid_after_utc)

    def verify(self, pem: str) -> x509.Certificate:
        chain = x509.load_pem_x509_certificates(pem.encode())
        self._verify_chain(chain, chain[0].not_valid_before_utc + dt.timedelta(seconds=1))
        return chain[0]

    def _verify_chain(self, chain: list[x509.Certificate], at: dt.datetime) -> None:
        verifier = PolicyBuilder().store(Store(self._roots)).time(at).build_client_verifier()
        try:
            verifier.verify(chain[0], chain[1:])
        except VerificationError as error:
            raise ValueError(f"does not chain to the root of identity.sign_roots: {error}") from error


def open_signer(settings: IdentitySettings, state_dir: Path, name: str, now: dt.datetime) -> Signer:
    """Raises ConfigError."""
    if settings.sign_command:
        return Command(settings.sign_command, Path(settings.sign_roots))
    return Builtin(LocalCa.create(state_dir / settings.ca_dir, name, now, passphrase(settings.ca_passphrase_file)))


def passphrase(path: str) -> bytes | None:
    """Raises ConfigError."""
    if not path:
        return None
    try:
        return Path(path).read_bytes().strip() or None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
