"""Happenings that connectors report, as events: named, placed, and not repeated more than once a minute.

A line that garbles every frame must not fill the outbox: the first report goes at once, the rest of the minute is
counted and told in one event at its end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge.clock import Clock
from edge.devices import Devices
from protocols.core.ids import uuid7
from protocols.core.model import Event
from protocols.vocabulary import event_types

_QUIET_MS = 60_000
_MOST_KINDS = 5_000  # a stranger must not make us remember without end


@dataclass(slots=True)
class _Seen:
    first_ms: int
    more: int = 0
    detail: str = ""


class Happenings:
    def __init__(self, clock: Clock, devices: Devices) -> None:
        self._clock = clock
        self._devices = devices
        self._seen: dict[tuple[str, str, str, str], _Seen] = {}

    def report(self, event_type: str, device: str, code: str, detail: str, point: str) -> Event | None:
        """The event to send now, or None if it was only counted."""
        now_ms = self._clock.now_ms()
        kind = (event_type, device, point, code)
        seen = self._seen.get(kind)
        if seen is not None:
            seen.more += 1
            seen.detail = detail
            return None
        if len(self._seen) >= _MOST_KINDS:
            return None
        self._seen[kind] = _Seen(now_ms)
        return self._event(kind, detail, 1, now_ms)

    def tick(self, now_ms: int) -> list[Event]:
        """Close the minutes that are over; those with repeats are told once with their number."""
        out: list[Event] = []
        for kind, seen in list(self._seen.items()):
            if now_ms - seen.first_ms < _QUIET_MS:
                continue
            if seen.more:
                out.append(self._event(kind, seen.detail, seen.more, now_ms))
                self._seen[kind] = _Seen(now_ms)
            else:
                del self._seen[kind]
        return out

    def clock_stepped(self, delta_ms: int) -> None:
        """Minutes that run go on as if the clock had always been as it is now."""
        for seen in self._seen.values():
            seen.first_ms += delta_ms

    def place(self, event: Event) -> Event:
        """Give an event the place of its device, unless it has one."""
        if event.location is not None:
            return event
        return replace(event, location=self._devices.location(event.source.partition("/")[0]))

    def _event(self, kind: tuple[str, str, str, str], detail: str, times: int, now_ms: int) -> Event:
        event_type, device, point, code = kind
        return Event(
            id=uuid7(now_ms),
            type=event_type,
            ts_ms=now_ms,
            seen_ms=now_ms,
            source=f"{device}/{point}" if point else device,
            level=event_types()[event_type].level,
            values={"code": code, "detail": detail[:200], "n": times},
        )
