"""What a search has found, and what an installer pastes into the gateway's configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Protocol = Literal["dlt645", "cjt188", "modbus"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where was asked: a serial port with its settings, a serial server (``tcp://host:port``), a Modbus TCP host."""

    where: str
    kind: Literal["serial", "serial-server", "modbus-tcp"]
    baud: int = 0
    parity: str = ""

    def __str__(self) -> str:
        return f"{self.where} {self.baud} 8{self.parity}1" if self.kind == "serial" else self.where


@dataclass(frozen=True, slots=True)
class Found:
    """One device that answered. ``type``: the likely device type, "" if nothing fits; ``about``: what it said of
    itself; ``sure``: its answer was whole and alone."""

    place: Place
    protocol: Protocol
    address: str
    type: str = ""
    about: str = ""
    sure: bool = True
    also: tuple[str, ...] = ()  # other types that fit
    more: dict[str, str] = field(default_factory=dict)  # further keys of its configuration

    @property
    def name(self) -> str:
        return f"{self.protocol}-{self.address}".lower()


def snippet(found: Sequence[Found]) -> str:
    """The connectors that read what was found, as TOML. Types that are not known are left to the installer."""
    groups: dict[tuple[Place, Protocol], list[Found]] = {}
    for one in found:
        if one.sure:
            groups.setdefault((one.place, one.protocol), []).append(one)
    return "\n".join(_connector(place, protocol, members) for (place, protocol), members in groups.items())


def _connector(place: Place, protocol: Protocol, members: Sequence[Found]) -> str:
    kind = {"dlt645": "dlt645", "cjt188": "cjt188", "modbus": "modbus-rtu"}[protocol]
    if place.kind == "modbus-tcp":
        kind = "modbus-tcp"
    line = re.sub(r"[^a-z0-9]+", "-", place.where.rsplit("/", 1)[-1].lower()).strip("-")
    out = ["[[connector]]", f'id = "{protocol}-{line}"', f'kind = "{kind}"']
    out.append(f'{"address" if kind == "modbus-tcp" else "port"} = "{place.where}"')
    if place.kind == "serial":
        out += [f"baud = {place.baud}", f'parity = "{place.parity}"']
    for one in members:
        address = f"unit = {one.address}" if protocol == "modbus" else f'address = "{one.address}"'
        kind_line = (
            f'type = "{one.type}"' if one.type else 'type = ""  # none of the known types fits: see docs/devices.md'
        )
        out += ["", "[[connector.device]]", f'id = "{one.name}"', kind_line, address]
        out += [f"# also fits: {', '.join(one.also)}"] if one.also else []
        out += [f'{key} = "{value}"' for key, value in one.more.items()]
    return "\n".join(out) + "\n"
