"""What can still be told from a broken outbox: names, rows, up to where it had come.

Only what checks is believed: a row's payload must have its CRC and say the epoch and sequence that the row says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from edge.outbox.pages import Pages, Value
from edge.outbox.stones import crc_of
from protocols.core.errors import ContractError
from protocols.uplink import batch as wire
from protocols.uplink.columns import FLOAT_BITS
from protocols.uplink.topics import LANES


@dataclass(slots=True)
class Saved:
    """``rows``: (epoch, lane number, seq, payload), sorted; ``acked`` by lane number, where it was found."""

    epoch: int = 0
    declarations: list[wire.Declaration] = field(default_factory=list)
    rows: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    acked: dict[int, int] = field(default_factory=dict)
    garbled: int = 0  # rows that are there and cannot be believed

    def missing(self) -> int:
        """Sequence numbers between what is there that are not: rows nobody can read any more."""
        count = 0
        for number in range(len(LANES)):
            seqs = [seq for _, lane, seq, _ in self.rows if lane == number]
            if seqs:
                first = self.acked.get(number, min(seqs) - 1)
                count += max(seqs) - first - sum(seq > first for seq in seqs)
        return count


def salvage(path: Path) -> Saved:
    """Read what is readable. Never raises for what it finds in the file; OSError if there is no reading it at all."""
    batches: dict[tuple[int, int, int], bytes] = {}
    names: dict[int, wire.Declaration] = {}
    saved = Saved()
    for record in Pages(path).records():
        if len(record) == 10 and isinstance(record[9], bytes):
            row = _row(record)
            if row is None:
                saved.garbled += 1
            else:
                batches[row[:3]] = row[3]
        elif len(record) == 8:
            declaration = _declaration(record)
            if declaration is not None:
                names.setdefault(declaration.alias, declaration)
        elif len(record) == 7 and all(isinstance(one, int) for one in record[:5]) and isinstance(record[5], str):
            number, _, acked = record[:3]
            if isinstance(number, int) and 0 <= number < len(LANES) and isinstance(acked, int) and acked >= 0:
                saved.acked[number] = max(saved.acked.get(number, 0), acked)
    if batches:
        saved.epoch = Counter(epoch for epoch, _, _ in batches).most_common(1)[0][0]
    for (epoch, number, seq), payload in sorted(batches.items()):
        if seq > saved.acked.get(number, 0) or epoch != saved.epoch:
            saved.rows.append((epoch, number, seq, payload))
            for found in _declared(payload):
                names.setdefault(found.alias, found)
    saved.declarations = [names[alias] for alias in sorted(names)]
    return saved


def _row(record: list[Value]) -> tuple[int, int, int, bytes] | None:
    number, seq, crc, payload = record[0], record[1], record[8], record[9]
    if not isinstance(number, int) or not 0 <= number < len(LANES) or not isinstance(payload, bytes):
        return None
    if crc != crc_of(payload):
        return None
    try:
        envelope = wire.open_envelope(payload)
    except ContractError:
        return None
    return (envelope.epoch, number, envelope.seq, payload) if envelope.seq == seq else None


def _declaration(record: list[Value]) -> wire.Declaration | None:
    alias, device, point, unit, decimals, reference, device_type, _lanes = record
    if not (isinstance(alias, int) and isinstance(decimals, int) and isinstance(reference, int)):
        return None
    if not (
        isinstance(device, str) and isinstance(point, str) and isinstance(unit, str) and isinstance(device_type, str)
    ):
        return None
    if not (0 <= alias < 1 << 31 and device and point and (0 <= decimals <= 12 or decimals == FLOAT_BITS)):
        return None
    return wire.Declaration(alias, device, point, unit, decimals, reference, device_type)


def _declared(payload: bytes) -> tuple[wire.Declaration, ...]:
    try:
        return wire.declarations_of(wire.open_envelope(payload))
    except ContractError:
        return ()
