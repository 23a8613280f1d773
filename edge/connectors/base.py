"""The contract of a connector, and the only two things it may touch: a Link and a Sink.

A connector owns one link (a serial bus, a listening socket, a Modbus TCP host). It turns what devices say into sweeps
and what goes wrong into reports. It never waits for the uplink, never stops because one device is silent, and never
decides about alarms.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from protocols.core.model import Sweep


class Link(Protocol):
    """A byte pipe. ``read`` returns b"" when the other end has closed; raises TransportError otherwise."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


#: Opens the link, or raises LinkDown / LinkRefused. Tests pass one that returns a memory pipe.
LinkFactory = Callable[[], Awaitable[Link]]


class Sink(Protocol):
    """Where a connector puts what it has learnt. All calls return at once and never raise."""

    def sweep(self, sweep: Sweep, on_durable: Callable[[], None] | None = None) -> None:
        """Hand on one sweep. ``on_durable`` is called (on the loop) once the sweep is on disk, or was recognised as
        a repeat of one that is: the moment at which a device that wants an acknowledgement may get it."""

    def report(self, event_type: str, device: str, code: str, detail: str = "", *, point: str = "") -> None:
        """Report a happening (``data.rejected``, ``dev.fault``, ``dev.clock_skew``, ``dev.maintenance`` ...).

        Repeats of the same (type, device, point, code) within a minute are counted, not sent again."""

    def device_state(self, device: str, *, online: bool, detail: str = "") -> None:
        """The device answers / does not answer. Lost and back are each reported once."""

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Count into ``citybrain_edge_<name>_total``."""


class Connector(Protocol):
    id: str

    async def run(self, sink: Sink) -> None:
        """Serve the link until cancelled. Raises TransportError when the link is lost: the supervisor opens it again
        after a back-off with jitter. Any other exception is a programming error and ends the agent."""


@dataclass(frozen=True, slots=True)
class Command:
    """An order to one device. ``id`` is the idempotency key; after ``expires_ms`` it must not be carried out."""

    id: str
    device: str
    name: str
    arguments: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    expires_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command, never more than is known.

    ``done``: the device confirmed it, and the read-back (where the type names one) shows it. ``refused``: nothing was
    sent, or the device said no. ``failed``: the device confirmed, but the read-back shows something else. ``unknown``:
    it was sent and no answer came; it may have happened.
    """

    state: Literal["done", "refused", "failed", "expired", "unknown"]
    code: str = ""
    detail: str = ""
    read_back: Mapping[str, float | str] = field(default_factory=dict)


@runtime_checkable
class Commandable(Protocol):
    """A connector that can also tell its devices to do something."""

    async def command(self, command: Command) -> Outcome:
        """Carry it out once, between two polls. The desk has checked that the type has this command, its arguments,
        its time and that the gateway allows it; raises nothing but TransportError (the link is down: nothing was
        sent)."""
