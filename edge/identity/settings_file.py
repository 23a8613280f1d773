"""Puts what enrolment learned into the gateway's TOML file and leaves the rest of it, with its comments, alone.

Only the flat tables that enrolment owns are written anew; keys in them that somebody added stay. The file as it was is
kept beside it.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from protocols.core.errors import ConfigError

_HEADER = re.compile(r"^\s*\[{1,2}\s*([^\[\]]+?)\s*\]{1,2}\s*(#.*)?$")


def write_settings(
    path: Path, tables: Mapping[str, Mapping[str, Any]], *, drop: Mapping[str, Sequence[str]] | None = None
) -> None:
    """``tables``: name to keys and values (texts, numbers, truth values, flat lists). Raises ConfigError."""
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        known = tomllib.loads(before)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    head = ["# Written by `citybrain edge enrol`; devices, cameras and scenarios are yours to add below.\n"]
    for name, values in tables.items():
        old = known.get(name, {})
        if not isinstance(old, dict):
            raise ConfigError(f"{path}: [{name}] is not a table")
        merged = {k: v for k, v in old.items() if k not in (drop or {}).get(name, ())} | dict(values)
        head.append(f"[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in merged.items()) + "\n")
    text = "".join(head) + _without(before, set(tables))
    try:
        tomllib.loads(text)
        if before:
            _write(path.with_name(path.name + ".before-enrol"), before)
        _write(path, text)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def state_dir_of(path: Path) -> str:
    """The agent's own folder, as the file says or as is usual: what it renews must lie where it may write."""
    try:
        gateway = tomllib.loads(path.read_text(encoding="utf-8")).get("gateway") if path.exists() else None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return str(gateway.get("state_dir", "state")) if isinstance(gateway, dict) else "state"


def _without(text: str, names: set[str]) -> str:
    """The file without those tables. What stands before the first table stays, and comments before the next one."""
    out: list[str] = []
    comments: list[str] = []  # at the end of a table that goes: they speak of the next
    inside = False
    for line in text.splitlines(keepends=True):
        header = _HEADER.match(line)
        if header:
            inside = header.group(1) in names
            out += [] if inside else comments
            comments = []
        if inside:
            comments = [*comments, line] if not line.strip() or line.lstrip().startswith("#") else []
        elif not line.startswith("# Written by `citybrain edge enrol`"):
            out.append(line)
    return "".join(out).lstrip("\n")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    raise ConfigError(f"a {type(value).__name__} cannot stand in this part of the configuration")


def _write(path: Path, text: str) -> None:
    """0600, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
