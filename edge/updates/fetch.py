"""Getting bytes by HTTP: metadata for the TUF client, artefacts in resumable files.

A download goes on where it stopped, also after a power cut: the part lies on the disk under the name of the hash it
must have in the end, and nothing believes it before it has. The server may be anybody's: it can send too much, too
slowly, the wrong range or rubbish, and costs us no more than the length that was signed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import urllib3
from tuf.api import exceptions
from tuf.ngclient import FetcherInterface  # type: ignore[attr-defined]  # exported without saying so

from edge.updates.config import UpdatesConfig
from protocols.core.errors import ContractError, LinkDown, LinkRefused, LinkTimeout, StoreError

_CHUNK_BYTES = 64 << 10
_SYNC_EVERY_BYTES = 4 << 20
#: Slower than this for a whole window is no download (TUF: slow retrieval).
_SLOWEST_BYTES_S, _SLOW_WINDOW_S = 64, 120.0
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

Cancelled = Callable[[], bool]


class Http(FetcherInterface):
    """One pool of connections. ``base``: directory of the agent, for a relative CA file."""

    def __init__(self, config: UpdatesConfig, base: Path) -> None:
        timeout = urllib3.Timeout(connect=min(10.0, config.timeout_s), read=config.timeout_s)
        more = {"ca_certs": str(base / config.ca_file)} if config.ca_file else {}
        self._pool = urllib3.PoolManager(
            num_pools=2, timeout=timeout, retries=False, headers={"User-Agent": "citybrain-agent"}, **more
        )

    def _fetch(self, url: str) -> Iterator[bytes]:
        """For the TUF client, which bounds the length by itself."""
        try:
            answer = self._pool.request("GET", url, preload_content=False, redirect=False)
        except urllib3.exceptions.TimeoutError as error:
            raise exceptions.SlowRetrievalError(url) from error
        if answer.status != 200:
            answer.close()
            raise exceptions.DownloadHTTPError(f"{url}: {answer.status}", answer.status)
        return self._chunks(answer)

    def _chunks(self, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        begun = time.monotonic()
        taken = 0
        try:
            for chunk in answer.stream(_CHUNK_BYTES):
                taken += len(chunk)
                seconds = time.monotonic() - begun
                if seconds > _SLOW_WINDOW_S and taken < seconds * _SLOWEST_BYTES_S:
                    raise exceptions.SlowRetrievalError(f"{taken} bytes in {seconds:.0f} s")
                yield chunk
        except urllib3.exceptions.TimeoutError as error:
            raise exceptions.SlowRetrievalError(str(error)) from error
        finally:
            answer.close()

    def ask(self, url: str, offset: int) -> urllib3.BaseHTTPResponse:
        """A GET from ``offset`` on. Raises LinkDown, LinkTimeout."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            return self._pool.request("GET", url, headers=headers, preload_content=False, redirect=False)
        except urllib3.exceptions.NewConnectionError as error:  # by its class a timeout; it is none
            raise LinkDown(f"{url}: {error}") from error
        except urllib3.exceptions.TimeoutError as error:
            raise LinkTimeout(f"{url}: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            raise LinkDown(f"{url}: {error}") from error


def download(
    http: Http,
    url: str,
    target: Path,
    length: int,
    sha256: str,
    *,
    keep_free_bytes: int = 0,
    max_bytes_s: int = 0,
    cancelled: Cancelled = lambda: False,
) -> Path:
    """The file, whole and with the right hash, durable on return; what is there of it already is not fetched again.

    Raises LinkDown or LinkTimeout (try again: it goes on), LinkRefused (the server does not have it), ContractError
    ``hash`` (what came is not what was signed; it is thrown away), StoreError (disk)."""
    if target.exists() and target.stat().st_size == length and _digest(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.exists() else 0
    if have > length:
        part.unlink()
        have = 0
    if shutil.disk_usage(target.parent).free < length - have + keep_free_bytes:
        raise StoreError(f"no room for {length - have} bytes beside the {keep_free_bytes} that stay free")
    try:
        if have < length:
            _append(http, url, part, have, length, max_bytes_s, cancelled)
        found = _digest(part)
    except OSError as error:
        raise StoreError(f"{part}: {error}") from error
    if found != sha256:
        part.unlink()
        raise ContractError(f"{url}: sha256 is {found[:16]}..., signed was {sha256[:16]}...", reason="hash")
    part.replace(target)
    _sync_folder(target.parent)
    return target


def _append(http: Http, url: str, part: Path, have: int, length: int, max_bytes_s: int, cancelled: Cancelled) -> None:
    answer = http.ask(url, have)
    try:
        offset = _offset(answer, url, have, length)
        with part.open("r+b" if part.exists() else "w+b") as file:
            file.truncate(offset)
            file.seek(offset)
            _pour(answer, file, url, length - offset, max_bytes_s, cancelled)
    finally:
        answer.close()


def _offset(answer: urllib3.BaseHTTPResponse, url: str, have: int, length: int) -> int:
    """Where in the file the answer's body begins."""
    if answer.status == 200:
        return 0
    if answer.status == 206:
        named = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if named is not None and int(named[1]) == have and int(named[3]) == length:
            return have
        raise LinkDown(f"{url}: asked for bytes from {have} of {length}, got {answer.headers.get('Content-Range')!r}")
    if answer.status in (404, 410, 403, 416):
        raise LinkRefused(f"{url}: {answer.status}")
    raise LinkDown(f"{url}: {answer.status}")


def _pour(
    answer: urllib3.BaseHTTPResponse, file: IO[bytes], url: str, wanted: int, max_bytes_s: int, cancelled: Cancelled
) -> None:
    """At most ``wanted`` bytes, flushed to the disk now and then, so that a cut costs little."""
    taken = unsynced = 0
    begun = time.monotonic()
    try:
        for chunk in answer.stream(_CHUNK_BYTES, decode_content=False):
            if taken + len(chunk) > wanted:
                raise LinkDown(f"{url}: more bytes than were signed")
            file.write(chunk)
            taken += len(chunk)
            unsynced += len(chunk)
            if unsynced >= _SYNC_EVERY_BYTES:
                file.flush()
                os.fsync(file.fileno())
                unsynced = 0
            seconds = time.monotonic() - begun
            if seconds > _SLOW_WINDOW_S and taken < seconds * _SLOWEST_BYTES_S:
                raise LinkTimeout(f"{url}: {taken} bytes in {seconds:.0f} s")
            if cancelled():
                raise LinkDown("another document is wanted now")
            if max_bytes_s and taken / max_bytes_s > seconds:
                time.sleep(taken / max_bytes_s - seconds)
    except urllib3.exceptions.TimeoutError as error:
        raise LinkTimeout(f"{url}: {error}") from error
    except urllib3.exceptions.HTTPError as error:
        raise LinkDown(f"{url}: {error}") from error
    finally:
        file.flush()
        os.fsync(file.fileno())
    if taken < wanted:
        raise LinkDown(f"{url}: it ended {wanted - taken} bytes early")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
