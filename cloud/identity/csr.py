"""Certificate requests (PKCS #10, RFC 2986) as strangers send them: small, of a key we trust, signed by that key.

Nothing of a request but its public key is used: subject and extensions are written by us from the claim.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.identity.errors import IdentityRefused

MAX_CSR_BYTES = 8 << 10
_CURVES = ("secp256r1", "secp384r1")


def parse(pem: str) -> x509.CertificateSigningRequest:
    """Raises IdentityRefused ``request``."""
    raw = pem.encode("utf-8", "replace")
    if len(raw) > MAX_CSR_BYTES:
        raise IdentityRefused(f"the request is longer than {MAX_CSR_BYTES} bytes", reason="request")
    try:
        request = x509.load_pem_x509_csr(raw)
        key = request.public_key()
        hash_algorithm = request.signature_hash_algorithm
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise IdentityRefused("this is no certificate request (PEM, PKCS #10)", reason="request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise IdentityRefused("the key must be an elliptic one, P-256 or P-384", reason="request")
    if not isinstance(hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise IdentityRefused("the request must be signed with SHA-256 or better", reason="request")
    if not signed:
        raise IdentityRefused("the request is not signed by its own key", reason="request")
    return request


def fingerprint(request: x509.CertificateSigningRequest) -> bytes:
    """SHA-256 of the request: the same request again is a repeat, not a second wish."""
    return hashlib.sha256(request.public_bytes(Encoding.DER)).digest()
