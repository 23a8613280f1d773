"""`citybrain up`: broker, database, core, simulated district and its agents on one machine, each a process of its own.

Start: database and broker, schema and registry, worker and console, simulator, agents. Stop: the other way round, so
that what is on its way arrives first.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import psycopg

from citybrain_cli.up import broker, district, report
from citybrain_cli.up.layout import Layout, open_layout, write_private
from citybrain_cli.up.processes import Child, Processes, last_words
from cloud.store.embedded import prepare
from cloud.store.migrate import migrate
from firmware_sim.camera.geometry import Pinhole, lane_ground
from protocols.core.errors import ConfigError, StoreError

_DRAIN_S = 30.0


def say(text: str) -> None:
    print(text, flush=True)


class Up:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._started = time.monotonic()
        self._setup_s = float(os.environ.get("CITYBRAIN_SETUP_S", "0"))
        self._stopping = False
        self.to_console_s = 0.0
        self.memory_peak: dict[str, float] = {}

    def run(self) -> int:
        root = Path(self._options.state).resolve()
        with _only_one(root):
            processes = Processes(root / "processes.json", say)
            if processes.clear_leftovers():
                say("A previous run was still half alive; its processes have been stopped. 已清理上次残留进程")
            layout = open_layout(root, fresh=self._options.fresh, console=self._options.port)
            for name, (wanted, chosen) in layout.moved.items():
                say(f"Port {wanted} for {name} is taken; using {chosen}. 端口 {wanted} 已被占用，改用 {chosen}")
            signal.signal(signal.SIGTERM, self._interrupted)
            signal.signal(signal.SIGINT, self._interrupted)
            try:
                return self._serve(layout, processes)
            finally:
                say("Stopping ... 正在停止")
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                processes.stop_all()

    def _interrupted(self, *_: object) -> None:
        self._stopping = True

    def _serve(self, layout: Layout, processes: Processes) -> int:
        dsn = self._start_database(layout, processes)
        self._start_broker(layout, processes)
        password = self._register(dsn)
        self._start_core(layout, processes, dsn)
        self._start_district(layout, processes)
        self._wait_for_console(layout, processes)
        self._announce(layout, password)
        self._watch(processes)
        if self._options.report is None:
            return 0
        return self._report(layout, processes, dsn)

    # -- start ----------------------------------------------------------------------------------------------------

    def _start_database(self, layout: Layout, processes: Processes) -> str:
        database = prepare(layout.root / "db")
        processes.start(
            Child(
                "database",
                database.argv,
                layout.path("log", "database.log"),
                user=database.user,
                stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
                grace_s=30,
            )
        )

        def ready() -> bool:
            try:
                psycopg.connect(database.dsn, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        self._await(ready, "database", processes, 60)
        migrate(database.dsn)
        return database.dsn

    def _start_broker(self, layout: Layout, processes: Processes) -> None:
        config = broker.write_config(layout, [(g.id, g.shard) for g in district.GATEWAYS])
        processes.start(Child("broker", [broker.binary(), "-c", str(config)], layout.path("log", "broker.log")))
        self._await(lambda: _listening(layout.ports.mqtt), "broker", processes, 30)

    def _register(self, dsn: str) -> str | None:
        """Enter gateways and devices with names and places; make the first operator."""
        from cloud.auth.service import ensure_first_operator
        from cloud.registry.enrol import enrol_device, enrol_gateway

        with psycopg.connect(dsn, autocommit=True) as conn:
            for gateway in district.GATEWAYS:
                enrol_gateway(
                    conn, gateway.id, gateway.shard, zh=gateway.zh, en=gateway.en, lon=gateway.lon, lat=gateway.lat
                )
                for device in gateway.devices:
                    enrol_device(
                        conn, device.id, gateway.id, zh=device.zh, en=device.en, lon=device.lon, lat=device.lat
                    )
            return ensure_first_operator(conn)

    def _start_core(self, layout: Layout, processes: Processes, dsn: str) -> None:
        worker = layout.path("core", "worker.toml")
        write_private(
            worker,
            f'dsn = {json.dumps(dsn)}\n\n[broker]\nurl = "mqtt://127.0.0.1:{layout.ports.mqtt}"\nusername = "core"\n'
            f"password_file = {json.dumps(str(layout.secret_path('mqtt-core')))}\n{district.cloud_scenarios()}",
        )
        core = layout.path("core", "core.toml")
        write_private(
            core,
            f'dsn = {json.dumps(dsn)}\nlisten = "127.0.0.1:{layout.ports.console}"\n'
            f"state_dir = {json.dumps(str(layout.root / 'core'))}\n",
        )
        processes.start(_python("worker", layout, "cloud", "worker", str(worker)))
        processes.start(_python("console", layout, "cloud", "serve", str(core)))

    def _start_district(self, layout: Layout, processes: Processes) -> None:
        scene = Path(os.environ.get("CITYBRAIN_ROOT", Path(__file__).parents[2])) / "firmware-sim/scenes/district.toml"
        arguments = ["sim", "run", str(scene), "--ledger", str(layout.path("sim", "ledger.jsonl"))]
        for name, value in district.scene_values(layout).items():
            arguments += ["--set", f"{name}={value}"]
        processes.start(_python("simulator", layout, *arguments))
        agents = district.write_agents(layout, self._options.camera, lane_ground(Pinhole()).as_config())
        for gateway, config in agents.items():
            processes.start(_python(f"agent {gateway}", layout, "edge", "run", str(config)))

    def _wait_for_console(self, layout: Layout, processes: Processes) -> None:
        def ready() -> bool:
            try:
                url = f"http://127.0.0.1:{layout.ports.console}/api/v1/health"
                with urllib.request.urlopen(url, timeout=2) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        self._await(ready, "console", processes, 90)
        self.to_console_s = time.monotonic() - self._started + self._setup_s

    def _await(self, ready: Callable[[], bool], name: str, processes: Processes, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not ready():
            child = processes.children[name]
            if self._stopping:
                raise KeyboardInterrupt
            if not child.running or time.monotonic() > until:
                raise StoreError(f"{name} did not start; its last words:\n{last_words(child.log)}")
            time.sleep(0.1)

    def _announce(self, layout: Layout, password: str | None) -> None:
        url = f"http://127.0.0.1:{layout.ports.console}/"
        say(f"\n  citybrain is up ({self.to_console_s:.0f} s). Console 控制台:  {url}")
        if password is not None:
            note = layout.path("secrets", "first-password")
            write_private(note, password + "\n")
            say(f"  First login 首次登录:  admin / {password}   (to be changed; also in {note})")
        else:
            say("  Log in as before. 请用原密码登录")
        say(f"  Logs 日志: {layout.path('log', 'x').parent}    Ctrl-C stops everything. 按 Ctrl-C 停止\n")

    # -- run ------------------------------------------------------------------------------------------------------

    def _watch(self, processes: Processes) -> None:
        until = time.monotonic() + self._options.seconds if self._options.seconds else float("inf")
        next_memory = 0.0
        while not self._stopping and time.monotonic() < until:
            processes.watch()
            if time.monotonic() >= next_memory:
                for name, size in processes.memory_mb().items():
                    self.memory_peak[name] = max(size, self.memory_peak.get(name, 0.0))
                next_memory = time.monotonic() + 5
            time.sleep(0.2)

    # -- end ------------------------------------------------------------------------------------------------------

    def _report(self, layout: Layout, processes: Processes, dsn: str) -> int:
        """Stop the devices, let everything on its way arrive, then count."""
        say("Devices stop; waiting for what is on its way ... 设备停止，等待在途数据")
        processes.stop("simulator")
        until = time.monotonic() + _DRAIN_S
        quiet_since: float | None = None
        while time.monotonic() < until:
            processes.watch()
            waiting = sum(
                report.outbox_totals(layout.path("edge", g.id, "state", "outbox.db"))["waiting"]
                for g in district.GATEWAYS
            )
            quiet_since = None if waiting else (quiet_since or time.monotonic())
            if quiet_since is not None and time.monotonic() - quiet_since > 2.0:
                break
            time.sleep(0.25)
        for gateway in district.GATEWAYS:
            processes.stop(f"agent {gateway.id}")
        figures = report.build(
            dsn,
            layout,
            seconds={
                "setup": self._setup_s,
                "to_console": round(self.to_console_s, 1),
                "total": round(time.monotonic() - self._started + self._setup_s, 1),
            },
            memory_mb=self.memory_peak,
            restarts={name: child.restarts for name, child in processes.children.items()},
        )
        path: Path = self._options.report
        path.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        readings = figures["totals"]["readings"]
        say(
            f"Readings {readings['produced']} produced, {readings['committed']} committed, {readings['lost']} lost,"
            f" {readings['duplicated']} duplicated; {figures['totals']['events']} events,"
            f" {figures['totals']['alarms']} alarms, {figures['totals']['cases']} cases. Report: {path}"
        )
        return 0 if report.sound(figures) else 1


def _python(name: str, layout: Layout, *arguments: str) -> Child:
    log = layout.path("log", f"{name.replace(' ', '-')}.log")
    return Child(name, [sys.executable, "-m", "citybrain_cli.main", *arguments], log)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _only_one(root: Path) -> Iterator[TextIO]:
    """Two `up` on one folder would share an outbox: the second is told so."""
    root.parent.mkdir(parents=True, exist_ok=True)
    lock = root.with_name(root.name + ".lock")
    try:
        handle = lock.open("w")
    except OSError as error:
        raise ConfigError(f"{lock}: {error.strerror}; choose a folder you may write with --state FOLDER") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"citybrain is already up on {root}; stop it first, or use another --state") from error
        yield handle
