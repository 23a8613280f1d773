"""The question that picks gateways or devices: ``district:baohe version<0.2 online:no -tag:test 滨湖``.

Terms stand side by side and must all hold. ``field:value`` compares a field, ``*`` stands for any letters, commas part
alternatives, a minus in front turns a term round; ``< <= > >=`` compare versions and shards. A bare word is looked for
in ids and names. Values with blanks stand in double quotes. Nothing of what is typed becomes SQL: fields come from a
table, values travel as parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from protocols.core.errors import ContractError

Kind = Literal["gateways", "devices"]
KINDS: tuple[Kind, ...] = ("gateways", "devices")
MAX_QUERY = 500
_MOST_TERMS = 20
_TERM = re.compile(r'(-?)(?:([a-z]+)(:|<=|>=|<|>))?("[^"]*"|[^\s"]+)(?=\s|$)')
_VERSION = re.compile(r"v?(\d{1,9}(?:\.\d{1,9}){0,5})")


@dataclass(frozen=True, slots=True)
class _Field:
    """``sql``: what is compared. ``how``: text, number, version, truth, tag."""

    sql: str
    how: Literal["text", "number", "version", "truth", "tag"] = "text"


#: A device behind a gateway that is away is no longer online, whatever it said last: nobody knows.
DEVICE_ONLINE = "(case when d.online and g.online is false then null else d.online end)"
_GATEWAYS: Mapping[str, _Field] = {
    "id": _Field("g.gateway_id"),
    "name": _Field("g.name_zh || ' ' || g.name_en"),
    "shard": _Field("g.shard", "number"),
    "district": _Field("g.district"),
    "department": _Field("g.department"),
    "version": _Field("g.version", "version"),
    "online": _Field("g.online", "truth"),
    "tag": _Field("select 1 from gateway_tag t where t.gateway_id = g.gateway_id and", "tag"),
}
_DEVICES: Mapping[str, _Field] = {
    "id": _Field("d.device_id"),
    "name": _Field("d.name_zh || ' ' || d.name_en"),
    "type": _Field("d.device_type"),
    "gateway": _Field("d.gateway_id"),
    "district": _Field("coalesce(nullif(d.district, ''), g.district)"),
    "department": _Field("coalesce(nullif(d.department, ''), g.department)"),
    "version": _Field("g.version", "version"),
    "online": _Field(DEVICE_ONLINE, "truth"),
    "tag": _Field("select 1 from device_tag t where t.device_id = d.device_id and", "tag"),
}
FIELDS: Mapping[Kind, Mapping[str, _Field]] = {"gateways": _GATEWAYS, "devices": _DEVICES}
_TRUTHS = {"yes": "is true", "no": "is false", "unknown": "is null"}


class QueryError(ContractError):
    """``zh``: the same in Chinese."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en, reason="query")
        self.zh = zh


def condition(kind: Kind, text: str) -> tuple[str, dict[str, Any]]:
    """SQL over ``gateway g`` (and ``device d`` joined to it), and its parameters. Raises QueryError."""
    if len(text) > MAX_QUERY or "\x00" in text:
        raise QueryError(f"a question has at most {MAX_QUERY} characters", f"查询最多 {MAX_QUERY} 个字符")
    parts: list[str] = []
    params: dict[str, Any] = {}
    at = 0
    text = text.strip()
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None:
            raise QueryError(
                f"not understood from here: {text[at : at + 40]!r}", f"从此处起无法理解：{text[at : at + 40]}"
            )
        if len(parts) >= _MOST_TERMS:
            raise QueryError(f"at most {_MOST_TERMS} terms", f"最多 {_MOST_TERMS} 个条件")
        minus, name, sign, raw = found.groups()
        parts.append(_term(kind, minus, name, sign, raw, params))
        at = found.end()
        while at < len(text) and text[at].isspace():
            at += 1
    return " and ".join(parts) or "true", params


def _term(kind: Kind, minus: str, name: str | None, sign: str | None, raw: str, params: dict[str, Any]) -> str:
    quoted = raw.startswith('"')
    value = raw.strip('"')
    if not quoted and re.fullmatch(r"[a-z]+(:|<=|>=|<|>)", value):
        raise QueryError(f"{value} what?", f"{value} 之后缺少取值")
    if name is None or sign is None:
        ids = "g.gateway_id || ' ' || g.name_zh || ' ' || g.name_en"
        if kind == "devices":
            ids = "d.device_id || ' ' || d.name_zh || ' ' || d.name_en"
        made = f"{ids} ilike {_put(params, f'%{_like(value)}%')}"
        return f"not ({made})" if minus else f"({made})"
    field = FIELDS[kind].get(name)
    if field is None:
        names = ", ".join(FIELDS[kind])
        raise QueryError(f"{kind} have no field {name!r}; there are {names}", f"没有字段 {name}；可用：{names}")
    values = [value] if quoted else [part for part in value.split(",") if part]
    if not values:
        raise QueryError(f"{name}: what?", f"{name}：缺少取值")
    if sign != ":" and (len(values) > 1 or field.how not in ("version", "number")):
        raise QueryError(f"{name}{sign}: only version and shard compare, with one value", f"{name} 不能用 {sign} 比较")
    made = " or ".join(_compare(name, field, sign, one, quoted, params) for one in values)
    # An unknown (null) fits no term and is not excluded by its opposite.
    return f"(({made}) is not true)" if minus else f"({made})"


def _compare(name: str, field: _Field, sign: str, value: str, quoted: bool, params: dict[str, Any]) -> str:
    if field.how == "truth":
        if value not in _TRUTHS:
            raise QueryError(f"{name}: yes, no or unknown", f"{name}：yes、no 或 unknown")
        return f"{field.sql} {_TRUTHS[value]}"
    if field.how == "number":
        if not value.isascii() or not value.isdecimal() or len(value) > 9:
            raise QueryError(f"{name}: a number", f"{name}：应为数字")
        return f"{field.sql} {'=' if sign == ':' else sign} {_put(params, int(value))}"
    if field.how == "version" and sign != ":":
        if _VERSION.fullmatch(value) is None:
            raise QueryError(f"{name}: as 0.2 or 1.10.3", f"{name}：形如 0.2 或 1.10.3")
        return f"({field.sql} <> '' and version_key({field.sql}) {sign} version_key({_put(params, value)}))"
    pattern = not quoted and "*" in value
    asked = _like(value).replace("*", "%") if pattern else value
    operator = "like" if pattern else "="
    if field.how == "tag":
        return f"exists ({field.sql} t.tag {operator} {_put(params, asked)})"
    if name == "name" and not pattern:
        return f"{field.sql} ilike {_put(params, f'%{_like(value)}%')}"
    return f"{field.sql} {operator} {_put(params, asked)}"


def _put(params: dict[str, Any], value: object) -> str:
    key = f"q{len(params)}"
    params[key] = value
    return f"%({key})s"


def _like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
