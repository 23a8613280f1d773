"""What the signatures say: from the root that came with enrolment to the hash of one artefact (TUF client).

Old metadata, expired metadata, metadata mixed from two states and metadata of another key are refused by python-tuf
(TUF specification 1.0.34, section 5); here its errors get our names, and what it stores is flushed to the disk, so that
a power cut cannot make it forget the newest version it has seen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api import exceptions
from tuf.ngclient import Updater, UpdaterConfig  # type: ignore[attr-defined]  # exported without saying so

from edge.updates.fetch import Http
from protocols.core.errors import ConfigError, ContractError, LinkDown, LinkRefused, StoreError
from protocols.updates.names import ANY_PLATFORM, MAX_PACKED_BYTES, MAX_UNPACKED_BYTES, Kind, full_path

_LIMITS = UpdaterConfig(max_root_rotations=64, max_delegations=8)


@dataclass(frozen=True, slots=True)
class Signed:
    """One signed file: where it lies, what it must be."""

    url: str
    bytes: int
    sha256: str
    custom: Mapping[str, Any]


class Trust:
    """One look at the repository: all that is asked of it comes from the same signed state. Blocking."""

    def __init__(self, folder: Path, url: str, root: bytes, http: Http) -> None:
        """Reads and checks what is new. Raises ContractError ``signature`` or ``expired``, LinkDown, StoreError."""
        self._url = url if url.endswith("/") else f"{url}/"
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._updater = Updater(str(folder), f"{self._url}metadata/", fetcher=http, config=_LIMITS, bootstrap=root)
            self._updater.refresh()
        except exceptions.RepositoryError as error:
            raise _refused(error) from error
        except exceptions.DownloadError as error:
            raise _not_there(error) from error
        except OSError as error:
            raise StoreError(f"{folder}: {error}") from error
        finally:
            self._flush()

    def find(self, kind: Kind, name: str, version: str, platform: str) -> Signed:
        """The whole artefact for that platform, or for any. Raises LinkRefused if nobody signed it."""
        for one in (platform, ANY_PLATFORM):
            found = self._target(full_path(kind, name, version, one))
            if found is not None:
                self._check(kind, found)
                return found
        raise LinkRefused(f"{kind} {name} {version} for {platform} is not in the repository")

    def at(self, path: str) -> Signed | None:
        """The file of that path, None if it is not signed."""
        return self._target(path)

    def _target(self, path: str) -> Signed | None:
        try:
            info = self._updater.get_targetinfo(path)
        except exceptions.RepositoryError as error:
            raise _refused(error) from error
        except exceptions.DownloadError as error:
            raise _not_there(error) from error
        finally:
            self._flush()
        if info is None:
            return None
        sha256 = info.hashes.get("sha256")
        if sha256 is None:
            raise ContractError(f"{path}: signed without SHA-256", reason="signature")
        folder, _, base = path.rpartition("/")
        custom = info.custom if isinstance(info.custom, dict) else {}
        return Signed(f"{self._url}targets/{folder}/{sha256}.{base}", info.length, sha256, custom)

    @staticmethod
    def _check(kind: Kind, found: Signed) -> None:
        unpacked = found.custom.get("bytes")
        if not isinstance(found.custom.get("content"), str) or not isinstance(unpacked, int):
            raise ContractError(f"{found.url}: signed without content and size", reason="signature")
        if found.bytes > MAX_PACKED_BYTES[kind] or unpacked > MAX_UNPACKED_BYTES[kind]:
            raise ContractError(f"{found.url}: {unpacked} bytes is more than {kind} may have", reason="size")

    def _flush(self) -> None:
        """python-tuf replaces files whole but does not flush them."""
        for path in self._folder.rglob("*.json"):
            try:
                handle = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def read_root(path: Path) -> bytes:
    """The trusted root from enrolment. Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"trusted root {path}: {error.strerror}; it comes with enrolment") from error


def _refused(error: exceptions.RepositoryError) -> ContractError:
    reason = "expired" if isinstance(error, exceptions.ExpiredMetadataError) else "signature"
    return ContractError(f"the repository is not believed: {error}", reason=reason)


def _not_there(error: exceptions.DownloadError) -> LinkDown:
    cause = error.__cause__
    return LinkDown(f"repository: {error}{f' ({cause})' if cause else ''}")
