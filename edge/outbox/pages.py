"""Reads rows out of a SQLite file that SQLite itself refuses: page by page, believing nothing but what checks.

A table's rows lie in leaf pages (first byte 13) as cells: payload length, row number, record; those of a table without
row numbers in leaf pages of an index (first byte 10). A record that is longer than its page goes on in a chain of
overflow pages. The newest version of a page may stand in the write-ahead log; its frames carry salts and a running
checksum, so a torn tail is recognised. Format: "Database File Format", sqlite.org (sections 1.5, 1.6, 2.1, 4.1).

What comes out are records, of whatever table; the caller knows its own by their shape and checks them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

Value = int | float | bytes | str | None

_LEAF, _INDEX_LEAF = 0x0D, 0x0A
_USUAL_PAGE = 4096
_MOST_RECORD_BYTES = 4 << 20  # a row of ours has at most 1 MiB
_INT_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class Pages:
    """The pages of a file and its log, newest version of each."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        self.size = _page_size(self._data)
        log = path.with_name(path.name + "-wal")
        self._newer = _log_pages(log.read_bytes(), self.size) if log.exists() else {}
        self.usable = self.size - (self._data[20] if self._data[:15] == b"SQLite format 3" else 0)

    def __len__(self) -> int:
        return max((len(self._data) + self.size - 1) // self.size, max(self._newer, default=0))

    def page(self, number: int) -> bytes:
        """From 1 on; shorter than a page at a cut, empty beyond it."""
        found = self._newer.get(number)
        return found if found is not None else self._data[(number - 1) * self.size : number * self.size]

    def records(self) -> Iterator[list[Value]]:
        """Every record that can be read from leaf pages of tables, in no order, torn ones left out."""
        for number in range(1, len(self) + 1):
            page = self.page(number)
            head = 100 if number == 1 else 0
            if len(page) < head + 8 or page[head] not in (_LEAF, _INDEX_LEAF):
                continue
            count = int.from_bytes(page[head + 3 : head + 5], "big")
            for n in range(min(count, self.size // 4)):
                at = int.from_bytes(page[head + 8 + 2 * n : head + 10 + 2 * n], "big")
                try:
                    record = self._record(page, at) if page[head] == _LEAF else self._short_record(page, at)
                except (IndexError, ValueError, UnicodeDecodeError):
                    continue
                if record is not None:
                    yield record

    def _record(self, page: bytes, at: int) -> list[Value] | None:
        length, at = _varint(page, at)
        row_number, at = _varint(page, at)
        if not 0 < length <= _MOST_RECORD_BYTES:
            return None
        most = self.usable - 35
        local = length
        if length > most:
            least = (self.usable - 12) * 32 // 255 - 23
            local = least + (length - least) % (self.usable - 4)
            if local > most:
                local = least
        body = bytearray(page[at : at + local])
        if local < length:
            body += self._overflow(int.from_bytes(page[at + local : at + local + 4], "big"), length - local)
        if len(body) != length:
            return None
        return _values(bytes(body), row_number)

    def _short_record(self, page: bytes, at: int) -> list[Value] | None:
        """Of a table without row numbers; ours that matter are short."""
        length, at = _varint(page, at)
        if not 0 < length <= (self.usable - 12) * 64 // 255 - 23 or at + length > len(page):
            return None
        return _values(page[at : at + length], 0)

    def _overflow(self, number: int, length: int) -> bytes:
        parts: list[bytes] = []
        for _ in range(_MOST_RECORD_BYTES // (self.usable - 4) + 2):
            if not number or length <= 0:
                break
            page = self.page(number)
            parts.append(page[4 : 4 + min(length, self.usable - 4)])
            length -= len(parts[-1])
            number = int.from_bytes(page[:4], "big")
        return b"".join(parts)


def _page_size(data: bytes) -> int:
    said = int.from_bytes(data[16:18], "big")
    said = 65536 if said == 1 else said
    right = data[:15] == b"SQLite format 3" and 512 <= said <= 65536 and said & (said - 1) == 0
    return said if right else _USUAL_PAGE


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(9):
        byte = data[at]
        at += 1
        if n == 8:
            return value << 8 | byte, at
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value, at


def _values(record: bytes, row_number: int) -> list[Value]:
    """Raises ValueError or IndexError for what is no record. An integer primary key is stored as null: its number."""
    head, at = _varint(record, 0)
    kinds: list[int] = []
    while at < head:
        kind, at = _varint(record, at)
        kinds.append(kind)
    if at != head or len(kinds) > 64:
        raise ValueError("no record")
    out: list[Value] = []
    for place, kind in enumerate(kinds):
        if kind == 0:
            out.append(row_number if place == 0 else None)
        elif kind in _INT_SIZES:
            size = _INT_SIZES[kind]
            out.append(int.from_bytes(record[at : at + size], "big", signed=True))
            at += size
        elif kind == 7:
            out.append(struct.unpack(">d", record[at : at + 8])[0])
            at += 8
        elif kind in (8, 9):
            out.append(kind - 8)
        elif kind >= 12:
            size = (kind - 12) // 2
            content = record[at : at + size]
            out.append(content.decode("utf-8") if kind % 2 else content)
            at += size
        else:
            raise ValueError("a reserved type")
    if at != len(record):
        raise ValueError("no record")
    return out


def _log_pages(log: bytes, page_size: int) -> dict[int, bytes]:
    """Pages of the committed transactions of a write-ahead log. Frames behind the first that is torn do not count."""
    if len(log) < 32 or log[:3] != b"\x37\x7f\x06":
        return {}
    order = "<" if log[3] == 0x82 else ">"
    if int.from_bytes(log[8:12], "big") != page_size:
        return {}
    salts = log[16:24]
    one, two = _checksum(log[:24], order, 0, 0)
    if (one, two) != struct.unpack(">II", log[24:32]):
        return {}
    done: dict[int, bytes] = {}
    under_way: dict[int, bytes] = {}
    for at in range(32, len(log) - 24 - page_size + 1, 24 + page_size):
        number, size_after = struct.unpack(">II", log[at : at + 8])
        one, two = _checksum(log[at : at + 8] + log[at + 24 : at + 24 + page_size], order, one, two)
        if log[at + 8 : at + 16] != salts or (one, two) != struct.unpack(">II", log[at + 16 : at + 24]):
            break
        under_way[number] = log[at + 24 : at + 24 + page_size]
        if size_after:  # the last frame of a transaction
            done |= under_way
            under_way = {}
    return done


def _checksum(data: bytes, order: str, one: int, two: int) -> tuple[int, int]:
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for n in range(0, len(words), 2):
        one = (one + words[n] + two) & 0xFFFF_FFFF
        two = (two + words[n + 1] + one) & 0xFFFF_FFFF
    return one, two
