"""Scene files: what is wrong is refused with file, line or key; placeholders; copies; the shipped scenes are good."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware_sim.scene import load_scene, parse_scene
from protocols.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SCENES = sorted((ROOT / "firmware-sim" / "scenes").glob("*.toml"))

GOOD = """
id = "good"
start = "2026-03-02T22:00:00+08:00"
duration_s = 3600
seed = 7

[[bus]]
id = "line"
kind = "modbus-rtu"
pty = "/tmp/x/line"

[[bus]]
id = "dust"
kind = "hj212-client"

[[bus]]
id = "cam"
kind = "camera"

[[device]]
id = "noise"
type = "env/noise_meter"
bus = "line"
address = 4
[device.signals]
laeq = { base = 62.0, noise = 3.0 }
[[device.fault]]
kind = "wrong_checksum"
at_s = 600
for_s = 60

[[device]]
id = "station"
type = "env/dust_station"
bus = "dust"
mn = "010000A8900016F000169DC0"
[[device.mark]]
point = "pm10"
flag = "C"
at_s = 900
for_s = 300

[[camera]]
id = "lane"
bus = "cam"
[[camera.actor]]
kind = "van"

[expect]
events = ["env.noise.exceed"]
none_of = ["data.*"]
case = { type = "site_nuisance", department = "housing", level = "orange" }
"""


def test_good_scene_is_read() -> None:
    scene = parse_scene(GOOD, "good.toml")
    assert scene.start_ms == 1_772_460_000_000
    assert [device.id for device in scene.devices_on("line")] == ["noise"]
    assert scene.bus[0].speed == 9600
    assert scene.bus[0].byte_bits == 10
    assert [camera.id for camera in scene.cameras_on("cam")] == ["lane"]
    assert scene.expect is not None
    assert scene.expect.events == ("env.noise.exceed",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("duration_s = 3600", "duratoin_s = 3600", r"bad\.toml:4: unknown key `duratoin_s`"),
        ('kind = "modbus-rtu"', 'kind = "modbus"', r"bus line: kind: 'modbus' is none of modbus-rtu, modbus-tcp"),
        ("laeq = {", "leaq = {", r"device noise: signals\.leaq: env/noise_meter has laeq, lamax, status"),
        ("base = 62.0,", "", r"device noise: signals\.laeq: needs exactly one of .*; has none"),
        ("base = 62.0,", "bsae = 62.0,", r"bad\.toml:\d+: unknown key `bsae`"),
        ('bus = "line"', 'bus = "lien"', "device noise: bus: there is no bus 'lien'; there are line, dust, cam"),
        ("address = 4", "address = 400", "device noise: address: a Modbus unit is a number from 1"),
        ("address = 4", 'mn = "4"', "device noise: mn belongs to HJ 212"),
        ('type = "env/noise_meter"', 'type = "env/noise"', "device type 'env/noise': no file"),
        ('type = "env/noise_meter"', 'type = "env/dust_station"', "speaks hj212, bus line modbus"),
        ('mn = "010000A8900016F000169DC0"', "address = 1", "an HJ 212 station has mn"),
        ('flag = "C"', 'flag = "Q"', r"mark\[0\]: needs a point of the type and a flag of"),
        ('point = "pm10"', 'point = "pm1"', r"mark\[0\]: needs a point of the type"),
        ('kind = "wrong_checksum"', 'kind = "clock_step"', r"fault\[0\] \(clock_step\): clock_step needs either"),
        ('kind = "wrong_checksum"', 'kind = "delay"', r"fault\[0\] \(delay\): delay_s"),
        ("for_s = 60\n", "for_s = 0\n", r"fault\[0\] \(wrong_checksum\): for_s: must be above 0"),
        ("for_s = 60\n", "every = 0\n", "every: 1 or more"),
        ('pty = "/tmp/x/line"', 'listen = "127.0.0.1:1502"', "bus line: listen: a bus of kind modbus-rtu takes pty"),
        ("+08:00", "", "start: needs a zone"),
        ('id = "station"', 'id = "noise"', "device noise: id used twice"),
        ('kind = "van"', 'kind = "tank"', "camera lane.actor: kind 'tank' is not one of"),
        ('bus = "cam"', 'bus = "dust"', "camera lane: bus: 'dust' is no bus of kind camera"),
        ("seed = 7", "seed = ", r"bad\.toml: .*line 5"),
    ],
)
def test_wrong_scene_is_refused_naming_the_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=message) as caught:
        parse_scene(GOOD.replace(old, new), "bad.toml")
    assert str(caught.value).startswith("bad.toml")


def test_wrong_checksum_needs_a_checksum() -> None:
    text = GOOD.replace("modbus-rtu", "modbus-tcp").replace('pty = "/tmp/x/line"', "")
    with pytest.raises(ConfigError, match="devices on a bus of kind modbus-tcp have delay, drop, garble"):
        parse_scene(text, "bad.toml")


def test_placeholders_have_defaults_that_the_caller_overrides() -> None:
    text = GOOD.replace("/tmp/x/line", "${line_pty}").replace("seed = 7", 'seed = 7\nplaceholders = {line_pty = "/a"}')
    assert parse_scene(text, "t.toml").bus[0].pty == "/a"
    assert parse_scene(text, "t.toml", {"line_pty": "/b"}).bus[0].pty == "/b"
    with pytest.raises(ConfigError, match=r"t\.toml: no placeholder lien_pty; it has line_pty"):
        parse_scene(text, "t.toml", {"lien_pty": "/b"})
    with pytest.raises(ConfigError, match=r"\$\{other\} is not among"):
        parse_scene(text.replace("${line_pty}", "${other}"), "t.toml")


def test_count_makes_copies_with_addresses_counting_up() -> None:
    text = """
id = "many"
bus = [{ id = "line", kind = "dlt645" }]
[[device]]
id = "meter"
count = 12
type = "meter/electricity_three_phase"
bus = "line"
address = "000000000099"
"""
    devices = parse_scene(text, "t.toml").device
    assert [device.id for device in devices[:2]] == ["meter-01", "meter-02"]
    assert [device.address for device in (devices[0], devices[1], devices[11])] == [
        "000000000099", "000000000100", "000000000110",
    ]  # fmt: skip
    clash = (
        text + '[[device]]\nid = "x"\ntype = "meter/electricity_three_phase"\nbus = "line"\naddress = "000000000105"\n'
    )
    with pytest.raises(ConfigError, match="device x: address 000000000105 is used twice on line"):
        parse_scene(clash, "t.toml")


def test_unreadable_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: cannot read the scene"):
        load_scene(tmp_path / "no.toml")


@pytest.mark.parametrize("path", SCENES, ids=lambda path: path.stem)
def test_shipped_scene_is_good(path: Path) -> None:
    assert load_scene(path).id == path.stem


def test_district_has_what_the_demonstration_needs() -> None:
    scene = load_scene(ROOT / "firmware-sim" / "scenes" / "district.toml", {"hj212_connect": "10.0.0.1:9001"})
    devices = {device.id: device for device in scene.device}
    assert {"site-1-dust", "site-1-noise", "site-1-crane", "gas-01", "gas-02", "gas-main-1"} < set(devices)
    meters = [devices[f"meter-{n:02d}"] for n in range(1, 33)]
    assert [meter.address for meter in meters] == [f"{100 + n:012d}" for n in range(1, 33)]
    assert [devices[name].address for name in ("site-1-noise", "gas-01", "gas-02", "gas-main-1")] == [4, 11, 12, 21]
    assert [bus.connect for bus in scene.bus if bus.kind == "hj212-client"] == ["10.0.0.1:9001"]
    assert scene.cameras_on("lane-rtsp")[0].actors[0].clear_width_m == 2.4
