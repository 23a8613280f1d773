"""Names of values in words, zh and en."""

from __future__ import annotations

_LABELS: dict[str, tuple[str, str]] = {
    "vehicle": ("整车数据", "vehicle"), "motor": ("驱动电机数据", "motors"), "fuel_cell": ("燃料电池数据", "fuel cell"),
    "engine": ("发动机数据", "engine"), "position": ("车辆位置数据", "position"), "extremes": ("极值数据", "extremes"),
    "alarm": ("报警数据", "alarm"), "cell_voltages": ("单体电压数据", "cell voltages"),
    "probe_temps": ("储能装置温度数据", "temperatures"), "oem": ("用户自定义数据", "vendor data"),
    "signature": ("数字签名", "signature"), "fuel_cell_stacks": ("燃料电池电堆", "fuel cell stacks"),
    "supercapacitor": ("超级电容器", "super-capacitor"),
    "supercapacitor_extremes": ("超级电容器极值", "super-capacitor extremes"),
    "state": ("状态", "state"), "charge": ("充电状态", "charging"), "mode": ("运行模式", "mode"),
    "speed_kmh": ("车速 km/h", "speed, km/h"), "mileage_km": ("累计里程 km", "mileage, km"),
    "voltage_v": ("电压 V", "voltage, V"), "current_a": ("电流 A", "current, A"),
    "soc": ("SOC %", "state of charge, %"),
    "dcdc": ("DC-DC状态", "DC/DC"), "gear_raw": ("挡位字节", "gear byte"), "gear": ("挡位", "gear"),
    "braking": ("制动力", "braking force"), "driving": ("驱动力", "driving force"),
    "position_valid": ("挡位有效", "gear position valid"), "insulation_kohm": ("绝缘电阻 kΩ", "insulation, kOhm"),
    "accel_pct": ("加速踏板行程 %", "accelerator, %"),
    "brake_pct": ("制动踏板 %(101 为踩下)", "brake pedal, % (101: pressed)"), "motors": ("驱动电机个数", "motors"),
    "no": ("序号", "number"), "controller_temp_c": ("控制器温度 ℃", "controller, degC"),
    "speed_rpm": ("转速 r/min", "speed, r/min"), "torque_nm": ("转矩 N·m", "torque, N m"),
    "temp_c": ("温度 ℃", "temperature, degC"), "status": ("定位状态", "position state"), "valid": ("定位有效", "valid"),
    "south": ("南纬", "south"), "west": ("西经", "west"), "lon": ("经度", "longitude"), "lat": ("纬度", "latitude"),
    "datum": ("坐标系", "datum"), "max_v": ("最高单体电压 V", "highest cell, V"),
    "min_v": ("最低单体电压 V", "lowest cell, V"), "max_t_c": ("最高温度 ℃", "highest, degC"),
    "min_t_c": ("最低温度 ℃", "lowest, degC"), "level": ("最高报警等级", "alarm level"),
    "flags_raw": ("通用报警标志", "alarm word"), "flags": ("报警位", "alarm bits"),
    "battery_faults": ("储能装置故障", "battery faults"), "motor_faults": ("电机故障", "motor faults"),
    "engine_faults": ("发动机故障", "engine faults"), "other_faults": ("其他故障", "other faults"),
    "subsystems": ("子系统个数", "sub-systems"), "cells_total": ("单体总数", "cells"),
    "start": ("本帧起始序号", "first cell"),
    "n": ("个数", "count"), "cells_v": ("单体电压 V", "cells, V"), "temps_c": ("探针温度 ℃", "probes, degC"),
    "len": ("长度", "length"), "hex": ("数据", "data"), "crank_rpm": ("曲轴转速 r/min", "crankshaft, r/min"),
    "fuel_l_100km": ("燃料消耗率 L/100km", "fuel, L/100km"),
    "fuel_rate_kg_100km": ("燃料消耗率 kg/100km", "fuel, kg/100km"), "algo": ("签名算法", "algorithm"),
}  # fmt: skip


def label(name: str) -> tuple[str, str]:
    """zh and en; the name itself where there are no better words."""
    return _LABELS.get(name, ("", name.replace("_", " ")))
