"""The two message sets, compiled when first asked for: a gateway without roadside units never loads an ASN.1 compiler.

UPER has no field boundaries, so a wrong set or a wrong outer type can decode into nonsense without an error. What is
read therefore comes back with the number of bits it took; whoever asks judges what is left over and whether the
numbers are possible (:mod:`protocols.v2x.scale`).

Bounds: frames above :data:`MAX_BYTES` are not touched; every list in both sets has an upper size and takes bits for
each element, so the time to refuse hostile bytes grows with their length alone (measured in the module's README).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from protocols.core.errors import ConfigError, LocalProtocolError, RemoteProtocolError

Set = Literal["csae53", "j2735"]

#: Larger than any message on the air (MAP of a big crossing: about 6 kB; the radio's own limit is 2.3 kB).
MAX_BYTES = 8_192


@dataclass(frozen=True, slots=True)
class Read:
    """``value``: the library's form: dict, list, int, str, bytes; CHOICE ``(name, value)``; BIT STRING
    ``(bytes, bits)``. ``bits``: how many were read. ``spans``: first and last bit (exclusive) of each leaf, in the
    order in which a walk through ``value`` meets them; empty unless asked for."""

    value: Any
    bits: int
    spans: tuple[tuple[int, int], ...] = ()


@cache
def _compiled(which: Set) -> Any:
    try:
        import asn1tools
    except ImportError as error:
        raise ConfigError('V2X needs the package asn1tools: pip install "citybrain[roadside]"') from error
    text = resources.files(__package__).joinpath(f"{which}.asn").read_text(encoding="utf-8")
    return asn1tools.compile_string(text, "uper")


@cache
def _traced(which: Set) -> Any:
    """A copy whose leaves tell where they were read: for people, not for a gateway's ten messages a second."""
    import asn1tools

    text = resources.files(__package__).joinpath(f"{which}.asn").read_text(encoding="utf-8")
    compiled = asn1tools.compile_string(text, "uper")
    seen: set[int] = set()
    for one in compiled.types.values():
        _trace(one.type, seen)
    return compiled


def _trace(kind: Any, seen: set[int]) -> None:
    if id(kind) in seen:
        return
    seen.add(id(kind))
    inner = [*(getattr(kind, "root_members", None) or ()), *_flat(getattr(kind, "additions", None))]
    for table in ("root_index_to_member", "additions_index_to_member"):
        inner += (getattr(kind, table, None) or {}).values()
    if (element := getattr(kind, "element_type", None)) is not None:
        inner.append(element)
    for one in inner:
        _trace(one, seen)
    if inner or hasattr(kind, "root_members"):
        return
    read = kind.decode

    def decode(decoder: Any) -> Any:
        start = decoder.number_of_read_bits()
        value = read(decoder)
        if (spans := getattr(decoder, "spans", None)) is not None:
            spans.append((start, decoder.number_of_read_bits()))
        return value

    kind.decode = decode


def _flat(additions: Any) -> list[Any]:
    """Additions come singly or as groups."""
    return [one for entry in additions or () for one in (entry if isinstance(entry, list) else [entry])]


def types(which: Set) -> frozenset[str]:
    """Names of the set's types."""
    return frozenset(_traced(which).types)


@cache
def _library_errors() -> tuple[type[Exception], ...]:
    # Of 400 000 hostile messages the library refused all but one kind with its own errors: a long extension bitmap is
    # a NotImplementedError. The others are what building from wrong values raises.
    from asn1tools import Error

    return (Error, NotImplementedError, ValueError, IndexError, KeyError, TypeError, OverflowError)


def decode(which: Set, type_name: str, data: bytes, *, spans: bool = False) -> Read:
    """Read one value of that type; ``spans``: say where each leaf was. Raises RemoteProtocolError (``decode``,
    ``length``)."""
    if len(data) > MAX_BYTES:
        raise RemoteProtocolError(f"{len(data)} bytes: more than a V2X message has", reason="length")
    compiled = _type(which, type_name, traced=spans)
    from asn1tools.codecs.uper import Decoder

    decoder = Decoder(bytearray(data))
    decoder.spans = []
    try:
        value = compiled.decode(decoder)
    except _library_errors() as error:
        bits = decoder.number_of_read_bits()
        text = str(error) or type(error).__name__
        raise RemoteProtocolError(f"{type_name}: {text}", reason="decode", offset=bits // 8) from error
    return Read(value, decoder.number_of_read_bits(), tuple(decoder.spans))


def _type(which: Set, type_name: str, *, traced: bool = False) -> Any:
    found = (_traced if traced else _compiled)(which).types.get(type_name)
    if found is None:
        raise LocalProtocolError(f"{which} has no type {type_name!r}", reason="type")
    return found.type


def encode(which: Set, type_name: str, value: Any) -> bytes:
    """The bytes of a value in the library's form. Raises LocalProtocolError if the type does not allow it."""
    _type(which, type_name)
    try:
        return bytes(_compiled(which).encode(type_name, value, check_constraints=True))
    except _library_errors() as error:
        raise LocalProtocolError(f"{type_name}: {error}", reason="encode") from error


def plain(value: Any, which: Set) -> Any:
    """JSON form, as the published vectors write it.

    Octets are hex. T/CSAE 53: CHOICE ``{name: value}``, BIT STRING ``{"bits": "0101"}``. J2735: CHOICE
    ``[name, value]``, BIT STRING ``[number, bits]``.
    """
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {key: plain(one, which) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one, which) for one in value]
    if isinstance(value, tuple):
        first, second = value
        if first is None:
            return None  # an alternative behind the extension mark: there, and unknown to this edition
        if isinstance(first, str):
            inner = plain(second, which)
            return {first: inner} if which == "csae53" else [first, inner]
        bits = "".join(f"{byte:08b}" for byte in first)[:second]
        return {"bits": bits} if which == "csae53" else [int(bits or "0", 2), second]
    return value


def not_carried(value: Any) -> str:
    """Name of a member that is there but whose layout :file:`j2735.asn` does not carry (NULL in it): what is behind
    it was read at the wrong place. "" if there is none."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if one is None:
                return str(key)
            if found := not_carried(one):
                return found
    elif isinstance(value, list):
        return next((found for one in value if (found := not_carried(one))), "")
    elif isinstance(value, tuple) and isinstance(value[0], str):
        return not_carried(value[1])
    return ""


def bits_of(value: tuple[bytes, int]) -> tuple[int, ...]:
    """Numbers of the bits that are set in a BIT STRING, first bit 0."""
    data, length = value
    return tuple(n for n in range(length) if data[n // 8] >> (7 - n % 8) & 1)
