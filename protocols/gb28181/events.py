"""What a platform learns from its devices: the results of :class:`~protocols.gb28181.platform.Platform`."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.core.errors import RemoteProtocolError
from protocols.gb28181 import sdp
from protocols.gb28181.manscdp import Body, Channel
from protocols.gb28181.party import Finished, Peer


@dataclass(frozen=True, slots=True)
class Registered:
    """``first``: it was not registered before (or from another host). ``version``: X-GB-Ver ("" before 2016)."""

    device: str
    peer: Peer
    expires_s: int
    agent: str
    version: str
    first: bool


@dataclass(frozen=True, slots=True)
class Gone:
    """``reason``: logoff, expired."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Somebody was not let in. ``reason``: stranger, password, replay, locked, unregistered, moved, algorithm."""

    device: str
    peer: Peer
    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """A body of a registered device: keep-alive, alarm, answer."""

    device: str
    body: Body


@dataclass(frozen=True, slots=True)
class Catalogue:
    """``complete`` False: fewer channels came than announced."""

    device: str
    channels: tuple[Channel, ...]
    total: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Garbled:
    """A MESSAGE whose body could not be read; it was answered 400."""

    device: str
    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Media:
    """A stream: ``answer`` the camera's SDP when it agreed, None with the ``reason`` why there is none (any more)."""

    dialog: str
    device: str
    channel: str
    answer: sdp.Sdp | None
    reason: str = ""


Event = Registered | Gone | Refused | Said | Catalogue | Garbled | Media | Finished
