"""Scenario packs: load, check, bind to a site."""

from __future__ import annotations

from scenarios.packs.bind import bind, bind_all, roles_for
from scenarios.packs.loader import load, load_all, pack_ids, parse
from scenarios.packs.model import BoundPack, CaseSpec, MapSpec, Need, Pack, SlaHours

__all__ = [
    "BoundPack",
    "CaseSpec",
    "MapSpec",
    "Need",
    "Pack",
    "SlaHours",
    "bind",
    "bind_all",
    "load",
    "load_all",
    "pack_ids",
    "parse",
    "roles_for",
]
