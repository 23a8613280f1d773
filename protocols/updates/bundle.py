"""A bundle: the files of one artefact with a manifest that names each by its hash; and the difference between two.

```
 tar, packed with zstd      manifest.json   who it is; path, bytes, SHA-256 of every file
   whole:                   f/<path> ...    every file, in the manifest's order
   difference:              delta.json      {"from": content id of the base}
                            f/<path> ...    files that are new
                            p/<path> ...    zstd patch against the base's file of that path
```
The **content id** is the SHA-256 of ``manifest.json``: two artefacts with one id are the same, byte for byte. Nothing
of a bundle is believed before that id was found right, and a file is kept only if its own hash is.
Bundles are deterministic (sorted, without times or owners), so building one twice gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from backports import zstd

from protocols.core.errors import ContractError
from protocols.updates.names import (
    MAX_FILES,
    MAX_UNPACKED_BYTES,
    Kind,
    check_name,
    check_platform,
    check_version,
    kind_of,
)

MANIFEST, DELTA = "manifest.json", "delta.json"
MAX_MANIFEST_BYTES = 16 << 20
#: A file beyond this goes whole into a difference: base and patch are held in memory.
MAX_PATCH_BASE_BYTES = 48 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[^/\\\0\n\r]{1,255}")
_WINDOW_LOG_MAX = 27
_MIN_PREFIX_BYTES = 8  # the library takes no shorter one


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``python``: minor version an agent was made for (3.11), "" if it does not matter; ``entry``: what the launcher
    gives Python to start an agent, e.g. ["-m", "citybrain_cli.main", "edge", "run"]."""

    kind: str
    name: str
    version: str
    files: tuple[File, ...]
    platform: str = "any"
    python: str = ""
    entry: tuple[str, ...] = ()
    format: int = 1

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def by_path(self) -> dict[str, File]:
        return {file.path: file for file in self.files}


class Delta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    base: str = msgspec.field(name="from")


def content_id(manifest: bytes) -> str:
    """Name of the content: the manifest's SHA-256, 64 hex digits."""
    return hashlib.sha256(manifest).hexdigest()


def write_manifest(manifest: Manifest) -> bytes:
    check(manifest)
    return msgspec.json.encode(manifest)


def read_manifest(data: bytes) -> Manifest:
    """Raises ContractError ``manifest``."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ContractError(f"a manifest of {len(data)} bytes; at most {MAX_MANIFEST_BYTES}", reason="manifest")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise ContractError(f"manifest: {error}", reason="manifest") from error
    check(manifest)
    return manifest


def check(manifest: Manifest) -> Kind:
    """Its kind. Raises ContractError: ``manifest``, ``kind``, ``name``, ``version``, ``platform``."""
    kind = kind_of(manifest.kind)
    check_name(manifest.name)
    check_version(manifest.version)
    check_platform(manifest.platform)
    if manifest.format != 1:
        raise ContractError(f"manifest format {manifest.format}; this agent reads 1", reason="manifest")
    if not manifest.files or len(manifest.files) > MAX_FILES:
        raise ContractError(f"manifest: {len(manifest.files)} files; 1 to {MAX_FILES}", reason="manifest")
    if manifest.bytes > MAX_UNPACKED_BYTES[kind]:
        raise ContractError(f"manifest: {manifest.bytes} bytes; {MAX_UNPACKED_BYTES[kind]} at most", reason="manifest")
    paths = [file.path for file in manifest.files]
    if paths != sorted(set(paths)):
        raise ContractError("manifest: files are sorted by path, each once", reason="manifest")
    folders = {path[:at] for path in paths for at in range(len(path)) if path[at] == "/"}
    for file in manifest.files:
        if not safe_path(file.path) or file.path in folders:
            raise ContractError(f"manifest: path {file.path[:80]!r} is not allowed", reason="manifest")
        if not _SHA256.fullmatch(file.sha256):
            raise ContractError(f"manifest: {file.path[:80]}: sha256 is 64 hex digits", reason="manifest")
    if kind == "agent" and not manifest.entry:
        raise ContractError("manifest: an agent says how it is started (entry)", reason="manifest")
    return kind


def safe_path(path: str) -> bool:
    """Relative, without ``..``, empty parts or control characters: it stays below the folder it is unpacked into."""
    parts = path.split("/")
    return len(path) <= 400 and all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)


def patch(base: bytes, new: bytes) -> bytes:
    """``new`` as a difference to ``base``: one zstd frame with the base as prefix."""
    parameter = zstd.CompressionParameter
    window = min(_WINDOW_LOG_MAX, max(10, (len(base) + len(new)).bit_length()))
    options: dict[int, int] = {
        parameter.compression_level: 9,
        parameter.window_log: window,
        parameter.enable_long_distance_matching: 1,
    }
    if len(base) < _MIN_PREFIX_BYTES:
        return zstd.compress(new, options=options)
    return zstd.compress(new, options=options, zstd_dict=zstd.ZstdDict(base, is_raw=True).as_prefix)


def apply_patch(base: bytes, packed: bytes, want_bytes: int) -> bytes:
    """The file again; at most ``want_bytes``, whatever the patch claims. Raises ContractError ``patch``."""
    prefix = zstd.ZstdDict(base, is_raw=True).as_prefix if len(base) >= _MIN_PREFIX_BYTES else None
    try:
        unpacker = zstd.ZstdDecompressor(
            zstd_dict=prefix, options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
        )
        # One byte more than is wanted shows a frame that is too long, and lets an empty one end.
        new = unpacker.decompress(packed, max_length=want_bytes + 1)
    except zstd.ZstdError as error:
        raise ContractError(f"a patch that does not apply: {error}", reason="patch") from error
    if len(new) != want_bytes or not unpacker.eof or unpacker.unused_data:
        raise ContractError("a patch of another length", reason="patch")
    return new


def changed(base: Manifest, new: Manifest) -> Sequence[File]:
    """Files of ``new`` that ``base`` does not have at that path with that content."""
    held = base.by_path()
    return [file for file in new.files if file.path not in held or held[file.path].sha256 != file.sha256]
