"""Which worker should have which shard: a fair part each, as few moves as possible. Pure, so that all agree."""

from __future__ import annotations

from collections.abc import Mapping, Set


def share(
    shards: Set[int], allowed: Mapping[str, Set[int]], owned: Mapping[str, Set[int]]
) -> dict[str, frozenset[int]]:
    """``allowed``: what each worker that is alive may have; ``owned``: what it has now. Returns what it should have.

    Every shard that anybody may have is given to exactly one; no worker has two more than another that could take one
    of them from it; a shard stays where it is unless that would be unfair."""
    workers = sorted(allowed)
    parts: dict[str, set[int]] = {worker: set() for worker in workers}
    given: set[int] = set()
    for worker in workers:
        parts[worker] = {s for s in owned.get(worker, ()) if s in shards and s in allowed[worker] and s not in given}
        given |= parts[worker]
    for shard in sorted(shards - given):
        able = [worker for worker in workers if shard in allowed[worker]]
        if able:
            parts[min(able, key=lambda worker: (len(parts[worker]), worker))].add(shard)
    while (move := _unfair(parts, allowed)) is not None:
        giver, taker, shard = move
        parts[giver].remove(shard)
        parts[taker].add(shard)
    return {worker: frozenset(part) for worker, part in parts.items()}


def _unfair(parts: Mapping[str, Set[int]], allowed: Mapping[str, Set[int]]) -> tuple[str, str, int] | None:
    by_size = sorted(parts, key=lambda worker: (len(parts[worker]), worker))
    for taker in by_size:
        for giver in reversed(by_size):
            if len(parts[giver]) - len(parts[taker]) < 2:
                break
            able = [shard for shard in parts[giver] if shard in allowed[taker]]
            if able:
                return giver, taker, max(able)
    return None
