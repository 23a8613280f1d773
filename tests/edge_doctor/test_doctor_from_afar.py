"""A real agent, a real broker, a real worker: the core asks, the gateway looks, the operator reads."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from citybrain_cli.main import main
from edge.agent import run
from edge.clock import WallClock
from edge.config import load
from tests.cloud_ingest.site import Core, enrol, query
from tests.fixtures.broker import Broker, StartBroker
from tests.fixtures.wait import until

GATEWAY = ("gw-doctor", 7)

CONFIG = """
[gateway]
id = "gw-doctor"
shard = 7

[mqtt]
url = "{url}"
username = "gw-doctor"
password_file = "{password_file}"

[[connector]]
id = "bus"
kind = "modbus-rtu"
port = "/dev/ttyNone0"
[[connector.device]]
id = "gas-1"
type = "gas/combustible"
unit = 11
"""


class Agent:
    """The agent of a gateway in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self._task = self._loop.create_task(run(load(self._path), self._path.parent, WallClock()))
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error

    def __enter__(self) -> Agent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(20)
        self._loop.close()
        assert self._error is None


@pytest.fixture
def broker(dsn: str, start_broker: StartBroker) -> Broker:
    enrol(dsn, GATEWAY)
    return start_broker([GATEWAY])


@pytest.fixture
def config(tmp_path: Path, broker: Broker) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(url=broker.url, password_file=broker.password_file("gw-doctor")), encoding="utf-8")
    return path


@pytest.fixture
def quiet() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    yield
    root.setLevel(level)


def test_asked_from_afar(
    dsn: str, broker: Broker, config: Path, quiet: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with Core(dsn, broker), Agent(config):
        until(
            lambda: query(dsn, "select online from gateway where gateway_id = 'gw-doctor'")[0][0],
            "the gateway is online",
        )
        logging.getLogger("citybrain.edge.test").warning("log-in with %s", broker.password("gw-doctor"))
        asked = ["gw-doctor", "--dsn", dsn, "--who", "王敏", "--within", "40"]
        assert main(["cloud", "doctor", *asked, "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        found = {finding["code"]: finding for finding in told["findings"]}
        assert found["serial.missing"]["level"] == "bad" and found["serial.missing"]["about"] == "bus"
        assert found["link.up"]["level"] == "ok" and found["broker.reached"]["level"] == "ok"
        assert "broker.login" not in found  # its own log-in stands; it was not made a second time
        assert main(["cloud", "doctor", *asked]) == 1
        assert "串口" in capsys.readouterr().out
        assert main(["cloud", "log", *asked, "--contains", "log-in with"]) == 0
        said = capsys.readouterr().out
        assert "log-in with ***" in said and broker.password("gw-doctor") not in said
        assert main(["cloud", "log", *asked, "--lines", "0"]) == 1  # the gateway refuses, and says why
        assert "lines: 1 to" in capsys.readouterr().err
        assert main(["edge", "doctor", str(config), "--json"]) == 1
        there = {finding["code"] for finding in json.loads(capsys.readouterr().out)["findings"]}
        assert {"serial.missing", "connector.down", "link.up"} <= there and "agent.down" not in there
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("select who, action from audit_entry where action = 'command.request'").fetchall()
    assert rows == [("王敏", "command.request")] * 4


def test_a_gateway_that_is_away_is_said_to_be_away(
    dsn: str, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    with Core(dsn, broker):
        assert main(["cloud", "doctor", "gw-doctor", "--dsn", dsn, "--within", "1"]) == 1
    said = capsys.readouterr().err
    assert "queued" in said and "never heard of" in said
    assert main(["cloud", "doctor", "gw-none", "--dsn", dsn]) == 1
    assert "gw-none" in capsys.readouterr().err
    assert main(["cloud", "doctor", "gw-doctor"]) == 2
