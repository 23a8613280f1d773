"""Bringing a wanted state to the disk: look it up, fetch it, unpack it, check it. Blocking; it runs in a thread.

It can be cut anywhere: downloads go on, unpacking begins again, and nothing here is in force before the launcher has
seen it healthy.
"""

from __future__ import annotations

import logging
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge.updates import overlay
from edge.updates.config import UpdatesConfig
from edge.updates.fetch import Http, download
from edge.updates.record import Record, whole
from edge.updates.slots import Held, InForce, Slots
from edge.updates.trust import Signed, Trust, read_root
from edge.updates.unpack import unpack
from protocols.core.errors import ContractError, StoreError
from protocols.updates.bundle import MANIFEST, Manifest, content_id, write_manifest
from protocols.updates.document import Item, Wanted
from protocols.updates.names import Kind, kind_of

log = logging.getLogger("citybrain.edge.updates")


def this_platform() -> str:
    return f"{platform.system().lower()}-{platform.machine().lower()}"


@dataclass(slots=True)
class Figures:
    """What a staging cost."""

    downloaded_bytes: int = 0
    deltas: int = 0
    wholes: int = 0


@dataclass(slots=True)
class Stager:
    """``cancelled``: asked now and then; True stops a download with LinkDown."""

    config: UpdatesConfig
    base: Path
    slots: Slots
    cancelled: Callable[[], bool] = lambda: False
    figures: Figures = field(default_factory=Figures)

    def stage(self, wanted: Wanted, document: int) -> Record:
        """The record, ``ready``. Raises TransportError and StoreError (try again), ContractError and LinkRefused (this
        document cannot be had)."""
        record = self.slots.record()
        if record["state"] == "ready":
            record = self.slots.step(record, "cancel")
        now = self.slots.in_force(record)
        http = Http(self.config, self.base)
        root = read_root(self.base / self.config.root_file)
        trust = Trust(self.slots.root / "trust", self.config.url, root, http)
        agent = None
        if wanted.agent is not None and not same_agent(now, wanted.agent):
            agent = trust.find("agent", wanted.agent.name, wanted.agent.version, this_platform())
        items = {
            (kind, item.name): (item, trust.find(kind, item.name, item.version, this_platform()))
            for kind, named in wanted.content().items()
            for item in named
        }
        signed = [found for _, found in items.values()] + ([agent] if agent is not None else [])
        kept = [one.sha256 for one in signed] + [d.sha256 for one in signed for d in self._deltas(trust, one)]
        changes_content = content_of(now, wanted) != {(h.kind, h.name): h.version for h in now.items}
        name = self.slots.next_content(record) if changes_content else str(record["good"]["content"])
        self.slots.tidy(record, keep=kept)
        self._room(signed)
        version = wanted.agent.version if agent is not None and wanted.agent is not None else now.agent.version
        record = self.slots.begin(record, document, version, agent=agent is not None, content=name)
        if agent is not None:
            manifest = self._get(
                http, trust, agent, self.slots.folder(record["trial"]), self.slots.folder(record["good"])
            )
            check_agent(manifest, wanted.agent)
        if changes_content:
            self._content(http, trust, record, now, wanted, items, name)
        return self.slots.step(record, "filled")

    def _content(
        self,
        http: Http,
        trust: Trust,
        record: Record,
        now: InForce,
        wanted: Wanted,
        items: dict[tuple[Kind, str], tuple[Item, Signed]],
        name: str,
    ) -> None:
        """A content folder of what stays and what is new."""
        old = self.slots.content(record["good"])
        parts: list[tuple[Held, Path]] = [
            (held, old / held.kind)
            for held in now.items
            if kind_of(held.kind) not in wanted.content() and old is not None
        ]
        for (kind, item_name), (item, signed) in sorted(items.items()):
            held_before = now.item(kind, item_name)
            content = str(signed.custom["content"])
            if held_before is not None and held_before.content == content and old is not None:
                parts.append((held_before, old / kind))
                continue
            folder = self.slots.root / "staging" / f"{kind}.{item_name}"
            base = None
            if held_before is not None and old is not None:
                base = self._base_of(held_before, old / kind)
            manifest = self._get(http, trust, signed, folder, base)
            if (manifest.kind, manifest.name, manifest.version) != (kind, item.name, item.version):
                raise ContractError(f"{kind} {item.name} {item.version}: the bundle is another", reason="bundle")
            parts.append((Held(kind, item.name, item.version, content, manifest), folder))
        made = self.slots.make_content(name, parts)
        overlay.check(made)
        shutil.rmtree(self.slots.root / "staging", ignore_errors=True)

    def _base_of(self, held: Held, folder: Path) -> Path:
        """The artefact's files as a folder with its own manifest, so that a difference can start from it."""
        base = self.slots.root / "staging" / f"base.{held.kind}.{held.name}"
        shutil.rmtree(base, ignore_errors=True)
        for file in held.manifest.files:
            (base / file.path).parent.mkdir(parents=True, exist_ok=True)
            if (folder / file.path).is_file():
                shutil.copyfile(folder / file.path, base / file.path)
        base.mkdir(parents=True, exist_ok=True)
        (base / MANIFEST).write_bytes(write_manifest(held.manifest))
        return base

    def _get(self, http: Http, trust: Trust, signed: Signed, folder: Path, base: Path | None) -> Manifest:
        """Unpacked in ``folder``: by a difference if there is one to the base, else whole."""
        content = str(signed.custom["content"])
        for delta in self._deltas(trust, signed):
            if base is None or delta.custom.get("from") != self._content_of(base):
                continue
            try:
                manifest = unpack(self._fetch(http, delta), folder, content, base)
                self.figures.deltas += 1
                return manifest
            except ContractError as error:
                log.warning("difference not usable, taking the whole: %s", error)
        self.figures.wholes += 1
        return unpack(self._fetch(http, signed), folder, content)

    def _fetch(self, http: Http, signed: Signed) -> Path:
        target = self.slots.downloads / signed.sha256
        part = target.with_name(f"{target.name}.part")
        have = target.stat().st_size if target.exists() else part.stat().st_size if part.exists() else 0
        found = download(
            http,
            signed.url,
            target,
            signed.bytes,
            signed.sha256,
            keep_free_bytes=self.config.keep_free_mb << 20,
            max_bytes_s=self.config.max_kbit_s * 125,
            cancelled=self.cancelled,
        )
        self.figures.downloaded_bytes += max(0, signed.bytes - have)
        return found

    @staticmethod
    def _deltas(trust: Trust, signed: Signed) -> list[Signed]:
        offered = signed.custom.get("deltas")
        paths = [d["path"] for d in offered if isinstance(d, dict)] if isinstance(offered, list) else []
        found = [trust.at(str(path)) for path in paths[:4]]
        return [one for one in found if one is not None and one.custom.get("content") == signed.custom["content"]]

    @staticmethod
    def _content_of(base: Path) -> str:
        try:
            return content_id((base / MANIFEST).read_bytes())
        except OSError:
            return ""

    def _room(self, signed: list[Signed]) -> None:
        """Raises StoreError if it would take more than it may; nothing is fetched then."""
        needed = sum(one.bytes + int(one.custom["bytes"]) for one in signed)
        used = self.slots.used_bytes()
        if used + needed > self.config.max_disk_mb << 20:
            raise StoreError(f"{needed >> 20} MB more beside {used >> 20} MB is above {self.config.max_disk_mb} MB")
        free = shutil.disk_usage(self.slots.root).free
        if free < needed + (self.config.keep_free_mb << 20):
            raise StoreError(f"{free >> 20} MB free; {needed >> 20} MB needed, {self.config.keep_free_mb} MB stay free")


def same_agent(now: InForce, agent: Item) -> bool:
    return (now.agent.name, now.agent.version) == (agent.name, agent.version)


def content_of(now: InForce, wanted: Wanted) -> dict[tuple[str, str], str]:
    """What will be in force, version by (kind, name)."""
    named = wanted.content()
    after = {(h.kind, h.name): h.version for h in now.items if kind_of(h.kind) not in named}
    return after | {(kind, item.name): item.version for kind, items in named.items() for item in items}


def satisfied(now: InForce, wanted: Wanted) -> bool:
    """Whether nothing has to be done."""
    if wanted.agent is not None and not same_agent(now, wanted.agent):
        return False
    return content_of(now, wanted) == {(h.kind, h.name): h.version for h in now.items}


def check_agent(manifest: Manifest, wanted: Item | None) -> None:
    """Raises ContractError: it is another one, or not for this machine."""
    if wanted is not None and (manifest.kind, manifest.name, manifest.version) != (
        "agent",
        wanted.name,
        wanted.version,
    ):
        raise ContractError(f"agent {wanted.name} {wanted.version}: the bundle is another", reason="bundle")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if manifest.python and manifest.python != here:
        raise ContractError(f"made for Python {manifest.python}; this gateway has {here}", reason="python")
    if manifest.platform not in ("any", this_platform()):
        raise ContractError(f"made for {manifest.platform}; this is {this_platform()}", reason="platform")


def still_whole(slots: Slots, record: Record) -> bool:
    """After a restart: is what was staged still there as it was?"""
    trial = record["trial"]
    content = slots.content(trial)
    return not whole(slots.folder(trial)) and (content is None or not whole(content))
