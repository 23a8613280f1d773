"""From a downloaded bundle to files in a folder: whole, or as a difference to a folder that is there.

Signed does not mean harmless (a key can be stolen, a bundle made by mistake): names stay below the folder, only plain
files are made, nothing grows beyond what the manifest says, and every file has its hash or the whole is refused.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path
from typing import IO

import msgspec
from backports import zstd

from protocols.core.errors import ContractError, StoreError
from protocols.updates.bundle import (
    DELTA,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MAX_PATCH_BASE_BYTES,
    Delta,
    File,
    Manifest,
    apply_patch,
    content_id,
    read_manifest,
)

_WINDOW_LOG_MAX = 27
_COPY_BYTES = 1 << 20


def _base(message: str) -> ContractError:
    """The difference is to something that is not here, or not as it was: the whole bundle would do."""
    return ContractError(message, reason="base")


def unpack(bundle: Path, folder: Path, content: str, base: Path | None = None) -> Manifest:
    """Fill ``folder`` (made new) from the bundle; ``base``: the folder a difference is to, with its ``manifest.json``.

    Raises ContractError (reason ``base``: a difference to what is not here) or StoreError; then the folder is not
    whole and has no manifest."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        with bundle.open("rb") as file:
            manifest, data = _unpack(file, folder, content, base)
        os.sync()  # the files of the folder, once, before anybody may think them there
        part = folder / f".{MANIFEST}.part"
        part.write_bytes(data)
        part.replace(folder / MANIFEST)
        os.sync()
    except (tarfile.TarError, zstd.ZstdError, EOFError) as error:
        raise ContractError(f"{bundle.name}: {error}", reason="bundle") from error
    except OSError as error:
        raise StoreError(f"{folder}: {error}") from error
    return manifest


def _unpack(file: IO[bytes], folder: Path, content: str, base: Path | None) -> tuple[Manifest, bytes]:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
    with zstd.ZstdFile(file, options=options) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        members = iter(tar)
        data = _first(tar, next(members, None))
        if content_id(data) != content:
            raise ContractError("the bundle is not the content that was signed", reason="bundle")
        manifest = read_manifest(data)
        wanted = manifest.by_path()
        for member in members:
            stream = tar.extractfile(member) if member.isreg() else None
            if stream is None:
                raise ContractError(f"{member.name[:80]!r} is no plain file", reason="bundle")
            if member.name == DELTA:
                _check_base(stream.read(1024), base)
                continue
            how, _, path = member.name.partition("/")
            found = wanted.pop(path, None)
            if found is None or how not in ("f", "p"):
                raise ContractError(f"{member.name[:80]!r} is not in the manifest", reason="bundle")
            if how == "f":
                _whole(stream, folder, found, member.size)
            else:
                _patched(stream, folder, found, member.size, base)
    _unchanged(wanted, folder, base)
    return manifest, data


def _first(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> bytes:
    """The manifest."""
    if member is None or member.name != MANIFEST or not member.isreg() or member.size > MAX_MANIFEST_BYTES:
        raise ContractError(f"the bundle does not begin with {MANIFEST}", reason="bundle")
    stream = tar.extractfile(member)
    assert stream is not None  # noqa: S101 - it is a plain file
    return stream.read()


def _check_base(data: bytes, base: Path | None) -> None:
    try:
        wanted = msgspec.json.decode(data, type=Delta).base
        have = content_id((base / MANIFEST).read_bytes()) if base is not None else ""
    except (msgspec.DecodeError, OSError) as error:
        raise _base(f"the difference's base: {error}") from error
    if wanted != have:
        raise _base("the difference is to another content")


def _whole(stream: IO[bytes], folder: Path, file: File, size: int) -> None:
    if size != file.bytes:
        raise ContractError(f"{file.path}: {size} bytes, the manifest says {file.bytes}", reason="bundle")
    _write(stream, folder, file)


def _patched(stream: IO[bytes], folder: Path, file: File, size: int, base: Path | None) -> None:
    if base is None or size > file.bytes or file.bytes > 2 * MAX_PATCH_BASE_BYTES:
        raise ContractError(f"{file.path}: a patch without a base, or longer than the file", reason="bundle")
    try:
        old = (base / file.path).read_bytes()
    except OSError as error:
        raise _base(f"{file.path}: {error.strerror}") from error
    if len(old) > MAX_PATCH_BASE_BYTES:
        raise _base(f"{file.path}: too long to be patched")
    try:
        new = apply_patch(old, stream.read(), file.bytes)
    except ContractError as error:
        raise _base(f"{file.path}: {error}") from error
    if hashlib.sha256(new).hexdigest() != file.sha256:
        raise _base(f"{file.path}: the patched file has another hash: the base is not what it was")
    place = _place(folder, file)
    place.write_bytes(new)


def _unchanged(files: dict[str, File], folder: Path, base: Path | None) -> None:
    """Files that the bundle did not bring are those of the base."""
    for file in files.values():
        if base is None:
            raise ContractError(f"{file.path} is missing in the bundle", reason="bundle")
        try:
            with (base / file.path).open("rb") as stream:
                _write(stream, folder, file)
        except (ContractError, FileNotFoundError) as error:
            raise _base(f"{file.path}: the base is not what it was: {error}") from error


def _write(stream: IO[bytes], folder: Path, file: File) -> None:
    digest, left = hashlib.sha256(), file.bytes
    with _place(folder, file).open("wb") as out:
        while left and (chunk := stream.read(min(left, _COPY_BYTES))):
            digest.update(chunk)
            out.write(chunk)
            left -= len(chunk)
    if left or digest.hexdigest() != file.sha256:
        raise ContractError(f"{file.path}: wrong hash", reason="bundle")


def _place(folder: Path, file: File) -> Path:
    place = folder / file.path
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
