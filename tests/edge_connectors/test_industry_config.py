"""What a site may write about plants, buildings and radio sensors; mistakes are named with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.clock import WallClock
from edge.config import load
from edge.connectors.build import build
from protocols.core.errors import ConfigError

GOOD = """
[gateway]
id = "gw-1"
shard = 3
[mqtt]
url = "mqtt://core:1883"
[[connector]]
kind = "sparkplug-host"
id = "plant"
url = "mqtts://scada.example:8883"
group = "city"
[[connector.device]]
id = "pump-1"
type = "industry/sparkplug_pump_station"
node = "city/gw1"
device = "m1"
allow = ["pump_start"]
[[connector]]
kind = "chirpstack"
id = "lora"
url = "mqtt://lora.example"
[[connector.device]]
id = "lamp-1"
type = "lorawan/street_lamp"
dev_eui = "0102030405060701"
[[connector]]
kind = "opcua"
id = "station"
url = "opc.tcp://plc.example:4840/"
[[connector.device]]
id = "pump-2"
type = "industry/opcua_pump_station"
root = "Pump2"
[[connector]]
kind = "bacnet"
id = "building"
address = "192.168.1.10/24"
[[connector.device]]
id = "ahu-1"
type = "building/bacnet_ahu"
instance = 3001
[northbound.sparkplug]
url = "mqtt://scada.example"
group = "hefei"
devices = ["pump-*"]
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_whole_site(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD))
    assert [connector.id for connector in config.connector] == ["plant", "lora", "station", "building"]
    assert config.northbound.sparkplug is not None and config.northbound.sparkplug.commands is False


@pytest.mark.parametrize("at", range(4))
def test_every_kind_is_built_and_opens_nothing(tmp_path: Path, at: int) -> None:
    config = load(written(tmp_path, GOOD)).connector[at]
    assert build(config, WallClock(), base=tmp_path).id == config.id


def test_a_password_file_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    text = GOOD.replace('url = "mqtt://lora.example"', 'url = "mqtt://lora.example"\npassword_file = "nothing"')
    config = load(written(tmp_path, text)).connector[1]
    with pytest.raises(ConfigError, match="nothing"):
        build(config, WallClock(), base=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('node = "city/gw1"', 'node = "gw1"', "group/node"),
        ('node = "city/gw1"', 'node = "city/gw+"', "group/node"),
        ('group = "city"', 'group = "ci/ty"', "group"),
        ("mqtts://scada.example:8883", "http://scada.example", "mqtt://"),
        ('dev_eui = "0102030405060701"', 'dev_eui = "01020304050607AB"', "dev_eui"),
        ('type = "lorawan/street_lamp"', 'type = "env/noise_meter"', "speaks modbus"),
        ("opc.tcp://plc.example:4840/", "plc.example:4840", "opc.tcp"),
        ('root = "Pump2"', 'root = ""', "root"),
        ('address = "192.168.1.10/24"', 'address = "192.168.1.10"', "address/bits"),
        ("instance = 3001", "instance = 4194303", "instance"),
        ('group = "hefei"', 'group = ""', "group"),
        ('group = "hefei"', 'group = "he/fei"', "group"),
        ('url = "mqtt://scada.example"\n', 'url = "tcp://scada.example"\n', "mqtt://"),
        ('devices = ["pump-*"]', 'device = ["pump-*"]', "unknown key `device`"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=words) as error:
        load(written(tmp_path, GOOD.replace(old, new, 1)))
    assert "agent.toml" in str(error.value)


def test_the_same_place_twice(tmp_path: Path) -> None:
    again = '[[connector.device]]\nid = "lamp-2"\ntype = "lorawan/street_lamp"\ndev_eui = "0102030405060701"\n'
    text = GOOD.replace('[[connector]]\nkind = "opcua"', f'{again}[[connector]]\nkind = "opcua"')
    with pytest.raises(ConfigError, match="used 2 times"):
        load(written(tmp_path, text))
