"""The parts of SIP headers that GB/T 28181 uses: addresses with tags, Via, and the parameters of a digest."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PARAMETER = re.compile(r";\s*([^=;\s,>]+)\s*(?:=\s*(\"[^\"]*\"|[^;,\s>]*))?")
_URI = re.compile(r"<?\s*(sips?):(?:([^@<>;\s]*)@)?(\[[^\]]*\]|[^:;>?\s]*)(?::(\d{1,5}))?", re.IGNORECASE)
_PAIR = re.compile(r"([A-Za-z-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")
_VIA = re.compile(r"SIP\s*/\s*2\.0\s*/\s*(\w+)\s+(\[[^\]]*\]|[^:;\s]+)(?::(\d{1,5}))?", re.IGNORECASE)


#: No honest header value is longer; patterns never see more of one.
MOST_VALUE = 2_048


@dataclass(frozen=True, slots=True)
class Uri:
    """``sip:user@host:port``; ``port`` 0: none was said."""

    user: str
    host: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Via:
    transport: str
    host: str
    port: int
    branch: str
    received: str
    rport: int | None  # None: not asked for, or not filled in


def parameters(text: str) -> dict[str, str]:
    """``;name=value`` behind an address, names in lower case."""
    text = text[:MOST_VALUE]
    tail = text[text.rfind(">") + 1 :] if ">" in text else text[text.find(";") :] if ";" in text else ""
    return {found[1].lower(): (found[2] or "").strip('"') for found in _PARAMETER.finditer(tail)}


def uri(text: str) -> Uri | None:
    """The first SIP address in a From, To, Contact or request line."""
    found = _URI.search(text[:MOST_VALUE])
    if found is None:
        return None
    return Uri(found[2] or "", found[3], int(found[4] or 0))


def tag(text: str) -> str:
    return parameters(text).get("tag", "")


def via(text: str) -> Via | None:
    """The topmost Via of a header that may list several."""
    text = text[:MOST_VALUE]
    found = _VIA.search(text)
    if found is None:
        return None
    first = text[found.end() :].split(",", 1)[0]
    more = {one[1].lower(): (one[2] or "").strip('"') for one in _PARAMETER.finditer(first)}
    rport = more.get("rport", "")
    return Via(
        found[1].upper(), found[2], int(found[3] or 0), more.get("branch", ""), more.get("received", ""),
        int(rport) if rport.isdecimal() and len(rport) < 6 else None,
    )  # fmt: skip


def digest(text: str) -> dict[str, str]:
    """The parameters of ``Digest ...``, quoted or not; {} for another scheme."""
    scheme, _, rest = text[:MOST_VALUE].strip().partition(" ")
    if scheme.lower() != "digest":
        return {}
    return {found[1].lower(): _unquoted(found) for found in _PAIR.finditer(rest)}


def _unquoted(found: re.Match[str]) -> str:
    return found[2].replace('\\"', '"').replace("\\\\", "\\") if found[2] is not None else found[3]
