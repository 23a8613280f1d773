"""What the kernel knows of its own clock: is a time service keeping it, and how far may it be off?

``ntp_adjtime`` with no modes set only reads, and needs no rights (Linux adjtimex(2); the kernel counts ``maxerror`` up
by 500 ppm while nobody disciplines the clock).
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

_STA_UNSYNC = 0x0040


class _Timex(ctypes.Structure):
    """struct timex up to the fields we read; the rest is room that the kernel fills."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_char * 256),
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """``synchronised``: by a time service, now. ``most_off_ms``: the kernel's own bound of the error."""

    synchronised: bool
    most_off_ms: int


def kept() -> Kept | None:
    """None where the system cannot be asked (another system, a sandbox that forbids it)."""
    if not sys.platform.startswith("linux"):
        return None
    found = _Timex()
    try:
        if ctypes.CDLL(None, use_errno=True).ntp_adjtime(ctypes.byref(found)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return Kept(not found.status & _STA_UNSYNC, max(0, found.maxerror // 1000))
