"""How an agent opens its outbox: whatever is found there, it starts, loses nothing it can read, and says what it found.

```
 file is whole, not behind its witness ─▶ go on in its epoch
 file behind its witness (an old copy)  ─▶ park its rows, new epoch, "restored"
 file broken                            ─▶ save what checks into a new file, new epoch, "damaged"; the old one is kept
 no file, but a witness                 ─▶ new epoch, "damaged"
```
A crash at any point finds either the old state or the new one: the new file takes the old one's place by renaming.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from edge.outbox.file import BROKEN_SUFFIX
from edge.outbox.model import Opening, OutboxDamaged
from edge.outbox.outbox import Outbox
from edge.outbox.salvage import Saved, salvage
from edge.outbox.witness import Testimony, Witness
from protocols.uplink.topics import LANES

log = logging.getLogger("citybrain.edge.outbox")

_PARTS = ("", "-wal", "-shm")
_KEPT_ASIDE = 2  # broken files kept for whoever wants to look; older ones go


def open_outbox(path: Path, *, now_ms: int, max_bytes: int) -> Outbox:
    """A full disk, a missing right, somebody else's lock break nothing: StoreError, and the file stays where it is."""
    seen = Witness(path).read()
    marker = path.with_name(path.name + BROKEN_SUFFIX)
    fresh = path.with_name(path.name + ".new")
    if not path.exists() and fresh.exists():  # killed between the two renamings
        fresh.rename(path)
    lost = seen is not None and (not path.exists() or path.stat().st_size == 0)
    try:
        if marker.exists():
            raise OutboxDamaged(f"outbox {path}: found broken while it was in use")
        outbox = Outbox(
            path,
            now_ms=now_ms,
            max_bytes=max_bytes,
            guarded=True,
            reason="damaged" if lost else "new",
            previous=seen.epoch if seen is not None else 0,
        )
    except OutboxDamaged as error:
        outbox = _renew(path, fresh, seen, str(error), now_ms, max_bytes)
        marker.unlink(missing_ok=True)
        return outbox
    if lost:
        _note_ended(outbox, seen)
        outbox.opening = Opening("damaged", detail="the file was gone")
        log.error("the outbox was gone; a new epoch begins")
    elif seen is not None:
        _compare(outbox, seen, now_ms)
    return outbox


def _compare(outbox: Outbox, seen: Testimony, now_ms: int) -> None:
    """An outbox behind its witness is an old copy."""
    if outbox.epoch == seen.epoch:
        behind = any(outbox.last(lane) < seen.lanes[lane][0] for lane in LANES)
    else:  # the witness of the epoch before: killed before it was told of the new one
        behind = outbox.previous_epoch != seen.epoch
    if not behind:
        return
    old, waiting = outbox.epoch, sum(outbox.depth(now_ms).rows.values())
    outbox.begin_again(now_ms, "restored", newest=seen.epoch)
    _note_ended(outbox, seen)
    if old == seen.epoch:
        for lane in LANES:
            outbox.drop_parked(old, lane, seen.lanes[lane][1])
    outbox.opening = Opening("restored", saved=waiting, detail="an old copy of the outbox was put back")
    log.error("an old copy of the outbox was put back; a new epoch begins, %d rows are checked with the core", waiting)


def _renew(path: Path, fresh: Path, seen: Testimony | None, why: str, now_ms: int, max_bytes: int) -> Outbox:
    try:
        saved = salvage(path)
    except OSError as error:
        log.error("the broken outbox cannot be read at all: %s", error)
        saved = Saved()
    if seen is not None and seen.epoch == saved.epoch:
        acked = {number: seen.lanes[lane][1] for number, lane in enumerate(LANES)}
        saved.rows = [row for row in saved.rows if row[2] > acked[row[1]]]
    lost = _lost(saved, seen)
    previous = max(saved.epoch, seen.epoch if seen is not None else 0)
    for suffix in _PARTS:
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    made = Outbox(fresh, now_ms=now_ms, max_bytes=max_bytes, reason="damaged", previous=previous)
    try:
        made.adopt(saved.declarations, saved.rows)
        _note_ended(made, seen)
    finally:
        made.close()
    aside = _set_aside(path, now_ms)
    fresh.rename(path)
    log.error(
        "the outbox was damaged (%s); it is kept as %s, a new epoch begins; %d rows saved, %d lost",
        why, aside.name, len(saved.rows), lost,
    )  # fmt: skip
    outbox = Outbox(path, now_ms=now_ms, max_bytes=max_bytes, guarded=True)
    outbox.opening = Opening("damaged", len(saved.rows), lost, why)
    return outbox


def _note_ended(outbox: Outbox, seen: Testimony | None) -> None:
    if seen is not None:
        outbox.note_ended(seen.epoch, {lane: acked for lane, (_, acked) in seen.lanes.items()})


def _lost(saved: Saved, seen: Testimony | None) -> int:
    """Rows that were there and are not any more; the witness knows where the lanes ended."""
    if seen is None or (saved.epoch and seen.epoch != saved.epoch):
        return saved.missing()
    count = 0
    for number, lane in enumerate(LANES):
        last, acked = seen.lanes[lane]
        count += max(0, last - acked - sum(row[1] == number for row in saved.rows))
    return count


def _set_aside(path: Path, now_ms: int) -> Path:
    aside = path.with_name(f"{path.name}.broken-{now_ms}")
    for suffix in _PARTS:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    mains = [one for one in path.parent.glob(f"{path.name}.broken-*") if one.name.rpartition("-")[2].isdigit()]
    for old in sorted(mains, key=lambda one: int(one.name.rpartition("-")[2]))[:-_KEPT_ASIDE]:
        for suffix in _PARTS:
            with suppress(OSError):
                old.with_name(old.name + suffix).unlink(missing_ok=True)
    return aside
