"""A pack's version says what it does: changed text under an unchanged version is refused by a test.

    python -m scenarios.packs.lock        after raising the version in pack.toml: writes versions.toml anew

Two gateways that both say "1.0.0" must run the same rules, whatever was edited in between.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from pathlib import Path

import msgspec

from scenarios.packs.loader import load_all
from scenarios.packs.model import Pack

FILE = Path(__file__).with_name("versions.toml")


def digest(pack: Pack) -> str:
    """Of what the pack means; comments and layout may change freely."""
    return hashlib.sha256(msgspec.json.encode(pack, order="deterministic")).hexdigest()[:16]


def current() -> dict[str, dict[str, str]]:
    return {pack.id: {"version": pack.version, "digest": digest(pack)} for pack in load_all()}


def locked() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return found


def changed(old: dict[str, dict[str, str]], new: dict[str, dict[str, str]]) -> list[str]:
    """Packs whose meaning changed while their version did not."""
    return sorted(
        name
        for name, entry in new.items()
        if name in old and old[name]["version"] == entry["version"] and old[name]["digest"] != entry["digest"]
    )


def main() -> int:
    new = current()
    wrong = changed(locked(), new) if FILE.exists() else []
    if wrong:
        print(f"raise the version first: {', '.join(wrong)}", file=sys.stderr)
        return 1
    lines = ["# Version and meaning of every pack. Written by: python -m scenarios.packs.lock", ""]
    for name, entry in new.items():
        lines += [f'["{name}"]', f'version = "{entry["version"]}"', f'digest = "{entry["digest"]}"', ""]
    FILE.write_text("\n".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
