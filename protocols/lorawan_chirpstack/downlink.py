"""Orders to a LoRaWAN device: an entry in the server's queue, not more.

A class A device listens only after it has spoken: what is queued now may go out in an hour. "Sent" is the txack event,
"received" the ack event of a confirmed downlink.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocols.core.errors import LocalProtocolError
from protocols.lorawan_chirpstack import said

#: LoRaWAN 1.0.3, 4.3.2: 0 is MAC, 224 the test protocol, above reserved.
PORTS = range(1, 224)
#: Longest payload of any data rate in any region; the server refuses what the current one cannot carry.
MAX_PAYLOAD = 242


@dataclass(frozen=True, slots=True)
class Downlink:
    """``object``: let the server's codec make the bytes. ``id``: comes back in ack and txack as queueItemId."""

    application: str
    dev_eui: str
    f_port: int
    payload: bytes = b""
    object: Mapping[str, Any] | None = None
    confirmed: bool = True
    id: str = ""

    @property
    def topic(self) -> str:
        return f"application/{self.application}/device/{self.dev_eui}/command/down"


def content(order: Downlink) -> dict[str, Any]:
    """The command's JSON. Raises LocalProtocolError for what the server would drop without a word."""
    if said.identity(order.dev_eui, 8) != order.dev_eui:
        raise LocalProtocolError(f"{order.dev_eui!r} is no DevEUI in lower-case hex", reason="dev_eui")
    if not order.application or set("/+#") & set(order.application):
        raise LocalProtocolError(f"{order.application!r} is no application", reason="application")
    if order.f_port not in PORTS:
        raise LocalProtocolError(f"fPort {order.f_port}: 1 to 223", reason="f_port")
    if (order.object is None) != bool(order.payload):
        raise LocalProtocolError("either bytes or an object", reason="payload")
    if len(order.payload) > MAX_PAYLOAD:
        raise LocalProtocolError(f"{len(order.payload)} bytes; at most {MAX_PAYLOAD}", reason="payload")
    out: dict[str, Any] = {"id": order.id} if order.id else {}
    out |= {"devEui": order.dev_eui, "confirmed": order.confirmed, "fPort": order.f_port}
    if order.object is not None:
        return {**out, "object": dict(order.object)}
    return {**out, "data": base64.b64encode(order.payload).decode()}


def encode(order: Downlink) -> bytes:
    """The command's bytes. Raises LocalProtocolError."""
    return json.dumps(content(order), ensure_ascii=False, separators=(",", ":")).encode()
