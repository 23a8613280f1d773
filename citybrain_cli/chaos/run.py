"""A run of chaos: build the system, load it, put faults in and take them out, let it recover, compare the books."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from citybrain_cli.chaos import book as books
from citybrain_cli.chaos import plan as plans
from citybrain_cli.chaos import proof, selftest
from citybrain_cli.chaos import verdict as verdicts
from citybrain_cli.chaos.faults import FAULTS, Fault
from citybrain_cli.chaos.system import System
from citybrain_cli.chaos.watch import Watch
from citybrain_cli.proof.sensors import sensor_ledger
from citybrain_cli.up.report import outbox_totals
from protocols.core.errors import CityBrainError

_STEP_S = 0.1
_CPU_EVERY_S = 2.0
_RESTART_S = 1.0  # a process that died by itself is started again, as systemd would
_MOST_DEATHS = 200
_HOPELESS = 3  # deaths of one process before anything has been committed
_FLOWING_S = 120.0  # so long may the first commit take
_LONGEST_SETTLE_S = 300.0


@dataclass(slots=True)
class Happening:
    """One fault as it went. Seconds since the load began."""

    planned: plans.Planned
    injected_s: float | None = None
    injected_ms: int = 0  # UTC
    healed_s: float | None = None
    detail: str = ""
    error: str = ""


@dataclass(slots=True)
class Run:
    """``say`` hears one line for each thing that happens."""

    system: System
    faults: Sequence[Fault]
    seconds: float
    seed: int
    say: Callable[[str], None]
    shorten: float = 1.0
    patience_s: float = 60.0  # nothing new for so long at the end: what is not there now will not come
    happenings: list[Happening] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # faults this machine does not allow
    _begun_s: float = 0.0
    _restart_at: dict[str, float] = field(default_factory=dict)
    _next_cpu_s: float = 0.0
    _settled_s: float = 0.0

    def go(self) -> dict[str, Any]:
        """The report. Raises StoreError or ConfigError if the system cannot even be built."""
        system = self.system
        system.open()
        self.left_out = [f.kind.name for f in self.faults if f.needs_disk and system.disks[f.needs_disk] == "none"]
        self.faults = [f for f in self.faults if f.kind.name not in self.left_out]
        watch = Watch(system.dsn, [agent.gateway for agent in system.agents])
        watch.start()
        try:
            self._begun_s = time.monotonic()
            self._flow(watch)
            self._begun_s = time.monotonic()
            before = self._accepted()
            self._play()
            loaded_s = time.monotonic() - self._begun_s
            self._settle(watch)
            return self._report(watch, loaded_s, before)
        finally:
            watch.stop()

    # -- phases -----------------------------------------------------------------------------------------------------

    def _flow(self, watch: Watch) -> None:
        """Until the first readings of every gateway are committed: chaos begins in a system that works."""
        until_s = time.monotonic() + _FLOWING_S
        while not all(p.readings or p.events for p in watch.progress.values()):
            self._supervise()
            hopeless = any(len(member.deaths) >= _HOPELESS for member in self.system.members())
            if hopeless or time.monotonic() > until_s:
                words = "\n".join(f"--- {m.name}\n{m.last_words()}" for m in self.system.members())
                raise CityBrainError(f"nothing is committed after {time.monotonic() - self._begun_s:.0f} s:\n{words}")
            time.sleep(_STEP_S)
        self.say(f"flowing after {time.monotonic() - self._begun_s:.1f} s")

    def _play(self) -> None:
        kinds = [fault.kind for fault in self.faults]
        self.happenings = [
            Happening(planned) for planned in plans.make(self.seed, self.seconds, kinds, shorten=self.shorten)
        ]
        while (now_s := time.monotonic() - self._begun_s) < self.seconds:
            for happening in self.happenings:
                if happening.injected_s is None and now_s >= happening.planned.at_s:
                    self._inject(happening)
                elif (
                    happening.injected_s is not None
                    and happening.healed_s is None
                    and now_s >= happening.planned.until_s
                ):
                    self._heal(happening)
            self._supervise()
            time.sleep(_STEP_S)
        for happening in self.happenings:
            if happening.injected_s is not None and happening.healed_s is None:
                self._heal(happening)

    def _inject(self, happening: Happening) -> None:
        planned = happening.planned
        happening.injected_s = time.monotonic() - self._begun_s
        happening.injected_ms = time.time_ns() // 1_000_000
        try:
            happening.detail = FAULTS[planned.name].inject(self.system, planned) or ""
        except (CityBrainError, OSError) as error:
            happening.error = f"inject: {error}"
        words = " ".join(filter(None, (happening.detail, happening.error)))
        self.say(f"{happening.injected_s:7.1f} s  {planned.name} for {planned.length_s:.1f} s {words}")

    def _heal(self, happening: Happening) -> None:
        try:
            FAULTS[happening.planned.name].heal(self.system, happening.planned)
        except (CityBrainError, OSError) as error:
            happening.error = f"heal: {error}"
            self.say(f"          {happening.planned.name}: {happening.error}")
        happening.healed_s = time.monotonic() - self._begun_s

    def _supervise(self) -> None:
        """What died though nobody killed it is written down, and started again after a moment."""
        now_s = time.monotonic()
        for member in self.system.members():
            if member.died():
                code = member.deaths[-1][1]
                at_s = now_s - self._begun_s
                self.deaths.append(f"{at_s:.1f} s: {member.name} ended by itself (code {code})")
                self.say(f"{at_s:7.1f} s  {member.name} ended by itself (code {code}):\n{member.last_words(4)}")
                if len(self.deaths) > _MOST_DEATHS:
                    raise CityBrainError(f"{member.name} keeps ending:\n{member.last_words()}")
                self._restart_at[member.name] = now_s + _RESTART_S
            elif now_s >= self._restart_at.get(member.name, float("inf")):
                del self._restart_at[member.name]
                if not member.running:
                    member.start()
        if now_s >= self._next_cpu_s:
            self._next_cpu_s = now_s + _CPU_EVERY_S
            for member in self.system.members():
                member.count_cpu()

    def _settle(self, watch: Watch) -> None:
        """No faults, nothing new: until everything accepted is committed, or nothing moves any more."""
        for agent in self.system.agents:
            agent.produce = False
            agent.tell()
        if self.system.simulator is not None:
            self.system.simulator.stop()
        begun_s = time.monotonic()
        self.say(f"{begun_s - self._begun_s:7.1f} s  no more faults, no more load; what waits is on its way")
        while (now_s := time.monotonic()) - begun_s < _LONGEST_SETTLE_S:
            self._supervise()
            if now_s - begun_s > 1.0 and self._drained(watch):
                break
            newest_s = max((p.rises[-1] for p in watch.progress.values() if p.rises), default=0.0)
            if now_s - max(newest_s, begun_s) > self.patience_s:
                self.say("nothing moves any more")
                break
            time.sleep(5 * _STEP_S)
        self._settled_s = time.monotonic() - begun_s

    def _drained(self, watch: Watch) -> bool:
        """Everything the books call accepted has been counted by the core, and the last moment brought nothing new."""
        now_s = time.monotonic()
        for agent in self.system.agents:
            book = books.read(agent.book)
            done = watch.progress[agent.gateway]
            if done.readings + done.thinned < book.readings or done.events < book.events:
                return False
            if done.rises and now_s - done.rises[-1] < 2.0:
                return False
        # Commits in doubt that were kept stand in for some still under way: where the outbox can be read, it is asked.
        return not any(outbox_totals(agent.folder / "outbox.db")["waiting"] for agent in self.system.targets())

    # -- the end ----------------------------------------------------------------------------------------------------

    def _accepted(self) -> tuple[int, int]:
        """Readings and events that all outboxes have accepted so far."""
        read = [books.read(agent.book) for agent in self.system.agents]
        return sum(book.readings for book in read), sum(book.events for book in read)

    def _report(self, watch: Watch, loaded_s: float, before: tuple[int, int]) -> dict[str, Any]:
        system = self.system
        packets = system.packets()
        for member in system.members():
            member.count_cpu()
        for agent in system.targets():
            agent.member.stop()
        begun_s = time.monotonic()
        with psycopg.connect(system.dsn, autocommit=True) as conn:
            read = [books.read(agent.book) for agent in system.agents]
            if not all(book.series for book in read):
                raise CityBrainError("an agent has written no book: nothing can be compared")
            found = [verdicts.check(conn, book) for book in read]
            smallest = min(range(len(read)), key=lambda n: read[n].readings)
            named = selftest.run(conn, read[smallest], found[smallest])
            proofs = [proof.run(conn, system.dsn, a.gateway, a.folder / "outbox.db") for a in system.targets()]
            stations = sensor_ledger(conn, system.stations.book) if system.stations is not None else None
            letters = conn.execute("select reason, count(*) from dead_letter group by reason").fetchall()
        read_s = time.monotonic() - begun_s
        own = os.times()
        sound = all(one.sound for one in found) and not letters and not any(h.error for h in self.happenings)
        sound = sound and not (stations and stations["uploads_lost"])
        sound = sound and all(named.values()) and all(one["sound"] for one in proofs)
        accepted = {
            "readings": sum(one.accepted_readings for one in found),
            "events": sum(one.accepted_events for one in found),
        }
        return {
            "what": "faults into a loaded system; afterwards the sources' own books against the rows",
            "verdict": "sound" if sound else "broken",
            "seed": self.seed,
            "minutes": round(loaded_s / 60, 2),
            "load": {
                "asked_per_s": {"readings": system.load.readings, "events": system.load.events},
                "accepted": accepted,
                "accepted_per_s": {
                    "readings": round((accepted["readings"] - before[0]) / loaded_s),
                    "events": round((accepted["events"] - before[1]) / loaded_s),
                },
                "agents": system.load.agents,
                "workers": system.load.workers,
                "agent_command": system.load.command or "our outbox and uplink",
            },
            "site": {
                "network": system.site.network,
                "disks": system.disks,
                "cores": os.cpu_count(),
                "faults_left_out": self.left_out,
            },
            "totals": _totals(found),
            "gateways": [one.summary() for one in found],
            "stations": stations,
            "proof": proofs,
            "spoiled_rows_are_named": named,
            "dead_letters": {str(reason): int(count) for reason, count in letters},
            "ended_by_themselves": self.deaths,
            "faults": [self._told(happening, watch, read) for happening in self.happenings],
            "settled_s": round(self._settled_s, 1),
            "rows_read_s": round(read_s, 1),
            "packets": packets,
            "cpu_s": {
                **{member.name: round(member.cpu_s, 1) for member in system.members()},
                "harness": round(own.user + own.system, 1),
                "link": round(system.way_cpu_s(), 1),
            },
        }

    def _told(self, happening: Happening, watch: Watch, read: Sequence[books.Book]) -> dict[str, Any]:
        """``resumed_s``: from the heal to the next commit of the slowest gateway; ``still_s``: longest standstill;
        ``noticed_s``: until the slowest agent filed what it made as backlog; none if it healed before."""
        planned = happening.planned
        out: dict[str, Any] = {
            "fault": planned.name,
            "at_s": planned.at_s,
            "length_s": planned.length_s,
            "detail": happening.detail,
            "expected": FAULTS[planned.name].expect,
        }
        if happening.error:
            out["error"] = happening.error
        if planned.target == "network":
            noticed = [books.noticed_s(book, happening.injected_ms) for book in read]
            known_s = [one for one in noticed if one is not None and one <= planned.length_s]
            out["noticed_s"] = round(max(known_s), 1) if len(known_s) == len(read) else None
        if happening.healed_s is not None and happening.injected_s is not None:
            from_s, heal_s = self._begun_s + happening.injected_s, self._begun_s + happening.healed_s
            after = [progress.first_rise_after(heal_s) for progress in watch.progress.values()]
            known = [at_s - heal_s for at_s in after if at_s is not None]
            out["resumed_s"] = round(max(known), 1) if known and len(known) == len(after) else None
            until_s = heal_s + (max(known) if known else 0.0)
            out["still_s"] = round(max(p.longest_gap(from_s, until_s) for p in watch.progress.values()), 1)
        return out


def _totals(found: Sequence[verdicts.Verdict]) -> dict[str, int]:
    out: dict[str, int] = {}
    for one in found:
        summary = one.summary()
        for name, value in summary.items():
            if isinstance(value, int) and not isinstance(value, bool):
                out[name] = out.get(name, 0) + value
        for side in ("accepted", "committed"):
            for kind, value in summary[side].items():
                out[f"{side}_{kind}"] = out.get(f"{side}_{kind}", 0) + value
    return out
