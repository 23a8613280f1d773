"""What host and controller say to each other: one message shape, eleven kinds, items that address objects.

An item names class.object.attribute.element (a table's row) and carries data or none. Attribute 0 means every
attribute, element 0 every row. A query answer's data are the value itself, without a status byte; a failure's data are
one byte, its reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

#: Data of one item: the item's length byte counts four address bytes as well.
MOST_DATA = 251
MOST_ITEMS = 255


class Kind(IntEnum):
    """The frame's type byte (frame offset 12). Success is request + 10H, failure request + 11H."""

    QUERY = 0x10
    QUERY_REPLY = 0x20
    QUERY_FAILED = 0x21
    SET = 0x30
    SET_REPLY = 0x40
    SET_FAILED = 0x41
    BROADCAST = 0x50
    REPORT = 0x60
    HEARTBEAT = 0x70
    HEARTBEAT_REPLY_71 = 0x71  # one tool's
    HEARTBEAT_REPLY = 0x80


#: What only a host says, what only a controller says; heartbeats go both ways.
FROM_HOST = frozenset((Kind.QUERY, Kind.SET, Kind.BROADCAST))
FROM_CONTROLLER = frozenset((Kind.QUERY_REPLY, Kind.QUERY_FAILED, Kind.SET_REPLY, Kind.SET_FAILED, Kind.REPORT))
ANSWERS: dict[Kind, tuple[Kind, ...]] = {
    Kind.QUERY: (Kind.QUERY_REPLY, Kind.QUERY_FAILED),
    Kind.SET: (Kind.SET_REPLY, Kind.SET_FAILED),
    Kind.HEARTBEAT: (Kind.HEARTBEAT_REPLY, Kind.HEARTBEAT_REPLY_71),
}

#: Reasons in a failure's items.
FAILURES = {
    0x10: "bad_value",
    0x11: "wrong_length",
    0x12: "out_of_range",
    0x20: "read_only",
    0x30: "value_does_not_exist",
    0x40: "general_error",
    0x50: "control_failed",
}


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """class.object.attribute.element as the standard writes it."""

    cls: int
    obj: int
    attr: int = 0
    element: int = 0

    def __str__(self) -> str:
        return f"{self.cls}.{self.obj}.{self.attr}.{self.element}"

    @classmethod
    def of(cls, text: str) -> Address:
        """From ``13.2.2.1`` (attribute and element may be left out). Raises LocalProtocolError."""
        parts = text.split(".")
        if not 2 <= len(parts) <= 4 or not all(part.isdecimal() and int(part) <= 255 for part in parts):
            raise LocalProtocolError(f"{text!r} is no class.object.attribute.element", reason="address")
        return cls(*(int(part) for part in parts))

    def covers(self, other: Address) -> bool:
        """Whether an answer about ``other`` belongs to a question about this: attribute and element 0 mean all."""
        return (
            (self.cls, self.obj) == (other.cls, other.obj)
            and self.attr in (0, other.attr)
            and self.element in (0, other.element)
        )


@dataclass(frozen=True, slots=True)
class Item:
    """``index`` counts from 1 within a frame; 0 here means "its place in the frame"."""

    address: Address
    data: bytes = b""
    index: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One frame's meaning. ``host`` and ``controller`` say who talks to whom, ``crossing`` 0 the whole controller.

    ``sequence`` is the sender's own count: answers carry another one, so they are matched by address."""

    kind: Kind
    items: tuple[Item, ...] = ()
    controller: int = 0
    crossing: int = 0
    host: int = 0
    sequence: int = 0
    version: int = 0x0100

    @property
    def failures(self) -> dict[Address, str]:
        """Refused addresses of a failure and why."""
        if self.kind not in (Kind.QUERY_FAILED, Kind.SET_FAILED):
            return {}
        return {item.address: FAILURES.get(item.data[0] if item.data else -1, "unknown") for item in self.items}


def query(*addresses: str | Address, controller: int = 0, crossing: int = 0, host: int = 0) -> Message:
    """Ask for values."""
    items = tuple(Item(a if isinstance(a, Address) else Address.of(a)) for a in addresses)
    return Message(Kind.QUERY, items, controller, crossing, host)


def answer(request: Message, kind: Kind, items: tuple[Item, ...]) -> Message:
    """An answer to a request; the sequence number is the answering side's own, set it with ``replace``."""
    return replace(request, kind=kind, items=items)


def payload_of(message: Message) -> bytes:
    """From version to the last item. Raises LocalProtocolError for what the fields cannot say."""
    numbers = (
        ("version", message.version, 2), ("host", message.host, 1), ("controller", message.controller, 4),
        ("crossing", message.crossing, 1), ("sequence", message.sequence, 1), ("type", int(message.kind), 1),
        ("count", len(message.items), 1),
    )  # fmt: skip
    out = bytearray()
    for name, number, width in numbers:
        if not 0 <= number < 1 << 8 * width:
            raise LocalProtocolError(f"GB/T 20999 {name} {number} does not fit {width} bytes", reason=name)
        out += number.to_bytes(width, "big")
    for place, item in enumerate(message.items, 1):
        address = item.address
        parts = (item.index or place, len(item.data) + 4, address.cls, address.obj, address.attr, address.element)
        if len(item.data) > MOST_DATA or not all(0 <= part <= 255 for part in parts):
            raise LocalProtocolError(f"GB/T 20999 item {address}: {len(item.data)} bytes", reason="item")
        out += bytes(parts) + item.data
    return bytes(out)


def parse(payload: bytes) -> Message:
    """The message in a checked frame. Raises RemoteProtocolError where its items do not add up.

    Indices in order are taken as such (0), so that a message built and one read are the same."""
    try:
        kind = Kind(payload[9])
    except ValueError as exc:
        raise RemoteProtocolError(f"GB/T 20999 type {payload[9]:02x}", reason="type") from exc
    items: list[Item] = []
    at, count = 11, payload[10]
    for place in range(1, count + 1):
        if len(payload) < at + 6 or (size := payload[at + 1]) < 4 or len(payload) < at + 2 + size:
            raise RemoteProtocolError(f"GB/T 20999 item {place} of {count} is cut off", reason="item", offset=at + 3)
        index = payload[at]
        address = Address(*payload[at + 2 : at + 6])
        items.append(Item(address, payload[at + 6 : at + 2 + size], 0 if index == place else index))
        at += 2 + size
    if at != len(payload):
        raise RemoteProtocolError(f"GB/T 20999 has {len(payload) - at} bytes behind its items", reason="item")
    return Message(
        kind, tuple(items), controller=int.from_bytes(payload[3:7], "big"), crossing=payload[7], host=payload[2],
        sequence=payload[8], version=int.from_bytes(payload[:2], "big"),
    )  # fmt: skip
