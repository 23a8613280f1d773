"""`citybrain cloud backup | restore | tidy`: what keeps the core's data, and what gets it back."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime
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
    print(f"restored {sum(found.rows.values())} rows as of {found.taken_at:%Y-%m-%d %H:%M:%S %z}.")
    if options.keys is not None:
        source = options.file.with_name(options.file.name + ".keys")
        print(f"{options.keys}: {len(keys.unseal(source, options.keys, secret))} files")
    print(_what_now(found.taken_at, found.restored_at))
    return 0


def _what_now(taken_at: datetime, restored_at: datetime) -> str:
    """A restore is not the end of it: somebody must say so to the audit log, and look at what did not come back."""
    seconds = max(0, round((restored_at - taken_at).total_seconds()))
    hours, minutes = divmod(-(-seconds // 60), 60)
    zh = f"{hours} 小时 {minutes} 分" if hours else f"{minutes} 分钟"
    en = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return f"""
What now:
 1. The gap is at most {en}: from the backup ({taken_at:%Y-%m-%d %H:%M:%S %z}) until now, or until the crash.
    What people did in the console in that time is not in the database.
 2. Start the workers. Gateways send by themselves what they still hold. What they had deleted, because it had been
    committed, is lost; the ledger names it as "core restored from a backup of ...", by gateway, lane and rows:
    console, page Ledger; /api/v1/gateways/ID/ledger; citybrain proof. It is complete when every gateway has been heard.
 3. Audit sealing stands still where the key has signed more than this database holds, until somebody answers for it:
    citybrain audit accept --config core.toml --who NAME --reason "restored from the backup of ..."
接下来：
 1. 缺口最长 {zh}：自备份时刻至故障时刻（不晚于现在）。其间在控制台所做的操作不在库中。
 2. 启动接入进程。网关自动补传其仍保留的数据；此前已确认入库、网关已删除的数据无法找回，
    账本将按网关、通道和行号逐一列明，原因为“中心数据库由……的备份恢复”：
    控制台“账本”页、/api/v1/gateways/ID/ledger、citybrain proof。所有网关都报过账后方为完整。
 3. 若密钥签过的审计记录多于本库，审计封存即停止，须有人负责并执行：
    citybrain audit accept --config core.toml --who 姓名 --reason '由……的备份恢复'"""


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
