"""devices.md: what citybrain speaks and which devices it knows. What exists but is missing here is an error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast, get_args

from msgspec import inspect as types

from edge.connectors.config import ConnectorConfig
from firmware_sim.scene import KINDS
from protocols.devices import DeviceType, Point, all_types
from protocols.registry import FAMILIES, PROTOCOLS, Family

_PROTOCOLS = Path(__file__).parents[1] / "protocols"
#: Folders of protocols/ that are not a field protocol.
_NOT_FIELD = {"core", "devices", "vocabulary", "uplink", "updates"}


def _missing() -> Iterator[str]:
    folders = {path.parent.name for path in _PROTOCOLS.glob("*/__init__.py")} - _NOT_FIELD
    known = {name.replace("-", "_") for name in FAMILIES}
    coded = {one.name.replace("-", "_") for one in FAMILIES.values() if one.explain or one.endpoints}
    yield from (f"protocols/{name} has no family in the registry" for name in sorted(folders - known))
    yield from (f"family {name} has no folder in protocols/" for name in sorted(coded - folders))
    endpoints = {name for one in FAMILIES.values() for name in one.endpoints}
    yield from (f"endpoint {name} belongs to no family" for name in sorted(set(PROTOCOLS) ^ endpoints))
    built = {str(cast(types.StructType, types.type_info(struct)).tag) for struct in get_args(ConnectorConfig)}
    named = {kind for one in FAMILIES.values() for kind in one.connectors}
    yield from (f"connector {kind} is in one of registry and configuration only" for kind in sorted(built ^ named))
    played = {kind for kind, what in KINDS.items() if what.protocol}
    shown = {kind for one in FAMILIES.values() for kind in one.simulated}
    yield from (f"simulated bus {kind} is in one of registry and rig only" for kind in sorted(played ^ shown))
    typed = {found.protocol for found in all_types()}
    yield from (f"family {name} has no device type" for name in sorted(set(FAMILIES) - typed))


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


def _family(one: Family) -> str:
    types_ = [found for found in all_types() if found.protocol == one.name]
    orders = sorted({command.name for found in types_ for command in found.commands})
    decode = f"`citybrain decode {one.name}`" if one.explain else "–"
    return (
        f"| **{one.zh}** {one.en} | {one.standard} | {one.library or 'ours'} | {_codes(one.connectors)} |"
        f" {_codes(tuple(orders))} | {_codes(one.simulated)} | {decode} | {len(types_)} |"
    )


def _where(point: Point) -> str:
    if (m := point.modbus) is not None:
        scale = f" × {m.factor:g}" if m.factor != 1 else ""
        return f"function {m.function}, {m.address}, {m.kind}{scale}"
    if (h := point.hj212) is not None:
        return f"{h.factor}-{h.suffix}" + (f" (CN {h.cn})" if h.cn != "2011" else "")
    if (d := point.dlt645) is not None:
        return d.di + (f" [{d.index}]" if d.index else "")
    if (v := point.value) is not None:
        return f"`{v.key}`".replace("|", "\\|") + (f" × {v.factor:g}" if v.factor != 1 else "")
    return ""


def _device(found: DeviceType) -> Iterator[str]:
    yield f"### `{found.id}` {found.zh}\n"
    yield f"{found.en}. Protocol {found.protocol}. Provenance: {found.provenance}\n"
    yield "| point | unit | decimals | possible | reported when it moves by | at least every | on the wire |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for p in found.points:
        moved = f"{p.deadband:g}" if p.deadband else "any change"
        yield (
            f"| `{p.name}` | {p.unit} | {p.decimals} | {p.range[0]:g} … {p.range[1]:g} | {moved} | {p.snapshot_s:g} s |"
            f" {_where(p)} |"
        )
    yield ""
    if not found.commands:
        return
    yield "| command | | takes | changes the street | read back |"
    yield "| --- | --- | --- | --- | --- |"
    for command in found.commands:
        takes = ", ".join(f"`{argument.name}`" for argument in command.argument) or "–"
        back = f"`{command.read_back}`" if command.read_back else "–"
        street = "yes" if command.street else "no"
        yield f"| `{command.name}` | {command.zh} {command.en} | {takes} | {street} | {back} |"
    yield ""


def devices() -> str:
    """The page without its first remark. Raises SystemExit naming what is missing."""
    if missing := list(_missing()):
        raise SystemExit("docs/protocol_pages.py: " + "; ".join(missing))
    lines = [
        "# Protocols and devices\n",
        "## Field protocols\n",
        "| protocol | standard | codec | connector (`kind`) | commands of its device types | simulated (`kind`) |"
        " explained by | device types |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_family(one) for one in FAMILIES.values()),
        "",
        "Every command is refused until the device's own `allow` in the gateway's configuration names it.\n",
        "Cameras: RTSP, `/dev/videoN` or a file (`[[camera]]` in edge-config.md).\n",
        "## Device types\n",
        "A type is one file, `protocols/devices/<class>/<model>.toml`. What it says of itself under *provenance* is all"
        " that is claimed: none of these has been run against a device in a street yet.\n",
    ]
    for found in all_types():
        lines += _device(found)
    return "\n".join(lines).rstrip() + "\n"
