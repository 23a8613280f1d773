"""How the gateway checks whom it talks to, and shows who it is itself: one TLS context for broker and core.

A gateway without a battery clock boots in 1970, where every certificate is "not yet valid", and it may need the core to
learn the time. So while its clock is provably wrong (it shows a time before its own certificate was made) chain and
name are verified and dates are not; from the moment the clock is right they are.
"""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

from cryptography import x509

from protocols.core.errors import LinkRefused

#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL 1.1.0 and later; Python's ssl has no name for it.
NO_DATES = 0x200000


def certificate_in(path: Path) -> x509.Certificate | None:
    """The first certificate of a PEM file; None if there is none to be read."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def clock_is_wrong(certificate: x509.Certificate | None, now_s: float) -> bool:
    """Whether a clock showing ``now_s`` (seconds since 1970) cannot be right: our certificate is from its future."""
    if certificate is None:
        return now_s < dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
    return now_s < certificate.not_valid_before_utc.timestamp()


def client_context(ca_file: str, cert_file: str, key_file: str, now_s: float) -> ssl.SSLContext:
    """Trust ``ca_file`` alone (empty: the system's authorities); show ``cert_file``. Raises LinkRefused."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert_file:
            context.load_cert_chain(cert_file, key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise LinkRefused(f"certificate files {ca_file or '(system)'}, {cert_file or '(none)'}: {error}") from error
    if ca_file and clock_is_wrong(certificate_in(Path(cert_file)) if cert_file else None, now_s):
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | NO_DATES)
    return context
