"""What a site writes: read strictly, checked without opening anything."""

from __future__ import annotations

import socket
import tomllib
from typing import Any

import msgspec
import pytest

from edge.clock import WallClock
from edge.connectors.build import build
from edge.connectors.config import (
    ConnectorConfig,
    Dlt645Config,
    Hj212ServerConfig,
    ModbusRtuConfig,
    ModbusTcpConfig,
    check,
    split_address,
)
from protocols.core.errors import ConfigError

SITE = """
[[connector]]
id = "dust"
kind = "hj212-server"
listen = "127.0.0.1:9001"
[[connector.device]]
id = "site-1-dust"
type = "env/dust_station"
mn = "010000A8900016F000169DC0"
password = "123456"
checksum = "auto"

[[connector]]
id = "site-485"
kind = "modbus-rtu"
port = "/dev/ttyS1"
parity = "N"
[[connector.device]]
id = "site-1-noise"
type = "env/noise_meter"
unit = 4
poll_s = 1.0

[[connector]]
id = "site-crane"
kind = "modbus-tcp"
address = "127.0.0.1:1502"
[[connector.device]]
id = "site-1-crane"
type = "crane/tower_crane"
unit = 1

[[connector]]
id = "meters"
kind = "dlt645"
port = "/dev/ttyS2"
[[connector.device]]
id = "meter-01"
type = "meter/electricity_three_phase"
address = "000000000161"
"""


class Site(msgspec.Struct, forbid_unknown_fields=True):
    connector: tuple[ConnectorConfig, ...]


def read(text: str) -> tuple[ConnectorConfig, ...]:
    return msgspec.convert(tomllib.loads(text), Site).connector


def test_each_kind_is_read_with_its_defaults() -> None:
    dust, rs485, crane, meters = read(SITE)
    assert isinstance(dust, Hj212ServerConfig)
    assert isinstance(rs485, ModbusRtuConfig)
    assert isinstance(crane, ModbusTcpConfig)
    assert isinstance(meters, Dlt645Config)
    assert (rs485.baud, rs485.parity, rs485.stop_bits) == (9600, "N", 1)
    assert (meters.baud, meters.parity, meters.device[0].poll_s) == (2400, "E", 60.0)
    assert meters.device[0].address == "000000000161"


def test_checking_and_building_open_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was opened")

    configs = read(SITE)
    monkeypatch.setattr("os.open", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    for config in configs:
        check(config)
        assert build(config, WallClock()).id == config.id


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('parity = "N"', 'paritet = "N"', "paritet"),
        ('kind = "modbus-tcp"', 'kind = "modbus-udp"', "modbus-udp"),
        ("unit = 4", "unit = 0", "unit"),
        ("unit = 4", 'unit = "4"', "unit"),
        ('address = "000000000161"', 'address = "161"', "address"),
        ('address = "000000000161"', "address = 161", "address"),
        ("poll_s = 1.0", "poll_s = 0", "poll_s"),
        ('mn = "010000A8900016F000169DC0"', 'mn = ""', "mn"),
        ('parity = "N"', "baud = 9601", "baud"),
    ],
)
def test_wrong_keys_and_values_are_named(old: str, new: str, message: str) -> None:
    assert old in SITE
    with pytest.raises(msgspec.ValidationError, match=message):
        read(SITE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('type = "env/noise_meter"', 'type = "env/noise"', "no file protocols/devices/env/noise.toml"),
        ('type = "env/noise_meter"', 'type = "env/dust_station"', "speaks hj212, this line modbus"),
        ('listen = "127.0.0.1:9001"', 'listen = "9001"', "host:port"),
        ('address = "127.0.0.1:1502"', 'address = "127.0.0.1:99999"', "host:port"),
        (
            "unit = 4\npoll_s = 1.0\n",
            'unit = 4\n[[connector.device]]\nid = "b"\ntype = "env/noise_meter"\nunit = 4\n',
            "device.unit: '4' is used 2 times",
        ),
        (
            'address = "000000000161"\n',
            'address = "000000000161"\n[[connector.device]]\nid = "meter-01"\n'
            'type = "meter/electricity_three_phase"\naddress = "000000000162"\n',
            "device.id: 'meter-01' is used 2 times",
        ),
    ],
)
def test_what_the_struct_cannot_say(old: str, new: str, message: str) -> None:
    assert old in SITE
    found = read(SITE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        for config in found:
            check(config)


def test_addresses() -> None:
    assert split_address("127.0.0.1:9001", "listen") == ("127.0.0.1", 9001)
    assert split_address("[::1]:502", "address") == ("::1", 502)
