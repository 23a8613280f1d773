"""Packets of HJ 212 as values: the header fields, the items, and the answers a platform or a station owes.

Everything stays text here. Units belong to the station's configuration and a factor nobody knows passes through, so
the codec never guesses. Times are local (UTC+8) without a zone (HJ 212-2017, 6.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.hj212.frame import RawFrame, Variant, build

CHINA = timezone(timedelta(hours=8))

#: Commands that carry data up and want 9014 back; 2052, 2062 and 2111 are the 2025 edition's.
UPLOADS = frozenset({"2011", "2021", "2051", "2061", "2031", "2041", "2081", "3020", "3019", "2052", "2062", "2111"})
#: Answers nobody answers.
ANSWERS = frozenset({"9011", "9012", "9013", "9014"})

_HEADER = ("QN", "ST", "CN", "PW", "MN", "Flag", "PNUM", "PNO")
#: Free text stands between double slashes and may hold the separators.
_TEXT = re.compile(r"=//.*?//", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. ``factors``: {code: {suffix: text}}; ``fields``: parts without a hyphen. "" = field not there.

    ``crc_variant`` and ``length_ok`` say how it was accepted; ``encoding`` is that of its text.
    """

    cn: str
    mn: str = ""
    st: str = ""
    qn: str = ""
    pw: str = ""
    flag: int | None = None
    pnum: int = 0
    pno: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    factors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)  # header fields of other editions or makers
    crc_variant: Variant = "hj212"
    length_ok: bool = True
    encoding: str = "utf-8"

    @property
    def wants_answer(self) -> bool:
        return self.flag is not None and bool(self.flag & 1)

    @property
    def is_split(self) -> bool:
        """Part of a longer message. Flag bit 1 without PNUM has been seen: that is a whole one."""
        return self.flag is not None and bool(self.flag & 2) and self.pnum > 1

    @property
    def is_upload(self) -> bool:
        return self.cn in UPLOADS

    @property
    def data_time_ms(self) -> int | None:
        """DataTime: 2011 the instant, period data the START of the period."""
        return parse_time(self.fields.get("DataTime", ""))

    @property
    def qn_ms(self) -> int | None:
        return parse_time(self.qn)


def parse_time(text: str) -> int | None:
    """UTC milliseconds of yyyymmddhhmmss[fraction] in UTC+8; None if it is no time."""
    if not (14 <= len(text) <= 20 and text.isascii() and text.isdecimal()):
        return None
    try:
        moment = datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=CHINA)
    except ValueError:
        return None
    fraction = text[14:17]
    return round(moment.timestamp()) * 1000 + (int(fraction.ljust(3, "0")) if fraction else 0)


def format_time(time_ms: int) -> str:
    """yyyymmddhhmmss, UTC+8."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).astimezone(CHINA).strftime("%Y%m%d%H%M%S")


def format_qn(time_ms: int) -> str:
    """yyyymmddhhmmssfff, UTC+8: the name of an exchange."""
    return f"{format_time(time_ms)}{time_ms % 1000:03d}"


def _decode_text(data: bytes) -> tuple[str, str]:
    for encoding in ("utf-8", "gbk"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1"), "latin-1"


def _split(text: str, separator: str) -> list[str]:
    if "=//" not in text:
        return text.split(separator)
    shielded = _TEXT.sub(lambda m: m.group().replace(separator, "\0"), text)
    return [part.replace("\0", separator) for part in shielded.split(separator)]


def _number(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= 4):
        return None
    return int(text)


def parse(frame: RawFrame) -> Packet:
    """The packet in a frame. Raises RemoteProtocolError (reason ``format``) if there is none in it."""
    text, encoding = _decode_text(frame.data)
    head, found, body = text.partition("CP=&&")
    if not found:
        raise RemoteProtocolError("HJ 212 data without CP=&&", reason="format")
    header: dict[str, str] = {}
    for part in head.split(";"):
        key, equals, value = part.partition("=")
        if equals:
            header[key.strip()] = value.strip()
    if not header.get("CN"):
        raise RemoteProtocolError("HJ 212 data without CN", reason="format")
    fields: dict[str, str] = {}
    factors: dict[str, dict[str, str]] = {}
    for item in _split(body.removesuffix("&&"), ";"):
        for part in _split(item, ","):
            key, equals, value = part.partition("=")
            key = key.strip()
            if not equals or not key:
                continue
            code, hyphen, rest = key.partition("-")
            if hyphen and code:
                # Doubled suffixes are about (LA-Rtd-Rtd, LA-Rtd-Flag): the last one says what the value is.
                factors.setdefault(code.strip(), {})[rest.rpartition("-")[2].strip()] = value.strip()
            else:
                fields[key] = value.strip()
    return Packet(
        cn=header["CN"],
        mn=header.get("MN", ""),
        st=header.get("ST", ""),
        qn=header.get("QN", ""),
        pw=header.get("PW", ""),
        flag=_number(header.get("Flag")),
        pnum=_number(header.get("PNUM")) or 0,
        pno=_number(header.get("PNO")) or 0,
        fields=fields,
        factors=factors,
        extra={key: value for key, value in header.items() if key not in _HEADER},
        crc_variant=frame.variant,
        length_ok=frame.length_ok,
        encoding=encoding,
    )


def _legal(packet: Packet) -> None:
    header = [packet.cn, packet.mn, packet.st, packet.qn, packet.pw, *packet.extra, *packet.extra.values()]
    if not packet.cn or any(set(value) & set(";=&\r\n#") for value in header):
        raise LocalProtocolError("HJ 212 header field with a separator in it, or no CN", reason="format")
    names = [*packet.fields, *packet.factors, *(s for parts in packet.factors.values() for s in parts)]
    if any(not name or set(name) & set(";,=&\r\n") for name in names):
        raise LocalProtocolError("HJ 212 item name with a separator in it", reason="format")
    values = [*packet.fields.values(), *(v for parts in packet.factors.values() for v in parts.values())]
    for value in values:
        bare = value if not (value.startswith("//") and value.endswith("//")) else ""
        if set(bare) & set(";,") or "&&" in value or "\r" in value or "\n" in value:
            raise LocalProtocolError(f"HJ 212 value {value!r} holds a separator", reason="format")


def encode_data(packet: Packet) -> bytes:
    """The data part of a packet. Raises LocalProtocolError if a field cannot be said."""
    _legal(packet)
    head = [f"QN={packet.qn}"] if packet.qn else []
    head += [f"ST={packet.st}", f"CN={packet.cn}", f"PW={packet.pw}", f"MN={packet.mn}"]
    if packet.flag is not None:
        head.append(f"Flag={packet.flag}")
    if packet.pnum:
        head += [f"PNUM={packet.pnum}", f"PNO={packet.pno}"]
    head += [f"{key}={value}" for key, value in packet.extra.items()]
    items = [f"{key}={value}" for key, value in packet.fields.items()]
    items += [
        ",".join(f"{code}-{suffix}={value}" for suffix, value in parts.items())
        for code, parts in packet.factors.items()
        if parts
    ]
    try:
        return f"{';'.join(head)};CP=&&{';'.join(items)}&&".encode(packet.encoding)
    except (UnicodeEncodeError, LookupError) as exc:
        raise LocalProtocolError(f"HJ 212 text cannot be said in {packet.encoding}", reason="encoding") from exc


def encode(packet: Packet) -> bytes:
    """The bytes on the wire, with the checksum rule of ``packet.crc_variant``."""
    return build(encode_data(packet), packet.crc_variant)


def upload(
    cn: str,
    mn: str,
    factors: Mapping[str, Mapping[str, str]],
    *,
    data_time_ms: int,
    qn_ms: int,
    st: str = "39",
    pw: str = "123456",
    flag: int = 5,
) -> Packet:
    """An upload as a station sends it. ``flag`` 5: 2017 edition, answer wanted."""
    fields = {"DataTime": format_time(data_time_ms)}
    return Packet(cn=cn, mn=mn, st=st, qn=format_qn(qn_ms), pw=pw, flag=flag, fields=fields, factors=factors)


def _answer(packet: Packet, cn: str, fields: Mapping[str, str]) -> Packet:
    return Packet(
        cn=cn, mn=packet.mn, st="91", qn=packet.qn, pw=packet.pw, flag=4, fields=fields, crc_variant=packet.crc_variant
    )


def data_answer(packet: Packet) -> Packet:
    """9014: the platform has the data. Same QN, and in the station's own checksum rule."""
    return _answer(packet, "9014", {})


def notice_answer(packet: Packet) -> Packet:
    """9013: a notice was taken."""
    return _answer(packet, "9013", {})


def request_answer(packet: Packet, qn_rtn: int = 1) -> Packet:
    """9011: 1 ready to execute, 2 refused, 3 PW, 4 MN, 5 ST, 6 Flag, 7 QN, 8 CN, 9 CRC wrong, 100 unknown."""
    return _answer(packet, "9011", {"QnRtn": str(qn_rtn)})


def execution_answer(packet: Packet, exe_rtn: int = 1) -> Packet:
    """9012: 1 done, 2 failed, 3 wrong condition, 4 timeout, 5 busy, 6 fault, 100 no data."""
    return _answer(packet, "9012", {"ExeRtn": str(exe_rtn)})


def set_clock(mn: str, *, pw: str, st: str, now_ms: int) -> Packet:
    """1012: what a platform sends to set a station's clock; answered by 9011, then 9012."""
    fields = {"SystemTime": format_time(now_ms)}
    return Packet(cn="1012", mn=mn, st=st, qn=format_qn(now_ms), pw=pw, flag=5, fields=fields)


def split(packet: Packet, limit: int = 1024) -> list[Packet]:
    """Packets of at most ``limit`` bytes of data each (the standard's 1024); each repeats the fields (DataTime)."""
    if len(encode_data(packet)) <= limit:
        return [packet]
    groups: list[dict[str, Mapping[str, str]]] = [{}]
    flag = (packet.flag or 4) | 2
    bare = replace(packet, flag=flag, pnum=9999, pno=9999, factors={})
    for code, parts in packet.factors.items():
        trial = {**groups[-1], code: parts}
        if len(encode_data(replace(bare, factors=trial))) > limit and groups[-1]:
            groups.append({code: parts})
        else:
            groups[-1] = trial
    return [replace(bare, pnum=len(groups), pno=n, factors=g) for n, g in enumerate(groups, 1)]
