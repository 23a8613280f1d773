"""Names of what stands in CJ/T 188 frames, in Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping

Label = tuple[str, str]

#: Offset 1. What is outside the table is named by its class: 10-19 water, 20-29 heat, 30-39 gas.
TYPES: Mapping[str, Label] = {
    "10": ("冷水水表", "cold water meter"),
    "11": ("热水水表", "hot water meter"),
    "12": ("直饮水水表", "drinking water meter"),
    "13": ("中水水表", "reclaimed water meter"),
    "20": ("热量表（计热量）", "heat meter"),
    "21": ("热量表（计冷量）", "cooling meter"),
    "22": ("热量表（冷热两用）", "heat and cooling meter"),
    "30": ("燃气表", "gas meter"),
    "AA": ("任意仪表", "any meter"),
}
_CLASSES: Mapping[str, Label] = {
    "1": ("水表", "water meter"),
    "2": ("热量表", "heat meter"),
    "3": ("燃气表", "gas meter"),
    "4": ("自定义仪表", "meter of own use"),
}

FUNCTIONS: Mapping[int, Label] = {
    0x01: ("读数据", "read data"),
    0x03: ("读地址", "read address"),
    0x04: ("写数据", "write data"),
    0x09: ("读密钥版本号", "read key version"),
    0x15: ("写地址", "write address"),
    0x16: ("写机电同步数", "set the meter reading"),
}

_DI: Mapping[str, Label] = {
    "901F": ("计量数据", "current reading"),
    "911F": ("冷热量计量数据", "heat and cooling reading"),
    "907F": ("实时时间", "clock"),
    "8102": ("价格表", "price table"),
    "8103": ("结算日", "settlement day"),
    "8104": ("抄表日", "reading day"),
    "8105": ("购入金额", "purchase"),
    "8106": ("密钥版本号", "key version"),
    "810A": ("地址", "address"),
    "A010": ("写价格表", "write price table"),
    "A011": ("写结算日", "write settlement day"),
    "A012": ("写抄表日", "write reading day"),
    "A013": ("写购入金额", "write purchase"),
    "A014": ("写新密钥", "write new key"),
    "A015": ("写标准时间", "write clock"),
    "A016": ("写机电同步数据", "write reading (motor sync)"),
    "A017": ("写阀门控制", "valve control"),
    "A018": ("写地址", "write address"),
    "A019": ("启用（出厂）", "factory start"),
}

ITEMS: Mapping[str, Label] = {
    "current": ("当前累积流量", "current volume"),
    "settlement": ("结算日累积值", "value on settlement day"),
    "settlement_heat": ("结算日热量", "heat on settlement day"),
    "heat": ("当前热量", "heat"),
    "cooling": ("当前冷量", "cooling"),
    "power": ("热功率", "thermal power"),
    "flow": ("流量", "flow"),
    "volume": ("累积流量", "volume"),
    "supply_temp": ("供水温度", "supply temperature"),
    "return_temp": ("回水温度", "return temperature"),
    "temperature": ("温度", "temperature"),
    "pressure": ("压力（原始）", "pressure, raw"),
    "hours": ("累积工作时间", "hours of operation"),
    "time": ("实时时间", "meter's clock"),
    "valve": ("阀门命令", "valve command"),
    "new_addr": ("新地址", "new address"),
    "day": ("日", "day of month"),
    "key_version": ("密钥版本号", "key version"),
    **{f"price_{n}": (f"价格{n}", f"price {n}") for n in (1, 2, 3)},
    **{f"volume_{n}": (f"用量{n}", f"volume up to price {n}") for n in (1, 2)},
}

VALVE: Mapping[str, Label] = {"open": ("开", "open"), "closed": ("关", "closed"), "faulty": ("异常", "faulty")}


def type_name(kind: str) -> Label:
    """What a meter of that type is."""
    return TYPES.get(kind) or _CLASSES.get(kind[:1], ("未知类型", f"type {kind}"))


def di_name(di: str) -> Label:
    """What an identifier asks for."""
    if (name := _DI.get(di)) is not None:
        return name
    if di.startswith("D12") and di[3:].isalnum() and int(di[3:], 16) <= 0x0B:
        months = int(di[3:], 16) + 1
        return f"上{months}月结算日数据", f"settlement value {months} months back"
    if di[:2] in ("D1", "D2", "D3", "D4"):
        kinds = {"D1": ("历史数据", "history"), "D2": ("历史数据", "history"), "D3": ("定时冻结", "timed freeze")}
        return kinds.get(di[:2], ("瞬时冻结", "instant freeze"))
    if di[:2] == "A1":
        return "2018 版写参数", "write, 2018 edition"
    return "未知标识", f"unknown identifier {di}"
