"""Eight hours offline at 100 readings a second, then the way is open again: what arrives, in which order, how late.

Outbox, uplink, broker, worker process and database are the product's. The hours offline are compressed: the rows that
an agent would have committed (50 readings each half second, and an alarm each quarter of an hour) are written to the
outbox in a minute, with their own times. Then the uplink starts, and the gateway goes on measuring at the same rate:
one commit each half second, an alarm each five seconds.

*Late* is the time from a live row's commit on the gateway to the core's word that it is in the database; for a reading
add the half second at most that it waited for its commit. The limit in the same run: the backlog's own lane, drained
with nothing else to do, cannot be had twice; so the share of the window that the backlog got is stated instead.

    python bench/backlog.py [--hours 8] [--rate 100]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "firmware-sim")]

import numpy as np  # noqa: E402
import psycopg  # noqa: E402

from citybrain_cli.up import broker  # noqa: E402
from citybrain_cli.up.layout import open_layout  # noqa: E402
from citybrain_cli.up.processes import Child, Processes  # noqa: E402
from cloud.registry.enrol import enrol_gateway  # noqa: E402
from cloud.store.embedded import prepare  # noqa: E402
from cloud.store.migrate import migrate  # noqa: E402
from edge.clock import WallClock  # noqa: E402
from edge.config import MqttConfig  # noqa: E402
from edge.outbox import Outbox, Pending  # noqa: E402
from edge.uplink.uplink import Uplink  # noqa: E402
from protocols.core.ids import uuid7  # noqa: E402
from protocols.core.model import Event, SeriesInfo  # noqa: E402
from protocols.uplink.columns import Readings  # noqa: E402
from protocols.uplink.topics import LANES, Lane  # noqa: E402

GATEWAY, SHARD = "bench-late", 0
FLUSH_MS = 500
ALARM_OFFLINE_MS, ALARM_LIVE_MS = 900_000, 5_000
_ROWS_A_COMMIT = 200  # of the prepared hours; live rows are committed one by one
_LIVE_AT_LEAST_S = 20.0
_LOOK_S = 0.01

#: Order kept: no reading was stored by a later transaction than a newer one of its series; hours offline and live
#: apart.
_ORDER = """
select count(*) from (
  select ts, max(ts) over (partition by series_id, ts < %(reconnect)s order by age(xmin) desc
                           groups between unbounded preceding and 1 preceding) as before from reading
) as written where ts < before
"""


class Gateway:
    """The outbox, what goes into it, and when each live row was acknowledged."""

    def __init__(self, folder: Path, rate: int) -> None:
        self.outbox = Outbox(folder / "outbox.db", now_ms=_now_ms(), max_bytes=4 << 30)
        self._series = [
            self.outbox.alias(SeriesInfo(f"late-{n // 10}", f"p{n % 10}", "", 2), 500) for n in range(min(rate, 100))
        ]
        self._rng = np.random.default_rng(1)
        self._each = rate * FLUSH_MS // 1000
        self.made: dict[tuple[Lane, int], float] = {}
        self.late_ms: dict[Lane, list[float]] = {"event": [], "data": []}
        self.events = 0

    def _row(self, end_ms: int) -> Readings:
        """What was measured in the half second that ends then; each series in turn, one time each."""
        count = self._each
        first = end_ms // FLUSH_MS * count
        alias = np.array([self._series[(first + n) % len(self._series)] for n in range(count)], np.int32)
        times = end_ms - FLUSH_MS + 1 + np.arange(count, dtype=np.int64) * FLUSH_MS // count
        zeros = np.zeros(count, np.int32)
        return Readings(alias, times, zeros, self._rng.integers(300, 700, count), zeros.astype(np.uint8))

    def _alarm(self, at_ms: int) -> Event:
        self.events += 1
        return Event(
            id=uuid7(at_ms), type="gas.leak.high", ts_ms=at_ms, seen_ms=at_ms, source="late-0/p0", level="red",
            state="raise", key=f"late-{self.events}", values={"x": 52.5},
        )  # fmt: skip

    def offline(self, first_ms: int, last_ms: int) -> None:
        ends = list(range(first_ms + FLUSH_MS, last_ms + 1, FLUSH_MS))
        for at in range(0, len(ends), _ROWS_A_COMMIT):
            part = [Pending("backfill", self._row(end)) for end in ends[at : at + _ROWS_A_COMMIT]]
            alarms = [self._alarm(end) for end in ends[at : at + _ROWS_A_COMMIT] if end % ALARM_OFFLINE_MS < FLUSH_MS]
            part += [Pending("event", events=[alarm]) for alarm in alarms]
            self.outbox.commit(part, now_ms=ends[at])

    def live(self, end_ms: int) -> None:
        parts: list[Pending] = [Pending("data", self._row(end_ms))]
        if end_ms % ALARM_LIVE_MS < FLUSH_MS:
            parts.append(Pending("event", events=[self._alarm(end_ms)]))
        self.outbox.commit(parts, now_ms=end_ms)
        for part in parts:
            self.made[part.lane, self.outbox.last(part.lane)] = time.monotonic()

    def look(self) -> None:
        """Which live rows are in the database by now?"""
        now_s = time.monotonic()
        for (lane, seq), made_s in list(self.made.items()):
            if seq <= self.outbox.acked(lane):
                self.late_ms[lane].append((now_s - made_s) * 1000)
                del self.made[lane, seq]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _drain(gateway: Gateway, url: str, password: str, resume_ms: int) -> dict[str, Any]:
    outbox = gateway.outbox
    uplink = Uplink(
        MqttConfig(url, GATEWAY), outbox, WallClock(), gateway=GATEWAY, shard=SHARD, password=password,
        version="bench", health=lambda: ({}, {}), rejected=lambda *what: sys.exit(f"set aside: {what}"),
    )  # fmt: skip
    backlog, alarms = outbox.last("backfill"), outbox.last("event")
    task = asyncio.create_task(uplink.run())
    begun = time.monotonic()
    drained_s = alarms_s = 0.0
    done_when_alarms_were = 0
    widest = 0
    next_ms = resume_ms
    while not drained_s or time.monotonic() - begun < _LIVE_AT_LEAST_S:
        if task.done():
            task.result()
        if _now_ms() >= next_ms + FLUSH_MS:
            next_ms += FLUSH_MS
            await asyncio.to_thread(gateway.live, next_ms)
            uplink.wake()
        gateway.look()
        widest = max(widest, uplink.counters["backlog_window"])
        if not alarms_s and outbox.acked("event") >= alarms:
            alarms_s, done_when_alarms_were = time.monotonic() - begun, outbox.acked("backfill")
        if not drained_s and outbox.acked("backfill") >= backlog:
            drained_s = time.monotonic() - begun
        await asyncio.sleep(_LOOK_S)
    async with asyncio.timeout(60):
        while any(outbox.depth(0).rows[lane] for lane in LANES):
            gateway.look()
            await asyncio.sleep(_LOOK_S)
    gateway.look()
    task.cancel()
    await asyncio.wait([task])
    return {
        "drained_s": round(drained_s, 1),
        "backlog_rows": backlog,
        "alarms_of_the_hours_offline": alarms,
        "alarms_committed_after_s": round(alarms_s, 2),
        "backlog_committed_by_then": round(done_when_alarms_were / backlog, 4),
        "widest_backlog_window_rows": widest,
        "rows_sent_again": uplink.counters["resent"],
    }


def measure(hours: float, rate: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="citybrain-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        layout = open_layout(folder / "v", fresh=False)
        database = prepare(layout.root / "db")
        processes = Processes(layout.root / "processes.json", lambda text: print(text, file=sys.stderr))
        log = layout.path("log", "db.log")
        try:
            processes.start(Child("database", database.argv, log, user=database.user, stop_signal=signal.SIGINT))
            _wait(lambda: psycopg.connect(database.dsn).close())
            migrate(database.dsn)
            with psycopg.connect(database.dsn, autocommit=True) as conn:
                enrol_gateway(conn, GATEWAY, SHARD, zh="", en="", lon=None, lat=None)
                return _measure(conn, database.dsn, layout, processes, hours, rate)
        finally:
            processes.stop_all()


def _measure(
    conn: psycopg.Connection[Any], dsn: str, layout: Any, processes: Processes, hours: float, rate: int
) -> dict[str, Any]:
    config = broker.write_config(layout, [(GATEWAY, SHARD)])
    processes.start(Child("broker", [broker.binary(), "-c", str(config)], layout.path("log", "broker.log")))
    worker = layout.path("core", "worker.toml")
    url = f"mqtt://127.0.0.1:{layout.ports.mqtt}"
    worker.write_text(
        f'dsn = "{dsn}"\n[broker]\nurl = "{url}"\nusername = "core"\n'
        f'password_file = "{layout.secret_path("mqtt-core")}"\n'
    )
    log = layout.path("log", "worker.log")
    argv = [sys.executable, "-m", "citybrain_cli.main", "cloud", "worker", str(worker)]
    processes.start(Child("worker", argv, log))
    gateway = Gateway(layout.root, rate)
    print("writing the hours offline", file=sys.stderr, flush=True)
    # They end when the writing is done: so many milliseconds are kept free for it.
    resume_ms = (_now_ms() + 1000 + round(hours * 12_000)) // FLUSH_MS * FLUSH_MS
    gateway.offline(resume_ms - round(hours * 3_600_000), resume_ms)
    time.sleep(max(0.0, (resume_ms - _now_ms()) / 1000))  # the measured seconds begin when the prepared hours end
    _wait(lambda: _session_up(log))
    figures = asyncio.run(_drain(gateway, url, layout.secret(f"mqtt-{GATEWAY}"), resume_ms))
    totals = gateway.outbox.totals()
    accepted = sum(one["readings"] for one in totals.values())
    gateway.outbox.close()
    found = conn.execute("select count(*), count(distinct (series_id, ts)) from reading").fetchone()
    events = conn.execute("select count(*) from event where type = 'gas.leak.high'").fetchone()
    fell = conn.execute(_ORDER, {"reconnect": _timestamp(resume_ms)}).fetchone()
    assert found is not None and events is not None and fell is not None
    return {
        "what": "hours offline, then reconnected while measuring goes on",
        "hours": hours,
        "readings_per_s": rate,
        "readings_accepted": accepted,
        "readings_in_database": found[0],
        "share_pct": round(100 * found[0] / accepted, 4),
        "duplicated": found[0] - found[1],
        "events_accepted": gateway.events,
        "events_in_database": events[0],
        "out_of_order_in_a_series": int(fell[0]),
        **figures,
        "backlog_readings_per_s": round(totals["backfill"]["readings"] / figures["drained_s"]),
        "live_late_ms": _percentiles(gateway.late_ms["data"]),
        "alarm_late_ms": _percentiles(gateway.late_ms["event"]),
        "aim": {"share_pct": 100, "live_late_ms_max": 2000, "out_of_order_in_a_series": 0},
    }


def _timestamp(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _percentiles(late_ms: list[float]) -> dict[str, float]:
    values = np.array(late_ms)
    return {
        "rows": len(late_ms),
        "p50": round(float(np.percentile(values, 50)), 1),
        "p99": round(float(np.percentile(values, 99)), 1),
        "max": round(float(values.max()), 1),
    }


def _session_up(log: Path) -> None:
    if "session up" not in log.read_text():
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--rate", type=int, default=100, help="readings a second")
    options = parser.parse_args()
    result = measure(options.hours, options.rate)
    print(json.dumps(result, indent=2))
    good = (
        result["readings_in_database"] == result["readings_accepted"]
        and result["events_in_database"] == result["events_accepted"]
        and not result["duplicated"]
        and not result["out_of_order_in_a_series"]
        and result["live_late_ms"]["max"] <= result["aim"]["live_late_ms_max"]
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
