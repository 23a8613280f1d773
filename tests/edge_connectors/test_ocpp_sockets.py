"""The OCPP central system over real sockets: handshake, TLS, an independent client, simulated stations."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.clock import WallClock
from edge.connectors.config import check
from edge.connectors.ocpp_link import identity_of, password_fits
from edge.connectors.ocpp_server import OcppServer
from edge.connectors.road_config import OcppDevice, OcppServerConfig
from firmware_sim.ledger import MemoryLedger
from protocols.core.errors import ConfigError
from tests.edge_connectors.test_ocpp_server import scene
from tests.support.virtual import RecordingSink


def test_names_and_passwords() -> None:
    assert identity_of("/ocpp/CP%20001/") == "CP 001"
    assert identity_of("/") == ""

    def header(user: bytes, password: bytes) -> str:
        return "Basic " + base64.b64encode(user + b":" + password).decode()

    assert password_fits(header(b"CP1", b"0123456789abcdef"), "CP1", "0123456789abcdef")
    assert password_fits(header(b"CP1", bytes(range(20))), "CP1", bytes(range(20)).hex())
    assert not password_fits(header(b"CP2", b"0123456789abcdef"), "CP1", "0123456789abcdef")
    assert not password_fits(header(b"CP1", b""), "CP1", "")
    assert not password_fits("Basic ###", "CP1", "x") and not password_fits("", "CP1", "x")


@asynccontextmanager
async def listening(sink: RecordingSink, base: Path, **more: Any) -> AsyncIterator[OcppServer]:
    device = OcppDevice(id="pile-1", type="charger/ac_7kw", identity="CP001")
    config = OcppServerConfig(id="chargers", listen="127.0.0.1:0", device=(device,), **more)
    connector = OcppServer(config, WallClock(), base=base)
    task = asyncio.create_task(connector.run(sink))
    try:
        for _ in range(1_000):  # at most ten seconds
            if connector.port or task.done():
                break
            await asyncio.sleep(0.01)
        yield connector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_handshake_decides_version_name_and_password(tmp_path: Path) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    (tmp_path / "passwords").write_text("CP001 0123456789abcdef\n")
    sink = RecordingSink()
    login = {"Authorization": "Basic " + base64.b64encode(b"CP001:0123456789abcdef").decode()}

    async def body() -> None:
        async with listening(sink, tmp_path, passwords_file="passwords") as connector:
            url = f"ws://127.0.0.1:{connector.port}/ocpp/CP001"
            for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"CP001:wrong").decode()}):
                with pytest.raises(InvalidStatus):
                    async with connect(url, subprotocols=["ocpp1.6"], additional_headers=headers):  # type: ignore[list-item]
                        pass
            async with connect(url, subprotocols=["ocpp2.0.1", "ocpp1.6"], additional_headers=login) as socket:  # type: ignore[list-item]
                assert socket.subprotocol == "ocpp2.0.1"
                await socket.send('[2,"1","Heartbeat",{}]')
                assert json.loads(await socket.recv())[0] == 3
            async with connect(url, subprotocols=["ocpp1.6"], additional_headers=login) as socket:  # type: ignore[list-item]
                told = '[2,1,"StatusNotification",{"connectorId":1,"status":"Charging","errorCode":"NoError"}]'
                await socket.send(told)
                await socket.send("\x01")
                await socket.send("")
                await socket.send('[2,"2","Heartbeat",{}]')
                answers = [json.loads(await socket.recv()) for _ in range(2)]
                assert answers[0] == [3, 1, {}] and answers[1][:2] == [3, "2"]
            async with connect(url, additional_headers=login) as socket:
                await asyncio.wait_for(socket.wait_closed(), 5)  # no common sub-protocol

    asyncio.run(asyncio.wait_for(body(), 30))
    assert sink.values("pile-1", "status") == [2.0]
    assert {r.code for r in sink.reports} == {"password", "subprotocol", "not_json"}


def test_it_ends_while_stations_are_connected_and_while_one_is_at_the_door(tmp_path: Path) -> None:
    from websockets.asyncio.client import connect

    sink = RecordingSink()

    async def body() -> None:
        async with listening(sink, tmp_path) as connector:
            url = f"ws://127.0.0.1:{connector.port}/CP001"
            talking = await connect(url, subprotocols=["ocpp1.6"])  # type: ignore[list-item]
            await talking.send('[2,"1","Heartbeat",{}]')
            await talking.recv()
            silent = await connect(url, subprotocols=["ocpp1.6"])  # type: ignore[list-item]
        async with asyncio.timeout(5):
            await talking.wait_closed()
            await silent.wait_closed()

    asyncio.run(asyncio.wait_for(body(), 30))


def test_an_encrypted_line_with_the_stations_certificate(tmp_path: Path) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    for name in ("server", "station"):
        subject = f"/CN={name}"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", subject),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
    sink = RecordingSink()

    async def body() -> None:
        tls = {"tls_cert_file": "server.pem", "tls_key_file": "server.key", "client_ca_file": "station.pem"}
        async with listening(sink, tmp_path, **tls) as connector:
            url = f"wss://127.0.0.1:{connector.port}/CP001"
            context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
            with pytest.raises((OSError, WebSocketException)):
                async with connect(url, subprotocols=["ocpp1.6"], ssl=context) as socket:  # type: ignore[list-item]
                    await socket.send('[2,"1","Heartbeat",{}]')
                    await socket.recv()
            context.load_cert_chain(tmp_path / "station.pem", tmp_path / "station.key")
            async with connect(url, subprotocols=["ocpp1.6"], ssl=context) as socket:  # type: ignore[list-item]
                await socket.send('[2,"1","Heartbeat",{}]')
                assert json.loads(await socket.recv())[:2] == [3, "1"]

    asyncio.run(asyncio.wait_for(body(), 30))


def test_an_independent_station_charges_through_a_real_socket(tmp_path: Path) -> None:
    """The library's own charge point class, not our codec, at the other end."""
    import ocpp.messages
    from ocpp.v16 import ChargePoint, call
    from websockets.asyncio.client import connect

    sink = RecordingSink()

    async def body() -> None:
        async with listening(sink, tmp_path) as connector:
            url = f"ws://127.0.0.1:{connector.port}/CP001"
            async with connect(url, subprotocols=["ocpp1.6"]) as socket:  # type: ignore[list-item]
                station = ChargePoint("CP001", socket)
                reader = asyncio.create_task(station.start())
                boot = await station.call(call.BootNotification(charge_point_model="m", charge_point_vendor="v"))
                assert boot.status == "Accepted" and boot.interval == 300
                await station.call(call.StatusNotification(connector_id=1, error_code="NoError", status="Charging"))
                begun = await station.call(
                    call.StartTransaction(connector_id=1, id_tag="A", meter_start=10, timestamp="2026-03-02T00:00:00Z")
                )
                ended = await station.call(
                    call.StopTransaction(
                        transaction_id=begun.transaction_id, meter_stop=1510, timestamp="2026-03-02T01:00:00Z"
                    )
                )
                assert ended is not None
                reader.cancel()

    ocpp.messages.ASYNC_VALIDATION = False
    asyncio.run(asyncio.wait_for(body(), 30))
    assert sink.values("pile-1", "status") == [2.0]
    assert sink.values("pile-1", "transaction") == [1.0, 0.0]
    assert sink.values("pile-1", "session_energy")[-1] == 1500.0
    assert sink.states[0] == ("pile-1", True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tls_cert_file": "a"}, "belong together"),
        ({"client_ca_file": "a"}, "needs tls_cert_file"),
        ({"heartbeat_s": 900}, "longer than heartbeat_s"),
    ],
)
def test_what_a_site_may_get_wrong(more: dict[str, Any], said: str) -> None:
    device = OcppDevice(id="pile-1", type="charger/ac_7kw", identity="CP001")
    with pytest.raises(ConfigError, match=said):
        check(OcppServerConfig(id="chargers", listen="127.0.0.1:1", device=(device,), **more))


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
def test_a_simulated_station_over_a_real_socket(tmp_path: Path, version: str) -> None:
    from firmware_sim.devices.world import World
    from firmware_sim.live import live_bus
    from firmware_sim.scene import parse_scene

    (tmp_path / "passwords").write_text("CP001 0123456789abcdef\n")
    sink = RecordingSink()

    async def body() -> None:
        async with listening(sink, tmp_path, passwords_file="passwords") as connector:
            text = scene(version, options=', charge_s = 1000, idle_s = 1, password = "0123456789abcdef"')
            text = text.replace("interval_s = 10", "interval_s = 1")
            place = f'kind = "ocpp-station"\nconnect = "127.0.0.1:{connector.port}"'
            found = parse_scene(text.replace('kind = "ocpp-station"', place), "test.toml")
            clock = WallClock()
            bus = live_bus(found.bus[0], found, World(clock, clock.now_ms(), MemoryLedger()))
            await bus.open()
            run = asyncio.create_task(bus.run())
            try:
                for _ in range(1_000):
                    if len(sink.values("pile-1", "power")) >= 2:
                        break
                    await asyncio.sleep(0.02)
            finally:
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)
                await bus.close()

    asyncio.run(asyncio.wait_for(body(), 60))
    assert set(sink.values("pile-1", "power")) == {7000.0}
    assert sink.values("pile-1", "transaction")[0] == 1.0
    assert not sink.reports
