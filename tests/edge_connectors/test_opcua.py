"""The OPC UA connector against a simulated station's server, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

pytest.importorskip("asyncua")

from edge.clock import WallClock
from edge.connectors.base import Command, Commandable
from edge.connectors.config import check
from edge.connectors.industry_config import OpcuaConfig, OpcuaDevice
from edge.connectors.opcua import OpcuaClient
from firmware_sim.clock import WallClock as SimClock
from firmware_sim.devices.opcua_server import OpcuaBus
from firmware_sim.devices.world import World
from firmware_sim.ledger import MemoryLedger
from firmware_sim.scene import parse_scene
from protocols.core.errors import ConfigError, LinkDown, LinkRefused
from protocols.core.model import Quality
from tests.support.virtual import RecordingSink, running

T = TypeVar("T")

SCENE = """
id = "t"
[[bus]]
id = "station"
kind = "opcua-server"
listen = "127.0.0.1:PORT"
[[device]]
id = "pump-1"
type = "industry/opcua_pump_station"
bus = "station"
address = "Pump1"
[device.signals]
level = { base = 2.0, noise = 0.05 }
pressure = { base = 0.32 }
pump_running = { stuck = 1.0 }
level_setpoint = { stuck = 2.5 }
"""
PUMP = OpcuaDevice(id="pump-1", type="industry/opcua_pump_station", root="Pump1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Plant:
    def __init__(self, scene: str, tmp_path: Path, prepare: Any = None, **options: Any) -> None:
        self.sink = RecordingSink()
        self.ledger = MemoryLedger()
        clock = SimClock()
        world = World(clock, clock.now_ms(), self.ledger)
        parsed = parse_scene(scene.replace("PORT", str(free_port())), "test.toml")
        self.server = OpcuaBus(parsed.bus[0], parsed, world, prepare)
        settings = {"device": (PUMP,), "publish_s": 0.1, "sample_s": 0.1, "timeout_s": 1.0, **options}
        self.config = OpcuaConfig(id="station", url=self.server.url, **settings)
        check(self.config)
        self.client = OpcuaClient(self.config, WallClock(), tmp_path)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        await self.power_on()
        try:
            async with running([self.client], self.sink, restart_s=0.2):
                yield
        finally:
            await self.power_off()

    async def power_on(self) -> None:
        await self.server.open()
        self._running = asyncio.create_task(self.server.run())

    async def power_off(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.server.close()

    async def until(self, found: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(40):
                while not found():  # noqa: ASYNC110 - what others do over sockets has no event of ours
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"never: {what}; {self.sink.states} {self.sink.reports}") from None

    def codes(self, event: str) -> list[str]:
        return [report.code for report in self.sink.reports if report.event_type == event]


def play(
    tmp_path: Path, body: Callable[[Plant], Awaitable[T]], scene: str = SCENE, prepare: Any = None, **options: Any
) -> T:
    async def main() -> T:
        plant = Plant(scene, tmp_path, prepare, **options)
        async with plant.serving():
            return await body(plant)

    return asyncio.run(main())


def fault(**keys: object) -> str:
    import json

    return SCENE + "[[device.fault]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())


def order(name: str, **arguments: float) -> Command:
    return Command("o-1", "pump-1", name, arguments)


def test_changes_come_with_the_servers_time(tmp_path: Path) -> None:
    async def body(plant: Plant) -> None:
        await plant.until(lambda: len(plant.sink.values("pump-1", "level")) >= 3, "three levels")
        assert plant.sink.states == [("pump-1", True)]
        assert plant.sink.values("pump-1", "pressure")[0] == pytest.approx(0.32)  # bar on the wire
        assert plant.sink.values("pump-1", "pump_running")[0] == 1.0
        told = [e["v"]["level"] for e in plant.ledger.entries() if e["k"] == "told"]
        levels = plant.sink.values("pump-1", "level")
        assert levels == told[: len(levels)] or levels == told[1 : len(levels) + 1]
        assert all(sweep.source_ms <= sweep.seen_ms for sweep in plant.sink.sweeps)
        assert len(plant.sink.sweeps[0].points) >= 1 and plant.sink.reports == []

    play(tmp_path, body)


@pytest.mark.parametrize(
    ("kind", "quality", "told"),
    [("bad_status", Quality.MISSING, ["BadSensorFailure"]), ("uncertain", Quality.SUSPECT, [])],
)
def test_status_codes_become_quality(tmp_path: Path, kind: str, quality: Quality, told: list[str]) -> None:
    async def body(plant: Plant) -> None:
        await plant.until(lambda: plant.sink.sweeps, "a sweep")
        assert {int(q) for sweep in plant.sink.sweeps for q in sweep.quality} == {quality}
        assert sorted(set(plant.codes("dev.fault"))) == told

    play(tmp_path, body, fault(kind=kind))


def test_a_point_without_value_is_missing_not_zero(tmp_path: Path) -> None:
    async def body(plant: Plant) -> None:
        await plant.until(lambda: any("level" in sweep.points for sweep in plant.sink.sweeps), "the level")
        sweep = next(sweep for sweep in plant.sink.sweeps if "level" in sweep.points)
        assert sweep.quality[sweep.points.index("level")] == Quality.MISSING
        assert plant.codes("dev.fault") == []

    play(tmp_path, body, SCENE.replace("level = { base = 2.0, noise = 0.05 }\n", ""))


def test_a_clock_of_1970_is_replaced_and_told(tmp_path: Path) -> None:
    async def body(plant: Plant) -> None:
        await plant.until(lambda: plant.sink.sweeps, "a sweep")
        sweep = plant.sink.sweeps[0]
        assert sweep.source_ms == sweep.seen_ms and set(sweep.quality) == {Quality.SUSPECT}
        assert set(plant.codes("dev.clock_skew")) == {"offset"}

    step = '[[device.fault]]\nkind = "clock_step"\nset_to = 1971-01-01T00:00:00+00:00\n'
    play(tmp_path, body, SCENE + step)


def test_a_server_that_restarts_with_other_namespace_numbers(tmp_path: Path) -> None:
    async def body(plant: Plant) -> None:
        await plant.until(lambda: ("pump-1", True) in plant.sink.states, "online")
        await plant.power_off()
        await plant.until(lambda: ("pump-1", False) in plant.sink.states, "offline")
        before = len(plant.sink.values("pump-1", "level"))
        await plant.power_on()
        await plant.until(lambda: plant.sink.states[-1] == ("pump-1", True), "online again")
        await plant.until(lambda: len(plant.sink.values("pump-1", "level")) > before, "levels again")

    play(tmp_path, body)


def test_nodes_that_are_not_there_are_told_and_the_rest_serves(tmp_path: Path) -> None:
    async def body(plant: Plant) -> None:
        await plant.until(lambda: plant.sink.values("pump-1", "level"), "levels")
        assert ("pump-9", False) in plant.sink.states
        missing = [r.point for r in plant.sink.reports if (r.device, r.code) == ("pump-9", "no_node")]
        assert sorted(missing) == ["level", "level_setpoint", "pressure", "pump_running"]

    stranger = OpcuaDevice(id="pump-9", type="industry/opcua_pump_station", root="Nobody")
    play(tmp_path, body, device=(PUMP, stranger))


def test_commands_are_written_and_read_back(tmp_path: Path) -> None:
    async def body(plant: Plant) -> None:
        assert isinstance(plant.client, Commandable)
        await plant.until(lambda: plant.sink.sweeps, "connected")
        done = await plant.client.command(order("set_level", level=3.25))
        assert (done.state, done.read_back) == ("done", {"level_setpoint": 3.25})
        assert (await plant.client.command(order("pump_stop"))).read_back == {"pump_running": 0.0}
        await plant.until(lambda: plant.sink.values("pump-1", "level_setpoint")[-1] == 3.25, "told by the subscription")

    play(tmp_path, body)


def test_a_write_that_is_refused_and_one_that_changes_nothing(tmp_path: Path) -> None:
    async def refused(plant: Plant) -> None:
        await plant.until(lambda: plant.sink.sweeps, "connected")
        outcome = await plant.client.command(order("pump_stop"))
        assert outcome.state == "refused" and outcome.code in ("BadUserAccessDenied", "BadNotWritable")

    async def stuck(plant: Plant) -> None:
        await plant.until(lambda: plant.sink.sweeps, "connected")
        # The server takes the write at once; its plant puts the old value back when it does not obey.
        await asyncio.sleep(0.3)
        outcome = await plant.client.command(order("set_level", level=3.25))
        assert outcome.state in ("done", "failed")
        await plant.until(lambda: plant.sink.values("pump-1", "level_setpoint")[-1] == 2.5, "the old value is told")

    play(tmp_path, refused, fault(kind="read_only"))
    play(tmp_path, stuck, fault(kind="stuck"))


def test_without_connection_nothing_is_sent(tmp_path: Path) -> None:
    async def main() -> None:
        plant = Plant(SCENE, tmp_path)
        with pytest.raises(LinkDown):
            await plant.client.command(order("pump_stop"))
        with pytest.raises(LinkDown):
            await plant.client.run(plant.sink)

    asyncio.run(main())


# -- security ----------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str, uri: str) -> tuple[Path, Path]:
    from asyncua.crypto.cert_gen import (
        dump_private_key_as_pem,
        generate_private_key,
        generate_self_signed_app_certificate,
    )
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = generate_private_key()
    made = generate_self_signed_app_certificate(
        key,
        name,
        {"organizationName": "citybrain tests"},
        [x509.UniformResourceIdentifier(uri), x509.DNSName("localhost")],
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
    )
    files = folder / f"{name}.der", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(Encoding.DER))
    files[1].write_bytes(dump_private_key_as_pem(key))
    return files


def secured(tmp_path: Path, password: str) -> Any:
    """Prepares a server that takes only signed and encrypted messages of a user with that password."""
    cert, key = certificate(tmp_path, "server", "urn:citybrain:test:server")

    class Users:
        def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
            from asyncua.crypto.permission_rules import User, UserRole

            good = username == "citybrain" and password == wanted
            return User(role=UserRole.Admin, name="citybrain") if good else None

    wanted = password

    async def prepare(server: Any) -> None:
        from asyncua import ua

        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        server.iserver.user_manager = Users()
        await server.set_application_uri("urn:citybrain:test:server")
        await server.load_certificate(str(cert))
        await server.load_private_key(str(key), format="pem")

    return prepare


def test_signed_and_encrypted_with_a_user(tmp_path: Path) -> None:
    certificate(tmp_path, "client", "urn:citybrain:test:client")
    (tmp_path / "password").write_text("right\n")

    async def body(plant: Plant) -> None:
        await plant.until(lambda: plant.sink.values("pump-1", "level"), "levels over a secure channel")

    options = {
        "security": "sign-encrypt",
        "certificate_file": "client.der",
        "key_file": "client.key",
        "server_certificate_file": "server.der",
        "username": "citybrain",
        "password_file": "password",
        "timeout_s": 4.0,
    }
    play(tmp_path, body, prepare=secured(tmp_path, "right"), **options)

    async def refused() -> None:
        plant = Plant(SCENE, tmp_path, secured(tmp_path, "other"), **options)
        await plant.server.open()
        try:
            with pytest.raises(LinkRefused):
                await plant.client.run(plant.sink)
        finally:
            await plant.server.close()

    asyncio.run(refused())


def test_a_server_without_the_wanted_security_is_refused(tmp_path: Path) -> None:
    certificate(tmp_path, "client", "urn:citybrain:test:client")

    async def main() -> None:
        plant = Plant(
            SCENE, tmp_path, security="sign", certificate_file="client.der", key_file="client.key", timeout_s=3.0
        )
        await plant.server.open()
        try:
            with pytest.raises(LinkRefused):
                await plant.client.run(plant.sink)
        finally:
            await plant.server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "http://x"}, "opc.tcp"),
        ({"security": "sign"}, "certificate_file"),
        ({"password_file": "p"}, "security"),
        ({"device": (OpcuaDevice(id="a", type="industry/opcua_pump_station"),)}, "root"),
        ({"device": (PUMP, OpcuaDevice(id="b", type=PUMP.type, root="Pump1"))}, "used 2 times"),
        ({"device": (OpcuaDevice(id="a", type="env/noise_meter", root="x"),)}, "speaks modbus"),
    ],
)
def test_a_wrong_configuration_is_named(change: dict[str, Any], words: str) -> None:
    good: dict[str, Any] = {"id": "s", "url": "opc.tcp://h:4840/x", "device": (PUMP,)}
    check(OpcuaConfig(**good))
    with pytest.raises(ConfigError, match=words):
        check(OpcuaConfig(**{**good, **change}))


def test_certificates_that_cannot_be_read_are_named_when_the_agent_starts(tmp_path: Path) -> None:
    certificate(tmp_path, "client", "urn:citybrain:test:client")
    good: dict[str, Any] = {"id": "s", "url": "opc.tcp://h:4840/x", "device": (PUMP,), "security": "sign"}
    OpcuaClient(OpcuaConfig(**good, certificate_file="client.der", key_file="client.key"), WallClock(), tmp_path)
    for cert, key in (("client.der", "nothing.key"), ("client.key", "client.key"), ("client.der", "client.der")):
        with pytest.raises(ConfigError, match=r"client|nothing"):
            OpcuaClient(OpcuaConfig(**good, certificate_file=cert, key_file=key), WallClock(), tmp_path)


def test_times_before_1970_are_none() -> None:
    from edge.connectors.opcua import _ms

    assert _ms(datetime.datetime(1601, 1, 1)) is None and _ms(None) is None
    assert _ms(datetime.datetime(1970, 1, 1, 0, 0, 1)) == 1000
