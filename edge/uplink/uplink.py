"""Keeps the outbox flowing to the core: connect, send in windows, delete after the core's commit, reconnect.

``live`` says whether the way to the core is open: connected, and acknowledgements come. While it is not, the agent
files new readings in the backfill lane, so that on return fresh data does not queue behind the backlog.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from edge.clock import Clock
from edge.config import MqttConfig
from edge.mqtt_url import split_urls
from edge.outbox import Outbox, Row
from edge.uplink.account import Books, Losses
from edge.uplink.answers import Answers
from edge.uplink.budget import Budget
from edge.uplink.sender import Sender
from edge.uplink.session import MqttSession
from protocols.core.errors import LinkDown, StoreError, TransportError
from protocols.uplink import topics
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.topics import LANES, Lane

log = logging.getLogger("citybrain.edge.uplink")

_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.2, 30.0
_GOOD_SESSION_S = 30.0
_TICK_S = 0.25
_ACCOUNT_EVERY_S = 60.0
_ACCOUNT_REST_S = 5.0  # something was dropped: say so at once, but not with every reading
_METERED_HEALTH_S = 20.0  # the core takes a gateway for lost after 30 s without a word
_BUDGET = "uplink.budget"


class Uplink:
    """One per agent. ``health`` gives the heartbeat's numbers; ``rejected`` hears of a batch that was set aside;
    ``heard`` gets (channel, payload) of everything else that comes down: orders, twin documents; ``dropped`` tells
    what never became a row."""

    def __init__(
        self,
        config: MqttConfig,
        outbox: Outbox,
        clock: Clock,
        *,
        gateway: str,
        shard: int,
        password: str,
        version: str,
        health: Callable[[], tuple[dict[str, float], dict[str, str]]],
        rejected: Callable[[Lane, int, str], None],
        heard: Callable[[str, bytes], None] = lambda _channel, _payload: None,
        dropped: Callable[[], Losses] = dict,
        health_every_s: float = 5.0,
        account_every_s: float = _ACCOUNT_EVERY_S,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._clock = clock
        self._gateway = gateway
        self._shard = shard
        self._password = password
        self._health = health
        self._rejected = rejected
        self._heard = heard
        self._dropped = dropped
        self._account_every_s = account_every_s
        self._books = Books(outbox, version)
        self._budget = Budget(config.budget_mb_per_day, config.budget_mb_per_hour, outbox.get_state(_BUDGET))
        self._health_every_s = max(health_every_s, _METERED_HEALTH_S) if self._budget.metered else health_every_s
        self._counted_bytes = 0
        self._wake = asyncio.Event()
        self._again = asyncio.Event()
        self._turn = 0  # attempts to connect: of several broker nodes each has its turn
        self._nodes = len(split_urls(config.url))
        self._first_contact = True
        self._behind: dict[Lane, tuple[int, int]] = {}
        self.live = False
        self.connected = False
        self.counters: dict[str, int] = {
            "connects": 0,
            "losses": 0,
            "sent_batches": 0,
            "sent_bytes": 0,
            "link_bytes": 0,
            "resent": 0,
            "acks_not_kept": 0,
            "new_epochs": 0,
            "backlog_window": 0,
            "budget_spent_bytes": 0,
        }
        self.latency_ms: dict[Lane, int] = {}
        self.last_error = ""

    @property
    def session_name(self) -> str:
        """Random, made at the start of the agent."""
        return self._books.session

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def reconnect(self) -> None:
        """What the connection was made with is out of date (a renewed certificate): connect anew."""
        self._again.set()

    async def run(self) -> None:
        """Until cancelled. Only a programming error, or an outbox that breaks, ends it otherwise."""
        backoff_s = _BACKOFF_FIRST_S
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await self._serve()
            except (TransportError, StoreError) as error:
                if not error.retry and isinstance(error, StoreError):
                    raise
                if self.connected or not self.last_error:
                    log.warning("uplink lost: %s", error)
                self.last_error = str(error)
            finally:
                if self.connected:
                    self.counters["losses"] += 1
                self.connected = self.live = False
            if asyncio.get_running_loop().time() - started > _GOOD_SESSION_S:
                backoff_s = _BACKOFF_FIRST_S
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            if self._turn % self._nodes == 0:  # of a cluster every node has been asked
                backoff_s = min(backoff_s * 2, _BACKOFF_MOST_S)

    def _topic(self, channel: str) -> str:
        return topics.up(self._shard, self._gateway, channel)

    async def _serve(self) -> None:
        will = (self._topic("state"), self._books.state(self._clock.now_ms(), online=False))
        session = MqttSession(self._config, self._gateway, self._password, will, self._turn)
        self._turn += 1
        self._counted_bytes = 0
        self._again.clear()
        try:
            await session.open(topics.down(self._shard, self._gateway, "+"))
            online = self._books.state(self._clock.now_ms(), online=True)
            session.publish(self._topic("state"), online, retain=True)
            self.connected = self.live = True
            self.counters["connects"] += 1
            log.info("uplink %s: %s", "back" if self.last_error else "up", self._config.url)
            self.last_error = ""
            sender = Sender(
                self._rows,
                {lane: self._outbox.acked(lane) for lane in LANES},
                self._monotonic_ms(),
                sure=not self._first_contact,
            )
            session.on_room = self._wake.set
            answers = Answers(
                self._outbox, sender, self._clock, self._config.ack_timeout_s, self._rejected, self._behind
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(session, sender, answers))
                group.create_task(self._send(session, sender))
                group.create_task(self._ask(session))
                group.create_task(self._heartbeat(session))
                group.create_task(self._account(session))
                group.create_task(self._until_reconnect())
        except BaseExceptionGroup as errors:
            expected, others = errors.split((TransportError, StoreError))
            if others is not None or expected is None:
                raise
            raise _first(expected) from None
        except asyncio.CancelledError:
            if self.connected:
                farewell = self._books.state(self._clock.now_ms(), online=False, farewell=True)
                await session.publish_last(self._topic("state"), farewell)
            raise
        finally:
            self._meter(session)
            self._save_budget(anyway=True)
            await session.close()

    async def _until_reconnect(self) -> None:
        await self._again.wait()
        raise LinkDown("connecting anew with the renewed certificate")

    def _rows(self, lane: Lane, after: int, limit: int) -> list[Row]:
        new = self._outbox.last(lane) > after
        return self._outbox.rows(lane, after, limit=limit, careful=True) if new else []

    @staticmethod
    def _monotonic_ms() -> int:
        return round(asyncio.get_running_loop().time() * 1000)

    async def _send(self, session: MqttSession, sender: Sender) -> None:
        timeout_ms = round(self._config.ack_timeout_s * 1000)
        stalls = 0
        acked_before = -1
        while True:
            now = self._monotonic_ms()
            if sender.stalled(now, timeout_ms):
                self.live = False
                acked = sum(self._outbox.acked(lane) for lane in LANES)
                stalls = stalls + 1 if acked == acked_before else 1
                acked_before = acked
                if stalls >= 3:
                    raise LinkDown("connected, but the core acknowledges nothing")
            held_back = self._budget.held_back(self._clock.now_ms())
            left_bytes = self._budget.room_bytes(self._clock.now_ms()) - session.pace.out_bytes
            room_bytes = min(session.pace.room(), left_bytes)
            self._outbox.full_reason = "byte_budget" if held_back else "outbox_full"
            for row in sender.due(now, room_bytes=room_bytes, held_back=held_back):
                session.publish(self._topic(row.lane), row.payload)
                self.counters["sent_batches"] += 1
                self.counters["sent_bytes"] += len(row.payload)
            self.counters["resent"] = sender.resent
            self.counters["backlog_window"] = sender.backlog_window
            self.latency_ms = sender.latency_ms
            self._meter(session)
            self._save_budget()
            self._wake.clear()
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _ask(self, session: MqttSession) -> None:
        """Up to where has the core the rows of earlier epochs that wait here? (outbox/parking.py)"""
        while parked := self._outbox.parked():
            for epoch, lane in parked:
                if epoch:
                    session.publish(self._topic(lane), self._outbox.question(epoch, lane))
                else:
                    await asyncio.to_thread(self._outbox.carry_over, epoch, lane, 0, self._clock.now_ms())
                    self._wake.set()
            await asyncio.sleep(self._config.ack_timeout_s / 2)

    async def _receive(self, session: MqttSession, sender: Sender, answers: Answers) -> None:
        while True:
            message = await session.receive()
            channel = message.topic.rpartition("/")[2]
            if channel == "hello":
                sender.restart(self._monotonic_ms())
            elif channel == "ack":
                heard = await answers.take(message.payload, self._monotonic_ms())
                self.live = self.live or heard
                self._first_contact = self._first_contact and not heard
                self.counters["acks_not_kept"] += answers.not_kept
                answers.not_kept = 0
                if answers.new_epoch:
                    self.counters["new_epochs"] += 1
                    raise LinkDown(answers.new_epoch)
            else:
                self._heard(channel, message.payload)
                continue
            self._wake.set()

    async def _heartbeat(self, session: MqttSession) -> None:
        while True:
            values, texts = self._health()
            health = pb.Health(at_ms=self._clock.now_ms(), values=values, texts=texts)
            session.publish(self._topic("health"), health.SerializeToString(), qos=0)
            await asyncio.sleep(self._health_every_s)

    async def _account(self, session: MqttSession) -> None:
        """The gateway's books: after connecting, every minute, and soon after something was dropped or thinned."""
        while True:
            said = self._losses()
            session.publish(self._topic("account"), self._books.account(self._clock.now_ms(), self._dropped()))
            rests = max(1, round(self._account_every_s / _ACCOUNT_REST_S))
            for _ in range(rests):
                await asyncio.sleep(self._account_every_s / rests)
                if self._losses() != said:
                    break

    def _losses(self) -> tuple[object, ...]:
        return (dict(self._dropped()), self._outbox.thinned)

    # -- what the link costs --------------------------------------------------------------------------------------

    def _meter(self, session: MqttSession) -> None:
        count = session.link_bytes()
        self._budget.spend(count - self._counted_bytes, self._clock.now_ms())
        self.counters["link_bytes"] += count - self._counted_bytes
        self._counted_bytes = count
        self.counters["budget_spent_bytes"] = self._budget.spent_bytes()

    def _save_budget(self, *, anyway: bool = False) -> None:
        """A disk that does not take it now is asked again with the next 64 KiB."""
        saved = self._budget.save(anyway=anyway)
        if saved is None:
            return
        try:
            self._outbox.put_state(_BUDGET, saved)
        except StoreError as error:
            if not error.retry:
                raise


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
