"""Data units: type (byte 0), number of objects (byte 1), then the objects, most of them with a time behind.

The object's size tells whether a device keeps to the standard: (length - 2) / count must be the size of the table, with
the time or without it (some devices leave the last time away). Otherwise the objects are a maker's own: they stay raw
unless the maker's layout is known (``Layout``), because a guessed state would be a guessed fire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from protocols.core.errors import LocalProtocolError
from protocols.gb26875.messages import Packet
from protocols.gb26875.objects import (
    OBJECTS,
    Clock,
    ComponentState,
    NumberedComponentState,
    Object,
    Raw,
    field_size,
    fixed_size,
    has_time,
)

#: How components are laid out: as the standard says, or with an address of 8 ASCII digits, one state byte and 32 bytes
#: of text (from captures of an alarm host). ``auto`` takes the latter for objects of 50 bytes with such an address.
Layout = Literal["auto", "standard", "ascii8"]


@dataclass(frozen=True, slots=True)
class Unit:
    """A data unit as on the wire: ``body`` is what follows type and count."""

    type: int
    count: int
    body: bytes = b""

    @property
    def data(self) -> bytes:
        return bytes((self.type, self.count)) + self.body


@dataclass(frozen=True, slots=True)
class Content:
    """What a unit says. ``layout``: ``standard``, ``no_time``, ``last_no_time``, ``ascii8`` or ``raw``; ``object_len``:
    bytes of one object where all are equally long."""

    objects: tuple[Object, ...]
    layout: str
    object_len: int | None = None


def unit_of(packet: Packet) -> Unit | None:
    """The data unit of a packet, None where it has none (a confirmation) or one byte only."""
    return unit_from(packet.data)


def unit_from(data: bytes) -> Unit | None:
    return Unit(data[0], data[1], data[2:]) if len(data) >= 2 else None


def content(unit: Unit, layout: Layout = "auto") -> Content:
    """Read the objects; raw ones where the sizes are nobody's."""
    kind = OBJECTS.get(unit.type)
    count, body = unit.count, unit.body
    size = len(body) // count if count and len(body) % count == 0 else None
    if kind is None:
        return _raw(unit, size)
    if count == 0:
        return Content((), "standard", None) if not body else _raw(unit, None)
    if kind.fields and kind.fields[-1][1] == "text":
        texts = _texts(kind, unit)
        return _raw(unit, None) if texts is None else Content(texts, "standard", None)
    if kind is ComponentState and layout != "standard" and size == fixed_size(NumberedComponentState) + 6:
        found = [_read(NumberedComponentState, body[at : at + size], 6) for at in range(0, len(body), size)]
        if all(isinstance(one, NumberedComponentState) and one.digits.isdigit() for one in found):
            return Content(tuple(found), "ascii8", size)
    fixed = fixed_size(kind)
    times = 6 if has_time(kind) else 0
    for name, with_time, lacking in (("standard", times, 0), ("no_time", 0, 0), ("last_no_time", times, 6)):
        step = fixed + with_time
        if step > lacking and len(body) == step * count - lacking:
            parts = [body[at : at + step] for at in range(0, len(body), step)]
            return Content(tuple(_read(kind, part, len(part) - fixed) for part in parts), name, size)
    return _raw(unit, size)


def _raw(unit: Unit, size: int | None) -> Content:
    if size is None or size == 0:
        return Content((Raw(unit.body),) if unit.body else (), "raw", None)
    return Content(tuple(Raw(unit.body[at : at + size]) for at in range(0, len(unit.body), size)), "raw", size)


def _texts(kind: type[Object], unit: Unit) -> tuple[Object, ...] | None:
    make: Callable[..., Object] = kind
    out: list[Object] = []
    at, fixed, body = 0, fixed_size(kind), unit.body
    for _ in range(unit.count):
        head = at + fixed
        if head >= len(body) or head + 1 + body[head] > len(body):
            return None
        end = head + 1 + body[head]
        out.append(make(*body[at:head], body[head + 1 : end]))
        at = end
    return tuple(out) if at == len(body) else None


def _read(kind: type[Object], raw: bytes, time_bytes: int) -> Object:
    values: list[int | bytes] = []
    at = 0
    for _, form in kind.fields:
        part = raw[at : at + field_size(form)]
        at += len(part)
        if form in ("text31", "text32", "ascii8"):
            values.append(part)
        else:
            values.append(int.from_bytes(part, "little", signed=form == "i16"))
    if time_bytes:
        values.append(raw[at : at + time_bytes])
    elif kind is Clock:
        values.append(b"")
    make: Callable[..., Object] = kind
    return make(*values)


def unit(type_byte: int, objects: Sequence[Object]) -> Unit:
    """A data unit of these objects. Raises LocalProtocolError where one does not fit its fields."""
    body = b"".join(_write(one) for one in objects)
    if not 0 <= type_byte <= 255 or len(objects) > 255:
        raise LocalProtocolError("GB/T 26875.3 unit: type and count are bytes", reason="range")
    return Unit(type_byte, len(objects), body)


def _write(one: Object) -> bytes:
    if isinstance(one, Raw):
        return one.data
    out = bytearray()
    for name, form in one.fields:
        value = getattr(one, name)
        if form == "text":
            if len(value) > 255:
                raise LocalProtocolError("GB/T 26875.3 text: at most 255 bytes", reason="length")
            out += bytes((len(value),)) + value
        elif isinstance(value, bytes):
            if len(value) != field_size(form):
                text = f"GB/T 26875.3 {type(one).__name__}.{name}: {field_size(form)} bytes"
                raise LocalProtocolError(text, reason="length")
            out += value
        else:
            try:
                out += value.to_bytes(field_size(form), "little", signed=form == "i16")
            except OverflowError as exc:
                text = f"GB/T 26875.3 {type(one).__name__}.{name}: {value} does not fit"
                raise LocalProtocolError(text, reason="range") from exc
    return bytes(out) + getattr(one, "stamp", b"")
