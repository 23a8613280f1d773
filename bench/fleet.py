"""One agent process that holds 5 000 vehicle terminals (JT/T 808) and 1 000 dust stations (HJ 212), a report each 10 s.

Real connectors, pipeline and outbox in a process of their own, over loopback; the simulated devices are in this one.
What they had acknowledged is reconciled with what the outbox holds: nothing acknowledged may be missing. The limit
measured in the same run is a bare asyncio server that echoes the same number of frames of the same size on as many
connections, without codec and without outbox.

    python bench/fleet.py [--seconds 60] [--terminals 5000] [--stations 1000] [--period 10] [--no-limit]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import numpy as np  # noqa: E402
from _fleet_load import SLOTS_PER_S, Device, Dust, Tally, Vehicle  # noqa: E402

from edge.outbox import Outbox  # noqa: E402
from protocols.jt808.frame import build  # noqa: E402
from protocols.jt808.messages import Message, frames  # noqa: E402
from protocols.jt808.position import make  # noqa: E402
from protocols.jt808.terminal import PositionReport  # noqa: E402
from protocols.uplink import batch as wire  # noqa: E402

#: Connections that are dialled at a time: a district whose power comes back.
BURST = 500
#: After the last report devices wait so long for their answers.
SETTLE_S = 15.0
#: ... and after their first one, for which the agent makes some hundred thousand series known.
FIRST_S = 90.0
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Usage:
    at_s: float
    cpu_s: float
    pss_mb: float


def usage(pid: int) -> Usage:
    """CPU spent and memory held (proportional set size) of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pss_kb = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return Usage(time.monotonic(), cpu_s, pss_kb / 1024)


def config_text(options: argparse.Namespace, ports: tuple[int, int]) -> str:
    lines = [
        '[gateway]\nid = "bench-fleet"\nshard = 0\nstatus_listen = ""',
        # Nobody is there: the outbox keeps everything, which is what is reconciled.
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{free_port()}"',
        "[outbox]\nmax_mb = 4096",
        f'[[connector]]\nid = "fleet"\nkind = "jt808-server"\nlisten = "127.0.0.1:{ports[0]}"',
    ]
    lines += [
        f'[[connector.device]]\nid = "v{n:05d}"\ntype = "vehicle/terminal"\nphone = "{phone(n)}"'
        for n in range(options.terminals)
    ]
    lines.append(
        f'[[connector]]\nid = "dust"\nkind = "hj212-server"\nlisten = "127.0.0.1:{ports[1]}"\n'
        f"max_connections = {max(1, options.stations) + 64}"
    )
    lines += [
        f'[[connector.device]]\nid = "d{n:05d}"\ntype = "env/dust_station"\nmn = "{station(n)}"'
        for n in range(options.stations)
    ]
    return "\n\n".join(lines) + "\n"


def phone(number: int) -> str:
    return f"0139{number:08d}"


def station(number: int) -> str:
    return f"010000A8900016F0{number:08d}"


async def listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody accepts on the port."""
    while process.poll() is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.2)
            continue
        writer.close()
        return
    raise SystemExit(f"the server process ended with {process.returncode} before it listened")


async def dial(devices: Sequence[Device], ports: Mapping[type[Device], int]) -> None:
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(BURST)

    async def one(device: Device) -> None:
        async with gate:
            await loop.create_connection(lambda: device, "127.0.0.1", ports[type(device)])

    async with asyncio.TaskGroup() as tasks:
        for device in devices:
            tasks.create_task(one(device))


async def drive(devices: Sequence[Device], seconds: float, period_s: float) -> None:
    """Each device reports once a period, spread evenly."""
    loop = asyncio.get_running_loop()
    slots = round(period_s * SLOTS_PER_S)
    turns = [devices[slot::slots] for slot in range(slots)]
    begun_s = loop.time()
    for slot in range(round(seconds * SLOTS_PER_S)):
        await asyncio.sleep(max(0.0, begun_s + slot / SLOTS_PER_S - loop.time()))
        now_ms = time.time_ns() // 1_000_000
        for device in turns[slot % slots]:
            device.push(now_ms)
        if slot % 50 == 0:
            again_ms = round(loop.time() * 1000)
            for device in devices:
                device.resend(again_ms)


async def settle(devices: Sequence[Device], most_s: float) -> int:
    """Wait for the answers that are under way; how many never came."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + most_s
    while loop.time() < until_s and any(device.waiting for device in devices):  # noqa: ASYNC110 - thousands to ask
        await asyncio.sleep(0.2)
    return sum(len(device.waiting) for device in devices)


async def play(
    options: argparse.Namespace, process: subprocess.Popen[bytes], ports: tuple[int, int]
) -> tuple[dict[str, object], Tally]:
    """Dial, report, settle."""
    tally = Tally()
    wanted = options.terminals + options.stations
    ready, everybody = 0, asyncio.Event()

    def one_ready() -> None:
        nonlocal ready
        ready += 1
        if ready == wanted:
            everybody.set()

    devices: list[Device] = [
        Vehicle(f"v{n:05d}", phone(n), 31.0 + n / 10_000, tally, one_ready) for n in range(options.terminals)
    ]
    devices += [Dust(f"d{n:05d}", station(n), n, tally, one_ready) for n in range(options.stations)]
    await listening(ports[1], process)
    await listening(ports[0], process)
    idle = usage(process.pid)
    begun_s = time.monotonic()
    await dial(devices, {Vehicle: ports[0], Dust: ports[1]})
    async with asyncio.timeout(120):
        await everybody.wait()
    burst = usage(process.pid)
    burst_s = time.monotonic() - begun_s
    print(f"{wanted} connected and authenticated in {burst_s:.1f} s", file=sys.stderr)
    # The first report of each makes its series known (once in an outbox's life): measured by itself.
    first = usage(process.pid)
    first_s = time.monotonic()
    await drive(devices, options.period, options.period)
    await settle(devices, FIRST_S)
    known = usage(process.pid)
    print(f"first reports answered after {time.monotonic() - first_s:.1f} s", file=sys.stderr)
    first_sent, tally.sent = tally.sent, 0
    tally.answer_ms.clear()
    own_s = time.process_time()
    before = usage(process.pid)
    await drive(devices, options.seconds, options.period)
    after = usage(process.pid)
    own_s = time.process_time() - own_s
    unanswered = await settle(devices, SETTLE_S)
    span_s = after.at_s - before.at_s
    answer_ms = sorted(tally.answer_ms)
    return {
        "burst_s": round(burst_s, 1),
        "burst_cpu_s": round(burst.cpu_s - idle.cpu_s, 1),
        "first_reports_cpu_s": round(known.cpu_s - first.cpu_s, 1),
        "cpu_share_of_one_core": round((after.cpu_s - before.cpu_s) / span_s, 3),
        "cpu_us_per_report": round((after.cpu_s - before.cpu_s) / max(1, tally.sent) * 1e6),
        "pss_mb_before_connections": round(idle.pss_mb),
        "pss_mb": round(after.pss_mb),
        "kb_per_device": round((after.pss_mb - idle.pss_mb) * 1024 / wanted, 1),
        "sent": first_sent + tally.sent,
        "acked": len(tally.acked),
        "unanswered": unanswered,
        "resent": tally.resent,
        "links_lost": tally.lost_links,
        "answer_ms_median": round(statistics.median(answer_ms)) if answer_ms else None,
        "answer_ms_99": round(answer_ms[len(answer_ms) * 99 // 100]) if answer_ms else None,
        "simulators_cpu_share": round(own_s / span_s, 3),
    }, tally


def stored(file: Path) -> dict[str, set[int]]:
    """Times of ``lat`` and ``pm10`` in an outbox, by device."""
    outbox = Outbox(file, now_ms=time.time_ns() // 1_000_000)
    names = {one.alias: (one.device, one.point) for one in outbox.series()}
    codes = {one.alias: one.code for one in outbox.series()}
    wanted = {alias: device for alias, (device, point) in names.items() if point in ("lat", "pm10")}
    found: dict[str, set[int]] = {device: set() for device in wanted.values()}
    for lane in ("data", "backfill"):
        after = 0
        while rows := outbox.rows(lane, after):
            for row in rows:
                readings = wire.decode(wire.open_envelope(row.payload), codes).readings
                keep = np.isin(readings.alias, list(wanted))
                for alias, ts_ms in zip(readings.alias[keep].tolist(), readings.ts_ms[keep].tolist(), strict=True):
                    found[wanted[alias]].add(ts_ms)
            after = rows[-1].seq
    outbox.close()
    return found


def agent(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    ports = free_port(), free_port()
    file = folder / "fleet.toml"
    file.write_text(config_text(options, ports), encoding="utf-8")
    log = folder / "agent.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "citybrain_cli.main", "edge", "run", str(file)],
            cwd=folder, env=environment, stdout=sink, stderr=sink,
        )  # fmt: skip
    try:
        said, tally = asyncio.run(play(options, process, ports))
    except BaseException:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    found = stored(folder / "state" / "outbox.db")
    lost = [one for one in tally.acked if one[1] not in found.get(one[0], ())]
    size_mb = (folder / "state" / "outbox.db").stat().st_size / 1e6
    return said | {
        "acked_but_not_stored": len(lost),
        "stored_positions": sum(len(times) for times in found.values()),
        "outbox_mb": round(size_mb, 1),
    }


# -- the limit


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[attr-defined]


class _Bare(Device):
    """Sends a ready-made frame and counts what comes back."""

    frame = b""

    def data_received(self, data: bytes) -> None:
        self.tally.acked.append((self.name, len(data)))

    def push(self, now_ms: int) -> None:
        self.write(self.frame)
        self.tally.sent += 1

    def resend(self, loop_ms: int) -> None:
        """An echo is never late."""


async def _serve_echo(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def _play_echo(options: argparse.Namespace, process: subprocess.Popen[bytes], port: int) -> dict[str, object]:
    here = make(
        lat=31.8, lon=117.2, time_ms=1_772_409_600_000, extras=((1, bytes(4)), (0x30, b"\x18"), (0x31, b"\x0c"))
    )
    (frame,) = frames(Message(phone(1), PositionReport(here)), 1, 1023)
    _Bare.frame = build(frame)
    tally = Tally()
    devices = [_Bare(str(n), tally, lambda: None) for n in range(options.terminals + options.stations)]
    await listening(port, process)
    await dial(devices, {_Bare: port})
    await asyncio.sleep(2.0)  # the accepts are done
    before = usage(process.pid)
    await drive(devices, min(30.0, options.seconds), options.period)
    after = usage(process.pid)
    span_s = after.at_s - before.at_s
    return {
        "cpu_share_of_one_core": round((after.cpu_s - before.cpu_s) / span_s, 3),
        "cpu_us_per_report": round((after.cpu_s - before.cpu_s) / max(1, tally.sent) * 1e6),
        "pss_mb": round(after.pss_mb),
        "echoed": len(tally.acked),
    }


def limit(options: argparse.Namespace) -> dict[str, object]:
    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, "--echo", str(port)])
    try:
        return asyncio.run(_play_echo(options, process, port))
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--terminals", type=int, default=5000)
    parser.add_argument("--stations", type=int, default=1000)
    parser.add_argument("--period", type=float, default=10.0)
    parser.add_argument("--no-limit", action="store_true")
    parser.add_argument("--echo", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # inherited by the server's process
    if options.echo:
        asyncio.run(_serve_echo(options.echo))
        return 0
    wanted = options.terminals + options.stations
    if wanted + 100 > most:
        print(f"{wanted} connections need more open files than the {most} allowed here", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        ours = agent(options, Path(name))
    result: dict[str, object] = {
        "what": "one agent process holding vehicle terminals and dust stations, a report each period",
        "terminals": options.terminals,
        "stations": options.stations,
        "period_s": options.period,
        "seconds": options.seconds,
        "reports_per_s": round(wanted / options.period),
        "agent": ours,
    }
    if not options.no_limit:
        bare = limit(options)
        result["limit"] = {"what": "bare asyncio server echoing the same frames: no codec, no outbox", **bare}
        result["agent_to_limit_cpu"] = round(ours["cpu_us_per_report"] / max(1, bare["cpu_us_per_report"]), 1)
    print(json.dumps(result, indent=2))
    return 1 if ours["acked_but_not_stored"] or ours["unanswered"] else 0


if __name__ == "__main__":
    sys.exit(main())
