"""Items of a report (commands 02 and 03): one type byte each, then what the tables here say; types differ by issue.

Items come in any order and more than once. Only vendor items (80 to FE) say their length; behind an item that nobody
knows nothing can be found but, in the 2025 issue, the signature that closes the data. What was read is kept, the rest
stays raw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from protocols.core.errors import LocalProtocolError
from protocols.gb32960.fields import (
    Array,
    Block,
    Codes,
    Degrees,
    Flags,
    Form,
    Gear,
    Group,
    Num,
    Overrun,
    Reader,
    Unscaled,
    Values,
    Word,
    read_all,
    write_all,
)

Edition = Literal["2016", "2025"]
SIGNATURE = 0xFF

_ON_OFF = {1: "on", 2: "off"}
_MOTOR_STATE = {1: "consuming", 2: "generating", 3: "off", 4: "ready"}


def _temp(name: str) -> Num:
    return Num(name, 1, 1, -40)


def _plain(name: str, size: int = 1) -> Num:
    return Num(name, size, plain=True)


def _vehicle(current_offset: int, *, positions: bool) -> tuple[Form, ...]:
    return (
        Word("state", {1: "on", 2: "off", 3: "other"}),
        Word("charge", {1: "parked_charging", 2: "driving_charging", 3: "not_charging", 4: "charge_complete"}),
        Word("mode", {1: "electric", 2: "hybrid", 3: "fuel"}),
        Num("speed_kmh", 2, 0.1),
        Num("mileage_km", 4, 0.1),
        Num("voltage_v", 2, 0.1),
        Num("current_a", 2, 0.1, current_offset),
        Num("soc"),
        Word("dcdc", _ON_OFF),
        Gear(positions=positions),
        Num("insulation_kohm", 2),
    )


_ALARM: tuple[Form, ...] = (
    Num("level"),
    Flags(),
    Codes("battery_faults"),
    Codes("motor_faults"),
    Codes("engine_faults"),
    Codes("other_faults"),
)
_CELL = Num("", 2, 0.001)
_RAW2, _RAW1 = _plain("", 2), _plain("")
_TEMPS: tuple[Form, ...] = (_plain("no"), Array("temps_c", 2, _temp(""), "n"))

Table = dict[int, tuple[str, tuple[Form, ...]]]

#: GB/T 32960.3-2016, 7.2.3: type -> name, fields.
ITEMS_2016: Table = {
    0x01: ("vehicle", (*_vehicle(-1000, positions=False), Num("accel_pct"), Num("brake_pct"))),
    0x02: ("motor", (Group("motors", (
        _plain("no"), Word("state", _MOTOR_STATE), _temp("controller_temp_c"), Num("speed_rpm", 2, 1, -20000),
        Num("torque_nm", 2, 0.1, -2000), _temp("temp_c"), Num("voltage_v", 2, 0.1), Num("current_a", 2, 0.1, -1000),
    ), 12),)),
    0x03: ("fuel_cell", (
        Num("voltage_v", 2, 0.1), Num("current_a", 2, 0.1), Num("fuel_rate_kg_100km", 2, 0.01),
        Array("probe_temps_c", 2, _temp("")), Num("h2_max_temp_c", 2, 0.1, -40), Num("h2_max_temp_probe"),
        Num("h2_max_conc_ppm", 2), Num("h2_max_conc_sensor"), Num("h2_max_pressure_mpa", 2, 0.1),
        Num("h2_max_pressure_sensor"), Word("dcdc", _ON_OFF),
    )),
    0x04: ("engine", (Word("state", _ON_OFF), Num("crank_rpm", 2), Num("fuel_l_100km", 2, 0.01))),
    0x05: ("position", (_plain("status"), Degrees())),
    0x06: ("extremes", (
        Num("max_v_pack"), Num("max_v_cell"), Num("max_v", 2, 0.001), Num("min_v_pack"), Num("min_v_cell"),
        Num("min_v", 2, 0.001), Num("max_t_pack"), Num("max_t_probe"), _temp("max_t_c"), Num("min_t_pack"),
        Num("min_t_probe"), _temp("min_t_c"),
    )),
    0x07: ("alarm", _ALARM),
    0x08: ("cell_voltages", (Group("subsystems", (
        _plain("no"), Num("voltage_v", 2, 0.1), Num("current_a", 2, 0.1, -1000), Num("cells_total", 2),
        Num("start", 2), Array("cells_v", 1, _CELL, "n"),
    ), 10),)),
    0x09: ("probe_temps", (Group("subsystems", _TEMPS, 3),)),
}  # fmt: skip

#: The 2025 issue renumbers alarm and lists; ``raw``: the scaling of new fields is not confirmed.
ITEMS_2025: Table = {
    0x01: ("vehicle", _vehicle(-3000, positions=True)),
    0x02: ("motor", (Group("motors", (
        _plain("no"), Word("state", _MOTOR_STATE), _temp("controller_temp_c"), Num("speed_rpm", 2, 1, -32000),
        Num("torque_nm", 4, 0.1, -20000), _temp("temp_c"),
    ), 10),)),
    0x03: ("fuel_cell", (Unscaled((
        _plain("h2_max_temp", 2), _plain("h2_max_temp_probe"), _plain("h2_max_conc", 2), _plain("h2_max_conc_sensor"),
        _plain("h2_max_pressure", 2), _plain("h2_max_pressure_sensor"), _plain("dcdc"), _plain("remaining_h2"),
        _plain("dcdc_temp"),
    )),)),
    0x04: ("engine", (Num("crank_rpm", 2),)),
    0x05: ("position", (_plain("status"), Word("datum", {1: "wgs84", 2: "gcj02", 3: "other"}), Degrees())),
    0x06: ("alarm", (*_ALARM, Group("flag_levels", (_plain("flag"), _plain("level")), 2))),
    0x07: ("cell_voltages", (Group("subsystems", (
        _plain("no"), Num("voltage_v", 2, 0.1), Num("current_a", 2, 0.1, -3000), Array("cells_v", 2, _CELL, "n"),
    ), 7),)),
    0x08: ("probe_temps", (Group("subsystems", _TEMPS, 3),)),
    0x30: ("fuel_cell_stacks", (Unscaled((Group("stacks", (
        _plain("no"), _plain("voltage", 2), _plain("current", 2), _plain("h2_pressure", 2), _plain("air_pressure", 2),
        _plain("air_temp"), Array("temps", 2, _RAW1),
    ), 12),)),)),
    0x31: ("supercapacitor", (Unscaled((
        _plain("no"), _plain("voltage", 2), _plain("current", 2), Array("cells", 2, _RAW2), Array("temps", 2, _RAW1),
    )),)),
    0x32: ("supercapacitor_extremes", (Unscaled((
        _plain("max_v_system"), _plain("max_v_cell", 2), _plain("max_v", 2), _plain("min_v_system"),
        _plain("min_v_cell", 2), _plain("min_v", 2), _plain("max_t_system"), _plain("max_t_probe", 2),
        _plain("max_t"), _plain("min_t_system"), _plain("min_t_probe", 2), _plain("min_t"),
    )),)),
    SIGNATURE: ("signature", (
        Word("algo", {1: "sm2", 2: "rsa", 3: "ecc"}), Block("r", "r_len"), Block("s", "s_len"),
    )),
}  # fmt: skip
_TABLES: dict[str, Table] = {"2016": ITEMS_2016, "2025": ITEMS_2025}
_VENDOR: tuple[Form, ...] = (Block("hex", "len"),)


@dataclass(frozen=True, slots=True)
class Item:
    """One item. ``body``: its bytes behind the type byte; ``values``: what they say, with the words "invalid" and
    "abnormal" where there is no number."""

    type: int
    name: str
    body: bytes
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        return bytes((self.type,)) + self.body


def _forms(kind: int, edition: Edition) -> tuple[str, tuple[Form, ...]] | None:
    known = _TABLES[edition].get(kind)
    return ("oem", _VENDOR) if known is None and 0x80 <= kind <= 0xFE else known


def forms_of(kind: int, edition: Edition) -> tuple[Form, ...] | None:
    """The fields of an item, None for a type nobody knows."""
    known = _forms(kind, edition)
    return None if known is None else known[1]


def name_of(kind: int, edition: Edition) -> str:
    """The name of an item, "" for a type nobody knows."""
    known = _forms(kind, edition)
    return "" if known is None else known[0]


def item(kind: int, values: Mapping[str, Any], edition: Edition = "2016") -> Item:
    """An item to send; what ``values`` leave out is sent as invalid. Raises LocalProtocolError."""
    known = _forms(kind, edition)
    if known is None:
        raise LocalProtocolError(f"GB/T 32960-{edition} has no item {kind:#04x}", reason="item")
    body = write_all(known[1], values)
    return Item(kind, known[0], body, read_all(known[1], Reader(body)))


def read_body(kind: int, body: bytes, edition: Edition = "2016") -> Values | None:
    """What one item's bytes (without the type byte) say; None if they are too few or nobody knows the type."""
    known = _forms(kind, edition)
    if known is None:
        return None
    try:
        return read_all(known[1], Reader(body))
    except Overrun:
        return None


def parse_items(data: bytes, edition: Edition = "2016") -> tuple[tuple[Item, ...], bytes]:
    """The items, and the bytes that could not be read as such."""
    out: list[Item] = []
    at = 0
    while at < len(data):
        found = _one(data, at, edition)
        if found is None:
            break
        out.append(found)
        at += 1 + len(found.body)
    rest = data[at:]
    if rest and edition == "2025" and (sign := _signature_at(rest)) is not None:
        found = _one(rest, sign, edition)
        if found is not None:
            return (*out, found), rest[:sign]
    return tuple(out), rest


def _one(data: bytes, at: int, edition: Edition) -> Item | None:
    known = _forms(data[at], edition)
    if known is None:
        return None
    source = Reader(data, at + 1)
    try:
        values = read_all(known[1], source)
    except Overrun:
        return None
    return Item(data[at], known[0], data[at + 1 : source.at], values)


def _signature_at(rest: bytes) -> int | None:
    """Where a signature begins that ends exactly with the data; unknown bytes were seen before it."""
    at = rest.find(SIGNATURE)
    while at >= 0:
        found = _one(rest, at, "2025")
        if (
            found is not None
            and at + 1 + len(found.body) == len(rest)
            and found.values["algo"] in ("sm2", "rsa", "ecc")
        ):
            return at
        at = rest.find(SIGNATURE, at + 1)
    return None


def join(items: Sequence[Item]) -> bytes:
    """The bytes of several items."""
    return b"".join(one.data for one in items)


#: Bits of the alarm word: zh, en. 0-18 of the 2016 issue, 19-27 of the 2025 issue.
ALARM_BITS: tuple[tuple[str, str], ...] = (
    ("温度差异报警", "temperature spread"), ("电池高温报警", "battery hot"), ("车载储能装置过压", "pack over-voltage"),
    ("车载储能装置欠压", "pack under-voltage"), ("SOC低报警", "SOC low"), ("单体电池过压", "cell over-voltage"),
    ("单体电池欠压", "cell under-voltage"), ("SOC过高报警", "SOC high"), ("SOC跳变报警", "SOC jump"),
    ("可充电储能系统不匹配", "battery mismatch"), ("电池单体一致性差", "cell inconsistency"),
    ("绝缘报警", "insulation"), ("DC-DC温度报警", "DC/DC temperature"), ("制动系统报警", "brakes"),
    ("DC-DC状态报警", "DC/DC state"), ("驱动电机控制器温度", "motor controller hot"),
    ("高压互锁状态报警", "HV interlock"), ("驱动电机温度", "motor hot"), ("车载储能装置过充", "over-charge"),
    ("驱动电机超速", "motor overspeed"), ("驱动电机过流", "motor over-current"),
    ("超级电容过温", "super-capacitor hot"), ("超级电容过压", "super-capacitor over-voltage"),
    ("热事件报警", "thermal event"), ("氢气泄漏", "hydrogen leak"), ("氢系统压力异常", "hydrogen pressure"),
    ("氢系统温度异常", "hydrogen temperature"), ("燃料电池堆超温", "stack hot"),
)  # fmt: skip
