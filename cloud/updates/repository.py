"""The signed repository of artefacts (TUF 1.0.34, consistent snapshots), as files a web server gives out.

```
 <folder>/metadata/  1.root.json 2.root.json ...   N.targets.json  N.agent.json N.models.json ...  N.snapshot.json
                     timestamp.json
 <folder>/targets/   agent/citybrain/0.2.0/<sha256>.any.tar.zst  ...
```
Files are written in the order in which a reader would miss them: artefacts, roles, snapshot, timestamp last. A cut in
between leaves the old state in force. Nothing is ever overwritten but ``timestamp.json``.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # exported without saying so
from tuf.api.metadata import (  # type: ignore[attr-defined]  # the same
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from cloud.updates import bundles
from cloud.updates.keys import ONLINE, Keys
from protocols.core.errors import ConfigError, ContractError
from protocols.updates.bundle import Manifest, content_id, write_manifest
from protocols.updates.names import (
    KINDS,
    MAX_PACKED_BYTES,
    Kind,
    delta_path,
    full_path,
    kind_of,
    path_patterns,
)

ROOT_LIFE, TARGETS_LIFE = timedelta(days=365), timedelta(days=365)
SNAPSHOT_LIFE, TIMESTAMP_LIFE = timedelta(days=7), timedelta(days=2)
#: A difference that saves less than this is not worth its place.
DELTA_MOST = 0.7
_DELTAS_KEPT = 2
_NUMBERED = re.compile(r"(\d+)\.([a-z]+)\.json")

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class Release:
    """One artefact for one platform."""

    kind: Kind
    name: str
    version: str
    platform: str
    path: str
    packed_bytes: int
    bytes: int
    content: str
    added_at: datetime
    notes: str
    deltas: tuple[str, ...]


class Repository:
    """``now`` is an argument of whatever signs. One writer at a time, by a lock on the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"

    # -- reading --------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return (self.metadata / "timestamp.json").is_file()

    def trusted_root(self) -> bytes:
        """The newest root, which a gateway gets at enrolment and trusts from then on. Raises ConfigError."""
        return self._bytes("root", self._newest("root"))

    def releases(self) -> list[Release]:
        """Everything that is signed, newest first."""
        found: list[Release] = []
        if not self.exists():
            return found
        for kind in KINDS:
            for path, target in self._load(Targets, kind).signed.targets.items():
                custom = target.custom or {}
                if "from" in custom:
                    continue
                _, name, version, _ = path.split("/")
                found.append(
                    Release(
                        kind,
                        name,
                        version,
                        str(custom["platform"]),
                        path,
                        target.length,
                        int(custom["bytes"]),
                        str(custom["content"]),
                        datetime.fromtimestamp(int(custom["added_s"]), UTC),
                        str(custom.get("notes", "")),
                        tuple(str(delta["path"]) for delta in custom.get("deltas", ())),
                    )
                )
        return sorted(found, key=lambda r: r.added_at, reverse=True)

    def has(self, kind: Kind, name: str, version: str) -> bool:
        return any((r.kind, r.name, r.version) == (kind, name, version) for r in self.releases())

    # -- changing -------------------------------------------------------------------------------------------------

    def create(self, keys: Keys, now: datetime) -> None:
        """An empty repository with keys of its own. Raises ConfigError if there is one."""
        with self._alone():
            if (self.metadata / "1.root.json").exists():
                raise ConfigError(f"{self.folder} is a repository already")
            self.metadata.mkdir(parents=True, exist_ok=True)
            self.targets.mkdir(exist_ok=True)
            signers = {role: keys.create(role) for role in ("root", "targets", *KINDS, ONLINE)}
            root = Root(expires=now + ROOT_LIFE, consistent_snapshot=True)
            for role, key in (("root", "root"), ("targets", "targets"), ("snapshot", ONLINE), ("timestamp", ONLINE)):
                root.add_key(signers[key].public_key, role)
            targets = Targets(expires=now + TARGETS_LIFE)
            targets.delegations = Delegations(
                {signers[kind].public_key.keyid: signers[kind].public_key for kind in KINDS},
                {
                    kind: DelegatedRole(
                        kind, [signers[kind].public_key.keyid], 1, terminating=True, paths=path_patterns(kind)
                    )
                    for kind in KINDS
                },
            )
            self._write(Metadata(root), signers["root"])
            for kind in KINDS:
                self._write(Metadata(Targets(expires=now + TARGETS_LIFE)), signers[kind], name=kind)
            self._write(Metadata(targets), signers["targets"])
            self._publish(signers[ONLINE], now, first=True)

    def add(
        self,
        keys: Keys,
        manifest: Manifest,
        tree: bundles.Tree,
        now: datetime,
        *,
        notes: str = "",
        deltas: int = _DELTAS_KEPT,
    ) -> Release:
        """Sign an artefact and its differences to the newest ``deltas`` versions of its name and platform.

        Raises ContractError if it breaks a rule, ConfigError if that version is there with another content: what was
        signed once under a name stays what it was."""
        packed = bundles.pack(manifest, tree)
        kind = kind_of(manifest.kind)
        if len(packed) > MAX_PACKED_BYTES[kind]:
            raise ContractError(f"{len(packed)} bytes packed; {kind} may have {MAX_PACKED_BYTES[kind]}", reason="size")
        path = full_path(kind, manifest.name, manifest.version, manifest.platform)
        content = content_id(write_manifest(manifest))
        with self._alone():
            role = self._load(Targets, kind)
            if (known := role.signed.targets.get(path)) is not None:
                if (known.custom or {}).get("content") != content:
                    raise ConfigError(f"{path} is released already, with other content: take a new version")
                raise ConfigError(f"{path} is released already")
            custom: dict[str, Any] = {
                "added_s": int(now.timestamp()),
                "bytes": manifest.bytes,
                "content": content,
                "notes": notes[:500],
                "platform": manifest.platform,
            }
            offered = []
            for base_path in self._bases(role.signed, kind, manifest)[:deltas]:
                base, base_tree = self._read(role.signed, base_path)
                difference = bundles.pack_delta(base, base_tree, manifest, tree)
                if len(difference) > DELTA_MOST * len(packed):
                    continue
                base_id = content_id(write_manifest(base))
                where = delta_path(kind, manifest.name, manifest.version, manifest.platform, base_id)
                offered.append({"from": base_id, "path": where, "bytes": len(difference)})
                role.signed.targets[where] = self._store(
                    where, difference, {"from": base_id, "content": content, "platform": manifest.platform}
                )
            custom["deltas"] = offered
            role.signed.targets[path] = self._store(path, packed, custom)
            role.signed.expires = now + TARGETS_LIFE
            role.signed.version += 1
            self._write(role, self._signer(keys, kind), name=kind)
            self._publish(self._signer(keys, ONLINE), now)
        return next(r for r in self.releases() if r.path == path)

    def withdraw(self, keys: Keys, kind: Kind, name: str, version: str, now: datetime) -> int:
        """Take the signature off every artefact of that version; gateways that do not have it yet no longer get it.
        How many there were."""
        with self._alone():
            role = self._load(Targets, kind)
            gone = [path for path in role.signed.targets if path.split("/")[1:3] == [name, version]]
            for path in gone:
                del role.signed.targets[path]
            if gone:
                role.signed.version += 1
                self._write(role, self._signer(keys, kind), name=kind)
                self._publish(self._signer(keys, ONLINE), now)
            return len(gone)

    def rotate(self, keys: Keys, role: str, now: datetime) -> None:
        """A new key for ``root``, ``targets``, ``online`` or a kind; the old one is void from now on.

        A gateway follows on its next look: a new root is signed by the old and by the new key (TUF, 5.3)."""
        with self._alone():
            if role in KINDS:
                kind = kind_of(role)
                parent, child = self._load(Targets, "targets"), self._load(Targets, kind)
                fresh = keys.create(kind, next_one=True)
                for old in list(parent.signed.get_delegated_role(kind).keyids):
                    parent.signed.revoke_key(old, kind)
                parent.signed.add_key(fresh.public_key, kind)
                parent.signed.version += 1
                parent.signed.expires = now + TARGETS_LIFE
                child.signed.version += 1
                boss = self._signer(keys, "targets")
                self._write(child, fresh, name=kind)
                self._write(parent, boss)
                self._publish(self._signer(keys, ONLINE), now)
                keys.promote(kind)
                return
            names = {"root": ("root",), "targets": ("targets",), ONLINE: ("snapshot", "timestamp")}.get(role)
            if names is None:
                raise ConfigError(f"no role {role!r}; there are root, targets, {ONLINE}, {', '.join(KINDS)}")
            root = self._load(Root, "root")
            signers = [self._signer(keys, "root")]
            fresh = keys.create(role, next_one=True)
            for name in names:
                for old in list(root.signed.roles[name].keyids):
                    root.signed.revoke_key(old, name)
                root.signed.add_key(fresh.public_key, name)
            if role == "root":
                signers.append(fresh)
            root.signed.version += 1
            root.signed.expires = now + ROOT_LIFE
            self._write(root, *signers)
            if role == "targets":
                targets = self._load(Targets, "targets")
                targets.signed.version += 1
                targets.signed.expires = now + TARGETS_LIFE
                self._write(targets, fresh)
            self._publish(self._signer(keys, ONLINE), now)
            keys.promote(role)

    def refresh(self, keys: Keys, now: datetime) -> bool:
        """Sign snapshot and timestamp anew when half of the timestamp's life is over: the core's own regular duty, so
        that a gateway that hears nothing new knows it for the truth. Whether it was time."""
        with self._alone():
            if self._load_timestamp().signed.expires - now > TIMESTAMP_LIFE / 2:
                return False
            self._publish(self._signer(keys, ONLINE), now)
            return True

    def renew(self, keys: Keys, now: datetime) -> None:
        """Sign root, targets and the kinds for another year, with the offline keys."""
        with self._alone():
            root, targets = self._load(Root, "root"), self._load(Targets, "targets")
            for kind in KINDS:
                role = self._load(Targets, kind)
                role.signed.version += 1
                role.signed.expires = now + TARGETS_LIFE
                self._write(role, self._signer(keys, kind), name=kind)
            targets.signed.version += 1
            targets.signed.expires = now + TARGETS_LIFE
            root.signed.version += 1
            root.signed.expires = now + ROOT_LIFE
            self._write(root, self._signer(keys, "root"))
            self._write(targets, self._signer(keys, "targets"))
            self._publish(self._signer(keys, ONLINE), now)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _bases(self, role: Targets, kind: Kind, manifest: Manifest) -> list[str]:
        """Whole artefacts of that name and platform, newest first."""
        found = [
            (int((target.custom or {})["added_s"]), path)
            for path, target in role.targets.items()
            if path.startswith(f"{kind}/{manifest.name}/")
            and "from" not in (target.custom or {})
            and (target.custom or {}).get("platform") == manifest.platform
        ]
        return [path for _, path in sorted(found, reverse=True)]

    def _read(self, role: Targets, path: str) -> tuple[Manifest, dict[str, bytes]]:
        target = role.targets[path]
        data = (self.targets / target.get_prefixed_paths()[0]).read_bytes()
        target.verify_length_and_hashes(data)
        return bundles.unpack(io.BytesIO(data))

    def _store(self, path: str, data: bytes, custom: dict[str, Any]) -> TargetFile:
        sha256 = hashlib.sha256(data).hexdigest()
        target = TargetFile(len(data), {"sha256": sha256}, path, {"custom": custom})
        where = self.targets / target.get_prefixed_paths()[0]
        where.parent.mkdir(parents=True, exist_ok=True)
        _write_durably(where, data)
        return target

    def _publish(self, online: CryptoSigner, now: datetime, *, first: bool = False) -> None:
        snapshot = Metadata(Snapshot(expires=now)) if first else self._load(Snapshot, "snapshot")
        if not first:
            snapshot.signed.version += 1
        snapshot.signed.expires = now + SNAPSHOT_LIFE
        snapshot.signed.meta = {f"{role}.json": MetaFile(self._newest(role)) for role in ("targets", *KINDS)}
        data = self._write(snapshot, online)
        timestamp = Metadata(Timestamp(expires=now)) if first else self._load_timestamp()
        if not first:
            timestamp.signed.version += 1
        timestamp.signed.expires = now + TIMESTAMP_LIFE
        timestamp.signed.snapshot_meta = MetaFile(
            snapshot.signed.version, len(data), {"sha256": hashlib.sha256(data).hexdigest()}
        )
        timestamp.sign(online)
        _write_durably(self.metadata / "timestamp.json", timestamp.to_bytes())

    def _write(self, metadata: Metadata[T], *signers: CryptoSigner, name: str = "") -> bytes:
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        data = metadata.to_bytes()
        where = self.metadata / f"{metadata.signed.version}.{name or metadata.signed.type}.json"
        if where.exists() and where.read_bytes() != data:
            # A run that was cut before it published; nobody has been told of that file.
            where.unlink()
        _write_durably(where, data)
        return data

    def _newest(self, role: str) -> int:
        versions = [
            int(m[1]) for p in self.metadata.glob(f"*.{role}.json") if (m := _NUMBERED.fullmatch(p.name)) is not None
        ]
        if not versions:
            raise ConfigError(f"{self.folder} has no {role}: make the repository with `citybrain cloud release init`")
        return max(versions)

    def _bytes(self, role: str, version: int) -> bytes:
        return (self.metadata / f"{version}.{role}.json").read_bytes()

    def _signer(self, keys: Keys, role: str) -> CryptoSigner:
        """The key that the newest metadata trusts for the role."""
        if role in KINDS:
            trusted = self._load(Targets, "targets").signed.get_delegated_role(role)
        else:
            trusted = self._load(Root, "root").signed.get_delegated_role("timestamp" if role == ONLINE else role)
        return keys.signer(role, trusted.keyids)

    def _load(self, kind: type[T], role: str) -> Metadata[T]:
        found: Metadata[T] = Metadata.from_bytes(self._bytes(role, self._newest(role)))
        if not isinstance(found.signed, kind):
            raise ConfigError(f"{self.folder}: {role}.json is something else")
        return found

    def _load_timestamp(self) -> Metadata[Timestamp]:
        return Metadata[Timestamp].from_bytes((self.metadata / "timestamp.json").read_bytes())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _write_durably(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(0o644)
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
