"""What a site writes about vehicles and receivers: JT/T 808 terminals that dial in, lines of NMEA 0183."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge.connectors.scalars import Baud, Connections, DeviceId, Parity, Seconds, StopBits
from protocols.core.errors import ConfigError

Phone = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{1,20}$")]
Datum = Literal["", "wgs84", "gcj02"]


class Jt808Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    phone: Phone  # the terminal number in its header; leading zeros may be left out
    auth_code: str = ""  # a code it was given elsewhere; empty: ours, made from the key
    datum: Datum = ""  # of its coordinates; empty: what its type says, else WGS 84
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class Jt808ServerConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="jt808-server", tag_field="kind"
):
    """The agent listens, terminals dial in, register and authenticate; nothing of one that has not is accepted.
    ``silent_s``: about three heartbeats."""

    id: DeviceId
    listen: str
    device: tuple[Jt808Device, ...]
    silent_s: Seconds = 180.0
    max_connections: Connections = 8192
    auth_key_file: str = ""  # what authentication codes are made from; empty: anew at each start, all register again
    answer_s: Seconds = 20.0  # how long an order waits for the terminal's word


class NmeaDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str


class NmeaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="nmea", tag_field="kind"):
    """One receiver on a line; it talks, we listen. ``port``: a device file, or ``tcp://host:port``."""

    id: DeviceId
    port: str
    device: Annotated[tuple[NmeaDevice, ...], msgspec.Meta(min_length=1, max_length=1)]  # the receiver
    baud: Baud = 9600
    parity: Parity = "N"
    stop_bits: StopBits = 1
    bare: bool = False  # take sentences without a checksum
    every_s: Seconds = 1.0  # readings are handed on this often at most
    silent_s: Seconds = 10.0


def phone_key(phone: str) -> str:
    """One terminal number whatever zeros fill it: 12 digits before 2019, 20 since."""
    return phone.lower().lstrip("0") or "0"


def check_fleet(config: Jt808ServerConfig | NmeaConfig, where: str) -> tuple[str, list[str], str]:
    """The protocol, what must not be there twice, and under which key. Raises ConfigError."""
    if isinstance(config, NmeaConfig):
        return "nmea_beidou", [], "device"
    for device in config.device:
        if len(device.auth_code.encode("gb18030", "replace")) > 64:
            raise ConfigError(f"{where}: device {device.id!r}: auth_code: at most 64 characters")
    return "jt808", [phone_key(device.phone) for device in config.device], "device.phone"
