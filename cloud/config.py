"""What the core's web side must be told, as one frozen struct read from TOML.

Unknown keys are refused with the file's name, so a misspelt setting never silently keeps its default. Reading the
configuration opens no connection.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cloud.auth.proxies import networks
from cloud.auth.rates_config import RateSettings
from cloud.auth.sso_config import SsoSettings
from cloud.identity.config import IdentitySettings
from cloud.updates.config import UpdatesSettings
from protocols.core.errors import ConfigError


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of the API and console process."""

    dsn: str
    """PostgreSQL connection string (libpq form or URL)."""
    listen: str = "127.0.0.1:8600"
    state_dir: str = "var/core"
    """Where the session key lives (one file, mode 0600). Several processes of one core share it."""
    pool_size: int = 8
    """Database connections this process may hold for requests; one more is held for live updates."""
    session_hours: float = 12.0
    """After so long everybody logs in again, busy or not."""
    session_idle_hours: float = 4.0
    """A session nobody has used for so long ends. What an open page asks by itself is no use."""
    login_failures_per_address: int = 100
    """Failed log-ins one network address (IPv6: one /64) may cause before it waits; one is forgiven every 6 s."""
    rates: RateSettings = RateSettings()
    """How often one caller may ask the API; see cloud/auth/rates_config.py."""
    cookie_secure: bool = False
    """Set true wherever the console is reached by HTTPS: the session cookie then never travels in clear."""
    max_body_kb: int = 1024
    """Largest body of a request, before any route looks at it; imports have their own bound."""
    trusted_hosts: tuple[str, ...] = ()
    """Host names the console answers to; empty: any. Set it when the console is not on a private network."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of the proxies in front, as "10.0.3.0/28": they alone are believed in X-Forwarded-For and -Proto. Empty:
    nobody is; behind a proxy everybody then counts as the proxy's address, in brakes, limits and the audit log."""
    sso: SsoSettings | None = None
    """The OpenID provider of the house; see cloud/auth/sso_config.py. Without it: local accounts alone."""
    console: bool = True
    """False: the API alone."""
    tls_cert: str = ""
    """Server certificate with its chain, PEM; with it and `tls_key` this process speaks HTTPS alone."""
    tls_key: str = ""
    identity: IdentitySettings | None = None
    """Enrolment of gateways with certificates; none: there is no enrolment."""
    updates: UpdatesSettings | None = None
    """Signed updates of gateways; none: this core gives out none."""
    city_zh: str = "合肥市"
    city_en: str = "Hefei"

    def __post_init__(self) -> None:
        host, colon, port = self.listen.rpartition(":")
        if not host or not colon or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"listen: {self.listen!r} is not host:port")
        if not 1 <= self.pool_size <= 256:
            raise ValueError("pool_size: must be 1 to 256")
        if not 0 < self.session_hours <= 24 * 30:
            raise ValueError("session_hours: must be above 0 and at most 720")
        if not 0 < self.session_idle_hours <= 24 * 30:
            raise ValueError("session_idle_hours: must be above 0 and at most 720")
        if not 16 <= self.max_body_kb <= 1024 * 1024:
            raise ValueError("max_body_kb: must be 16 to 1048576")
        if not 1 <= self.login_failures_per_address <= 1_000_000:
            raise ValueError("login_failures_per_address: must be 1 to 1000000")
        try:
            networks(self.trusted_proxies)
        except ValueError as error:
            raise ValueError(f"trusted_proxies: {error}") from error

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


def load(path: Path) -> Settings:
    """Read settings from a TOML file. Raises ConfigError naming file and key."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Settings)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
