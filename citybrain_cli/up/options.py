"""Options of `citybrain up`; apart from it, so that `--help` loads nothing else."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def seconds(text: str) -> float:
    """``90``, ``90s``, ``3m``, ``1h`` to seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    factor = units.get(text[-1:], 0.0)
    try:
        value = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        value = -1.0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time span; write 60s, 3m or 1h")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        default=os.environ.get("CITYBRAIN_STATE", "var"),
        metavar="FOLDER",
        help="where data lives (default: var)",
    )
    parser.add_argument("--fresh", action="store_true", help="delete the state folder first and start over")
    parser.add_argument(
        "--for", dest="seconds", type=seconds, metavar="TIME", help="stop by itself after 60s, 3m, 1h ..."
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the run's figures as JSON when it stops")
    parser.add_argument("--port", type=int, metavar="N", help="console port (default 8600, or the next free one)")
    parser.add_argument(
        "--camera", metavar="FILE|rtsp://...|/dev/video0", help="a real camera instead of the simulated one"
    )
