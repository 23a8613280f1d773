"""Is a device there? Told once when it is lost, once when it is back; and the words for what a frame did wrong."""

from __future__ import annotations

from edge.connectors.base import Sink
from protocols.core.errors import RemoteProtocolError

#: Polls without an answer after which a device is lost (and polled slowly).
LOST_AFTER = 3

#: Reasons of the codecs in the words of the event catalogue; what is not here keeps its own name.
_CODES = {"crc": "checksum", "lrc": "checksum", "wrong_unit": "wrong_address"}


class Health:
    """``online`` is None until the first answer or the third miss."""

    def __init__(self, device: str, lost_after: int = LOST_AFTER) -> None:
        self.device = device
        self.misses = 0
        self.online: bool | None = None
        self._lost_after = lost_after

    @property
    def lost(self) -> bool:
        return self.misses >= self._lost_after

    def answered(self, sink: Sink) -> None:
        self.misses = 0
        if self.online is not True:
            self.online = True
            sink.device_state(self.device, online=True)

    def missed(self, sink: Sink, detail: str = "") -> None:
        self.misses += 1
        if self.lost:
            self.gone(sink, detail)

    def gone(self, sink: Sink, detail: str = "") -> None:
        if self.online is not False:
            self.online = False
            sink.device_state(self.device, online=False, detail=detail)


def reject(sink: Sink, device: str, error: RemoteProtocolError) -> None:
    """A frame was refused: count it by reason and report it."""
    code = _CODES.get(error.reason, error.reason)
    sink.count("frames_rejected", reason=code)
    sink.report("data.rejected", device, code, str(error))
