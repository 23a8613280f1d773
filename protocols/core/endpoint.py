"""What every protocol endpoint looks like: one end of a conversation, without I/O and without a clock.

Bytes go in by :meth:`Endpoint.feed`, bytes to write come out of :meth:`Endpoint.send`. Time is an argument in
milliseconds, so a test or a simulator can run hours in a second. What the other side got wrong comes back in the same
list as the messages, in stream order, as :class:`~protocols.core.errors.RemoteProtocolError`: a bad frame never hides
the good one behind it.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol, TypeVar

from protocols.core.errors import RemoteProtocolError


class Role(Enum):
    MASTER = "master"  # asks (Modbus client, DL/T 645 master) or receives the uploads (HJ 212 platform)
    SLAVE = "slave"  # answers (meter, sensor) or uploads (HJ 212 station)


MessageT = TypeVar("MessageT")


class Endpoint(Protocol[MessageT]):
    """One end of one conversation."""

    role: Role

    def feed(self, data: bytes, now_ms: int) -> list[MessageT | RemoteProtocolError]:
        """Take bytes as they come, cut anywhere; return whole messages and what was wrong, in order.

        Never raises for bad remote bytes and keeps bounded memory whatever a length field says.
        """

    def send(self, message: MessageT, now_ms: int) -> bytes:
        """Encode one message. Raises LocalProtocolError if it is illegal now."""

    def deadline(self) -> int | None:
        """When :meth:`tick` wants to be called (ms), None if nothing is pending."""

    def tick(self, now_ms: int) -> list[MessageT | RemoteProtocolError]:
        """Time has passed: give up on half frames, drop split packets that never completed."""
