"""Keeps one broker's rules in step with the registry: `citybrain cloud broker-rules --watch`, a process beside it.

```
 registry ── notice or every 5 s ──▶ Access (in memory) ─▶ NATS: answers the authorization call
                                        │                └▶ Mosquitto, EMQX: files, then SIGHUP
                                        └▶ revoked: end the live session, after the rules that keep it out
```
While the database is away the last table serves on. A revoked gateway is out within seconds of the notice; a notice
that got lost costs ``poll_s``. No broker says when it has read its files: a session is ended at once, and once more
with the next look, in case it came back in between. So too in a cluster, where the guard of another node may not have
looked yet: any guard answers for any node, and each ends sessions wherever they are.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from cloud.identity import access as registry
from cloud.identity.access import CHANNEL, Access
from cloud.identity.broker import emqx, files, mosquitto, nats
from cloud.identity.broker.callout import Callout, Decider
from cloud.identity.broker.cluster import ROUTE_USER, Shared
from cloud.identity.broker.config import BrokerConfig, load
from cloud.identity.broker.kick import CoreDoor, kick
from cloud.identity.broker.nkeys import AccountKey
from cloud.identity.ca import LocalCa
from cloud.identity.names import CALLOUT_USER, CORE_USER
from cloud.identity.signer import passphrase
from protocols.core.errors import LinkRefused, StoreError, TransportError

__all__ = ["Guard", "load", "write_once"]

log = logging.getLogger("citybrain.cloud.identity")

_TOGETHER_S = 0.5
_CRL_DAYS = 30.0
_CRL_AGAIN_S = 86_400.0


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Rules:
    """One broker's files. Not thread-safe; one thread writes."""

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self.out = Path(config.out)
        self.out.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._ca = LocalCa(Path(config.ca_dir), passphrase(config.ca_passphrase_file))
        shared = Shared(Path(config.cluster.secret_file)) if config.cluster is not None else None
        self._shared = shared.passwords(CORE_USER, CALLOUT_USER, ROUTE_USER) if shared is not None else {}
        self.key: AccountKey | None = None
        if config.kind == "nats":
            own = self.out / "callout.key"
            self.key = AccountKey(shared.key("answers")) if shared is not None else AccountKey.open(own)
        self._crl: tuple[frozenset[str], dt.datetime, str] | None = None

    def write(self, access: Access, now: dt.datetime) -> list[Path]:
        """Everything that is not as it should be; returns what was written."""
        cluster = self._config.cluster
        written = files.certificates(self._ca, self.out, self._config.hosts, now, cluster.host if cluster else "")
        written += files.write_changed(self.out, {f"{name}-password": text for name, text in self._shared.items()})
        written += files.write_changed(self.out, self._texts(access, now))
        (self.out / self._config.store_dir).mkdir(exist_ok=True, mode=0o700)
        if written:
            files.hand_over(self.out, self._config.user)
        return written

    def _texts(self, access: Access, now: dt.datetime) -> dict[str, str]:
        if self.key is not None:
            users = (CORE_USER, CALLOUT_USER, *([ROUTE_USER] if self._shared else []))
            passwords = {name: files.password(self.out, name) for name in users}
            return nats.files(self._config, self.out, self.key.public, passwords)
        make = mosquitto.files if self._config.kind == "mosquitto" else emqx.files
        return make(self._config, self.out, access, self._revoked(access, now))

    def _revoked(self, access: Access, now: dt.datetime) -> str:
        """The list is signed anew when its content changes, and once a day so that it never ends."""
        serials = frozenset(access.revoked)
        if self._crl is None or self._crl[0] != serials or (now - self._crl[1]).total_seconds() > _CRL_AGAIN_S:
            self._crl = (serials, now, self._ca.crl(sorted(access.revoked.items()), now, _CRL_DAYS))
        return self._crl[2]


def write_once(config: BrokerConfig, now: dt.datetime) -> list[Path]:
    """Files as the registry is now. Raises StoreError, ConfigError."""
    return Guard(config, now=lambda: now).write_now()


class Guard:
    """:meth:`run` until ``stop`` is set. ``access`` is the table in force."""

    def __init__(self, config: BrokerConfig, *, now: Callable[[], dt.datetime] = utc_now) -> None:
        self._config = config
        self._now = now
        self._rules = Rules(config)
        self.access = Access()
        self.decider = Decider(self._rules.key, lambda: self.access) if self._rules.key is not None else None
        self.callout_ready = threading.Event()
        self.kicked: list[str] = []
        self._first_kick_s: dict[str, float] = {}  # in a cluster: gateway to when we ended its session first

    def write_now(self) -> list[Path]:
        """Files as the registry is now, for a broker that starts after us. Raises StoreError."""
        try:
            with psycopg.connect(self._config.dsn, autocommit=True) as conn:
                self.access = registry.load(conn)
        except psycopg.OperationalError as error:
            raise StoreError(f"database: {error}") from error
        return self._rules.write(self.access, self._now())

    def run(self, stop: threading.Event) -> None:
        """Raises ConfigError for a wrong set-up; a database or broker that is away is waited for."""
        answering = threading.Thread(target=self._answer, args=(stop,), name="callout", daemon=True)
        if self.decider is not None:
            self._rules.write(self.access, self._now())
            answering.start()
        delay_s = 0.2
        while not stop.is_set():
            try:
                with psycopg.connect(
                    self._config.dsn, autocommit=True, application_name="citybrain-broker-guard"
                ) as conn:
                    conn.execute(f"listen {CHANNEL}")
                    delay_s = 0.2
                    while not stop.is_set():
                        self._step(conn)
                        self._wait(conn, stop)
            except psycopg.OperationalError as error:
                log.warning("database lost, the rules stay as they are: %s", str(error).strip().splitlines()[0])
                stop.wait(delay_s)
                delay_s = min(2 * delay_s, 5.0)
        if answering.is_alive():
            answering.join(10)

    def _wait(self, conn: Connection[TupleRow], stop: threading.Event) -> None:
        """Until a notice comes, ``poll_s`` are over, or we are to stop."""
        until = time.monotonic() + self._config.poll_s
        while not stop.is_set() and time.monotonic() < until:
            for _ in conn.notifies(timeout=0.25, stop_after=1):
                # A thousand that enrol at once are one change: whatever comes within this moment is read together.
                until = min(until, time.monotonic() + _TOGETHER_S)

    def _step(self, conn: Connection[TupleRow]) -> None:
        self.access = access = registry.load(conn)
        written = self._rules.write(access, self._now())
        if written:
            log.info("broker rules: %s", ", ".join(path.name for path in written))
            self._reload()
        self._first_kick_s = {name: at for name, at in self._first_kick_s.items() if name in access.kick}
        for gateway in access.kick:
            try:
                kick(self._door(), gateway)
            except TransportError as error:
                log.warning("the session of %s is not ended yet: %s", gateway, error)
                return
            self.kicked.append(gateway)
            if not written and self._all_have_looked(gateway):
                registry.kicked(conn, gateway)
            log.info("the session of %s was ended", gateway)

    def _all_have_looked(self, gateway: str) -> bool:
        """Whether no guard can still let it in by an older table."""
        if self._config.cluster is None:
            return True
        now_s = time.monotonic()
        return now_s - self._first_kick_s.setdefault(gateway, now_s) >= self._config.poll_s

    def _door(self) -> CoreDoor:
        """The broker's own machine: the name in its certificate that is ours, else the first."""
        config = self._config
        host, _, port = (config.listen if config.kind == "nats" else config.core_listen).rpartition(":")
        if host in ("0.0.0.0", "[::]", "") or host not in config.hosts:  # noqa: S104 - compared, not bound
            host = next((name for name in config.hosts if name in ("127.0.0.1", "localhost")), config.hosts[0])
        password = files.password(self._rules.out, CORE_USER) if config.kind == "nats" else ""
        return CoreDoor(host, int(port), self._rules.out / "root.pem", self._rules.out / "core.pem", password)

    def _reload(self) -> None:
        """Make the broker read its files again."""
        if self._config.reload_command:
            try:
                subprocess.run(self._config.reload_command, check=True, timeout=30, capture_output=True)
            except (OSError, subprocess.SubprocessError) as error:
                log.error("the broker was not told to read its rules: %s", error)
        elif self._config.reload_pid_file:
            try:
                os.kill(int(Path(self._config.reload_pid_file).read_text()), signal.SIGHUP)
            except (OSError, ValueError) as error:
                log.error("the broker was not told to read its rules: %s", error)

    def _answer(self, stop: threading.Event) -> None:
        asyncio.run(self._serve_callout(stop))

    async def _serve_callout(self, stop: threading.Event) -> None:
        assert self.decider is not None  # noqa: S101 - started for NATS alone
        password = files.password(self._rules.out, CALLOUT_USER)
        lost = False
        heard_s = time.monotonic()
        while not stop.is_set():
            callout = Callout(f"nats://{self._config.nats_listen}", password, self.decider, time.time)
            serving = asyncio.create_task(callout.run())
            while not serving.done():
                if callout.ready.is_set():
                    heard_s = time.monotonic()
                if callout.ready.is_set() and not self.callout_ready.is_set():
                    log.info("answering the broker at %s", self._config.nats_listen)
                    self.callout_ready.set()
                    lost = False
                await asyncio.wait([serving], timeout=0.1)
                if stop.is_set():
                    serving.cancel()
            self.callout_ready.clear()
            try:
                await serving
            except (TransportError, asyncio.CancelledError) as error:
                if not lost and not stop.is_set():
                    log.warning("no way to the broker: %s", error)
                    lost = True
                if 0 < self._config.end_when_lost_s < time.monotonic() - heard_s:
                    log.error("the broker has been away for %g s: ending", self._config.end_when_lost_s)
                    stop.set()
                    return
                await asyncio.sleep(5.0 if isinstance(error, LinkRefused) else 0.5)
