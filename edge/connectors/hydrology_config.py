"""Configuration of hydrology stations (SL 651)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.connectors.scalars import Connections, DeviceId, Seconds

StationAddress = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{10}$")]
Confirm = Literal["EOT", "ESC", "ACK", "none"]
StationPassword = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-F]{4})?$")]


class Sl651Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    station: StationAddress  # the station's address, ten digits as text: leading zeros matter
    password: StationPassword = ""  # four digits, as they stand in its telegrams; empty: not checked
    confirm: Confirm = "EOT"  # answer to a report: EOT it may hang up, ESC it stays, ACK it sends on; none: mode M1
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class Sl651ServerConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="sl651-server", tag_field="kind"
):
    """The agent listens, stations dial in. ``silent_s``: battery stations report by the hour, so a little over one.
    ``set_clock``: set a station's clock (4A) when it is off."""

    id: DeviceId
    listen: str
    device: tuple[Sl651Device, ...]
    silent_s: Seconds = 3_900.0
    set_clock: bool = False
    max_connections: Connections = 256
