"""A captured frame told field by field: what `citybrain decode` shows, for every protocol the same shape.

Each protocol has an ``explain.py`` with one function ``explain(capture) -> Explanation``. It never raises for what is
in the capture: what cannot be read comes back as an error with the likely mistake. ``values`` carry the field names of
the published vectors (``tests/vectors``), so a vector's ``expect`` is a subset of what a decode says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Capture:
    """What somebody has in hand.

    ``data``: the bytes of the wire (a text's UTF-8 bytes, or its own where it came as bytes). ``topic``: of an MQTT
    message. ``request``: the frame that this one answers, where a reply cannot be read without it. ``kind`` and
    ``extra``: part of a message instead of a frame (``value``, ``data_unit``, ``topic``, ``digest``) with its own
    inputs, named as in the vectors. ``strict``: the standard and nothing else; otherwise what makers do is read where
    it is unambiguous.
    """

    data: bytes = b""
    topic: str = ""
    request: bytes = b""
    kind: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a frame. ``offset`` and ``length`` in bytes from the start of the capture; None for what has no
    bytes of its own. ``value`` is plain JSON; decimal numbers are text, None is "no value"."""

    name: str
    value: Any
    offset: int | None = None
    length: int | None = None
    zh: str = ""
    en: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A checksum: ``rule`` that was used, what the frame says and what comes out, both as on the wire (hex)."""

    rule: str
    stored: str
    computed: str

    @property
    def ok(self) -> bool:
        return self.stored.lower() == self.computed.lower()


@dataclass(frozen=True, slots=True)
class Told:
    """One frame, read or refused. ``error`` "" or the stable reason (``checksum``, ``short`` ...), ``detail`` the
    sentence for it; ``hints``: likely mistakes, in words for an installer."""

    offset: int
    length: int
    title: str
    fields: tuple[Field, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    checksum: Verdict | None = None
    error: str = ""
    detail: str = ""
    hints: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.error


@dataclass(frozen=True, slots=True)
class Explanation:
    """``frames`` in stream order; ``rest``: bytes at the end that may be the start of a frame. ``values``: what the
    whole capture says; left empty it is the first good frame's, with ``frames`` = how many were read."""

    protocol: str
    frames: tuple[Told, ...]
    values: Mapping[str, Any] = field(default_factory=dict)
    rest: bytes = b""

    @property
    def good(self) -> tuple[Told, ...]:
        return tuple(one for one in self.frames if one.ok)

    @property
    def ok(self) -> bool:
        """Something was read."""
        return bool(self.good)

    @property
    def error(self) -> str:
        """Why nothing was read; "" if something was."""
        if self.ok:
            return ""
        return next((one.error for one in self.frames if one.error), "short" if self.rest else "empty")

    @property
    def detail(self) -> str:
        if self.ok:
            return ""
        told = next((one.detail for one in self.frames if one.error), "")
        return told or (f"{len(self.rest)} bytes that may be the start of a frame" if self.rest else "nothing to read")

    def said(self) -> dict[str, Any]:
        """The whole as plain JSON values under the vectors' names."""
        if self.values:
            return dict(self.values)
        good = self.good
        return {"frames": len(good), **(good[0].values if good else {})}


#: Keys of a vector that are no input.
_ABOUT = frozenset(
    {
        *("id", "kind", "expect", "expect_layout", "checksum", "basis", "verified", "verification", "source"),
        *("licence", "tags", "note", "derived"),
    }
)


def from_vector(row: Mapping[str, Any], *, strict: bool = False) -> Capture:
    """The capture that a published vector describes: bytes as ``hex``, ``chunks``, ``adu_hex`` or ``text``."""
    if "chunks" in row:
        data = b"".join(bytes.fromhex(chunk) for chunk in row["chunks"])
    elif "hex" in row or "adu_hex" in row:
        data = bytes.fromhex(row.get("hex") or row.get("adu_hex") or "")
    else:
        data = str(row.get("text", "")).encode()
    kind = str(row.get("kind", ""))
    extra = {key: value for key, value in row.items() if key not in _ABOUT}
    if "type_code" in (row.get("expect") or {}):
        extra["type_code"] = row["expect"]["type_code"]  # a Sparkplug array: the bytes alone do not say of what
    return Capture(
        data=data,
        topic=str(row.get("topic", "")),
        request=bytes.fromhex(row.get("request_hex", "")),
        kind="" if kind in ("frame", "stream") else kind,
        extra=extra,
        strict=strict,
    )


Explain = Callable[[Capture], Explanation]


def refused(protocol: str, error: str, detail: str, *, capture: Capture, hints: tuple[str, ...] = ()) -> Explanation:
    """The whole capture is refused."""
    told = Told(0, len(capture.data), "", error=error, detail=detail, hints=hints)
    return Explanation(protocol, (told,))
