"""Scenes on real transports: what anybody's agent finds, and the command line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial

from firmware_sim import ledger
from firmware_sim.clock import WallClock
from firmware_sim.ledger import MemoryLedger
from firmware_sim.run import main, run_scene
from firmware_sim.scene import parse_scene
from protocols.core.endpoint import Endpoint, Role
from protocols.core.errors import ConfigError, LinkRefused
from protocols.dlt645.endpoint import Dlt645Endpoint
from protocols.dlt645.messages import Read, ReadReply
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.messages import Packet, data_answer
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.messages import ReadRequest, Reply

ROOT = Path(__file__).resolve().parents[2]
SCENE = """
id = "live"
en = "Everything live"
[placeholders]
folder = "/nowhere"
connect = "127.0.0.1:1"
listen = "127.0.0.1:0"
[[bus]]
id = "gas-485"
kind = "modbus-rtu"
pty = "${folder}/gas-485"
[[bus]]
id = "meter-485"
kind = "dlt645"
pty = "${folder}/meter-485"
[[bus]]
id = "crane"
kind = "modbus-tcp"
listen = "${listen}"
[[bus]]
id = "hj"
kind = "hj212-client"
connect = "${connect}"
[[device]]
id = "gas-01"
type = "gas/combustible"
bus = "gas-485"
address = 11
signals = { ch4_lel = { base = 5.0 } }
[[device]]
id = "meter"
count = 8
type = "meter/electricity_three_phase"
bus = "meter-485"
address = "000000000101"
signals = { voltage_a = { base = 229.5 } }
[[device]]
id = "crane-1"
type = "crane/tower_crane"
bus = "crane"
address = 1
signals = { moment_pct = { base = 104.0 } }
[[device]]
id = "dust"
type = "env/dust_station"
bus = "hj"
mn = "MN1"
signals = { pm10 = { base = 90.0 } }
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask_serial(path: Path, endpoint: Endpoint[Any], request: Any, baud: int) -> tuple[Any, float]:
    """One exchange by pyserial, and how long it took. Without parity: a pty has none and refuses to be asked for it."""
    with serial.Serial(str(path), baud, timeout=0.05) as port:
        port.reset_input_buffer()
        began_s = time.monotonic()
        port.write(endpoint.send(request, 0))
        while time.monotonic() - began_s < 5:
            if found := endpoint.feed(port.read(256), 0):
                return found[0], time.monotonic() - began_s
    return None, 5.0


def ask_tcp(port: int, request: ReadRequest) -> Any:
    endpoint = ModbusEndpoint(Role.MASTER, framing="tcp")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(endpoint.send(request, 0))
        while data := sock.recv(4096):
            if found := endpoint.feed(data, 0):
                return found[0]
    return None


def take_uploads(server: socket.socket, count: int) -> list[Packet]:
    """Accept one station, answer ``count`` uploads, hang up."""
    server.settimeout(20)
    sock, _ = server.accept()
    endpoint, taken = Hj212Endpoint(Role.MASTER), []
    with sock:
        sock.settimeout(20)
        while len(taken) < count:
            for packet in endpoint.feed(sock.recv(65536), 0):
                assert isinstance(packet, Packet)
                sock.sendall(endpoint.send(data_answer(packet), 0))
                taken.append(packet)
    return taken


@contextlib.contextmanager
def simulator(scene: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """``python -m firmware_sim run``; gives the process and what it said it serves."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'firmware-sim'}"}
    command = [sys.executable, "-m", "firmware_sim", "run", str(scene), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().rstrip() for _ in range(5)]
        try:
            yield process, said
        finally:
            if process.poll() is None:
                process.kill()


def test_a_scene_is_there_for_anybody_and_goes_when_told_to(tmp_path: Path) -> None:
    scene = tmp_path / "live.toml"
    scene.write_text(SCENE)
    tcp_port, book = free_port(), tmp_path / "run.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"127.0.0.1:{server.getsockname()[1]}"
        options = ["--ledger", str(book), "--set", f"folder={tmp_path}", "--set", f"connect={connect}"]
        with simulator(scene, *options, "--set", f"listen=127.0.0.1:{tcp_port}") as (process, said):
            assert said[0] == "scene live  Everything live"
            assert said[1] == f"modbus-rtu   {tmp_path}/gas-485  9600 8N1  gas-01 (unit 11)"
            meters = "meter-01 (meter 000000000101) to meter-08 (meter 000000000108), 8 in all"
            assert said[2] == f"dlt645       {tmp_path}/meter-485  2400 8E1  {meters}"
            assert said[3] == f"modbus-tcp   127.0.0.1:{tcp_port}  crane-1 (unit 1)"
            assert said[4] == f"hj212-client dials {connect}  dust (MN1)"

            first = take_uploads(server, 2)
            again = take_uploads(server, 2)  # it dials again by itself
            times = [packet.fields["DataTime"] for packet in first + again]
            assert times == sorted(set(times))
            for _ in range(2):  # the agent may close and open the line
                gas, _ = ask_serial(tmp_path / "gas-485", ModbusEndpoint(Role.MASTER), ReadRequest(11, 3, 0, 1), 9600)
                assert isinstance(gas, Reply)
                assert gas.registers == (50,)
            crane = ask_tcp(tcp_port, ReadRequest(1, 3, 1, 1))
            assert isinstance(crane, Reply)
            assert crane.registers == (1040,)
            byte_s = 11 / 2400
            for n in range(1, 5):
                request = Read(f"{100 + n:012d}", "0201FF00")
                meter, took_s = ask_serial(tmp_path / "meter-485", Dlt645Endpoint(Role.MASTER), request, 2400)
                assert isinstance(meter, ReadReply)
                assert took_s >= 46 * byte_s + 0.020 - 0.005  # request, turn-round and answer at the speed of the line
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
    assert not (tmp_path / "gas-485").is_symlink()
    totals = ledger.read(book)
    assert {name: did.answers_intact for name, did in totals.devices.items() if did.answers} == {
        "gas-01": 2, "crane-1": 1, "meter-01": 1, "meter-02": 1, "meter-03": 1, "meter-04": 1,
    }  # fmt: skip
    acknowledged = {moment for _, moment in totals["dust"].acknowledged}
    assert set(times[:-1]) <= acknowledged <= set(times)  # the last 9014 may have met a closed socket


def test_tcp_box_that_loses_power_refuses_and_comes_back() -> None:
    text = """
id = "power"
bus = [{ id = "crane", kind = "modbus-tcp", listen = "127.0.0.1:%d" }]
[[device]]
id = "crane-1"
type = "crane/tower_crane"
bus = "crane"
address = 1
signals = { moment_pct = { base = 50.0 } }
fault = [{ kind = "restart", at_s = 0.5, for_s = 0.7 }]
"""
    port = free_port()

    async def play() -> list[str]:
        ready, seen = asyncio.Event(), []
        said: list[str] = []
        scene = parse_scene(text % port, "t.toml")
        task = asyncio.create_task(run_scene(scene, WallClock(), MemoryLedger(), announce=said.append, ready=ready))
        await ready.wait()
        assert said == [f"modbus-tcp   127.0.0.1:{port}  crane-1 (unit 1)"]
        async with asyncio.timeout(30):
            while seen != ["there", "away", "there"]:
                try:
                    answer = await asyncio.to_thread(ask_tcp, port, ReadRequest(1, 3, 1, 1))
                    state = "there" if isinstance(answer, Reply) else "away"
                except OSError:
                    state = "away"
                if seen[-1:] != [state]:
                    seen.append(state)
                await asyncio.sleep(0.05)  # how often this test looks, not what it waits for
        task.cancel()
        await asyncio.wait([task])
        return seen

    assert asyncio.run(play()) == ["there", "away", "there"]


def test_scene_with_a_duration_ends_by_itself() -> None:
    text = 'id = "short"\nduration_s = 0.3\nbus = [{ id = "b", kind = "hj212-client", connect = "127.0.0.1:1" }]\n'
    scene = parse_scene(text, "t.toml")
    book = MemoryLedger()
    asyncio.run(run_scene(scene, WallClock(), book, announce=lambda _line: None))
    assert [entry["k"] for entry in book.entries()] == ["open"]


def test_port_in_use_stops_the_start_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        scene = parse_scene(SCENE, "t.toml", {"folder": str(tmp_path), "listen": listen})
        with pytest.raises(LinkRefused, match=f"cannot listen on {listen}"):
            asyncio.run(run_scene(scene, WallClock(), MemoryLedger(), announce=lambda _line: None))
    assert list(tmp_path.iterdir()) == []


def test_story_without_places_is_not_run_live() -> None:
    scene = parse_scene('id = "story"\nbus = [{ id = "b", kind = "dlt645" }]\n', "t.toml")
    with pytest.raises(ConfigError, match="bus b: does not say where"):
        asyncio.run(run_scene(scene, WallClock(), MemoryLedger(), announce=lambda _line: None))


def test_camera_of_a_scene_is_a_stream(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    text = """
id = "lane"
bus = [{ id = "lane-rtsp", kind = "camera", listen = "127.0.0.1:%d" }]
camera = [{ id = "lane-cam-1", bus = "lane-rtsp", scene = "fire_lane", fps = 5 }]
"""
    port = free_port()

    def picture() -> tuple[int, int]:
        with av.open(f"rtsp://127.0.0.1:{port}/lane-cam-1", options={"rtsp_transport": "tcp"}, timeout=20) as stream:
            frame = next(stream.decode(video=0))
            return frame.width, frame.height

    async def play() -> tuple[list[str], tuple[int, int]]:
        ready, said = asyncio.Event(), []
        task = asyncio.create_task(
            run_scene(
                parse_scene(text % port, "t.toml"), WallClock(), MemoryLedger(), announce=said.append, ready=ready
            )
        )
        await ready.wait()
        try:
            return said, await asyncio.to_thread(picture)
        finally:
            task.cancel()
            await asyncio.wait([task])

    said, size = asyncio.run(play())
    assert said == [f"camera       rtsp://127.0.0.1:{port}/lane-cam-1"]
    assert size == (640, 360)


# -- command line ---------------------------------------------------------------------------------------------------


def test_check_tells_good_from_bad_and_opens_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = tmp_path / "live.toml"
    scene.write_text(SCENE)
    assert main(["check", str(scene)]) == 0
    assert "good: 11 devices, 0 cameras on 4 buses" in capsys.readouterr().out
    scene.write_text(SCENE.replace("address = 11", "addres = 11"))
    assert main(["check", str(scene)]) == 2
    assert f"{scene}:28: unknown key `addres`" in capsys.readouterr().err
    assert main(["check", str(scene), "--set", "folder"]) == 2
    assert "expected NAME=VALUE" in capsys.readouterr().err


def test_run_that_cannot_start_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = tmp_path / "live.toml"
    scene.write_text(SCENE)
    (tmp_path / "gas-485").write_text("mine")
    assert main(["run", str(scene), "--set", f"folder={tmp_path}"]) == 1
    assert "gas-485 exists and is no link" in capsys.readouterr().err


def test_ledger_command_prints_totals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = ledger.FileLedger(tmp_path / "run.jsonl")
    book.write("up", "dust", 0, cn="2011", dt="20260302220000", v={})
    book.write("fault", "dust", 0, kind="drop", detail="")
    book.close()
    assert main(["ledger", str(tmp_path / "run.jsonl")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["dust", "1", "0", "0", "1", "0", "0", "drop", "1"]


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--help"])
    assert stopped.value.code == 0
    assert {"--ledger", "--streams", "--set"} <= set(capsys.readouterr().out.split())
