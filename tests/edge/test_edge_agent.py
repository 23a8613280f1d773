"""The whole agent as a process, and its status page over real HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from citybrain_cli.main import main
from edge.status import StatusPage
from protocols.core.errors import ConfigError
from tests.cloud_ingest.site import Core, enrol, query
from tests.edge.gateway import CONFIG
from tests.fixtures.broker import StartBroker
from tests.fixtures.wait import until


def _health() -> tuple[dict[str, float], dict[str, str]]:
    return {"link_up": 1.0, "outbox_data_batches": 12.0, "cpu_pct": 3.25}, {"link": "<script>alert(1)</script> 断开"}


def serve(folder: Path, client: Callable[[str, int], Any], health: Any = _health) -> Any:
    """Run the page on a port of its own choice; ``client`` runs in a thread beside it."""

    async def body() -> Any:
        page = asyncio.create_task(StatusPage("gw-t", "127.0.0.1:0", folder, health).run())
        note = folder / "status.json"
        await asyncio.to_thread(until, note.exists, "the page says where it is")
        url = json.loads(note.read_text())["url"]
        found = await asyncio.to_thread(client, url, int(url.rsplit(":", 1)[1].strip("/")))
        page.cancel()
        await asyncio.wait([page])
        return found

    return asyncio.run(body())


def test_the_page_says_what_an_installer_needs_and_runs_nothing(tmp_path: Path) -> None:
    def client(url: str, _port: int) -> tuple[str, Any, dict[str, Any]]:
        answer = httpx.get(url, timeout=5)
        return answer.text, answer.headers, httpx.get(url + "status.json", timeout=5).json()

    page, headers, numbers = serve(tmp_path, client)
    assert "gw-t" in page and "上行已连接" in page and "uplink connected" in page and "<td>12</td>" in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"
    assert numbers.pop("pid") > 0 and numbers.pop("devices") == {}
    assert numbers == {"gateway": "gw-t", "values": _health()[0], "texts": _health()[1]}


def test_other_paths_and_other_protocols_are_turned_away(tmp_path: Path) -> None:
    def client(url: str, port: int) -> list[bytes]:
        found: list[bytes] = []
        assert httpx.get(url + "etc/passwd", timeout=5).status_code == 404
        for request in (
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
            b"",
            b"GET /status.json HTTP/1.0\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
                link.sendall(request)
                link.shutdown(socket.SHUT_WR)
                said = b""
                try:
                    while part := link.recv(65_536):
                        said += part
                except ConnectionResetError:
                    said = b"reset"
                found.append(said.split(b"\r\n")[0])
        return found

    found = serve(tmp_path, client)
    assert found[:2] == [b"HTTP/1.1 404 Not Found"] * 2
    assert found[2] in (b"", b"reset") and found[3] == b""
    assert found[4] == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("listen", ["8080", ":8080", "localhost:", "localhost:http", ""])
def test_a_listening_address_is_host_and_port(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError):
        StatusPage("gw-t", listen, tmp_path, _health)


def test_an_agent_lives_reports_and_stops_when_told(
    tmp_path: Path, dsn: str, start_broker: StartBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    enrol(dsn, ("gw-t", 3))
    broker = start_broker([("gw-t", 3)])
    text = CONFIG.replace("mqtt://127.0.0.1:1", broker.url).replace(
        'status_listen = ""', 'status_listen = "127.0.0.1:0"'
    )
    text = text.replace(
        "[[connector]]", f'username = "gw-t"\npassword_file = "{broker.password_file("gw-t")}"\n[[connector]]', 1
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        text = text.replace("127.0.0.1:9001", f"127.0.0.1:{probe.getsockname()[1]}")
    path = tmp_path / "agent.toml"
    path.write_text(text, encoding="utf-8")
    with Core(dsn, broker), (tmp_path / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "citybrain_cli.main", "edge", "run", str(path)],
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[2],
        )
        try:
            until(lambda: query(dsn, "select online from gateway") == [(True,)], "the agent is online")
            until((tmp_path / "state" / "status.json").exists, "its status page is up")
            assert main(["edge", "status", str(path)]) == 0
            said = capsys.readouterr().out
            assert "gateway gw-t" in said and "link_up" in said
            assert "! connector_gas" in said  # there is no /dev/none
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(15) == 0
            until(lambda: query(dsn, "select online from gateway") == [(False,)], "its farewell is heard")
        finally:
            if agent.poll() is None:
                agent.kill()
                agent.wait()
    words = (tmp_path / "agent.log").read_text()
    assert words.count("gas lost") == 1
    assert "Traceback" not in words, words
    with sqlite3.connect(tmp_path / "state" / "outbox.db") as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        assert db.execute("select count(*) from state where name = 'engine'").fetchone() == (1,)
    assert main(["edge", "status", str(path)]) == 1  # nobody answers any more
    assert "does not answer" in capsys.readouterr().err
