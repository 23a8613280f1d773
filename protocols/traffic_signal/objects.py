"""The objects of GB/T 20999-2017: which value an address holds, in what form, what it is called.

One row per class.object.attribute (a table's row number is the element). Numbers are big-endian; code lists are hex as
in the standard's tables. From the fact sheet (frames of one vendor's controller and two public sources); what two
makers label differently is said so. Unknown addresses come out as raw bytes, never as an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from protocols.traffic_signal.messages import Address, Item

LAMPS = {
    0x01: "off", 0x10: "red", 0x11: "red_flash", 0x12: "red_fast_flash", 0x20: "green", 0x21: "green_flash",
    0x22: "green_fast_flash", 0x30: "yellow", 0x31: "yellow_flash", 0x32: "yellow_fast_flash", 0x40: "red_yellow",
}  # fmt: skip
LAMP_TYPES = {
    1: "vehicle", 2: "cycle", 3: "pedestrian", 4: "lane", 5: "variable_sign", 6: "bus", 7: "tram", 8: "special",
}  # fmt: skip
DETECTOR_TYPES = {1: "loop", 2: "video", 3: "geomagnetic", 4: "microwave", 5: "ultrasonic", 6: "infrared"}
VEHICLES = {1: "small", 2: "medium", 3: "large", 4: "bus", 5: "tram", 6: "special"}
LINKS = {1: "tcp", 2: "udp", 3: "rs232"}
STAGE_STATES = {0x10: "no_right_of_way", 0x20: "running", 0x30: "transition"}
STAGE_TYPES = {0x10: "fixed", 0x20: "on_demand"}
MODES = {
    0x10: "centre", 0x11: "centre_timetable", 0x12: "centre_optimised", 0x13: "centre_coordination",
    0x14: "centre_adaptive", 0x15: "centre_manual", 0x20: "local", 0x21: "local_fixed_cycle", 0x22: "local_actuated",
    0x23: "local_coordination", 0x24: "local_adaptive", 0x25: "local_manual", 0x30: "special",
    0x31: "yellow_flash", 0x32: "all_red", 0x33: "lamps_off",
}  # fmt: skip
ALARM_TYPES = {0x10: "lamp", 0x30: "detector", 0x40: "device", 0x60: "environment"}
ALARM_VALUES = {
    **dict.fromkeys(range(0x10, 0x14), "voltage"), **dict.fromkeys(range(0x20, 0x23), "temperature"),
    **dict.fromkeys(range(0x30, 0x33), "humidity"), 0x40: "smoke", 0x50: "vibration", 0x60: "water",
    **dict.fromkeys(range(0x70, 0x79), "door"),
}  # fmt: skip
FAULT_TYPES = {
    0x10: "green_conflict", 0x11: "red_and_green", 0x20: "red_lamp", 0x21: "yellow_lamp", 0x22: "green_lamp",
    0x30: "communication", 0x40: "self_test", 0x41: "detector", 0x42: "relay", 0x43: "memory", 0x44: "clock",
    0x45: "main_board", 0x46: "phase_board", 0x47: "detector_board", 0x50: "configuration", 0x70: "control_answer",
}  # fmt: skip
FAULT_ACTIONS = {
    0x00: "none", 0x10: "yellow_flash", 0x20: "off", 0x30: "all_red", 0x40: "fixed_cycle", 0x50: "coordinated",
    0x60: "actuated",
}  # fmt: skip
#: Object 18.1, one byte per crossing.
PIPE_COMMANDS = {0: "cancel", 1: "yellow_flash", 2: "all_red", 3: "on", 4: "off", 5: "restart"}
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
#: Periods of a day plan.
PERIODS = 48


def number(data: bytes) -> int | None:
    """An unsigned big-endian number of one to eight bytes."""
    return int.from_bytes(data, "big") if 1 <= len(data) <= 8 else None


def text(data: bytes) -> str:
    """NUL-filled text: UTF-8 at the makers seen, GBK possible elsewhere."""
    data = data.rstrip(b"\0")
    for encoding in ("utf-8", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def moment(data: bytes) -> str | None:
    """Year u16, month, day, hour, minute, second, plain binary. None for what is no time (an unset clock)."""
    if len(data) != 7:
        return None
    try:
        return datetime(int.from_bytes(data[:2], "big"), *data[2:]).isoformat()
    except ValueError:
        return None


def moment_bytes(time: datetime) -> bytes:
    return time.year.to_bytes(2, "big") + bytes((time.month, time.day, time.hour, time.minute, time.second))


def bits(data: bytes) -> list[int]:
    """Members of a map: bit 0 of the LAST byte is number 1."""
    value = int.from_bytes(data, "big")
    return [n + 1 for n in range(8 * len(data)) if value >> n & 1]


def bits_bytes(members: list[int], width: int = 8) -> bytes:
    return sum(1 << n - 1 for n in set(members)).to_bytes(width, "big")


def chain(data: bytes) -> list[int]:
    """A chain is filled from the END: its first entry is the last byte. Zeros behind the last entry fall away."""
    out = list(reversed(data))
    while out and out[-1] == 0:
        out.pop()
    return out


def chain_words(data: bytes) -> list[int]:
    """The same of u16 (stage seconds)."""
    out = [int.from_bytes(data[at : at + 2], "big") for at in range(len(data) - 2, -1, -2)]
    while out and out[-1] == 0:
        out.pop()
    return out


def chain_bytes(entries: list[int], width: int = 1, size: int = 16) -> bytes:
    filled = [*entries, *([0] * (size - len(entries)))]
    return b"".join(entry.to_bytes(width, "big") for entry in reversed(filled))


Form = Callable[[bytes], Any]


def _ip(data: bytes) -> str | None:
    if len(data) == 16:
        return ":".join(data[at : at + 2].hex() for at in range(0, 16, 2))
    return ".".join(map(str, data)) if len(data) == 4 else None


def _signed(data: bytes) -> int | None:
    return int.from_bytes(data, "big", signed=True) if 1 <= len(data) <= 8 else None


def _version(data: bytes) -> Any:
    if len(data) != 4:
        return None
    return {"hardware": int.from_bytes(data[:2], "big"), "software": int.from_bytes(data[2:], "big")}


def _pairs(data: bytes) -> list[str]:
    """Start times of a day plan: hour, minute; filled from the END like every chain, up to the first repeat of
    00:00."""
    out = [f"{data[at]:02d}:{data[at + 1]:02d}" for at in range(len(data) - 2, -1, -2)]
    while len(out) > 1 and out[-1] == "00:00":
        out.pop()
    return out


def _weekdays(data: bytes) -> list[str]:
    return [name for n, name in enumerate(WEEKDAYS) if data and data[-1] >> n & 1]


def _months(data: bytes) -> list[int]:
    value = int.from_bytes(data, "big")
    return [n for n in range(1, 13) if value >> n & 1]  # bit 1 January; bit 0 has no use


def _tenths(data: bytes) -> float | None:
    value = number(data)
    return None if value is None else value / 10


def _code(names: Mapping[int, str]) -> Form:
    def read(data: bytes) -> str | int | None:
        value = number(data)
        return None if value is None else names.get(value, value)

    return read


@dataclass(frozen=True, slots=True)
class Object:
    """``name``: of the value, units in it; ``unit`` s where it is a duration in seconds. ``width``: bytes a controller
    should send (0: any)."""

    name: str
    form: Form
    zh: str
    width: int = 0
    unit: str = ""


OBJECTS: dict[tuple[int, int, int], Object] = {}


def _row(address: str, name: str, form: Form, zh: str, width: int = 0, unit: str = "") -> None:
    cls, obj, attr = (int(part) for part in address.split("."))
    OBJECTS[cls, obj, attr] = Object(name, form, zh, width, unit)


for _address, _name, _form, _zh, _width in (
    # -- 1 device, 2 basics
    ("1.1.0", "maker", text, "制造厂商", 0), ("1.2.0", "device_version", _version, "设备版本", 4),
    ("1.3.0", "serial", text, "设备编号", 0), ("1.4.0", "made", moment, "出厂日期", 7),
    ("1.5.0", "installed", moment, "配置日期", 7),
    ("2.1.0", "place", text, "安装路口", 0), ("2.2.1", "ip", _ip, "信号机IP", 4), ("2.2.2", "mask", _ip, "子网掩码", 4),
    ("2.2.3", "gateway", _ip, "网关", 4), ("2.3.1", "host_ip", _ip, "上位机IP", 4),
    ("2.3.2", "host_port", number, "上位机端口", 2), ("2.3.3", "link", _code(LINKS), "通信类型", 1),
    ("2.4.0", "time_zone_s", _signed, "时区", 4), ("2.5.0", "controller", number, "信号机编号", 4),
    ("2.6.0", "crossings", number, "控制路口数量", 1), ("2.7.0", "gps_clock", number, "GPS时钟", 1),
    ("2.8.0", "ipv6", _ip, "IPv6地址", 16), ("2.8.2", "prefix", _ip, "IPv6子网前缀", 16),
    ("2.8.3", "gateway", _ip, "IPv6网关", 16), ("2.9.0", "host_ipv6", _ip, "上位机IPv6", 16),
    ("2.9.2", "host_port", number, "上位机端口", 2), ("2.9.3", "link", _code(LINKS), "通信类型", 1),
    # -- 3 lamp groups
    ("3.1.0", "lamp_groups", number, "灯组数", 1), ("3.2.1", "number", number, "灯组编号", 1),
    ("3.2.2", "lamp_type", _code(LAMP_TYPES), "灯组类型", 1), ("3.3.1", "lamp", _code(LAMPS), "灯组状态", 1),
    ("3.4.1", "number", number, "灯组编号", 1), ("3.4.2", "mask", number, "屏蔽", 1),
    ("3.4.3", "inhibit", number, "禁止", 1),
    # -- 4 phases
    ("4.1.0", "phases", number, "相位数", 1), ("4.2.1", "number", number, "相位编号", 1),
    ("4.2.2", "lamp_groups", bits, "相位灯组", 8), ("4.2.31", "demand", bits, "相位需求源", 8),
    ("4.3.1", "number", number, "相位编号", 1), ("4.3.2", "mask", number, "屏蔽", 1),
    ("4.3.3", "inhibit", number, "禁止", 1),
    # -- 5 detectors
    ("5.1.0", "detectors", number, "检测器数", 1), ("5.2.1", "number", number, "检测器编号", 1),
    ("5.2.2", "detector_type", _code(DETECTOR_TYPES), "检测器类型", 1), ("5.2.5", "place", text, "检测器位置", 0),
    ("5.3.1", "number", number, "检测器编号", 1), ("5.3.2", "present", number, "车辆存在", 1),
    ("5.3.3", "speed_kmh", number, "车速", 1), ("5.3.4", "vehicle", _code(VEHICLES), "车型", 1),
    ("5.3.5", "plate", text, "车牌", 0), ("5.3.6", "queue_m", number, "排队长度", 2),
    # -- 6 stages
    ("6.1.0", "stages", number, "阶段数", 1), ("6.2.1", "number", number, "阶段编号", 1),
    ("6.2.2", "phases", bits, "阶段放行相位", 8), ("6.2.3", "late_start_s", chain, "晚启动时间", 64),
    ("6.2.4", "early_end_s", chain, "早结束时间", 64), ("6.3.1", "number", number, "阶段编号", 1),
    ("6.3.2", "stage_state", _code(STAGE_STATES), "阶段状态", 1), ("6.4.1", "number", number, "阶段编号", 1),
    ("6.4.2", "soft_demand", number, "软件需求", 1), ("6.4.3", "mask", number, "屏蔽", 1),
    ("6.4.4", "inhibit", number, "禁止", 1),
    # -- 7 safety, 8 priority and emergency
    ("7.1.1", "number", number, "相位编号", 1), ("7.1.2", "conflicts", bits, "冲突相位", 8),
    ("7.2.1", "number", number, "相位编号", 1), ("7.2.2", "green_interval", chain, "绿间隔", 64),
    ("8.1.0", "priorities", number, "优先数", 1), ("8.4.0", "emergencies", number, "紧急数", 1),
    *(
        (f"8.{obj}.{attr}", name, number, zh, 1)
        for obj in (2, 5)
        for attr, name, zh in (
            (1, "number", "编号"), (2, "stage", "申请阶段"), (3, "level", "等级"), (4, "mask", "屏蔽"),
        )
    ),
    *(
        (f"8.{obj}.{attr}", name, number, zh, 1)
        for obj in (3, 6)
        for attr, name, zh in ((1, "number", "编号"), (2, "requested", "申请状态"), (3, "executing", "执行状态"))
    ),
    # -- 9 plans, 10 transition, 11 day plans, 12 schedule
    ("9.1.0", "plans", number, "方案数", 1), ("9.2.1", "number", number, "方案编号", 1),
    ("9.2.2", "crossing", number, "所属路口", 1), ("9.2.3", "cycle_s", number, "周期", 4),
    ("9.2.4", "coordinated_stage", number, "协调阶段", 1), ("9.2.5", "offset_s", number, "相位差", 2),
    ("9.2.6", "stage_chain", chain, "阶段链", 16), ("9.2.7", "stage_seconds", chain_words, "阶段时间链", 32),
    ("9.2.8", "stage_types", lambda data: [STAGE_TYPES.get(code, code) for code in chain(data)], "阶段出现类型", 16),
    ("10.1.1", "stage", number, "目标阶段", 1),
    ("10.1.2", "transitions", lambda data: list(reversed(data)), "过渡约束", 64),
    ("11.1.0", "day_plans", number, "日计划数", 1), ("11.2.1", "number", number, "日计划编号", 1),
    ("11.2.2", "crossing", number, "所属路口", 1), ("11.2.3", "starts", _pairs, "时段起始时间", 96),
    ("11.2.4", "period_plans", chain, "时段方案链", 48),
    ("11.2.5", "period_modes", lambda data: [MODES.get(code, code) for code in chain(data)], "时段模式链", 48),
    *((f"11.2.{attr}", f"action_{attr - 5}", list, f"时段动作链{attr - 5}", 96) for attr in range(6, 14)),
    ("12.1.0", "schedules", number, "调度数", 1), ("12.2.1", "number", number, "调度编号", 1),
    ("12.2.2", "crossing", number, "所属路口", 1), ("12.2.3", "priority", number, "调度优先级", 1),
    ("12.2.4", "weekdays", _weekdays, "星期", 1), ("12.2.5", "months", _months, "月份", 2),
    ("12.2.6", "days", bits, "日期", 4), ("12.2.7", "day_plan", number, "日计划编号", 1),
    # -- 13 state, 14 traffic
    ("13.1.1", "detector_faults", bits, "检测器状态", 8), ("13.1.2", "module_faults", bits, "模块状态", 8),
    ("13.1.3", "doors", number, "机柜门状态", 0), ("13.1.4", "volt", number, "电压", 2),
    ("13.1.5", "ampere", _tenths, "电流", 2),
    ("13.1.6", "temperature_c", _signed, "温度", 1), ("13.1.7", "humidity", number, "湿度", 1),
    ("13.1.8", "water", number, "水浸", 1), ("13.1.9", "smoke", number, "烟雾", 1),
    ("13.1.10", "time_utc", moment, "标准时间", 7), ("13.1.11", "time_local", moment, "本地时间", 7),
    ("13.2.1", "crossing", number, "路口编号", 1), ("13.2.2", "mode", _code(MODES), "运行模式", 1),
    ("13.2.3", "plan", number, "当前方案", 1), ("13.2.4", "stage", number, "当前阶段", 1),
    ("14.1.0", "presence", bits, "车辆存在", 8), ("14.2.1", "detector", number, "检测器编号", 1),
    ("14.2.2", "flow", number, "流量", 2), ("14.2.3", "occupancy_pct", number, "占有率", 1),
    ("14.2.4", "speed_kmh", number, "平均车速", 2),
    # -- 15 alarms, 16 faults
    ("15.1.0", "alarms", number, "报警数", 4), ("15.2.1", "number", number, "报警编号", 4),
    ("15.2.2", "alarm_type", _code(ALARM_TYPES), "报警类型", 1), ("15.2.3", "alarm", _code(ALARM_VALUES), "报警值", 1),
    ("15.2.4", "time", moment, "报警时间", 7), ("16.1.0", "faults", number, "故障数", 4),
    ("16.2.1", "number", number, "故障编号", 4), ("16.2.2", "fault", _code(FAULT_TYPES), "故障类型", 1),
    ("16.2.3", "time", moment, "故障时间", 7), ("16.2.4", "action", _code(FAULT_ACTIONS), "故障动作", 1),
    # -- 17 centre control (one maker: objects 1..4; another: attributes 2..4 of object 1), 18 command pipe
    ("17.1.1", "crossing", number, "路口编号", 1), ("17.2.1", "stage", number, "当前阶段", 1),
    ("17.3.1", "plan", number, "当前方案", 1), ("17.4.1", "mode", _code(MODES), "控制模式", 1),
    ("17.1.2", "stage", number, "当前阶段", 1), ("17.1.3", "plan", number, "当前方案", 1),
    ("17.1.4", "mode", _code(MODES), "控制模式", 1),
    ("18.1.0", "commands", lambda data: [PIPE_COMMANDS.get(code, code) for code in data], "命令管道", 16),
):  # fmt: skip
    _row(_address, _name, _form, _zh, _width)

#: Durations of whole seconds.
for _address, _name, _zh, _width in (
    ("4.2.27", "min_green_s", "最小绿灯时间", 2), ("4.2.28", "max_green_1_s", "最大绿灯时间1", 2),
    ("4.2.29", "max_green_2_s", "最大绿灯时间2", 2), ("4.2.30", "extension_s", "延长绿时间", 2),
    ("5.2.3", "flow_period_s", "流量采集周期", 2), ("5.2.4", "occupancy_period_s", "占有率采集周期", 2),
    ("6.3.3", "run_s", "阶段已运行时间", 0), ("6.3.4", "left_s", "阶段剩余时间", 0),
):  # fmt: skip
    _row(_address, _name, number, _zh, _width, "s")

#: A phase loses and gains right of way through three (colour, seconds) pairs each, and others at start-up.
for _first, _name, _zh in (
    (3, "losing", "失去路权"), (9, "gaining", "获得路权"), (15, "gaining_at_start", "开机获得路权"),
    (21, "losing_at_start", "开机失去路权"),
):  # fmt: skip
    for _step in range(3):
        _row(f"4.2.{_first + 2 * _step}", "lamp", _code(LAMPS), f"{_zh}过渡灯色{_step + 1}", 1)
        _row(f"4.2.{_first + 2 * _step + 1}", f"{_name}_{_step + 1}_s", number, f"{_zh}过渡时间{_step + 1}", 1, "s")


def find(address: Address) -> Object | None:
    """The object at an address. Attribute 0 of a one-attribute object is attribute 1, and the other way round."""
    key = (address.cls, address.obj, address.attr)
    found = OBJECTS.get(key)
    if found is None and address.attr in (0, 1):
        found = OBJECTS.get((address.cls, address.obj, 1 - address.attr))
    return found


def value(item: Item) -> Any:
    """What an item says, as plain JSON; hex of bytes that no row of the table explains, None for no data."""
    if not item.data:
        return None
    found = find(item.address)
    said = found.form(item.data) if found is not None else None
    return item.data.hex() if said is None else said
