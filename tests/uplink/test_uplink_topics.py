"""Topic names: what is ours and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.core.errors import ContractError
from protocols.core.ids import derived_id, uuid7
from protocols.uplink import topics
from protocols.uplink.topics import LANES, UpTopic, parse_up, valid_gateway_id

GATEWAYS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@given(st.integers(0, 63), GATEWAYS, st.sampled_from([*LANES, "state", "health"]))
@settings(max_examples=60, deadline=None)
def test_our_own_topics_are_parsed(shard: int, gateway: str, channel: str) -> None:
    found = parse_up(topics.up(shard, gateway, channel))
    assert found == UpTopic(shard, gateway, channel)
    assert found.lane == (channel if channel in LANES else None)
    mine = topics.up_filter(shard).split("/")
    assert all(
        want in ("+", part) for want, part in zip(mine, topics.up(shard, gateway, channel).split("/"), strict=True)
    )


@pytest.mark.parametrize(
    "topic",
    [
        "", "/", "cb", "cb/v1/5/gw/up", "cb/v1/5/gw/up/", "cb/v1/5/gw/up/data/", "cb/v1/5/gw/up/data/x",
        "/cb/v1/5/gw/up/data", "CB/v1/5/gw/up/data", "cb/v2/5/gw/up/data", "cb/v1/64/gw/up/data", "cb/v1/-1/gw/up/data",
        "cb/v1/+5/gw/up/data", "cb/v1/5.0/gw/up/data", "cb/v1/ 5/gw/up/data", "cb/v1/٥/gw/up/data",
        "cb/v1//gw/up/data", "cb/v1/5//up/data", "cb/v1/5/GW/up/data", "cb/v1/5/gw_1/up/data", "cb/v1/5/-gw/up/data",
        "cb/v1/5/gw\n/up/data", "cb/v1/5/gw\x00/up/data", "cb/v1/5/gw/up/data\n", "cb/v1/5/网关/up/data",
        "cb/v1/5/" + "g" * 64 + "/up/data", "cb/v1/5/gw/down/data", "cb/v1/5/gw/down/ack", "cb/v1/5/gw/up/ack",
        "cb/v1/5/gw/up/Data", "cb/v1/5/+/up/+", "cb/v1/5/gw/up/#", "cb/v1/999999999999999999999999/gw/up/data",
    ],
)  # fmt: skip
def test_others_are_refused(topic: str) -> None:
    with pytest.raises(ContractError) as refused:
        parse_up(topic)
    assert refused.value.reason == "topic"


@given(st.text(max_size=80))
@settings(max_examples=150, deadline=None)
def test_any_text_is_one_of_ours_or_refused(text: str) -> None:
    for topic in (text, f"cb/v1/{text}/up/data", f"cb/v1/5/{text}/up/data", f"cb/v1/5/gw/up/{text}"):
        try:
            found = parse_up(topic)
        except ContractError as error:
            assert error.reason == "topic"
        else:
            assert valid_gateway_id(found.gateway) and 0 <= found.shard < 64


def test_a_derived_identity_is_always_the_same_and_a_new_one_never() -> None:
    assert derived_id("pack", "key", 5) == "a45ce8eb-95bb-8e5b-9edd-b7dee95424cc"
    assert derived_id("a", "bc") != derived_id("ab", "c")
    assert derived_id("x")[14] == "8" and uuid7(0)[14] == "7"
    assert len({uuid7(1_772_400_000_000) for _ in range(2000)}) == 2000
    assert sorted([uuid7(2000), uuid7(1000), uuid7(3000)])[0].startswith("00000000-03e8")
