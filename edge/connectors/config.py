"""What a site writes about its lines and devices. Reading and checking it opens nothing.

Meter numbers and MNs are text: leading zeros matter.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import msgspec

from edge.connectors.fleet_config import Jt808ServerConfig, NmeaConfig, check_fleet
from edge.connectors.gb_config import Gb26875ServerConfig, Gb32960ServerConfig, check_gb
from edge.connectors.hydrology_config import Sl651ServerConfig
from edge.connectors.industry_config import (
    BacnetConfig,
    ChirpstackConfig,
    OpcuaConfig,
    SparkplugHostConfig,
    check_industry,
    check_keys,
)
from edge.connectors.meter_config import Cjt188Config, MbusConfig, check_meter, places_of
from edge.connectors.road_config import OcppServerConfig, V2xUdpConfig, check_road
from edge.connectors.scalars import (
    Baud,
    Connections,
    DeviceId,
    MeterAddress,
    Parity,
    Retries,
    Seconds,
    StopBits,
    Unit,
)
from edge.connectors.street_config import Gb20999Config, Gb28181ServerConfig, OnvifConfig, check_street
from protocols.core.errors import ConfigError
from protocols.devices import DeviceType, load
from protocols.hj212.endpoint import Checksum


class Hj212Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``password`` "": not checked. ``checksum``: the rule the station uses, "auto" finds it."""

    id: DeviceId
    type: str
    mn: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    password: str = ""
    checksum: Checksum = "auto"
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class Hj212ServerConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="hj212-server", tag_field="kind"
):
    """The agent listens, stations dial in. ``silent_s``: a station heard of no more is offline. ``set_clock``: send
    the time (CN 1012) to a station at its first packet and when its clock is off."""

    id: DeviceId
    listen: str
    device: tuple[Hj212Device, ...]
    silent_s: Seconds = 90.0
    set_clock: bool = False
    fill_gaps: bool = False  # ask stations for minute and hour data that never came (at most a day of them)
    max_connections: Connections = 256


class ModbusDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    unit: Unit
    poll_s: Seconds = 1.0
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class ModbusRtuConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="modbus-rtu", tag_field="kind"
):
    """``port``: a device file, or ``tcp://host:port`` of a transparent serial server (RTU over TCP).
    ``timeout_s``: the device's own time to answer; transmission time is added. ``gap_s``: pause between two
    exchanges (3.5 characters, more behind USB adapters and for clone firmware)."""

    id: DeviceId
    port: str
    device: tuple[ModbusDevice, ...]
    baud: Baud = 9600
    parity: Parity = "N"
    stop_bits: StopBits = 1
    timeout_s: Seconds = 0.3
    retries: Retries = 2
    slow_poll_s: Seconds = 30.0
    gap_s: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None  # pause between exchanges; empty: found by itself


class ModbusTcpConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="modbus-tcp", tag_field="kind"
):
    id: DeviceId
    address: str
    device: tuple[ModbusDevice, ...]
    timeout_s: Seconds = 1.0
    retries: Retries = 2
    slow_poll_s: Seconds = 30.0


class Dlt645Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    address: MeterAddress
    poll_s: Seconds = 60.0
    edition: Literal["auto", "2007", "1997"] = "auto"  # of DL/T 645; `auto` finds it at the first answer
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class Dlt645Config(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="dlt645", tag_field="kind"
):
    """``port``: a device file, or ``tcp://host:port`` of a transparent serial server.
    ``timeout_s``: 500 ms is the longest a meter may take to begin its answer (DL/T 645-2007, 5.4). Orders need a
    password: a file with lines ``level password`` or ``address level password``, read when an order is given."""

    id: DeviceId
    port: str
    device: tuple[Dlt645Device, ...]
    baud: Baud = 2400
    parity: Parity = "E"
    stop_bits: StopBits = 1
    timeout_s: Seconds = 0.5
    retries: Retries = 2
    slow_poll_s: Seconds = 300.0
    gap_s: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None  # pause between exchanges; empty: found by itself
    preamble: Annotated[int, msgspec.Meta(ge=0, le=64)] = 4  # wake-up bytes FE in front of a request
    password_file: str = ""  # who may switch and write; empty: nobody
    operator: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{8}$")] = "00000000"  # stands in the meter's event log


#: A port may also hang behind a serial server that passes the bytes on as they are: ``tcp://host:port``.
TCP_PREFIX = "tcp://"

ConnectorConfig = (
    Hj212ServerConfig
    | OcppServerConfig
    | V2xUdpConfig
    | Gb26875ServerConfig
    | Gb32960ServerConfig
    | Sl651ServerConfig
    | Jt808ServerConfig
    | NmeaConfig
    | ModbusRtuConfig
    | ModbusTcpConfig
    | Dlt645Config
    | Cjt188Config
    | MbusConfig
    | SparkplugHostConfig
    | ChirpstackConfig
    | OpcuaConfig
    | BacnetConfig
    | Gb28181ServerConfig
    | OnvifConfig
    | Gb20999Config
)


def split_address(text: str, key: str) -> tuple[str, int]:
    """Host and port of ``host:port``. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ConfigError(f"{key}: {text!r} is not host:port")
    return host.strip("[]"), int(port)


def check_port(port: str, key: str) -> None:
    """A port's name, or ``tcp://host:port``. Raises ConfigError."""
    if port.startswith(TCP_PREFIX):
        split_address(port.removeprefix(TCP_PREFIX), key)
    elif not port:
        raise ConfigError(f"{key}: a device file such as /dev/ttyUSB0, or tcp://host:port")


def _once(values: list[str], key: str) -> None:
    for value, times in Counter(values).items():
        if times > 1:
            raise ConfigError(f"{key}: {value!r} is used {times} times on this line")


def device_type(type_id: str, protocol: str, key: str) -> DeviceType:
    """The device type, if it speaks that protocol. Raises ConfigError naming the key."""
    try:
        found = load(type_id)
    except ConfigError as exc:
        raise ConfigError(f"{key}: {exc}") from exc
    if found.protocol != protocol:
        raise ConfigError(f"{key}: {type_id!r} speaks {found.protocol}, this line {protocol}")
    return found


def check(config: ConnectorConfig) -> None:
    """What the struct cannot say: types exist and fit, nobody is there twice. Opens nothing; raises ConfigError."""
    where = f"connector {config.id!r}"
    _once([device.id for device in config.device], f"{where}: device.id")
    match config:
        case Hj212ServerConfig():
            split_address(config.listen, f"{where}: listen")
            _once([device.mn for device in config.device], f"{where}: device.mn")
            protocol = "hj212"
        case Sl651ServerConfig():
            split_address(config.listen, f"{where}: listen")
            _once([device.station for device in config.device], f"{where}: device.station")
            protocol = "sl651"
        case OcppServerConfig() | V2xUdpConfig():
            split_address(config.listen, f"{where}: listen")
            protocol, places, key = check_road(config, where)
            _once(places, f"{where}: {key}")
        case Jt808ServerConfig() | NmeaConfig():
            if isinstance(config, NmeaConfig):
                check_port(config.port, f"{where}: port")
            else:
                split_address(config.listen, f"{where}: listen")
            protocol, places, key = check_fleet(config, where)
            _once(places, f"{where}: {key}")
        case Gb26875ServerConfig() | Gb32960ServerConfig():
            split_address(config.listen, f"{where}: listen")
            protocol, places, key = check_gb(config, where)
            _once(places, f"{where}: {key}")
        case ModbusTcpConfig():
            split_address(config.address, f"{where}: address")
            _once([str(device.unit) for device in config.device], f"{where}: device.unit")
            protocol = "modbus"
        case ModbusRtuConfig():
            check_port(config.port, f"{where}: port")
            _once([str(device.unit) for device in config.device], f"{where}: device.unit")
            protocol = "modbus"
        case Dlt645Config():
            check_port(config.port, f"{where}: port")
            _once([device.address for device in config.device], f"{where}: device.address")
            protocol = "dlt645"
        case Cjt188Config() | MbusConfig():
            check_port(config.port, f"{where}: port")
            _once(places_of(config, where), f"{where}: device.address")
            protocol = "cjt188" if isinstance(config, Cjt188Config) else "mbus"
        case SparkplugHostConfig() | ChirpstackConfig() | OpcuaConfig() | BacnetConfig():
            protocol, places, key = check_industry(config, where)
            _once(places, f"{where}: {key}")
        case Gb28181ServerConfig() | OnvifConfig() | Gb20999Config():
            protocol, places, key, addresses = check_street(config, where)
            _once(places, f"{where}: {key}")
            for address, at in addresses:
                split_address(address, at)
    for device in config.device:
        kind = device_type(device.type, protocol, f"{where}: device {device.id!r}: type")
        for name in getattr(device, "allow", ()):
            if kind.command(name) is None:
                known = ", ".join(command.name for command in kind.commands) or "none"
                raise ConfigError(f"{where}: device {device.id!r}: allow: {kind.id} has no {name!r}; it has {known}")
        if isinstance(config, Cjt188Config | MbusConfig):
            check_meter(kind, protocol, f"{where}: device {device.id!r}")
        if isinstance(config, OpcuaConfig):
            check_keys(kind, getattr(device, "root", ""), f"{where}: device {device.id!r}")
