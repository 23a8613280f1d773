"""Sparkplug's topics (3.0, chapter 4): who says what, and the STATE of host applications beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from protocols.core.errors import LocalProtocolError, RemoteProtocolError

NAMESPACE = "spBv1.0"
NODE_TYPES = ("NBIRTH", "NDEATH", "NDATA", "NCMD")
DEVICE_TYPES = ("DBIRTH", "DDEATH", "DDATA", "DCMD")
_FORBIDDEN = frozenset("/+#")


@dataclass(frozen=True, slots=True)
class Topic:
    """``device`` "": of the edge node itself. Type STATE has a ``host`` and nothing else."""

    type: str
    group: str = ""
    node: str = ""
    device: str = ""
    host: str = ""

    def __str__(self) -> str:
        if self.type == "STATE":
            return f"{NAMESPACE}/STATE/{self.host}"
        return "/".join((NAMESPACE, self.group, self.type, self.node, *([self.device] if self.device else [])))


def parse(topic: str) -> Topic:
    """Raises RemoteProtocolError: ``namespace``, ``type`` (no such message), ``id`` (empty or forbidden letters),
    ``levels`` (a device where none belongs, or none where one must be)."""
    parts = topic.split("/")
    if parts[0] == "STATE" and len(parts) == 2:
        return Topic("STATE", host=_id(parts[1], "host"))  # Sparkplug before 3.0
    if parts[0] != NAMESPACE:
        raise RemoteProtocolError(f"{parts[0]!r} is not {NAMESPACE}", reason="namespace", offset=0)
    if len(parts) >= 2 and parts[1] == "STATE":
        if len(parts) != 3:
            raise RemoteProtocolError("STATE is followed by the host's id and nothing else", reason="levels")
        return Topic("STATE", host=_id(parts[2], "host"))
    if len(parts) not in (4, 5):
        raise RemoteProtocolError(f"{len(parts)} levels; a node's topic has 4, a device's 5", reason="levels")
    group, kind, node = parts[1], parts[2], parts[3]
    if kind not in (*NODE_TYPES, *DEVICE_TYPES):
        raise RemoteProtocolError(f"no message is called {kind!r}", reason="type")
    if (kind in DEVICE_TYPES) != (len(parts) == 5):
        which = "names a device" if kind in DEVICE_TYPES else "names no device"
        raise RemoteProtocolError(f"a {kind} {which}", reason="levels")
    return Topic(kind, _id(group, "group"), _id(node, "node"), _id(parts[4], "device") if kind in DEVICE_TYPES else "")


def _id(text: str, what: str) -> str:
    if not text or _FORBIDDEN & set(text):
        raise RemoteProtocolError(f"{what} {text!r}: empty, or with + or #", reason="id")
    return text


def check_id(text: str, what: str) -> str:
    """An id of our own. Raises LocalProtocolError."""
    if not text or _FORBIDDEN & set(text):
        raise LocalProtocolError(f"{what} {text!r}: not empty, without / + #", reason="id")
    return text


def state_payload(*, online: bool, timestamp_ms: int) -> bytes:
    """STATE of a host: retained, QoS 1; the will carries the timestamp of the birth it belongs to."""
    return json.dumps({"online": online, "timestamp": timestamp_ms}).encode()


def parse_state(data: bytes) -> tuple[bool, int | None]:
    """Online, and since when. Before 3.0 it was the word ONLINE or OFFLINE. Raises RemoteProtocolError."""
    if data in (b"ONLINE", b"OFFLINE"):
        return data == b"ONLINE", None
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("a STATE that is no JSON", reason="not_json") from error
    online = said.get("online") if isinstance(said, dict) else None
    timestamp = said.get("timestamp") if isinstance(said, dict) else None
    if not isinstance(online, bool) or not (timestamp is None or isinstance(timestamp, int)):
        raise RemoteProtocolError('a STATE needs "online": true or false', reason="state")
    return online, timestamp
