"""What a site writes about fire alarm transmitters (GB/T 26875.3) and electric vehicles (GB/T 32960)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.connectors.scalars import Connections, DeviceId, Seconds
from protocols.core.errors import ConfigError
from protocols.gb26875.points import canonical_part
from protocols.gb26875.units import Layout

Address = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{12}$")]
Vin = Annotated[str, msgspec.Meta(min_length=1, max_length=17)]
Datum = Literal["wgs84", "gcj02"]


class Gb26875Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A transmitter, or a system or component of the panel it tells of. Each transmitter has a device of its own
    without ``part``: what nobody configured is reported there."""

    id: DeviceId
    type: str
    transmitter: Address  # source address of its packets, 12 hex digits, high byte first
    part: str = ""  # `system/address`, `system/address/component` (`loop-node`), as the report of an unknown one says
    layout: Layout = "auto"  # a transmitter's components: `standard`, or `ascii8` (50 bytes, address of 8 digits)
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class Gb26875ServerConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="gb26875-server", tag_field="kind"
):
    """The agent is the monitoring centre: fire alarm transmitters dial in. What they send is confirmed once it is on
    disk. The standard names no heartbeat: silence of three times the usual gap is offline, ``silent_s`` at the latest.
    """

    id: DeviceId
    listen: str
    device: tuple[Gb26875Device, ...]
    transport: Literal["tcp", "udp"] = "tcp"  # the standard leaves both to the maker
    silent_s: Seconds = 3_600.0
    set_clock: bool = False
    max_connections: Connections = 256


class Gb32960Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    vin: Vin  # as in its messages
    datum: Datum = "wgs84"  # of its positions where the message does not say (2016 issue)
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class Gb32960ServerConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="gb32960-server", tag_field="kind"
):
    """The agent is the platform: electric vehicles, or a maker's platform with many of them, dial in."""

    id: DeviceId
    listen: str
    device: tuple[Gb32960Device, ...]
    silent_s: Seconds = 120.0
    max_connections: Connections = 4_096
    user: str = ""  # of the platform (command 05); set: only connections that logged in are heard
    password: str = ""  # of a platform that logs in


GbConfig = Gb26875ServerConfig | Gb32960ServerConfig


def check_gb(config: GbConfig, where: str) -> tuple[str, list[str], str]:
    """The family, what must be used once, and the key's name. Raises ConfigError."""
    if isinstance(config, Gb32960ServerConfig):
        return "gb32960", [device.vin for device in config.device], "device.vin"
    own = {device.transmitter.upper() for device in config.device if not device.part}
    places = []
    for device in config.device:
        key = f"{where}: device {device.id!r}"
        try:
            part = canonical_part(device.part)
        except ValueError as error:
            raise ConfigError(f'{key}: part: {error}, e.g. "1/1/131082"') from error
        if device.transmitter.upper() not in own:
            raise ConfigError(f"{key}: transmitter: {device.transmitter} needs a device of its own, without part")
        places.append(f"{device.transmitter.upper()} {part}".strip())
    return "gb26875", places, "device.part"
