"""MANSRTSP: the RTSP-like body of an INFO that steers a playback (GB/T 28181-2016 annex B)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.core.errors import RemoteProtocolError

CONTENT_TYPE = "Application/MANSRTSP"
_START = re.compile(
    r"\s*(?:(PLAY|PAUSE|TEARDOWN)\s+(?:\S+\s+)?(?:MANS)?RTSP/1\.0|(?:MANS)?RTSP/1\.0\s+(\d{3})\b.*)\s*$"
)


@dataclass(frozen=True, slots=True)
class Steer:
    """``method`` PLAY, PAUSE or TEARDOWN ("" in an answer, then ``status``). ``scale``: speed, 2.0 = twice. ``npt``:
    seconds from the start of the record, as sent (``15-``, ``now-``)."""

    method: str = ""
    status: int = 0
    cseq: int = 0
    scale: float | None = None
    npt: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)


def parse(body: bytes) -> Steer:
    """Raises RemoteProtocolError: no MANSRTSP."""
    first, *rest = body.decode("utf-8", "replace").splitlines() or [""]
    start = _START.match(first[:512])
    if start is None:
        raise RemoteProtocolError("body is no MANSRTSP", reason="mansrtsp")
    headers: dict[str, str] = {}
    for line in rest[:50]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    cseq, scale = headers.get("cseq", ""), headers.get("scale", "")
    npt = headers.get("range", "").removeprefix("npt=")
    return Steer(
        start[1] or "", int(start[2] or 0), int(cseq) if cseq.isdecimal() and len(cseq) < 10 else 0,
        float(scale) if re.fullmatch(r"-?\d{1,4}(\.\d{1,6})?", scale) else None, npt, headers,
    )  # fmt: skip


def build(steer: Steer) -> bytes:
    first = f"{steer.method} RTSP/1.0" if steer.method else f"RTSP/1.0 {steer.status} OK"
    lines = [first, f"CSeq: {steer.cseq}"]
    if steer.method == "PAUSE":
        lines.append("PauseTime: now")
    if steer.scale is not None:
        lines.append(f"Scale: {steer.scale:.1f}")
    if steer.npt:
        lines.append(f"Range: npt={steer.npt}")
    return ("\r\n".join(lines) + "\r\n").encode()
