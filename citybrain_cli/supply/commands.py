"""`citybrain deps` and `citybrain sbom`."""

from __future__ import annotations

import argparse
import datetime as dt
import os
from pathlib import Path
from typing import Any

from citybrain_cli.supply.locked import LOCKS


def add(commands: Any) -> None:
    deps = commands.add_parser("deps", help="dependency audit: hashes, licences, known weaknesses")
    deps.add_argument("--ask", action="store_true", help="also ask the advisory service (needs the internet)")
    deps.set_defaults(do=_deps)
    sbom = commands.add_parser("sbom", help="bill of materials, CycloneDX JSON, from a lock")
    sbom.add_argument("lock", nargs="?", choices=LOCKS, default="up", help="which install (default: up)")
    sbom.add_argument("--out", type=Path, help="file; default: standard output")
    sbom.set_defaults(do=_sbom)


def _deps(options: argparse.Namespace) -> int:
    from citybrain_cli.supply.check import check

    ask = options.ask or os.environ.get("CITYBRAIN_ASK_ADVISORIES") == "1"
    result = check(dt.datetime.now(dt.UTC).date(), ask=ask)
    for line in result.said:
        print(f"!! {line}")
    for line in result.wrong:
        print(f"✗ {line}")
    print(
        f"{result.packages} packages 个软件包, {len(result.wrong)} wrong 处问题; advisory service"
        f" {'asked 已查询' if result.asked else 'NOT asked 未查询'}"
    )
    return 1 if result.wrong else 0


def _sbom(options: argparse.Namespace) -> int:
    import importlib.metadata

    from citybrain_cli.supply.sbom import make

    try:
        version = importlib.metadata.version("citybrain")
    except importlib.metadata.PackageNotFoundError:
        version = "0.1.0+source"
    text = make(options.lock, version)
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")
        print(f"{options.out}: {len(text)} bytes")
    return 0
