"""What endpoints on a shared line have in common: frames out of a scanner, and a half frame that silence makes void."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from protocols.core.errors import RemoteProtocolError

MessageT = TypeVar("MessageT")


class FrameScanner(Protocol):
    """Cuts a stream into frames; ``held``: what waits for more, empty if nothing does."""

    @property
    def held(self) -> Any: ...

    def feed(self, data: bytes) -> list[Any]: ...

    def idle(self) -> list[Any]: ...

    def reset(self) -> None: ...


class ScanningEndpoint(ABC, Generic[MessageT]):
    """The receiving half of an endpoint. A protocol gives its scanner, its silence, and what one finding means."""

    silence_ms: ClassVar[int]  # a half frame is given up after it

    def __init__(self, scanner: FrameScanner) -> None:
        self._scanner = scanner
        self._silence_at_ms: int | None = None

    @abstractmethod
    def _take(self, found: Any) -> list[MessageT | RemoteProtocolError]:
        """The messages of one finding of the scanner."""

    def feed(self, data: bytes, now_ms: int) -> list[MessageT | RemoteProtocolError]:
        out: list[MessageT | RemoteProtocolError] = []
        for found in self._scanner.feed(data):
            out.extend(self._take(found))
        self._silence_at_ms = now_ms + self.silence_ms if self._scanner.held else None
        return out

    def deadline(self) -> int | None:
        return self._silence_at_ms

    def tick(self, now_ms: int) -> list[MessageT | RemoteProtocolError]:
        if self._silence_at_ms is None or now_ms < self._silence_at_ms:
            return []
        self._silence_at_ms = None
        out: list[MessageT | RemoteProtocolError] = []
        for found in self._scanner.idle():
            out.extend(self._take(found))
        return out

    def _flush(self) -> None:
        """What came late belongs to an older request."""
        self._scanner.reset()
        self._silence_at_ms = None
