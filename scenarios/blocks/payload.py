"""What an event's values may hold, by family of event (events.md, section 5).

Blocks offer all they know; this keeps what the family carries, so that a rule cannot invent keys that no consumer
reads, and a family's privacy line ("never a name, face vector or clear plate") is a list, not a hope.
"""

from __future__ import annotations

from collections.abc import Mapping

Value = float | int | str | bool | None

_DEVICE = frozenset({"code", "detail", "since", "n", "link"})
_VISION = frozenset({"cls", "conf", "box", "area_m2", "dwell_s", "n", "model", "roi"})
_QUANTITY = frozenset({"q", "x", "unit", "limit", "win_s", "std", "n_good"})
_PART = frozenset({"q", "x", "limit", "rate", "part"})
_PIPE = frozenset({"pipe", "kind", "x", "unit", "permit"})

FAMILIES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("dev", "data", "comm", "cam"), _DEVICE),
    "vision": _VISION,
    **dict.fromkeys(("env", "gas", "hydro", "weather", "pool", "exhibit", "air"), _QUANTITY),
    **dict.fromkeys(("crane", "pit", "struct", "safety", "quake"), _PART),
    "pipe": _PIPE,
}

#: Beyond the family: why an alarm was escalated (id of the other event and its distance), and the voice stage.
COMMON = frozenset({"by", "dist_m", "stage"})


def allowed(event_type: str) -> frozenset[str]:
    """Keys an event of that type may carry; an unlisted family carries the common ones alone.

    ``vision.low_conf`` tells the state of a camera, so it is read like a device event.
    """
    if event_type == "vision.low_conf":
        return _DEVICE | COMMON
    return FAMILIES.get(event_type.partition(".")[0], frozenset()) | COMMON


def payload(keys: frozenset[str], values: Mapping[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in values.items() if key in keys and value is not None and value != ""}
