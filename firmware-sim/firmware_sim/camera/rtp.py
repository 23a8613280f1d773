"""RTP for H.264 (RFC 3550, RFC 6184) and the interleaved framing of RTSP (RFC 2326 section 10.12). Bytes only."""

from __future__ import annotations

import base64
import struct

MAX_PAYLOAD = 1400  # as cameras do on Ethernet, although TCP would carry more
PAYLOAD_TYPE = 96
_FU_A = 28


class Packetizer:
    """Turns the NAL units of a picture into RTP packets with running sequence numbers."""

    def __init__(self, ssrc: int, sequence: int = 0) -> None:
        self.ssrc = ssrc
        self.sequence = sequence & 0xFFFF

    def packets(self, units: list[bytes], timestamp: int) -> list[bytes]:
        """Packets of one picture; the marker bit is on the last."""
        payloads: list[bytes] = []
        for unit in units:
            if len(unit) <= MAX_PAYLOAD:
                payloads.append(unit)
                continue
            indicator, kind, body = (unit[0] & 0xE0) | _FU_A, unit[0] & 0x1F, unit[1:]
            step = MAX_PAYLOAD - 2
            for at in range(0, len(body), step):
                edge = (0x80 if at == 0 else 0) | (0x40 if at + step >= len(body) else 0)
                payloads.append(bytes((indicator, edge | kind)) + body[at : at + step])
        out: list[bytes] = []
        for index, payload in enumerate(payloads):
            marker = 0x80 if index == len(payloads) - 1 else 0
            head = struct.pack("!BBHII", 0x80, marker | PAYLOAD_TYPE, self.sequence, timestamp & 0xFFFFFFFF, self.ssrc)
            self.sequence = (self.sequence + 1) & 0xFFFF
            out.append(head + payload)
        return out


def interleave(channel: int, packet: bytes) -> bytes:
    """Frame a packet for the RTSP connection itself."""
    return struct.pack("!cBH", b"$", channel, len(packet)) + packet


def sdp(host: str, sps: bytes, pps: bytes, fps: float) -> str:
    """Session description of one H.264 stream (RFC 6184 section 8.2)."""
    sets = ",".join(base64.b64encode(unit).decode() for unit in (sps, pps))
    return "\r\n".join(
        (
            "v=0",
            f"o=- 1 1 IN IP4 {host}",
            "s=firmware-sim",
            f"c=IN IP4 {host}",
            "t=0 0",
            "a=control:*",
            f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
            f"a=rtpmap:{PAYLOAD_TYPE} H264/90000",
            f"a=fmtp:{PAYLOAD_TYPE} packetization-mode=1;profile-level-id={sps[1:4].hex()};sprop-parameter-sets={sets}",
            f"a=framerate:{fps:g}",
            "a=control:track1",
            "",
        )
    )
