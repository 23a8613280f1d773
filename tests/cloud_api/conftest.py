"""The real application on a real socket with a real database, once a session."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import psycopg
import pytest
import uvicorn

from cloud.api.limits import server_options
from cloud.app import create_app
from cloud.auth import passwords
from cloud.auth.rates_config import RateSettings
from cloud.auth.service import ensure_first_operator
from cloud.config import Settings
from cloud.identity.config import IdentitySettings
from tests.cloud_api import city
from tests.fixtures.postgres import Postgres, new_database

#: A suite asks more in a minute than a house does; test_rates.py has limits of its own.
UNHURRIED = RateSettings(caller_burst=100_000, stranger_burst=100_000, costly_burst=100_000)
NEW_PASSWORD = "Binhu-lake-7731"


@dataclass
class Core:
    url: str
    dsn: str
    now: datetime
    first_password: str

    def db(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.dsn, autocommit=True)


@contextmanager
def a_core(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """A city and the application that serves it. What changes much takes one of its own."""
    dsn = new_database(postgres)
    now = datetime.now(UTC)
    with psycopg.connect(dsn, autocommit=True) as conn:
        city.fill(conn, now)
        conn.execute("update gateway set district = split_part(gateway_id, '-', 2)")
        first = ensure_first_operator(conn)
        assert first is not None
        assert ensure_first_operator(conn) is None  # once, whoever asks
    settings = Settings(
        dsn=dsn, state_dir=str(tmp_path_factory.mktemp("state")), console=False, rates=UNHURRIED,
        identity=IdentitySettings(broker_url="mqtts://broker.example:8883", public_url="https://core.example"),
    )  # fmt: skip
    with serving(create_app(settings)) as url:
        yield Core(url, dsn, now, first)


@pytest.fixture(scope="session")
def core(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with a_core(postgres, tmp_path_factory) as found:
        yield found


class serving:
    def __init__(self, app: object) -> None:
        options = server_options()
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            host="127.0.0.1",
            port=0,
            log_level="warning",
            timeout_graceful_shutdown=1,
            **options,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        end = time.monotonic() + 20
        while not self._server.started:
            assert self._thread.is_alive() and time.monotonic() < end, "the server did not start"
            time.sleep(0.02)
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)


def add_operator(core: Core, name: str, role: str, password: str = NEW_PASSWORD) -> None:
    """An operator who has changed his first password already."""
    with core.db() as conn:
        conn.execute(
            "insert into operator (name, password_hash, role, must_change) values (%s, %s, %s, false) "
            "on conflict (name) do update set password_hash = excluded.password_hash, failed = 0, locked_until = null",
            [name, passwords.hashed(password), role],
        )


def grant(core: Core, name: str, role: str, department: str = "*", district: str = "*") -> None:
    """An operator who holds a role for one place only."""
    add_operator(core, name, role)
    with core.db() as conn:
        conn.execute("update operator set department = %s, district = %s where name = %s", [department, district, name])


def reopen(core: Core, key: str) -> int:
    """The case of that alarm stands at its beginning again, whatever other tests did with it."""
    with core.db() as conn:
        row = conn.execute(
            "update case_file set state = 'reported', closed_at = null where case_id in "
            "(select case_id from case_alarm where alarm_id = %s) returning case_id",
            [city.alarm_id(key)],
        ).fetchone()
    assert row is not None
    return int(str(row[0]))


def client_of(core: Core, name: str, password: str = NEW_PASSWORD) -> httpx.Client:
    client = httpx.Client(base_url=f"{core.url}/api/v1", timeout=20)
    answer = client.post("/login", json={"name": name, "password": password})
    assert answer.status_code == 200, answer.text
    client.headers["authorization"] = f"Bearer {answer.json()['token']}"
    return client


@pytest.fixture(scope="session")
def viewer(core: Core) -> Iterator[httpx.Client]:
    add_operator(core, "viewer-1", "viewer")
    client = client_of(core, "viewer-1")
    yield client
    client.close()


@pytest.fixture(scope="session")
def operator(core: Core) -> Iterator[httpx.Client]:
    add_operator(core, "王敏", "operator")
    client = client_of(core, "王敏")
    yield client
    client.close()


@pytest.fixture(scope="session")
def second_operator(core: Core) -> Iterator[httpx.Client]:
    add_operator(core, "李强", "operator")
    client = client_of(core, "李强")
    yield client
    client.close()
