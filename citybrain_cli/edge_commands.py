"""`citybrain edge ...` and `citybrain models ...`: what the gateway installer types."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

from protocols.core.errors import ConfigError, LinkDown


def add(commands: Any) -> None:
    edge = commands.add_parser("edge", help="the agent on a gateway").add_subparsers(required=True, metavar="ACTION")
    for name, do, text in (
        ("run", _run, "run the agent until Ctrl-C"),
        ("check", _check, "check the configuration; opens no connection"),
        ("status", _status, "what the running agent says of itself"),
    ):
        action = edge.add_parser(name, help=text)
        action.add_argument("config", type=Path, help="the gateway's TOML file")
        action.set_defaults(do=do)

    models = commands.add_parser("models", help="detector models of a gateway").add_subparsers(
        required=True, metavar="ACTION"
    )
    add_model = models.add_parser("add", help="copy a model and its manifest into the gateway's registry")
    add_model.add_argument("file", help="ONNX file or https URL")
    add_model.add_argument(
        "--manifest", type=Path, required=True, help="TOML: family, input recipe, classes, licence, sha256"
    )
    add_model.add_argument("--models-dir", type=Path, default=Path("state/models"), help="registry folder of the agent")
    add_model.set_defaults(do=_models_add)
    list_models = models.add_parser("list", help="models in the registry")
    list_models.add_argument(
        "--models-dir", type=Path, default=Path("state/models"), help="registry folder of the agent"
    )
    list_models.set_defaults(do=_models_list)


def _check(options: argparse.Namespace) -> int:
    from edge.config import load

    config = load(options.config)
    devices = sum(len(c.device) for c in config.connector)
    print(
        f"{options.config}: good. Gateway {config.gateway.id} (shard {config.gateway.shard}):"
        f" {len(config.connector)} connectors, {devices} devices, {len(config.camera)} cameras,"
        f" {len(config.scenario)} scenarios. 配置正确"
    )
    return 0


def _run(options: argparse.Namespace) -> int:
    from edge.agent import run
    from edge.clock import WallClock
    from edge.config import load

    config = load(options.config)

    async def until_stopped() -> None:
        task = asyncio.ensure_future(run(config, options.config.resolve().parent, WallClock()))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(until_stopped())
    return 0


def _status(options: argparse.Namespace) -> int:
    from edge.config import load

    config = load(options.config)
    note = options.config.resolve().parent / config.gateway.state_dir / "status.json"
    try:
        url = json.loads(note.read_text())["url"]
        with urllib.request.urlopen(url + "status.json", timeout=5) as answer:  # noqa: S310 - the agent's own page
            status = json.load(answer)
    except FileNotFoundError as error:
        raise ConfigError(f"{note} is not there: the agent has not run yet, or status_listen is off") from error
    except (OSError, ValueError, KeyError) as error:
        raise LinkDown(f"the agent does not answer ({error}); is it running?") from error
    print(f"gateway {status['gateway']}   {url}")
    for name, value in sorted(status["values"].items()):
        print(f"  {name:32} {value:,.1f}".removesuffix(".0"))
    for name, text in sorted(status["texts"].items()):
        print(f"! {name:32} {text}")
    return 0


def _models_add(options: argparse.Namespace) -> int:
    from edge.vision.models import add_model, read_manifest

    manifest = read_manifest(options.manifest)
    add_model(options.models_dir, options.file, manifest)
    print(f"{manifest.id}: {manifest.family}, licence {manifest.licence}, sha256 {manifest.sha256[:16]}... added")
    return 0


def _models_list(options: argparse.Namespace) -> int:
    from edge.vision.models import list_models

    for manifest in list_models(options.models_dir):
        print(f"{manifest.id:24} {manifest.family:14} {manifest.licence}")
    return 0
