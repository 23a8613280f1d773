"""What a connection really costs and whether the other end still answers, as the kernel counts it.

A metered link bills packets, not payloads. On Linux the kernel's own counters are read (``TCP_INFO``: bytes sent with
every retransmission, bytes received, segments both ways), so that TLS, MQTT, keep-alives and answers are all in;
for each segment 52 bytes are added (IPv4 20, TCP 20, timestamps 12). Not in: the packets of the handshake's first
exchange that the link layer adds, and VPN headers. Elsewhere an estimate stands in: payload, topic, 45 bytes a message.

Field offsets: ``struct tcp_info``, linux/include/uapi/linux/tcp.h (fields are only ever appended).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Protocol

_SEGMENT_OVERHEAD = 52
_MESSAGE_OVERHEAD = 45
_SIOCOUTQ = 0x5411  # bytes in the send queue that the peer has not acknowledged
_BYTES_ACKED = struct.Struct("=QQII")  # at 120: bytes_acked, bytes_received, segs_out, segs_in
_BYTES_SENT = struct.Struct("=Q")  # at 200, since Linux 4.19


class HasFileno(Protocol):
    def fileno(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TcpCount:
    sent_bytes: int  # payload of TCP, retransmissions included
    received_bytes: int
    acked_bytes: int
    segments: int  # both ways
    waiting_bytes: int  # handed to the kernel, not acknowledged by the peer

    @property
    def link_bytes(self) -> int:
        return self.sent_bytes + self.received_bytes + self.segments * _SEGMENT_OVERHEAD


def tcp_count(sock: socket.socket) -> TcpCount | None:
    """None where the system does not say, or the socket is closed."""
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        waiting = struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)))[0]
    except (OSError, ValueError):
        return None
    if len(info) < 152:
        return None
    acked, received, out, back = _BYTES_ACKED.unpack_from(info, 120)
    sent = _BYTES_SENT.unpack_from(info, 200)[0] if len(info) >= 208 else acked
    return TcpCount(sent, received, acked, out + back, waiting)


def estimate(topic: str, payload_bytes: int) -> int:
    """Bytes one message costs, its answers included, where the kernel does not count."""
    return len(topic) + payload_bytes + _MESSAGE_OVERHEAD + payload_bytes // 1400 * _SEGMENT_OVERHEAD
