"""Writes the pages that must never disagree with the code: edge-config.md, devices.md, scenarios.md.

    python docs/generate.py            write them
    python docs/generate.py --check    say which are stale, write nothing

Keys, types, defaults and remarks of the configuration come from the structs and the comments beside their fields;
devices and scenarios from the data the program loads. `tests/packaging` runs the check.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "firmware-sim")]

import msgspec  # noqa: E402
from msgspec import inspect as types  # noqa: E402
from protocol_pages import devices  # noqa: E402

from edge.config import EdgeConfig  # noqa: E402
from edge.remote_config import document_schema  # noqa: E402
from protocols.vocabulary import case_types, departments, event_types  # noqa: E402
from scenarios.blocks.params import Limit  # noqa: E402
from scenarios.packs import Pack, load_all  # noqa: E402

_MADE = "<!-- Made by docs/generate.py from the code: change that, not this. -->\n\n"


# -- the gateway's TOML ------------------------------------------------------------------------------------------------

#: What a key means where the source has no comment beside it. A key without either stops this script.
_NOTES = {
    "id": "its name, used once",
    "GatewayConfig.id": "lower-case letters, digits, hyphens; the name in topics and at log-in",
    "GatewayConfig.shard": "given at enrolment, never changes",
    "MqttConfig.url": "`mqtt://host:port` or `mqtts://host:port`",
    "MqttConfig.username": "usually the gateway's id",
    "MqttConfig.password_file": "a file that holds the password and nothing else",
    "MqttConfig.ca_file": "the broker's authority (PEM); empty: those the system trusts",
    "MqttConfig.keepalive_s": "seconds without a sign before the broker says that we are gone",
    "OutboxConfig.max_mb": "room for what the core has not committed yet; when full, the oldest readings are thinned",
    "device": "its devices",
    "type": "a device type of devices.md",
    "poll_s": "how often it is asked",
    "listen": "`host:port` to listen on",
    "address": "`host:port` of the device",
    "port": "the serial line, `/dev/ttyUSB0`",
    "baud": "speed of the line",
    "parity": "none, even, odd",
    "stop_bits": "",
    "timeout_s": "how long an answer may take",
    "retries": "how often an unanswered request is repeated",
    "slow_poll_s": "a device that is lost is asked this often",
    "silent_s": "a station not heard of for so long is offline",
    "set_clock": "send the station our time",
    "max_connections": "connections held at a time; one that never spoke makes room for a new one",
    "gap_s": "pause between two exchanges",
    "unit": "Modbus unit",
    "mn": "the station's MN, as it stands in its uploads",
    "password": "as it stands in its uploads; empty: not checked",
    "checksum": "which CRC rule the station uses; `auto` finds it",
    "Dlt645Device.address": "meter number, 12 digits as text: leading zeros matter",
    "CameraConfig.id": "the camera's name as a device",
    "CameraConfig.analyse_fps": "pictures looked at in a second, 0.05 to 30",
    "zone": "places in the picture that are watched",
    "line": "lines whose crossing is told",
    "polygon": "corners, fractions of the picture (0-1, x to the right, y down)",
    "ZoneConfig.kind": "`lane`: the free width is measured; `area`: who is in it",
    "ground": "",
    "watch": "groups of things that count here",
    "image": "fractions of the picture",
    "metres": "the same points on the ground",
    "points": "fractions of the picture",
    "pack": "a scenario of scenarios.md",
    "devices": "role of the scenario = device ids",
    "params": "limits the scenario lets a site set",
    "ReportRule.device": "device id, `*` and `?` allowed",
    "ReportRule.point": "point, `*` and `?` allowed",
    "mode": "`deadband`: when it moved; `swinging-door`: what a straight line does not tell; `all`: everything",
    "deadband": "in the point's unit; empty: as the device type says",
    "snapshot_s": "at least this often; empty: as the device type says",
    "Place.device": "device id",
    "lon": "degrees, WGS 84",
    "lat": "degrees, WGS 84",
}


def _note(struct: type, field: str) -> str:
    remark = _remarks(struct).get(field) or _NOTES.get(f"{struct.__name__}.{field}", _NOTES.get(field))
    if remark is None:
        raise SystemExit(f"docs/generate.py: {struct.__name__}.{field} has no remark: put a comment beside it")
    return remark


@cache
def _remarks(struct: type) -> dict[str, str]:
    """Field -> the comment behind it in the source."""
    lines = inspect.getsource(struct).splitlines()
    out: dict[str, str] = {}
    for base in struct.__mro__[1:]:
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            out |= _remarks(base)
    tree = cast(ast.ClassDef, ast.parse("\n".join(lines)).body[0])
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
            behind = lines[node.end_lineno - 1][node.end_col_offset or 0 :].strip()
            if behind.startswith("#"):
                out[node.target.id] = behind.lstrip("# ").partition("type: ignore")[0].rstrip(" #")
    return out


def _words(struct: type) -> str:
    """The class's own docstring as a paragraph; msgspec makes one up where there is none."""
    text = inspect.cleandoc(struct.__doc__ or "")
    if text.startswith(f"{struct.__name__}("):
        return ""
    return " ".join(text.replace("``", "`").split())


def _bounds(kind: types.IntType | types.FloatType) -> str:
    parts = []
    for sign, bound in ((">", kind.gt), ("≥", kind.ge), ("<", kind.lt), ("≤", kind.le)):
        if bound is not None:
            parts.append(f"{sign} {bound:g}")
    return " " + ", ".join(parts) if parts else ""


def _kind(kind: types.Type) -> str:
    """A type in the installer's words."""
    match kind:
        case types.Metadata():
            return _kind(kind.type)
        case types.BoolType():
            return "true or false"
        case types.IntType():
            return "whole number" + _bounds(kind)
        case types.FloatType():
            return "number" + _bounds(kind)
        case types.StrType():
            return f"text like `{kind.pattern}`" if kind.pattern else "text"
        case types.LiteralType():
            return "one of " + ", ".join(f"`{json.dumps(value)}`" for value in kind.values)
        case types.UnionType():
            return " or ".join(_kind(t) for t in kind.types if not isinstance(t, types.NoneType))
        case types.VarTupleType():
            return f"list of: {_kind(kind.item_type)}"
        case types.TupleType():
            return "[" + ", ".join(_kind(t) for t in kind.item_types) + "]"
        case types.DictType():
            return f"table: name = {_kind(kind.value_type)}"
        case types.StructType():
            return "table, see below"
        case _:
            raise TypeError(f"docs/generate.py has no words for {kind!r}")


def _default(field: types.Field) -> str:
    if field.required:
        return "**required**"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return ""
    if isinstance(value, msgspec.Struct) or value in ((), {}):
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _structs(kind: types.Type) -> list[type]:
    """Structs a field leads to: directly, as a list, or one of several kinds."""
    match kind:
        case types.StructType():
            return [kind.cls]
        case types.VarTupleType():
            return _structs(kind.item_type)
        case types.UnionType():
            return [cls for t in kind.types for cls in _structs(t)]
        case _:
            return []


def _table(struct: type, header: str) -> Iterator[str]:
    info = cast(types.StructType, types.type_info(struct))
    tag = f' with `kind = "{info.tag}"`' if info.tag_field == "kind" else ""
    yield f"## {header}{tag}\n"
    if words := _words(struct):
        yield words + "\n"
    yield "| key | value | default | |"
    yield "| --- | --- | --- | --- |"
    deeper = []
    for field in info.fields:
        inner = _structs(field.type)
        if inner:
            many = "list of: table" in _kind(field.type) or isinstance(field.type, types.VarTupleType)
            name = header.strip("[]`") + "." + field.encode_name
            deeper += [(cls, f"`[[{name}]]`" if many else f"`[{name}]`") for cls in inner]
        kind = _kind(field.type).replace("|", "\\|")
        yield f"| `{field.encode_name}` | {kind} | {_default(field)} | {_note(struct, field.name)} |"
    yield ""
    for cls, name in deeper:
        yield from _table(cls, name)


def edge_config() -> str:
    top = cast(types.StructType, types.type_info(EdgeConfig))
    lines = [
        "# The gateway's configuration\n",
        "One TOML file. A key that is not here is refused with file, line and key. `citybrain edge check FILE` opens no"
        " connection. Relative paths count from the file. A whole example: `deploy/gateway/agent.toml`.\n",
        "Only `[gateway]` and `[mqtt]` must be there.\n",
    ]
    for field in top.fields:
        many = isinstance(field.type, types.VarTupleType)
        for struct in _structs(field.type):
            name = f"`[[{field.encode_name}]]`" if many else f"`[{field.encode_name}]`"
            lines += _table(struct, name)
    return _MADE + "\n".join(lines).rstrip() + "\n"


# -- scenarios ---------------------------------------------------------------------------------------------------------


def _limits(node: Any, path: str) -> Iterator[tuple[str, Limit]]:
    """Every limit a site may set, by the key it is set with."""
    if isinstance(node, Limit):
        if node.site_override:
            yield path, node
    elif isinstance(node, msgspec.Struct):
        for name in node.__struct_fields__:
            held = getattr(node, name)
            if name == "levels":
                for level in held:
                    yield from _limits(level, f"{path}.{level.level}")
            else:
                yield from _limits(held, f"{path}.{name}")


def _pack(pack: Pack) -> Iterator[str]:
    head = pack.pack
    yield f"## `{head.id}` {head.zh}\n"
    yield f"{head.en}. Version {head.version}, runs on {head.runs.replace('+', ' and ')}.\n"
    yield "| role | | device type | points or facts |"
    yield "| --- | --- | --- | --- |"
    for role, need in pack.needs.items():
        yield f"| `{role}` | {need.zh} {need.en} | `{need.type}` | {', '.join(need.points + need.facts)} |"
    yield "\n| rule | | at | block | event | standard |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for rule in pack.rule:
        block = cast(types.StructType, types.type_info(type(rule))).tag
        event = f"`{rule.event}` {event_types()[rule.event].zh}" if rule.event in event_types() else f"`{rule.event}`"
        yield f"| `{rule.id}` | {rule.zh} {rule.en} | {rule.at} | {block} | {event} | {rule.standard} |"
    case = pack.case
    office = departments()[case.department]
    yield (
        f"\nCase: `{case.type}` {case_types()[case.type].zh}, {office.zh} ({office.en}), from level {case.from_level};"
        f" accepted within {case.sla_h.accept:g} h, on site {case.sla_h.onsite:g} h, closed {case.sla_h.close:g} h.\n"
    )
    limits = [found for role, need in pack.needs.items() for found in _limits(need, f"needs.{role}")]
    limits += [found for rule in pack.rule for found in _limits(rule, rule.id)]
    if limits:
        yield "| a site may set | as it comes | from | to |"
        yield "| --- | --- | --- | --- |"
        for key, limit in limits:
            yield f'| `"{key}"` | {limit.value:g} {limit.unit} | {limit.min:g} | {limit.max:g} |'
        yield ""
    if pack.gaps:
        yield "Not there yet:\n"
        yield from (f"- `{name}`: {text}" for name, text in pack.gaps.items())
        yield ""


def scenarios() -> str:
    lines = [
        "# Scenarios\n",
        "A scenario is a folder, `scenarios/packs/<domain>/<scenario>/`. A site binds devices to its roles and sets the"
        " limits it may set, in the gateway's and the core's TOML alike:\n",
        "```toml",
        "[[scenario]]",
        'pack = "urban_mgmt/construction_site"',
        "[scenario.devices]",
        'noise = ["site-1-noise"]',
        "[scenario.params]",
        '"noise_leq.yellow.day" = 65',
        "```\n",
    ]
    for pack in load_all():
        lines += _pack(pack)
    return _MADE + "\n".join(lines).rstrip() + "\n"


PAGES = {"edge-config.md": edge_config, "devices.md": lambda: _MADE + devices(), "scenarios.md": scenarios}


def config_schema() -> str:
    """What the core checks a gateway's configuration document against before it sends it."""
    return json.dumps(document_schema(), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


PAGES["../cloud/twin/config.schema.json"] = config_schema


def main(arguments: list[str]) -> int:
    stale = []
    for name, make in PAGES.items():
        path, text = (ROOT / "docs" / name).resolve(), make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    print(("stale: " if "--check" in arguments else "written: ") + (", ".join(stale) or "none"))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
