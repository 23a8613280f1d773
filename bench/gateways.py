"""Ten thousand gateways on one core machine: claimed, enrolled, connected by mutual TLS, heard, accounted for.

One process plays them all, each with a key, a certificate and an MQTT session of its own. Everything else is the
product: nats-server with the rules of `citybrain cloud broker-rules`, its guard answering for every connection, the web
process that enrols over HTTPS, one worker, PostgreSQL.

```
 claims by script ─▶ enrol over HTTPS ─▶ connect (mTLS, client id = name) ─▶ a batch each round ─▶ acknowledged
```
At the end the ledger is read back: every batch of every gateway committed once, readings and digest as sent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import os
import random
import resource
import ssl
import sys
import tempfile
import time
from asyncio import sslproto
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
import numpy as np
import psutil
import psycopg

from citybrain_cli.up.broker import binary
from citybrain_cli.up.layout import free
from citybrain_cli.up.processes import Child, Processes
from cloud.identity import claims
from cloud.identity.ca import LocalCa, write_private
from cloud.store.embedded import prepare
from cloud.store.migrate import migrate
from edge.identity.files import Request, new_request
from protocols.uplink import topics
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import Batch, Declaration, encode
from protocols.uplink.columns import Readings
from protocols.uplink.digest import add, digest, series_hash

READINGS = 20
KEEPALIVE_S = 120
_CONNECTING, _ENROLLING = 32, 12  # at a time
_ATTEMPTS = 14
_DRAIN_S = 180.0
_ACK_TIMEOUT_S = 8.0
#: asyncio's TLS would keep 256 KiB for each connection.
sslproto.SSLProtocol.max_size = 16 << 10


def length(value: int) -> bytes:
    """MQTT's remaining length (3.1.1, section 2.2.3)."""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + length(len(body)) + body


def text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


@dataclass(slots=True)
class Gateway:
    """One simulated gateway: identity, session, book."""

    name: str
    shard: int
    code: str
    request: Request | None = None
    certificate: str = ""
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    sent: int = 0
    acked: int = 0
    digest: int = 0
    at_s: dict[int, float] = field(default_factory=dict)
    waiting: dict[int, bytes] = field(default_factory=dict)  # sent, not acknowledged: the outbox
    resent: int = 0
    task: asyncio.Task[None] | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def all_acked(self) -> None:
        while self.acked < self.sent:
            self.heard.clear()
            try:
                await asyncio.wait_for(self.heard.wait(), _ACK_TIMEOUT_S)
            except TimeoutError:
                self.send_again()

    def send_again(self) -> None:
        """What is not acknowledged, in order: after a hello, a request, or a silence (SPEC.md, section 7)."""
        for number, payload in self.waiting.items():
            self.resent += 1
            self.publish(topics.up(self.shard, self.name, "data"), payload, 2 + number)

    async def connect(self, host: str, port: int, root: str, folder: Path, late_ms: list[float]) -> None:
        """CONNECT, SUBSCRIBE, state; then listen for acknowledgements."""
        assert self.request is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=root)
        path = folder / self.name
        path.write_bytes(self.request.key_pem + self.certificate.encode())
        context.load_cert_chain(path)
        path.unlink()
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname="localhost", limit=1 << 14
        )
        up = topics.up(self.shard, self.name, "state")
        will = pb.State(online=False, epoch=1).SerializeToString()
        flags = 0x02 | 0x04 | 1 << 3 | 0x20  # a clean session; will, QoS 1, retained
        body = (
            text("MQTT") + bytes([4, flags]) + KEEPALIVE_S.to_bytes(2, "big") + text(self.name) + text(up)
            + len(will).to_bytes(2, "big") + will
        )  # fmt: skip
        writer.write(packet(0x10, body))
        answer = await asyncio.wait_for(reader.readexactly(4), 60)
        if answer[3]:
            raise ConnectionError(f"{self.name}: CONNACK {answer[3]}")
        writer.write(packet(0x82, b"\x00\x01" + text(topics.down(self.shard, self.name, "+")) + b"\x00"))
        answer = await asyncio.wait_for(reader.readexactly(5), 60)
        if answer[4] == 0x80:
            raise ConnectionError(f"{self.name}: may not subscribe")
        state = pb.State(online=True, epoch=1, session=self.name, at_ms=time.time_ns() // 1_000_000)
        self.reader, self.writer = reader, writer
        self.publish(up, state.SerializeToString(), 2, retain=True)
        self.task = asyncio.create_task(self._listen(reader, writer, late_ms))

    def publish(self, topic: str, payload: bytes, number: int, *, retain: bool = False) -> None:
        assert self.writer is not None
        body = text(topic) + number.to_bytes(2, "big") + payload
        self.writer.write(packet(0x32 | retain, body))

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late_ms: list[float]) -> None:
        while True:
            first = (await reader.readexactly(1))[0]
            size = shift = 0
            while True:
                byte = (await reader.readexactly(1))[0]
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            body = await reader.readexactly(size)
            if first >> 4 != 3:
                continue
            topic_end = 2 + int.from_bytes(body[:2], "big")
            qos = first >> 1 & 3
            if qos:
                writer.write(packet(0x40, body[topic_end : topic_end + 2]))
            if body[2:topic_end].endswith(b"/hello"):
                self.send_again()
            if not body[2:topic_end].endswith(b"/ack"):
                continue
            ack = pb.Ack()
            ack.ParseFromString(body[topic_end + 2 * bool(qos) :])
            if ack.committed > self.acked:
                now = time.monotonic()
                late_ms.extend(1000 * (now - self.at_s.pop(n)) for n in range(self.acked + 1, ack.committed + 1))
                for n in range(self.acked + 1, ack.committed + 1):
                    del self.waiting[n]
                self.acked = ack.committed
                self.heard.set()
            if ack.resend:
                self.send_again()

    def send_batch(self, now_ms: int) -> None:
        self.sent += 1
        device = f"{self.name}-d"
        readings = Readings(
            np.zeros(READINGS, np.int32),
            now_ms - 1000 * np.arange(READINGS, 0, -1) + self.sent,
            np.zeros(READINGS, np.int32),
            np.random.default_rng(self.sent).integers(0, 999, READINGS).astype(np.int64),
            np.zeros(READINGS, np.uint8),
        )
        declaration = Declaration(0, device, "x", "u", 1, 0, "")
        batch = Batch(1, self.sent, readings, (declaration,) if self.sent == 1 else ())
        series = np.full(READINGS, series_hash(device, "x"), np.uint64)
        self.digest = add(self.digest, digest(series, readings.ts_ms, readings.integer, readings.quality))
        self.at_s[self.sent] = time.monotonic()
        payload = self.waiting[self.sent] = encode(batch, {0: declaration.code})
        self.publish(topics.up(self.shard, self.name, "data"), payload, 2 + self.sent)


class Core:
    """The product's processes on this machine."""

    def __init__(self, root: Path, gateways: int) -> None:
        self.root = root
        ports = iter(range(random.randint(21_000, 40_000), 65_000))
        self.mqtt, self.nats, self.web = (next(p for p in ports if free(p)) for _ in range(3))
        self.processes = Processes(root / "processes.json", lambda line: print(line, file=sys.stderr))
        database = prepare(root / "db")
        self._start(Child("database", database.argv, root / "db.log", user=database.user))
        self.dsn = database.dsn
        _await(self._answers, "the database")
        migrate(self.dsn)
        now = dt.datetime.now(dt.UTC)
        self.ca = LocalCa.create(root / "core" / "ca", "Bench", now)
        key, issued = self.ca.issue_server(["localhost", "127.0.0.1"], now)
        write_private(root / "web.key", key)
        write_private(root / "web.pem", issued.pem.encode())
        dsn = json.dumps(self.dsn)
        write_private(
            root / "core.toml",
            f'dsn = {dsn}\nlisten = "127.0.0.1:{self.web}"\nstate_dir = "{root}/core"\nconsole = false\n'
            f'tls_cert = "{root}/web.pem"\ntls_key = "{root}/web.key"\n[identity]\n'
            f'broker_url = "mqtts://localhost:{self.mqtt}"\npublic_url = "https://localhost:{self.web}"\n'.encode(),
        )
        write_private(
            root / "broker.toml",
            f'kind = "nats"\ndsn = {dsn}\nca_dir = "core/ca"\nout = "rules"\nlisten = "127.0.0.1:{self.mqtt}"\n'
            f'nats_listen = "127.0.0.1:{self.nats}"\n'.encode(),
        )
        write_private(
            root / "worker.toml",
            f'dsn = {dsn}\n[broker]\nurl = "mqtts://localhost:{self.mqtt}"\nusername = "core"\n'
            f'password_file = "{root}/rules/core-password"\nca_file = "{root}/rules/root.pem"\n'
            f'cert_file = "{root}/rules/core.pem"\n'.encode(),
        )
        self._python("guard", "cloud", "broker-rules", str(root / "broker.toml"), "--watch")
        _await((root / "rules" / "nats.conf").exists, "the guard's files")
        self._start(Child("broker", [binary(), "-c", str(root / "rules" / "nats.conf")], root / "broker.log"))
        self._python("web", "cloud", "serve", str(root / "core.toml"))
        self._gateways = gateways

    def start_worker(self) -> None:
        """After the claims: it takes the shards that have gateways."""
        self._python("worker", "cloud", "worker", str(self.root / "worker.toml"))

    def _python(self, name: str, *arguments: str) -> None:
        self._start(Child(name, [sys.executable, "-m", "citybrain_cli.main", *arguments], self.root / f"{name}.log"))

    def _start(self, child: Child) -> None:
        self.processes.start(child)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.dsn, connect_timeout=2).close()
            return True
        return False

    def shards_owned(self) -> int:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            row = conn.execute(
                "select count(*) from pg_locks where locktype = 'advisory' and classid = %s", (0x6362,)
            ).fetchone()
        return row[0] if row else 0

    def memory_mb(self) -> dict[str, float]:
        return self.processes.memory_mb()


def _await(found: Any, what: str, seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not found():
        if time.monotonic() > until:
            raise SystemExit(f"{what} did not come up")
        time.sleep(0.1)


def make_claims(dsn: str, number: int) -> tuple[list[Gateway], float]:
    """Claims by script; also how long the first thousand took, seconds."""
    out: list[Gateway] = []
    started = time.monotonic()
    first_thousand_s = 0.0
    now = dt.datetime.now(dt.UTC)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for n in range(number):
            made = claims.make(conn, claims.Wanted(f"gw-{n:05d}"), "bench", now, 1.0)
            out.append(Gateway(made.gateway_id, made.shard, made.code.text))
            if n + 1 == min(1000, number):
                first_thousand_s = time.monotonic() - started
    return out, first_thousand_s


async def enrol(gateways: list[Gateway], url: str, root: Path) -> None:
    """Each by its own code and its own key, over HTTPS."""
    queue = iter(gateways)
    context = ssl.create_default_context(cafile=str(root))

    async def one(client: httpx.AsyncClient) -> None:
        for gateway in queue:
            gateway.request = await asyncio.to_thread(new_request, gateway.name)
            answer = await client.post("/api/v1/enrol", json={"code": gateway.code, "csr": gateway.request.csr_pem})
            answer.raise_for_status()
            gateway.certificate = answer.json()["certificate"]

    async with httpx.AsyncClient(base_url=url, verify=context, timeout=60) as client:
        await asyncio.gather(*(one(client) for _ in range(_ENROLLING)))


async def connect(gateways: list[Gateway], core: Core, late_ms: list[float]) -> int:
    """How many had to try more than once."""
    queue = iter(gateways)
    again = 0

    async def one() -> None:
        nonlocal again
        for gateway in queue:
            for attempt in range(_ATTEMPTS):
                try:
                    await gateway.connect("127.0.0.1", core.mqtt, core.ca.root_pem, core.root, late_ms)
                    break
                except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    if attempt == _ATTEMPTS - 1:
                        raise
                    again += attempt == 0
                    if attempt == 0 and again < 4:
                        print(f"{gateway.name}: {error!r}", file=sys.stderr)
                    await asyncio.sleep(min(30.0, 0.5 * 2**attempt))  # as an agent does

    await asyncio.gather(*(one() for _ in range(_CONNECTING)))
    return again


async def keep_alive(gateways: list[Gateway]) -> None:
    """A ping now and then from each that is connected, as every MQTT client sends them."""
    while True:
        for n, gateway in enumerate(gateways):
            if gateway.writer is not None and not gateway.writer.is_closing():
                gateway.writer.write(packet(0xC0, b""))
            if n % 100 == 99:
                await asyncio.sleep(KEEPALIVE_S / 2 * 100 / len(gateways))
        await asyncio.sleep(1.0)


async def rounds(gateways: list[Gateway], number: int, every_s: float) -> float:
    """Each gateway sends a batch a round, spread over it; then waits for the rest: so many seconds."""
    order = list(gateways)
    random.Random(4).shuffle(order)
    for _ in range(number):
        started = time.monotonic()
        for n, gateway in enumerate(order):
            gateway.send_batch(time.time_ns() // 1_000_000)
            ahead_s = started + every_s * n / len(order) - time.monotonic()
            if n % 20 == 0:
                await asyncio.sleep(max(0.0, ahead_s))
    ended = time.monotonic()
    for gateway in gateways:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gateway.all_acked(), max(0.01, ended + _DRAIN_S - time.monotonic()))
    return time.monotonic() - ended


def ledger(dsn: str, gateways: list[Gateway]) -> dict[str, int]:
    """What the database says of each gateway against what was sent."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        rows = conn.execute("select gateway_id, seq, readings, digest from lane_cursor where lane = 'data'").fetchall()
        stored = conn.execute("select count(*), count(distinct (series_id, ts)) from reading").fetchone()
    book = {row[0]: row[1:] for row in rows}
    wrong = 0
    for gateway in gateways:
        kept = book.get(gateway.name, (0, 0, 0))
        wrong += (kept[0], kept[1], kept[2] % (1 << 64)) != (
            gateway.sent, READINGS * gateway.sent, gateway.digest % (1 << 64),
        )  # fmt: skip
    produced = sum(READINGS * g.sent for g in gateways)
    return {
        "produced": produced,
        "stored": stored[0] if stored else 0,
        "lost": produced - (stored[1] if stored else 0),
        "duplicated": (stored[0] - stored[1]) if stored else 0,
        "gateways_whose_ledger_is_wrong": wrong,
    }


async def measure(core: Core, number: int, turns: int, every_s: float) -> dict[str, Any]:
    out: dict[str, Any] = {"gateways": number, "tls": "mutual, a key and a certificate each"}
    gateways, thousand_s = make_claims(core.dsn, number)
    out["claims_first_1000_s"] = round(thousand_s, 1)
    _await(lambda: not free(core.web), "the web process")
    started = time.monotonic()
    await enrol(gateways, f"https://localhost:{core.web}", core.root / "core" / "ca" / "root.pem")
    out["enrol_s"] = round(time.monotonic() - started, 1)
    out["enrol_per_s"] = round(number / (time.monotonic() - started), 1)
    out["provision_1000_s"] = round(thousand_s + 1000 / (number / out["enrol_s"]), 1)
    core.start_worker()
    shards = len({gateway.shard for gateway in gateways})
    _await(lambda: core.shards_owned() == shards, "the worker's shards")
    idle = core.memory_mb()
    late_ms: list[float] = []
    pings = asyncio.create_task(keep_alive(gateways))
    started = time.monotonic()
    out["connected_after_a_retry"] = await connect(gateways, core, late_ms)
    out["connect_s"] = round(time.monotonic() - started, 1)
    out["connect_per_s"] = round(number / (time.monotonic() - started), 1)
    out["drain_s"] = round(await rounds(gateways, turns, every_s), 1)
    late = np.array(late_ms or [0.0])
    out["batches"] = sum(g.sent for g in gateways)
    out["batches_sent_again"] = sum(g.resent for g in gateways)
    out["batches_per_s"] = round(number / every_s, 1)
    out["ack_ms"] = {f"p{q}": round(float(np.percentile(late, q)), 1) for q in (50, 95, 99)}
    out["connections_at_the_end"] = sum(g.task is not None and not g.task.done() for g in gateways)
    busy = core.memory_mb()
    out["memory_mb"] = {name: round(size, 1) for name, size in busy.items()}
    out["kb_a_gateway"] = {
        name: round(1024 * (busy[name] - idle.get(name, 0.0)) / number, 1) for name in ("broker", "worker", "guard")
    }
    out["simulator_mb"] = round(psutil.Process().memory_info().rss / (1 << 20), 1)
    out["ledger"] = ledger(core.dsn, gateways)
    for task in (pings, *(gateway.task for gateway in gateways)):
        if task is not None:
            task.cancel()
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2, help="batches a gateway")
    parser.add_argument("--every", type=float, default=60.0, metavar="S", help="seconds a round")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = options.gateways + 500
    if hard < needed:
        raise SystemExit(f"{needed} open files are needed, {hard} are allowed: raise the limit (ulimit -Hn)")
    with tempfile.TemporaryDirectory(prefix="citybrain-bench-gateways-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        core: Core | None = None
        try:
            core = Core(root, options.gateways)
            figures = asyncio.run(measure(core, options.gateways, options.rounds, options.every))
            book = figures["ledger"]
            sound = not (book["lost"] or book["duplicated"] or book["gateways_whose_ledger_is_wrong"])
            if not sound:
                _last_words(root)
        except BaseException:
            _last_words(root)
            raise
        finally:
            if core is not None:
                core.processes.stop_all()
    figures["cpus"] = os.cpu_count()
    print(json.dumps(figures, indent=2))
    return 0 if sound else 1


def _last_words(root: Path) -> None:
    for log in sorted(root.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
