"""Fair shares: whatever the workers, what each may have and what each has, all agree and nothing is left over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud.ingest.shares import share

_SHARDS = st.frozensets(st.integers(0, 63), max_size=64)
_WORKERS = st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=6)


@st.composite
def _situations(
    draw: st.DrawFn,
) -> tuple[frozenset[int], dict[str, frozenset[int]], dict[str, frozenset[int]]]:
    workers = draw(_WORKERS)
    some = st.one_of(st.just(frozenset(range(64))), _SHARDS)
    return draw(_SHARDS), {w: draw(some) for w in workers}, {w: draw(_SHARDS) for w in workers}


@given(_situations())
def test_every_shard_has_one_owner_that_may_have_it_and_nobody_has_too_many(
    situation: tuple[frozenset[int], dict[str, frozenset[int]], dict[str, frozenset[int]]],
) -> None:
    shards, allowed, owned = situation
    parts = share(shards, allowed, owned)
    given_out = [shard for part in parts.values() for shard in part]
    assert len(given_out) == len(set(given_out))
    wanted = {shard for shard in shards if any(shard in may for may in allowed.values())}
    assert set(given_out) == wanted
    for worker, part in parts.items():
        assert part <= allowed[worker]
        for other, others in parts.items():
            if len(others) - len(part) >= 2:
                assert not others & allowed[worker], f"{worker} could relieve {other}"
    assert share(shards, allowed, parts) == parts  # and then nothing moves any more


def test_a_new_worker_gets_its_part_and_nothing_else_moves() -> None:
    everything = frozenset(range(64))
    before = share(everything, {"a": everything, "b": everything}, {})
    after = share(everything, {"a": everything, "b": everything, "c": everything}, before)
    assert sorted(map(len, after.values())) == [21, 21, 22]
    assert after["a"] <= before["a"] and after["b"] <= before["b"]


def test_the_part_of_a_worker_that_is_gone_is_spread() -> None:
    everything = frozenset(range(64))
    before = share(everything, {"a": everything, "b": everything, "c": everything}, {})
    after = share(everything, {"a": everything, "b": everything}, before)
    assert before["a"] <= after["a"] and before["b"] <= after["b"]
    assert sorted(map(len, after.values())) == [32, 32]
