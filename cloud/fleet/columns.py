"""The columns of the tables people bring: their names in both languages, and what may stand in them.

A cell is text; reading it gives a value or says in both languages what is wrong with it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloud.fleet.query import Kind
from protocols.uplink.topics import SHARDS, valid_gateway_id
from protocols.vocabulary import departments, districts

_TAG = re.compile(r"[\w.:-]{1,40}")
_MOST_TAGS = 20
_SEPARATORS = re.compile(r"[;|；、]")


class Wrong(ValueError):
    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.en = en
        self.zh = zh


@dataclass(frozen=True, slots=True)
class Column:
    """``read``: None for a column that is given out and, brought back, passed over."""

    key: str
    zh: str
    en: str
    read: Callable[[str], Any] | None
    numeric: bool = False


def _text(most: int) -> Callable[[str], str]:
    def read(cell: str) -> str:
        if len(cell) > most:
            raise Wrong(f"longer than {most} characters", f"超过 {most} 个字符")
        if any(unicodedata.category(c) in ("Cc", "Cs") for c in cell):
            raise Wrong("holds characters that cannot be seen", "含有不可见字符")
        return cell

    return read


def _gateway_id(cell: str) -> str:
    if not valid_gateway_id(cell):
        raise Wrong(
            "lower-case letters, digits and hyphens only, at most 63", "只能用小写字母、数字和连字符，最多 63 个"
        )
    return cell


def _device_id(cell: str) -> str:
    if not cell:
        raise Wrong("is empty", "为空")
    return _text(128)(cell)


def _degrees(most: float) -> Callable[[str], float | None]:
    def read(cell: str) -> float | None:
        if not cell:
            return None
        try:
            value = float(cell)
        except ValueError:
            raise Wrong(f"{cell[:30]!r} is no number", f"{cell[:30]} 不是数字") from None
        if not math.isfinite(value) or abs(value) > most:
            raise Wrong(f"{cell[:30]} is not within ±{most:g} degrees", f"{cell[:30]} 不在 ±{most:g} 度之内")
        return value

    return read


def _shard(cell: str) -> int | None:
    if not cell:
        return None
    if not cell.isascii() or not cell.isdecimal() or int(cell[:9]) >= SHARDS:
        raise Wrong(f"0 to {SHARDS - 1}", f"应为 0 到 {SHARDS - 1}")
    return int(cell)


def _named(table: Callable[[], Mapping[str, Any]], what_en: str, what_zh: str) -> Callable[[str], str]:
    """An id of the vocabulary, or its Chinese or English name."""

    def read(cell: str) -> str:
        known = table()
        if not cell or cell in known:
            return cell
        for id_, item in known.items():
            if cell in (item.zh, item.en):
                return id_
        raise Wrong(f"no {what_en} {cell[:40]!r}", f"没有{what_zh} {cell[:40]}")

    return read


def _tags(cell: str) -> list[str]:
    found = sorted({part.strip() for part in _SEPARATORS.split(cell)} - {""})
    for tag in found:
        if _TAG.fullmatch(tag) is None:
            raise Wrong(
                f"tag {tag[:40]!r}: letters, digits, . : - _, at most 40",
                f"标签 {tag[:40]}：字母、数字、. : - _，最多 40 个",
            )
    if len(found) > _MOST_TAGS:
        raise Wrong(f"more than {_MOST_TAGS} tags", f"标签超过 {_MOST_TAGS} 个")
    return found


def _admission(cell: str) -> str:
    known = {"": "auto", "auto": "auto", "accept": "accept", "自动": "auto", "人工": "accept"}
    if cell not in known:
        raise Wrong("auto or accept", "auto（自动）或 accept（人工）")
    return known[cell]


_PLACE = (
    Column("name_zh", "中文名", "Chinese name", _text(128)),
    Column("name_en", "英文名", "English name", _text(128)),
    Column("lon", "经度", "longitude", _degrees(180), numeric=True),
    Column("lat", "纬度", "latitude", _degrees(90), numeric=True),
    Column("district", "区县", "district", _named(districts, "district", "区县")),
    Column("department", "部门", "department", _named(departments, "department", "部门")),
    Column("tags", "标签", "tags", _tags),
)
COLUMNS: Mapping[Kind, tuple[Column, ...]] = {
    "gateways": (
        Column("gateway_id", "网关编号", "gateway", _gateway_id),
        *_PLACE,
        Column("shard", "分片", "shard", _shard, numeric=True),
        Column("admission", "设备接入", "admission", _admission),
        Column("version", "版本", "version", None),
        Column("online", "在线", "online", None),
    ),
    "devices": (
        Column("device_id", "设备编号", "device", _device_id),
        Column("gateway_id", "网关编号", "gateway", _gateway_id),
        *_PLACE,
        Column("device_type", "设备类型", "type", None),
        Column("online", "在线", "online", None),
    ),
}
REQUIRED: Mapping[Kind, tuple[str, ...]] = {"gateways": ("gateway_id",), "devices": ("device_id", "gateway_id")}


def column_named(kind: Kind, heading: str) -> Column | None:
    """By key or by its name in either language, whatever the case."""
    wanted = heading.strip().lower()
    for column in COLUMNS[kind]:
        if wanted in (column.key, column.zh, column.en.lower()):
            return column
    return None
