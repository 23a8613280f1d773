"""Passwords of meters: in a file of their own, read when an order is given, never kept and never logged.

A line is ``level password`` for all meters or ``address level password`` for one; ``#`` begins a remark.
"""

from __future__ import annotations

from pathlib import Path

from protocols.core.errors import LocalProtocolError
from protocols.dlt645.orders import Key


def meter_key(path: str, address: str, operator: str) -> Key:
    """The key of one meter. Raises LocalProtocolError where there is none: the order is refused, nothing is sent."""
    if not path:
        raise LocalProtocolError("no password_file: this line gives no orders", reason="no_password")
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise LocalProtocolError(f"password_file {path} cannot be read", reason="no_password") from exc
    common: Key | None = None
    for line in lines:
        match line.partition("#")[0].split():
            case [level, password] if level.isdecimal():
                common = Key(password, int(level), operator)
            case [whose, level, password] if whose == address and level.isdecimal():
                return Key(password, int(level), operator)
    if common is None:
        raise LocalProtocolError(f"password_file {path} has no line for this meter", reason="no_password")
    return common
