"""Data identifiers of DL/T 645-2007 and 1997: what they are called and how their bytes look.

The standard's text was not at hand: energies, demand, variables, clock and numbers are what independent
implementations and captures agree on (and vectors prove); event counters, parameters, status bits and frozen records
come from public descriptions only and are marked ``unproven``. What is not here stays raw bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

Kind = Literal["number", "demand", "date", "time", "datetime", "stamp", "moment", "digits", "text", "bits"]


@dataclass(frozen=True, slots=True)
class Format:
    """How one item of an identifier looks. ``signed``: the top bit of the highest byte is sign or direction.
    ``items``: several different ones, in this order. ``repeats``: as many as the data hold."""

    size: int
    decimals: int = 0
    unit: str = ""
    signed: bool = False
    kind: Kind = "number"
    items: tuple[Format, ...] = ()
    repeats: bool = False
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    form: Format
    zh: str
    en: str


_ENERGY = Format(4, 2, "kWh")
_MOMENT = Format(5, kind="moment")
_STAMP = Format(6, kind="stamp")
_COUNT = Format(3, unproven=True)
_MINUTES = Format(3, unit="min", unproven=True)
_ONE = Format(1, unproven=True)

#: ZZ of 00ZZTTSS / 01ZZTTSS: energy and demand unit, signed, names. Phases A, B, C: active ones plus 14, 28, 3C
#: (the other sums of one phase: makers use these numbers for things of their own, so they stay raw).
_ZZ: dict[int, tuple[str, str, bool, str, str]] = {
    0x00: ("kWh", "kW", True, "组合有功", "combined active"),
    0x01: ("kWh", "kW", False, "正向有功", "forward active"),
    0x02: ("kWh", "kW", False, "反向有功", "reverse active"),
    0x03: ("kvarh", "kvar", True, "组合无功1", "combined reactive 1"),
    0x04: ("kvarh", "kvar", True, "组合无功2", "combined reactive 2"),
    0x05: ("kvarh", "kvar", False, "第一象限无功", "quadrant 1 reactive"),
    0x06: ("kvarh", "kvar", False, "第二象限无功", "quadrant 2 reactive"),
    0x07: ("kvarh", "kvar", False, "第三象限无功", "quadrant 3 reactive"),
    0x08: ("kvarh", "kvar", False, "第四象限无功", "quadrant 4 reactive"),
    0x09: ("kVAh", "kVA", False, "正向视在", "forward apparent"),
    0x0A: ("kVAh", "kVA", False, "反向视在", "reverse apparent"),
}
#: Further energies (no demand): related, fundamental, harmonic, losses.
_LOSS_ZZ = {
    0x80: ("关联总", "related total"),
    0x81: ("正向有功基波", "forward active fundamental"),
    0x82: ("反向有功基波", "reverse active fundamental"),
    0x83: ("正向有功谐波", "forward active harmonic"),
    0x84: ("反向有功谐波", "reverse active harmonic"),
    0x85: ("铜损有功", "copper loss"),
    0x86: ("铁损有功", "iron loss"),
}
_PHASE = {0x00: ("", ""), 0x14: ("A相", "phase A "), 0x28: ("B相", "phase B "), 0x3C: ("C相", "phase C ")}

_INSTANT: dict[str, Entry] = {
    "0201": Entry(Format(2, 1, "V"), "电压", "voltage"),
    "0202": Entry(Format(3, 3, "A", signed=True), "电流", "current"),
    "0203": Entry(Format(3, 4, "kW", signed=True), "有功功率", "active power"),
    "0204": Entry(Format(3, 4, "kvar", signed=True), "无功功率", "reactive power"),
    "0205": Entry(Format(3, 4, "kVA", signed=True), "视在功率", "apparent power"),
    "0206": Entry(Format(2, 3, "", signed=True), "功率因数", "power factor"),
    "0207": Entry(Format(2, 1, "deg"), "相角", "phase angle"),
    "0208": Entry(Format(2, 2, "%"), "电压失真度", "voltage distortion"),
    "0209": Entry(Format(2, 2, "%"), "电流失真度", "current distortion"),
}
_OF_PHASE = (("总", " total"), ("A相", " A"), ("B相", " B"), ("C相", " C"), ("各相", " all"))
_HARMONIC = {"020A": ("电压谐波含量", "voltage harmonic"), "020B": ("电流谐波含量", "current harmonic")}

_EXACT: dict[str, Entry] = {
    "02800001": Entry(Format(3, 3, "A", signed=True), "零线电流", "neutral current"),
    "02800002": Entry(Format(2, 2, "Hz"), "电网频率", "frequency"),
    "02800003": Entry(Format(3, 4, "kW", signed=True), "一分钟有功平均功率", "active power, mean of a minute"),
    "02800004": Entry(Format(3, 4, "kW", signed=True), "当前有功需量", "running active demand"),
    "02800005": Entry(Format(3, 4, "kvar", signed=True), "当前无功需量", "running reactive demand"),
    "02800006": Entry(Format(3, 4, "kVA", signed=True), "当前视在需量", "running apparent demand"),
    "02800007": Entry(Format(2, 1, "degC", signed=True), "表内温度", "temperature inside"),
    "02800008": Entry(Format(2, 2, "V"), "时钟电池电压", "clock battery"),
    "02800009": Entry(Format(2, 2, "V"), "停电抄表电池电压", "reading battery"),
    "0280000A": Entry(Format(4, unit="min", unproven=True), "内部电池工作时间", "battery working time"),
    "0280000B": Entry(Format(4, 4, "CNY/kWh", unproven=True), "当前阶梯电价", "price of this step"),
    "04000101": Entry(Format(4, kind="date"), "日期及星期", "date and weekday"),
    "04000102": Entry(Format(3, kind="time"), "时间", "time"),
    "04000103": Entry(replace(_ONE, unit="min"), "最大需量周期", "demand period"),
    "04000104": Entry(replace(_ONE, unit="min"), "滑差时间", "slip time"),
    "0400010C": Entry(Format(7, kind="datetime"), "日期时间", "date and time"),
    "04000106": Entry(replace(_MOMENT, unproven=True), "两套时区表切换时间", "zone tables change over"),
    "04000107": Entry(replace(_MOMENT, unproven=True), "两套日时段表切换时间", "day tables change over"),
    "04000201": Entry(_ONE, "年时区数", "yearly zones"),
    "04000202": Entry(_ONE, "日时段表数", "day tables"),
    "04000203": Entry(_ONE, "日时段数", "daily periods"),
    "04000204": Entry(_ONE, "费率数", "tariffs"),
    "04000306": Entry(Format(3), "电流互感器变比", "current transformer ratio"),
    "04000307": Entry(Format(3), "电压互感器变比", "voltage transformer ratio"),
    "04000401": Entry(Format(6, kind="digits"), "通信地址", "communication address"),
    "04000402": Entry(Format(6, kind="digits"), "表号", "meter number"),
    "04000403": Entry(Format(32, kind="text"), "资产管理编码", "asset code"),
    "04000404": Entry(Format(6, kind="text"), "额定电压", "rated voltage"),
    "04000405": Entry(Format(6, kind="text"), "额定电流", "rated current"),
    "04000406": Entry(Format(6, kind="text"), "最大电流", "maximum current"),
    "04000407": Entry(Format(4, kind="text"), "有功准确度等级", "active accuracy class"),
    "04000408": Entry(Format(4, kind="text"), "无功准确度等级", "reactive accuracy class"),
    "04000409": Entry(Format(3), "有功常数", "active constant"),
    "0400040A": Entry(Format(3), "无功常数", "reactive constant"),
    "0400040B": Entry(Format(10, kind="text"), "电表型号", "model"),
    "0400040C": Entry(Format(10, kind="text", unproven=True), "生产日期", "made on"),
    "0400040D": Entry(Format(16, kind="text", unproven=True), "协议版本号", "protocol version"),
    "0400040E": Entry(Format(6, kind="digits", unproven=True), "客户编号", "customer number"),
    **{f"0400050{n}": Entry(Format(2, kind="bits"), f"状态字{n}", f"status word {n}") for n in range(1, 8)},
    "040005FF": Entry(Format(2, kind="bits", repeats=True), "状态字", "status words"),
    "04000B01": Entry(Format(2, kind="bits", unproven=True), "第1结算日", "settlement day 1"),
    "04000E03": Entry(Format(2, 1, "V", unproven=True), "电压上限", "voltage upper limit"),
    "04000E04": Entry(Format(2, 1, "V", unproven=True), "电压下限", "voltage lower limit"),
    "04000F01": Entry(replace(_ENERGY, unproven=True), "报警电量1", "alarm energy 1"),
    "04000F02": Entry(replace(_ENERGY, unproven=True), "报警电量2", "alarm energy 2"),
    "04001401": Entry(Format(2, unit="min", unproven=True), "跳闸延时时间", "trip delay"),
    "04800001": Entry(Format(32, kind="text", unproven=True), "厂家软件版本号", "maker's software version"),
    "04800002": Entry(Format(32, kind="text", unproven=True), "厂家硬件版本号", "maker's hardware version"),
    "04800003": Entry(Format(32, kind="text", unproven=True), "厂家编号", "maker's number"),
    "00900100": Entry(Format(4, 2, "kWh"), "剩余电量", "remaining energy"),
    "00900101": Entry(Format(4, 2, "kWh", unproven=True), "透支电量", "overdrawn energy"),
    "00900200": Entry(Format(4, 2, "CNY"), "剩余金额", "remaining money"),
    "00900201": Entry(Format(4, 2, "CNY", unproven=True), "透支金额", "overdrawn money"),
    # -- events: how often
    "03050000": Entry(Format(6, items=(_COUNT, _MINUTES), unproven=True), "全失压次数和时间", "all voltages lost"),
    "03110000": Entry(_COUNT, "掉电总次数", "power failures"),
    "03300000": Entry(_COUNT, "编程总次数", "programmings"),
    "03300100": Entry(_COUNT, "电表清零总次数", "meter clearings"),
    "03300200": Entry(_COUNT, "需量清零总次数", "demand clearings"),
    "03300300": Entry(_COUNT, "事件清零总次数", "event clearings"),
    "03300400": Entry(_COUNT, "校时总次数", "clock settings"),
    "03300D00": Entry(_COUNT, "开表盖总次数", "cover openings"),
    "03300E00": Entry(_COUNT, "开端钮盒总次数", "terminal cover openings"),
    "10000001": Entry(_COUNT, "失压总次数", "voltage losses"),
    "10000002": Entry(_MINUTES, "失压总累计时间", "voltage lost in all"),
    "10000101": Entry(replace(_STAMP, unproven=True), "最近1次失压发生时刻", "last voltage loss from"),
    "10000201": Entry(replace(_STAMP, unproven=True), "最近1次失压结束时刻", "last voltage loss to"),
    "1D000001": Entry(_COUNT, "跳闸次数", "relay openings"),
    "1E000001": Entry(_COUNT, "合闸次数", "relay closings"),
    # -- 1997 edition
    "B210": Entry(Format(4, kind="bits", unproven=True), "最近一次编程时间", "last programming"),
    "B212": Entry(Format(2, unproven=True), "编程次数", "programmings"),
    "B213": Entry(Format(2, unproven=True), "最大需量清零次数", "demand clearings"),
    "B214": Entry(Format(3, unit="min", unproven=True), "电池工作时间", "battery working time"),
    "B310": Entry(Format(2, unproven=True), "总断相次数", "phase failures"),
    "C010": Entry(Format(4, kind="date"), "日期及星期", "date and weekday"),
    "C011": Entry(Format(3, kind="time"), "时间", "time"),
    "C020": Entry(Format(1, kind="bits", unproven=True), "电表运行状态字", "meter status word"),
    "C021": Entry(Format(1, kind="bits", unproven=True), "电网状态字", "grid status word"),
    "C030": Entry(Format(3, unproven=True), "电表常数(有功)", "active constant"),
    "C031": Entry(Format(3, unproven=True), "电表常数(无功)", "reactive constant"),
    "C032": Entry(Format(6, kind="digits"), "表号", "meter number"),
    "C033": Entry(Format(6, kind="digits", unproven=True), "用户号", "customer number"),
    "C034": Entry(Format(6, kind="digits", unproven=True), "设备码", "device code"),
}  # fmt: skip

#: Counts and minutes of phases A, B, C in one answer: 03 EE 00 00.
_PHASE_EVENTS = {
    "0301": ("失压", "voltage lost"), "0302": ("欠压", "voltage low"), "0303": ("过压", "voltage high"),
    "0304": ("断相", "phase failed"), "030B": ("失流", "current lost"), "030C": ("过流", "current high"),
    "030D": ("断流", "current gone"), "030E": ("潮流反向", "power reversed"), "030F": ("过载", "overload"),
}  # fmt: skip

_1997: dict[str, Entry] = {
    "B61": Entry(Format(2, 0, "V"), "电压", "voltage"),
    "B62": Entry(Format(2, 2, "A"), "电流", "current"),
    "B63": Entry(Format(3, 4, "kW"), "有功功率", "active power"),
    "B64": Entry(Format(2, 2, "kvar", unproven=True), "无功功率", "reactive power"),
    "B65": Entry(Format(2, 3, "", unproven=True), "功率因数", "power factor"),
}
#: First digits of 1997 energies: 90 now, 94 last month, 98 the month before; 91, 95, 99 reactive. A0 ...: demand.
_1997_MONTHS = {"0": ("", ""), "4": ("上月", " last month"), "8": ("上上月", " the month before")}

_FROZEN = {
    "00": ("定时冻结", "timed freeze"), "01": ("瞬时冻结", "instant freeze"), "02": ("时区表切换", "zone change"),
    "03": ("时段表切换", "day table change"), "04": ("整点冻结", "hourly freeze"), "05": ("费率切换", "tariff change"),
    "06": ("日冻结", "daily freeze"), "07": ("阶梯切换", "step change"),
}  # fmt: skip


@lru_cache(maxsize=2048)
def entry(di: str) -> Entry | None:
    """The row of an identifier, None if it is unknown."""
    if (exact := _EXACT.get(di)) is not None:
        return exact
    if len(di) == 4:
        return _entry_1997(di)
    if len(di) != 8:
        return None
    match di[:2]:
        case "00" | "01":
            return _energy_or_demand(di)
        case "02":
            return _variable(di)
        case "03" if di[4:] == "0000" and di[:4] in _PHASE_EVENTS:
            zh, en = _PHASE_EVENTS[di[:4]]
            both = Format(18, items=(_COUNT, _MINUTES) * 3, unproven=True)
            return Entry(both, f"{zh}总次数和累计时间", f"{en}: count and minutes of A, B, C")
        case "05":
            return _frozen(di)
    return None


def lookup(di: str) -> Format | None:
    """The format of an identifier, None if it is unknown (keep its bytes raw)."""
    found = entry(di)
    return found.form if found is not None else None


def is_block(di: str) -> bool:
    """Whether a reply to it holds several values."""
    if len(di) == 4:
        return di.endswith("F")
    return di.endswith("FF") or di[4:6] == "FF"


def _energy_or_demand(di: str) -> Entry | None:
    zz, tariff, period = (int(di[at : at + 2], 16) for at in (2, 4, 6))
    if not ((tariff <= 0x3F or tariff == 0xFF) and (period <= 0x0C or period == 0xFF)):
        return None
    zh_when, en_when = _when(tariff, period)
    for offset, (zh_phase, en_phase) in _PHASE.items():
        if (row := _ZZ.get(zz - offset)) is not None and (offset == 0 or zz - offset in (1, 2)):
            energy, demand, signed, zh, en = row
            if di[:2] == "00":
                form = Format(4, 2, energy, signed=signed)
                return Entry(form, f"{zh_phase}{zh}{zh_when}电能", f"{en_phase}{en} energy{en_when}")
            form = Format(8, 4, demand, signed=True, kind="demand")
            return Entry(form, f"{zh_phase}{zh}{zh_when}最大需量", f"{en_phase}{en} maximum demand{en_when}")
    if di[:2] == "00" and (loss := _LOSS_ZZ.get(zz)) is not None and tariff == 0:
        form = Format(4, 2, "kWh", unproven=True)
        return Entry(form, f"{loss[0]}{zh_when}电能", f"{loss[1]} energy{en_when}")
    return None


def _when(tariff: int, period: int) -> tuple[str, str]:
    zh = {0: "总", 0xFF: "(总及各费率)"}.get(tariff, f"费率{tariff}")
    en = {0: "", 0xFF: ", total and tariffs"}.get(tariff, f", tariff {tariff}")
    if period == 0xFF:
        return f"{zh}(各结算日)", f"{en}, all settlements"
    return (zh, en) if period == 0 else (f"(上{period}结算日){zh}", f"{en}, settlement {period} ago")


def _variable(di: str) -> Entry | None:
    phase = {
        "00": ("总", " total"),
        "01": ("A相", " A"),
        "02": ("B相", " B"),
        "03": ("C相", " C"),
        "FF": ("块", " all"),
    }
    if (row := _INSTANT.get(di[:4])) is not None and di[6:] == "00" and di[4:6] in phase:
        zh, en = phase[di[4:6]]
        return Entry(row.form, f"{zh}{row.zh}", f"{row.en}{en}")
    if (names := _HARMONIC.get(di[:4])) is not None and di[4:6] in ("01", "02", "03"):
        order = int(di[6:], 16)
        if 1 <= order <= 21 or order == 0xFF:
            which = ("各次", ", all") if order == 0xFF else (f"{order}次", f" {order}")
            form = Format(2, 2, "%", unproven=True)
            return Entry(form, f"{phase[di[4:6]][0]}{which[0]}{names[0]}", f"{names[1]}{phase[di[4:6]][1]}{which[1]}")
    return None


def _frozen(di: str) -> Entry | None:
    """05 KK TT NN: KK what froze it, TT what, NN how many back (from public descriptions)."""
    kind, what, back = di[2:4], di[4:6], int(di[6:], 16)
    if kind not in _FROZEN or not 1 <= back <= 0x3E:
        return None
    zh, en = _FROZEN[kind]
    zh, en = f"(上{back}次){zh}", f"{en} {back} ago: "
    if what == "00":
        return Entry(replace(_MOMENT, unproven=True), f"{zh}时间", f"{en}time")
    if kind == "04":
        names = {"01": ("正向有功总电能", "forward active"), "02": ("反向有功总电能", "reverse active")}.get(what)
        form = replace(_ENERGY, unproven=True)
        return Entry(form, zh + names[0], en + names[1]) if names else None
    number = int(what, 16)
    if 1 <= number <= 8:
        unit, _, signed, zh_what, en_what = _ZZ[number]
        form = Format(4, 2, unit, signed=signed, repeats=True, unproven=True)
        return Entry(form, f"{zh}{zh_what}电能", f"{en}{en_what} energy, total and tariffs")
    if number in (9, 10):
        form = Format(8, 4, "kW", signed=True, kind="demand", repeats=True, unproven=True)
        zh_what, en_what = _ZZ[number - 8][3:]
        return Entry(form, f"{zh}{zh_what}最大需量", f"{en}{en_what} maximum demand, total and tariffs")
    if number == 16:
        items = (Format(3, 4, "kW", signed=True),) * 4 + (Format(3, 4, "kvar", signed=True),) * 4
        return Entry(Format(24, items=items, unproven=True), f"{zh}变量", f"{en}power, total and phases")
    return None


def _entry_1997(di: str) -> Entry | None:
    if di[0] in "9A" and di[1] in "014589":
        reactive = di[1] in "159"
        zh_month, en_month = _1997_MONTHS["048"[int(di[1]) // 4]]
        which = {"0": ("组合", "combined"), "1": ("正向", "forward"), "2": ("反向", "reverse")}
        if reactive:
            which |= {str(n): (f"第{q}象限", f"quadrant {q}") for n, q in ((3, 1), (4, 4), (5, 2), (6, 3))}
        if di[2] not in which or di[3] not in "01234F":
            return None
        zh, en = which[di[2]]
        tariff = {"0": ("总", ""), "F": ("(块)", ", total and tariffs")}.get(
            di[3], (f"费率{di[3]}", f", tariff {di[3]}")
        )
        unit, zh_kind, en_kind = ("kvarh", "无功", "reactive") if reactive else ("kWh", "有功", "active")
        if di[0] == "A":
            form = Format(3, 4, unit.removesuffix("h"), unproven=True)
            return Entry(
                form, f"{zh_month}{zh}{zh_kind}{tariff[0]}最大需量", f"{en} {en_kind} demand{tariff[1]}{en_month}"
            )
        return Entry(
            Format(4, 2, unit, unproven=di[1] != "0"),
            f"{zh_month}{zh}{zh_kind}{tariff[0]}电能",
            f"{en} {en_kind} energy{tariff[1]}{en_month}",
        )
    return _1997.get(di[:3]) if di[3] in "01234567F" else None


#: The same quantity in the 1997 edition (sheet of field captures; what is not here the older meter does not have).
_OLDER: dict[str, str] = {
    "04000101": "C010", "04000102": "C011", "04000402": "C032",
    **{f"0201{n:02d}00": f"B61{n}" for n in (1, 2, 3)}, "0201FF00": "B61F",
    **{f"0202{n:02d}00": f"B62{n}" for n in (1, 2, 3)}, "0202FF00": "B62F",
    **{f"0203{n:02d}00": f"B63{n}" for n in (0, 1, 2, 3)},
    **{f"0204{n:02d}00": f"B64{n}" for n in (0, 1, 2, 3)},
    **{f"0206{n:02d}00": f"B65{n}" for n in (0, 1, 2, 3)},
    **{f"00{zz:02d}{n:02d}00": f"90{zz}{n}" for zz in (0, 1, 2) for n in range(5)},
    "0001FF00": "901F", "0002FF00": "902F",
}  # fmt: skip


def older(di: str) -> str | None:
    """The 1997 identifier of the same quantity, None if there is none."""
    return di if len(di) == 4 else _OLDER.get(di)


#: Bits of the status words (04 00 05 0n): (word, bit) -> names. From public descriptions, not seen in captures.
STATUS_BITS: dict[tuple[int, int], tuple[str, str]] = {
    (1, 1): ("需量积算方式为区间", "demand in blocks"), (1, 2): ("时钟电池欠压", "clock battery low"),
    (1, 3): ("停电抄表电池欠压", "reading battery low"), (1, 4): ("有功功率反向", "active power reversed"),
    (1, 5): ("无功功率反向", "reactive power reversed"),
    (3, 0): ("运行第二套时段", "second set of periods"), (3, 3): ("编程允许", "programming allowed"),
    (3, 4): ("继电器断开", "relay open"), (3, 5): ("运行第二套时区", "second set of zones"),
    (3, 6): ("继电器命令为断", "relay ordered open"), (3, 7): ("预跳闸报警", "about to trip"),
    **{
        (word, bit): (f"{phase}相{zh}", f"phase {phase} {en}")
        for word, phase in ((4, "A"), (5, "B"), (6, "C"))
        for bit, zh, en in (
            (0, "失压", "voltage lost"), (1, "欠压", "voltage low"), (2, "过压", "voltage high"),
            (3, "失流", "current lost"), (4, "过流", "current high"), (5, "过载", "overload"),
            (6, "潮流反向", "power reversed"), (7, "断相", "failed"), (8, "断流", "current gone"),
        )
    },
    (7, 0): ("电压逆相序", "voltage sequence reversed"), (7, 1): ("电流逆相序", "current sequence reversed"),
    (7, 2): ("电压不平衡", "voltage unbalanced"), (7, 3): ("电流不平衡", "current unbalanced"),
    (7, 4): ("辅助电源失电", "auxiliary supply lost"), (7, 5): ("掉电", "power failed"),
    (7, 6): ("需量超限", "demand over its limit"),
}  # fmt: skip
