"""Keeps the outbox flowing to the core: connect, send in windows, delete after the core's commit, reconnect.

``live`` says whether the way to the core is open: connected, and acknowledgements come. While it is not, the agent
files new readings in the backfill lane, so that on return fresh data does not queue behind the backlog.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from google.protobuf.message import DecodeError

from edge.clock import Clock
from edge.config import MqttConfig
from edge.outbox import Outbox
from edge.uplink.sender import Sender
from edge.uplink.session import MqttSession
from protocols.core.errors import ContractError, LinkDown, StoreError, TransportError
from protocols.uplink import topics
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import WIRE_VERSION
from protocols.uplink.topics import LANES, Lane

log = logging.getLogger("citybrain.edge.uplink")

_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.5, 30.0
_TICK_S = 0.25
_FORGOT_TIMES = 3  # and for three timeouts
#: Reasons for which saying the declarations again would change nothing.
_DECLARED_ALL_THE_SAME = ("foreign_device", "newer_version")


class Uplink:
    """One per agent. ``health`` gives the heartbeat's numbers; ``rejected`` hears of a batch that was set aside;
    ``heard`` gets (channel, payload) of everything else that comes down: orders, twin documents."""

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
        health_every_s: float = 5.0,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._clock = clock
        self._gateway = gateway
        self._shard = shard
        self._password = password
        self._version = version
        self._health = health
        self._rejected = rejected
        self._heard = heard
        self._health_every_s = health_every_s
        self._wake = asyncio.Event()
        self._behind: dict[Lane, tuple[int, int]] = {}  # since when (ms), how often the core asked for what is gone
        self.live = False
        self.connected = False
        self.counters: dict[str, int] = {
            "connects": 0,
            "losses": 0,
            "sent_batches": 0,
            "sent_bytes": 0,
            "resent": 0,
            "acks_not_kept": 0,
            "new_epochs": 0,
        }
        self.last_error = ""

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. Only a programming error ends it otherwise."""
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
            if asyncio.get_running_loop().time() - started > 30:
                backoff_s = _BACKOFF_FIRST_S
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            backoff_s = min(backoff_s * 2, _BACKOFF_MOST_S)

    def _topic(self, channel: str) -> str:
        return topics.up(self._shard, self._gateway, channel)

    def _state(self, *, online: bool, farewell: bool = False) -> bytes:
        return pb.State(
            online=online,
            farewell=farewell,
            epoch=self._outbox.epoch,
            at_ms=self._clock.now_ms(),
            agent_version=self._version,
            wire_version=WIRE_VERSION,
        ).SerializeToString()

    async def _serve(self) -> None:
        will = (self._topic("state"), self._state(online=False))
        session = MqttSession(self._config, self._gateway, self._password, will)
        try:
            await session.open(topics.down(self._shard, self._gateway, "+"))
            session.publish(self._topic("state"), self._state(online=True), retain=True)
            self.connected = self.live = True
            self.counters["connects"] += 1
            log.info("uplink %s: %s", "back" if self.last_error else "up", self._config.url)
            self.last_error = ""
            sender = Sender(
                lambda lane, after, limit: self._outbox.rows(lane, after, limit=limit),
                {lane: self._outbox.acked(lane) for lane in LANES},
                self._monotonic_ms(),
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(session, sender))
                group.create_task(self._send(session, sender))
                group.create_task(self._heartbeat(session))
        except BaseExceptionGroup as errors:
            expected, others = errors.split((TransportError, StoreError))
            if others is not None or expected is None:
                raise
            raise _first(expected) from None
        except asyncio.CancelledError:
            if self.connected:
                await session.publish_last(self._topic("state"), self._state(online=False, farewell=True))
            raise
        finally:
            await session.close()

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
            for row in sender.due(now):
                session.publish(self._topic(row.lane), row.payload)
                self.counters["sent_batches"] += 1
                self.counters["sent_bytes"] += len(row.payload)
            self.counters["resent"] = sender.resent
            self._wake.clear()
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _receive(self, session: MqttSession, sender: Sender) -> None:
        while True:
            message = await session.receive()
            if message.topic.endswith("/hello"):
                sender.restart(self._monotonic_ms())
                self._wake.set()
                continue
            if not message.topic.endswith("/ack"):
                self._heard(message.topic.rpartition("/")[2], message.payload)
                continue
            ack = pb.Ack()
            try:
                ack.ParseFromString(message.payload)
                lane = _lane(ack.lane)
                if ack.epoch != self._outbox.epoch:
                    continue  # of an outbox that is gone: queued by the broker while we were away
                await asyncio.to_thread(self._outbox.acknowledge, ack.epoch, lane, ack.committed)
                await self._notice_a_core_that_forgot(ack, lane)
                if ack.rejected_seq:
                    self._rejected(lane, ack.rejected_seq, ack.reason)
                    if ack.reason not in _DECLARED_ALL_THE_SAME:
                        await asyncio.to_thread(self._outbox.declare_again, lane)
            except (DecodeError, ContractError) as error:
                log.warning("an acknowledgement that makes no sense: %s", error)
                continue
            except StoreError as error:
                if not error.retry:
                    raise
                self.counters["acks_not_kept"] += 1  # what it frees is sent again, and acknowledged again
                continue
            sender.acknowledged(lane, ack.committed, resend=ack.resend, now_ms=self._monotonic_ms())
            self.live = True
            self._wake.set()

    async def _notice_a_core_that_forgot(self, ack: pb.Ack, lane: Lane) -> None:
        """Its database came back from a backup: it asks for rows that were deleted here because it had them.

        An old acknowledgement, kept by the broker while we were away, says the same, once and not for long."""
        if not ack.resend or ack.committed >= self._outbox.acked(lane):
            self._behind.pop(lane, None)
            return
        now_ms = self._monotonic_ms()
        since_ms, times = self._behind.get(lane, (now_ms, 0))
        self._behind[lane] = (since_ms, times + 1)
        if times >= _FORGOT_TIMES and now_ms - since_ms >= 3000 * self._config.ack_timeout_s:
            acked = self._outbox.acked(lane)
            log.error(
                "the core has %s up to %d, it had acknowledged %d: a new epoch begins", lane, ack.committed, acked
            )
            await asyncio.to_thread(self._outbox.begin_again, self._clock.now_ms())
            self.counters["new_epochs"] += 1
            self._behind.clear()
            raise LinkDown("the core has lost what it had acknowledged; everything that waits goes in a new epoch")

    async def _heartbeat(self, session: MqttSession) -> None:
        while True:
            values, texts = self._health()
            health = pb.Health(at_ms=self._clock.now_ms(), values=values, texts=texts)
            session.publish(self._topic("health"), health.SerializeToString(), qos=0)
            await asyncio.sleep(self._health_every_s)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _lane(name: str) -> Lane:
    for lane in LANES:
        if lane == name:
            return lane
    raise ContractError(f"no lane {name!r}", reason="ack")
