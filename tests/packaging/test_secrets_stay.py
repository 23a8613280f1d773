"""A run of everything with its log turned up, then a search for every secret wherever it does not belong."""

from __future__ import annotations

import json
import socket
import stat
import sys
from pathlib import Path

import httpx
import psutil
import psycopg

from citybrain_cli.main import main
from tests.cloud_ingest.site import CoreProcess, enrol, query
from tests.fixtures.broker import StartBroker
from tests.fixtures.process import Server
from tests.fixtures.wait import until

GATEWAY = "gw-quiet"
TYPED = "Typed-by-mistake-5527"

AGENT = """
[gateway]
id = "gw-quiet"
shard = 9
[mqtt]
url = "{url}"
username = "gw-quiet"
password_file = "{password}"
[[connector]]
id = "dust"
kind = "hj212-server"
listen = "127.0.0.1:0"
[[connector.device]]
id = "dust-1"
type = "env/dust_station"
mn = "010000A8900016F000169DC0"
password = "Station-77112"
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-u", "-m", "citybrain_cli.main", "-v", *arguments]


def test_no_secret_leaves_its_place(dsn: str, tmp_path: Path, start_broker: StartBroker) -> None:
    enrol(dsn, (GATEWAY, 9))
    broker = start_broker([(GATEWAY, 9)])
    run = tmp_path / "run"
    run.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    agent_config, core_config = run / "agent.toml", run / "core.toml"
    agent_config.write_text(AGENT.format(url=broker.url, password=broker.password_file(GATEWAY)), encoding="utf-8")
    core_config.write_text(
        f'dsn = {json.dumps(dsn)}\nlisten = "127.0.0.1:{port}"\nconsole = false\n'
        f"state_dir = {json.dumps(str(run / 'core'))}\n",
        encoding="utf-8",
    )
    agent = Server(command("edge", "run", str(agent_config)), run / "agent.log")
    web = Server([sys.executable, "-u", "-m", "cloud.app", str(core_config)], run / "web.log")
    worker = CoreProcess(dsn, broker, run)
    started = [worker, agent, web]
    try:
        for one in started:
            one.spawn()
        online = f"select online from gateway where gateway_id = '{GATEWAY}'"
        until(lambda: query(dsn, online)[0][0], "it is online", timeout_s=90)
        until(lambda: _answers(port) and (run / "core" / "audit.key").exists(), "the core is up", timeout_s=60)
        assert main(["cloud", "doctor", GATEWAY, "--dsn", dsn, "--within", "40"]) in (0, 1)
        assert main(["cloud", "log", GATEWAY, "--dsn", dsn, "--within", "40"]) == 0
        first = web.log.read_text().partition("password ")[2].partition(" ")[0]
        with psycopg.connect(dsn, autocommit=True) as conn:
            _log_in_wrongly(port)
            secrets = {
                "gateway's password": broker.password(GATEWAY), "core's password": broker.password("core"),
                "station's password": "Station-77112", "typed password": TYPED,
                "audit key": (run / "core" / "audit.key").read_text().split()[1],
            }  # fmt: skip
            _look(conn, dsn, run, secrets, first)
    finally:
        for one in reversed(started):
            one.end()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _log_in_wrongly(port: int) -> None:
    """The commonest leak: a password typed in vain, or far too long."""
    for body in ({"name": "admin", "password": TYPED}, {"name": "admin", "password": TYPED * 20}):
        answer = httpx.post(f"http://127.0.0.1:{port}/api/v1/login", json=body)
        assert answer.status_code in (401, 422, 429) and TYPED not in answer.text


def _look(
    conn: psycopg.Connection[tuple[object, ...]], dsn: str, run: Path, secrets: dict[str, str], first: str
) -> None:
    may_hold = {"station's password": {run / "agent.toml"}, "audit key": {run / "core" / "audit.key"}}
    for file in run.rglob("*"):
        if not file.is_file():
            continue
        content = file.read_bytes()
        for name, secret in secrets.items():
            assert secret.encode() not in content or file in may_hold.get(name, ()), f"{name} is in {file}"
        if file.name in ("session.key", "audit.key", "second-factor.key"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        if first:
            assert first.encode() not in content or file.name == "web.log", f"the first password is in {file}"
    for process in psutil.Process().children(recursive=True):
        line = " ".join(process.cmdline())
        for name, secret in secrets.items():
            assert secret not in line, f"{name} is in the arguments of {line[:80]}"
    tables = conn.execute(
        "select table_name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'"
    ).fetchall()
    for (table,) in tables:
        for name, secret in secrets.items():
            row = conn.execute(
                f"select 1 from {table} t where t::text like %s limit 1".encode(), (f"%{secret}%",)
            ).fetchone()
            assert row is None, f"{name} is in table {table}"
