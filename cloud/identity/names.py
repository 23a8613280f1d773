"""Names a gateway may not have, and how its name stands in a certificate.

A gateway's id is also its MQTT client id and user name. The core's own sessions (``cb-core-5``) and users live in the
same space: a gateway called like one of them could take the core's session over.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import NameOID

from protocols.core.errors import ConfigError
from protocols.uplink.topics import valid_gateway_id

_PREFIX = "urn:citybrain:gateway:"
CORE_USER = "core"
CALLOUT_USER = "cb-auth"
_RESERVED = (CORE_USER, CALLOUT_USER, "admin", "broker", "localhost", "anonymous")
_RESERVED_PREFIX = "cb-"


def gateway_uri(gateway_id: str) -> str:
    """The URI subject alternative name of a gateway's certificate."""
    return _PREFIX + gateway_id


def gateway_of_uri(uri: str) -> str | None:
    """The gateway a URI names, or None."""
    name = uri.removeprefix(_PREFIX)
    return name if uri.startswith(_PREFIX) and allowed_name(name) else None


def allowed_name(gateway_id: str) -> bool:
    return valid_gateway_id(gateway_id) and gateway_id not in _RESERVED and not gateway_id.startswith(_RESERVED_PREFIX)


def check_name(gateway_id: str) -> None:
    """Raises ConfigError."""
    if not valid_gateway_id(gateway_id):
        raise ConfigError(f"gateway {gateway_id!r}: lower-case letters, digits and hyphens, 63 at most")
    if not allowed_name(gateway_id):
        raise ConfigError(f"gateway {gateway_id!r}: this name belongs to the core itself; choose another")


def gateway_of(certificate: x509.Certificate) -> str | None:
    """The gateway that the one URI of a certificate names, if its common name says the same; else None."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    uris = [gateway_of_uri(uri) for uri in names.get_values_for_type(x509.UniformResourceIdentifier)]
    common = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return uris[0] if len(uris) == 1 and common == uris else None
