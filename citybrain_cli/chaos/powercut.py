"""Power cuts by replay: the states in which a cut may leave the outbox's files are made and opened with the real one.

Between two fsyncs a disk may have written any part of what it was given, in any order: a shorter file, some sectors and
not others, half a sector, zeros where the file was grown. So the files are copied after each step of a history
(commits, acknowledgements, checkpoints), and between two copies every class of mixture is made:

```
 step k returned      the log is written      log synced         pages are copied          step k+1 returned
 files S(k) ────────── any part of it ──────── S(k+1)'s log ───── any part of them ──────── files S(k+1)
 must be k             k or k+1, whole         must be k+1        must be k+1
```
What is opened must then hold, row by row, what the outbox held after step k or after step k+1, and nothing between.
The order (log, sync, database, sync; on a restart of the log its header first) is that of SQLite with ``synchronous =
FULL``: https://www.sqlite.org/fileformat2.html#walformat and https://www.sqlite.org/wal.html. As SQLite does, we take
it that a cut spoils no byte that was not being written (https://www.sqlite.org/psow.html).
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from citybrain_cli.chaos.tear import HEADER_BYTES
from edge.agent import open_outbox
from edge.outbox import Outbox, Pending
from protocols.core.errors import CityBrainError
from protocols.core.model import Event
from protocols.uplink.topics import LANES

_SECTOR = 512
_NOW_MS = 1_772_400_000_000
_MOST_ROWS = 10_000
_STEPS = 180  # more than a log holds before it is checkpointed

#: What an outbox holds: lane -> rows as (sequence, digest of the payload), and its totals.
State = dict[str, object]


@dataclass(frozen=True, slots=True)
class Files:
    """The database and its write-ahead log at one moment; ``None``: not there."""

    database: bytes | None
    log: bytes | None


@dataclass(frozen=True, slots=True)
class Image:
    """Files as a cut may leave them. ``durable``: the step before had returned, or this very one (``after``)."""

    files: Files
    what: str
    after: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a history: files and state when it had returned."""

    name: str
    files: Files
    state: State


@dataclass(slots=True)
class Result:
    """``failures`` name step and mixture."""

    images: int = 0
    kept_earlier: int = 0  # opened as before the step that was under way
    kept_later: int = 0  # opened as after it
    failures: list[str] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)


def state_of(outbox: Outbox) -> State:
    """Everything an outbox says of itself that the core will ever see."""
    rows = {
        lane: [(row.seq, hashlib.sha256(row.payload).hexdigest()) for row in outbox.rows(lane, 0, limit=_MOST_ROWS)]
        for lane in LANES
    }
    return {"epoch": outbox.epoch, "rows": rows, "totals": outbox.totals()}


def history(folder: Path, seed: int, steps: int) -> list[Step]:
    """Commits of all sizes and acknowledgements on a real outbox, its files copied after each."""
    draw = random.Random(seed)  # noqa: S311 - a history that can be repeated
    path = folder / "outbox.db"
    outbox = Outbox(path, now_ms=_NOW_MS)
    number = 0
    out = [Step("created", copy(path), state_of(outbox))]
    for _ in range(steps):
        if draw.random() < 0.2 and number:
            last = outbox.totals()["event"]["seq"]
            upto = draw.randint(max(1, outbox.acked("event")), last)
            outbox.acknowledge(outbox.epoch, "event", upto)
            name = f"acknowledged up to {upto}"
        else:
            size = draw.choice((1, 3, 40, 400))
            events = [_event(n, draw) for n in range(number, number + size)]
            outbox.commit([Pending("event", events=events)], now_ms=_NOW_MS)
            number += size
            name = f"committed {size} events"
        out.append(Step(name, copy(path), state_of(outbox)))
    outbox.close()
    return out


def _event(number: int, draw: random.Random) -> Event:
    noise = draw.randbytes(60).hex()  # what does not compress: the log fills up and is checkpointed
    return Event(
        id=f"cut-{number:08d}",
        type="data.rejected",
        ts_ms=_NOW_MS + number,
        seen_ms=_NOW_MS + number,
        source="cut-1/x",
        values={"n": number, "noise": noise},
    )


def copy(path: Path) -> Files:
    """Both files as they are. Nobody else has them open, so that no lock is lost by closing them."""

    def content(one: Path) -> bytes | None:
        return one.read_bytes() if one.exists() else None

    return Files(content(path), content(path.with_name(path.name + "-wal")))


def images(before: Files, after: Files, draw: random.Random, each: int) -> Iterator[Image]:
    """Every class of mixture of two moments; ``each``: how many of a class that has too many members."""
    old_log, new_log = before.log or b"", after.log or b""
    if old_log != new_log:
        for what, log in _log_mixtures(old_log, new_log, draw, each):
            yield Image(Files(before.database, log), f"log {what}", after=False)
    if before.database != after.database and before.database is not None and after.database is not None:
        for what, database in _mixtures(before.database, after.database, draw, each):
            yield Image(Files(database, after.log), f"pages {what}", after=True)
    yield Image(after, "nothing", after=True)


def _log_mixtures(old: bytes, new: bytes, draw: random.Random, each: int) -> Iterator[tuple[str, bytes]]:
    if old[:HEADER_BYTES] != new[:HEADER_BYTES] and old:
        # The log begins anew: its header is written and synced before the first frame.
        for cut in (1, 8, 16, 24, 31, 32):
            yield "header", new[:cut] + old[cut:]
        old = new[:HEADER_BYTES] + old[HEADER_BYTES:]
    yield from _mixtures(old, new, draw, each)


def _mixtures(old: bytes, new: bytes, draw: random.Random, each: int) -> Iterator[tuple[str, bytes]]:
    """Parts of a write from ``old`` to ``new``: lengths, sectors, halves of sectors, zeros, orders."""
    common = min(len(old), len(new))
    first = next((at for at in range(0, common, _SECTOR) if old[at : at + _SECTOR] != new[at : at + _SECTOR]), common)
    first -= first % _SECTOR
    sectors = [at for at in range(first, len(new), _SECTOR) if old[at : at + _SECTOR] != new[at : at + _SECTOR]]
    if not sectors:
        return
    if len(new) > len(old):  # a file that grew: any length, to the byte
        lengths = {len(old) + 1, len(new) - 1, len(old) + HEADER_BYTES, len(new) - _SECTOR}
        lengths |= {draw.randint(len(old), len(new)) for _ in range(each)}
        for length in sorted(n for n in lengths if len(old) <= n < len(new)):
            yield "length", new[:length]
    for _ in range(each):  # any sectors and not others
        yield "sectors", _mixed(old, new, {at for at in sectors if draw.random() < 0.5})
    for _ in range(each):  # in order, up to one
        yield "prefix", _mixed(old, new, set(sectors[: draw.randint(0, len(sectors) - 1)]))
        yield "suffix", _mixed(old, new, set(sectors[draw.randint(1, len(sectors)) :]))
    for missing in (sectors[0], sectors[-1], draw.choice(sectors)):
        yield "all but one", _mixed(old, new, set(sectors) - {missing})
    for _ in range(each):  # a sector that was being written: half of it, or noise
        at = draw.choice(sectors)
        torn = bytearray(_mixed(old, new, {one for one in sectors if one < at}))
        end = min(at + _SECTOR, len(torn))
        half = at + (end - at) // 2
        torn[at:half] = new[at:half]
        yield "half a sector", bytes(torn)
        written = next((n for n in range(at, end) if n >= len(old) or old[n] != new[n]), at)
        torn[at:written] = new[at:written]
        torn[written:end] = draw.randbytes(end - written)
        yield "noise in a sector", bytes(torn)


def _mixed(old: bytes, new: bytes, written: set[int]) -> bytes:
    """The new file's length, old sectors but for the written ones, zeros where the file was grown."""
    out = bytearray(old[: len(new)].ljust(len(new), b"\0"))
    for at in written:
        out[at : at + _SECTOR] = new[at : at + _SECTOR]
    return bytes(out)


def try_all(
    folder: Path,
    steps: Sequence[Step],
    *,
    seed: int,
    each: int,
    opened: Callable[[Path], Outbox] | None = None,
) -> Result:
    """Open every image of a history. ``opened`` is for tests of this very check: an outbox that fails it."""
    result = Result()
    draw = random.Random(seed)  # noqa: S311 - mixtures that can be repeated
    for earlier, later in pairwise(steps):
        for image in images(earlier.files, later.files, draw, each):
            result.images += 1
            result.classes[image.what] = result.classes.get(image.what, 0) + 1
            trouble = _try(folder, image, earlier, later, opened or _open, result)
            if trouble:
                result.failures.append(f"{later.name}, {image.what}: {trouble}")
    return result


def campaign(folder: Path, seed: int, most: int) -> dict[str, object]:
    """Histories and their images, one seed after the other, until there have been ``most``. The report."""
    total = Result()
    began = seed
    while total.images < most:
        home, place = folder / f"history-{seed}", folder / f"images-{seed}"
        home.mkdir()
        place.mkdir()
        steps = history(home, seed, _STEPS)
        for at in _order(steps, seed):
            one = try_all(place, steps[at - 1 : at + 1], seed=seed * _STEPS + at, each=1)
            total.images += one.images
            total.kept_earlier += one.kept_earlier
            total.kept_later += one.kept_later
            total.failures += [f"seed {seed}, step {at}: {failure}" for failure in one.failures]
            for name, count in one.classes.items():
                total.classes[name] = total.classes.get(name, 0) + count
            if total.images >= most:
                break
        shutil.rmtree(home)
        shutil.rmtree(place)
        seed += 1
    return {
        "what": "states in which a power cut may leave the outbox's files, each opened with the real outbox",
        "verdict": "broken" if total.failures else "sound",
        "seeds": [began, seed - 1],
        "images": total.images,
        "opened_as_before_the_step": total.kept_earlier,
        "opened_as_after_the_step": total.kept_later,
        "failed": len(total.failures),
        "failures": total.failures[:50],
        "classes": total.classes,
        "taken_for_granted": "a cut spoils no byte that was not being written; what fsync has confirmed stays",
    }


def _order(steps: Sequence[Step], seed: int) -> list[int]:
    """Checkpoints and the step behind each come first, for there are few of them; the rest as drawn."""
    copied = [n for n in range(1, len(steps)) if steps[n].files.database != steps[n - 1].files.database]
    first = [n for at in copied for n in (at, at + 1) if n < len(steps)]
    rest = [n for n in range(1, len(steps)) if n not in first]
    random.Random(seed).shuffle(rest)  # noqa: S311 - an order that can be repeated
    return first + rest


def _open(path: Path) -> Outbox:
    return open_outbox(path, now_ms=_NOW_MS + 1000, max_bytes=256 << 20)


def _try(
    folder: Path, image: Image, earlier: Step, later: Step, opened: Callable[[Path], Outbox], result: Result
) -> str:
    """What is wrong with what comes up; empty: nothing."""
    place = folder / "image"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    path = place / "outbox.db"
    if image.files.database is not None:
        path.write_bytes(image.files.database)
    if image.files.log is not None:
        path.with_name(path.name + "-wal").write_bytes(image.files.log)
    try:
        outbox = opened(path)
    except CityBrainError as error:
        return f"does not open: {error}"
    try:
        found = state_of(outbox)
    except CityBrainError as error:
        return f"cannot be read: {error}"
    finally:
        outbox.close()
    if found == later.state:
        result.kept_later += 1
        return ""
    if found == earlier.state:
        result.kept_earlier += 1
        return "the step had returned and is gone" if image.after else ""
    return "neither what it was before nor what it was after"
