"""Plays a scene on real transports, for anybody's agent; also the ``sim`` part of the project's command line.

``python -m firmware_sim run SCENE.toml`` says what it serves and where, and goes on until Ctrl-C or the scene's end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from firmware_sim import ledger as ledgers
from firmware_sim.clock import Clock, WallClock
from firmware_sim.devices.world import World
from firmware_sim.ledger import FileLedger, Ledger, MemoryLedger
from firmware_sim.live import live_bus, serve
from firmware_sim.rig.virtual_rig import VirtualRig
from firmware_sim.scene import Scene, load_scene
from protocols.core.errors import CityBrainError, ConfigError

__all__ = ["VirtualRig", "main", "run_scene"]

_EPILOG = """\
examples:
  python -m firmware_sim run firmware-sim/scenes/district.toml --set hj212_connect=192.168.1.10:9001
  python -m firmware_sim check my-scene.toml
  python -m firmware_sim ledger run.jsonl
"""


async def run_scene(
    scene: Scene,
    clock: Clock,
    ledger: Ledger,
    *,
    streams_folder: Path | None = None,
    announce: Callable[[str], None] = print,
    ready: asyncio.Event | None = None,
) -> None:
    """Play ``scene`` from now on real transports until cancelled or its ``duration_s`` is over.

    Raises ConfigError or TransportError before anything moves if a port or a name cannot be had; ``ready`` is set
    once everything is open.
    """
    world = World(clock, clock.now_ms(), ledger, scene.seed, streams_folder)
    buses = [live_bus(bus, scene, world) for bus in scene.bus]
    ledger.write("open", "", world.start_ms, scene=scene.id, seed=scene.seed)
    if scene.duration_s is None:
        await serve(buses, announce, ready)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(scene.duration_s):
            await serve(buses, announce, ready)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        return int(args.do(args))
    except CityBrainError as error:
        print(f"firmware_sim: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="firmware_sim",
        description="Plays simulated city devices (stations, meters, sensors, cameras) on real ports and serial lines.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="play a scene until Ctrl-C or its end")
    check = commands.add_parser("check", help="check a scene file; opens nothing")
    for command in (run, check):
        command.add_argument("scene", type=Path, help="scene file (TOML)")
        command.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="fill ${NAME} of the scene (may repeat)"
        )
    run.add_argument("--ledger", type=Path, help="append what the devices did to this file (JSON lines)")
    run.add_argument("--streams", type=Path, help="folder of recorded streams for signals that replay")
    run.set_defaults(do=_run)
    check.set_defaults(do=_check)
    show = commands.add_parser("ledger", help="totals of a ledger file")
    show.add_argument("ledger", type=Path, help="file written by run --ledger")
    show.set_defaults(do=_ledger)
    return parser


def _scene(args: argparse.Namespace) -> Scene:
    values = {}
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected NAME=VALUE")
        values[name] = value
    return load_scene(args.scene, values)


def _run(args: argparse.Namespace) -> int:
    scene = _scene(args)
    ledger = FileLedger(args.ledger) if args.ledger is not None else MemoryLedger(keep=False)
    print(f"scene {scene.id}  {scene.en or scene.zh}", flush=True)
    try:
        asyncio.run(_until_stopped(scene, ledger, args.streams))
    finally:
        ledger.close()
    return 0


async def _until_stopped(scene: Scene, ledger: Ledger, streams_folder: Path | None) -> None:
    loop = asyncio.get_running_loop()
    play = asyncio.create_task(
        run_scene(
            scene, WallClock(), ledger, streams_folder=streams_folder, announce=lambda line: print(line, flush=True)
        )
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, play.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await play


def _check(args: argparse.Namespace) -> int:
    scene = _scene(args)
    print(f"{args.scene}: good: {len(scene.device)} devices, {len(scene.camera)} cameras on {len(scene.bus)} buses")
    return 0


def _ledger(args: argparse.Namespace) -> int:
    totals = ledgers.read(args.ledger)
    print(
        f"{'device':20} {'records':>8} {'answered':>8} {'given up':>8} {'open':>6} {'answers':>8} {'intact':>8}  faults"
    )
    for name, device in ledgers.devices_of(totals):
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(device.faults.items()))
        print(
            f"{name:20} {len(device.uploads):8} {len(device.acknowledged):8} {len(device.given_up):8} "
            f"{len(device.open):6} {device.answers:8} {device.answers_intact:8}  {faults}"
        )
    if totals.torn_lines:
        print(f"{totals.torn_lines} torn line(s): the simulator was killed while writing")
    return 0
