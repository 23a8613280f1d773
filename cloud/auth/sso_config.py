"""What the core must be told about the OpenID provider of the house."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from cloud.auth.operator import ROLES
from protocols.vocabulary import departments, districts

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class SsoGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the members of one group may do, and where."""

    group: str
    role: str
    department: str = "*"
    district: str = "*"

    def __post_init__(self) -> None:
        if self.role not in ROLES or self.role == "service":
            raise ValueError(f"sso.groups: {self.role!r} is no role of people")
        if self.department != "*" and self.department not in departments():
            raise ValueError(f"sso.groups: there is no department {self.department!r}")
        if self.district != "*" and self.district not in districts():
            raise ValueError(f"sso.groups: there is no district {self.district!r}")


class SsoSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """OpenID Connect: authorization code flow with PKCE. Everything else is read from the issuer's own description."""

    issuer: str
    """As the provider writes it in its tokens, letter by letter."""
    client_id: str
    client_secret_file: str = ""
    """File with the client's secret (mode 0600); empty: a public client, protected by PKCE alone."""
    redirect_url: str
    """Address of this console as browsers see it, with the path /login/sso/back; registered with the provider."""
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = "preferred_username"
    group_claim: str = "groups"
    groups: tuple[SsoGroup, ...] = ()
    """Which group gives which role where, the first that fits being the main one; renewed with every log-in. Empty:
    roles are given in the console."""
    provision: bool = False
    """Make an account for somebody unknown who is in one of the groups. False: an administrator makes it first."""
    ca_file: str = ""
    """Certificate of the authority that signed the provider's, where it is not a public one."""
    label_zh: str = "统一身份认证登录"
    label_en: str = "Sign in with SSO"

    def __post_init__(self) -> None:
        for name, url in (("issuer", self.issuer), ("redirect_url", self.redirect_url)):
            check_url(f"sso.{name}", url)
        if urlsplit(self.redirect_url).path != "/login/sso/back":
            raise ValueError("sso.redirect_url: its path must be /login/sso/back")
        if "openid" not in self.scopes:
            raise ValueError("sso.scopes: must hold openid")
        if self.provision and not self.groups:
            raise ValueError("sso.provision: needs sso.groups, else everybody at the provider would get in")


def check_url(what: str, url: str) -> None:
    """Raises ValueError unless it is https, or http on this very machine."""
    parts = urlsplit(url)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise ValueError(f"{what}: must be https")
