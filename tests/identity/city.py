"""A city with an authority: the real web process over TLS, the real guard beside a real broker, gateways by label.

```
 Web (HTTPS, enrolment) ─┐
 Guarded (broker + guard) ┼─ PostgreSQL
 gateways: files of their own, made by the code that runs in the field
```
"""

from __future__ import annotations

import datetime as dt
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psycopg
import pytest
import uvicorn
from paho.mqtt.enums import CallbackAPIVersion

from citybrain_cli.up.broker import binary
from cloud.app import create_app
from cloud.config import Settings
from cloud.identity import claims
from cloud.identity.broker.config import BrokerConfig
from cloud.identity.broker.guard import Guard
from cloud.identity.ca import LocalCa, write_private
from cloud.identity.codes import label_text
from cloud.identity.config import IdentitySettings
from cloud.updates.config import UpdatesSettings
from edge.identity.enrol import Enrolled, enrol, read_label
from edge.identity.files import IdentityFiles
from tests.fixtures.broker import _free_ports
from tests.fixtures.process import Server
from tests.fixtures.wait import until

MOSQUITTO = Path("/usr/sbin/mosquitto")


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Web:
    """The core's web process as gateways see it, on a port of its own."""

    def __init__(self, dsn: str, root: Path, *, updates: UpdatesSettings | None = None, **identity: Any) -> None:
        self.dsn = dsn
        self.root = root
        self.port = _free_ports(1)[0]
        self.url = f"https://localhost:{self.port}"
        self.identity = IdentitySettings(broker_url="mqtts://localhost:8883", public_url=self.url, **identity)
        self.ca = LocalCa.create(root / "ca", "Test city", utc_now())
        key, issued = self.ca.issue_server(["localhost", "127.0.0.1"], utc_now())
        write_private(root / "web.key", key)
        write_private(root / "web.pem", issued.pem.encode())
        self.settings = Settings(
            dsn=dsn, state_dir=str(root), console=False, listen=f"127.0.0.1:{self.port}",
            tls_cert=str(root / "web.pem"), tls_key=str(root / "web.key"), identity=self.identity,
            updates=updates,
        )  # fmt: skip
        self.app = create_app(self.settings)
        config = uvicorn.Config(
            self.app, host="127.0.0.1", port=self.port, log_level="warning", timeout_graceful_shutdown=1,
            ssl_certfile=self.settings.tls_cert, ssl_keyfile=self.settings.tls_key,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Web:
        self._thread.start()
        until(lambda: self._server.started or not self._thread.is_alive(), "the web process serves")
        assert self._thread.is_alive()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)

    def db(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.dsn, autocommit=True)

    def claim(self, gateway: str, shard: int | None = None, *, days: float = 1.0, **more: Any) -> str:
        """The label's text."""
        with self.db() as conn:
            made = claims.make(conn, claims.Wanted(gateway, shard, **more), "tester", utc_now(), days)
        return label_text(self.url, made.code, self.ca.fingerprint)

    def enrol(self, gateway: str, folder: Path, shard: int | None = None) -> Enrolled:
        folder.mkdir(parents=True, exist_ok=True)
        return enrol(read_label(self.claim(gateway, shard)), folder / "gateway.toml", time.time())


def files_of(folder: Path) -> IdentityFiles:
    return IdentityFiles(folder / "state" / "identity")


class Guarded:
    """A broker whose rules the guard keeps, in a thread of its own."""

    def __init__(self, kind: str, dsn: str, ca_dir: Path, root: Path) -> None:
        self.port, core_port, nats_port = _free_ports(3)
        self.kind = kind
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.config = BrokerConfig(
            kind=kind, dsn=dsn, ca_dir=str(ca_dir), out=str(root / "rules"), listen=f"127.0.0.1:{self.port}",
            core_listen=f"127.0.0.1:{core_port}", nats_listen=f"127.0.0.1:{nats_port}", max_store="200MB", poll_s=1.0,
            reload_pid_file=str(root / "rules" / "pid") if kind == "mosquitto" else "",
            user="root" if kind == "mosquitto" else "",
        )  # fmt: skip
        self.core_port = self.port if kind == "nats" else core_port
        self.nats_port = nats_port
        self.guard = Guard(self.config)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.guard.run, args=(self._stop,), name="guard", daemon=True)
        out = root / "rules"
        argv = (
            [binary(), "-c", str(out / "nats.conf")]
            if kind == "nats"
            else [str(MOSQUITTO), "-c", str(out / "mosquitto.conf")]
        )
        self.server = Server(argv, root / "broker.log")

    @property
    def out(self) -> Path:
        return self.root / "rules"

    def __enter__(self) -> Guarded:
        self.guard.write_now()
        self.server.spawn()
        self._thread.start()
        until(self._up, "the broker listens and its guard answers", timeout_s=30)
        return self

    def _up(self) -> bool:
        if not self.server.running:
            raise AssertionError(f"the broker did not start:\n{self.server.words()}")
        assert self._thread.is_alive()
        return self.guard.callout_ready.is_set() if self.kind == "nats" else (self.out / "pid").exists()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(15)
        self.server.end()

    def core(self, client_id: str = "cb-core-5") -> Link:
        password = (self.out / "core-password").read_text() if self.kind == "nats" else ""
        return Link(self.core_port, client_id, self.out / "root.pem", self.out / "core.pem", ("core", password))


@dataclass
class Link:
    """One MQTT connection with the files it is given; says what became of it."""

    port: int
    client_id: str
    root: Path
    certificate: Path | None
    login: tuple[str, str] | None = None
    will: tuple[str, bytes] | None = None
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    granted: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    lost: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        client = self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self.client_id, clean_session=False, protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )  # fmt: skip
        context = ssl.create_default_context(cafile=str(self.root))
        if self.certificate is not None:
            context.load_cert_chain(self.certificate)
        client.tls_set_context(context)
        if self.login is not None:
            client.username_pw_set(*self.login)
        if self.will is not None:
            client.will_set(*self.will, qos=1, retain=True)
        client.on_connect = lambda _c, _u, _f, code, _p: self.answers.append(code.value)
        client.on_disconnect = lambda *_: self.lost.set()
        client.on_message = lambda _c, _u, message: self.heard.append((message.topic, bytes(message.payload)))
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self.granted.extend(code.value for code in codes)

    def connect(self) -> Link:
        """Raises AssertionError if it is not let in."""
        assert self.tried(), f"{self.client_id} is not let in: {self.answers}"
        return self

    def tried(self) -> bool:
        """Whether the broker lets it in."""
        try:
            self.client.connect("localhost", self.port, 20)
        except (ssl.SSLError, OSError):
            return False
        self.client.loop_start()
        until(lambda: self.answers or self.lost.is_set(), f"the broker answers {self.client_id}")
        return bool(self.answers) and self.answers[0] == 0

    def subscribe(self, *topics: str) -> list[int]:
        before = len(self.granted)
        self.client.subscribe([(topic, 1) for topic in topics])
        until(lambda: len(self.granted) == before + len(topics) or self.lost.is_set(), "the subscription is answered")
        return self.granted[before:]

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> mqtt.MQTTMessageInfo:
        return self.client.publish(topic, payload, qos=1, retain=retain)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def cut(self) -> None:
        """The cable, without a goodbye: the broker publishes the will."""
        sock = self.client.socket()
        if sock is not None:
            sock.close()
        self.client.loop_stop()

    def __enter__(self) -> Link:
        return self.connect()

    def __exit__(self, *_: object) -> None:
        self.close()


needs_mosquitto = pytest.mark.skipif(not MOSQUITTO.exists(), reason="Debian's mosquitto is not installed")
