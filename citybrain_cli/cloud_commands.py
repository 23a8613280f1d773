"""`citybrain cloud ...`: what the operator of the core types."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from citybrain_cli import doctor, fleet, identity, release, rollout, store, twin_commands


def add(commands: Any) -> None:
    cloud = commands.add_parser("cloud", help="parts of the core").add_subparsers(required=True, metavar="PART")
    serve = cloud.add_parser("serve", help="console and API")
    serve.add_argument("config", type=Path, help="core.toml: dsn, listen, state_dir")
    serve.set_defaults(do=_serve)
    worker = cloud.add_parser("worker", help="ingest worker: broker to database, rules, alarms, cases")
    worker.add_argument("config", type=Path, help="worker.toml: dsn, [broker], [[scenario]]")
    worker.set_defaults(do=_worker)
    enrol = cloud.add_parser("enrol", help="enter a gateway, so that the core listens to it")
    enrol.add_argument("dsn", help="database, e.g. postgresql://user@host/citybrain")
    enrol.add_argument("gateway", help="gateway id: lower-case letters, digits, hyphens")
    enrol.add_argument("--shard", type=int, required=True, help="0 to 63, fixed for ever")
    enrol.add_argument("--zh", default="", help="Chinese name")
    enrol.add_argument("--en", default="", help="English name")
    enrol.add_argument("--lon", type=float, help="degrees, WGS 84")
    enrol.add_argument("--lat", type=float, help="degrees, WGS 84")
    enrol.set_defaults(do=_enrol)
    identity.add_cloud(cloud)
    release.add(cloud)
    rollout.add(cloud)
    twin_commands.add(cloud)
    doctor.add_cloud(cloud)
    fleet.add_cloud(cloud)
    store.add_cloud(cloud)
    migrate = cloud.add_parser("migrate", help="bring the database to this version's schema")
    migrate.add_argument("dsn", help="database, e.g. postgresql://user@host/citybrain")
    migrate.set_defaults(do=_migrate)


def _serve(options: argparse.Namespace) -> int:
    from cloud.app import first_start, serve
    from cloud.config import load

    settings = load(options.config)
    password = first_start(settings.dsn)
    if password is not None:
        print(f"First login 首次登录:  admin / {password}   (to be changed)", flush=True)
    serve(settings)
    return 0


def _worker(options: argparse.Namespace) -> int:
    import signal

    from cloud.ingest.config import load
    from cloud.ingest.worker import Worker
    from cloud.store.keeping import Housekeeper

    config = load(options.config)
    worker = Worker(config, options.config.resolve().parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    with Housekeeper(config.dsn):
        worker.run()
    return 0


def _enrol(options: argparse.Namespace) -> int:
    import psycopg

    from cloud.registry.enrol import enrol_gateway

    with psycopg.connect(options.dsn, autocommit=True) as conn:
        enrol_gateway(
            conn, options.gateway, options.shard, zh=options.zh, en=options.en, lon=options.lon, lat=options.lat
        )
    print(f"{options.gateway}: shard {options.shard}")
    return 0


def _migrate(options: argparse.Namespace) -> int:
    from cloud.store.migrate import migrate

    print("\n".join(migrate(options.dsn)) or "nothing to do")
    return 0
