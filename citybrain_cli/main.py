"""The command line. Each command imports only what it needs, so a gateway never loads the cloud."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from citybrain_cli import audit, capture, cloud_commands, decode, edge_commands, fuzz, probe
from citybrain_cli.chaos import command as chaos
from citybrain_cli.proof import command as proof
from citybrain_cli.supply import commands as supply
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
    except Exception as error:
        # By its name: a gateway has no database library to import the class from.
        if type(error).__module__.partition(".")[0] != "psycopg":
            raise
        print(f"citybrain: database: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return 1


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
    chaos.add(commands)
    proof.add(commands)

    cloud_commands.add(commands)
    audit.add(commands)
    supply.add(commands)

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


def _test(options: argparse.Namespace) -> int:
    from citybrain_cli.gates import run

    return run(options.more)


def _bench(options: argparse.Namespace) -> int:
    from citybrain_cli.bench import run

    return run(options.name)


if __name__ == "__main__":
    sys.exit(main())
