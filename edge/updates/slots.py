"""The agent's side of the slots: fills the one that does not run, makes content folders, arms the launcher.

```
 ROOT/ a/ b/              manifest.json, site/...                      one of them runs
       content/g7/        manifest.json (every file), items.json (what came from which artefact)
                          models/ packs/ templates/
       downloads/         <sha256>, <sha256>.part
```
Content folders are made anew for each change, files that stay are linked, and no folder is touched once it is whole:
so the version before can come back at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge.updates import record as boot
from edge.updates.record import Record
from protocols.core.errors import ConfigError, ContractError, StoreError
from protocols.updates.bundle import MANIFEST, Manifest, content_id, read_manifest
from protocols.updates.names import Kind

ITEMS = "items.json"
OTHER = {"a": "b", "b": "a"}


class Held(msgspec.Struct, frozen=True):
    """One artefact of a content folder, with the manifest of its bundle (what a difference to it starts from)."""

    kind: str
    name: str
    version: str
    content: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class InForce:
    """What runs: of the good side, unless ``trial`` says that this process is the one on trial."""

    agent: Manifest
    agent_content: str
    items: tuple[Held, ...]

    def item(self, kind: Kind, name: str) -> Held | None:
        return next((held for held in self.items if (held.kind, held.name) == (kind, name)), None)


class Slots:
    """Everything below ROOT. Writes the record only in the states that are the agent's. Raises StoreError."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.downloads = root / "downloads"

    def record(self) -> Record:
        found = boot.read(self.root)
        if found is None:
            raise ConfigError(f"{self.root}: no boot record: `citybrain edge slots init` makes one")
        return found

    def step(self, record: Record, event: str, **more: Any) -> Record:
        try:
            return boot.write(self.root, boot.step(record, event, **more))
        except OSError as error:
            raise StoreError(f"boot record: {error}") from error

    def folder(self, side: Record) -> Path:
        return self.root / str(side["slot"])

    def content(self, side: Record) -> Path | None:
        return self.root / "content" / str(side["content"]) if side["content"] else None

    def in_force(self, record: Record) -> InForce:
        """Of the good side. Raises ContractError or StoreError if its papers cannot be read."""
        side = record["good"]
        try:
            data = (self.folder(side) / MANIFEST).read_bytes()
            content = self.content(side)
            items = (content / ITEMS).read_bytes() if content is not None else b"[]"
        except OSError as error:
            raise StoreError(f"{self.root}: {error}") from error
        return InForce(read_manifest(data), content_id(data), read_items(items))

    # -- filling --------------------------------------------------------------------------------------------------

    def begin(self, record: Record, document: int, version: str, *, agent: bool, content: str) -> Record:
        """Room for a trial. ``content``: the folder its content will have. What lies in the slot is given up first,
        in the record, then on the disk."""
        good = record["good"]
        slot = OTHER[good["slot"]] if agent else good["slot"]
        previous = record["previous"]
        if previous is not None and agent and previous["slot"] == slot:
            previous = None
        trial = {"slot": slot, "version": version, "content": content, "document": document}
        return self.step(record, "begin", trial=trial, previous=previous, outcome=None)

    def next_content(self, record: Record) -> str:
        """A name that no side uses."""
        used = [int(side["content"][1:]) for side in _sides(record) if side["content"]]
        on_disk = [int(p.name[1:]) for p in (self.root / "content").glob("g*") if p.name[1:].isdecimal()]
        return f"g{max([0, *used, *on_disk]) + 1}"

    def make_content(self, name: str, parts: Sequence[tuple[Held, Path]]) -> Path:
        """Put artefacts, each unpacked in a folder, together into one content folder, and write its papers last.

        Raises ContractError if two bring the same file."""
        target = self.root / "content" / name
        files: dict[str, Mapping[str, object]] = {}
        try:
            if target.exists():
                shutil.rmtree(target)
            target.mkdir(parents=True)
            for held, folder in parts:
                for file in held.manifest.files:
                    path = f"{held.kind}/{file.path}"
                    if path in files:
                        raise ContractError(f"{path} is brought by {held.name} and by another", reason="content")
                    files[path] = {"path": path, "bytes": file.bytes, "sha256": file.sha256}
                    (target / path).parent.mkdir(parents=True, exist_ok=True)
                    _link(folder / file.path, target / path)
            (target / ITEMS).write_bytes(msgspec.json.encode([held for held, _ in parts]))
            own = hashlib.sha256((target / ITEMS).read_bytes()).hexdigest()
            files[ITEMS] = {"path": ITEMS, "sha256": own}
            os.sync()
            part = target / f".{MANIFEST}.part"
            part.write_text(json.dumps({"files": list(files.values())}), "utf-8")
            part.replace(target / MANIFEST)
            os.sync()
        except OSError as error:
            raise StoreError(f"{target}: {error}") from error
        return target

    # -- room -----------------------------------------------------------------------------------------------------

    def tidy(self, record: Record, keep: Sequence[str] = ()) -> None:
        """Remove what no side of the record uses: content folders, staging leftovers, downloads not in ``keep``."""
        used = {side["content"] for side in _sides(record)}
        for folder in (self.root / "content").glob("*"):
            if folder.name not in used:
                shutil.rmtree(folder, ignore_errors=True)
        for file in self.downloads.glob("*"):
            if file.name.removesuffix(".part") not in keep:
                file.unlink(missing_ok=True)
        shutil.rmtree(self.root / "staging", ignore_errors=True)

    def used_bytes(self) -> int:
        """What everything below ROOT takes; a file linked twice counts once."""
        seen: dict[tuple[int, int], int] = {}
        for path in self.root.rglob("*"):
            try:
                found = path.lstat()
            except OSError:
                continue
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
        return sum(seen.values())


def read_items(data: bytes) -> tuple[Held, ...]:
    """Raises ContractError."""
    try:
        return tuple(msgspec.json.decode(data, type=list[Held]))
    except msgspec.DecodeError as error:
        raise ContractError(f"{ITEMS}: {error}", reason="content") from error


def _sides(record: Record) -> list[Record]:
    return [side for side in (record["good"], record["previous"], record["trial"]) if side is not None]


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
