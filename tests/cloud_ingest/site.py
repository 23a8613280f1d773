"""The two ends of the wire for tests: a worker, a real gateway's outbox and uplink, and a gateway that sends raw bytes.

```
 Feeder (Outbox + Uplink, own thread) ─▶ broker ─▶ Core (Worker, own thread or process) ─▶ PostgreSQL
 RawGateway (bytes we choose)         ─▶   │  ◀── acknowledgements ──┘
```
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import psycopg
from paho.mqtt.enums import CallbackAPIVersion

from citybrain_cli.up.report import committed_of, outbox_totals
from cloud.ingest.config import BrokerConfig, WorkerConfig
from cloud.ingest.worker import Worker
from cloud.registry.enrol import enrol_gateway
from edge.clock import WallClock
from edge.config import MqttConfig
from edge.outbox import Outbox, Pending
from edge.uplink.uplink import Uplink
from protocols.core.model import Event, SeriesInfo
from protocols.uplink import batch as wire
from protocols.uplink import topics
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.columns import Readings
from protocols.uplink.topics import Lane
from scenarios.binding import ScenarioBinding
from tests.fixtures.broker import Broker
from tests.fixtures.cluster import Cluster
from tests.fixtures.mosquitto import Mosquitto
from tests.fixtures.process import Server
from tests.fixtures.wait import until

AnyBroker = Broker | Cluster | Mosquitto
EPOCH = 1_772_400_000  # seconds; 2026-03-01, in the past so that nothing lies ahead of the clock
T0_MS = EPOCH * 1000


def enrol(dsn: str, *gateways: tuple[str, int]) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for name, shard in gateways:
            enrol_gateway(conn, name, shard, zh=f"网关{name}", en=name, lon=117.27, lat=31.86)


def query(dsn: str, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        return conn.execute(statement.encode(), arguments).fetchall()


def columns(rows: Iterable[Sequence[int]]) -> Readings:
    """Rows of (alias, ts_ms, integer[, quality[, lag_ms]]) as columns."""
    full = [(*row, *(0, 0)[len(row) - 3 :]) for row in rows]
    table = np.array(full, dtype=np.int64).reshape(-1, 5)
    return Readings(
        table[:, 0].astype(np.int32),
        table[:, 1],
        table[:, 4].astype(np.int32),
        table[:, 2],
        table[:, 3].astype(np.uint8),
    )


def declare(alias: int, device: str, point: str = "x", *, decimals: int = 1, kind: str = "") -> wire.Declaration:
    return wire.Declaration(alias, device, point, "u", decimals, 0, kind)


def encode(seq: int, rows: Iterable[Sequence[int]] = (), *, epoch: int = EPOCH, **parts: Any) -> bytes:
    """A batch of readings with one decimal, and whatever else."""
    readings = columns(rows)
    codes = {int(alias): declare(0, "-").code for alias in np.unique(readings.alias)}
    codes |= {d.alias: d.code for d in parts.get("declarations", ())}
    return wire.encode(wire.Batch(epoch, seq, readings, **parts), codes)


def event(number: int, **more: Any) -> Event:
    fields: dict[str, Any] = {
        "id": f"event-{number}", "type": "data.rejected", "ts_ms": T0_MS + number, "seen_ms": T0_MS + number,
        "source": "meter-1/x",
    }  # fmt: skip
    return Event(**{**fields, **more})


class Core:
    """A worker in a thread of its own. Leaving the block stops it and fails if it had ended by itself."""

    def __init__(
        self,
        dsn: str,
        broker: AnyBroker,
        *,
        shards: str = "0-63",
        scenario: tuple[ScenarioBinding, ...] = (),
        group: int = 512,
    ) -> None:
        config = WorkerConfig(
            dsn, BrokerConfig(broker.url, "core", str(broker.password_file("core"))), shards, group, scenario
        )
        self.worker = Worker(config, Path("/"))
        self._error: BaseException | None = None
        self._expects_shards = True
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    @classmethod
    def standby(cls, dsn: str, broker: AnyBroker, *, group: int = 512) -> Core:
        """A second worker, which finds every shard taken."""
        core = cls(dsn, broker, group=group)
        core._expects_shards = False
        return core

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self._error = error

    def __enter__(self) -> Core:
        self._thread.start()
        if self._expects_shards:
            until(lambda: self._error or self.sessions, "the worker's sessions are up")
        self.check()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.worker.stop()
        self._thread.join(10)
        if kind is None:
            self.check()

    @property
    def sessions(self) -> bool:
        found = list(self.worker._sessions.values())
        return bool(found) and all(session.connected for session in found)

    def check(self) -> None:
        if self._error is not None:
            raise AssertionError("the worker has ended by itself") from self._error


class CoreProcess(Server):
    """The same as a process, started by the command that starts it in the field."""

    def __init__(self, dsn: str, broker: AnyBroker, folder: Path) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:  # it also keeps house, and readings of March are old by now
            conn.execute("update retention_policy set raw_days = null")
        config = folder / "worker.toml"
        config.write_text(
            f'dsn = {json.dumps(dsn)}\n[broker]\nurl = "{broker.url}"\nusername = "core"\n'
            f"password_file = {json.dumps(str(broker.password_file('core')))}\n"
        )
        argv = [sys.executable, "-m", "citybrain_cli.main", "cloud", "worker", str(config)]
        super().__init__(argv, folder / "worker.log")


class RawGateway:
    """Speaks MQTT with a gateway's rights and sends the bytes it is given."""

    def __init__(self, broker: Broker, name: str, shard: int, *, client_id: str = "") -> None:
        self.name, self.shard = name, shard
        self.acks: list[pb.Ack] = []
        self.lost = threading.Event()
        self._ready = threading.Event()
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id or name, clean_session=True, protocol=mqtt.MQTTv311
        )
        client.username_pw_set(name, broker.password(name))
        client.on_connect = lambda c, *_: c.subscribe(topics.down(shard, name, "+"), qos=1)
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_disconnect = lambda *_: self.lost.set()
        client.on_message = self._on_message
        client.connect("127.0.0.1", broker.port)
        client.loop_start()

    def __enter__(self) -> RawGateway:
        assert self._ready.wait(10), "the broker took no subscription"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/ack"):
            ack = pb.Ack()
            ack.ParseFromString(message.payload)
            self.acks.append(ack)

    def send(self, channel: str, payload: bytes, *, topic: str = "", retain: bool = False) -> mqtt.MQTTMessageInfo:
        where = topic or topics.up(self.shard, self.name, channel)
        return self._client.publish(where, payload, qos=1, retain=retain)

    def committed(self, lane: str) -> int:
        return max((ack.committed for ack in list(self.acks) if ack.lane == lane), default=0)

    def wait_committed(self, lane: str, seq: int) -> None:
        until(lambda: self.committed(lane) >= seq, f"{self.name} {lane} {seq} is acknowledged")

    def refusals(self) -> list[tuple[str, int, str]]:
        return [(a.lane, a.rejected_seq, a.reason) for a in list(self.acks) if a.rejected_seq]


class Feeder:
    """A gateway's real outbox and real uplink; readings are made up, one decimal, each time used once."""

    def __init__(self, broker: AnyBroker, name: str, shard: int, folder: Path, *, start_ms: int = T0_MS) -> None:
        self.name, self.shard = name, shard
        self.path = folder / f"{name}.db"
        self._broker = broker
        self._ts_ms = start_ms
        self.rejected: list[tuple[str, int, str]] = []
        self.outbox = Outbox(self.path, now_ms=start_ms)
        self.uplink: Uplink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Feeder:
        self.connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.disconnect()
        self.outbox.close()
        if kind is None and self._error is not None:
            raise AssertionError("the uplink has ended by itself") from self._error

    def connect(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), name=self.name, daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def disconnect(self) -> None:
        if self._thread is not None and self._loop is not None and self._task is not None:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(10)
        self._thread = None

    async def _run(self, ready: threading.Event) -> None:
        config = MqttConfig(self._broker.url, self.name, keepalive_s=2, ack_timeout_s=1.5)
        self.uplink = Uplink(
            config,
            self.outbox,
            WallClock(),
            gateway=self.name,
            shard=self.shard,
            password=self._broker.password(self.name),
            version="test",
            health=lambda: ({"cpu_pct": 1.0}, {}),
            rejected=lambda lane, seq, reason: self.rejected.append((lane, seq, reason)),
            health_every_s=0.5,
        )
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self.uplink.run())
        ready.set()
        try:
            await self._task
        except asyncio.CancelledError:
            return
        except BaseException as error:
            self._error = error

    def commit(self, *pending: Pending) -> None:
        self.outbox.commit(pending, now_ms=self._ts_ms)
        if self._loop is not None and self.uplink is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.uplink.wake)

    def alias(self, device: str, point: str = "x", decimals: int = 1) -> int:
        return self.outbox.alias(SeriesInfo(device, point, "u", decimals), 0)

    def feed(self, batches: int, *, each: int = 20, lane: Lane = "data") -> None:
        """``batches`` commits of ``each`` readings of two devices."""
        aliases = [self.alias(f"{self.name}-a"), self.alias(f"{self.name}-b")]
        for _ in range(batches):
            rows = []
            for _ in range(each):
                self._ts_ms += 100
                rows.append((aliases[self._ts_ms // 100 % 2], self._ts_ms, self._ts_ms % 997 - 400, 0, 35))
            self.commit(Pending(lane, columns(rows)))

    def drained(self, *, timeout_s: float = 40.0) -> None:
        """Wait until the core has acknowledged everything."""
        until(
            lambda: self._error is not None or not (self.outbox.parked() or sum(self.outbox.depth(0).rows.values())),
            f"the outbox of {self.name} is empty",
            timeout_s=timeout_s,
        )
        if self._error is not None:
            raise AssertionError("the uplink has ended by itself") from self._error


def reconcile(dsn: str, feeder: Feeder) -> int:
    """The outbox's book and the rows in the database say the same: nothing lost, doubled or changed. Readings."""
    accepted = outbox_totals(feeder.path)
    with psycopg.connect(dsn, autocommit=True) as conn:
        committed = committed_of(conn, feeder.name)
    assert accepted["waiting"] == 0
    assert committed["duplicated"] == 0
    assert committed["readings"] == accepted["readings"] - accepted["thinned"]
    if not accepted["thinned"]:
        assert committed["digest"] == accepted["digest"]
    return committed["readings"]
