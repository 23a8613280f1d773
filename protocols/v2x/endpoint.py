"""A roadside unit's datagrams, sans-IO: the unit (SLAVE) sends, whoever listens (MASTER) reads.

One datagram is one unit: there is nothing to cut, so a bad one costs exactly itself. The set and the wrapping are
the link's configuration, because a frame of the other set may decode into nonsense; positions outside the configured
area give such a mix-up away.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.v2x import frame as frames
from protocols.v2x.build import frame_of
from protocols.v2x.messages import Message, Place, from_csae53, from_j2735
from protocols.v2x.schema import Set, decode, not_carried

Wrapping = Literal["none", "vendor"]

#: A datagram that says byte for byte what one said this little before is the same one again (two radios, a switch
#: loop); the message counter runs through 128 in 12.8 s at 10 Hz.
REPEAT_MS = 2_000
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Heard:
    """One message and what its wrapper says: who passed it on ("" without a wrapper) and when."""

    message: Message
    device_id: str = ""
    time_ms: int | None = None


class V2xEndpoint:
    """``area``: (west, south, east, north) in degrees; messages placed outside are refused. None: not checked."""

    def __init__(
        self,
        role: Role,
        *,
        which: Set = "csae53",
        wrapping: Wrapping = "none",
        area: tuple[float, float, float, float] | None = None,
        device_id: bytes = b"",
    ) -> None:
        self.role = role
        self.which = which
        self.wrapping = wrapping
        self.repeats = 0
        self._area = area
        self._device_id = device_id
        self._seen: OrderedDict[int, int] = OrderedDict()

    def feed(self, datagram: bytes, now_ms: int, sender: str = "") -> list[Heard | RemoteProtocolError]:
        """One whole datagram. ``sender`` keeps units apart that say the same."""
        if self._repeated(datagram, now_ms, sender):
            self.repeats += 1
            return []
        if self.wrapping == "none":
            return self._read(datagram, "", None)
        try:
            wrapped = frames.unwrap(datagram)
        except RemoteProtocolError as error:
            return [error]
        out: list[Heard | RemoteProtocolError] = []
        for _, body in wrapped.frames:
            out += self._read(body, wrapped.device_id, wrapped.time_ms)
        return out

    def _repeated(self, datagram: bytes, now_ms: int, sender: str) -> bool:
        key = zlib.crc32(datagram, zlib.crc32(sender.encode()))
        last_ms = self._seen.pop(key, None)
        self._seen[key] = now_ms
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return last_ms is not None and 0 <= now_ms - last_ms <= REPEAT_MS

    def _read(self, data: bytes, device_id: str, time_ms: int | None) -> list[Heard | RemoteProtocolError]:
        try:
            message = self._csae53(data) if self.which == "csae53" else self._j2735(data)
        except RemoteProtocolError as error:
            return [error]
        if message is None:
            return []
        place = getattr(message, "place", None)
        if place is not None and not self._inside(place):
            text = f"position {place.lat:.4f}, {place.lon:.4f} is outside the configured area: other set or bad map?"
            return [RemoteProtocolError(text, reason="position")]
        return [Heard(message, device_id, time_ms)]

    def _inside(self, place: Place) -> bool:
        if self._area is None:
            return True
        west, south, east, north = self._area
        return west <= place.lon <= east and south <= place.lat <= north

    @staticmethod
    def _csae53(data: bytes) -> Message:
        if data and data[0] & 0x80:
            raise RemoteProtocolError("a message kind behind the extension mark (day 2)", reason="extension", offset=0)
        found = decode("csae53", "MessageFrame", data)
        if any(rest := data[(found.bits + 7) // 8 :]):  # zeros are padding to a fixed size
            raise RemoteProtocolError(f"{len(rest)} bytes behind the message", reason="length")
        return from_csae53(found.value)

    @staticmethod
    def _j2735(data: bytes) -> Message | None:
        found = frames.j2735(frames.payload_of_radio(data)[1])
        if not found.type_name:
            raise RemoteProtocolError(f"message id {found.message_id} is not read", reason="message_id", offset=0)
        value = decode("j2735", found.type_name, found.body).value
        if beyond := not_carried(value):
            raise RemoteProtocolError(f"has {beyond}, whose layout is not known here", reason="not_carried")
        return from_j2735(found.type_name, value)

    def send(self, message: Message | list[Message], now_ms: int) -> bytes:
        """One datagram; ``now_ms``: the UTC time a wrapper carries. Several messages need a wrapper. Raises
        LocalProtocolError."""
        if self.which != "csae53":
            raise LocalProtocolError("only T/CSAE 53 messages are built", reason="encode")
        bodies = [frame_of(one) for one in (message if isinstance(message, list) else [message])]
        if self.wrapping == "vendor":
            return frames.wrap(self._device_id, now_ms, bodies, batch=isinstance(message, list))
        if len(bodies) != 1:
            raise LocalProtocolError("without a wrapper a datagram is one message", reason="encode")
        return bodies[0]
