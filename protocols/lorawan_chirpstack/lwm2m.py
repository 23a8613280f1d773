"""LwM2M's TLV format (content format 11542): a tree of object instances, resources and their instances.

Byte 0: bits 7-6 kind (0 object instance, 1 resource instance, 2 multiple resource, 3 resource), bit 5 the id has 16
bits, bits 4-3 size of the length field (0: bits 2-0 are the length). Then id, length, value; integers are big endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protocols.core.errors import RemoteProtocolError

Kind = Literal["object_instance", "resource_instance", "multiple_resource", "resource"]
KINDS: tuple[Kind, ...] = ("object_instance", "resource_instance", "multiple_resource", "resource")
#: An object instance holds resources, a multiple resource its instances: never deeper.
_INSIDE: dict[Kind, tuple[Kind, ...]] = {
    "object_instance": ("multiple_resource", "resource"),
    "multiple_resource": ("resource_instance",),
}


@dataclass(frozen=True, slots=True)
class Node:
    """``value`` of a leaf, ``children`` of the others. ``offset`` and ``length`` of the whole entry."""

    kind: Kind
    id: int
    value: bytes
    children: tuple[Node, ...]
    offset: int
    length: int


def decode(data: bytes) -> tuple[Node, ...]:
    """Raises RemoteProtocolError (``short``, ``structure``)."""
    return _nodes(data, 0, len(data), KINDS)


def _nodes(data: bytes, start: int, end: int, allowed: tuple[Kind, ...]) -> tuple[Node, ...]:
    out: list[Node] = []
    at = start
    while at < end:
        node = _node(data, at, end)
        if node.kind not in allowed:
            raise RemoteProtocolError(f"a {node.kind} where none belongs", reason="structure", offset=at)
        out.append(node)
        at += node.length
    return tuple(out)


def _node(data: bytes, at: int, end: int) -> Node:
    head = data[at]
    kind = KINDS[head >> 6]
    id_size, length_size = 2 if head & 0x20 else 1, head >> 3 & 3
    value_at = at + 1 + id_size + length_size
    if value_at > end:
        raise RemoteProtocolError("the entry ends inside its head", reason="short", offset=at)
    number = int.from_bytes(data[at + 1 : at + 1 + id_size], "big")
    length = int.from_bytes(data[at + 1 + id_size : value_at], "big") if length_size else head & 7
    behind = value_at + length
    if behind > end:
        text = f"entry {number} needs {length} bytes, {end - value_at} are left"
        raise RemoteProtocolError(text, reason="short", offset=at)
    inside = _INSIDE.get(kind)
    children = _nodes(data, value_at, behind, inside) if inside else ()
    return Node(kind, number, b"" if inside else data[value_at:behind], children, at, behind - at)


def encode(nodes: tuple[Node, ...]) -> bytes:
    """The bytes again, in the shortest form."""
    out = bytearray()
    for node in nodes:
        value = encode(node.children) if node.kind in _INSIDE else node.value
        size = 0 if len(value) < 8 else (len(value).bit_length() + 7) // 8
        wide = node.id > 255
        out.append(KINDS.index(node.kind) << 6 | wide << 5 | size << 3 | (len(value) if not size else 0))
        out += node.id.to_bytes(2 if wide else 1, "big") + (len(value).to_bytes(size, "big") if size else b"") + value
    return bytes(out)


#: Resources of object 3 (device), for whoever reads a dump.
DEVICE_RESOURCES: dict[int, tuple[str, str]] = {
    0: ("制造商", "manufacturer"),
    1: ("型号", "model"),
    2: ("序列号", "serial number"),
    3: ("固件版本", "firmware version"),
    6: ("可用电源", "power sources"),
    7: ("电源电压 mV", "power source voltage, mV"),
    8: ("电源电流 mA", "power source current, mA"),
    9: ("电池电量 %", "battery level, %"),
    10: ("可用内存 kB", "free memory, kB"),
    11: ("错误代码", "error codes"),
    13: ("当前时间", "current time"),
    14: ("时区", "UTC offset"),
    16: ("绑定方式", "binding modes"),
}
