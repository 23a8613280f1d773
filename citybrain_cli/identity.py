"""`citybrain cloud claim | revoke | ca | broker-rules` and `citybrain edge enrol`: identities by hand and by script."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocols.core.errors import ConfigError

if TYPE_CHECKING:
    from cloud.config import Settings
    from cloud.identity.config import IdentitySettings


def add_cloud(cloud: Any) -> None:
    claim = cloud.add_parser("claim", help="let a gateway come: its one-time code, QR and label")
    claim.add_argument("config", type=Path, help="core.toml with [identity]")
    claim.add_argument("gateway", nargs="+", help="gateway id(s): lower-case letters, digits, hyphens")
    claim.add_argument("--shard", type=int, help="0 to 63, fixed for ever (default: the emptiest)")
    claim.add_argument("--zh", default="", help="Chinese name")
    claim.add_argument("--en", default="", help="English name")
    claim.add_argument("--lon", type=float, help="degrees, WGS 84")
    claim.add_argument("--lat", type=float, help="degrees, WGS 84")
    claim.add_argument("--days", type=float, help="how long the code is good (default: as configured)")
    claim.add_argument("--accept-devices", action="store_true", help="its devices wait until somebody accepts them")
    claim.add_argument("--labels", type=Path, metavar="FOLDER", help="write a label to print for each")
    claim.add_argument("--plain", action="store_true", help="no QR: one line a gateway (id, shard, label text)")
    claim.set_defaults(do=_claim)

    revoke = cloud.add_parser("revoke", help="shut a gateway out, its live session too")
    revoke.add_argument("config", type=Path, help="core.toml")
    revoke.add_argument("gateway", help="gateway id")
    revoke.add_argument("--reason", required=True, help="why; stands in the audit log")
    revoke.set_defaults(do=_revoke)

    ca = cloud.add_parser("ca", help="the city's certificate authority").add_subparsers(required=True, metavar="ACTION")
    init = ca.add_parser("init", help="make root and issuing key, if there are none; print the fingerprint")
    init.add_argument("config", type=Path, help="core.toml with [identity]")
    init.set_defaults(do=_ca_init)
    server = ca.add_parser("server", help="key and certificate for broker or core")
    server.add_argument("config", type=Path, help="core.toml with [identity]")
    server.add_argument("host", nargs="+", help="names and addresses it is reached by")
    server.add_argument("--out", type=Path, required=True, help="folder for server.pem and server.key")
    server.set_defaults(do=_ca_server)

    rules = cloud.add_parser("broker-rules", help="write a broker's configuration from the registry, keep it fresh")
    rules.add_argument("config", type=Path, help="broker.toml: kind, dsn, ca_dir, out ...")
    rules.add_argument("--watch", action="store_true", help="stay: follow changes, answer the broker, end sessions")
    rules.set_defaults(do=_rules)


def add_edge(edge: Any) -> None:
    enrol = edge.add_parser("enrol", help="become a gateway of a city: code or QR text from the label")
    enrol.add_argument("config", type=Path, help="the gateway's TOML file; made if it is not there")
    enrol.add_argument("--label", default="", help="the QR code's text, instead of the next three; '-' reads it")
    enrol.add_argument("--core", default="", help="https://host[:port] of the core")
    enrol.add_argument("--code", default="", help="the one-time code; '-' reads it from standard input")
    enrol.add_argument("--ca-fingerprint", default="", help="SHA-256 of the city's root certificate")
    enrol.add_argument("--web-ca", default="", help="'system' or a file: who vouches for the core's web certificate")
    enrol.set_defaults(do=_enrol)


def _who() -> str:
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):
        return "shell"


def _settings(path: Path) -> tuple[Settings, IdentitySettings]:
    from cloud.config import load

    settings = load(path)
    if settings.identity is None:
        raise ConfigError(f"{path}: [identity] is missing (broker_url, public_url)")
    return settings, settings.identity


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _claim(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.identity import claims, label
    from cloud.identity.codes import label_text
    from cloud.identity.signer import open_signer

    settings, identity = _settings(options.config)
    signer = open_signer(identity, Path(settings.state_dir), settings.city_en, _now())
    admission = "accept" if options.accept_devices else "auto"
    with psycopg.connect(settings.dsn, autocommit=True) as conn:
        for gateway in options.gateway:
            wanted = claims.Wanted(gateway, options.shard, options.zh, options.en, options.lon, options.lat, admission)
            made = claims.make(conn, wanted, _who(), _now(), options.days or identity.claim_days)
            text = label_text(identity.public_url, made.code, signer.fingerprint)
            if options.labels is not None:
                options.labels.mkdir(parents=True, exist_ok=True)
                page = label.page(made, identity.public_url, signer.fingerprint, zh=options.zh, en=options.en)
                _private(options.labels / f"{gateway}.html", page)
            if options.plain:
                print(f"{gateway} {made.shard} {text}")
                continue
            print(label.qr_terminal(text))
            print(f"{gateway}: shard {made.shard}   code 注册码 {made.code.text}   until {made.expires_at:%Y-%m-%d}")
            print(f"  citybrain edge enrol gateway.toml --label '{text}'")
    return 0


def _private(path: Path, text: str) -> None:
    from cloud.identity.ca import write_private

    write_private(path, text.encode())


def _revoke(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.config import load
    from cloud.identity.revocation import revoke

    with psycopg.connect(load(options.config).dsn, autocommit=True) as conn:
        ended = revoke(conn, options.gateway, _who(), options.reason, _now())
    if ended is None:
        raise ConfigError(f"there is no gateway {options.gateway}")
    print(f"{options.gateway}: revoked, {ended} certificate(s). 已吊销")
    return 0


def _ca_init(options: argparse.Namespace) -> int:
    from cloud.identity.signer import open_signer

    settings, identity = _settings(options.config)
    signer = open_signer(identity, Path(settings.state_dir), settings.city_en, _now())
    print(f"root certificate SHA-256 根证书指纹: {signer.fingerprint}")
    return 0


def _ca_server(options: argparse.Namespace) -> int:
    from cloud.identity.ca import LocalCa, write_private
    from cloud.identity.signer import passphrase

    settings, identity = _settings(options.config)
    folder = Path(settings.state_dir) / identity.ca_dir
    ca = LocalCa.create(folder, settings.city_en, _now(), passphrase(identity.ca_passphrase_file))
    key, issued = ca.issue_server(options.host, _now())
    options.out.mkdir(parents=True, exist_ok=True)
    write_private(options.out / "server.key", key)
    write_private(options.out / "server.pem", issued.pem.encode())
    print(f"{options.out / 'server.pem'}: {', '.join(options.host)}, until {issued.not_after:%Y-%m-%d}")
    return 0


def _rules(options: argparse.Namespace) -> int:
    from cloud.identity.broker import guard

    config = guard.load(options.config)
    if not options.watch:
        for path in guard.write_once(config, _now()):
            print(path)
        return 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    guard.Guard(config).run(stop)
    return 0


def _enrol(options: argparse.Namespace) -> int:
    from edge.identity.enrol import Claim, enrol, read_label

    if options.label:
        claim = read_label(sys.stdin.readline() if options.label == "-" else options.label)
    else:
        code = sys.stdin.readline().strip() if options.code == "-" else options.code
        if not (options.core and code and options.ca_fingerprint):
            raise ConfigError("--label, or all of --core, --code and --ca-fingerprint")
        claim = Claim(options.core, code, options.ca_fingerprint)
    enrolled = enrol(claim, options.config, time.time(), web_ca=options.web_ca)
    print(
        f"{enrolled.gateway}: shard {enrolled.shard}, broker {enrolled.broker}, certificate until {enrolled.not_after}."
        f" Written to {options.config}. 注册成功"
    )
    return 0
