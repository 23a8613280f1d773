"""Every field protocol by name, so that generic code (property suite, decoding of captures) needs no list of its own.

Codecs are imported when asked for: a gateway with meters only never loads pymodbus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from protocols.core.endpoint import Endpoint, Role
from protocols.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ProtocolEntry:
    """``factory`` is ``module:Class``; ``options`` are always given; ``can_listen``: takes captures of both
    directions."""

    name: str
    zh: str
    standard: str
    factory: str
    options: tuple[tuple[str, str], ...] = ()
    can_listen: bool = False

    def endpoint(self, role: Role, **options: Any) -> Endpoint[Any]:
        """A fresh endpoint of that role."""
        module, _, name = self.factory.partition(":")
        build: Callable[..., Endpoint[Any]] = getattr(import_module(module), name)
        return build(role, **dict(self.options), **options)

    def listener(self) -> Endpoint[Any]:
        """An endpoint that takes what is in a capture, whoever sent it."""
        return self.endpoint(Role.MASTER, **({"listen": True} if self.can_listen else {}))


_MODBUS = "protocols.modbus.endpoint:ModbusEndpoint"

PROTOCOLS: dict[str, ProtocolEntry] = {
    entry.name: entry
    for entry in (
        ProtocolEntry("hj212", "污染物在线监控", "HJ 212-2017, 2005", "protocols.hj212.endpoint:Hj212Endpoint"),
        ProtocolEntry(
            "dlt645", "电能表", "DL/T 645-2007, 1997", "protocols.dlt645.endpoint:Dlt645Endpoint", can_listen=True
        ),
        ProtocolEntry("modbus-rtu", "Modbus RTU", "Modbus over serial line 1.02", _MODBUS, (), can_listen=True),
        ProtocolEntry(
            "modbus-tcp", "Modbus TCP", "Modbus TCP 1.0b", _MODBUS, (("framing", "tcp"),), can_listen=True
        ),
        ProtocolEntry(
            "modbus-ascii", "Modbus ASCII", "Modbus over serial line 1.02", _MODBUS, (("framing", "ascii"),),
            can_listen=True,
        ),
    )
}  # fmt: skip


def protocol(name: str) -> ProtocolEntry:
    """The entry of that name. Raises ConfigError naming the known ones."""
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise ConfigError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}") from None
