"""Packing artefacts: files to a deterministic bundle, wheels to an agent, two bundles to their difference."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec
from backports import zstd

from protocols.core.errors import ConfigError, ContractError
from protocols.updates.bundle import (
    DELTA,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MAX_PATCH_BASE_BYTES,
    Delta,
    File,
    Manifest,
    changed,
    content_id,
    patch,
    read_manifest,
    write_manifest,
)
from protocols.updates.names import MAX_UNPACKED_BYTES, Kind

#: Where an agent's packages lie in its bundle; the launcher puts it on Python's path.
SITE = "site"
_LEVEL = 15

Tree = Mapping[str, bytes]  # path -> content


def manifest_of(
    kind: Kind,
    name: str,
    version: str,
    tree: Tree,
    *,
    platform: str = "any",
    python: str = "",
    entry: Sequence[str] = (),
) -> Manifest:
    files = tuple(File(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in sorted(tree.items()))
    return Manifest(kind, name, version, files, platform, python, tuple(entry))


def pack(manifest: Manifest, tree: Tree) -> bytes:
    """The whole bundle. Raises ContractError if the manifest breaks its rules."""
    parts = [(MANIFEST, write_manifest(manifest))]
    parts += [(f"f/{file.path}", tree[file.path]) for file in manifest.files]
    return _packed(parts)


def pack_delta(base: Manifest, base_tree: Tree, new: Manifest, new_tree: Tree) -> bytes:
    """What somebody who has ``base`` needs to have ``new``."""
    parts = [
        (MANIFEST, write_manifest(new)),
        (DELTA, msgspec.json.encode(Delta(content_id(write_manifest(base))))),
    ]
    for file in changed(base, new):
        data, old = new_tree[file.path], base_tree.get(file.path)
        if old is not None and len(old) <= MAX_PATCH_BASE_BYTES:
            difference = patch(old, data)
            if len(difference) < len(data):
                parts.append((f"p/{file.path}", difference))
                continue
        parts.append((f"f/{file.path}", data))
    return _packed(parts)


def _packed(parts: Sequence[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: _LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    with zstd.ZstdFile(out, "wb", options=options) as packed, tarfile.open(fileobj=_Written(packed), mode="w|") as tar:
        for name, data in parts:
            info = tarfile.TarInfo(name)  # no time, no owner: the same files give the same bytes
            info.size = len(data)
            info.mode = 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class _Written(io.RawIOBase):
    """tarfile wants to write only."""

    def __init__(self, target: zstd.ZstdFile) -> None:
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._target.write(data)  # type: ignore[arg-type]


def unpack(packed: IO[bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """A whole bundle into memory, every hash checked: for the release station. Raises ContractError."""
    tree: dict[str, bytes] = {}
    manifest: Manifest | None = None
    try:
        with zstd.ZstdFile(packed) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise ContractError(f"bundle: {member.name[:80]!r} is no plain file", reason="bundle")
                if manifest is None:
                    if member.name != MANIFEST or member.size > MAX_MANIFEST_BYTES:
                        raise ContractError("bundle: it does not begin with its manifest", reason="bundle")
                    manifest = read_manifest(content.read())
                    by_path = manifest.by_path()
                    continue
                file = by_path.get(member.name.removeprefix("f/"))
                if file is None or member.size != file.bytes:
                    raise ContractError(f"bundle: {member.name[:80]!r} is not in its manifest", reason="bundle")
                data = content.read()
                if hashlib.sha256(data).hexdigest() != file.sha256:
                    raise ContractError(f"bundle: {file.path}: wrong hash", reason="bundle")
                tree[file.path] = data
    except (tarfile.TarError, zstd.ZstdError, EOFError) as error:
        raise ContractError(f"bundle: {error}", reason="bundle") from error
    if manifest is None or len(tree) != len(manifest.files):
        raise ContractError("bundle: not all files of its manifest", reason="bundle")
    return manifest, tree


def files_below(paths: Sequence[Path], kind: Kind) -> dict[str, bytes]:
    """Files, and folders with all that is below them, by the path they get in the bundle. Raises ConfigError."""
    tree: dict[str, bytes] = {}
    size = 0
    for path in paths:
        found = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in found:
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            if "__pycache__" in file.parts:
                continue
            if file.is_symlink() or name in tree:
                raise ConfigError(f"{file}: a link, or a second {name}")
            try:
                tree[name] = file.read_bytes()
            except OSError as error:
                raise ConfigError(f"{file}: {error.strerror}") from error
            size += len(tree[name])
            if size > MAX_UNPACKED_BYTES[kind]:
                raise ConfigError(f"{file}: more than the {MAX_UNPACKED_BYTES[kind]} bytes that {kind} may have")
    return tree


def agent_tree(wheels: Sequence[Path]) -> dict[str, bytes]:
    """Wheels (PEP 427) laid out as Python finds them, below ``site/``. Nothing is installed and nothing is run: neither
    here nor on the gateway. Raises ConfigError."""
    tree: dict[str, bytes] = {}
    owner: dict[str, str] = {}
    for wheel in sorted(wheels):
        try:
            with zipfile.ZipFile(wheel) as archive:
                for info in archive.infolist():
                    place = _place(info.filename)
                    if info.is_dir() or place is None:
                        continue
                    path = f"{SITE}/{place}"
                    data = archive.read(info)
                    if tree.get(path, data) != data:
                        raise ConfigError(f"{wheel.name} and {owner[path]} both bring {place}, and not the same")
                    tree[path], owner[path] = data, wheel.name
        except (OSError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{wheel}: {error}") from error
    if not tree:
        raise ConfigError("an agent is made of wheels; none were given")
    return tree


def _place(name: str) -> str | None:
    """Where a wheel's file belongs below site-packages; None for scripts, headers and data."""
    parts = PurePosixPath(name).parts
    if parts and parts[0].endswith(".data"):
        return "/".join(parts[2:]) if len(parts) > 2 and parts[1] in ("purelib", "platlib") else None
    return "/".join(parts)
