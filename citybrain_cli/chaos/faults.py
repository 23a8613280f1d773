"""The faults: how each is put in, how it is taken away, and what may be missing afterwards because of it.

None of those here excuses a loss: everything an outbox has accepted must be in the database in the end. A fault is put
in at its time and healed after its length, both without waiting for the system, which must find its way by itself.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from citybrain_cli.chaos import site, tear
from citybrain_cli.chaos.members import Member
from citybrain_cli.chaos.plan import Kind, Planned
from citybrain_cli.chaos.system import Agent, System
from protocols.core.errors import ConfigError

Act = Callable[[System, Planned], str | None]

CLOCK_STEPS_MS = (-2_000, 3_600_000, -3_600_000, 45_000)


@dataclass(frozen=True, slots=True)
class Fault:
    """``expect``: what is allowed to be seen, in words. ``needs_disk``: a disk of our own that can be filled."""

    kind: Kind
    zh: str
    expect: str
    inject: Act
    heal: Act
    needs_disk: str = ""


def _agent(system: System, planned: Planned) -> Agent:
    targets = system.targets()
    return targets[planned.pick % len(targets)]


def _source(system: System, planned: Planned) -> Agent:
    return system.agents[planned.pick % len(system.agents)]


def _worker(system: System, planned: Planned) -> Member:
    return system.workers[planned.pick % len(system.workers)]


def _of(target: str) -> Callable[[System, Planned], Member]:
    return {
        "agent": lambda system, planned: _agent(system, planned).member,
        "worker": _worker,
        "broker": lambda system, _: system.broker,
        "database": lambda system, _: system.database,
    }[target]


def _kill(target: str) -> tuple[Act, Act]:
    member = _of(target)

    def inject(system: System, planned: Planned) -> str:
        one = member(system, planned)
        one.kill()
        return one.name

    def heal(system: System, planned: Planned) -> None:
        one = member(system, planned)
        if not one.running:
            one.start()

    return inject, heal


def _pause(target: str) -> tuple[Act, Act]:
    member = _of(target)

    def inject(system: System, planned: Planned) -> str:
        one = member(system, planned)
        one.freeze()
        return one.name

    def heal(system: System, planned: Planned) -> None:
        member(system, planned).thaw()

    return inject, heal


def _weather(**what: float | bool) -> tuple[Act, Act]:
    def inject(system: System, _planned: Planned) -> None:
        system.weather(**what)  # type: ignore[arg-type]

    def heal(system: System, _planned: Planned) -> None:
        system.weather()

    return inject, heal


def _wipe_broker(system: System, _planned: Planned) -> str:
    system.broker.kill()
    shutil.rmtree(system.broker_store, ignore_errors=True)
    return "its store is gone"


def _start_broker(system: System, _planned: Planned) -> None:
    if not system.broker.running:
        system.broker.start()


def _stop_database(system: System, _planned: Planned) -> None:
    system.database.stop()


def _start_database(system: System, _planned: Planned) -> None:
    if not system.database.running:
        system.database.start()


def _power_cut(system: System, planned: Planned) -> str:
    agent = _agent(system, planned)
    agent.member.kill()
    return f"{agent.gateway}: {tear.tail(agent.folder / 'outbox.db', planned.amount)}"


def _start_agent(system: System, planned: Planned) -> None:
    agent = _agent(system, planned)
    if not agent.member.running:
        agent.member.start()


def _fill(disk: str) -> tuple[Act, Act]:
    def inject(system: System, _planned: Planned) -> str:
        ballast = site.fill(system.disk(disk))
        return f"{ballast.stat().st_size >> 20} MB of ballast"

    def heal(system: System, _planned: Planned) -> None:
        (system.disk(disk) / "ballast").unlink(missing_ok=True)

    return inject, heal


def _step_clock(system: System, planned: Planned) -> str:
    agent = _source(system, planned)
    agent.clock_offset_ms = CLOCK_STEPS_MS[int(planned.amount * len(CLOCK_STEPS_MS)) % len(CLOCK_STEPS_MS)]
    agent.tell()
    return f"{agent.gateway}: {agent.clock_offset_ms:+d} ms"


def _lose_clock(system: System, planned: Planned) -> str:
    agent = _source(system, planned)
    agent.clock_offset_ms = -(time.time_ns() // 1_000_000)  # it begins at 0 and goes on, as one without a battery does
    agent.tell()
    return f"{agent.gateway}: 1970"


def _set_clock(system: System, planned: Planned) -> None:
    agent = _source(system, planned)
    agent.clock_offset_ms = 0
    agent.tell()


_NOTHING = "nothing is missing, doubled or out of order"


def _fault(
    name: str, target: str, length_s: tuple[float, float], zh: str, acts: tuple[Act, Act], needs_disk: str = ""
) -> Fault:
    return Fault(Kind(name, target, length_s), zh, _NOTHING, acts[0], acts[1], needs_disk)


_ALL = (
    _fault("agent-kill", "agent", (0.5, 4), "杀死网关程序", _kill("agent")),
    _fault("agent-pause", "agent", (2, 12), "网关程序停住", _pause("agent")),
    _fault("power-cut", "agent", (1, 4), "网关断电，写到一半", (_power_cut, _start_agent)),
    _fault("agent-disk-full", "agent", (3, 8), "网关磁盘写满", _fill("field"), "field"),
    _fault("broker-kill", "broker", (0.5, 5), "杀死消息服务器", _kill("broker")),
    _fault("broker-pause", "broker", (2, 12), "消息服务器停住", _pause("broker")),
    _fault("broker-wiped", "broker", (1, 4), "消息服务器磁盘清空", (_wipe_broker, _start_broker)),
    _fault("worker-kill", "worker", (1, 10), "杀死接入进程", _kill("worker")),
    _fault("worker-pause", "worker", (2, 12), "接入进程停住", _pause("worker")),
    _fault("database-kill", "database", (1, 5), "杀死数据库", _kill("database")),
    _fault("database-pause", "database", (2, 10), "数据库停住", _pause("database")),
    _fault("database-restart", "database", (1, 4), "数据库重启", (_stop_database, _start_database)),
    _fault("database-disk-full", "database", (3, 8), "数据库磁盘写满", _fill("database"), "database"),
    _fault("net-cut", "network", (2, 15), "断网", _weather(cut=True)),
    _fault("black-hole", "network", (5, 20), "黑洞：连接还在，包全丢", _weather(swallow=True)),
    _fault("loss-delay", "network", (5, 20), "丢包 20 %，延时 500 ms", _weather(loss=0.2, delay_s=0.25)),
    _fault("clock-step", "clock", (3, 10), "网关时钟跳变", (_step_clock, _set_clock)),
    _fault("clock-lost", "clock", (3, 10), "网关时钟回到 1970 年", (_lose_clock, _set_clock)),
)
FAULTS: Mapping[str, Fault] = {fault.kind.name: fault for fault in _ALL}


def choose(names: str) -> list[Fault]:
    """``all``, or names with commas between. Raises ConfigError naming what there is."""
    if names == "all":
        return list(_ALL)
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in FAULTS:
            raise ConfigError(f"no fault {name!r}; there are all, {', '.join(FAULTS)}")
    return [FAULTS[name] for name in dict.fromkeys(wanted)]
