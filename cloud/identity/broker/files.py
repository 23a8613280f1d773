"""Files every broker needs: its certificate, the core's, passwords; and writing only what changed."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509

from cloud.identity.ca import LocalCa, write_private
from cloud.identity.names import CORE_USER

_RENEW_LEFT = 1 / 3
CORE_DAYS = 397.0


def certificates(ca: LocalCa, out: Path, hosts: tuple[str, ...], now: dt.datetime, route_host: str = "") -> list[Path]:
    """Certificates of the server, of the core as a client, and with ``route_host`` of a cluster's node: made, or made
    anew when a third of their life is left."""
    written: list[Path] = []
    if route_host and _due(out / "route.pem", now, (route_host,)):
        key, issued = ca.issue_server([route_host], now, calls=True)
        write_private(out / "route.key", key)
        write_private(out / "route.pem", issued.pem.encode())
        written += [out / "route.pem", out / "route.key"]
    if _due(out / "server.pem", now, hosts):
        key, issued = ca.issue_server(hosts, now)
        write_private(out / "server.key", key)
        write_private(out / "server.pem", issued.pem.encode())
        written += [out / "server.pem", out / "server.key"]
    if _due(out / "core.pem", now, ()):
        key, issued = ca.issue_core(CORE_USER, now, CORE_DAYS)
        write_private(out / "core.pem", key + issued.pem.encode())
        written.append(out / "core.pem")
    return written + write_changed(out, {"root.pem": ca.root_pem, "chain.pem": ca.chain_pem()})


def password(out: Path, name: str) -> str:
    """A generated password in a file of its own, made once."""
    path = out / f"{name}-password"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text().strip()


def write_changed(out: Path, files: Mapping[str, str]) -> list[Path]:
    """Write (0600) those whose content is another one now."""
    written: list[Path] = []
    for name, text in files.items():
        path = out / name
        if not path.exists() or hashlib.sha256(path.read_bytes()).digest() != hashlib.sha256(text.encode()).digest():
            write_private(path, text.encode())
            written.append(path)
    return written


def hand_over(out: Path, user: str) -> None:
    """A broker that drops its rights must still be able to read its files, alone."""
    if user and os.geteuid() == 0:
        import pwd

        entry = pwd.getpwnam(user)
        for path in (out, *out.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid)


def _due(path: Path, now: dt.datetime, hosts: tuple[str, ...]) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return True
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if now > certificate.not_valid_after_utc - life * _RENEW_LEFT:
        return True
    if not hosts:
        return False
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    there = {str(name.value) for name in names}
    return there != set(hosts)
