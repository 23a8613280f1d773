"""Device types: every file is whole, every point reads back from a simulated device, wrong files are named."""

from __future__ import annotations

from decimal import Decimal

import pytest

from protocols import devices
from protocols.core.errors import ConfigError
from protocols.devices import DeviceType, Point
from protocols.dlt645.values import decode as decode_di
from protocols.dlt645.values import encode as encode_di
from protocols.dlt645.values import lookup
from protocols.modbus import points as modbus_points
from protocols.modbus.orders import target
from protocols.modbus.plan import Plan

TYPES = devices.all_types()
ALL_POINTS = [pytest.param(kind, point, id=f"{kind.id}/{point.name}") for kind in TYPES for point in kind.points]

#: What this issue promises: type -> points (rules, stories and scenes name them).
PROMISED = {
    "env/dust_station": "pm10 pm25 tsp wind_speed wind_dir temperature humidity",
    "env/noise_meter": "laeq lamax status",
    "crane/tower_crane": "load moment_pct radius angle height wind_speed",
    "gas/combustible": "ch4_lel status temperature",
    "gas/main_pressure": "pressure",
    "water/main_pressure": "pressure flow",
    "meter/electricity_three_phase": "energy_active voltage_a voltage_b voltage_c current_a current_b current_c "
    "power_active power_factor frequency",
}


def test_promised_types_and_points() -> None:
    found = {kind.id: {point.name for point in kind.points} for kind in TYPES}
    promised = {type_id: set(names.split()) for type_id, names in PROMISED.items()}
    assert {type_id: found.get(type_id) for type_id in promised} == promised


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.id)
def test_type_is_described(kind: DeviceType) -> None:
    assert kind.zh.strip() and kind.en.strip()
    assert len(kind.provenance) > 20  # where its map comes from, and whether a real one was ever asked
    assert any("一" <= char <= "鿿" for char in kind.zh)


@pytest.mark.parametrize(("kind", "point"), ALL_POINTS)
def test_point_reads_back(kind: DeviceType, point: Point) -> None:
    """A value in the middle of the range, at the point's resolution, survives encoding and decoding."""
    low, high = point.range
    middle = round(low + (high - low) / 3, point.decimals)
    if point.modbus is not None:
        value, _ = modbus_points.decode(modbus_points.encode(middle, point), point)
        rounding = 1e-7 if point.modbus.kind == "f32" else 0.0
        assert float(value) == pytest.approx(middle, abs=10**-point.decimals * 0.51, rel=rounding)
    elif point.dlt645 is not None:
        form = lookup(point.dlt645.di)
        assert form is not None
        if form.kind != "number":
            assert point.dlt645.bit is not None or form.kind == "demand"
            return
        assert (form.unit, form.decimals) == (point.unit, point.decimals)
        number = Decimal(str(middle))
        (value_back,) = decode_di(point.dlt645.di, encode_di(point.dlt645.di, [number])) or []
        assert value_back.number == number
    elif point.value is not None:
        raw = (middle - point.value.offset) / point.value.factor
        assert raw * point.value.factor + point.value.offset == pytest.approx(middle)
    else:
        assert point.hj212 is not None
        assert float(f"{middle / point.hj212.scale:.6f}") * point.hj212.scale == pytest.approx(middle)


@pytest.mark.parametrize("kind", [k for k in TYPES if k.protocol == "modbus"], ids=lambda kind: kind.id)
def test_range_fits_the_registers_and_the_map_one_request(kind: DeviceType) -> None:
    for point in kind.points:
        for limit in point.range:
            value, quality = modbus_points.decode(modbus_points.encode(limit, point), point)
            if point.modbus is not None and point.modbus.kind.startswith(("u", "i")):
                invalid = quality != 0
                assert invalid or float(value) == pytest.approx(limit, abs=10**-point.decimals)
    blocks = Plan(kind.points).blocks
    assert len(blocks) == 1 or kind.id not in PROMISED
    assert sum(len(block.points) for block in blocks) == len(kind.points)
    assert len(blocks) <= 1 + len(kind.points) // 3  # a map torn into single reads is a typing error
    for command in kind.commands:
        assert target(command, kind)


GOOD = """
[device]
id = "env/test"
zh = "测试"
en = "Test"
protocol = "modbus"
provenance = "simulated"
[[point]]
name = "laeq"
unit = "dB"
decimals = 1
range = [20.0, 150.0]
modbus = { function = 3, address = 0, factor = 0.1 }
"""


def parse(text: str) -> DeviceType:
    return devices.parse(text, type_id="env/test", where="env/test.toml")


def test_a_good_file() -> None:
    kind = parse(GOOD)
    assert kind.point("laeq").unit == "dB"
    with pytest.raises(KeyError, match="lamax"):
        kind.point("lamax")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "env/test"', 'id = "env/other"', "device.id"),
        ('name = "laeq"', 'name = "LAeq"', "snake_case"),
        ("range = [20.0, 150.0]", "range = [150.0, 20.0]", "range"),
        ("decimals = 1", "decimals = 9", "decimals"),
        ("decimals = 1", "decimal = 1", "decimal"),
        ("address = 0", "address = 65536", "address"),
        ("address = 0", 'address = "0"', "address"),
        ("factor = 0.1", "factor = 0", "factor"),
        ("factor = 0.1", 'kind = "u24"', "u24"),
        ("factor = 0.1", 'order = "DCAB"', "DCAB"),
        ("function = 3", "function = 1", "bool"),
        ("function = 3", "function = 6", "function"),
        ('protocol = "modbus"', 'protocol = "hj212"', "hj212"),
        ("modbus = { function = 3, address = 0, factor = 0.1 }", 'dlt645 = { di = "02010100" }', "modbus"),
        ("[[point]]", "[point]", "point"),
        ("[device]", "[device", "env/test.toml"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=message) as error:
        parse(GOOD.replace(old, new, 1))
    assert "env/test.toml" in str(error.value)


def test_a_name_used_twice() -> None:
    with pytest.raises(ConfigError, match="used twice"):
        parse(GOOD + GOOD[GOOD.index("[[point]]") :])


@pytest.mark.parametrize("type_id", ["env/nothing", "nothing", "../env/noise_meter", "env/noise_meter/x", ""])
def test_unknown_types_are_refused(type_id: str) -> None:
    with pytest.raises(ConfigError):
        devices.load(type_id)
