"""From the code on the box to a gateway that may speak: `citybrain edge enrol`.

```
 code + fingerprint ─▶ root certificate, by fingerprint ─▶ code + request, over verified TLS ─▶ certificate, broker,
 shard ─▶ files (0600) and the [gateway], [mqtt], [identity] parts of the configuration
```
The request is on the disk before it is sent: an answer that got lost is asked for again with the same request, and the
core gives the same answer for an hour.
"""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from edge.identity.core_client import ask, fetch_root
from edge.identity.files import IdentityFiles
from edge.identity.settings_file import state_dir_of, write_settings
from edge.identity.trust import NO_DATES, clock_is_wrong
from protocols.core.errors import ConfigError, LinkRefused
from protocols.uplink.topics import SHARDS, valid_gateway_id


@dataclass(frozen=True, slots=True)
class Claim:
    """What stands on the label. ``fingerprint``: SHA-256 of the city's root."""

    core: str
    code: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    gateway: str
    shard: int
    broker: str
    not_after: str  # ISO 8601


def read_label(text: str) -> Claim:
    """``citybrain:enrol?core=...&code=...&ca=...``, as the QR code says it. Raises ConfigError."""
    parts = urlsplit(text.strip())
    fields = parse_qs(parts.query)
    if parts.scheme != "citybrain" or parts.path != "enrol" or not all(fields.get(k) for k in ("core", "code", "ca")):
        raise ConfigError("this is no label of citybrain (citybrain:enrol?core=...&code=...&ca=...)")
    return Claim(fields["core"][0], fields["code"][0], fields["ca"][0])


def enrol(claim: Claim, config_path: Path, now_s: float, *, web_ca: str = "") -> Enrolled:
    """Become the gateway of the claim. ``web_ca``: "" the city's root, "system", or a file: who vouches for the core's
    web certificate. Raises ConfigError, LinkRefused, LinkDown, StoreError; then the configuration is as it was."""
    folder = config_path.resolve().parent / state_dir_of(config_path) / "identity"
    files = IdentityFiles(folder)
    root = fetch_root(claim.core, claim.fingerprint)
    request = files.pending("gateway")
    body = {"code": claim.code, "csr": request.csr_pem}
    said = ask(claim.core, "POST", "/enrol", body, _context(root, web_ca, now_s))
    try:
        gateway, shard, broker = str(said["gateway"]), int(said["shard"]), str(said["broker"])
        certificate, not_after = str(said["certificate"]), str(said["not_after"])
    except (KeyError, TypeError, ValueError) as error:
        raise LinkRefused("the core's answer is not understood") from error
    if not valid_gateway_id(gateway) or not 0 <= shard < SHARDS:
        raise LinkRefused("the core's answer names no gateway")
    files.take(request, certificate, root)
    write_settings(
        config_path,
        _updates(said.get("updates_root"), claim, folder, web_ca)
        | {
            "gateway": {"id": gateway, "shard": shard},
            "mqtt": {"url": broker, "ca_file": str(files.ca), "cert_file": str(files.identity)},
            "identity": {"core": claim.core, "folder": str(folder), **({"ca_file": web_ca} if web_ca else {})},
        },
        drop={"mqtt": ("username", "password_file", "key_file")},
    )
    return Enrolled(gateway, shard, broker, not_after)


def _updates(root: object, claim: Claim, folder: Path, web_ca: str) -> dict[str, dict[str, Any]]:
    """The trusted root of signed updates, kept and named in the configuration, if the city has one."""
    if not isinstance(root, str) or not root:
        return {}
    path = folder / "updates-root.json"
    path.write_text(root, encoding="utf-8")
    ca_file = "" if web_ca == "system" else web_ca or str(folder / "ca.pem")
    url = claim.core.rstrip("/") + "/updates/"
    return {"updates": {"url": url, "root_file": str(path), "ca_file": ca_file}}


def _context(root_pem: str, web_ca: str, now_s: float) -> ssl.SSLContext:
    if web_ca == "system":
        return ssl.create_default_context()
    if web_ca:
        return ssl.create_default_context(cafile=web_ca)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(root_pem)
        file.flush()
        context = ssl.create_default_context(cafile=file.name)
    if clock_is_wrong(None, now_s):
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | NO_DATES)
    return context
