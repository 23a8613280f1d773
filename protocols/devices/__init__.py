"""Device types as data: what a model can say, point by point, so that a new model needs no code.

A type is one TOML file, ``protocols/devices/<class>/<model>.toml``; connectors, simulator and the device list read the
same file. Wrong files are refused with file and key: a typing error must not become a silent factor of ten.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import msgspec

from protocols.core import tomlfile
from protocols.core.errors import ConfigError
from protocols.registry import FAMILIES

Kind = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd16", "bcd32", "bcd64", "bool"]
Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]

#: Registers (or bits) one value takes.
KIND_WIDTH: dict[str, int] = {
    "u16": 1, "i16": 1, "u32": 2, "i32": 2, "f32": 2, "u64": 4, "i64": 4, "f64": 4,
    "bcd16": 1, "bcd32": 2, "bcd64": 4, "bool": 1,
}  # fmt: skip


class ModbusPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a value sits in a Modbus device. ``address`` is the one on the wire (from 0), not 40001.

    value = raw * factor + offset; a raw value (as the unsigned register pattern) listed in ``invalid`` is no value.
    ``bit`` (0 the lowest) or ``mask`` pick a part of an unsigned number; what a mask picks is shifted down. Packed
    digits (``bcd16`` ...) with a nibble above 9 are no value.
    """

    function: Literal[1, 2, 3, 4] = 3
    address: int
    kind: Kind = "u16"
    order: Order = "ABCD"
    factor: float = 1.0
    offset: float = 0.0
    invalid: tuple[int, ...] = ()
    bit: int | None = None
    mask: int | None = None

    @property
    def picks(self) -> int:
        """The mask of ``bit`` or ``mask``, 0 where the whole number counts."""
        return 1 << self.bit if self.bit is not None else self.mask or 0

    @property
    def width(self) -> int:
        return KIND_WIDTH[self.kind]


class Hj212Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Factor and suffix of a value in an HJ 212 upload. value = number on the wire * scale (units vary by station)."""

    factor: str
    suffix: str = "Rtd"
    scale: float = 1.0
    cn: str = "2011"


class Dlt645Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Data identifier, high byte first. ``index``: n-th value of a block. ``every``: read in every n-th round only, so
    that slow quantities (energy) leave the 2400 baud line to the fast ones. ``bit``: one bit of a status word."""

    di: str
    index: int = 0
    every: int = 1
    bit: int | None = None


class ValuePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A value that the protocol names itself: an element code, a metric, a node id, a path into a message.

    value = number in the message * factor + offset. ``words``: texts and what number each stands for (``open`` = 1).
    ``invalid``: numbers that mean "no value" where the protocol does not say so itself. ``every``: polled protocols
    read it in every n-th round only.
    """

    key: str
    factor: float = 1.0
    offset: float = 0.0
    words: dict[str, float] = {}
    invalid: tuple[float, ...] = ()
    every: int = 1


class Argument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a command must be told. ``range`` belongs to numbers, ``one_of`` to texts."""

    name: str
    kind: Literal["number", "integer", "bool", "text"] = "number"
    unit: str = ""
    range: tuple[float, float] | None = None
    one_of: tuple[str, ...] = ()


class CommandType(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something a device can be told to do. ``street``: it changes what happens on the street (a valve, a relay, a
    barrier, signal timing), so it needs more than a right: the gateway's own ``allow``.

    ``key`` says how the protocol does it (its own words, see the connector); ``read_back``: the point that shows
    whether it happened, ``expect`` the value it then has (None: the value that was written).
    """

    name: str
    zh: str
    en: str
    street: bool = True
    key: str = ""
    argument: tuple[Argument, ...] = ()
    read_back: str = ""
    expect: float | None = None


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    unit: str = ""
    decimals: int = 3
    range: tuple[float, float]
    deadband: float = 0.0
    snapshot_s: float = 60.0
    noisy: bool = False
    modbus: ModbusPoint | None = None
    hj212: Hj212Point | None = None
    dlt645: Dlt645Point | None = None
    value: ValuePoint | None = None


class DeviceType(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    zh: str
    en: str
    protocol: str  # a family of protocols.registry
    provenance: str
    points: tuple[Point, ...] = ()
    commands: tuple[CommandType, ...] = ()
    options: dict[
        str, str
    ] = {}  # variants of this maker: byte orders, checksum rules; the protocol's README lists them

    def point(self, name: str) -> Point:
        """The point of that name; KeyError if the type has none."""
        for point in self.points:
            if point.name == name:
                return point
        raise KeyError(f"{self.id} has no point {name!r}")

    def command(self, name: str) -> CommandType | None:
        """The command of that name, None if the device has none such."""
        return next((command for command in self.commands if command.name == name), None)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    device: DeviceType
    point: tuple[Point, ...]
    command: tuple[CommandType, ...] = ()


#: Protocols whose points have a table of their own; all others use ``value``.
_OWN_TABLE = ("modbus", "hj212", "dlt645")


def _root() -> Traversable:
    return resources.files(__name__)


_more: list[Path] = []


def also_from(folder: Path) -> None:
    """Types in that folder, laid out as here, come before the built-in ones: an update brought them."""
    if folder.is_dir() and folder not in _more:
        _more.insert(0, folder)
        load.cache_clear()


def parse(text: str, *, type_id: str, where: str) -> DeviceType:
    """One type from its TOML text. ``where`` names the file in errors."""
    file = tomlfile.decode(text, _File, where)
    found = msgspec.structs.replace(file.device, points=file.point, commands=file.command)
    _check(found, type_id=type_id, where=where)
    return found


def _check(found: DeviceType, *, type_id: str, where: str) -> None:
    if found.protocol not in FAMILIES:
        raise ConfigError(f"{where}: device.protocol: {found.protocol!r} is none of {', '.join(FAMILIES)}")
    if found.id != type_id:
        raise ConfigError(f"{where}: device.id is {found.id!r}, the path says {type_id!r}")
    if not found.points:
        raise ConfigError(f"{where}: point: a device type has at least one point")
    seen: set[str] = set()
    for number, point in enumerate(found.points):
        key = f"{where}: point[{number}] ({point.name})"
        if not (point.name.isidentifier() and point.name == point.name.lower()):
            raise ConfigError(f"{key}: name: not snake_case")
        if point.name in seen:
            raise ConfigError(f"{key}: name: used twice")
        seen.add(point.name)
        low, high = point.range
        if not low < high:
            raise ConfigError(f"{key}: range: {low} is not below {high}")
        if not 0 <= point.decimals <= 6:
            raise ConfigError(f"{key}: decimals: 0 to 6")
        if point.deadband < 0 or point.snapshot_s <= 0:
            raise ConfigError(f"{key}: deadband is 0 or more, snapshot_s above 0")
        table = found.protocol if found.protocol in _OWN_TABLE else "value"
        given = [name for name in (*_OWN_TABLE, "value") if getattr(point, name) is not None]
        if given != [table]:
            raise ConfigError(f"{key}: needs exactly the table {table!r}, has {given}")
        _check_binding(point, key)
    _check_commands(found, where)


def _check_commands(found: DeviceType, where: str) -> None:
    seen: set[str] = set()
    for number, command in enumerate(found.commands):
        key = f"{where}: command[{number}] ({command.name})"
        if not (command.name.isidentifier() and command.name == command.name.lower()) or command.name in seen:
            raise ConfigError(f"{key}: name: snake_case, used once")
        seen.add(command.name)
        if command.read_back and command.read_back not in {point.name for point in found.points}:
            raise ConfigError(f"{key}: read_back: the type has no point {command.read_back!r}")
        for argument in command.argument:
            if (argument.range is not None) != (argument.kind in ("number", "integer")):
                raise ConfigError(f"{key}: argument {argument.name}: numbers have a range, others none")
            if argument.range is not None and not argument.range[0] <= argument.range[1]:
                raise ConfigError(f"{key}: argument {argument.name}: range: lowest first")
            if argument.one_of and argument.kind != "text":
                raise ConfigError(f"{key}: argument {argument.name}: one_of belongs to texts")


def _check_binding(point: Point, key: str) -> None:
    if (m := point.modbus) is not None:
        if not 0 <= m.address <= 65536 - m.width:
            raise ConfigError(f"{key}: modbus.address: outside 0..65535")
        if m.factor == 0:
            raise ConfigError(f"{key}: modbus.factor: must not be 0")
        if (m.function in (1, 2)) != (m.kind == "bool"):
            raise ConfigError(f"{key}: modbus.kind: coils and inputs (function 1, 2) are bool, registers are not")
        if m.picks and (m.kind[0] != "u" or not 0 < m.picks < 1 << 16 * m.width or None not in (m.bit, m.mask)):
            raise ConfigError(f"{key}: modbus: either bit or mask, within an unsigned number")
    if (h := point.hj212) is not None and (h.scale == 0 or not h.factor):
        raise ConfigError(f"{key}: hj212: factor must not be empty, scale not 0")
    if (v := point.value) is not None and (v.factor == 0 or not v.key or v.every < 1):
        raise ConfigError(f"{key}: value: key must not be empty, factor not 0, every 1 or more")
    if (d := point.dlt645) is not None:
        if len(d.di) not in (4, 8) or any(c not in "0123456789ABCDEF" for c in d.di):
            raise ConfigError(f"{key}: dlt645.di: 8 upper-case hex digits (1997 edition: 4)")
        if d.index < 0 or d.every < 1 or not 0 <= (d.bit or 0) <= 15:
            raise ConfigError(f"{key}: dlt645: index is 0 or more, every 1 or more, bit 0 to 15")


@cache
def load(type_id: str) -> DeviceType:
    """The device type of that id. Raises ConfigError naming file and key."""
    path = f"protocols/devices/{type_id}.toml"
    parts = type_id.split("/")
    if len(parts) != 2 or not all(p.isidentifier() for p in parts):
        raise ConfigError(f"device type {type_id!r}: expected <class>/<model>")
    files = [root.joinpath(parts[0], f"{parts[1]}.toml") for root in (*_more, _root())]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise ConfigError(f"device type {type_id!r}: no file {path}; known: {', '.join(_ids())}")
    return parse(file.read_text(encoding="utf-8"), type_id=type_id, where=path)


def _ids() -> list[str]:
    return sorted(
        {
            f"{folder.name}/{file.name.removesuffix('.toml')}"
            for root in (*_more, _root())
            for folder in root.iterdir()
            if folder.is_dir() and not folder.name.startswith("_")
            for file in folder.iterdir()
            if file.name.endswith(".toml")
        }
    )


def all_types() -> tuple[DeviceType, ...]:
    """Every device type, by id."""
    return tuple(load(type_id) for type_id in _ids())
