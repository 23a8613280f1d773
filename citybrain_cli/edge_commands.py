"""`citybrain edge ...` and `citybrain models ...`: what the gateway installer types."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

from citybrain_cli import doctor, identity, slots
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

    identity.add_edge(edge)
    slots.add(edge)
    doctor.add_edge(edge)

    order = edge.add_parser("command", help="tell a device of the running agent to do something")
    order.add_argument("config", type=Path, help="the gateway's TOML file")
    order.add_argument("device", help="device id")
    order.add_argument("name", help="command of its device type")
    order.add_argument("argument", nargs="*", metavar="NAME=VALUE")
    order.add_argument("--within", type=float, default=60.0, metavar="S", help="void after so many seconds")
    order.add_argument(
        "--id", default="", help="idempotency key: the same key is carried out once (default: a new one)"
    )
    order.set_defaults(do=_command)

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
    from edge.updates.overlay import install_from_environment

    install_from_environment()  # before the configuration, which names types and packs
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


_STATES_ZH = {
    "done": "已执行并确认",
    "refused": "已拒绝",
    "failed": "设备已应答，回读不符",
    "expired": "已过期",
    "unknown": "已发出，未得到应答，可能已执行",
}


def _argument(text: str) -> tuple[str, bool | float | int | str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"{text!r} is not NAME=VALUE")
    if value in ("true", "false"):
        return name, value == "true"
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            continue
    return name, value


def _command(options: argparse.Namespace) -> int:
    from edge.config import load
    from edge.order_socket import SOCKET, give
    from protocols.core.ids import uuid7

    config = load(options.config)
    socket = options.config.resolve().parent / config.gateway.state_dir / SOCKET
    order = {
        "id": options.id or str(uuid7(time.time_ns() // 1_000_000)),
        "device": options.device,
        "name": options.name,
        "arguments": dict(_argument(text) for text in options.argument),
        "life_ms": round(options.within * 1000),
    }
    try:
        outcome = asyncio.run(give(socket, order, options.within + 60.0))
    except (OSError, ValueError, TimeoutError) as error:
        raise LinkDown(f"the agent takes no orders at {socket} ({error or 'no answer'}); is it running?") from error
    shown = "  ".join(f"{name}={value}" for name, value in outcome.read_back.items())
    print(f"{outcome.state} {_STATES_ZH[outcome.state]}  {outcome.code}  {outcome.detail}  {shown}".rstrip())
    return 0 if outcome.state == "done" else 1


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
