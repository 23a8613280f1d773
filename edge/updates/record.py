"""The boot record: which slot is good, which is on trial, and the one table of what may become of them.

Launcher and agent share it. The agent writes while it runs as the good one (steady, staging, ready), the launcher from
``armed`` on; so there is one writer at a time. The standard library alone: the launcher carries this file with it.

```
 steady ─begin─▶ staging ─filled─▶ ready ─arm─▶ armed ─start─▶ trying ─healthy─▶ steady (the new one is good)
    ▲               │cancel          │cancel      │broken        │unhealthy, broken
    └───────────────┴────────────────┴────────────┴──────────────┴──▶ steady (the old one stays good)
```
Two files take turns, each replaced whole and flushed to the disk before it counts: a torn one leaves the record before.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

MAX_TRIES = 3  # starts of a version on trial: two power cuts do not condemn it, a loop ends

#: (state, event) -> state. ``trial`` runs in trying, ``good`` in all others; README.md says it in words.
TABLE = {
    ("steady", "begin"): "staging",
    ("staging", "begin"): "staging",
    ("staging", "filled"): "ready",
    ("staging", "cancel"): "steady",
    ("ready", "cancel"): "steady",
    ("ready", "arm"): "armed",
    ("armed", "start"): "trying",
    ("armed", "broken"): "steady",
    ("trying", "start"): "trying",
    ("trying", "healthy"): "steady",
    ("trying", "unhealthy"): "steady",
    ("trying", "broken"): "steady",
    ("steady", "lost"): "steady",
}

Record = dict[str, Any]


def step(record: Record, event: str, detail: str = "", **more: Any) -> Record:
    """The record after the event. KeyError: the table does not know it, a programming error."""
    new = {**record, **more, "state": TABLE[record["state"], event], "gen": record["gen"] + 1}
    trial: Record = record["trial"] or {}
    if event == "start":
        new["tries"] = record["tries"] + 1
    elif event == "healthy":
        side = {key: trial[key] for key in ("slot", "version", "content")}
        outcome = {"document": trial["document"], "state": "applied", "detail": detail, "version": trial["version"]}
        new.update(good=side, previous=record["good"], trial=None, tries=0, outcome=outcome)
    elif event in ("unhealthy", "broken"):
        state = "rolled_back" if event == "unhealthy" else "failed"
        outcome = {"document": trial["document"], "state": state, "detail": detail, "version": trial["version"]}
        new.update(trial=None, tries=0, outcome=outcome)
    elif event == "cancel":
        new.update(trial=None, tries=0)
    elif event == "lost":
        new.update(good=record["previous"], previous=None, note=detail)
    return new


def write(root: Path, record: Record) -> Record:
    """Durable on return; the file of the record before stays as it is. Raises OSError."""
    body = json.dumps(record, sort_keys=True)
    path = root / f"boot.{record['gen'] % 2}"
    part = path.with_suffix(".new")
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"record": body, "sum": hashlib.sha256(body.encode()).hexdigest()}))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(root, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return record


def read(root: Path) -> Record | None:
    """The newest whole record; None if there is none."""
    found: list[Record] = []
    for path in (root / "boot.0", root / "boot.1"):
        try:
            text = json.loads(path.read_text("utf-8"))
            if hashlib.sha256(text["record"].encode()).hexdigest() == text["sum"]:
                found.append(json.loads(text["record"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return max(found, key=lambda record: int(record["gen"]), default=None)


def whole(folder: Path) -> str:
    """What is wrong with the files below, "" if each is there and has the hash that its manifest names."""
    try:
        for file in json.loads((folder / "manifest.json").read_text("utf-8"))["files"]:
            with (folder / file["path"]).open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != file["sha256"]:
                    return f"{folder.name}: {file['path']} has another hash"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{folder.name}: {error}"
    return ""


def broken(root: Path, side: Record) -> str:
    content = side["content"]
    return whole(root / side["slot"]) or (whole(root / "content" / content) if content else "")


def recover(root: Path) -> Record | None:
    """Both records gone: run a slot that is whole, without content of its own. None: there is none."""
    for slot in ("a", "b"):
        if not whole(root / slot):
            version = json.loads((root / slot / "manifest.json").read_text("utf-8"))["version"]
            note = "the boot record was lost; this slot was found whole"
            return write(root, {**first(slot, version), "note": note})
    return None


def first(slot: str, version: str, content: str = "") -> Record:
    """The record of a fresh install."""
    side = {"slot": slot, "version": version, "content": content}
    return {
        "gen": 1, "state": "steady", "good": side, "previous": None, "trial": None, "tries": 0, "outcome": None,
        "note": "",
    }  # fmt: skip
