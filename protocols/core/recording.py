"""Recorded traffic of one connector: JSON lines, a header and one line for each piece of bytes with its time.

``{"citybrain_recording": 1, "protocol": "dlt645", "kind": "dlt645", "start_ms": ...}`` then
``{"t": 1520, "l": 0, "d": "in", "x": "68..."}``: ``t`` ms since the start, ``l`` which link (stations have one each),
``d`` "in" from the device or "out" to it, ``x`` hex. ``e``: "open" or "close" instead of bytes. Appended piece by
piece, so what a power cut leaves is readable up to its last whole line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from protocols.core.errors import ConfigError

VERSION = 1
Direction = Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one read or write. ``happening`` "open" or "close": no bytes, the link came or went."""

    t_ms: int
    link: int
    direction: Direction
    data: bytes
    happening: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """``protocol``: a family of the registry; ``kind``: of the connector that was recorded."""

    protocol: str
    kind: str
    start_ms: int
    pieces: tuple[Piece, ...]

    def stream(self, link: int, direction: Direction) -> bytes:
        """All bytes of one link in one direction."""
        return b"".join(piece.data for piece in self.pieces if piece.link == link and piece.direction == direction)

    def links(self) -> tuple[int, ...]:
        return tuple(sorted({piece.link for piece in self.pieces}))

    def exchanges(self, link: int) -> list[tuple[bytes, bytes]]:
        """(request, what came until the next request), for polled lines; what came unasked belongs to b""."""
        out: list[tuple[bytearray, bytearray]] = [(bytearray(), bytearray())]
        for piece in self.pieces:
            if piece.link != link or piece.happening:
                continue
            if piece.direction == "out":
                if out[-1][1] or not out[-1][0]:
                    out.append((bytearray(), bytearray()))
                out[-1][0].extend(piece.data)
            else:
                out[-1][1].extend(piece.data)
        return [(bytes(asked), bytes(came)) for asked, came in out if asked or came]


class Recorder:
    """Writes a recording. Raises OSError where the disk does."""

    def __init__(self, file: IO[str], *, protocol: str, kind: str, start_ms: int) -> None:
        self._file = file
        self._start_ms = start_ms
        self.bytes_in = 0
        self.bytes_out = 0
        self._line({"citybrain_recording": VERSION, "protocol": protocol, "kind": kind, "start_ms": start_ms})

    def piece(self, now_ms: int, link: int, direction: Direction, data: bytes) -> None:
        if direction == "in":
            self.bytes_in += len(data)
        else:
            self.bytes_out += len(data)
        self._line({"t": now_ms - self._start_ms, "l": link, "d": direction, "x": data.hex()})

    def happening(self, now_ms: int, link: int, what: Literal["open", "close"]) -> None:
        self._line({"t": now_ms - self._start_ms, "l": link, "d": "in", "e": what})

    def _line(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
        self._file.flush()


def read(path: Path) -> Recording:
    """Raises ConfigError naming file and line; a torn last line is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    return parse(lines, str(path))


def parse(lines: Iterable[str], name: str) -> Recording:
    """The same from lines; ``name`` is what errors call the file."""
    rows = _rows(list(lines), name)
    header = next(rows, {})
    if header.get("citybrain_recording") != VERSION:
        raise ConfigError(f"{name}: is no recording of version {VERSION}")
    pieces = []
    for number, row in enumerate(rows, 2):
        try:
            direction: Direction = "out" if row["d"] == "out" else "in"
            data = bytes.fromhex(row.get("x", ""))
            pieces.append(Piece(int(row["t"]), int(row["l"]), direction, data, str(row.get("e", ""))))
        except (KeyError, ValueError, TypeError) as error:
            raise ConfigError(f"{name}:{number}: no piece of a recording ({error})") from error
    try:
        return Recording(str(header["protocol"]), str(header["kind"]), int(header["start_ms"]), tuple(pieces))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{name}:1: header: {error}") from error


def _rows(lines: list[str], name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except ValueError as error:
            if number == len(lines) and number > 1:
                return  # torn by a power cut
            raise ConfigError(f"{name}:{number}: {error}") from error
        yield row
