"""The built-in certificate authority: a root that may go into a safe, an issuing key that signs gateways and servers.

```
 root.pem ──signs──▶ issuing.pem ──signs──▶ gateway (client, days)   broker, core (server)   core (client)
 root.key (may be taken offline)  issuing.key (0600, may have a passphrase)
```
X.509 after RFC 5280; ECDSA on P-256 with SHA-256. A gateway trusts the root by its fingerprint, which stands in the
claim's QR code.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.identity.names import gateway_uri
from protocols.core.errors import ConfigError

#: A gateway whose clock is slow must not find its new certificate "not yet valid".
BACKDATE = dt.timedelta(hours=1)
_ROOT_DAYS, _ISSUING_DAYS, SERVER_DAYS = 20 * 365, 10 * 365, 397
_FILES = ("root.pem", "issuing.pem", "issuing.key")
EcKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """``serial``: lower-case hexadecimal. ``pem``: the certificate and its chain, without the root."""

    serial: str
    pem: str
    not_before: dt.datetime
    not_after: dt.datetime


def serial_of(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def root_fingerprint(pem: bytes) -> str:
    """SHA-256 of the root's DER form, lower-case hexadecimal. Raises ConfigError."""
    try:
        root = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ConfigError("the CA's certificate is not readable") from error
    return hashlib.sha256(root.public_bytes(serialization.Encoding.DER)).hexdigest()


class LocalCa:
    """Opens the authority in ``folder``; :meth:`create` makes it."""

    def __init__(self, folder: Path, passphrase: bytes | None = None) -> None:
        missing = [name for name in _FILES if not (folder / name).exists()]
        if missing:
            raise ConfigError(f"{folder}: no certificate authority here ({', '.join(missing)} missing); run `ca init`")
        try:
            self.root_pem = (folder / "root.pem").read_text()
            self.issuing = x509.load_pem_x509_certificate((folder / "issuing.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "issuing.key").read_bytes(), passphrase)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{folder}: the issuing key cannot be opened ({type(error).__name__})") from error
        if not isinstance(key, EcKey) or key.public_key() != self.issuing.public_key():
            raise ConfigError(f"{folder}: issuing.key does not belong to issuing.pem")
        self._key: EcKey = key
        self._issuing_pem = _pem(self.issuing)

    @classmethod
    def create(cls, folder: Path, name: str, now: dt.datetime, passphrase: bytes | None = None) -> LocalCa:
        """Make root and issuing certificate, unless they are there. Raises ConfigError."""
        if not (folder / "issuing.pem").exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            root_key, issuing_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
            root_name, issuing_name = _name(f"{name} root CA"), _name(f"{name} gateway CA")
            root = _authority(root_name, root_key, root_name, root_key, now, _ROOT_DAYS, depth=1)
            issuing = _authority(issuing_name, issuing_key, root_name, root_key, now, _ISSUING_DAYS, depth=0)
            write_private(folder / "root.key", _key_pem(root_key, passphrase))
            write_private(folder / "issuing.key", _key_pem(issuing_key, passphrase))
            write_private(folder / "root.pem", _pem(root).encode())
            write_private(folder / "issuing.pem", _pem(issuing).encode())  # last: its presence says that all is there
        return cls(folder, passphrase)

    @property
    def fingerprint(self) -> str:
        return root_fingerprint(self.root_pem.encode())

    def chain_pem(self) -> str:
        """Everything a verifier needs: issuing certificate and root."""
        return self._issuing_pem + self.root_pem

    def issue_gateway(self, gateway_id: str, key: ec.EllipticCurvePublicKey, now: dt.datetime, days: float) -> Issued:
        """A client certificate: CN, DNS and URI all name the gateway."""
        names: list[x509.GeneralName] = [
            x509.DNSName(gateway_id),
            x509.UniformResourceIdentifier(gateway_uri(gateway_id)),
        ]
        return self._issue(gateway_id, names, key, now, days, [ExtendedKeyUsageOID.CLIENT_AUTH])

    def issue_core(self, name: str, now: dt.datetime, days: float) -> tuple[bytes, Issued]:
        """Key and client certificate for a part of the core that speaks to the broker."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self._issue(name, [x509.DNSName(name)], key.public_key(), now, days, [ExtendedKeyUsageOID.CLIENT_AUTH])
        return _key_pem(key, None), issued

    def issue_server(
        self, hosts: Sequence[str], now: dt.datetime, days: float = SERVER_DAYS, *, calls: bool = False
    ) -> tuple[bytes, Issued]:
        """Key and server certificate for broker or core. ``hosts``: names and addresses it is reached by. ``calls``: it
        also calls its like, as the nodes of a broker do."""
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        key = ec.generate_private_key(ec.SECP256R1())
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if calls else [])]
        issued = self._issue(hosts[0], names, key.public_key(), now, days, usage)
        return _key_pem(key, None), issued

    def verify(self, pem: str) -> x509.Certificate:
        """The leaf of ``pem`` if this authority signed it; dates are not looked at. Raises ValueError."""
        leaf = x509.load_pem_x509_certificate(pem.encode())
        try:
            leaf.verify_directly_issued_by(self.issuing)
        except Exception as error:  # cryptography: InvalidSignature, TypeError, ValueError
            raise ValueError("not issued by this authority") from error
        return leaf

    def crl(self, revoked: Iterable[tuple[str, dt.datetime]], now: dt.datetime, days: float = 30) -> str:
        """Certificate revocation list (RFC 5280 section 5) as PEM. ``revoked``: serial and time."""
        number = int(now.timestamp() * 1000)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.issuing.subject)
            .last_update(now - BACKDATE)
            .next_update(now + dt.timedelta(days=days))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(_authority_key(self.issuing), critical=False)
        )
        for serial, at in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(at).build()
            builder = builder.add_revoked_certificate(entry)
        crl = builder.sign(self._key, hashes.SHA256())
        return crl.public_bytes(serialization.Encoding.PEM).decode()

    def _issue(
        self,
        name: str,
        alternative: Sequence[x509.GeneralName],
        key: ec.EllipticCurvePublicKey,
        now: dt.datetime,
        days: float,
        usage: Sequence[x509.ObjectIdentifier],
    ) -> Issued:
        until = min(now + dt.timedelta(days=days), self.issuing.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self.issuing.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(_authority_key(self.issuing), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(
            serial_of(certificate),
            _pem(certificate) + self._issuing_pem,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )


def write_private(path: Path, content: bytes) -> None:
    """Readable by us alone from the first byte on, and there whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: EcKey, passphrase: bytes | None) -> bytes:
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, digital_signature: bool = False, signs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(
    subject: x509.Name, key: EcKey, issuer: x509.Name, signer: EcKey, now: dt.datetime, days: int, *, depth: int
) -> x509.Certificate:
    signer_id = x509.SubjectKeyIdentifier.from_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer_id), critical=False)
        .sign(signer, hashes.SHA256())
    )
