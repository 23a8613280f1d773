"""TOML into frozen structs, with an error that points at the line.

Whoever writes a configuration by hand on a roadside cabinet needs file, line and key, and what would have been right.
Text in, struct out: reading the file is the caller's.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, TypeVar

import msgspec

from protocols.core.errors import ConfigError

T = TypeVar("T")

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?")
_KEY = re.compile(r"^\s*(\"[^\"]+\"|[A-Za-z0-9_.-]+)\s*=")
_PART = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")


def decode(text: str, kind: type[T], name: str) -> T:
    """``name`` is what the error calls the file. Raises ConfigError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: {error}") from error
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        path = path.rstrip("`")
        unknown = _UNKNOWN.search(message)
        key = unknown.group(1) if unknown else ""
        line = locate(text, path, key) or _first_unknown(text, table, key)
        where = f"{name}:{line}" if line else name
        shown = (path.removeprefix("$").lstrip(".") + ("." + key if key else "")).lstrip(".")
        hint = f"unknown key `{key}`" if key else message[:1].lower() + message[1:]
        raise ConfigError(f"{where}: {hint}" + (f" (at {shown})" if shown else "")) from error


def locate(text: str, path: str, key: str = "") -> int | None:
    """Line (from 1) of a path such as ``$.connector[1].device[0]`` and of ``key`` below it; None if not found."""
    wanted: list[str | int] = []
    for name, index in _PART.findall(path):
        if name:
            wanted.append(name)
        elif index != "...":
            wanted.append(int(index))
    if key:
        wanted.append(key)
    current: list[str | int] = []
    counts: dict[tuple[str, ...], int] = {}
    best: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            names = tuple(part.strip().strip("\"'") for part in header.group(2).split("."))
            if header.group(1) == "[[":
                counts[names] = counts.get(names, -1) + 1
                for other in list(counts):
                    if len(other) > len(names) and other[: len(names)] == names:
                        del counts[other]
            current = []
            for depth in range(1, len(names) + 1):
                current.append(names[depth - 1])
                if names[:depth] in counts:
                    current.append(counts[names[:depth]])
            if current == wanted[: len(current)]:
                best = number
            continue
        found = _KEY.match(line)
        if found:
            full = [*current, *[part.strip('"') for part in found.group(1).split(".")]]
            if full == wanted:
                return number
            if full == wanted[: len(full)]:
                best = number
    return best


def _first_unknown(text: str, table: dict[str, Any], key: str) -> int | None:
    if not key or key not in table:
        return None
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"^\s*(\[+\s*)?{re.escape(key)}\b", line):
            return number
    return None
