"""The series of an outbox and their short names: given on first use, kept for ever, declared once a lane and epoch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import numpy as np

from edge.outbox.file import File
from protocols.core.model import SeriesInfo
from protocols.uplink import batch as wire
from protocols.uplink.columns import Readings, SeriesCode
from protocols.uplink.digest import digest, series_hash


class Names:
    """In memory what table ``series`` holds, and what the next commit will write to it."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._alias: dict[tuple[str, str], int] = {}
        self._info: dict[int, wire.Declaration] = {}
        self._declared: dict[int, int] = {}  # alias: bit set of lanes
        self._hashes = np.zeros(64, dtype=np.uint64)  # by alias
        self._new: dict[int, wire.Declaration] = {}
        self._fresh: list[tuple[int, int]] = []  # declared by the transaction under way
        self.codes: dict[int, SeriesCode] = {}
        file.on_commit.append(self._fresh.clear)
        file.on_rollback.append(self._undo)
        for alias, device, point, unit, decimals, reference, device_type, lanes in file.db.execute(
            "select alias, device, point, unit, decimals, reference, device_type, lanes from series"
        ):
            self._remember(wire.Declaration(alias, device, point, unit, decimals, reference, device_type), lanes)

    def _remember(self, declaration: wire.Declaration, lanes: int) -> None:
        alias = declaration.alias
        self._alias[declaration.device, declaration.point] = alias
        self._info[alias] = declaration
        self._declared[alias] = lanes
        self.codes[alias] = declaration.code
        if alias >= len(self._hashes):
            grown = np.zeros(2 * (alias + 1), dtype=np.uint64)
            grown[: len(self._hashes)] = self._hashes
            self._hashes = grown
        self._hashes[alias] = series_hash(declaration.device, declaration.point)

    def _undo(self) -> None:
        for alias, bit in self._fresh:
            self._declared[alias] &= ~bit
        self._fresh.clear()

    def alias(self, info: SeriesInfo, first_integer: int) -> int:
        found = self._alias.get((info.device, info.point))
        if found is not None:
            return found
        alias = max(self._info, default=-1) + 1
        declaration = wire.Declaration(
            alias, info.device, info.point, info.unit, info.decimals, first_integer, info.device_type
        )
        self._remember(declaration, 0)
        self._new[alias] = declaration
        return alias

    def adopt(self, declarations: Iterable[wire.Declaration]) -> None:
        """Names of an outbox that could not be saved as a whole. One that contradicts what is known is left out."""
        for declaration in declarations:
            if declaration.alias not in self._info and (declaration.device, declaration.point) not in self._alias:
                self._remember(declaration, 0)
                self._new[declaration.alias] = declaration

    def all(self) -> list[wire.Declaration]:
        return [self._info[alias] for alias in sorted(self._info)]

    def info(self, alias: int) -> wire.Declaration:
        return self._info[alias]

    def said_in(self, lane_bit: int) -> tuple[wire.Declaration, ...]:
        return tuple(self._info[alias] for alias in sorted(self._info) if self._declared[alias] & lane_bit)

    def digest_of(self, readings: Readings) -> int:
        """Order-free digest of readings, the same the cloud computes from its rows."""
        if not len(readings):
            return 0
        return digest(self._hashes[readings.alias], readings.ts_ms, readings.integer, readings.quality)

    # -- within a transaction -------------------------------------------------------------------------------------

    def pending(self) -> list[wire.Declaration]:
        """Named since the last commit; the loop may name further ones while this is written."""
        return list(self._new.values())

    def write(self, db: sqlite3.Connection, new: Sequence[wire.Declaration]) -> None:
        db.executemany(
            "insert or ignore into series (alias, device, point, unit, decimals, reference, device_type)"
            " values (?, ?, ?, ?, ?, ?, ?)",
            [(d.alias, d.device, d.point, d.unit, d.decimals, d.reference, d.device_type) for d in new],
        )

    def written(self, new: Sequence[wire.Declaration]) -> None:
        for declaration in new:
            del self._new[declaration.alias]

    def undeclared(self, readings: Readings, lane_bit: int) -> list[int]:
        if not len(readings):
            return []
        return [alias for alias in np.unique(readings.alias).tolist() if not self._declared[alias] & lane_bit]

    def declare(self, db: sqlite3.Connection, aliases: Sequence[int], lane_bit: int) -> None:
        """They stand in a row of that lane now."""
        for alias in aliases:
            self._declared[alias] |= lane_bit
            self._fresh.append((alias, lane_bit))
        db.executemany("update series set lanes = lanes | ? where alias = ?", [(lane_bit, alias) for alias in aliases])

    def forget_declared(self, db: sqlite3.Connection, lane_bits: int) -> None:
        """Say them again with the rows to come. A rollback says them once more than needed: harmless."""
        db.execute("update series set lanes = lanes & ~?", (lane_bits,))
        for alias in self._declared:
            self._declared[alias] &= ~lane_bits
