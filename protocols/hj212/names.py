"""What the codes of HJ 212 stand for: commands, system codes, factors, suffixes, item flags, results.

Names are for people who read a capture or write a configuration; nothing is decoded by them. Units are the defaults of
the 2017 table: stations send particles in ng, ug or mg, so the unit that counts is the device type's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["request", "notice", "upload", "answer"]


@dataclass(frozen=True, slots=True)
class CommandName:
    """``kind``: what is owed for it. A request gets 9011 and 9012, a notice 9013, an upload 9014, an answer nothing.

    ``street``: it makes instruments do something (sample, calibrate, clean).
    """

    zh: str
    en: str
    kind: Kind = "request"
    street: bool = False


#: HJ 212-2017, table 9 and annex C; the last four are of the 2025 edition, known from secondary sources only.
COMMANDS: dict[str, CommandName] = {
    "1000": CommandName("设置超时时间及重发次数", "set time-out and repeats"),
    "1011": CommandName("提取现场机时间", "read clock"),
    "1012": CommandName("设置现场机时间", "set clock"),
    "1013": CommandName("现场机时间校准请求", "the station asks for the time", "notice"),
    "1061": CommandName("提取实时数据间隔", "read interval of real-time data"),
    "1062": CommandName("设置实时数据间隔", "set interval of real-time data"),
    "1063": CommandName("提取分钟数据间隔", "read interval of minute data"),
    "1064": CommandName("设置分钟数据间隔", "set interval of minute data"),
    "1072": CommandName("设置现场机密码", "set password"),
    "2011": CommandName("实时数据", "real-time data (or: start them)", "upload"),
    "2012": CommandName("停止察看实时数据", "stop real-time data", "notice"),
    "2021": CommandName("设备运行状态数据", "running state of equipment (or: start it)", "upload"),
    "2022": CommandName("停止察看设备运行状态", "stop running state", "notice"),
    "2031": CommandName("日历史数据", "day data", "upload"),
    "2041": CommandName("设备运行时间日历史数据", "running time of equipment by the day", "upload"),
    "2051": CommandName("分钟数据", "minute data", "upload"),
    "2061": CommandName("小时数据", "hour data", "upload"),
    "2081": CommandName("数采仪开机时间", "the station has started", "upload"),
    "3011": CommandName("零点校准量程校准", "zero and span calibration", street=True),
    "3012": CommandName("即时采样", "sample now", street=True),
    "3013": CommandName("启动清洗反吹", "clean, blow back", street=True),
    "3014": CommandName("比对采样", "comparison sample", street=True),
    "3015": CommandName("超标留样", "keep a sample", street=True),
    "3016": CommandName("设置采样时间周期", "set sampling period", street=True),
    "3017": CommandName("提取采样时间周期", "read sampling period"),
    "3018": CommandName("提取出样时间", "read time to a result"),
    "3019": CommandName("设备唯一标识", "serial number of an instrument", "upload"),
    "3020": CommandName("现场机信息", "site information: logs, states, parameters", "upload"),
    "3021": CommandName("设置现场机参数", "set parameters of an instrument", street=True),
    "9011": CommandName("请求应答", "answer to a request", "answer"),
    "9012": CommandName("执行结果", "result of the execution", "answer"),
    "9013": CommandName("通知应答", "answer to a notice", "answer"),
    "9014": CommandName("数据应答", "answer to data", "answer"),
    "9015": CommandName("心跳", "heartbeat (2025)", "notice"),
    "2052": CommandName("分钟数据（2025）", "minute data (2025)", "upload"),
    "2062": CommandName("小时数据（2025）", "hour data (2025)", "upload"),
    "2111": CommandName("数据（2025）", "data (2025)", "upload"),
}

SYSTEMS: dict[str, tuple[str, str]] = {
    "21": ("地表水质量监测", "surface water"),
    "22": ("空气质量监测", "ambient air"),
    "23": ("声环境质量监测", "noise"),
    "24": ("地下水质量监测", "ground water"),
    "27": ("挥发性有机物监测", "volatile organic compounds"),
    "31": ("大气环境污染源", "air sources"),
    "32": ("地表水体环境污染源", "water sources"),
    "36": ("噪声污染源", "noise sources"),
    "39": ("工地扬尘污染源", "construction dust"),
    "51": ("烟气排放过程监控", "gas process"),
    "52": ("污水排放过程监控", "water process"),
    "91": ("系统交互", "exchange"),
}

#: Factor -> (zh, en, default unit of the 2017 table).
FACTORS: dict[str, tuple[str, str, str]] = {
    "a34004": ("PM2.5", "PM2.5", "ng/m3"),
    "a34002": ("PM10", "PM10", "ng/m3"),
    "a34001": ("总悬浮颗粒物", "TSP", "ng/m3"),
    "a34013": ("烟尘", "soot", "mg/m3"),
    "a21026": ("二氧化硫", "SO2", "mg/m3"),
    "a21004": ("二氧化氮", "NO2", "mg/m3"),
    "a21003": ("一氧化氮", "NO", "mg/m3"),
    "a21002": ("氮氧化物", "NOx", "mg/m3"),
    "a21005": ("一氧化碳", "CO", "mg/m3"),
    "a05024": ("臭氧", "O3", "ug/m3"),
    "a21030": ("臭氧", "O3", "ug/m3"),
    "a19001": ("氧气含量", "oxygen", "%"),
    "a01001": ("温度", "temperature", "degC"),
    "a01002": ("湿度", "humidity", "%"),
    "a01006": ("气压", "air pressure", "kPa"),
    "a01007": ("风速", "wind speed", "m/s"),
    "a01008": ("风向", "wind direction", "deg"),
    "a01011": ("烟气流速", "flue gas speed", "m/s"),
    "a01012": ("烟气温度", "flue gas temperature", "degC"),
    "a01013": ("烟气压力", "flue gas pressure", "kPa"),
    "a01014": ("烟气湿度", "flue gas humidity", "%"),
    "a00000": ("废气", "waste gas", "m3/s"),
    "a24088": ("非甲烷总烃", "non-methane hydrocarbons", "mg/m3"),
    "a24087": ("碳氢化合物", "hydrocarbons", "mg/m3"),
    "a05002": ("甲烷", "methane", "ng/m3"),
    "a50001": ("噪声", "noise", "dB"),
    "LA": ("瞬时声级", "sound level now", "dB"),
    "L5": ("累积百分声级 L5", "L5", "dB"),
    "L10": ("累积百分声级 L10", "L10", "dB"),
    "L50": ("累积百分声级 L50", "L50", "dB"),
    "L90": ("累积百分声级 L90", "L90", "dB"),
    "L95": ("累积百分声级 L95", "L95", "dB"),
    "Leq": ("等效声级", "Leq", "dB"),
    "LMx": ("最大声级", "highest level", "dB"),
    "LMn": ("最小声级", "lowest level", "dB"),
    "Ldn": ("昼夜等效声级", "Ldn", "dB"),
    "Ld": ("昼间等效声级", "level of the day", "dB"),
    "Ln": ("夜间等效声级", "level of the night", "dB"),
    "w00000": ("污水", "waste water", "L/s"),
    "w01001": ("pH 值", "pH", ""),
    "w01003": ("浊度", "turbidity", "NTU"),
    "w01009": ("溶解氧", "dissolved oxygen", "mg/L"),
    "w01010": ("水温", "water temperature", "degC"),
    "w01012": ("悬浮物", "suspended solids", "mg/L"),
    "w01014": ("电导率", "conductivity", "uS/cm"),
    "w01018": ("化学需氧量", "COD", "mg/L"),
    "w01019": ("高锰酸盐指数", "permanganate index", "mg/L"),
    "w21001": ("总氮", "total nitrogen", "mg/L"),
    "w21003": ("氨氮", "ammonia nitrogen", "mg/L"),
    "w21011": ("总磷", "total phosphorus", "mg/L"),
    # 2005 edition
    "B01": ("污水流量", "waste water (2005)", "L/s"),
    "B02": ("废气流量", "waste gas (2005)", "m3/s"),
    "001": ("pH 值", "pH (2005)", ""),
    "003": ("悬浮物", "suspended solids (2005)", "mg/L"),
    "011": ("化学需氧量", "COD (2005)", "mg/L"),
    "060": ("氨氮", "ammonia nitrogen (2005)", "mg/L"),
    "065": ("总氮", "total nitrogen (2005)", "mg/L"),
    "101": ("总磷", "total phosphorus (2005)", "mg/L"),
    "S01": ("氧气含量", "oxygen (2005)", "%"),
    "S02": ("烟气流速", "flue gas speed (2005)", "m/s"),
    "S03": ("烟气温度", "flue gas temperature (2005)", "degC"),
    "S05": ("烟气湿度", "flue gas humidity (2005)", "%"),
    "S08": ("烟气压力", "flue gas pressure (2005)", "kPa"),
    "01": ("烟尘", "soot (2005)", "mg/m3"),
    "02": ("二氧化硫", "SO2 (2005)", "mg/m3"),
    "03": ("氮氧化物", "NOx (2005)", "mg/m3"),
    "04": ("一氧化碳", "CO (2005)", "mg/m3"),
    "25": ("碳氢化合物", "hydrocarbons (2005)", "mg/m3"),
}

SUFFIXES: dict[str, tuple[str, str]] = {
    "Rtd": ("实时值", "now"),
    "Avg": ("均值", "average"),
    "Min": ("最小值", "least"),
    "Max": ("最大值", "greatest"),
    "Cou": ("累计值", "amount of the period"),
    "Flag": ("数据标记", "item flag"),
    "EFlag": ("设备标志", "maker's state"),
    "SampleTime": ("采样时间", "time of sampling"),
    "Info": ("现场端信息", "information"),
    "SN": ("设备编号", "serial number"),
    "RS": ("运行状态", "running state"),
    "RT": ("运行时间", "running time, h"),
    "Data": ("噪声数据", "level"),
    "DayData": ("昼间数据", "level of the day"),
    "NightData": ("夜间数据", "level of the night"),
    "ZsRtd": ("折算实时值", "now, at reference oxygen"),
    "ZsAvg": ("折算均值", "average, at reference oxygen"),
    "ZsMin": ("折算最小值", "least, at reference oxygen"),
    "ZsMax": ("折算最大值", "greatest, at reference oxygen"),
}

ITEM_FLAGS: dict[str, tuple[str, str]] = {
    "N": ("正常", "normal"),
    "F": ("停运", "stopped"),
    "M": ("维护", "maintenance"),
    "S": ("手工输入", "set by hand"),
    "D": ("故障", "faulty"),
    "C": ("校准", "calibrating"),
    "T": ("超量程", "over range"),
    "B": ("通讯异常", "no contact with the instrument"),
}

#: Stable word, Chinese, English.
QN_RETURNS: dict[str, tuple[str, str, str]] = {
    "1": ("ready", "准备执行请求", "ready to execute"),
    "2": ("refused", "请求被拒绝", "refused"),
    "3": ("password", "PW 错误", "password wrong"),
    "4": ("mn", "MN 错误", "device id wrong"),
    "5": ("st", "ST 错误", "system code wrong"),
    "6": ("flag", "Flag 错误", "Flag wrong"),
    "7": ("qn", "QN 错误", "request number wrong"),
    "8": ("unsupported", "CN 错误", "command wrong or not known"),
    "9": ("checksum", "CRC 校验错误", "checksum wrong"),
    "100": ("unknown", "未知错误", "unknown error"),
}
EXE_RETURNS: dict[str, tuple[str, str, str]] = {
    "1": ("done", "执行成功", "done"),
    "2": ("failed", "执行失败，原因未知", "failed, reason unknown"),
    "3": ("condition", "命令请求条件错误", "conditions of the command are wrong"),
    "4": ("timeout", "通讯超时", "the instrument did not answer in time"),
    "5": ("busy", "系统繁忙", "busy"),
    "6": ("fault", "系统故障", "fault"),
    "100": ("no_data", "没有数据", "no data"),
}


def edition(flag: int | None) -> str:
    """The edition that the version bits of Flag name; "" where there is no Flag."""
    if flag is None:
        return ""
    return {0: "2005", 1: "2017", 2: "2025"}.get(flag >> 2, f"version {flag >> 2}")
