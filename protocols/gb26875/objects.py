"""What data units are made of: one class per shape of object, its fields in the order of the wire.

Byte fields (text, time, address digits) keep their bytes, so that what was captured goes back out unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from protocols.gb26875.messages import NO_TIME

#: Bytes of a component's text: 31, GB 18030, filled with zeros.
TEXT_BYTES = 31

FieldKind = Literal["u8", "u16", "i16", "u32", "text31", "text32", "ascii8", "text"]
_SIZES: dict[str, int] = {
    "u8": 1, "u16": 2, "i16": 2, "u32": 4, "text31": TEXT_BYTES, "text32": 32, "ascii8": 8, "text": 0,
}  # fmt: skip
Fields = tuple[tuple[str, FieldKind], ...]


def text_of(raw: bytes) -> str:
    """GB 18030 up to the first zero, blanks off; 31 bytes may cut a character in two, that one is replaced."""
    return raw.partition(b"\0")[0].decode("gb18030", "replace").strip(" ")


def text_field(text: str, size: int = TEXT_BYTES) -> bytes:
    """The text as a field of that size; what does not fit is cut between characters."""
    raw = b""
    for char in text:
        more = char.encode("gb18030", "replace")
        if len(raw) + len(more) > size:
            break
        raw += more
    return raw.ljust(size, b"\0")


@dataclass(frozen=True, slots=True)
class SystemState:
    """Type 1. ``state``: SYSTEM_BITS."""

    fields: ClassVar[Fields] = (("system", "u8"), ("address", "u8"), ("state", "u16"))
    system: int
    address: int
    state: int
    stamp: bytes = b""


@dataclass(frozen=True, slots=True)
class ComponentState:
    """Type 2. ``state``: COMPONENT_BITS; ``number``: the component's address (Hikvision: loop in the low 16 bits,
    node in the high)."""

    fields: ClassVar[Fields] = (
        *(("system", "u8"), ("address", "u8"), ("component", "u8"), ("number", "u32"), ("state", "u16")),
        ("raw_text", "text31"),
    )
    system: int
    address: int
    component: int
    number: int
    state: int
    raw_text: bytes = bytes(TEXT_BYTES)
    stamp: bytes = b""

    @property
    def text(self) -> str:
        return text_of(self.raw_text)


@dataclass(frozen=True, slots=True)
class NumberedComponentState:
    """Type 2 as an alarm host was seen to send it: ``digits`` is the address, 8 ASCII digits; one state byte."""

    fields: ClassVar[Fields] = (
        *(("system", "u8"), ("address", "u8"), ("component", "u8"), ("digits", "ascii8"), ("state", "u8")),
        ("raw_text", "text32"),
    )
    system: int
    address: int
    component: int
    digits: bytes
    state: int
    raw_text: bytes = bytes(32)
    stamp: bytes = b""

    @property
    def number(self) -> int:
        return int(self.digits)

    @property
    def text(self) -> str:
        return text_of(self.raw_text)


@dataclass(frozen=True, slots=True)
class Analog:
    """Type 3. ``kind``: ANALOGS; ``value``: as sent, times the kind's step."""

    fields: ClassVar[Fields] = (
        *(("system", "u8"), ("address", "u8"), ("component", "u8"), ("number", "u32"), ("kind", "u8")),
        ("value", "i16"),
    )
    system: int
    address: int
    component: int
    number: int
    kind: int
    value: int
    stamp: bytes = b""


@dataclass(frozen=True, slots=True)
class Operation:
    """Type 4. ``operation``: OPERATION_BITS."""

    fields: ClassVar[Fields] = (("system", "u8"), ("address", "u8"), ("operation", "u8"), ("operator", "u8"))
    system: int
    address: int
    operation: int
    operator: int
    stamp: bytes = b""


@dataclass(frozen=True, slots=True)
class Version:
    """Type 5."""

    fields: ClassVar[Fields] = (("system", "u8"), ("address", "u8"), ("major", "u8"), ("minor", "u8"))
    system: int
    address: int
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class SystemText:
    """Type 6: one byte of length before the text."""

    fields: ClassVar[Fields] = (("system", "u8"), ("address", "u8"), ("raw_text", "text"))
    system: int
    address: int
    raw_text: bytes

    @property
    def text(self) -> str:
        return text_of(self.raw_text)


@dataclass(frozen=True, slots=True)
class ComponentText:
    """Type 7: where a component is."""

    fields: ClassVar[Fields] = (
        *(("system", "u8"), ("address", "u8"), ("component", "u8"), ("number", "u32"), ("raw_text", "text31")),
    )
    system: int
    address: int
    component: int
    number: int
    raw_text: bytes = bytes(TEXT_BYTES)

    @property
    def text(self) -> str:
        return text_of(self.raw_text)


@dataclass(frozen=True, slots=True)
class SystemClock:
    """Type 8."""

    fields: ClassVar[Fields] = (("system", "u8"), ("address", "u8"))
    system: int
    address: int
    stamp: bytes = b""


@dataclass(frozen=True, slots=True)
class TransmitterState:
    """Type 21. ``state``: TRANSMITTER_BITS."""

    fields: ClassVar[Fields] = (("state", "u8"),)
    state: int
    stamp: bytes = b""


@dataclass(frozen=True, slots=True)
class TransmitterOperation:
    """Type 24. ``operation``: OPERATION_BITS."""

    fields: ClassVar[Fields] = (("operation", "u8"), ("operator", "u8"))
    operation: int
    operator: int
    stamp: bytes = b""


@dataclass(frozen=True, slots=True)
class TransmitterVersion:
    """Type 25."""

    fields: ClassVar[Fields] = (("major", "u8"), ("minor", "u8"))
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class TransmitterText:
    """Type 26: one byte of length before the text."""

    fields: ClassVar[Fields] = (("raw_text", "text"),)
    raw_text: bytes

    @property
    def text(self) -> str:
        return text_of(self.raw_text)


@dataclass(frozen=True, slots=True)
class Clock:
    """Type 28 (the transmitter's clock) and 90 (set it)."""

    fields: ClassVar[Fields] = ()
    stamp: bytes = NO_TIME


@dataclass(frozen=True, slots=True)
class ReadSystem:
    """Types 61, 65, 66, 68: a system's state, version, text, clock."""

    fields: ClassVar[Fields] = (("system", "u8"), ("address", "u8"))
    system: int
    address: int


@dataclass(frozen=True, slots=True)
class ReadComponent:
    """Types 62, 63, 67: state, value, text. The component type is not sent."""

    fields: ClassVar[Fields] = (("system", "u8"), ("address", "u8"), ("number", "u32"))
    system: int
    address: int
    number: int


@dataclass(frozen=True, slots=True)
class ReadOperations:
    """Type 64: so many records from that time on."""

    fields: ClassVar[Fields] = (("system", "u8"), ("address", "u8"), ("amount", "u8"))
    system: int
    address: int
    amount: int
    stamp: bytes = NO_TIME


@dataclass(frozen=True, slots=True)
class ReadTransmitter:
    """Types 81, 85, 86, 88: state, version, text, clock; 89: initialise. One reserved byte."""

    fields: ClassVar[Fields] = (("reserved", "u8"),)
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class ReadTransmitterOperations:
    """Type 84: so many records from that time on."""

    fields: ClassVar[Fields] = (("amount", "u8"),)
    amount: int
    stamp: bytes = NO_TIME


@dataclass(frozen=True, slots=True)
class DutyCheck:
    """Type 91: the guard must press a key. ``minutes``: the time allowed (the parameter's meaning is not verified)."""

    fields: ClassVar[Fields] = (("minutes", "u8"),)
    minutes: int


@dataclass(frozen=True, slots=True)
class Raw:
    """A maker's own object."""

    fields: ClassVar[Fields] = ()
    data: bytes


Object = (
    SystemState | ComponentState | NumberedComponentState | Analog | Operation | Version | SystemText | ComponentText
    | SystemClock | TransmitterState | TransmitterOperation | TransmitterVersion | TransmitterText | Clock | ReadSystem
    | ReadComponent | ReadOperations | ReadTransmitter | ReadTransmitterOperations | DutyCheck | Raw
)  # fmt: skip

SET_CLOCK, INITIALISE, DUTY_CHECK = 90, 89, 91
#: Type byte -> what its objects are.
OBJECTS: dict[int, type[Object]] = {
    1: SystemState, 2: ComponentState, 3: Analog, 4: Operation, 5: Version, 6: SystemText, 7: ComponentText,
    8: SystemClock, 21: TransmitterState, 24: TransmitterOperation, 25: TransmitterVersion, 26: TransmitterText,
    28: Clock, 61: ReadSystem, 62: ReadComponent, 63: ReadComponent, 64: ReadOperations, 65: ReadSystem,
    66: ReadSystem, 67: ReadComponent, 68: ReadSystem, 81: ReadTransmitter, 84: ReadTransmitterOperations,
    85: ReadTransmitter, 86: ReadTransmitter, 88: ReadTransmitter, INITIALISE: ReadTransmitter, SET_CLOCK: Clock,
    DUTY_CHECK: DutyCheck,
}  # fmt: skip


def fixed_size(kind: type[Object]) -> int:
    """Bytes of an object without its time."""
    return sum(_SIZES[form] for _, form in kind.fields)


def field_size(form: FieldKind) -> int:
    """Bytes of a field, 0 where it says its own length."""
    return _SIZES[form]


def has_time(kind: type[Object]) -> bool:
    return "stamp" in kind.__dataclass_fields__
