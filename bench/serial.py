"""Share of a serial line's physical time that a gateway uses: 32 meters at 2400 and 9600 baud, DL/T 645 and Modbus RTU.

Physical time is what bytes need on the wire plus the 20 ms that each meter takes before it answers: no master can have
either back. Measured twice: in virtual time, which shows what our order of doing things costs (the pause of 3.5
characters between exchanges is in it), and in real time on a pty paced like a wire with the meters in another process,
where this machine's scheduler is in it too. The peer on that pty: the plain loop that one finds in projects, one
request after the other with a fixed pause of 50 ms; pymodbus's own client for Modbus, our codec in a loop for DL/T 645
(no library has both editions). Both ask for the same blocks, so only the time between exchanges differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# This file's own name would hide pyserial from everybody.
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]

from edge.clock import WallClock  # noqa: E402
from edge.connectors.build import build  # noqa: E402
from edge.connectors.config import Dlt645Config, Dlt645Device, ModbusDevice, ModbusRtuConfig  # noqa: E402
from firmware_sim.clock import WallClock as SimClock  # noqa: E402
from firmware_sim.devices.build import polled_bus  # noqa: E402
from firmware_sim.devices.world import World  # noqa: E402
from firmware_sim.ledger import MemoryLedger  # noqa: E402
from firmware_sim.links.pace import LineTime, PacedLink  # noqa: E402
from firmware_sim.links.pty import PtyLink  # noqa: E402
from firmware_sim.rig.virtual_loop import run_virtual  # noqa: E402
from firmware_sim.rig.virtual_rig import VirtualRig  # noqa: E402
from firmware_sim.scene import parse_scene  # noqa: E402
from protocols.core.endpoint import Role  # noqa: E402
from protocols.core.model import Sweep  # noqa: E402
from protocols.devices import load  # noqa: E402
from protocols.dlt645.endpoint import Dlt645Endpoint  # noqa: E402
from protocols.dlt645.messages import Read  # noqa: E402
from protocols.modbus.plan import Plan  # noqa: E402

METERS, TURNAROUND_S = 32, 0.02
WARM_S, MEASURE_S = 3.0, 8.0
VIRTUAL_S = 600.0
PAUSE_S = 0.05
AIM = 0.9
TYPES = {"dlt645": "meter/electricity_three_phase", "modbus-rtu": "meter/eastron_sdm630"}


# -- the meters: another process


def _scene(kind: str, baud: int) -> str:
    address = '"000000000101"' if kind == "dlt645" else "1"
    signals = "\n".join(f"{point.name} = {{ base = 1.5 }}" for point in load(TYPES[kind]).points)
    return (
        f'id = "bench"\n[[bus]]\nid = "line"\nkind = "{kind}"\nbaud = {baud}\n'
        f'[[device]]\nid = "meter"\ntype = "{TYPES[kind]}"\nbus = "line"\ncount = {METERS}\naddress = {address}\n'
        f"[device.signals]\n{signals}\n"
    )


class _Counting(MemoryLedger):
    """Counts answers, keeps nothing."""

    def __init__(self, answers: Any) -> None:
        super().__init__()
        self._answers = answers

    def write(self, entry: str, device: str, now_ms: int, **more: object) -> None:
        self._answers.value += entry == "ans"


def _meters(kind: str, baud: int, path: str, busy_s: Any, answers: Any, ready: Any) -> None:
    async def main() -> None:
        scene = parse_scene(_scene(kind, baud), "bench")
        clock = SimClock()
        bus = scene.bus[0]
        slaves = polled_bus(bus, scene, World(clock, clock.now_ms(), _Counting(answers)))
        link = PtyLink.open(path)
        line = LineTime(baud, bus.byte_bits)
        serving = asyncio.create_task(slaves.serve(PacedLink(link, line)))
        ready.set()
        while not serving.done():
            busy_s.value = line.busy_s
            await asyncio.sleep(0.02)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())


# -- masters


class _Sink:
    def sweep(self, sweep: Sweep, on_durable: Callable[[], None] | None = None) -> None: ...

    def report(self, *arguments: Any, **more: Any) -> None: ...

    def device_state(self, device: str, *, online: bool, detail: str = "") -> None: ...

    def count(self, name: str, by: int = 1, **labels: str) -> None: ...


def _config(kind: str, baud: int, path: str) -> Any:
    """Every device always due."""
    config: Any
    if kind == "dlt645":
        meters = tuple(
            Dlt645Device(id=f"m{n}", type=TYPES[kind], address=f"{101 + n:012d}", poll_s=0.001) for n in range(METERS)
        )
        config = Dlt645Config(id="line", port=path, baud=baud, device=meters)  # type: ignore[arg-type]  # a literal
    else:
        units = tuple(ModbusDevice(id=f"m{n}", type=TYPES[kind], unit=1 + n, poll_s=0.001) for n in range(METERS))
        config = ModbusRtuConfig(id="line", port=path, baud=baud, device=units)  # type: ignore[arg-type]
    return config


def _ours(kind: str, baud: int, path: str, until_s: float) -> None:
    config = _config(kind, baud, path)

    async def main() -> None:
        running = asyncio.create_task(build(config, WallClock()).run(_Sink()))
        await asyncio.sleep(until_s - time.monotonic())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def _plain_modbus(baud: int, path: str, until_s: float) -> None:
    from pymodbus.client import ModbusSerialClient

    client = ModbusSerialClient(path, baudrate=baud, parity="N", timeout=1)
    client.connect()
    blocks = Plan(load(TYPES["modbus-rtu"]).points).blocks
    while time.monotonic() < until_s:
        for unit in range(1, METERS + 1):
            for block in blocks:
                client.read_input_registers(block.address, count=block.count, device_id=unit)
                time.sleep(PAUSE_S)
                if time.monotonic() >= until_s:
                    client.close()
                    return


def _plain_dlt645(baud: int, path: str, until_s: float) -> None:
    import serial

    port = serial.Serial(path, baud, timeout=0.02)
    master = Dlt645Endpoint(Role.MASTER)
    questions = ("02030000", "02060000", "0201FF00", "0202FF00")
    while time.monotonic() < until_s:
        for n in range(METERS):
            for di in questions:
                port.write(master.send(Read(f"{101 + n:012d}", di), 0))
                give_up_s = time.monotonic() + 1.5
                while time.monotonic() < give_up_s and not master.feed(port.read(256), 0):
                    pass
                time.sleep(PAUSE_S)
                if time.monotonic() >= until_s:
                    port.close()
                    return


# -- measuring


def _virtual(kind: str, baud: int) -> dict[str, float]:
    scene = parse_scene(_scene(kind, baud).replace("baud = ", "pace = true\nbaud = ", 1), "bench")
    answers = SimpleNamespace(value=0)

    async def main() -> dict[str, float]:
        async with VirtualRig(scene, ledger=_Counting(answers), start_ms=1_772_409_600_000) as rig:
            connector = build(_config(kind, baud, "unused"), rig.clock, rig.link_factory("line"))
            running = asyncio.create_task(connector.run(_Sink()))
            await asyncio.sleep(VIRTUAL_S)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            line = rig.line_time("line")
            return _row(line.busy_s if line is not None else 0.0, answers.value, VIRTUAL_S)

    return run_virtual(main(), 1_772_409_600_000)


def _row(bytes_s: float, answers: int, spent_s: float) -> dict[str, float]:
    return {
        "share": round((bytes_s + answers * TURNAROUND_S) / spent_s, 3),
        "bytes_alone": round(bytes_s / spent_s, 3),
        "answers_per_s": round(answers / spent_s, 2),
    }


def _measure(kind: str, baud: int, master: Callable[[str, float], None]) -> dict[str, float]:
    context = multiprocessing.get_context("fork")
    busy_s, answers, ready = context.Value("d", 0.0), context.Value("i", 0), context.Event()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "line")
        meters = context.Process(target=_meters, args=(kind, baud, path, busy_s, answers, ready), daemon=True)
        meters.start()
        ready.wait(30)
        asking = context.Process(target=master, args=(path, time.monotonic() + WARM_S + MEASURE_S + 1), daemon=True)
        asking.start()
        time.sleep(WARM_S)
        began_s, busy_before, answers_before = time.monotonic(), busy_s.value, answers.value
        time.sleep(MEASURE_S)
        spent_s = time.monotonic() - began_s
        bytes_s, count = busy_s.value - busy_before, answers.value - answers_before
        asking.join(10)
        for process in (asking, meters):
            process.kill()
            process.join()
    return _row(bytes_s, count, spent_s)


def main() -> None:
    lines = []
    for kind in ("dlt645", "modbus-rtu"):
        for baud in (2400, 9600):

            def ours(path: str, until_s: float, kind: str = kind, baud: int = baud) -> None:
                _ours(kind, baud, path, until_s)

            def plain(path: str, until_s: float, kind: str = kind, baud: int = baud) -> None:
                (_plain_dlt645 if kind == "dlt645" else _plain_modbus)(baud, path, until_s)

            row = {
                "line": f"{kind} {baud}",
                "virtual": _virtual(kind, baud),
                "pty": _measure(kind, baud, ours),
                "pty_plain_loop": _measure(kind, baud, plain),
            }
            print(row, file=sys.stderr, flush=True)
            lines.append(row)
    print(
        json.dumps(
            {
                "what": f"share of the line's physical time used, {METERS} meters, every device always due",
                "physical_time": f"bytes on the wire and {TURNAROUND_S * 1000:.0f} ms of each meter before it answers",
                "plain_pause_ms": PAUSE_S * 1000,
                "load_average": round(os.getloadavg()[0], 2),
                "lines": lines,
                "aim_share": AIM,
                "reached_in_virtual_time": all(row["virtual"]["share"] >= AIM for row in lines),  # type: ignore[index]
                "reached_on_pty": all(row["pty"]["share"] >= AIM for row in lines),  # type: ignore[index]
                "reached_by_bytes_alone": all(row["pty"]["bytes_alone"] >= AIM for row in lines),  # type: ignore[index]
            }
        )
    )


if __name__ == "__main__":
    main()
