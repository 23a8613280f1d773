"""What the extra items behind a position mean: the standard's own, those of JT/T 1078, and what makers add.

Makers' items are read only where their length fits what captures showed; everything else stays as it came. Names are
those of the published vectors; raw numbers keep the unit of the wire where the vectors do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Said = dict[str, Any]
_NUMBER = re.compile(r"\d{1,7}(\.\d{1,4})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Meaning:
    name: str
    zh: str
    en: str
    read: Callable[[bytes], Said]


def _u(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _sized(name: str, *sizes: int) -> Callable[[bytes], Said]:
    """An unsigned number, if it has one of these sizes (standard items come with other lengths from some makers)."""
    return lambda data: {name: _u(data)} if len(data) in sizes else {}


def _overspeed(data: bytes) -> Said:
    if not data:
        return {}
    said: Said = {"overspeed_area_type": data[0]}
    return said | {"overspeed_area_id": _u(data[1:5])} if data[0] and len(data) >= 5 else said


def _area(data: bytes) -> Said:
    if len(data) != 6:
        return {}
    return {"area_type": data[0], "area_id": _u(data[1:5]), "area_direction": data[5]}


def _segment(data: bytes) -> Said:
    if len(data) != 7:
        return {}
    return {"route_id": _u(data[:4]), "route_time_s": _u(data[4:6]), "route_result": data[6]}


def _analog(data: bytes) -> Said:
    return {"analog": [_u(data[2:]), _u(data[:2])]} if len(data) == 4 else {}  # low word first: AD0, AD1


def _tyres(data: bytes) -> Said:
    return {"tyre_pressures": [None if one == 0xFF else one for one in data]} if len(data) == 30 else {}


def _cabin(data: bytes) -> Said:
    if len(data) == 1:
        return {"battery_percent": data[0]}  # a maker's own use of the id
    return {"cabin_temperature": int.from_bytes(data, "big", signed=True)} if len(data) == 2 else {}


def _safety(data: bytes) -> Said:
    if len(data) < 6:
        return {}
    return {"alarm_id": _u(data[:4]), "alarm_state": data[4], "alarm_kind": data[5]}


def _tenths_signed(data: bytes) -> Said:
    """Sign and magnitude, 0.1 degree, FFFF none: one or eight probes."""
    if len(data) not in (2, 16):
        return {}
    words = [_sign_magnitude(_u(data[at : at + 2])) for at in range(0, len(data), 2)]
    return {"temperatures": words, **{f"temp{n}": word for n, word in enumerate(words, 1) if word is not None}}


def _sign_magnitude(word: int) -> float | None:
    if word == 0xFFFF:
        return None
    return (-(word & 0x7FFF) if word & 0x8000 else word) / 10


def _e1(data: bytes) -> Said:
    if len(data) == 1:
        return {"battery_percent": data[0]} if data[0] != 0xFF else {"charging": True}
    return {"power_v": _u(data) / 10} if len(data) == 2 else {}


def _percent(data: bytes) -> Said:
    return {"battery_percent": data[0]} if len(data) == 1 and data[0] <= 100 else {}


def _e3(data: bytes) -> Said:
    """State, percent, 0.01 V, two bytes more."""
    return {"battery_percent": data[1], "battery_v": _u(data[2:4]) / 100} if len(data) == 6 and data[1] <= 100 else {}


def _f6(data: bytes) -> Said:
    """Event, mask, then what the mask says: light u16, temperature and humidity (two's complement, 0.1), three
    accelerations."""
    if len(data) < 4 or len(data) == 8:
        return {}
    said: Said = {"event": data[0]}
    at = 2
    for bit, name, per in ((0, "light", 1), (1, "temp1", 10), (2, "humidity", 10)):
        if data[1] >> bit & 1 and at + 2 <= len(data):
            value = int.from_bytes(data[at : at + 2], "big", signed=bit > 0)
            said[name] = value / per if per > 1 else value
            at += 2
    return said


def _tyre_items(data: bytes) -> Said:
    """Number u8, sensor 3 bytes, pressure in the low ten bits (1/40 bar), temperature u8 from -50, state u8."""
    if not data or len(data) % 8:
        return {}
    rows = [data[at : at + 8] for at in range(0, len(data), 8)]
    return {
        "tyres": [
            {"tyre": row[0], "sensor": row[1:4].hex(), "pressure": (_u(row[4:6]) & 0x3FF) / 40,
             "temperature": row[6] - 50, "state": row[7]}
            for row in rows
        ]
    }  # fmt: skip


def _text(name: str) -> Callable[[bytes], Said]:
    def read(data: bytes) -> Said:
        said = data.rstrip(b"\0 ").decode("gb18030", "replace")
        return {name: said} if said and said.isprintable() else {}

    return read


#: Fields of a "$OBD-RT" line, in their order.
_ENGINE = (
    "power_v", "rpm", "obd_speed_kmh", "throttle_percent", "engine_load_percent", "coolant_c", "consumption_now",
    "consumption", "trip_km", "obd_mileage_km", "trip_fuel_l", "fuel_used_l",
)  # fmt: skip


def _engine(data: bytes) -> Said:
    head, *fields = data.decode("latin-1").strip("\r\n\0 ").split(",")
    if head != "$OBD-RT":
        return {}
    said: Said = {}
    for name, field in zip(_ENGINE, fields, strict=False):
        if _NUMBER.fullmatch(field):
            said[name] = float(field)
    return said


def transparent(data: bytes) -> Said:
    """What 0900 carries from a serial line, as far as it is known; other text as ``text``."""
    return _engine(data) or _text("text")(data.rstrip(b"\r\n"))


def _e4(data: bytes) -> Said:
    return {"charging": data[0] == 0, "battery_percent": data[1]} if len(data) == 2 and data[1] <= 100 else {}


def _nested(data: bytes) -> Said:
    """Items of length u16 (id and value), id u16, value; from field captures. Some send a time zone as text."""
    if data[:3] in (b"UTC", b"GMT"):
        return _text("timezone")(data)
    said: Said = {}
    items: list[Said] = []
    at = 0
    while at + 4 <= len(data):
        size = _u(data[at : at + 2])
        if size < 2 or at + 2 + size > len(data):
            break
        item, value = _u(data[at + 2 : at + 4]), data[at + 4 : at + 2 + size]
        items.append({"id": f"0x{item:04X}", "hex": value.hex()})
        if item == 0x002D and len(value) == 2:
            said["battery_v"] = _u(value) / 1000
        elif item == 0x002D and len(value) == 4:
            said["power_v"] = _u(value) / 1000
        elif item == 0x00B2 and len(value) == 10:
            said["iccid"] = value.hex().rstrip("f")
        elif item == 0x00D5 and len(value) == 15:
            said["imei"] = value.decode("ascii", "replace")
        elif item == 0x0001 and len(value) == 3:
            said["fuel1"] = _u(value[:2]) / 10
        elif item == 0x0023 and _NUMBER.fullmatch(value.decode("latin-1")):
            said["fuel2"] = float(value)
        elif item in (0x00A8, 0x00E1) and len(value) == 1:
            said["battery_percent"] = value[0]
        elif item == 0x00CE and len(value) == 2:
            said["power_v"] = _u(value) / 100
        at += 2 + size
    return said | {"nested": items} if items and at == len(data) else {}


def _percent_of_ten(data: bytes) -> Said:
    return {"battery_percent": data[0] * 10} if len(data) == 2 and data[0] <= 10 else {}


def _volts(name: str, per_volt: float) -> Callable[[bytes], Said]:
    return lambda data: {name: _u(data) / per_volt} if len(data) == 2 else {}


MEANINGS: dict[int, Meaning] = {
    # JT/T 808-2019, table 27
    0x01: Meaning("mileage", "里程 0.1 km", "mileage, 0.1 km", _sized("mileage", 4)),
    0x02: Meaning("oil", "油量 0.1 L", "fuel, 0.1 L", _sized("oil", 2)),
    0x03: Meaning("recorder_speed", "记录仪速度 0.1 km/h", "recorder speed, 0.1 km/h", _sized("recorder_speed", 2)),
    0x04: Meaning("event_id", "需人工确认的报警事件", "alarm event to be confirmed", _sized("event_id", 2)),
    0x05: Meaning("tyre_pressures", "胎压", "tyre pressures", _tyres),
    0x06: Meaning("cabin_temperature", "车厢温度", "cabin temperature", _cabin),
    0x11: Meaning("overspeed", "超速报警", "overspeed", _overspeed),
    0x12: Meaning("area", "进出区域", "area entered or left", _area),
    0x13: Meaning("segment", "路段行驶时间", "time on a segment", _segment),
    0x25: Meaning("signals", "车辆信号", "vehicle signals", _sized("signals", 4)),
    0x2A: Meaning("io", "IO 状态", "IO state", _sized("io", 2)),
    0x2B: Meaning("analog", "模拟量", "analogue inputs", _analog),
    0x30: Meaning("rssi", "信号强度", "signal strength", _sized("rssi", 1)),
    0x31: Meaning("satellites", "卫星数", "satellites", _sized("satellites", 1)),
    # JT/T 1078-2016, table 13
    0x14: Meaning("video_alarm", "视频报警", "video alarms", _sized("video_alarm", 4)),
    0x15: Meaning("signal_loss", "视频信号丢失通道", "channels without signal", _sized("signal_loss", 4)),
    0x16: Meaning("signal_cover", "视频信号遮挡通道", "channels covered", _sized("signal_cover", 4)),
    0x17: Meaning("memory_fault", "存储器故障", "memory fault", _sized("memory_fault", 2)),
    0x18: Meaning("abnormal_driving", "异常驾驶行为", "abnormal driving", _sized("abnormal_driving", 2, 3)),
    # active safety (T/JSATL 12, "Su-biao")
    0x64: Meaning("adas", "高级驾驶辅助报警", "driver assistance alarm", _safety),
    0x65: Meaning("dsm", "驾驶员状态报警", "driver state alarm", _safety),
    0x66: Meaning("tpms", "胎压监测报警", "tyre alarm", _safety),
    0x67: Meaning("bsd", "盲区监测报警", "blind spot alarm", _safety),
    # makers', from field captures
    0x51: Meaning("temperatures", "温度探头", "temperature probes", _tenths_signed),
    0x56: Meaning("battery", "电池", "battery", _percent_of_ten),
    0x77: Meaning("tyres", "胎压传感器", "tyre sensors", _tyre_items),
    0x82: Meaning("power", "外接电源", "supply", _volts("power_v", 10)),
    0xBC: Meaning("driver", "驾驶员", "driver", _text("driver")),
    0xBD: Meaning("driver_id", "驾驶员编号", "driver's number", _text("driver_id")),
    0xD4: Meaning("battery", "电池电量", "battery level", _percent),
    0xD5: Meaning("battery", "电池电压", "battery voltage", _volts("battery_v", 100)),
    0xE3: Meaning("battery", "电池", "battery", _e3),
    0xE6: Meaning("engine", "发动机数据", "engine data", _engine),
    0xE9: Meaning("battery", "电池电量", "battery level", _percent),
    0xF1: Meaning("power", "外接电源", "supply", lambda data: {"power_v": _u(data) / 1000} if len(data) == 4 else {}),
    0xF6: Meaning("sensors", "传感器", "sensors", _f6),
    0xFE: Meaning("battery", "电池电量", "battery level", _percent),
    0x61: Meaning("power", "外接电源", "supply", _volts("power_v", 100)),
    0x69: Meaning("battery", "电池电压", "battery voltage", _volts("battery_v", 100)),
    0xE1: Meaning("power", "外接电源", "supply", _e1),
    0xE4: Meaning("battery", "电池", "battery", _e4),
    0xEB: Meaning("nested", "厂家嵌套项", "maker's nested items", _nested),
}


def meaning(item: int, value: bytes) -> Said:
    """What is known of an item; empty where its length says that it is something else."""
    known = MEANINGS.get(item)
    return known.read(value) if known else {}


def vendor(extras: tuple[tuple[int, bytes], ...]) -> Said:
    """All items of a position together. The first to name something wins."""
    said: Said = {}
    for item, value in extras:
        said = meaning(item, value) | said
    return said
