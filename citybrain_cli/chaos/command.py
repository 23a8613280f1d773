"""`citybrain chaos`: a system of its own, full load, seeded faults, and at the end the proof."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

_EPILOG = """\
Everything runs in namespaces of its own where the machine allows it, else on loopback; the report says which.
Exit code 0: sound; 1: something is lost, doubled, changed or out of order; 2: not started.

somebody else's agent: --agent-command 'my-agent --flag' is started once a gateway with
  --gateway ID --shard N --url mqtt://host:port --password-file FILE --folder FOLDER --book FILE --control FILE
  --readings RATE --events RATE
and speaks protocols/uplink/SPEC.md; what to write into the book, and to read from the control file, is in
citybrain_cli/chaos/README.md.
"""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "chaos",
        help="kill, cut, tear and fill under load, then prove that nothing is lost",
        description="A whole system at full load with seeded faults; ends with a proof from independent books.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="of load and faults (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed: the same faults at the same times")
    parser.add_argument("--rate-events", type=float, default=1_000, help="events a second, of all agents")
    parser.add_argument("--rate-readings", type=float, default=20_000, help="readings a second, of all agents")
    parser.add_argument("--faults", default="all", help="all, or names with commas between (see --list)")
    parser.add_argument("--agents", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--agent-command", default="", help="test somebody else's agent")
    parser.add_argument("--network", choices=("auto", "namespaces", "proxy"), default="auto")
    parser.add_argument("--shorten", type=float, default=1.0, help="scale of the faults' lengths and pauses")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds without anything new that end the wait")
    parser.add_argument("--state", type=Path, help="folder to work in and to keep (default: temporary)")
    parser.add_argument("--json", type=Path, help="write the report here; - for standard output")
    parser.add_argument("--power-cuts", type=int, metavar="N", help="instead: open N torn states of an outbox's files")
    parser.add_argument("--list", action="store_true", help="the faults and what each may do")
    parser.set_defaults(do=_run)


def _run(options: argparse.Namespace) -> int:
    from citybrain_cli.chaos import site as sites
    from citybrain_cli.chaos.faults import FAULTS, choose

    faults = choose(options.faults)
    if options.list:
        for fault in FAULTS.values():
            low, high = fault.kind.length_s
            print(f"{fault.kind.name:20} {low:4g}-{high:g} s  {fault.zh}; afterwards {fault.expect}")
        return 0
    if options.power_cuts:
        return _power_cuts(options)
    _check(options)
    sites.go_inside(["-m", "citybrain_cli.main", *sys.argv[sys.argv.index("chaos") :]])
    signal.signal(signal.SIGTERM, _interrupt)  # told to end: everything is cleared away as after Ctrl-C
    root = options.state or Path(tempfile.mkdtemp(prefix="citybrain-chaos-"))
    root.mkdir(parents=True, exist_ok=True)
    try:
        report = _play(options, faults, sites.look(options.network), root)
    finally:
        if options.state is None:
            shutil.rmtree(root, ignore_errors=True)
    _write(options, report)
    print(_last_line(report), file=sys.stderr)
    return 0 if report["verdict"] == "sound" else 1


def _power_cuts(options: argparse.Namespace) -> int:
    from citybrain_cli.chaos.powercut import campaign

    memory = Path("/dev/shm")  # noqa: S108 - thousands of files, each written and read once; nothing depends on syncs
    with tempfile.TemporaryDirectory(prefix="citybrain-cuts-", dir=memory if memory.is_dir() else None) as name:
        report = campaign(Path(name), options.seed, options.power_cuts)
    _write(options, report)
    return 0 if report["verdict"] == "sound" else 1


def _write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if options.json is not None and str(options.json) != "-":
        options.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _check(options: argparse.Namespace) -> None:
    from protocols.core.errors import ConfigError

    if not 0.1 <= options.minutes <= 24 * 60:
        raise ConfigError("--minutes: 0.1 to 1440")
    if not 1 <= options.agents <= 16 or not 1 <= options.workers <= 16:
        raise ConfigError("--agents, --workers: 1 to 16")
    if not 0.05 <= options.shorten <= 10:
        raise ConfigError("--shorten: 0.05 to 10")
    if options.rate_readings / options.agents < 20 or options.rate_events < 0:
        raise ConfigError("--rate-readings: at least 20 for each agent; --rate-events: not below 0")
    if options.state is not None and options.state.exists() and any(options.state.iterdir()):
        raise ConfigError(f"{options.state} is not empty")


def _play(options: argparse.Namespace, faults: Any, site: Any, root: Path) -> dict[str, Any]:
    from citybrain_cli.chaos.run import Run
    from citybrain_cli.chaos.system import Load, System

    load = Load(options.rate_readings, options.rate_events, options.agents, options.workers, options.agent_command)
    system = System(root.resolve(), load, site, options.seed)
    try:
        run = Run(
            system,
            faults,
            options.minutes * 60,
            options.seed,
            lambda line: print(line, file=sys.stderr, flush=True),
            options.shorten,
            options.patience,
        )
        return run.go()
    finally:
        system.close()


def _last_line(report: dict[str, Any]) -> str:
    totals = report["totals"]
    said = ", ".join(
        f"{totals[f'{what}_readings']} + {totals.get(f'{what}_events', 0)} {what}"
        for what in ("lost", "duplicated", "reordered")
    )
    return (
        f"{report['verdict'].upper()}: {totals['accepted_readings']} readings and {totals['accepted_events']} events"
        f" accepted; {said}; {len(report['faults'])} faults in {report['minutes']:g} min"
    )
