"""What people have in hand of an MQTT message: the payload alone, a line that `mosquitto_sub -v` printed, or a whole
PUBLISH packet cut out of a packet capture. All three become topic and payload.
"""

from __future__ import annotations

from dataclasses import dataclass

_PUBLISH = 3


@dataclass(frozen=True, slots=True)
class Message:
    """``offset``: where the payload begins in the capture. ``how``: "packet", "line" or "" (payload alone)."""

    topic: str
    payload: bytes
    offset: int = 0
    how: str = ""


def unwrap(data: bytes, *prefixes: str) -> Message:
    """Topic and payload, where the topic begins with one of ``prefixes``; else the data as they are."""
    return _packet(data, prefixes) or _line(data, prefixes) or Message("", data)


def _packet(data: bytes, prefixes: tuple[str, ...]) -> Message | None:
    """MQTT 3.1.1, 3.3: type and flags, remaining length (1-4 bytes), topic (u16 length), packet id if QoS is not 0."""
    if len(data) < 5 or data[0] >> 4 != _PUBLISH:
        return None
    length = shift = 0
    at = 1
    while at < min(len(data), 5):
        length |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            break
    behind = at + length
    if behind > len(data) or at + 2 > len(data):
        return None
    topic_end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    start = topic_end + (2 if data[0] & 0x06 else 0)
    if start > behind:
        return None
    topic = data[at + 2 : topic_end].decode("utf-8", "replace")
    return Message(topic, data[start:behind], start, "packet") if topic.startswith(prefixes) else None


def _line(data: bytes, prefixes: tuple[str, ...]) -> Message | None:
    """`topic payload`, the payload as text (JSON) or hex. Topics may hold spaces, so JSON begins at the first brace."""
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
    if not text.startswith(prefixes):
        return None
    brace = text.find(" {")
    if brace >= 0:
        payload = text[brace + 1 :].encode()
        return Message(text[:brace], payload, data.find(payload), "line")
    head, space, last = text.rpartition(" ")
    if space and last:
        try:
            return Message(head.strip(), bytes.fromhex(last), 0, "line")
        except ValueError:
            if head.startswith(prefixes) and last in ("ONLINE", "OFFLINE"):
                return Message(head, last.encode(), 0, "line")
    return Message(text, b"", 0, "line")
