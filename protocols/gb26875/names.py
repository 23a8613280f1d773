"""What the numbers of GB/T 26875.3 mean, zh and en.

The text at hand is a copy whose bit figures were lost: system, component and operation bits are those of a public
implementation's tests, the transmitter's agree with the text.
"""

from __future__ import annotations

Name = tuple[str, str]

#: Bit 0 set is "running normally"; a state of all zero means "under test", not "fine".
SYSTEM_BITS: tuple[Name, ...] = (
    ("正常运行", "running"), ("火警", "fire"), ("故障", "fault"), ("屏蔽", "shielded"), ("监管", "supervised"),
    ("启动", "started"), ("反馈", "feedback"), ("延时", "delay"), ("主电故障", "main power fault"),
    ("备电故障", "backup power fault"), ("总线故障", "bus fault"), ("手动", "manual"),
    ("配置改变", "configuration changed"), ("复位", "reset"),
)  # fmt: skip
COMPONENT_BITS: tuple[Name, ...] = (
    ("正常运行", "running"), ("火警", "fire"), ("故障", "fault"), ("屏蔽", "shielded"), ("监管", "supervised"),
    ("启动", "started"), ("反馈", "feedback"), ("延时", "delay"), ("电源故障", "power fault"),
)  # fmt: skip
TRANSMITTER_BITS: tuple[Name, ...] = (
    ("正常监视", "running"), ("火警", "fire"), ("故障", "fault"), ("主电故障", "main power fault"),
    ("备电故障", "backup power fault"), ("与监控中心通信故障", "link to centre faulty"),
    ("监测连接线路故障", "wire to panel faulty"),
)  # fmt: skip
OPERATION_BITS: tuple[Name, ...] = (
    ("复位", "reset"), ("消音", "mute"), ("手动报警", "manual alarm"), ("警情消除", "alarm cancelled"),
    ("自检", "self test"), ("确认", "confirm"), ("测试", "test"),
)  # fmt: skip

#: Bits that matter to everybody, by position: the same in all three state words.
RUNNING, FIRE, FAULT, SHIELDED, SUPERVISED, STARTED, FEEDBACK = range(7)

TYPES: dict[int, Name] = {
    1: ("上传建筑消防设施系统状态", "system state"), 2: ("上传部件运行状态", "component state"),
    3: ("上传部件模拟量值", "component analogue value"), 4: ("上传系统操作信息", "system operation"),
    5: ("上传系统软件版本", "system version"), 6: ("上传系统配置情况", "system text"),
    7: ("上传部件配置情况", "component text"), 8: ("上传系统时间", "system clock"),
    21: ("上传用户信息传输装置状态", "transmitter state"), 24: ("上传传输装置操作信息", "transmitter operation"),
    25: ("上传传输装置软件版本", "transmitter version"), 26: ("上传传输装置配置情况", "transmitter text"),
    28: ("上传传输装置系统时间", "transmitter clock"), 61: ("读系统状态", "read system state"),
    62: ("读部件运行状态", "read component state"), 63: ("读部件模拟量值", "read component value"),
    64: ("读系统操作信息", "read operations"), 65: ("读系统软件版本", "read system version"),
    66: ("读系统配置情况", "read system text"), 67: ("读部件配置情况", "read component text"),
    68: ("读系统时间", "read system clock"), 81: ("读传输装置状态", "read transmitter state"),
    84: ("读传输装置操作信息", "read transmitter operations"), 85: ("读传输装置软件版本", "read transmitter version"),
    86: ("读传输装置配置情况", "read transmitter text"), 88: ("读传输装置系统时间", "read transmitter clock"),
    89: ("初始化传输装置", "initialise transmitter"), 90: ("同步传输装置时钟", "set transmitter clock"),
    91: ("查岗命令", "duty check"),
}  # fmt: skip

SYSTEMS: dict[int, Name] = {
    0: ("通用", "general"), 1: ("火灾报警系统", "fire alarm"), 10: ("消防联动控制器", "linkage controller"),
    11: ("消火栓系统", "hydrant"), 12: ("自动喷水灭火系统", "sprinkler"), 13: ("气体灭火系统", "gas extinguishing"),
    14: ("水喷雾灭火系统(泵)", "water spray (pump)"), 15: ("水喷雾灭火系统(压力容器)", "water spray (vessel)"),
    16: ("泡沫灭火系统", "foam"), 17: ("干粉灭火系统", "powder"), 18: ("防烟排烟系统", "smoke exhaust"),
    19: ("防火门及卷帘系统", "fire doors and shutters"), 20: ("消防电梯", "lift"), 21: ("消防应急广播", "broadcast"),
    22: ("应急照明和疏散指示", "emergency lighting"), 23: ("消防电源", "fire power supply"),
    24: ("消防电话", "fire telephone"),
}  # fmt: skip

COMPONENTS: dict[int, Name] = {
    0: ("通用", "general"), 1: ("火灾报警控制器", "alarm controller"),
    10: ("可燃气体探测器", "combustible gas detector"),
    11: ("点型可燃气体探测器", "combustible gas detector"), 12: ("独立式可燃气体探测器", "combustible gas detector"),
    13: ("线型可燃气体探测器", "combustible gas detector"), 16: ("电气火灾监控报警器", "electrical fire monitor"),
    17: ("剩余电流式电气火灾监控探测器", "residual current detector"),
    18: ("测温式电气火灾监控探测器", "electrical temperature detector"), 21: ("探测回路", "loop"),
    22: ("火灾显示盘", "display"), 23: ("手动火灾报警按钮", "manual call point"), 24: ("消火栓按钮", "hydrant button"),
    25: ("火灾探测器", "detector"), 30: ("感温火灾探测器", "heat detector"),
    31: ("点型感温火灾探测器", "heat detector"),
    32: ("点型感温火灾探测器(S型)", "heat detector"), 33: ("点型感温火灾探测器(R型)", "heat detector"),
    34: ("线型感温火灾探测器", "heat detector"), 35: ("线型感温火灾探测器(S型)", "heat detector"),
    36: ("线型感温火灾探测器(R型)", "heat detector"), 37: ("光纤感温火灾探测器", "heat detector, fibre"),
    40: ("感烟火灾探测器", "smoke detector"), 41: ("点型离子感烟火灾探测器", "smoke detector, ionisation"),
    42: ("点型光电感烟火灾探测器", "smoke detector, optical"), 43: ("线型光束感烟火灾探测器", "smoke detector, beam"),
    44: ("吸气式感烟火灾探测器", "smoke detector, aspirating"), 50: ("复合式火灾探测器", "combined detector"),
    51: ("复合式感烟感温火灾探测器", "combined detector"), 52: ("复合式感光感温火灾探测器", "combined detector"),
    53: ("复合式感光感烟火灾探测器", "combined detector"), 61: ("紫外火焰探测器", "flame detector, UV"),
    62: ("红外火焰探测器", "flame detector, IR"), 69: ("感光火灾探测器", "light detector"),
    74: ("气体探测器", "gas detector"), 78: ("图像摄像方式火灾探测器", "video detector"),
    79: ("感声火灾探测器", "sound detector"), 81: ("气体灭火控制器", "gas extinguishing controller"),
    82: ("消防电气控制装置", "electric control"), 83: ("消防控制室图形显示装置", "graphic display"),
    84: ("模块", "module"), 85: ("输入模块", "input module"), 86: ("输出模块", "output module"),
    87: ("输入/输出模块", "input/output module"), 88: ("中继模块", "relay module"), 91: ("消防水泵", "pump"),
    92: ("消防水箱", "tank"), 95: ("喷淋泵", "sprinkler pump"), 96: ("水流指示器", "flow switch"),
    97: ("信号阀", "signal valve"), 98: ("报警阀", "alarm valve"), 99: ("压力开关", "pressure switch"),
    101: ("阀驱动装置", "valve drive"), 102: ("防火门", "fire door"), 103: ("防火阀", "damper"),
    104: ("通风空调", "ventilation"), 105: ("泡沫液泵", "foam pump"), 106: ("管网电磁阀", "solenoid valve"),
    111: ("防烟排烟风机", "smoke fan"), 113: ("排烟防火阀", "smoke damper"), 114: ("常闭送风口", "air inlet"),
    115: ("排烟口", "smoke outlet"), 116: ("电控挡烟垂壁", "smoke curtain"),
    117: ("防火卷帘控制器", "shutter controller"),
    118: ("防火门监控器", "door monitor"), 121: ("警报装置", "sounder"),
}  # fmt: skip

#: Analogue kinds: zh, en, step, unit.
ANALOGS: dict[int, tuple[str, str, str, str]] = {
    1: ("事件计数", "count", "1", ""), 2: ("高度", "height", "0.01", "m"), 3: ("温度", "temperature", "0.1", "degC"),
    4: ("压力", "pressure", "0.1", "MPa"), 5: ("压力", "pressure", "0.1", "kPa"),
    6: ("气体浓度", "gas", "0.1", "%LEL"), 7: ("时间", "time", "1", "s"), 8: ("电压", "voltage", "0.1", "V"),
    9: ("电流", "current", "0.1", "A"), 10: ("流量", "flow", "0.1", "L/s"), 11: ("风量", "air flow", "0.1", "m3/min"),
    12: ("风速", "air speed", "1", "m/s"),
}  # fmt: skip


def bits_of(state: int) -> list[int]:
    """Numbers of the set bits, lowest first."""
    return [n for n in range(state.bit_length()) if state >> n & 1]


def named_bits(state: int, names: tuple[Name, ...]) -> tuple[str, str]:
    """The set bits in words, zh and en; a state without any is "under test"."""
    if not state & 1 and names is not OPERATION_BITS and state == 0:
        return "测试", "under test"
    found = [names[n] if n < len(names) else (f"位{n}", f"bit {n}") for n in bits_of(state)]
    return "、".join(zh for zh, _ in found), ", ".join(en for _, en in found)
