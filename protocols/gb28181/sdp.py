"""SDP with GB/T 28181's own lines: ``y=`` (SSRC), ``f=`` (media hint), ``u=`` (source of history), ``s=`` (what for).

The first digit of the SSRC says live (0) or history (1), five digits come from the domain, four are a serial. Some
cameras leave ``y=`` out or send zeros: then the port tells streams apart. ``a=password:`` may be in it: never log one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.core.errors import RemoteProtocolError

MOST_LINES = 200
_SECRET = re.compile(r"(a=password:)[^\r\n]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sdp:
    """``start_s``, ``end_s``: Unix seconds of ``t=`` (not NTP), 0 for live. ``port`` 0: the stream is refused."""

    session: str  # Play, Playback, Download, Talk
    owner: str
    ip: str
    port: int
    proto: str = "RTP/AVP"
    payloads: tuple[int, ...] = (96,)
    rtpmap: Mapping[int, str] = field(default_factory=lambda: {96: "PS/90000"})
    direction: str = ""
    setup: str = ""
    connection: str = ""
    ssrc: str = ""
    hint: str | None = None  # f=, may be empty
    source: str = ""  # u=
    start_s: int = 0
    end_s: int = 0
    speed: int = 0  # a=downloadspeed
    size: int | None = None  # a=filesize
    media: str = "video"


def parse(body: bytes) -> Sdp:
    """Raises RemoteProtocolError: no SDP, or no media line."""
    text = body.decode("utf-8", "replace")
    one: dict[str, str] = {}
    attributes: dict[str, str] = {}
    rtpmap: dict[int, str] = {}
    media: list[str] = []
    for line in text.splitlines()[:MOST_LINES]:
        key, equals, value = line.strip().partition("=")
        if not equals or len(key) != 1:
            continue
        if key == "m":
            if media[:1] == ["video"]:
                break  # a second stream (audio): its lines are not the video's
            media, attributes, rtpmap = value.split(), {}, {}
        elif key == "a":
            name, _, rest = value.partition(":")
            if name == "rtpmap":
                number, _, codec = rest.strip().partition(" ")
                if number.isdecimal() and int(number) < 128:
                    rtpmap[int(number)] = codec.strip()
            else:
                attributes.setdefault(name.strip(), rest.strip())
        else:
            one.setdefault(key, value)
    if one.get("v") is None or len(media) < 3:
        raise RemoteProtocolError("SDP without version or media line", reason="sdp")
    port = media[1].split("/")[0]
    owner = one.get("o", "").split()
    address = (one.get("c") or " ".join(owner[3:])).split()
    times = [int(part) for part in one.get("t", "0 0").split() if part.isdecimal() and len(part) < 12]
    size = attributes.get("filesize", "")
    speed = attributes.get("downloadspeed", "")
    return Sdp(
        session=one.get("s", "").strip(), owner=owner[0] if owner else "",
        ip=address[2] if len(address) > 2 else "", port=int(port) if port.isdecimal() and len(port) < 6 else 0,
        proto=media[2], payloads=tuple(int(pt) for pt in media[3:] if pt.isdecimal() and len(pt) < 4), rtpmap=rtpmap,
        direction=next((way for way in ("recvonly", "sendonly", "sendrecv", "inactive") if way in attributes), ""),
        setup=attributes.get("setup", ""), connection=attributes.get("connection", ""),
        ssrc=one.get("y", "").strip(), hint=one.get("f"), source=one.get("u", "").strip(), media=media[0],
        start_s=times[0] if times else 0, end_s=times[1] if len(times) > 1 else 0,
        speed=int(speed) if speed.isdecimal() and len(speed) < 4 else 0,
        size=int(size) if size.isdecimal() and len(size) < 16 else None,
    )  # fmt: skip


def build(sdp: Sdp) -> bytes:
    lines = ["v=0", f"o={sdp.owner} 0 0 IN IP4 {sdp.ip}", f"s={sdp.session}"]
    if sdp.source:
        lines.append(f"u={sdp.source}")
    payloads = " ".join(str(pt) for pt in sdp.payloads)
    lines += [
        f"c=IN IP4 {sdp.ip}", f"t={sdp.start_s} {sdp.end_s}", f"m={sdp.media} {sdp.port} {sdp.proto} {payloads}",
    ]  # fmt: skip
    if sdp.direction:
        lines.append(f"a={sdp.direction}")
    lines += [f"a=rtpmap:{number} {codec}" for number, codec in sdp.rtpmap.items()]
    if sdp.setup:
        lines.append(f"a=setup:{sdp.setup}")
    if sdp.connection:
        lines.append(f"a=connection:{sdp.connection}")
    if sdp.speed:
        lines.append(f"a=downloadspeed:{sdp.speed}")
    if sdp.size is not None:
        lines.append(f"a=filesize:{sdp.size}")
    if sdp.ssrc:
        lines.append(f"y={sdp.ssrc}")
    if sdp.hint is not None:
        lines.append(f"f={sdp.hint}")
    return ("\r\n".join(lines) + "\r\n").encode()


def ssrc(realm: str, serial: int, *, history: bool = False) -> str:
    """Ten digits: live or history, digits 4 to 8 of the domain, a serial."""
    return f"{int(history)}{realm[3:8]:0<5}{serial % 10_000:04d}"


def hidden(text: str) -> str:
    """A body fit for a log or a report."""
    return _SECRET.sub(r"\1***", text)
