"""Topic names: ``cb/v1/{shard}/{gateway}/{up|down}/{channel}``.

The shard stands before the gateway so that one worker's subscription is one filter, and a gateway's rights are two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from protocols.core.errors import ContractError

SHARDS = 64

Lane = Literal["event", "data", "backfill", "evidence"]
#: In the order in which an outbox sends them.
LANES: tuple[Lane, ...] = get_args(Lane)

_GATEWAY = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_UP = (*LANES, "state", "health", "account")


@dataclass(frozen=True, slots=True)
class UpTopic:
    shard: int
    gateway: str
    channel: str  # a lane, "state", "health" or "account"

    @property
    def lane(self) -> Lane | None:
        return self.channel if self.channel in LANES else None


def valid_gateway_id(gateway: str) -> bool:
    """Lower-case letters, digits and hyphens, 63 at most: safe in topics, subjects, files and host names."""
    return _GATEWAY.fullmatch(gateway) is not None


def up(shard: int, gateway: str, channel: str) -> str:
    return f"cb/v1/{shard}/{gateway}/up/{channel}"


def down(shard: int, gateway: str, channel: str) -> str:
    return f"cb/v1/{shard}/{gateway}/down/{channel}"


def up_filter(shard: int) -> str:
    return f"cb/v1/{shard}/+/up/+"


def parse_up(topic: str) -> UpTopic:
    """Raises ContractError ``topic`` for anything that is not one of ours."""
    parts = topic.split("/")
    if len(parts) != 6 or parts[:2] != ["cb", "v1"] or parts[4] != "up" or parts[5] not in _UP:
        raise ContractError(f"not an uplink topic: {topic[:120]!r}", reason="topic")
    if not parts[2].isascii() or not parts[2].isdecimal() or int(parts[2]) >= SHARDS or not valid_gateway_id(parts[3]):
        raise ContractError(f"not an uplink topic: {topic[:120]!r}", reason="topic")
    return UpTopic(int(parts[2]), parts[3], parts[5])
