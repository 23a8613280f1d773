"""The parameters blocks share, as they stand in a pack: limits with units, levels, rules.

Every number a department or a site may want to change is a :class:`Limit`: it says its unit, where it comes from and
whether a site may replace it, and within which bounds.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from protocols.core.model import Level

Compare = Literal[">=", ">"]
PlaceName = Literal["edge", "cloud"]

#: Units a pack may use. A limit in a unit of its own making would never be compared with the right readings.
UNITS = frozenset(
    {"dB", "ug/m3", "%", "m/s", "%LEL", "MPa", "kPa", "m3/h", "m", "mm", "s", "t", "deg", "degC", "lx", "count", ""}
)


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One number with its passport. ``standard`` empty means: that of the rule."""

    value: float
    unit: str
    standard: str = ""
    site_override: bool = False
    min: float | None = None
    max: float | None = None


Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class LevelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a level is reached: a limit for all hours, or one by day (06:00-22:00) and one by night; a missing one of
    the two means that the rule does not speak then. ``hold_s``: beyond the limit for that long; or ``k`` of the last
    ``n`` samples."""

    level: Level
    compare: Compare = ">="
    limit: Limit | None = None
    day: Limit | None = None
    night: Limit | None = None
    hold_s: NotNegative = 0.0
    k: Annotated[int, msgspec.Meta(ge=0)] = 0
    n: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0


class ClearSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When an alarm is over. Left out: 90 % of the lowest raising limit (110 % for low limits), held as long as raising
    took (rule convention "hysteresis"). ``offset`` is a distance from the limit instead, for logarithmic units."""

    ratio: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    offset: Limit | None = None
    hold_s: NotNegative | None = None


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="block"):
    """What every rule says, whichever block it uses. ``standard`` is an id of the catalogue or "design"."""

    id: str
    zh: str
    en: str
    at: PlaceName
    role: str
    event: str
    standard: str


class PointRule(Rule, frozen=True, kw_only=True):
    """A rule about one point of each device of a role."""

    point: str
    unit: str
    direction: Literal["high", "low"] = "high"
    levels: tuple[LevelSpec, ...]
    clear: ClearSpec = ClearSpec()
