"""Readings committed per second: broker, worker, rules and database, against a bare binary COPY of the same rows.

Everything is real and on this machine: nats-server, PostgreSQL, one worker process, one publisher process whose batches
were encoded beforehand. The limit measured in the same run is COPY of the same rows, 20 000 a transaction, into the
same table with the same index. ``rules`` are the three packs, bound to devices among the series.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import psycopg
from paho.mqtt.enums import CallbackAPIVersion

from citybrain_cli.up import broker
from citybrain_cli.up.district import cloud_scenarios
from citybrain_cli.up.layout import open_layout
from citybrain_cli.up.processes import Child, Processes
from cloud.ingest.copy import Rows, copy_in
from cloud.registry.enrol import enrol_gateway
from cloud.store.embedded import prepare
from cloud.store.migrate import migrate
from cloud.store.partitions import DayPartitions
from protocols.uplink import topics
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import Batch, Declaration, encode
from protocols.uplink.columns import Readings

GATEWAYS = [(f"bench-{n}", n) for n in range(4)]
SERIES, ROWS = 100, 10  # a batch: 100 series, 10 rows each
WINDOW = 64  # batches on their way per gateway, as an agent's window
COPY_ROWS = 20_000


def _batches(shard: int, count: int, start_ms: int) -> list[bytes]:
    """Encoded batches of one gateway. Its first devices carry the names the scenarios are bound to."""
    named = [
        ("site-1-noise", "laeq", "env/noise_meter"), ("site-1-noise", "lamax", "env/noise_meter"),
        ("site-1-dust", "pm10", "env/dust_station"), ("site-1-crane", "moment_pct", "crane/tower_crane"),
        ("site-1-crane", "wind_speed", "crane/tower_crane"), ("gas-01", "ch4_lel", "gas/combustible"),
        ("gas-02", "ch4_lel", "gas/combustible"), ("gas-main-1", "pressure", "gas/main_pressure"),
    ] if shard == 0 else []  # fmt: skip
    rest = [(f"b{shard}-{i // 10}", f"p{i % 10}", "") for i in range(SERIES - len(named))]
    declarations = tuple(
        Declaration(i, device, point, "", 2, 500, kind) for i, (device, point, kind) in enumerate([*named, *rest])
    )
    codes = {d.alias: d.code for d in declarations}
    rng = np.random.default_rng(shard)
    epoch = start_ms // 1000
    alias = np.repeat(np.arange(SERIES, dtype=np.int32), ROWS)
    out = []
    for n in range(count):
        times = start_ms + 1000 * (n * ROWS + np.arange(ROWS))
        values = 500 + rng.integers(-100, 100, SERIES * ROWS)
        readings = Readings(
            alias,
            np.tile(times, SERIES),
            np.full(SERIES * ROWS, 40, np.int32),
            values.astype(np.int64),
            np.zeros(SERIES * ROWS, np.uint8),
        )
        out.append(encode(Batch(epoch, n + 1, readings, declarations if n == 0 else ()), codes))
    return out


def _publish(folder: Path, port: int, count: int, start_ms: int) -> None:
    """The publisher process: each gateway keeps a window of batches on their way, as an agent does."""
    clients = []
    for gateway, shard in GATEWAYS:
        payloads = _batches(shard, count, start_ms)
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=gateway, protocol=mqtt.MQTTv311)
        client.username_pw_set(gateway, (folder / "secrets" / f"mqtt-{gateway}").read_text())
        client.max_inflight_messages_set(WINDOW * 2)
        state = {"sent": 0, "acked": 0}
        topic = topics.up(shard, gateway, "data")

        def push(client: mqtt.Client, state: dict[str, int], payloads: list[bytes], topic: str) -> None:
            while state["sent"] < len(payloads) and state["sent"] - state["acked"] < WINDOW:
                client.publish(topic, payloads[state["sent"]], qos=1)
                state["sent"] += 1

        def on_message(
            client: mqtt.Client,
            _u: Any,
            message: mqtt.MQTTMessage,
            state: dict[str, int] = state,
            payloads: list[bytes] = payloads,
            topic: str = topic,
        ) -> None:
            if not message.topic.endswith("/ack"):
                return
            ack = pb.Ack()
            ack.ParseFromString(message.payload)
            state["acked"] = max(state["acked"], ack.committed)
            push(client, state, payloads, topic)

        client.on_message = on_message
        client.connect("127.0.0.1", port)
        client.loop_start()
        client.subscribe(topics.down(shard, gateway, "+"), qos=1)
        clients.append((client, state, payloads, topic, push))
    print("ready", flush=True)
    sys.stdin.readline()
    for client, state, payloads, topic, push in clients:
        push(client, state, payloads, topic)
    while any(state["acked"] < count for _, state, *_ in clients):
        time.sleep(0.01)


def _bare_copy(conn: psycopg.Connection[Any], rows: Rows) -> float:
    DayPartitions(conn).ensure(conn, set(np.unique(rows.ts_ms // 86_400_000).tolist()), int(rows.ts_ms.max()))
    begun = time.perf_counter()
    for at in range(0, len(rows), COPY_ROWS):
        part = slice(at, at + COPY_ROWS)
        with conn.transaction():
            copy_in(
                conn,
                Rows(rows.series_id[part], rows.ts_ms[part], rows.value[part], rows.lag_ms[part], rows.quality[part]),
            )
    return len(rows) / (time.perf_counter() - begun)


def measure(batches: int) -> dict[str, Any]:
    total = batches * len(GATEWAYS) * SERIES * ROWS
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="citybrain-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        layout = open_layout(folder / "v", fresh=False)
        database = prepare(layout.root / "db")
        processes = Processes(layout.root / "processes.json", lambda text: print(text, file=sys.stderr))
        try:
            processes.start(
                Child(
                    "database",
                    database.argv,
                    layout.path("log", "db.log"),
                    user=database.user,
                    stop_signal=signal.SIGINT,
                )
            )
            _wait(lambda: psycopg.connect(database.dsn).close())
            migrate(database.dsn)
            with psycopg.connect(database.dsn, autocommit=True) as conn:
                for gateway, shard in GATEWAYS:
                    enrol_gateway(conn, gateway, shard, zh="", en="", lon=None, lat=None)
                return _measure(conn, database.dsn, layout, processes, batches, total)
        finally:
            processes.stop_all()


def _measure(
    conn: psycopg.Connection[Any], dsn: str, layout: Any, processes: Processes, batches: int, total: int
) -> dict[str, Any]:
    config = broker.write_config(layout, GATEWAYS)
    processes.start(Child("broker", [broker.binary(), "-c", str(config)], layout.path("log", "broker.log")))
    worker = layout.path("core", "worker.toml")
    worker.write_text(
        f'dsn = "{dsn}"\n[broker]\nurl = "mqtt://127.0.0.1:{layout.ports.mqtt}"\nusername = "core"\n'
        f'password_file = "{layout.secret_path("mqtt-core")}"\n{cloud_scenarios()}'
    )
    argv = [sys.executable, "-m", "citybrain_cli.main", "cloud", "worker", str(worker)]
    processes.start(Child("worker", argv, layout.path("log", "worker.log")))
    start_ms = (int(time.time()) - batches * ROWS - 60) * 1000
    me = [sys.executable, __file__, "--publish", str(layout.root), str(layout.ports.mqtt), str(batches), str(start_ms)]
    with subprocess.Popen(me, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as publisher:
        assert publisher.stdin is not None and publisher.stdout is not None
        publisher.stdout.readline()
        log = layout.path("log", "worker.log")
        _wait(lambda: _sessions_up(log))
        begun = time.perf_counter()
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
        publisher.wait(timeout=600)
        spent = time.perf_counter() - begun
    counted = conn.execute("select count(*) from reading").fetchone()
    assert counted is not None and counted[0] == total, f"{counted} rows of {total}"
    memory = processes.memory_mb()
    processes.stop("worker")
    table = conn.execute(
        "select series_id, (extract(epoch from ts) * 1000)::bigint, value, lag_ms, quality from reading"
    ).fetchall()
    columns = list(zip(*table, strict=True))
    rows = Rows(
        np.array(columns[0], np.int32),
        np.array(columns[1], np.int64),
        np.array(columns[2], np.float64),
        np.array(columns[3], np.int32),
        np.array(columns[4], np.uint8),
    )
    conn.execute("truncate reading")
    bare = _bare_copy(conn, rows)
    return {
        "what": "readings committed per second through broker, worker, rules and database",
        "cores": os.cpu_count(),
        "readings": total,
        "readings_per_batch": SERIES * ROWS,
        "readings_per_s": round(total / spent),
        "bare_copy_rows_per_s": round(bare),
        "ratio": round(total / spent / bare, 3),
        "aim": {"ratio": 0.5, "readings_per_s": 100_000},
        "memory_mb": memory,
    }


def _sessions_up(log: Path) -> None:
    if log.read_text().count("session up") < len(GATEWAYS):
        raise OSError("not yet")


def _wait(attempt: Any) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            attempt()
        except (OSError, psycopg.OperationalError):
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=500, help="batches per gateway")
    parser.add_argument("--publish", nargs=4, metavar=("FOLDER", "PORT", "COUNT", "START"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        folder, port, count, start = options.publish
        _publish(Path(folder), int(port), int(count), int(start))
        return
    print(json.dumps(measure(options.batches)))


if __name__ == "__main__":
    main()
