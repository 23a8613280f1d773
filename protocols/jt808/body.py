"""What a body is, and those that are nothing but a row of fields.

Attributes carry the names of the published vectors, so that a field has one name from the wire to the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from protocols.jt808.fields import Reader, Writer
from protocols.jt808.frame import Version

#: u8 u16 u32 u64 numbers; id16 a message id; time6 BCD time; counted text behind its length; text / blob all the
#: rest; bcd<n>, text<n>, blob<n> of n bytes.
FieldKind = str


@dataclass(frozen=True, slots=True)
class Body:
    """Subclasses set MSG_ID and FIELDS, or read and write themselves."""

    MSG_ID: ClassVar[int]
    FIELDS: ClassVar[tuple[tuple[str, FieldKind], ...]] = ()

    @property
    def msg_id(self) -> int:
        return self.MSG_ID

    @classmethod
    def read(cls, reader: Reader, version: Version) -> Self:
        """Raises RemoteProtocolError where the body ends early."""
        return cls(**{name: read_field(reader, name, kind) for name, kind in cls.FIELDS})

    def write(self, writer: Writer, version: Version) -> None:
        """Raises LocalProtocolError for what a field cannot hold."""
        for name, kind in self.FIELDS:
            write_field(writer, getattr(self, name), name, kind)


def read_field(reader: Reader, name: str, kind: FieldKind) -> Any:
    stem, size = kind.rstrip("0123456789"), kind.lstrip("abcdefghijklmnopqrstuvwxyz")
    if stem == "bcd":
        return reader.bcd(name, int(size))
    if stem in ("text", "blob"):
        return getattr(reader, stem)(name, int(size) if size else None)
    return getattr(reader, kind)(name)


def write_field(writer: Writer, value: Any, name: str, kind: FieldKind) -> None:
    stem, size = kind.rstrip("0123456789"), kind.lstrip("abcdefghijklmnopqrstuvwxyz")
    if stem in ("u", "id"):
        writer.number(value, int(size) // 8, name)
    elif stem == "bcd":
        writer.bcd(value, int(size))
    elif kind == "time6":
        writer.blob(value, 6)
    elif kind == "counted":
        writer.counted(value)
    elif stem == "text":
        writer.text(value, int(size) if size else None)
    else:
        writer.blob(value, int(size) if size else None)


@dataclass(frozen=True, slots=True)
class Opaque(Body):
    """A body that stays bytes. ``why``: no such message is known, it cannot be read, or it is encrypted."""

    id: int
    data: bytes
    why: Literal["unknown", "malformed", "encrypted"] = "unknown"
    detail: str = ""

    @property
    def msg_id(self) -> int:
        return self.id

    def write(self, writer: Writer, version: Version) -> None:
        writer.blob(self.data)
