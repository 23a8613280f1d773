"""What a site writes about its cameras and signal controllers: GB/T 28181, ONVIF, GB/T 20999."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.connectors.scalars import Connections, DeviceId, Retries, Seconds
from protocols.core.errors import ConfigError

GbId = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{20}$")]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class Gb28181Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    gb_id: GbId  # the 20 digits set in the camera or recorder
    password_file: str  # a file that holds the password it logs in with, and nothing else
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class Gb28181ServerConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="gb28181-server", tag_field="kind"
):
    """Cameras and recorders register here over UDP and TCP. Streams are only negotiated: media go to a media server,
    never here. ``md5`` off: only devices of the 2022 edition (SHA-256) are let in."""

    id: DeviceId
    listen: str  # `host:port`, UDP and TCP; usually 0.0.0.0:5060
    server_id: GbId  # ours, set in the cameras as the SIP server's number
    device: tuple[Gb28181Device, ...]
    realm: str = ""  # the SIP domain set in the cameras; empty: the first ten digits of server_id
    advertise: str = ""  # `host:port` where cameras reach us, for their answers; empty: `listen`
    silent_s: Seconds = 190.0  # three missed keep-alives of a minute: the camera is offline
    catalogue_s: Seconds = 3_600.0  # how often its channels are asked for
    status_s: Seconds = 300.0  # how often its state and clock are asked for
    md5: bool = True  # plain MD5 logins are let in
    tcp: bool = True  # cameras may also connect over TCP
    max_connections: Connections = 256


class OnvifDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    address: str  # `host:port` of the camera's web service
    username: str = ""  # empty: without login
    password_file: str = ""  # a file that holds the password and nothing else
    profile: str = ""  # media profile token; empty: the first that can move
    poll_s: Seconds = 30.0
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class OnvifConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="onvif", tag_field="kind"):
    """Cameras and domes by ONVIF: is it there, where does it look, how wrong is its clock; moving it where allowed."""

    id: DeviceId
    device: tuple[OnvifDevice, ...]
    timeout_s: Seconds = 5.0
    slow_poll_s: Seconds = 120.0


class SignalDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One crossing of a controller."""

    id: DeviceId
    type: str
    crossing: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1  # its number in the controller
    controller: Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)] = 0  # number of the controller; 0: any
    poll_s: Seconds = 1.0
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it: they change the street


class Gb20999Config(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="gb20999", tag_field="kind"
):
    """A signal controller, asked by us as its host. Read-only unless a device's ``allow`` names a command; whatever is
    set falls back to local control by itself when its time is over."""

    id: DeviceId
    address: str  # `udp://host:port` or `tcp://host:port` of the controller
    device: tuple[SignalDevice, ...]
    host_number: Byte = 1  # our number as the controller's host
    timeout_s: Seconds = 1.5
    retries: Retries = 2
    slow_poll_s: Seconds = 30.0
    settle_s: Seconds = 30.0  # how long a command may take to show in what the controller says


StreetConfig = Gb28181ServerConfig | OnvifConfig | Gb20999Config


def split_scheme(address: str, key: str) -> tuple[Literal["udp", "tcp"], str]:
    """Transport and ``host:port`` of ``udp://host:port``. Raises ConfigError."""
    scheme, slashes, rest = address.partition("://")
    if not slashes or scheme not in ("udp", "tcp"):
        raise ConfigError(f"{key}: {address!r} is neither udp://host:port nor tcp://host:port")
    return ("udp" if scheme == "udp" else "tcp"), rest


def check_street(config: StreetConfig, where: str) -> tuple[str, list[str], str, list[tuple[str, str]]]:
    """The family, what must be used once and its key's name, and addresses to check with theirs. Raises ConfigError."""
    match config:
        case Gb28181ServerConfig():
            addresses = [(config.listen, f"{where}: listen")]
            if config.advertise:
                addresses.append((config.advertise, f"{where}: advertise"))
            elif config.listen.startswith(("0.0.0.0:", "[::]:")):
                raise ConfigError(f"{where}: advertise: needed where listen is every interface: where cameras reach us")
            if any(device.gb_id == config.server_id for device in config.device):
                raise ConfigError(f"{where}: device.gb_id: {config.server_id} is our own number")
            return "gb28181", [device.gb_id for device in config.device], "device.gb_id", addresses
        case OnvifConfig():
            places = [f"{device.address} {device.profile}".strip() for device in config.device]
            for device in config.device:
                if device.username and not device.password_file:
                    raise ConfigError(f"{where}: device {device.id!r}: password_file: needed for a username")
            return (
                "onvif",
                places,
                "device.address",
                [(device.address, f"{where}: device {device.id!r}: address") for device in config.device],
            )
        case Gb20999Config():
            _, rest = split_scheme(config.address, f"{where}: address")
            places = [f"{device.controller}/{device.crossing}" for device in config.device]
            return "traffic-signal", places, "device.controller, crossing", [(rest, f"{where}: address")]
