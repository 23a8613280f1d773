"""What the agent must be told to keep its own certificate fresh."""

from __future__ import annotations

import msgspec


class IdentityConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Written by `citybrain edge enrol`; without it the agent keeps whatever certificate or password it has."""

    core: str  # https://host[:port] of the core: renewals go there
    folder: str = "state/identity"  # key, certificate, authority; relative to the configuration file
    ca_file: str = ""  # who vouches for the core's web certificate; "": the city's root in `folder`; or "system"
