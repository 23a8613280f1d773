"""The system under test: embedded database, broker, ingest workers, agents, and the way between them.

```
 agents (load source, or somebody's own) ──▶ cable or proxy ──▶ broker ──▶ workers ──▶ PostgreSQL
   field: namespace and disk of their own      weather              city: namespace and disk of its own
```
Everything is real and lives below one folder; nothing listens outside loopback or the namespaces made here.
"""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
import psycopg

from citybrain_cli.chaos import devices, link
from citybrain_cli.chaos import site as sites
from citybrain_cli.chaos.members import Member, dying_with_us
from citybrain_cli.up import broker
from citybrain_cli.up.layout import Layout, open_layout
from cloud.registry.enrol import enrol_gateway
from cloud.store.embedded import prepare
from cloud.store.migrate import migrate
from protocols.core.errors import ConfigError, StoreError

_READY_S = 60.0
_ANSWER_S = 10.0
_AGENT_DISK_BYTES = 1 << 30
_SHARDS = 64
_DEVICES = ("chaos-devices", 40)


@dataclass(frozen=True, slots=True)
class Load:
    """Of all agents together, a second. ``command``: somebody else's agent, started with the source's arguments."""

    readings: float = 20_000
    events: float = 1_000
    agents: int = 2
    workers: int = 2
    command: str = ""
    every_s: float = 0.1  # from commit to commit of our own source
    devices: bool = True  # beside our own sources: the real agent with simulated stations


@dataclass(slots=True)
class Agent:
    """One gateway: its process, its folder on the field's disk, its book and its control file outside of it."""

    gateway: str
    shard: int
    member: Member
    folder: Path
    book: Path
    control: Path
    clock_offset_ms: int = 0
    produce: bool = True

    def tell(self) -> None:
        """Write the control file anew."""
        wanted = {"produce": self.produce, "clock_offset_ms": self.clock_offset_ms}
        draft = self.control.with_suffix(".new")
        draft.write_text(json.dumps(wanted))
        draft.rename(self.control)


class Way:
    """The cable or the proxy: a helper process that obeys one JSON line at a time."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self._log: IO[bytes] = log.open("ab")
        self.process = subprocess.Popen(
            [*dying_with_us(), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise StoreError("the link's process has no pipes")
        self._in, self._out = self.process.stdin, self.process.stdout
        self._hear(log)

    def tell(self, **what: object) -> dict[str, Any]:
        """Raises StoreError if it refuses or is gone."""
        try:
            self._in.write(json.dumps(what).encode() + b"\n")
            self._in.flush()
        except OSError as error:
            raise StoreError(f"the link's process is gone: {error}") from error
        return self._hear(None)

    def _hear(self, log: Path | None) -> dict[str, Any]:
        line = self._out.readline()
        answer = json.loads(line) if line else {"error": log.read_text()[-500:] if log else "it has ended"}
        if "error" in answer:
            raise StoreError(f"the link: {answer['error']}")
        return dict(answer)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@dataclass(slots=True)
class System:
    """``open`` builds and starts all of it; ``close`` leaves nothing behind but the folder."""

    root: Path
    load: Load
    site: sites.Site
    seed: int
    layout: Layout = field(init=False)
    database: Member = field(init=False)
    broker: Member = field(init=False)
    workers: list[Member] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)  # sources with a book
    stations: Agent | None = None  # the real agent; its book is the simulator's ledger
    simulator: Member | None = None
    dsn: str = ""
    disks: dict[str, str] = field(default_factory=dict)  # which disk -> ext4 image | tmpfs | none
    _way: Way | None = None
    _field: subprocess.Popen[bytes] | None = None
    _data: Path = field(init=False)
    _host: str = "127.0.0.1"  # where the broker listens
    _door: int = 0  # the port that agents are told
    _mounted: list[Path] = field(default_factory=list)

    def open(self) -> None:
        """Raises StoreError or ConfigError."""
        self.root.chmod(0o755)  # the database runs under an account of its own where we are root
        self.layout = open_layout(self.root / "system", fresh=False)
        self.layout.root.joinpath("books").mkdir()
        self._open_disks()
        self._open_database()
        self._open_way_and_broker()
        for number in range(self.load.workers):
            self.workers.append(self._worker(number))
        for number in range(self.load.agents):
            self.agents.append(self._agent(number))
        for member in (*self.workers, *(agent.member for agent in self.agents)):
            member.start()
        if self._with_devices():
            self._open_devices()

    def members(self) -> Iterator[Member]:
        yield self.database
        yield self.broker
        yield from self.workers
        for agent in self.targets():
            yield agent.member
        if self.simulator is not None:
            yield self.simulator

    def targets(self) -> list[Agent]:
        """Agents that may be killed, the real one among them."""
        return [*self.agents, *([self.stations] if self.stations is not None else [])]

    def close(self) -> None:
        """Kill what is left; in this order nobody fills a log with complaints about the others."""
        if self.simulator is not None:
            self.simulator.kill()
        for member in [*(agent.member for agent in self.targets()), *self.workers]:
            member.kill()
        for name in ("broker", "database"):
            if hasattr(self, name):
                getattr(self, name).kill()
        if self._way is not None:
            self._way.end()
        if self._field is not None:
            self._field.kill()
            self._field.wait()
        for folder in self._mounted:
            sites.unmount(folder)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _open_disks(self) -> None:
        for name, size in (("field", _AGENT_DISK_BYTES), ("database", 16 << 30)):
            folder = self.root / f"disk-{name}"
            kind = "none"
            if self.site.disks != "none":
                kind = sites.mount_disk(self.root / f"disk-{name}.img", folder, size)
            else:
                folder.mkdir()
                folder.chmod(0o755)
            if kind != "none":
                self._mounted.append(folder)
            self.disks[name] = kind

    def disk(self, name: str) -> Path:
        """``field`` or ``database``."""
        return self.root / f"disk-{name}"

    def _open_database(self) -> None:
        embedded = prepare(self.disk("database") / "pg")
        self._data, self.dsn = embedded.data, embedded.dsn
        self.database = Member(
            "database",
            embedded.argv,
            self.layout.path("log", "database.log"),
            user=embedded.user,
            stop_signal=signal.SIGINT,
            before_start=lambda: (self._data / "postmaster.pid").unlink(missing_ok=True),  # as after a reboot
        )
        self.database.start()
        self.wait_for_database()
        migrate(self.dsn)
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            for gateway, shard in self._gateways():
                enrol_gateway(conn, gateway, shard, zh=f"混沌{gateway}", en=gateway, lon=117.27, lat=31.86)

    def wait_for_database(self) -> None:
        until_s = time.monotonic() + _READY_S
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > until_s or not self.database.running:
                    raise StoreError(f"the database does not start: {error}\n{self.database.last_words()}") from error
                time.sleep(0.1)
            else:
                return

    def _gateways(self) -> list[tuple[str, int]]:
        sources = [(f"chaos-{n}", (7 + 16 * n) % _SHARDS) for n in range(self.load.agents)]
        return [*sources, *([_DEVICES] if self._with_devices() else [])]

    def _with_devices(self) -> bool:
        return self.load.devices and not self.load.command

    def _open_devices(self) -> None:
        """The real agent and its stations, both in the field."""
        gateway, shard = _DEVICES
        folder = self.disk("field") / gateway
        folder.mkdir()
        scene, config = self.layout.path("sim", "scene.toml"), self.layout.path("sim", "agent.toml")
        ledger = self.layout.path("sim", "ledger.jsonl")
        port = _free_port()
        devices.write_scene(scene, port)
        secret = self.layout.secret_path(f"mqtt-{gateway}")
        devices.write_agent(config, port, gateway, shard, f"mqtt://{self._host}:{self._door}", secret, folder)
        command = [*self.into_the_field(), sys.executable, "-m", "citybrain_cli.main"]
        agent = Member(gateway, [*command, "edge", "run", str(config)], self.layout.path("log", f"{gateway}.log"))
        self.stations = Agent(gateway, shard, agent, folder, ledger, self.layout.path("control", f"{gateway}.json"))
        argv = [*command, "sim", "run", str(scene), "--ledger", str(ledger)]
        self.simulator = Member("simulator", argv, self.layout.path("log", "simulator.log"))
        agent.start()
        self.simulator.start()

    def _open_way_and_broker(self) -> None:
        mqtt = self.layout.ports.mqtt
        config = broker.write_config(self.layout, self._gateways())
        self._door = mqtt
        if self.site.network == "namespaces":
            self._field = subprocess.Popen([*dying_with_us(), "unshare", "--net", "sleep", "infinity"])
            self._wait_for_namespace(self._field.pid)
            argv = [sys.executable, "-m", "citybrain_cli.chaos.link", "--field", str(self._field.pid)]
            self._way = Way([*argv, "--seed", str(self.seed)], self.layout.path("log", "link.log"))
            self._host = link.CITY
            text = config.read_text(encoding="utf-8")
            here, there = f"listen: 127.0.0.1:{mqtt}", f"listen: {link.CITY}:{mqtt}"
            if here not in text:
                raise ConfigError(f"{config} does not say {here!r}: the broker cannot be put behind the cable")
            config.write_text(text.replace(here, there), encoding="utf-8")
        else:
            self._door = _free_port()
            argv = [sys.executable, "-m", "citybrain_cli.chaos.proxy", "--listen", str(self._door), "--to", str(mqtt)]
            self._way = Way([*argv, "--seed", str(self.seed)], self.layout.path("log", "proxy.log"))
        self.broker = Member("broker", [broker.binary(), "-c", str(config)], self.layout.path("log", "broker.log"))
        self.broker.start()
        self._wait_for_broker(mqtt)

    def _wait_for_namespace(self, pid: int) -> None:
        ours = Path("/proc/self/ns/net").readlink()
        until_s = time.monotonic() + _ANSWER_S
        while Path(f"/proc/{pid}/ns/net").readlink() == ours:
            if time.monotonic() > until_s:
                raise StoreError("no network namespace for the field")
            time.sleep(0.02)

    def _wait_for_broker(self, port: int) -> None:
        until_s = time.monotonic() + _READY_S
        while True:
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex((self._host, port)) == 0:
                    return
            if time.monotonic() > until_s or not self.broker.running:
                raise StoreError(f"the broker does not start:\n{self.broker.last_words()}")
            time.sleep(0.05)

    @property
    def broker_store(self) -> Path:
        return self.layout.path("broker", "store")

    def _worker(self, number: int) -> Member:
        config = self.layout.path("core", f"worker-{number}.toml")
        config.write_text(
            f'dsn = {json.dumps(self.dsn)}\n[broker]\nurl = "mqtt://{self._host}:{self.layout.ports.mqtt}"\n'
            f'username = "core"\npassword_file = {json.dumps(str(self.layout.secret_path("mqtt-core")))}\n'
        )
        argv = [sys.executable, "-m", "citybrain_cli.main", "cloud", "worker", str(config)]
        return Member(f"worker-{number}", argv, self.layout.path("log", f"worker-{number}.log"))

    def _agent(self, number: int) -> Agent:
        gateway, shard = self._gateways()[number]
        folder = self.disk("field") / gateway
        folder.mkdir()
        book = self.layout.path("books", f"{gateway}.jsonl")
        control = self.layout.path("control", f"{gateway}.json")
        command = shlex.split(self.load.command) or [sys.executable, "-m", "citybrain_cli.chaos.source"]
        argv = [
            *self.into_the_field(), *command,
            "--gateway", gateway, "--shard", str(shard), "--url", f"mqtt://{self._host}:{self._door}",
            "--password-file", str(self.layout.secret_path(f"mqtt-{gateway}")),
            "--folder", str(folder), "--book", str(book), "--control", str(control),
            "--readings", str(self.load.readings / self.load.agents),
            "--events", str(self.load.events / self.load.agents),
        ]  # fmt: skip
        if not self.load.command:
            argv += ["--every", str(self.load.every_s)]
        member = Member(gateway, argv, self.layout.path("log", f"{gateway}.log"))
        agent = Agent(gateway, shard, member, folder, book, control)
        agent.tell()
        return agent

    @property
    def host(self) -> str:
        """Address of the city, as its own processes and (over the cable) the field's see it."""
        return self._host

    def into_the_field(self) -> list[str]:
        """Prefix of a command that is to run on the agents' side of the cable."""
        return ["nsenter", f"--net=/proc/{self._field.pid}/ns/net"] if self._field is not None else []

    # -- the way ----------------------------------------------------------------------------------------------------

    def weather(self, *, loss: float = 0.0, delay_s: float = 0.0, swallow: bool = False, cut: bool = False) -> None:
        """Of the way between field and city. A cut takes the field's network device down (or the proxy's port away)."""
        if self._way is None:
            raise StoreError("there is no way yet")
        if self.site.network == "namespaces":
            state = "down" if cut else "up"
            done = subprocess.run(
                [*self.into_the_field(), "ip", "link", "set", link.FIELD_DEVICE, state],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise StoreError(f"the field's device does not go {state}: {done.stderr.strip()}")
            self._way.tell(loss=loss, delay_s=delay_s, swallow=swallow or cut)
        else:
            self._way.tell(loss=loss, delay_s=delay_s, swallow=swallow, cut=cut)

    def way_cpu_s(self) -> float:
        """CPU of the cable's or the proxy's process so far."""
        if self._way is None:
            return 0.0
        times = psutil.Process(self._way.process.pid).cpu_times()
        return float(times.user + times.system)

    def packets(self) -> dict[str, Any]:
        """What the way has passed and lost."""
        return self._way.tell(ask="counts") if self._way is not None else {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
