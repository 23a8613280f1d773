"""What enrolment must be told: where the authority lives, how long certificates live, where gateways find us."""

from __future__ import annotations

import msgspec


class IdentitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[identity]`` of core.toml; without it gateways are entered by `citybrain cloud enrol`, without certificates."""

    broker_url: str
    """mqtts://host:port, as gateways reach the broker; told to them when they enrol."""
    public_url: str
    """https://host[:port], as gateways reach this core; stands in the QR code."""
    ca_dir: str = "ca"
    """Root and issuing key of the built-in authority, made at first use; relative to state_dir."""
    ca_passphrase_file: str = ""
    """Passphrase of the issuing key; empty: the key is protected by its file's rights (0600) alone."""
    sign_command: tuple[str, ...] = ()
    """An outside authority instead: this program gets the request (PEM) on its standard input, CITYBRAIN_GATEWAY and
    CITYBRAIN_DAYS in its environment, and prints the certificate with its chain."""
    sign_roots: str = ""
    """PEM file with the outside authority's root, which gateways then trust."""
    certificate_days: float = 7.0
    renew_grace_days: float = 90.0
    """A gateway that was switched off longer than its certificate lived may still renew for so many days."""
    claim_days: float = 30.0
    """How long a claim code is good, unless said otherwise."""

    def __post_init__(self) -> None:
        if not 0.01 <= self.certificate_days <= 397:
            raise ValueError("identity.certificate_days: must be 0.01 to 397")
        if not 0 <= self.renew_grace_days <= 3650:
            raise ValueError("identity.renew_grace_days: must be 0 to 3650")
        if not 0 < self.claim_days <= 365:
            raise ValueError("identity.claim_days: must be above 0 and at most 365")
        if not self.broker_url.startswith(("mqtts://", "mqtt://")):
            raise ValueError("identity.broker_url: mqtts://host:port")
        if not self.public_url.startswith("https://"):
            raise ValueError("identity.public_url: https://host[:port]")
        if self.sign_command and not self.sign_roots:
            raise ValueError("identity.sign_roots: an outside authority needs its root here")
