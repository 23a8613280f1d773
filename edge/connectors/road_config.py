"""What a site writes about chargers (OCPP) and roadside units (V2X)."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

import msgspec

from edge.connectors.scalars import Connections, DeviceId, Seconds
from protocols.core.errors import ConfigError

#: As in the station's URL; characters that need no escape there.
Identity = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9*_=:+|@.-]{1,48}$")]
Degrees = Annotated[float, msgspec.Meta(ge=-180, le=180)]


class OcppDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    identity: Identity  # the station's name, the last part of the URL it dials
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class OcppServerConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="ocpp-server", tag_field="kind"
):
    """Charging stations dial in over WebSocket (OCPP 1.6J, 2.0.1). With ``passwords_file`` they log in (security
    profile 1), with ``tls_cert_file`` the line is encrypted (profile 2), with ``client_ca_file`` they show a
    certificate (profile 3). Files are read again at each connection, so they may be changed under way."""

    id: DeviceId
    listen: str
    device: tuple[OcppDevice, ...]
    heartbeat_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 300  # what stations are told to keep
    silent_s: Seconds = 700.0
    passwords_file: str = ""  # lines `identity password`; empty: stations need none
    cards_file: str = ""  # cards that may charge, one a line; empty: every card
    tls_cert_file: str = ""  # ours (PEM); empty: no encryption
    tls_key_file: str = ""  # of our certificate (PEM)
    client_ca_file: str = ""  # authority of the stations' certificates (PEM); empty: none asked for
    answer_s: Seconds = 30.0  # how long a command waits for the station's answer
    settle_s: Seconds = 60.0  # how long a command may take to show in what the station reports
    max_connections: Connections = 1024


class V2xDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A unit is known by where its datagrams come from, or by its name in the vendor's wrapper."""

    id: DeviceId
    type: str
    sender: str = ""  # IP address its datagrams come from
    name: str = ""  # device id in the vendor's wrapper
    crossing: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0  # number of its crossing in SPAT; 0: the first one


class V2xUdpConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="v2x-udp", tag_field="kind"
):
    """Roadside units send V2X messages as UDP datagrams. Which message set and which wrapping must be said: bytes of
    the other set may read without an error as nonsense."""

    id: DeviceId
    listen: str
    device: tuple[V2xDevice, ...]
    messages: Literal["csae53", "j2735"] = "csae53"  # T/CSAE 53 or SAE J2735
    wrapping: Literal["none", "vendor"] = "none"  # vendor: device id, time and length before the message
    window_s: Annotated[float, msgspec.Meta(ge=1, le=300)] = 10.0  # road users are counted over so long
    silent_s: Seconds = 15.0
    area: tuple[Degrees, Degrees, Degrees, Degrees] | None = None  # west, south, east, north; outside is refused


RoadConfig = OcppServerConfig | V2xUdpConfig


def check_road(config: RoadConfig, where: str) -> tuple[str, list[str], str]:
    """The family, what must be used once, and the key's name. Raises ConfigError."""
    match config:
        case OcppServerConfig():
            if bool(config.tls_cert_file) != bool(config.tls_key_file):
                raise ConfigError(f"{where}: tls_cert_file and tls_key_file belong together")
            if config.client_ca_file and not config.tls_cert_file:
                raise ConfigError(f"{where}: client_ca_file: needs tls_cert_file")
            if config.silent_s <= config.heartbeat_s:
                raise ConfigError(f"{where}: silent_s: must be longer than heartbeat_s")
            return "ocpp", [device.identity for device in config.device], "device.identity"
        case V2xUdpConfig():
            for device in config.device:
                key = f"{where}: device {device.id!r}"
                if bool(device.sender) == bool(device.name):
                    raise ConfigError(f"{key}: needs either sender or name")
                if device.name and config.wrapping == "none":
                    raise ConfigError(f"{key}: name: stands in the vendor's wrapper only")
                if device.sender:
                    try:
                        ipaddress.ip_address(device.sender)
                    except ValueError:
                        raise ConfigError(f"{key}: sender: {device.sender!r} is no IP address") from None
            if config.area is not None and not (config.area[0] < config.area[2] and config.area[1] < config.area[3]):
                raise ConfigError(f"{where}: area: west, south, east, north")
            places = [f"{device.sender}{device.name} {device.crossing}" for device in config.device]
            return "v2x", places, "device.sender, name, crossing"
