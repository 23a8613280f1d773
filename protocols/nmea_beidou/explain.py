"""An NMEA 0183 or BeiDou capture told field by field."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import Capture, Explanation, Field, Told, Verdict
from protocols.nmea_beidou import beidou, gnss
from protocols.nmea_beidou.labels import FIELDS, SENTENCES, names_of
from protocols.nmea_beidou.sentence import Sentence, checksum, judge, text_of

_LINE = re.compile(rb"[$!][^$\r\n]*")
_HEADLESS = re.compile(rb"(?<![A-Z0-9$!])[A-Z][A-Z0-9]{4,9},[^$\r\n*]*\*[0-9A-Fa-f]{2}")
_SHORT_CHECKSUM = re.compile(rb"\*([0-9A-Fa-f]{2})")


def explain(capture: Capture) -> Explanation:
    """Never raises for what is in the capture. A sentence without a checksum is told unless ``strict``."""
    data = capture.data
    tolds: list[Told] = []
    types: list[str] = []
    at = 0
    for match in _LINE.finditer(data):
        if data[at : match.start()].strip():
            tolds.append(_noise(at, match.start() - at))
        told, sentence = _line(match.start(), match[0], strict=capture.strict)
        tolds.append(told)
        if sentence is not None:
            types.append(sentence.type)
        at = match.end()
    if data[at:].strip():
        tolds.append(_noise(at, len(data) - at))
    if not types and not capture.strict:
        for match in _HEADLESS.finditer(data):
            # The line without its $ (a shell or a form took it); only a checksum that fits makes it a sentence.
            told, sentence = _line(match.start() - 1, b"$" + match[0], strict=True)
            if sentence is not None:
                hints = (*told.hints, "缺少起始符 $ / the $ at its start is missing")
                tolds.append(replace(told, offset=match.start(), length=len(match[0]), hints=hints))
                types.append(sentence.type)
    good = [one for one in tolds if one.ok]
    values: dict[str, Any] = {}
    if good:
        values = {**good[0].values, "frames": len(good), "sentences": len(good), "types": types}
    return Explanation("nmea_beidou", tuple(tolds), values)


def _noise(at: int, size: int) -> Told:
    return Told(at, size, "噪声 noise", error="garbage", detail=f"{size} bytes outside any sentence")


def _line(at: int, line: bytes, *, strict: bool) -> tuple[Told, Sentence | None]:
    found = judge(line, bare=not strict)
    verdict = _verdict(line)
    if isinstance(found, RemoteProtocolError):
        hints = _hints(line, found.reason)
        return Told(at, len(line), "", (), {}, verdict, found.reason, str(found), hints), None
    fields = _fields(at, line, found)
    values, notes = _values(found)
    if not found.checked:
        notes.append("无校验和, 仅在接收机如此配置时接受 / no checksum: taken only where configured so")
    zh, en = SENTENCES.get(found.type[:3], ("未知语句", "unknown sentence"))
    title = f"{found.talker}{found.type} {zh} {en}"
    return Told(at, len(line), title, tuple(fields), values, verdict, hints=tuple(notes)), found


def _verdict(line: bytes) -> Verdict | None:
    star = line.rfind(b"*")
    stored = _SHORT_CHECKSUM.match(line[star:]) if star >= 0 else None
    if stored is None:
        return None
    return Verdict("XOR $..*", stored[1].decode().lower(), f"{checksum(line[1:star]):02x}")


def _hints(line: bytes, reason: str) -> tuple[str, ...]:
    star = line.rfind(b"*")
    if reason == "checksum" and (stored := _SHORT_CHECKSUM.match(line[star:])):
        wanted = int(stored[1], 16)
        if checksum(line[:star]) == wanted:
            return ("计入起始符 $ 则校验成立 / fits if the $ is counted in",)
        if checksum(line[1 : star + 1]) == wanted:
            return ("计入 * 则校验成立 / fits if the star is counted in",)
        if checksum(line[1:star].upper()) == wanted:
            return ("大小写被改动 / fits in upper case: somebody changed the case",)
        return ("语句被改动, 或两句混在一起 / characters were changed or lost, or two sentences ran together",)
    if reason == "no_checksum":
        return ("语句在 * 前中断, 或接收机不带校验 / cut off before the star, or a receiver without checksums",)
    if reason == "trailing_garbage":
        return ("校验成立, 其后还有字符 / the checksum fits; something follows it on the line",)
    return ()


def _fields(at: int, line: bytes, sentence: Sentence) -> list[Field]:
    names = names_of(sentence)
    out = [
        Field(
            "address", sentence.talker + sentence.type, at + 1, len(sentence.talker + sentence.type), "地址", "address"
        )
    ]
    place = at + 2 + len(sentence.talker + sentence.type)
    for number, value in enumerate(sentence.fields, 1):
        name = names[number - 1] if number <= len(names) else f"field_{number:02d}"
        zh, en = FIELDS.get(name.rstrip("0123456789_"), ("", ""))
        out.append(Field(name, text_of(value) if value else None, place, len(value), zh, en))
        place += len(value) + 1
    return out


def _values(sentence: Sentence) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {"talker": sentence.talker, "type": sentence.type}
    if sentence.talker == "P":
        values["proprietary"] = True
    said = gnss.attributes(sentence)
    notes: list[str] = []
    if (module := beidou.read(sentence)) is not None or sentence.type in _MODULE_ONLY:
        return values | _module(sentence, module), notes
    if not said or "field_01" in said:
        values |= {"unknown": True, "fields": [text_of(field) for field in sentence.fields]}
        return values, notes
    values |= _place(sentence, said) | _clock(sentence)
    tell = _TELL.get(sentence.type[:3])
    if tell is not None:
        values |= tell(sentence, said)
    else:
        # What was told above is neither said twice nor with other digits.
        rest = {key: value for key, value in said.items() if key not in values}
        values |= {key: str(value) if value is not None else None for key, value in rest.items()}
    if gnss.has_fix(sentence, said) is False and "lat" in values:
        notes.append("无有效定位, 坐标可能是上一次的 / no valid fix: the place may be the last known one")
    return values, notes


def _place(sentence: Sentence, said: Any) -> dict[str, Any]:
    found = gnss.place(sentence, said)
    if found is not None:
        return {"lat": round(found.lat, 7), "lon": round(found.lon, 7)}
    return {"lat": None, "lon": None} if "lat" in said else {}


def _clock(sentence: Sentence) -> dict[str, Any]:
    clock = gnss.clock(sentence)
    if clock is None:
        return {}
    values: dict[str, Any] = {"time": None if clock.of_day_ms is None else _clock_text(clock.of_day_ms)}
    if sentence.type[:3] in ("RMC", "ZDA"):
        values["datetime"] = None
        if clock.utc_ms is not None and clock.of_day_ms is not None:
            day = f"{clock.year:04d}-{clock.month:02d}-{clock.day:02d}"
            values["datetime"] = f"{day}T{_clock_text(clock.of_day_ms)}Z"
    return values


def _clock_text(of_day_ms: int) -> str:
    leap = of_day_ms >= 86_400_000  # 23:59:60
    seconds, ms = divmod(of_day_ms - 1000 if leap else of_day_ms, 1000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{60 if leap else seconds % 60:02d}"
    return f"{text}.{ms:03d}" if ms else text


def _rmc(sentence: Sentence, said: Any) -> dict[str, Any]:
    values = {
        "status": said.get("status"), "valid": gnss.has_fix(sentence, said), "speed_kn": said.get("spd"),
        "course": said.get("cog"), "mag_var": _signed(said.get("mv"), said.get("mvEW")), "mode": said.get("posMode"),
    }  # fmt: skip
    return values | ({"nav_status": said["navStatus"]} if "navStatus" in said else {})


def _signed(value: Any, side: Any) -> Any:
    return -value if isinstance(value, float) and side == "W" else value


def _gga(sentence: Sentence, said: Any) -> dict[str, Any]:
    return {
        "quality": said.get("quality"), "valid": gnss.has_fix(sentence, said), "sats": said.get("numSV"),
        "hdop": said.get("HDOP"), "altitude": said.get("alt"), "geoid_sep": said.get("sep"),
        "age": said.get("diffAge"), "station": sentence.field(14) or None,
    }  # fmt: skip


def _gll(sentence: Sentence, said: Any) -> dict[str, Any]:
    return {"status": said.get("status"), "valid": gnss.has_fix(sentence, said), "mode": said.get("posMode")}


def _vtg(sentence: Sentence, said: Any) -> dict[str, Any]:
    return {
        "true_track": said.get("cogt"), "mag_track": said.get("cogm"), "speed_kn": said.get("sogn"),
        "speed_kmh": said.get("sogk"), "mode": said.get("posMode"),
    }  # fmt: skip


def _gsa(sentence: Sentence, said: Any) -> dict[str, Any]:
    used = [said[f"svid_{n:02d}"] for n in range(1, 13) if said.get(f"svid_{n:02d}") is not None]
    values = {
        "op_mode": said.get("opMode"), "nav_mode": said.get("navMode"), "sats": used, "pdop": said.get("PDOP"),
        "hdop": said.get("HDOP"), "vdop": said.get("VDOP"),
    }  # fmt: skip
    system = said.get("systemId")
    known = isinstance(system, str) and len(system) == 1 and system in "0123456789ABCDEFabcdef"
    return values | ({"system_id": int(system, 16)} if known else {})


def _gsv(sentence: Sentence, said: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "total_msgs": said.get("numMsg"), "msg": said.get("msgNum"), "total_sats": said.get("numSV"),
        "sats": [
            {"prn": one.prn, "elev": one.elevation_deg, "azim": one.azimuth_deg, "snr": one.snr_db}
            for one in gnss.satellites(sentence, said)
        ],
    }  # fmt: skip
    return values | ({"signal_id": said["signalID"]} if said.get("signalID") is not None else {})


def _gns(sentence: Sentence, said: Any) -> dict[str, Any]:
    mode = sentence.field(6)
    return {
        "mode": mode or None, "valid": bool(mode.strip("N")), "sats": said.get("numSV"), "hdop": said.get("HDOP"),
        "altitude": said.get("alt"), "geoid_sep": said.get("sep"), "age": said.get("diffAge"),
        "station": sentence.field(12) or None,
    }  # fmt: skip


def _zda(sentence: Sentence, said: Any) -> dict[str, Any]:
    return {"zone_h": _zone(sentence.field(5)), "zone_m": _zone(sentence.field(6))}


def _zone(field: str) -> int | None:
    try:
        return int(field)
    except ValueError:
        return None


def _gst(sentence: Sentence, said: Any) -> dict[str, Any]:
    return {
        "rms": said.get("rangeRms"), "sd_major": said.get("stdMajor"), "sd_minor": said.get("stdMinor"),
        "orientation": said.get("orient"), "sd_lat": said.get("stdLat"), "sd_lon": said.get("stdLong"),
        "sd_alt": said.get("stdAlt"),
    }  # fmt: skip


def _mwv(sentence: Sentence, said: Any) -> dict[str, Any]:
    return {
        "wind_angle": said.get("angle"), "reference": said.get("reference"), "wind_speed": said.get("speed"),
        "unit": said.get("speedu"), "status": said.get("status"),
    }  # fmt: skip


def _xdr(sentence: Sentence, said: Any) -> dict[str, Any]:
    return {"transducers": [[one.kind, one.value, one.unit, one.name] for one in gnss.transducers(sentence)]}


_TELL: dict[str, Callable[[Sentence, Any], dict[str, Any]]] = {
    "RMC": _rmc, "GGA": _gga, "GLL": _gll, "VTG": _vtg, "GSA": _gsa, "GSV": _gsv, "ZDA": _zda, "GST": _gst, "GNS": _gns,
    "MWV": _mwv, "XDR": _xdr,
}  # fmt: skip

#: Sentences of BeiDou modules that carry no message.
_MODULE_ONLY = frozenset({"ICI", "ICP", "BSI", "PWI", "ICA", "ZTI", "RNX", "SNR"})
_KINDS = {
    "TXR": "TXR (BDS-2 message received)",
    "ICP": "ICP (BDS-3 card data)",
}


def _module(sentence: Sentence, module: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": _KINDS.get(sentence.type, sentence.type)}
    if isinstance(module, beidou.ShortMessage):
        values |= {
            "sender": module.sender, "receiver": module.receiver, "coding": module.coding,
            "content": module.content, "content_text": module.text or None,
        }  # fmt: skip
        if sentence.type == "TXR":
            values["time"] = sentence.field(4)
        elif module.of_day_ms is not None:
            values["time"] = _clock_text(module.of_day_ms)
        if sentence.type in ("TCI", "TCQ"):
            values |= {"freq": module.frequency, "flag": module.flag}
    elif isinstance(module, beidou.Feedback):
        values |= {
            "for": module.command, "ok_flag": "Y" if module.ok else "N", "reason": module.reason,
            "wait": module.wait_s, "meaning": module.meaning,
        }  # fmt: skip
    elif isinstance(module, beidou.Card):
        values |= {"card": module.number, "level": module.level, "interval": module.interval_s}
    else:
        values["fields"] = [text_of(field) for field in sentence.fields]
    return values
