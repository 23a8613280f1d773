"""Orders to charging stations: one call, its answer, and then what the station shows.

"Accepted" only says that a station will try. So a start is done when the connector is in a transaction, a stop when
it no longer is, a limit when the station's own schedule names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol

from edge.connectors import ocpp_files
from edge.connectors.base import Outcome
from protocols.core.errors import LocalProtocolError
from protocols.devices import CommandType
from protocols.ocpp.frame import CallError, CallResult
from protocols.ocpp.orders import AGREED, Order, composite_limit, status_of


@dataclass(slots=True)
class Place:
    """What is known of a connector."""

    status: str = ""
    transaction: str = ""
    told_ms: int = 0


class Target(Protocol):
    """A charging station, as far as orders need it."""

    @property
    def device(self) -> str: ...

    places: dict[int, Place]
    files: dict[str, str]  # firmware, log: the last status told
    changed: asyncio.Event
    booted: bool

    def place(self, number: int) -> Place: ...


Answer = CallResult | CallError | None
Arguments = Mapping[str, float | int | str | bool]


class Orders:
    """``ask``: one call and its answer; raises LinkDown if nothing was sent. ``now``: the time, as stations read it."""

    def __init__(self, ask: Callable[[Any, Order], Awaitable[Answer]], settle_s: float, now: Callable[[], str]) -> None:
        self._ask = ask
        self._settle_s = settle_s
        self._now = now
        self._starts = 0

    async def carry_out(self, station: Target, what: CommandType, arguments: Arguments) -> Outcome:
        """``what.key``: reset, start, stop, availability, unlock, limit W or limit A, firmware, log."""
        place = int(arguments.get("connector", 1))
        word, _, rate = what.key.partition(" ")
        try:
            match word:
                case "reset":
                    return await self._reset(station, hard=arguments.get("mode") == "hard")
                case "start":
                    return await self._start(station, place, str(arguments.get("card", "")))
                case "stop":
                    return await self._stop(station, place)
                case "availability":
                    return await self._availability(station, place, arguments.get("in_service") is True)
                case "unlock":
                    return await self._plain(station, Order("unlock", place))
                case "limit":
                    limit = Decimal(str(arguments.get("limit", 0)))
                    return await self._limit(station, place, limit, "A" if rate == "A" else "W")
                case "firmware" | "log":
                    return await self._file(station, Order(word, url=str(arguments.get("url", "")), at=self._now()))
                case _:
                    return Outcome("refused", "unknown_command", f"{what.key!r} is no order of charging stations")
        except LocalProtocolError as error:
            return Outcome("refused", error.reason, str(error))
        except TimeoutError:
            return Outcome("refused", "busy", "an earlier call to the station is still unanswered")

    async def _agreed(self, station: Target, order: Order) -> Outcome | CallResult:
        answer = await self._ask(station, order)
        if answer is None:
            return Outcome("unknown", "no_answer", "the station did not answer; it may have happened")
        if isinstance(answer, CallError):
            return Outcome("refused", answer.code[:40], answer.description[:200])
        status = status_of(answer.payload)
        if status and status not in AGREED:
            return Outcome("refused", status[:40], "the station said no")
        return answer

    async def _plain(self, station: Target, order: Order) -> Outcome:
        answer = await self._agreed(station, order)
        return answer if isinstance(answer, Outcome) else Outcome("done", status_of(answer.payload))

    async def _shows(self, station: Target, shown: Callable[[], bool]) -> bool:
        """Whether it shows within the time a station has for it."""
        try:
            async with asyncio.timeout(self._settle_s):
                while not shown():
                    station.changed.clear()
                    await station.changed.wait()
        except TimeoutError:
            return False
        return True

    async def _reset(self, station: Target, *, hard: bool) -> Outcome:
        station.booted = False
        answer = await self._agreed(station, Order("reset", hard=hard))
        if isinstance(answer, Outcome):
            station.booted = True
            return answer
        # It tells of itself when it is back, which may be minutes: only that it agreed is known now.
        return Outcome("done", status_of(answer.payload), "it restarts")

    async def _start(self, station: Target, place: int, card: str) -> Outcome:
        before = station.place(place).transaction
        if before:
            return Outcome("refused", "in_use", f"connector {place} is in a transaction")
        self._starts = self._starts % 1_000_000 + 1
        answer = await self._agreed(station, Order("start", place, card=card, number=self._starts))
        if isinstance(answer, Outcome):
            return answer
        if await self._shows(station, lambda: bool(station.place(place).transaction)):
            return Outcome("done", "", "", {"connector": float(place), "transaction": 1.0})
        return Outcome("failed", "read_back", "it agreed, but no transaction began", {"transaction": 0.0})

    async def _stop(self, station: Target, place: int) -> Outcome:
        running = station.place(place).transaction
        if not running:
            return Outcome("refused", "not_running", f"no transaction is known on connector {place}")
        answer = await self._agreed(station, Order("stop", place, transaction=running))
        if isinstance(answer, Outcome):
            return answer
        if await self._shows(station, lambda: station.place(place).transaction != running):
            return Outcome("done", "", "", {"connector": float(place), "transaction": 0.0})
        return Outcome("failed", "read_back", "it agreed, but the transaction goes on", {"transaction": 1.0})

    async def _availability(self, station: Target, place: int, in_service: bool) -> Outcome:
        answer = await self._agreed(station, Order("availability", place, in_service=in_service))
        if isinstance(answer, Outcome):
            return answer
        if status_of(answer.payload) == "Scheduled":
            return Outcome("unknown", "scheduled", "it does so when the charging under way has ended")

        def shown() -> bool:
            watched = [station.place(place)] if place else list(station.places.values())
            return all((one.status == "Unavailable") != in_service for one in watched if one.status)

        if shown() or await self._shows(station, shown):
            return Outcome("done", "", "", {"status": station.place(place).status})
        return Outcome("failed", "read_back", "its state does not show it", {"status": station.place(place).status})

    async def _file(self, station: Target, order: Order) -> Outcome:
        """The station gets or brings a file by itself; its end is waited for as long as it has for an answer."""
        if wrong := ocpp_files.wrong_address(order.url):
            return Outcome("refused", "argument", f"url: {wrong}")
        self._starts = self._starts % 1_000_000 + 1
        station.files.pop(order.kind, None)
        answer = await self._agreed(station, replace(order, number=self._starts))
        if isinstance(answer, Outcome):
            return answer
        ended = ocpp_files.DONE | ocpp_files.FAILED
        await self._shows(station, lambda: station.files.get(order.kind, "") in ended)
        return ocpp_files.outcome(station.files.get(order.kind, ""))

    async def _limit(self, station: Target, place: int, limit: Decimal, rate: Any) -> Outcome:
        answer = await self._agreed(station, Order("limit", place, limit=limit, rate=rate))
        if isinstance(answer, Outcome):
            return answer
        said = await self._ask(station, Order("composite", place, rate=rate))
        found = composite_limit(said.payload) if isinstance(said, CallResult) else None
        if found is None or found[1] != rate:
            return Outcome("done", "no_read_back", "it agreed; it does not tell its schedule")
        shown = {"connector": float(place), "limit": float(found[0])}
        # Its own hardware may hold it lower; higher means that it did not take it.
        if found[0] <= limit:
            return Outcome("done", "", "", shown)
        return Outcome("failed", "read_back", f"its schedule says {found[0]} {rate}", shown)
