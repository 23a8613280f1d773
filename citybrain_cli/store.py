"""`citybrain cloud backup | restore | tidy`: what keeps the core's data, and what gets it back."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from protocols.core.errors import ConfigError

_PASSPHRASE = "CITYBRAIN_PASSPHRASE"  # noqa: S105 - the name of a variable


def add_cloud(cloud: Any) -> None:
    backup = cloud.add_parser("backup", help="the database into one file, while the core runs 数据库备份")
    backup.add_argument("dsn", help="database, e.g. postgresql://user@host/citybrain")
    backup.add_argument("file", type=Path, help="file to write; replaced only when the new one is whole")
    backup.add_argument("--keys", type=Path, metavar="FOLDER", help="core's state folder; its keys go to FILE.keys")
    _passphrase(backup)
    backup.set_defaults(do=_backup)
    restore = cloud.add_parser("restore", help="a backup into an empty database 数据库恢复")
    restore.add_argument("file", type=Path, help="what `backup` wrote")
    restore.add_argument("dsn", help="an empty database")
    restore.add_argument("--keys", type=Path, metavar="FOLDER", help="where the keys of FILE.keys go; must be empty")
    _passphrase(restore)
    restore.set_defaults(do=_restore)
    tidy = cloud.add_parser("tidy", help="rollups and retention, now; a worker does it by itself 立即整理")
    tidy.add_argument("dsn", help="database, e.g. postgresql://user@host/citybrain")
    tidy.set_defaults(do=_tidy)


def _passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help=f"of the keys; else taken from ${_PASSPHRASE}"
    )


def _secret(options: argparse.Namespace) -> str:
    if options.passphrase_file is not None:
        try:
            return str(options.passphrase_file.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{options.passphrase_file}: {type(error).__name__}") from error
    found = os.environ.get(_PASSPHRASE, "")
    if not found:
        raise ConfigError(f"keys need a passphrase: --passphrase-file FILE, or the variable {_PASSPHRASE}")
    return found


def _backup(options: argparse.Namespace) -> int:
    from cloud.store import backup, keys

    secret = _secret(options) if options.keys is not None else ""
    summary = backup.write(options.dsn, options.file)
    print(
        f"{options.file}: {sum(summary.rows.values())} rows of {len(summary.rows)} tables, {summary.bytes} bytes,"
        f" as of {summary.taken_at:%Y-%m-%d %H:%M:%S %z}"
    )
    if options.keys is None:
        print(
            "Keys (sessions, certificate authority, audit log, releases) are not in it: back up the core's state folder"
            " with --keys FOLDER. 备份不含密钥，请用 --keys 另行备份。",
            file=sys.stderr,
        )
        return 0
    target = options.file.with_name(options.file.name + ".keys")
    print(f"{target}: {len(keys.seal(options.keys, target, secret))} files, sealed")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from cloud.store import keys
    from cloud.store.restore import restore

    secret = _secret(options) if options.keys is not None else ""
    found = restore(options.file, options.dsn)
    print(
        f"restored {sum(found.rows.values())} rows as of {found.taken_at:%Y-%m-%d %H:%M:%S %z}."
        " Gateways send by themselves what they still hold. 网关将自动补传其保留的数据。"
    )
    if options.keys is not None:
        source = options.file.with_name(options.file.name + ".keys")
        print(f"{options.keys}: {len(keys.unseal(source, options.keys, secret))} files")
    return 0


def _tidy(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.store.keeping import tidy, wall_ms
    from protocols.core.errors import StoreError

    try:
        with psycopg.connect(options.dsn, autocommit=True) as conn:
            print(json.dumps(tidy(conn, wall_ms())))
    except psycopg.Error as error:
        raise StoreError(f"database: {str(error).strip()}") from error
    return 0
