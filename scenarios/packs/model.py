"""What a pack file says, as frozen structs. Unknown keys are refused: a typing error must not switch a rule off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from protocols.core.model import Level
from scenarios.blocks import AnyRule
from scenarios.blocks.operator import Site
from scenarios.blocks.params import Limit, Positive

Runs = Literal["edge", "cloud", "edge+cloud"]


class Need(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One role: which device type fills it and which of its points the rules use.

    ``type`` "camera" has facts instead of points. ``interval_s``: how often the devices report; no-data, hold and
    window rules count in it, so a site with slower devices overrides it. ``by_hand``: not filled by device type alone.
    """

    zh: str
    en: str
    type: str
    points: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    interval_s: Limit | None = None
    by_hand: bool = False


class SlaHours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    accept: Positive
    onsite: Positive
    close: Positive


class CaseSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The case an alarm opens. ``from_level``: alarms below it stay alarms."""

    type: str
    department: str
    support: tuple[str, ...]
    sla_h: SlaHours
    from_level: Level
    kpis: tuple[str, ...]


class MapSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    zh: str
    en: str
    layer: Literal["point", "area", "line"]


class PackHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    version: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+\.\d+$")]
    zh: str
    en: str
    runs: Runs


class Pack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scenario. ``gaps``: what the catalogue asks for and this version does not do, by rule."""

    pack: PackHead
    needs: Mapping[str, Need]
    rule: tuple[AnyRule, ...]
    case: CaseSpec
    map: MapSpec
    gaps: Mapping[str, str] = {}

    @property
    def id(self) -> str:
        return self.pack.id

    @property
    def version(self) -> str:
        return self.pack.version


@dataclass(frozen=True, slots=True)
class BoundPack:
    """A pack at one site: devices in its roles, the site's own limits put in. ``rules`` are ready to run."""

    pack: Pack
    site: Site
    rules: tuple[AnyRule, ...]
