"""The command line. Each command imports only what it needs, so a gateway never loads the cloud."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from citybrain_cli import capture, decode, edge_commands, fuzz, probe
from protocols.core.errors import CityBrainError, ConfigError

_EPILOG = """\
first steps:
  citybrain up                          the whole system with a simulated district, on this machine
  citybrain edge check gateway.toml     is this configuration right? opens no connection
  citybrain edge run gateway.toml       a real gateway
  citybrain sim run scene.toml          simulated devices for anybody's agent
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["sim"]:  # has its own parser, and its own --help
        options = argparse.Namespace(verbose=False, do=lambda _: _sim(arguments[1:]))
    else:
        if arguments[:1] == ["decode"]:
            arguments = ["decode", *decode.in_order(arguments[1:])]
        options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("spiff", "pymodbus", "httpx", "uvicorn.access", "watchfiles"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    do: Callable[[argparse.Namespace], int] = options.do
    try:
        return do(options)
    except CityBrainError as error:
        print(f"citybrain: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `| head` has seen enough. What is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"protocols", "scenarios", "edge", "cloud", "firmware_sim"}:
            raise
        print(f"citybrain: this install lacks {error.name}; see `extras` in README.md", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="citybrain",
        description="From the sensor to the closed case: edge agents, cloud core and device simulator of a city.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log every step")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="run everything on this machine, with a simulated district")
    _add_up_arguments(up)
    up.set_defaults(do=_up)

    edge_commands.add(commands)
    decode.add(commands)
    capture.add(commands)
    probe.add(commands)
    fuzz.add(commands)

    cloud = commands.add_parser("cloud", help="parts of the core").add_subparsers(required=True, metavar="PART")
    serve = cloud.add_parser("serve", help="console and API")
    serve.add_argument("config", type=Path, help="core.toml: dsn, listen, state_dir")
    serve.set_defaults(do=_cloud_serve)
    worker = cloud.add_parser("worker", help="ingest worker: broker to database, rules, alarms, cases")
    worker.add_argument("config", type=Path, help="worker.toml: dsn, [broker], [[scenario]]")
    worker.set_defaults(do=_cloud_worker)
    enrol = cloud.add_parser("enrol", help="enter a gateway, so that the core listens to it")
    enrol.add_argument("dsn", help="database, e.g. postgresql://user@host/citybrain")
    enrol.add_argument("gateway", help="gateway id: lower-case letters, digits, hyphens")
    enrol.add_argument("--shard", type=int, required=True, help="0 to 63, fixed for ever")
    enrol.add_argument("--zh", default="", help="Chinese name")
    enrol.add_argument("--en", default="", help="English name")
    enrol.add_argument("--lon", type=float, help="degrees, WGS 84")
    enrol.add_argument("--lat", type=float, help="degrees, WGS 84")
    enrol.set_defaults(do=_cloud_enrol)
    migrate = cloud.add_parser("migrate", help="bring the database to this version's schema")
    migrate.add_argument("dsn", help="database, e.g. postgresql://user@host/citybrain")
    migrate.set_defaults(do=_cloud_migrate)

    commands.add_parser("sim", help="simulated devices on real ports and serial lines (see `citybrain sim --help`)")

    test = commands.add_parser("test", help="every gate and test of the developers' guide")
    test.add_argument("more", nargs=argparse.REMAINDER, help="arguments for pytest")
    test.set_defaults(do=_test)
    bench = commands.add_parser("bench", help="measurements as JSON, each against a peer or a limit in the same run")
    bench.add_argument("name", nargs="*", help="which (default: all)")
    bench.set_defaults(do=_bench)
    return parser


def _add_up_arguments(parser: argparse.ArgumentParser) -> None:
    from citybrain_cli.up.options import add_arguments

    add_arguments(parser)


def _up(options: argparse.Namespace) -> int:
    from citybrain_cli.up.run import Up

    logging.getLogger().setLevel(logging.WARNING)
    return Up(options).run()


def _sim(arguments: list[str]) -> int:
    from firmware_sim.run import main as sim_main

    return sim_main(arguments)


def _cloud_serve(options: argparse.Namespace) -> int:
    from cloud.app import first_start, serve
    from cloud.config import load

    settings = load(options.config)
    password = first_start(settings.dsn)
    if password is not None:
        print(f"First login 首次登录:  admin / {password}   (to be changed)", flush=True)
    serve(settings)
    return 0


def _cloud_worker(options: argparse.Namespace) -> int:
    import signal

    from cloud.ingest.config import load
    from cloud.ingest.worker import Worker

    worker = Worker(load(options.config), options.config.resolve().parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()
    return 0


def _cloud_enrol(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.registry.enrol import enrol_gateway

    with psycopg.connect(options.dsn, autocommit=True) as conn:
        enrol_gateway(
            conn, options.gateway, options.shard, zh=options.zh, en=options.en, lon=options.lon, lat=options.lat
        )
    print(f"{options.gateway}: shard {options.shard}")
    return 0


def _cloud_migrate(options: argparse.Namespace) -> int:
    from cloud.store.migrate import migrate

    print("\n".join(migrate(options.dsn)) or "nothing to do")
    return 0


def _test(options: argparse.Namespace) -> int:
    from citybrain_cli.gates import run

    return run(options.more)


def _bench(options: argparse.Namespace) -> int:
    from citybrain_cli.bench import run

    return run(options.name)


if __name__ == "__main__":
    sys.exit(main())
