"""What a site writes about water, gas and heat meters: CJ/T 188 and M-Bus lines."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge.connectors.scalars import Baud, DeviceId, Parity, Retries, Seconds, StopBits
from protocols.cjt188.dialect import OrderRule, SerRule
from protocols.cjt188.points import COMMANDS as CJT188_COMMANDS
from protocols.cjt188.points import parse_key as cjt188_key
from protocols.core.errors import ConfigError
from protocols.devices import DeviceType
from protocols.mbus.keys import parse_key as mbus_key

Cjt188Address = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-F]{14}$")]
MbusAddress = Annotated[int, msgspec.Meta(ge=0, le=250)]
Secondary = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-F]{16})?$")]
Serial = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-F]{8})?$")]
MeterKind = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-F]{2})?$")]
Preamble = Annotated[int, msgspec.Meta(ge=0, le=64)]
Gap = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Cjt188Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    address: Cjt188Address  # 14 digits as printed, maker code first
    meter_type: MeterKind = ""  # type byte T in hex; empty: that of the device type
    di_order: OrderRule = "auto"  # identifier 901F on the wire: `901F` high byte first, `1F90` low byte first
    ser: SerRule = "auto"  # `echo`: the meter repeats our running number, `fixed`: it always says the same one
    poll_s: Seconds = 300.0
    allow: tuple[str, ...] = ()  # commands of its type that may be given to it


class Cjt188Config(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="cjt188", tag_field="kind"
):
    """``port``: a device file, or ``tcp://host:port`` of a transparent serial server. ``timeout_s``: 500 ms is the
    longest a meter may take to begin its answer."""

    id: DeviceId
    port: str
    device: tuple[Cjt188Device, ...]
    baud: Baud = 2400
    parity: Parity = "E"
    stop_bits: StopBits = 1
    preamble: Preamble = 4  # wake-up bytes FE; battery meters on M-Bus want 20 or more
    timeout_s: Seconds = 0.5
    retries: Retries = 2
    slow_poll_s: Seconds = 900.0
    gap_s: Gap = 0.05
    valve_s: Seconds = 90.0  # how long a valve may travel before a command counts as failed


class MbusDevice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: DeviceId
    type: str
    address: MbusAddress | None = None  # primary address
    secondary: Secondary = ""  # or: id 8, maker 4, version 2, medium 2 digits; F is any digit
    serial: Serial = ""  # the meter's own number, 8 digits; checked if given
    poll_s: Seconds = 900.0


class MbusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="mbus", tag_field="kind"):
    """``port``: a level converter's device file, or ``tcp://host:port``. ``timeout_s``: a meter begins its answer
    within 330 bit times and 50 ms."""

    id: DeviceId
    port: str
    device: tuple[MbusDevice, ...]
    baud: Baud = 2400
    parity: Parity = "E"
    stop_bits: StopBits = 1
    timeout_s: Seconds = 0.4
    retries: Retries = 2
    slow_poll_s: Seconds = 1800.0
    gap_s: Gap = 0.05


def places_of(config: Cjt188Config | MbusConfig, where: str) -> list[str]:
    """Where each device sits on the line. Raises ConfigError for one that sits nowhere, or twice."""
    if isinstance(config, Cjt188Config):
        return [device.address for device in config.device]
    places = []
    for device in config.device:
        if (device.address is None) == (not device.secondary):
            raise ConfigError(f"{where}: device {device.id!r}: needs either address or secondary")
        places.append(device.secondary or str(device.address))
    return places


def check_meter(kind: DeviceType, protocol: str, where: str) -> None:
    """Keys of points and commands are known. Raises ConfigError."""
    for point in kind.points:
        if point.value is not None:
            try:
                _ = cjt188_key(point.value.key) if protocol == "cjt188" else mbus_key(point.value.key)
            except ConfigError as exc:
                raise ConfigError(f"{where}: type {kind.id}: point {point.name}: {exc}") from exc
    for command in kind.commands:
        if protocol != "cjt188" or command.key not in CJT188_COMMANDS:
            known = ", ".join(CJT188_COMMANDS) if protocol == "cjt188" else "none"
            raise ConfigError(f"{where}: type {kind.id}: command {command.name}: key: one of {known}")
