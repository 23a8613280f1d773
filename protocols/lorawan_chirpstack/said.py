"""Reading other people's JSON: missing, null and empty are one; servers before 4.1 leave zeros and false out."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from protocols.core.errors import RemoteProtocolError

#: Larger than any event; an object decoded by a server's script may be long.
MAX_BYTES = 1 << 20
_HEX = re.compile(r"^[0-9A-Fa-f]+$")


def table(data: bytes) -> Mapping[str, Any]:
    """The JSON object. Raises RemoteProtocolError (``not_json``, ``length``)."""
    if len(data) > MAX_BYTES:
        raise RemoteProtocolError(f"an event of {len(data)} bytes", reason="length")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"no JSON: {error}", reason="not_json") from error
    if not isinstance(found, dict):
        raise RemoteProtocolError("JSON, but no object", reason="not_json")
    return found


def inner(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def items(found: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = found.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text(found: Mapping[str, Any], *names: str) -> str:
    """The first of those that says something, else ""."""
    for name in names:
        value = found.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)  # application ids of the third generation are numbers
    return ""


def number(found: Mapping[str, Any], *names: str) -> float | None:
    """None if nobody says a finite number; 64-bit integers come as text."""
    for name in names:
        value = found.get(name)
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                if math.isfinite(value):
                    return value
            except OverflowError:
                continue
    return None


def integer(found: Mapping[str, Any], *names: str) -> int:
    """Missing means 0."""
    value = number(found, *names)
    return int(value) if value is not None else 0


def flag(found: Mapping[str, Any], *names: str) -> bool:
    """Missing means false."""
    return any(found.get(name) is True for name in names)


def base64_bytes(value: object) -> bytes:
    """Raises RemoteProtocolError (``base64``); missing and empty are no bytes."""
    if value is None or value == "":
        return b""
    if not isinstance(value, str):
        raise RemoteProtocolError("data is no text", reason="base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RemoteProtocolError(f"data is no Base64: {error}", reason="base64") from error


def identity(value: str, size: int) -> str:
    """An EUI or address as lower-case hex, whether it came as hex or (third generation) as Base64; "" if neither."""
    if len(value) == 2 * size and _HEX.match(value):
        return value.lower()
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return raw.hex() if len(raw) == size else ""
