"""`citybrain edge slots ...`: set a gateway up for updates, and see what runs on it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add(edge: Any) -> None:
    slots = edge.add_parser("slots", help="A/B slots of the agent, for updates").add_subparsers(
        required=True, metavar="ACTION"
    )
    init = slots.add_parser("init", help="put the first agent into slot a, and the launcher beside it")
    init.add_argument("root", type=Path, help="folder of the slots, e.g. /var/lib/citybrain/slots")
    init.add_argument("bundle", type=Path, help="agent bundle made by `citybrain cloud release pack-agent`")
    init.set_defaults(do=_init)
    show = slots.add_parser("show", help="the boot record: which version is good, which is on trial")
    show.add_argument("root", type=Path, help="folder of the slots")
    show.add_argument("--verify", action="store_true", help="also check every file of the slot in force")
    show.set_defaults(do=_show)


def _init(options: argparse.Namespace) -> int:
    from edge.updates.install import init

    manifest = init(options.root, options.bundle)
    print(f"{manifest.name} {manifest.version} in slot a. Start it with: 启动命令：")
    print(f"  python3 {options.root / 'launcher.pyz'} {options.root} /etc/citybrain/agent.toml")
    return 0


def _show(options: argparse.Namespace) -> int:
    from edge.updates.record import broken, read

    record = read(options.root)
    if record is None:
        print(f"{options.root}: no boot record 没有启动记录")
        return 1
    print(json.dumps(record, ensure_ascii=False, indent=2))
    if options.verify:
        wrong = broken(options.root, record["good"])
        print(f"! {wrong}" if wrong else "good: every file has its hash 文件校验一致")
        return 1 if wrong else 0
    return 0
