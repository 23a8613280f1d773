"""Links that are open but dead, with a real broker behind a proxy: noticed within 10 s everywhere, nothing freed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from edge.clock import WallClock
from edge.config import MqttConfig
from edge.outbox import Outbox, Pending
from edge.uplink.meter import tcp_count
from edge.uplink.session import MqttSession
from edge.uplink.uplink import Uplink
from protocols.core.errors import LinkDown, TransportError
from protocols.core.model import Event, SeriesInfo
from protocols.uplink import topics
from protocols.uplink.columns import Readings
from tests.edge.silent_proxy import Mode, SilentProxy
from tests.fixtures.broker import Broker, StartBroker

GATEWAY, SHARD = "gw-t", 3
MOST_S = 10.0


def session(broker: Broker, port: int, *, tls: bool = False, name: str = GATEWAY) -> MqttSession:
    config = MqttConfig(f"{'mqtts' if tls else 'mqtt'}://127.0.0.1:{port}", name)
    return MqttSession(config, name, broker.password(name), None)


async def seconds_until(error: type[TransportError], waiting: Awaitable[object]) -> float:
    begun = time.monotonic()
    with pytest.raises(error):
        await waiting
    return time.monotonic() - begun


async def opening(broker: Broker, name: str, mode: Mode, silent_after: int, *, tls: bool = False) -> float:
    """Silent from the first byte (TCP or TLS stands), or after CONNECT (no SUBACK)."""
    async with SilentProxy(broker.port, mode=mode, silent_after=silent_after) as proxy:
        link = session(broker, proxy.port, tls=tls, name=name)
        try:
            return await seconds_until(TransportError, link.open(topics.down(SHARD, name, "+")))
        finally:
            await link.close()


async def busy(broker: Broker, name: str, mode: Mode, publish_every_s: float, size: int) -> float:
    """Open and working, then silent: how long until it is noticed."""
    async with SilentProxy(broker.port) as proxy:
        link = session(broker, proxy.port, name=name)
        await link.open(topics.down(SHARD, name, "+"))

        async def publish() -> None:
            while True:
                if link.pace.room() > 0:
                    link.publish(topics.up(SHARD, name, "data"), bytes(size))
                await asyncio.sleep(publish_every_s)

        async def hear() -> None:
            while True:
                await link.receive()

        work = asyncio.create_task(publish())
        await asyncio.sleep(0.3)
        proxy.turn(mode)
        try:
            return await seconds_until(LinkDown, hear())
        finally:
            work.cancel()
            await link.close()


def test_a_black_hole_is_noticed_in_every_situation(start_broker: StartBroker) -> None:
    broker = start_broker([(f"gw-{n}", SHARD) for n in range(9)])
    situations: dict[str, Callable[[str], Awaitable[float]]] = {
        "TLS handshake": lambda name: opening(broker, name, "SWALLOW", 1 << 60, tls=True),
        "no CONNACK": lambda name: opening(broker, name, "SWALLOW", 1 << 60),
        "no CONNACK, nothing read": lambda name: opening(broker, name, "STUCK", 1 << 60),
        "no SUBACK": lambda name: opening(broker, name, "PASS", 1),
        "idle": lambda name: busy(broker, name, "SWALLOW", 3600, 1),
        "idle, nothing read": lambda name: busy(broker, name, "STUCK", 3600, 1),
        "a row each half second": lambda name: busy(broker, name, "SWALLOW", 0.5, 2000),
        "a backlog": lambda name: busy(broker, name, "SWALLOW", 0.01, 60_000),
        "a backlog, nothing read": lambda name: busy(broker, name, "STUCK", 0.01, 60_000),
    }

    async def all_at_once() -> list[float]:
        return await asyncio.gather(*(one(f"gw-{n}") for n, one in enumerate(situations.values())))

    took = dict(zip(situations, asyncio.run(all_at_once()), strict=True))
    assert all(seconds < MOST_S for seconds in took.values()), took


def test_a_slow_line_is_not_taken_for_a_dead_one(start_broker: StartBroker) -> None:
    """16 kB/s: one big row takes longer than the silence that ends a connection; the peer's TCP shows life."""
    broker = start_broker([(GATEWAY, SHARD)])

    async def run() -> float:
        async with SlowLine(broker.port, bytes_per_s=24_000) as line:
            config = MqttConfig(f"mqtt://127.0.0.1:{line.port}", GATEWAY, keepalive_s=2)
            link = MqttSession(config, GATEWAY, broker.password(GATEWAY), None)
            await link.open(topics.down(SHARD, GATEWAY, "+"))
            begun = time.monotonic()
            taken = asyncio.Event()
            link.publish(topics.up(SHARD, GATEWAY, "data"), bytes(180_000))
            link.on_room = taken.set
            hear = asyncio.create_task(link.receive())
            await asyncio.wait([hear, asyncio.create_task(taken.wait())], return_when=asyncio.FIRST_COMPLETED)
            assert not hear.done(), hear.exception()
            hear.cancel()
            took = time.monotonic() - begun
            await link.close()
            return took

    assert asyncio.run(run()) > 5.0  # longer than 2 · keepalive_s + 0.5 s


class SlowLine(SilentProxy):
    """Carries so many bytes a second from the client; small buffers, so that the client's kernel feels it."""

    def __init__(self, port: int, *, bytes_per_s: int) -> None:
        super().__init__(port)
        self._per_s = bytes_per_s

    async def __aenter__(self) -> SlowLine:
        import socket

        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._client, sock=listener, limit=2048)
        self.port = listener.getsockname()[1]
        return self

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counts: bool) -> None:
        try:
            while data := await source.read(2048):
                sink.write(data)
                if counts:
                    await asyncio.sleep(len(data) / self._per_s)
        except (ConnectionError, RuntimeError):
            return


class _Site:
    """An outbox with rows of every kind, and its uplink through a proxy; nobody commits."""

    def __init__(self, folder: Path, broker: Broker, port: int) -> None:
        self.outbox = Outbox(folder / "o.db", now_ms=WallClock().now_ms())
        alias = self.outbox.alias(SeriesInfo("m", "x"), 0)
        zeros = np.zeros(3, np.int32)
        readings = Readings(
            np.full(3, alias, np.int32), np.arange(3, dtype=np.int64), zeros, np.arange(3, dtype=np.int64),
            np.zeros(3, np.uint8),
        )  # fmt: skip
        event = Event(id="e", type="data.rejected", ts_ms=1, seen_ms=1, source="m")
        self.outbox.commit(
            [Pending("event", events=[event]), *(Pending("data", readings) for _ in range(50)),
             *(Pending("backfill", readings) for _ in range(50))], now_ms=1,
        )  # fmt: skip
        config = MqttConfig(f"mqtt://127.0.0.1:{port}", GATEWAY, keepalive_s=2, ack_timeout_s=60)
        self.uplink = Uplink(
            config, self.outbox, WallClock(), gateway=GATEWAY, shard=SHARD, password=broker.password(GATEWAY),
            version="test", health=lambda: ({}, {}), rejected=lambda *_: None, health_every_s=0.2,
        )  # fmt: skip


def test_nothing_is_freed_by_a_dead_link_and_the_next_one_is_tried_soon(
    tmp_path: Path, start_broker: StartBroker
) -> None:
    broker = start_broker([(GATEWAY, SHARD)])

    async def until(what: Callable[[], bool], timeout_s: float) -> float:
        begun = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while not what():  # noqa: ASYNC110 - the uplink has no event for it
                await asyncio.sleep(0.02)
        return time.monotonic() - begun

    async def run() -> None:
        async with SilentProxy(broker.port) as proxy:
            site = _Site(tmp_path, broker, proxy.port)
            task = asyncio.create_task(site.uplink.run())
            await until(lambda: site.uplink.counters["sent_batches"] > 0, 10)
            proxy.turn("SWALLOW")
            noticed = await until(lambda: site.uplink.counters["losses"] == 1, MOST_S)
            assert noticed < MOST_S and not site.uplink.live
            assert sum(site.outbox.depth(0).rows.values()) == 101
            proxy.turn("PASS")
            assert await until(lambda: site.uplink.connected, 12) < 12
            task.cancel()
            await asyncio.wait([task])
            assert sum(site.outbox.depth(0).rows.values()) == 101
            site.outbox.close()

    asyncio.run(run())


def test_the_kernel_counts_what_the_link_costs(start_broker: StartBroker) -> None:
    broker = start_broker([(GATEWAY, SHARD)])

    async def run() -> tuple[int, int]:
        link = session(broker, broker.port)
        await link.open(topics.down(SHARD, GATEWAY, "+"))
        before = link.link_bytes()
        taken = asyncio.Event()
        link.on_room = taken.set
        link.publish(topics.up(SHARD, GATEWAY, "data"), bytes(100_000))
        await asyncio.wait_for(taken.wait(), 5)
        after = link.link_bytes()
        assert link._sock is not None and tcp_count(link._sock) is not None
        await link.close()
        return before, after

    before, after = asyncio.run(run())
    assert 100 < before < 4000  # CONNECT, SUBSCRIBE and their answers, with the packets around them
    assert 100_000 < after - before < 115_000
