"""A traffic signal controller, asked as its host (GB/T 20999-2017), over UDP or TCP.

Read-only by default. What a command sets goes back to local control when its time is over, when the agent stops, and as
soon as the controller is reached again if the link was lost meanwhile; a command must repeat the device's name. The
controller reports faults by itself; they come in between the answers and are told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from edge.clock import Clock
from edge.connectors.base import Command, LinkFactory, Outcome, Sink
from edge.connectors.health import LOST_AFTER, Health, reject
from edge.connectors.signal_orders import address_of, check_orders, order_of
from edge.connectors.signal_session import Session
from edge.connectors.station_server import News
from edge.connectors.street_config import Gb20999Config, SignalDevice, split_scheme
from protocols.core.errors import LinkDown, LocalProtocolError, TransportError
from protocols.core.model import Sweep
from protocols.devices import CommandType, DeviceType, Point, load
from protocols.devices.values import Raw, reading
from protocols.traffic_signal import objects
from protocols.traffic_signal.frame import Framing
from protocols.traffic_signal.messages import Address, Item, Kind, Message

log = logging.getLogger(__name__)

#: Values asked for in one frame: small controllers have been seen to answer no more than a datagram of 1400 bytes.
PER_FRAME = 16
#: A value that the controller does not have is asked for again after this.
ABSENT_S = 3_600.0
#: A controller's clock further off than this is told.
CLOCK_OFF_S = 60.0
#: A controller that does not take its release is asked again.
RELEASE_AGAIN_S = 5.0
_LOCAL_MODES = frozenset(bytes((code,)) for code in range(0x20, 0x26))
_MODE_CONTROL = {(17, 4, 1), (17, 1, 4)}


@dataclass(slots=True)
class _Hold:
    """What has to go back, and when (loop seconds)."""

    until_s: float
    items: tuple[Item, ...]


class _Crossing:
    def __init__(self, config: SignalDevice) -> None:
        self.config = config
        self.id = config.id
        self.type: DeviceType = load(config.type)
        check_orders(self.type.commands, self.type.id)
        self.plan: dict[Address, list[Point]] = {}
        for point in self.type.points:
            if point.value is not None:
                self.plan.setdefault(address_of(point.value.key, config.crossing), []).append(point)
        self.health = Health(config.id)
        self.news = News()
        self.round = 0
        self.due_s = 0.0
        self.absent: dict[Address, float] = {}
        self.hold: _Hold | None = None
        self.local_mode = b""  # the local mode it was last seen in

    def due(self, now_s: float) -> list[Address]:
        """What this round asks for: rare values in every n-th round, absent ones once an hour."""
        return [
            address
            for address, points in self.plan.items()
            if any(p.value is not None and self.round % p.value.every == 0 for p in points)
            and self.absent.get(address, 0.0) <= now_s
        ]


class Gb20999:
    """The connector of kind ``gb20999``."""

    def __init__(self, config: Gb20999Config, clock: Clock, open_link: LinkFactory) -> None:
        self.id = config.id
        self._config = config
        self._clock = clock
        self._open_link = open_link
        transport, _ = split_scheme(config.address, "address")
        self._framing: Framing = "datagram" if transport == "udp" else "stream"
        self._crossings = {device.id: _Crossing(device) for device in config.device}
        self._session: Session | None = None
        self._link_failures = 0
        self._held = asyncio.Event()

    async def run(self, sink: Sink) -> None:
        try:
            link = await self._open_link()
        except TransportError as exc:
            self._failed(sink, exc)
            raise
        session = Session(link, self._framing, self._config.timeout_s)
        self._session = session
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(session, sink), name=f"{self.id} listen")
                tasks.create_task(self._poll_all(session, sink), name=f"{self.id} poll")
                tasks.create_task(self._release_all(session, sink), name=f"{self.id} release")
        except BaseExceptionGroup as group:
            # The supervisor knows TransportError, not groups.
            lost, other = group.split(TransportError)
            if lost is None or other is not None:
                raise
            first: BaseException = lost
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            self._failed(sink, first)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Being stopped in the same moment: a group that has an error forgets that (CPython 3.11).
                raise asyncio.CancelledError from None
            raise first from None
        finally:
            self._session = None
            await self._farewell(session)
            await link.close()

    def _failed(self, sink: Sink, exc: BaseException) -> None:
        # A short interruption is the supervisor's business; a link that stays away takes its devices along.
        self._link_failures += 1
        if self._link_failures >= LOST_AFTER:
            for crossing in self._crossings.values():
                crossing.health.gone(sink, str(exc))

    # -- asking ---------------------------------------------------------------------------------------------------
    def _query(self, crossing: _Crossing, addresses: Sequence[Address]) -> Message:
        return self._message(Kind.QUERY, crossing, tuple(Item(address) for address in addresses))

    def _message(self, kind: Kind, crossing: _Crossing, items: tuple[Item, ...]) -> Message:
        device = crossing.config
        return Message(kind, items, device.controller, device.crossing, self._config.host_number)

    async def _poll_all(self, session: Session, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        crossings = list(self._crossings.values())
        while True:
            next_one = min(crossings, key=lambda one: one.due_s)
            if (wait_s := next_one.due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            began_s = loop.time()
            if await self._poll(next_one, session, sink):
                next_one.health.answered(sink)
                self._link_failures = 0
                next_one.round += 1
            else:
                sink.count("polls_missed", connector=self.id)
                next_one.health.missed(sink, "no answer")
                if self._framing == "stream" and all(one.health.lost for one in crossings):
                    raise LinkDown(f"{self.id}: nobody behind this address answers any more")
            lost = next_one.health.lost
            period_s = max(next_one.config.poll_s, self._config.slow_poll_s) if lost else next_one.config.poll_s
            # Not made up for: what was missed stays missed.
            next_one.due_s = max(began_s + period_s, loop.time())

    async def _poll(self, crossing: _Crossing, session: Session, sink: Sink) -> bool:
        """One round; False when an answer is missing."""
        loop = asyncio.get_running_loop()
        addresses = crossing.due(loop.time())
        items: list[Item] = []
        while addresses:
            part, addresses = addresses[:PER_FRAME], addresses[PER_FRAME:]
            answer = await self._ask(crossing, part, session)
            if answer is None:
                return False
            if answer.kind is Kind.QUERY_FAILED:
                rest = self._refused(crossing, part, answer, sink, loop.time())
                addresses = rest + addresses
                continue
            items += answer.items
        self._emit(crossing, items, sink)
        return True

    async def _ask(self, crossing: _Crossing, part: Sequence[Address], session: Session) -> Message | None:
        tries = 1 if crossing.health.misses else self._config.retries + 1
        for _ in range(tries):
            answer = await session.exchange(self._query(crossing, part))
            if answer is not None:
                return answer
        return None

    def _refused(
        self, crossing: _Crossing, part: list[Address], answer: Message, sink: Sink, now_s: float
    ) -> list[Address]:
        """Which of the part are to be asked again without the refused ones."""
        refused = {asked: why for asked in part for got, why in answer.failures.items() if asked.covers(got)}
        if not refused:
            refused = dict.fromkeys(part, "unknown")
        for address, why in refused.items():
            sink.count("values_refused", connector=self.id)
            # "Does not exist" stays so for a while; anything else (busy) may work the next time.
            if why == "value_does_not_exist":
                crossing.absent[address] = now_s + ABSENT_S
            if crossing.news.fresh("data.rejected", "no_data", str(address), self._clock.now_ms()):
                sink.report("data.rejected", crossing.id, "no_data", f"{address}: {why}")
        return [address for address in part if address not in refused]

    # -- what is said ---------------------------------------------------------------------------------------------
    def _emit(self, crossing: _Crossing, items: Sequence[Item], sink: Sink) -> None:
        now_ms = self._clock.now_ms()
        names, values, quality = [], [], []
        for item in items:
            address = item.address
            if (address.cls, address.obj, address.attr) == (13, 2, 2) and item.data[-1:] in _LOCAL_MODES:
                crossing.local_mode = item.data[-1:]
            for point in crossing.plan.get(address, ()):
                number, good = reading(point, self._raw(crossing, item, sink, now_ms))
                names.append(point.name)
                values.append(number)
                quality.append(int(good))
        if names:
            column = np.array(values, dtype=np.float64)
            sink.sweep(Sweep(crossing.id, now_ms, now_ms, tuple(names), column, np.array(quality, dtype=np.uint8)))

    def _raw(self, crossing: _Crossing, item: Item, sink: Sink, now_ms: int) -> Raw:
        """What an item says as one number or word: a map as its count, a clock as what it is ahead of ours."""
        found = objects.find(item.address)
        said = objects.value(item)
        if found is not None and found.form is objects.moment:
            return self._clock_off(crossing, str(said), sink, now_ms) if objects.moment(item.data) else None
        if isinstance(said, list):
            return len(said)
        if isinstance(said, (int, float)):
            return said
        if found is None:
            return objects.number(item.data)
        return said if isinstance(said, str) else None

    def _clock_off(self, crossing: _Crossing, text: str, sink: Sink, now_ms: int) -> float:
        off_s = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() - now_ms / 1000
        if abs(off_s) > CLOCK_OFF_S:
            if crossing.news.fresh("dev.clock_skew", "offset", "", now_ms):
                text = f"the controller's clock is {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'behind'}"
                sink.report("dev.clock_skew", crossing.id, "offset", text)
        else:
            crossing.news.over("dev.clock_skew", "")
        return off_s

    async def _listen(self, session: Session, sink: Sink) -> None:
        async for one in session.listen():
            if isinstance(one, Message):
                self._told(one, sink)
                if one.kind is Kind.HEARTBEAT:
                    await session.send(Message(Kind.HEARTBEAT_REPLY, (), one.controller, one.crossing, one.host))
            else:
                only = next(iter(self._crossings)) if len(self._crossings) == 1 else self.id
                reject(sink, only, one)

    def _told(self, message: Message, sink: Sink) -> None:
        """A report or a heartbeat: nobody asked for it."""
        sink.count("reports_received", connector=self.id, kind=message.kind.name.lower())
        if message.kind is not Kind.REPORT:
            return
        meant = [
            crossing
            for crossing in self._crossings.values()
            if message.crossing in (0, crossing.config.crossing)
            and crossing.config.controller in (0, message.controller)
        ]
        for crossing in meant:
            self._emit(crossing, message.items, sink)
            said = {
                (item.address.cls, item.address.obj, item.address.attr): objects.value(item) for item in message.items
            }
            if (fault := said.get((16, 2, 2))) is not None:
                detail = f"the controller's action: {said.get((16, 2, 4), 'not said')}"
                sink.report("traffic.signal.fault", crossing.id, str(fault), detail)
            if (alarm := said.get((15, 2, 3))) is not None:
                sink.report("dev.fault", crossing.id, str(alarm), f"alarm of type {said.get((15, 2, 2), 'not said')}")

    # -- orders ---------------------------------------------------------------------------------------------------
    async def command(self, command: Command) -> Outcome:
        """See :class:`edge.connectors.base.Commandable`."""
        crossing = self._crossings.get(command.device)
        what = crossing.type.command(command.name) if crossing is not None else None
        if crossing is None or what is None:
            return Outcome("refused", "unknown_command", f"{command.device} has no command {command.name}")
        session = self._session
        if session is None:
            raise LinkDown(f"{self.id}: the controller is not connected")
        if what.street and command.arguments.get("confirm") != crossing.id:
            return Outcome("refused", "confirm", f"changes the street: confirm must be {crossing.id!r}")
        try:
            order = order_of(what, crossing.config.crossing, command.arguments)
        except LocalProtocolError as exc:
            return Outcome("refused", exc.reason, str(exc))
        back = self._what_goes_back(crossing, order.back) if order.back else ()
        if command.expires_ms and self._clock.now_ms() >= command.expires_ms:
            return Outcome("expired", "expired", "its time ran out before the line was free")
        answer = await session.exchange(self._message(Kind.SET, crossing, order.now))
        if answer is not None and answer.kind is Kind.SET_FAILED:
            why = ", ".join(f"{address}: {reason}" for address, reason in answer.failures.items())
            return Outcome("refused", "set_failed", why or "the controller refused")
        if back:
            # Also when no answer came: it may have happened.
            for_s = float(command.arguments.get("for_s", 0.0))
            crossing.hold = _Hold(asyncio.get_running_loop().time() + for_s, back)
            self._held.set()
        if answer is None:
            return Outcome(
                "unknown", "no_answer", "the controller did not answer; it goes back to local control anyway"
            )
        return await self._shown(crossing, what, command, session) if what.read_back else Outcome("done")

    def _what_goes_back(self, crossing: _Crossing, back: tuple[Item, ...]) -> tuple[Item, ...]:
        """The mode the controller had before, where that was a local one; else what the type says."""
        if crossing.hold is not None:
            return crossing.hold.items  # an order on top of another: back to what was before the first
        if not crossing.local_mode:
            return back
        return tuple(
            Item(one.address, crossing.local_mode)
            if (one.address.cls, one.address.obj, one.address.attr) in _MODE_CONTROL
            else one
            for one in back
        )

    async def _shown(self, crossing: _Crossing, what: CommandType, command: Command, session: Session) -> Outcome:
        """Ask until the controller shows it: a stage comes after the running one's least green and the transition."""
        point = crossing.type.point(what.read_back)
        wanted = what.expect
        if wanted is None:
            named = [a.name for a in what.argument if a.kind == "integer" and a.name in command.arguments]
            wanted = float(command.arguments[named[0]]) if named else None
        address = address_of(point.value.key if point.value else "", crossing.config.crossing)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._config.settle_s
        seen: float | None = None
        while True:
            answer = await session.exchange(self._query(crossing, [address]))
            item = next((one for one in answer.items if one.address == address), None) if answer else None
            if item is not None and item.data and answer is not None and answer.kind is Kind.QUERY_REPLY:
                raw = objects.value(item)
                seen = reading(point, raw if isinstance(raw, (int, float, str)) else None)[0]
                if seen == wanted:
                    return Outcome("done", "", "", {point.name: seen})
            if loop.time() >= until_s:
                break
            await asyncio.sleep(1.0)
        if seen is None:
            return Outcome("unknown", "no_read_back", f"{point.name} could not be read back")
        text = f"confirmed, but {point.name} reads {seen:g}, not {wanted:g} after {self._config.settle_s:g} s"
        return Outcome("failed", "read_back", text, {point.name: seen})

    # -- back to local control ------------------------------------------------------------------------------------
    async def _release_all(self, session: Session, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._held.clear()
            holds = [one for one in self._crossings.values() if one.hold is not None]
            for crossing in holds:
                if crossing.hold is not None and loop.time() >= crossing.hold.until_s:
                    await self._release(crossing, crossing.hold, session, sink)
            times = [one.hold.until_s for one in self._crossings.values() if one.hold is not None]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(times) if times else None):
                    await self._held.wait()

    async def _release(self, crossing: _Crossing, hold: _Hold, session: Session, sink: Sink) -> None:
        answer = await session.exchange(self._message(Kind.SET, crossing, hold.items))
        if crossing.hold is not hold:
            return  # a new order came meanwhile
        if answer is not None and answer.kind is Kind.SET_REPLY:
            crossing.hold = None
            crossing.news.over("traffic.signal.fault", "")
            sink.count("releases", connector=self.id)
            return
        hold.until_s = asyncio.get_running_loop().time() + RELEASE_AGAIN_S
        if crossing.news.fresh("traffic.signal.fault", "release", "", self._clock.now_ms()):
            text = "does not take the way back to local control; it is told again and again"
            sink.report("traffic.signal.fault", crossing.id, "release", text)

    async def _farewell(self, session: Session) -> None:
        """The agent stops, or the link broke: say at least once that local control takes over. A hold that was not
        confirmed stays remembered for the next time the controller is reached."""
        for crossing in self._crossings.values():
            if crossing.hold is not None:
                crossing.hold.until_s = 0.0
                # Twice, because a datagram may get lost and nobody waits for the answer any more.
                for _ in range(2):
                    with contextlib.suppress(TransportError, TimeoutError):
                        async with asyncio.timeout(1.0):
                            await session.send(self._message(Kind.SET, crossing, crossing.hold.items))
