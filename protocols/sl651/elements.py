"""Elements of an SL 651 body: identifier, definition byte, data; and the table of what each identifier is.

The definition byte gives length (high five bits) and decimals (low three): stations use other lengths than the table
(three bytes of river level are in the field), so the table is for names and units and never for cutting. Names beyond
the fact sheet's are those of annex C of the published standard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from protocols.core.errors import LocalProtocolError

#: What a value may be: one number as text, a series of them, or none.
Value = str | None | tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class ElementType:
    """``name``: in ASCII telegrams. ``definition``: the usual one; 0 where the element has a form of its own."""

    id: str
    name: str
    zh: str
    en: str
    unit: str = ""
    definition: int = 0


def _rows() -> list[ElementType]:
    def soil(identifier: int, cm: int) -> ElementType:
        return ElementType(
            f"{identifier:02X}", f"M{cm}", f"{cm} 厘米土壤含水量", f"soil moisture at {cm} cm", "%", 0x11
        )

    return [
        ElementType("01", "AC", "断面面积", "cross-section", "m2", 0x2A),
        ElementType("02", "AI", "气温", "air temperature", "degC", 0x19),
        ElementType("03", "C", "水温", "water temperature", "degC", 0x11),
        ElementType("04", "DRxnn", "时间步长", "time step", "", 0x18),
        ElementType("05", "DT", "时段长", "length of the period", "", 0x10),
        ElementType("06", "ED", "日蒸发量", "evaporation of the day", "mm", 0x19),
        ElementType("07", "EJ", "当前蒸发", "evaporation now", "mm", 0x19),
        ElementType("08", "FL", "气压", "air pressure", "hPa", 0x18),
        ElementType("09", "GH", "闸门开启高度", "gate opening", "m", 0x1A),
        ElementType("0A", "GN", "闸门编号", "gate number", "", 0x18),
        ElementType("0B", "GS", "输水设备类别", "kind of conveyance", "", 0x08),
        ElementType("0C", "GT", "闸门开启孔数", "gates open", "", 0x10),
        ElementType("0D", "GTP", "地温", "ground temperature", "degC", 0x11),
        ElementType("0E", "H", "地下水埋深", "depth to ground water", "m", 0x1A),
        ElementType("0F", "HW", "波浪高度", "wave height", "m", 0x1A),
        *(soil(0x10 + n, cm) for n, cm in enumerate((10, 20, 30, 40, 50, 60, 80, 100))),
        ElementType("18", "MST", "湿度", "humidity", "%", 0x11),
        ElementType("19", "NS", "开机台数", "machines running", "", 0x10),
        *(
            ElementType(f"{0x1A + n:02X}", f"P{h}", f"{h} 小时降水量", f"rain of {h} h", "mm", 0x19)
            for n, h in enumerate((1, 2, 3, 6, 12))
        ),
        ElementType("1F", "PD", "日降水量", "rain of the day", "mm", 0x19),
        ElementType("20", "PJ", "当前降水量", "rain now (day so far)", "mm", 0x19),
        *(
            ElementType(f"{0x21 + n:02X}", f"PN{m:02d}", f"{m} 分钟降水量", f"rain of {m} min", "mm", 0x19)
            for n, m in enumerate((1, 5, 10, 30))
        ),
        ElementType("25", "PR", "暴雨量", "storm rain", "mm", 0x19),
        ElementType("26", "PT", "降水量累计值", "rain, running total", "mm", 0x19),
        ElementType("27", "Q", "瞬时流量", "flow", "m3/s", 0x2B),
        *(
            ElementType(f"{0x28 + n:02X}", f"Q{n + 1}", f"取排水口流量 {n + 1}", f"intake flow {n + 1}", "m3/s", 0x2B)
            for n in range(8)
        ),
        ElementType("30", "QA", "总出库流量", "total outflow", "m3/s", 0x2B),
        ElementType("31", "QZ", "过闸流量", "flow through the gate", "m3/s", 0x2B),
        ElementType("32", "SW", "输沙量", "sediment load", "", 0x2B),
        ElementType("33", "UC", "风向", "wind direction", "", 0x08),
        ElementType("34", "UE", "风力", "wind force", "Bft", 0x10),
        ElementType("35", "US", "风速", "wind speed", "m/s", 0x19),
        ElementType("36", "VA", "断面平均流速", "mean speed of the water", "m/s", 0x1B),
        ElementType("37", "VJ", "瞬时流速", "speed of the water", "m/s", 0x1B),
        ElementType("38", "VT", "电源电压", "supply voltage", "V", 0x12),
        ElementType("39", "Z", "河道水位", "river level", "m", 0x23),
        ElementType("3A", "ZB", "库下水位", "level below the dam", "m", 0x23),
        ElementType("3B", "ZU", "库上水位", "level above the dam", "m", 0x23),
        *(
            ElementType(f"{0x3C + n:02X}", f"Z{n + 1}", f"取排水口水位 {n + 1}", f"intake level {n + 1}", "m", 0x23)
            for n in range(8)
        ),
        ElementType("44", "SQ", "含沙量", "sediment content", "kg/m3", 0x2B),
        ElementType("45", "ZT", "状态及报警", "status and alarms", "", 0x20),
        ElementType("46", "pH", "pH 值", "pH", "", 0x12),
        ElementType("47", "DO", "溶解氧", "dissolved oxygen", "mg/L", 0x11),
        ElementType("48", "COND", "电导率", "conductivity", "uS/cm", 0x18),
        ElementType("49", "TURB", "浊度", "turbidity", "NTU", 0x10),
        ElementType("4A", "CODMN", "高锰酸盐指数", "permanganate index", "mg/L", 0x11),
        ElementType("4B", "REDOX", "氧化还原电位", "redox potential", "mV", 0x11),
        ElementType("4C", "NH4N", "氨氮", "ammonia nitrogen", "mg/L", 0x1A),
        ElementType("4D", "TP", "总磷", "total phosphorus", "mg/L", 0x1B),
        ElementType("4E", "TN", "总氮", "total nitrogen", "mg/L", 0x1A),
        ElementType("4F", "TOC", "总有机碳", "total organic carbon", "mg/L", 0x1A),
        *(
            ElementType(f"{0x58 + n:02X}", f"WP{n + 1}", f"水压 {n + 1}", f"water pressure {n + 1}", "kPa", 0x22)
            for n in range(8)
        ),
        *(
            ElementType(
                f"{0x60 + n:02X}", f"SYL{n + 1}", f"水表 {n + 1} 剩余水量", f"water meter {n + 1}: left", "m3", 0x23
            )
            for n in range(8)
        ),
        *(
            ElementType(
                f"{0x68 + n:02X}", f"SBL{n + 1}", f"水表 {n + 1} 小时水量", f"water meter {n + 1}: hour", "m3", 0x23
            )
            for n in range(8)
        ),
        *(
            ElementType(f"{0x70 + n:02X}", f"VT{p}", f"交流 {p} 相电压", f"mains voltage {p}", "V", 0x11)
            for n, p in enumerate("ABC")
        ),
        *(
            ElementType(f"{0x73 + n:02X}", f"VI{p}", f"交流 {p} 相电流", f"mains current {p}", "A", 0x11)
            for n, p in enumerate("ABC")
        ),
        ElementType("F4", "DRP", "1 小时内每 5 分钟雨量", "rain by 5 minutes of the past hour", "mm", 0x60),
        *(
            ElementType(
                f"{0xF5 + n:02X}", f"DRZ{n + 1}", f"每 5 分钟水位 {n + 1}", f"level {n + 1} by 5 minutes", "m", 0xC0
            )
            for n in range(8)
        ),
    ]  # fmt: skip


ELEMENTS: dict[str, ElementType] = {row.id: row for row in _rows()}
BY_NAME: dict[str, ElementType] = {row.name.upper(): row for row in ELEMENTS.values()}

#: Kinds of station. In ASCII telegrams the same byte stands as a letter (48 is H).
STATION_TYPES: dict[str, tuple[str, str]] = {
    "50": ("降水", "rain"),
    "48": ("河道", "river"),
    "4B": ("水库、湖泊", "reservoir"),
    "5A": ("闸坝", "gate or weir"),
    "44": ("泵站", "pump"),
    "54": ("潮汐", "tide"),
    "4D": ("墒情", "soil"),
    "47": ("地下水", "ground water"),
    "51": ("水质", "water quality"),
    "49": ("取水口", "intake"),
    "4F": ("排水口", "outlet"),
}

#: Bits of element 45, lowest first. Bit 7 is 0 when the door is OPEN.
STATUS_BITS: tuple[tuple[str, str], ...] = (
    ("交流电停", "mains off"),
    ("蓄电池电压低", "battery low"),
    ("水位超限", "level alarm"),
    ("流量超限", "flow alarm"),
    ("水质超限", "quality alarm"),
    ("流量仪表故障", "flow meter faulty"),
    ("水位仪表故障", "level gauge faulty"),
    ("箱门", "cabinet door (0 = open)"),
    ("存储器异常", "memory faulty"),
    ("IC 卡有效", "IC card on"),
    ("水泵停机", "pump stopped"),
    ("剩余水量超限", "volume exceeded"),
)
DOOR_BIT = 7

#: Slots of the fixed series: twelve of five minutes; the observation time is the first slot's.
SERIES_STEP_MS = 300_000
SLOTS = 12
_RAIN_SERIES = "F4"
#: Element 05 as the standard has it: hours and minutes as text.
_CLOCK = re.compile(rb"\d\d?[.:]\d\d")
_LEVEL_SERIES = frozenset(f"{n:02X}" for n in range(0xF5, 0xFD))


#: The time step of what follows: dd hh mm.
TIME_STEP = "04"


def step_ms(raw: bytes) -> int:
    """Milliseconds of a time step; five minutes where it says none."""
    digits = raw.hex()
    if len(raw) != 3 or not digits.isdecimal():
        return SERIES_STEP_MS
    days, hours, minutes = (int(digits[at : at + 2]) for at in (0, 2, 4))
    return ((days * 24 + hours) * 60 + minutes) * 60_000 or SERIES_STEP_MS


def series_width(identifier: str) -> int:
    """Bytes of one slot; 0 for what is no series."""
    return 1 if identifier == _RAIN_SERIES else 2 if identifier in _LEVEL_SERIES else 0


def bcd(raw: bytes, decimals: int = 0) -> str | None:
    """The number in BCD, high byte first; first byte FF = negative. None for AA.., FF.. and what are no digits."""
    if not raw or set(raw) <= {0xFF} or set(raw) <= {0xAA}:
        return None
    negative = raw[0] == 0xFF
    digits = raw[negative:].hex()
    if not digits.isdecimal():
        return None
    number = Decimal(int(digits)).scaleb(-decimals)
    return f"{-number if negative else number:f}"


def to_bcd(value: Decimal | None, definition: int) -> bytes:
    """The data of that definition; all FF for no value. Raises LocalProtocolError if it does not fit."""
    length, decimals = definition >> 3, definition & 7
    if value is None:
        return b"\xff" * length
    digits = int(abs(value).scaleb(decimals).to_integral_value())
    room = 2 * length - (2 if value < 0 else 0)
    if room <= 0 or digits >= 10**room:
        raise LocalProtocolError(f"SL 651: {value} does not fit definition {definition:02X}", reason="range")
    sign = b"\xff" if value < 0 else b""
    return sign + bytes.fromhex(f"{digits:0{room}d}")


def series(raw: bytes, identifier: str) -> tuple[str | None, ...]:
    """F4: a byte per slot in 0.1 mm, FF = none. F5..FC: two bytes per slot in cm, FFFF = none."""
    width = series_width(identifier)
    out: list[str | None] = []
    for at in range(0, len(raw) - width + 1, width):
        slot = raw[at : at + width]
        scale = 1 if width == 1 else 2
        number = Decimal(int.from_bytes(slot, "big")).scaleb(-scale)
        out.append(None if set(slot) == {0xFF} else f"{number:f}")
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Element:
    """One element. ``id``: two hex digits, four for makers' own (``FF11``); ASCII names nobody knows stay names.

    ``text``: the value of an ASCII telegram (then ``raw`` is empty). ``at``: where it stands in the body. Behind a time
    step (element 04) ``raw`` holds as many values as came, each as long as the definition says; ``step_ms``: the time
    from one value of a series to the next.
    """

    id: str
    definition: int = 0
    raw: bytes = b""
    text: str = ""
    at: int = field(default=0, compare=False)
    size: int = field(default=0, compare=False)
    step_ms: int = field(default=SERIES_STEP_MS, compare=False)

    @property
    def type(self) -> ElementType | None:
        return ELEMENTS.get(self.id)

    @property
    def value(self) -> Value:
        """Number as text, a tuple for a series, None where the station has no value. Element 45 is hex text."""
        if " " in self.text:
            return tuple(_number(word) for word in self.text.split(" "))
        if series_width(self.id):
            return series(self.raw or _hex(self.text), self.id)
        if self.text:
            return _number(self.text)
        if self.id == "45":
            return self.raw.hex().upper()
        if self.id == "05" and _CLOCK.fullmatch(self.raw):
            return self.raw.decode("ascii")
        width = self.definition >> 3
        if 0 < width < len(self.raw):
            parts = range(0, len(self.raw), width)
            return tuple(bcd(self.raw[at : at + width], self.definition & 7) for at in parts)
        return bcd(self.raw, self.definition & 7)

    @property
    def bits(self) -> int | None:
        """Element 45 as a number: bit 0 is the lowest of the last byte."""
        raw = self.raw or _hex(self.text)
        return int.from_bytes(raw, "big") if raw else None


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _number(text: str) -> str | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return text if number.is_finite() and text.isascii() and "_" not in text else None


def is_number(text: str) -> bool:
    return _number(text) is not None


def element(identifier: str, value: str | Decimal | None, definition: int | None = None) -> Element:
    """An element to send, with its usual definition unless another is given."""
    known = ELEMENTS.get(identifier)
    chosen = definition if definition is not None else known.definition if known else 0
    if not chosen:
        raise LocalProtocolError(f"SL 651 element {identifier!r} needs a definition byte", reason="definition")
    number = None if value is None else Decimal(value)
    return Element(identifier, chosen, to_bcd(number, chosen))


def rain_series(millimetres: tuple[Decimal | None, ...]) -> Element:
    """F4: twelve slots of five minutes; None is a slot without a value."""
    raw = bytes(0xFF if one is None else min(0xFE, int(one.scaleb(1).to_integral_value())) for one in millimetres)
    if len(raw) != SLOTS:
        raise LocalProtocolError("SL 651: the rain of an hour has twelve slots", reason="range")
    return Element(_RAIN_SERIES, 0x60, raw)
