"""The dependency gate of `citybrain test`: hashes, licences, known weaknesses; and a plain word on what was not asked.

```
 locks ─▶ every pin has SHA-256 ─▶ every licence allowed ─▶ advisories.toml ─▶ (if told to) pip-audit asks
```
Asking tells an outside service what is installed here, so it happens on request alone: ``citybrain deps --ask``, or
``CITYBRAIN_ASK_ADVISORIES=1`` in continuous integration. A gate that did not ask says so each time.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from citybrain_cli.supply import licences, locked
from protocols.core.errors import ConfigError

ADVISORIES = Path(__file__).with_name("advisories.toml")
_OLD_DAYS = 180
_ASK_TIMEOUT_S = 300


@dataclass(slots=True)
class Result:
    packages: int = 0
    wrong: list[str] = field(default_factory=list)  # the gate fails
    said: list[str] = field(default_factory=list)  # loud, and no failure
    asked: bool = False  # the advisory service answered


def check(today: dt.date, root: Path = locked.ROOT, *, ask: bool = False) -> Result:
    result = Result()
    packages: dict[str, locked.Package] = {}
    for lock in locked.LOCKS:
        try:
            packages |= {f"{one.name}=={one.version}": one for one in locked.read(lock, root)}
        except ConfigError as error:
            result.wrong.append(str(error))
    result.packages = len(packages)
    _licences(sorted({one.name for one in packages.values()}), result)
    _known(list(packages.values()), today, result)
    if ask:
        _ask(root, result)
    else:
        result.said.append(
            "THE ADVISORY SERVICE WAS NOT ASKED 未查询漏洞通报服务: only the list kept by hand was looked at"
            " (`citybrain deps --ask` asks)"
        )
    return result


def _licences(names: list[str], result: Result) -> None:
    absent = []
    for name in names:
        expression = licences.of(name)
        if expression is None:
            absent.append(name)
        elif not expression:
            result.wrong.append(f"{name}: its metadata name no licence that we know; read it and add it to licences.py")
        elif not licences.allowed(expression):
            result.wrong.append(f"{name}: licence {expression} may not be shipped")
    if absent:
        result.said.append(f"not installed here, licence not looked at: {', '.join(absent)}")


def _known(packages: list[locked.Package], today: dt.date, result: Result) -> None:
    table: dict[str, Any] = tomllib.loads(ADVISORIES.read_text(encoding="utf-8"))
    for advisory in table["advisory"]:
        for package in packages:
            if package.name == advisory["package"] and below(package.version, advisory["below"]):
                result.wrong.append(
                    f"{package.name} {package.version}: {advisory['id']} ({advisory['what']}),"
                    f" mended in {advisory['below']}"
                )
    age_days = (today - table["known_until"]).days
    if age_days > _OLD_DAYS:
        result.said.append(f"the list kept by hand knows nothing after {table['known_until']}: {age_days} days ago")


def below(version: str, limit: str) -> bool:
    """Release numbers compare as numbers (PEP 440); a pre-release of the limit is below it."""
    mine, theirs = _release(version), _release(limit)
    width = max(len(mine), len(theirs))
    mine, theirs = (*mine, *(0,) * (width - len(mine))), (*theirs, *(0,) * (width - len(theirs)))
    if mine != theirs:
        return mine < theirs
    return re.search(r"\d(a|b|rc|\.dev)\d*", version) is not None


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _ask(root: Path, result: Result) -> None:
    command = [
        sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--no-deps", "-f", "json",
        "--progress-spinner", "off", "-r", str(root / "locks" / "dev.txt"),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False)
        found = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        result.said.append("THE ADVISORY SERVICE COULD NOT BE ASKED 无法查询漏洞通报服务: it did not answer")
        return
    result.asked = True
    for package in found.get("dependencies", []):
        if package.get("skip_reason"):
            result.said.append(f"not asked about {package['name']}: {package['skip_reason']}")
        for weakness in package.get("vulns", []):
            mended = ", ".join(weakness.get("fix_versions", [])) or "nowhere yet"
            result.wrong.append(f"{package['name']} {package.get('version')}: {weakness['id']}, mended in {mended}")
