"""What sentences and their fields are called, for people: Chinese and English."""

from __future__ import annotations

from protocols.nmea_beidou.sentence import Sentence

SENTENCES: dict[str, tuple[str, str]] = {
    "RMC": ("推荐最小定位", "recommended minimum"),
    "GGA": ("定位数据", "fix data"),
    "GLL": ("经纬度", "latitude and longitude"),
    "VTG": ("航向航速", "course and speed"),
    "GSA": ("精度因子与在用卫星", "dilution of precision and satellites used"),
    "GSV": ("可见卫星", "satellites in view"),
    "ZDA": ("日期时间", "date and time"),
    "GST": ("误差统计", "error statistics"),
    "MWV": ("风向风速", "wind"),
    "XDR": ("传感器", "transducers"),
    "TXR": ("北斗二号短报文接收", "BeiDou message received (BDS-2)"),
    "TXA": ("北斗二号短报文发送", "BeiDou message sent (BDS-2)"),
    "TCI": ("北斗三号短报文接收", "BeiDou message received (BDS-3)"),
    "TCQ": ("北斗三号短报文发送", "BeiDou message sent (BDS-3)"),
    "FKI": ("北斗反馈", "BeiDou feedback"),
    "ICI": ("北斗用户卡信息", "BeiDou card (BDS-2)"),
    "ICP": ("北斗用户卡信息", "BeiDou card (BDS-3)"),
    "ICA": ("查询北斗用户卡", "ask for the BeiDou card"),
    "BSI": ("北斗波束功率", "BeiDou beam power"),
    "PWI": ("北斗信号功率", "BeiDou signal power"),
}

_NAMES: dict[str, tuple[str, ...]] = {
    "RMC": (
        "time", "status", "lat", "ns", "lon", "ew", "speed_kn", "course", "date", "mag_var", "mag_side", "mode",
        "nav_status",
    ),
    "GGA": (
        "time", "lat", "ns", "lon", "ew", "quality", "sats", "hdop", "altitude", "altitude_unit", "geoid_sep",
        "geoid_unit", "age", "station",
    ),
    "GLL": ("lat", "ns", "lon", "ew", "time", "status", "mode"),
    "VTG": ("true_track", "t", "mag_track", "m", "speed_kn", "n", "speed_kmh", "k", "mode"),
    "GSA": ("op_mode", "nav_mode", *(f"prn_{n:02d}" for n in range(1, 13)), "pdop", "hdop", "vdop", "system_id"),
    "GSV": ("total_msgs", "msg", "total_sats"),
    "ZDA": ("time", "day", "month", "year", "zone_h", "zone_m"),
    "GST": ("time", "rms", "sd_major", "sd_minor", "orientation", "sd_lat", "sd_lon", "sd_alt"),
    "MWV": ("wind_angle", "reference", "wind_speed", "unit", "status"),
    "TXR": ("kind", "sender", "coding", "time", "content"),
    "TXA": ("receiver", "kind", "coding", "content"),
    "TCI": ("sender", "receiver", "freq", "time", "coding", "flag", "content"),
    "TCQ": ("receiver", "freq", "receipt", "coding", "content"),
    "FKI": ("for", "ok_flag", "reason", "wait"),
    "ICP": ("card", "broadcast", "level", "interval"),
}  # fmt: skip

FIELDS: dict[str, tuple[str, str]] = {
    "time": ("时间", "time"),
    "status": ("状态", "status"),
    "lat": ("纬度 ddmm.mmmm", "latitude, ddmm.mmmm"),
    "lon": ("经度 dddmm.mmmm", "longitude, dddmm.mmmm"),
    "ns": ("南北", "north or south"),
    "ew": ("东西", "east or west"),
    "speed_kn": ("航速 节", "speed, knots"),
    "speed_kmh": ("速度 km/h", "speed, km/h"),
    "course": ("航向", "course"),
    "date": ("日期 ddmmyy", "date, ddmmyy"),
    "mode": ("定位模式", "mode"),
    "nav_status": ("导航状态", "navigational status"),
    "quality": ("定位质量", "quality"),
    "sats": ("卫星数", "satellites"),
    "hdop": ("水平精度因子", "HDOP"),
    "vdop": ("垂直精度因子", "VDOP"),
    "pdop": ("位置精度因子", "PDOP"),
    "altitude": ("海拔", "altitude"),
    "geoid_sep": ("大地水准面差", "geoid separation"),
    "nav_mode": ("定位类型", "fix type"),
    "system_id": ("系统 ID", "system id"),
    "prn": ("卫星号", "satellite"),
    "elev": ("仰角", "elevation"),
    "azim": ("方位角", "azimuth"),
    "snr": ("信噪比", "signal to noise"),
    "signal_id": ("信号 ID", "signal id"),
    "total_msgs": ("语句总数", "sentences"),
    "msg": ("语句号", "sentence"),
    "total_sats": ("可见卫星数", "satellites in view"),
    "wind_angle": ("风向", "wind angle"),
    "wind_speed": ("风速", "wind speed"),
    "unit": ("单位", "unit"),
    "sender": ("发信方", "sender"),
    "receiver": ("收信方", "receiver"),
    "coding": ("编码", "coding"),
    "content": ("电文", "content"),
    "for": ("对应指令", "command"),
    "ok_flag": ("执行情况", "done"),
    "reason": ("原因", "reason"),
    "card": ("卡号", "card number"),
    "level": ("通信等级", "level"),
    "interval": ("服务频度 s", "interval, s"),
}


def names_of(sentence: Sentence) -> list[str]:
    """What the fields of a sentence are called, in order; those beyond have no name."""
    kind = sentence.type if sentence.type in _NAMES else sentence.type[:3]
    names = list(_NAMES.get(kind, ()))
    if kind == "GSV":
        whole, rest = divmod(max(0, len(sentence.fields) - 3), 4)
        for number in range(1, whole + 1):
            names += [f"{name}_{number:02d}" for name in ("prn", "elev", "azim", "snr")]
        names += ["signal_id"] * (rest == 1)
    return names
