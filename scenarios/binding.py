"""How a site says which scenarios it runs and with which devices: the form agent and cloud configuration share.

    [[scenario]]
    pack = "urban_mgmt/construction_site"
    [scenario.devices]            # role of the pack -> device ids
    noise = ["site-1-noise"]
    [scenario.params]             # only limits which the pack marks site_override
    "noise_leq.yellow.day" = 65

It stands apart from the packs so that a configuration can be read without loading one.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class ScenarioBinding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pack at one site."""

    pack: str
    devices: Mapping[str, tuple[str, ...]]
    params: Mapping[str, float] = {}


class ScenarioBindings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that holds nothing but ``[[scenario]]`` tables."""

    scenario: tuple[ScenarioBinding, ...] = ()
