"""`citybrain cloud release ...`: what the release manager types. Keys are files; passphrases never arguments."""

from __future__ import annotations

import argparse
import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from protocols.core.errors import ConfigError


def add(cloud: Any) -> None:
    release = cloud.add_parser("release", help="signed releases of agents, models, packs, templates").add_subparsers(
        required=True, metavar="ACTION"
    )

    def action(name: str, do: Any, text: str, *, keys: bool = True) -> Any:
        parser = release.add_parser(name, help=text)
        parser.add_argument("--repo", type=Path, default=Path("var/updates"), help="folder of the repository")
        if keys:
            parser.add_argument("--keys", type=Path, default=Path("var/update-keys"), help="folder of the signing keys")
            parser.add_argument("--passphrase-file", type=Path, help="opens the offline keys; asked for if not given")
        parser.set_defaults(do=do)
        return parser

    action("init", _init, "a new repository with new keys")
    one = action("add", _add, "sign an artefact and its differences to earlier versions")
    one.add_argument("kind", choices=("agent", "models", "packs", "templates"))
    one.add_argument("name", help="e.g. citybrain, nanodet, construction_site")
    one.add_argument("version")
    one.add_argument("file", nargs="+", type=Path, help="an agent bundle; else files, or a folder with all below it")
    one.add_argument("--platform", default="", help="any, or as linux-aarch64 (an agent bundle says it itself)")
    one.add_argument("--notes", default="", help="what is new, for the console")
    pack = action("pack-agent", _pack, "make an agent bundle of wheels", keys=False)
    pack.add_argument("version")
    pack.add_argument("wheel", nargs="+", type=Path)
    pack.add_argument("--out", type=Path, required=True)
    pack.add_argument("--name", default="citybrain")
    pack.add_argument("--platform", default="any", help="any, or as linux-aarch64: what the wheels were built for")
    pack.add_argument("--python", default="3.11", help="minor version of Python the wheels were built for; '' any")
    pack.add_argument("--entry", default="-m citybrain_cli.main edge run", help="what Python is given to start it")
    action("list", _list, "what is signed", keys=False)
    gone = action("withdraw", _withdraw, "take the signature off a version")
    gone.add_argument("kind", choices=("agent", "models", "packs", "templates"))
    gone.add_argument("name")
    gone.add_argument("version")
    rotate = action("rotate", _rotate, "a new key for a role; the old one is void from now on")
    rotate.add_argument("role", choices=("root", "targets", "agent", "models", "packs", "templates", "online"))
    action("renew", _renew, "sign everything for another year, with the offline keys")
    action("refresh", _refresh, "sign the timestamp anew; the core does it by itself while it runs")
    root = action("root", _root, "the trusted root that a gateway gets at enrolment", keys=False)
    root.add_argument("--out", type=Path, required=True)


def _keys(options: argparse.Namespace) -> Any:
    from cloud.updates.keys import Keys

    if options.passphrase_file is not None:
        try:
            passphrase = options.passphrase_file.read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"passphrase file {options.passphrase_file}: {error.strerror}") from error
    elif sys.stdin.isatty():
        passphrase = getpass.getpass("passphrase of the signing keys 签名密钥口令: ").encode()
    else:
        passphrase = b""
    return Keys(options.keys, passphrase)


def _repository(options: argparse.Namespace) -> Any:
    from cloud.updates.repository import Repository

    return Repository(options.repo)


def _init(options: argparse.Namespace) -> int:
    keys = _keys(options)
    _repository(options).create(keys, datetime.now(UTC))
    print(f"repository {options.repo}; keys in {options.keys}")
    print("Take root.pem, targets.pem and the keys of the kinds off this machine; only online.pem stays.")
    print("请将 root.pem、targets.pem 及各类密钥离线保存；本机只留 online.pem。")
    return 0


def _add(options: argparse.Namespace) -> int:
    from cloud.updates import bundles

    if options.kind == "agent":
        if len(options.file) != 1:
            raise ConfigError("an agent is one bundle: `citybrain cloud release pack-agent` makes it")
        try:
            with options.file[0].open("rb") as file:
                manifest, tree = bundles.unpack(file)
        except OSError as error:
            raise ConfigError(f"{options.file[0]}: {error.strerror}") from error
        if (manifest.kind, manifest.name, manifest.version) != ("agent", options.name, options.version):
            raise ConfigError(f"{options.file[0]} is {manifest.kind} {manifest.name} {manifest.version}")
    else:
        tree = bundles.files_below(options.file, options.kind)
        _check_content(options.kind, tree)
        manifest = bundles.manifest_of(
            options.kind, options.name, options.version, tree, platform=options.platform or "any"
        )
    made = _repository(options).add(_keys(options), manifest, tree, datetime.now(UTC), notes=options.notes)
    print(f"{made.path}: {made.packed_bytes:,} bytes, content {made.content[:16]}, {len(made.deltas)} differences")
    return 0


def _check_content(kind: str, tree: dict[str, bytes]) -> None:
    """As the gateway will check it: nothing is signed that would be refused there. Raises ContractError."""
    import tempfile

    from edge.updates.overlay import check

    with tempfile.TemporaryDirectory() as folder:
        for path, data in tree.items():
            place = Path(folder) / kind / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        check(Path(folder))


def _pack(options: argparse.Namespace) -> int:
    from cloud.updates import bundles

    tree = bundles.agent_tree(options.wheel)
    manifest = bundles.manifest_of(
        "agent",
        options.name,
        options.version,
        tree,
        platform=options.platform,
        python=options.python,
        entry=options.entry.split(),
    )
    options.out.write_bytes(bundles.pack(manifest, tree))
    print(f"{options.out}: {len(tree):,} files, {manifest.bytes:,} bytes, packed {options.out.stat().st_size:,}")
    return 0


def _list(options: argparse.Namespace) -> int:
    for release in _repository(options).releases():
        print(
            f"{release.kind:10} {release.name:24} {release.version:16} {release.platform:16}"
            f" {release.packed_bytes:>12,}  {release.added_at:%Y-%m-%d %H:%M}  {release.notes}"
        )
    return 0


def _withdraw(options: argparse.Namespace) -> int:
    count = _repository(options).withdraw(
        _keys(options), options.kind, options.name, options.version, datetime.now(UTC)
    )
    print(f"{count} files are no longer signed")
    return 0 if count else 1


def _rotate(options: argparse.Namespace) -> int:
    _repository(options).rotate(_keys(options), options.role, datetime.now(UTC))
    print(f"{options.role} has a new key; delete the .pem.old file once no machine needs it 旧密钥已作废")
    return 0


def _renew(options: argparse.Namespace) -> int:
    _repository(options).renew(_keys(options), datetime.now(UTC))
    print("signed for another year")
    return 0


def _refresh(options: argparse.Namespace) -> int:
    print("signed anew" if _repository(options).refresh(_keys(options), datetime.now(UTC)) else "not yet time")
    return 0


def _root(options: argparse.Namespace) -> int:
    options.out.write_bytes(_repository(options).trusted_root())
    print(f"{options.out}: put it on every gateway at enrolment 入网时放到网关上")
    return 0
