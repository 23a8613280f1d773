"""From an HJ 212 upload to one sweep: factors to points, text to numbers, item flags to quality."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge.connectors.station_clock import Upload
from protocols.core.model import Float64s, Quality, UInt8s
from protocols.devices import DeviceType, Hj212Point
from protocols.hj212.messages import Packet

#: Item flags (HJ 212-2017, table 6): quality, event to report, code.
FLAGS: dict[str, tuple[Quality, str, str]] = {
    "N": (Quality.GOOD, "", ""),
    "C": (Quality.CALIBRATING, "dev.maintenance", "calibrating"),
    "M": (Quality.MAINTENANCE, "dev.maintenance", "maintenance"),
    "F": (Quality.MAINTENANCE, "dev.maintenance", "stopped"),
    "D": (Quality.BAD, "dev.fault", "faulty"),
    "T": (Quality.BAD, "dev.fault", "over_range"),
    "B": (Quality.BAD, "dev.fault", "no_contact"),
    "S": (Quality.MANUAL, "", ""),
}
#: Suffixes a station may use for the value of an instant when the configured one is not there.
_INSTANT_SUFFIXES = ("Rtd", "Avg", "Data")


@dataclass(frozen=True, slots=True)
class Columns:
    """``flags``: point -> item flag that is not N; ``sampled``: point -> SampleTime as sent, where the sample was taken
    at another time than the upload's; ``unmapped``: factors the device type does not know."""

    points: tuple[str, ...]
    values: Float64s
    quality: UInt8s
    flags: dict[str, str]
    sampled: dict[str, str]
    unmapped: int


#: What stations write; float() alone would take "1_000" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def number(text: str | None, scale: float = 1.0) -> float:
    """NaN for empty, NaN, dashes and everything else that is no finite number."""
    if text is None or _NUMBER.fullmatch(text) is None:
        return math.nan
    value = float(text) * scale
    return value if math.isfinite(value) else math.nan


def columns(packet: Packet, device_type: DeviceType) -> Columns:
    """What the packet says about the points its device type has under this command."""
    names: list[str] = []
    values: list[float] = []
    quality: list[int] = []
    flags: dict[str, str] = {}
    sampled: dict[str, str] = {}
    used: set[str] = set()
    for point in device_type.points:
        binding = point.hj212
        if binding is None or binding.cn != packet.cn or binding.factor not in packet.factors:
            continue
        parts = packet.factors[binding.factor]
        used.add(binding.factor)
        text = _text(parts, binding)
        flag = parts.get("Flag", "N").strip() or "N"
        if text is None and flag == "N":
            continue  # the factor came with other suffixes only
        value = number(text, binding.scale)
        state = FLAGS.get(flag, (Quality.SUSPECT, "", ""))[0]
        if flag != "N":
            flags[point.name] = flag
        if parts.get("SampleTime", "") not in ("", packet.fields.get("DataTime")):
            sampled[point.name] = parts["SampleTime"]
        names.append(point.name)
        values.append(round(value, point.decimals))
        quality.append(Quality.MISSING if math.isnan(value) else state)
    return Columns(
        tuple(names),
        np.array(values, dtype=np.float64),
        np.array(quality, dtype=np.uint8),
        flags,
        sampled,
        len(packet.factors.keys() - used),
    )


def _text(parts: Mapping[str, str], binding: Hj212Point) -> str | None:
    if binding.suffix in parts:
        return parts[binding.suffix]
    if binding.cn == "2011":
        # Averages under CN 2011 have been seen; the value of the moment is the only one such a packet can mean.
        for suffix in _INSTANT_SUFFIXES:
            if suffix in parts:
                return parts[suffix]
    return None


def named(packet: Packet) -> Upload:
    """By what the station's clock is judged, and the name under which a repeat of this upload is recognised."""
    told_ms = packet.qn_ms
    if told_ms is None and packet.cn == "2011":
        told_ms = packet.data_time_ms  # period data are old by nature; only an instant tells the clock
    name = f"{packet.mn}/{packet.cn}/{packet.fields.get('DataTime', packet.qn)}"
    return Upload(name, zlib.crc32(repr((packet.fields, packet.factors)).encode()), packet.data_time_ms, told_ms)
