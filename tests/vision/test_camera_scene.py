"""The simulated camera: tables, the drawing as a pure function of time, geometry, RTP and the RTSP server's manners."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.camera.actors import parked, pose
from firmware_sim.camera.encode import Encoder, split_nal_units
from firmware_sim.camera.geometry import LANE_WIDTH_M, Pinhole
from firmware_sim.camera.model import Actor, CameraModel
from firmware_sim.camera.rtp import MAX_PAYLOAD, Packetizer
from firmware_sim.camera.scene import LaneScene
from firmware_sim.camera.server import RtspServer
from protocols.core.errors import ConfigError


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({}, "id is missing"),
        ({"id": "c", "scene": "moon"}, "moon"),
        ({"id": "c", "fps": 0}, "fps"),
        ({"id": "c", "fps": "fast"}, "fps"),
        ({"id": "c", "colour": "red"}, "colour"),
        ({"id": "c", "actor": [{"kind": "tank"}]}, "tank"),
        ({"id": "c", "actor": [{"kind": "car", "speed": 3}]}, "speed"),
        ({"id": "c", "actor": [{"kind": "car", "stop_s": -1}]}, "stop_s"),
        ({"id": "c", "effect": [{"kind": "fog"}]}, "fog"),
    ],
)
def test_a_wrong_table_is_refused_by_name(table: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        CameraModel.from_table(table)


def test_the_picture_is_a_function_of_model_and_second() -> None:
    table = {"id": "c", "actor": [{"kind": "truck", "enter_s": 1}], "effect": [{"kind": "rain", "at_s": 4, "for_s": 9}]}
    first, second = (LaneScene(CameraModel.from_table(table, seed=7)) for _ in range(2))
    for t_s in (0.0, 3.2, 6.4, 2.0):
        assert np.array_equal(first.render(t_s), second.render(t_s))
    assert not np.array_equal(first.render(3.0), first.render(3.2))
    other = LaneScene(CameraModel.from_table(table, seed=8))
    assert not np.array_equal(first.render(0.0), other.render(0.0))


def test_things_come_again_when_asked_to() -> None:
    actor = Actor("car", enter_s=10, stop_s=5, repeat_s=100)
    assert pose(actor, 5) is None
    assert pose(actor, 20) == pose(actor, 120) == pose(actor, 220)
    assert pose(Actor("car", enter_s=10, stop_s=5), 120) is None


@pytest.mark.parametrize("kind", ["car", "van", "truck"])
@pytest.mark.parametrize("clear_m", [0.8, 1.5, 2.4, 3.2])
def test_a_parked_vehicle_leaves_the_stated_width(kind: str, clear_m: float) -> None:
    from firmware_sim.camera.actors import SIZES_M

    width, length, _, _ = SIZES_M[kind]
    x, _, yaw = parked(Actor(kind, clear_width_m=clear_m))
    extent = width * np.cos(yaw) + length * np.sin(yaw)
    right, left = LANE_WIDTH_M - (x + extent / 2), x - extent / 2
    assert right == pytest.approx(clear_m)
    assert left <= clear_m + 0.05


def test_effects_that_stop_the_picture() -> None:
    table = {
        "id": "c",
        "effect": [{"kind": "freeze", "at_s": 5, "for_s": 3}, {"kind": "black", "at_s": 20, "for_s": 2}],
    }
    scene = LaneScene(CameraModel.from_table(table))
    assert np.array_equal(scene.render(5.0), scene.render(7.8))
    assert not np.array_equal(scene.render(5.0), scene.render(8.2))
    assert scene.render(21).max() == 0
    ending = LaneScene(CameraModel.from_table({"id": "c", "effect": [{"kind": "end", "at_s": 5, "for_s": 10}]}))
    assert [ending.ended(t) for t in (4.9, 5.0, 14.9, 15.0)] == [False, True, True, False]


def test_nothing_is_drawn_behind_the_lens() -> None:
    points = Pinhole().project(np.array([(3.0, -5.0, 0.0), (3.0, 12.0, 0.0)]))
    assert np.isfinite(points).all()
    assert points[1].tolist() == pytest.approx([320, 224.7], abs=0.2)


# ---- H.264 in RTP ----


def join(packets: list[bytes]) -> list[bytes]:
    """What a receiver makes of the packets (RFC 6184 sections 5.6 and 5.8)."""
    units: list[bytes] = []
    for packet in packets:
        payload = packet[12:]
        if payload[0] & 0x1F != 28:
            units.append(payload)
        elif payload[1] & 0x80:
            units.append(bytes(((payload[0] & 0xE0) | (payload[1] & 0x1F),)) + payload[2:])
        else:
            units[-1] += payload[2:]
    return units


@given(
    st.lists(
        st.binary(min_size=1, max_size=6000).map(lambda b: bytes((b[0] & 0x7F | 1,)) + b[1:]), min_size=1, max_size=4
    ),
    st.integers(0, 0xFFFF),
)
def test_any_units_survive_packets(units: list[bytes], start: int) -> None:
    units = [bytes(((u[0] & 0x60) | (u[0] % 23 + 1),)) + u[1:] for u in units]  # types 1-23: single NAL units
    packets = Packetizer(ssrc=7, sequence=start).packets(units, 90_000)
    assert join(packets) == units
    assert all(len(packet) <= MAX_PAYLOAD + 12 for packet in packets)
    heads = [struct.unpack("!BBHII", packet[:12]) for packet in packets]
    assert [h[2] for h in heads] == [(start + i) & 0xFFFF for i in range(len(packets))]
    assert [bool(h[1] & 0x80) for h in heads] == [False] * (len(packets) - 1) + [True]


def test_nal_units_are_cut_at_both_kinds_of_start_code() -> None:
    assert split_nal_units(b"\0\0\0\1\x67ab\0\0\1\x68c\0\0\0\1\x65defg") == [b"\x67ab", b"\x68c", b"\x65defg"]
    assert split_nal_units(b"") == []


def test_the_encoder_begins_with_a_key_picture_and_gives_one_a_second() -> None:
    encoder, scene = Encoder(640, 360, 5), LaneScene(CameraModel.from_table({"id": "c"}))
    kinds = [[u[0] & 0x1F for u in encoder.encode(scene.render(i / 5), i / 5)] for i in range(11)]
    assert kinds[0][:2] == [7, 8]
    assert [i for i, k in enumerate(kinds) if 5 in k] == [0, 5, 10]


# ---- the server's manners ----


async def ask(server: RtspServer, *requests: str) -> list[str]:
    """Status lines of the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    out: list[str] = []
    for request in requests:
        writer.write(request.replace("URL", server.url("c")).encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        out.append(answer)
        for line in answer.split("\r\n"):
            if line.startswith("Content-Length:"):
                out[-1] += (await reader.readexactly(int(line.split(":")[1]))).decode()
    writer.close()
    await writer.wait_closed()
    return out


def test_rtsp_answers() -> None:
    async def main() -> list[str]:
        server = RtspServer("127.0.0.1:0", [CameraModel.from_table({"id": "c"})])
        await server.start()
        try:
            return await ask(
                server,
                "OPTIONS URL RTSP/1.0\r\nCSeq: 1\r\n\r\n",
                "DESCRIBE URL RTSP/1.0\r\nCSeq: 2\r\n\r\n",
                "DESCRIBE URLx RTSP/1.0\r\nCSeq: 3\r\n\r\n",
                "PLAY URL RTSP/1.0\r\nCSeq: 4\r\n\r\n",
                "SETUP URL/track1 RTSP/1.0\r\nCSeq: 5\r\nTransport: RTP/AVP;unicast;client_port=4000-4001\r\n\r\n",
                "SETUP URL/track1 RTSP/1.0\r\nCSeq: 6\r\nTransport: RTP/AVP/TCP;interleaved=2-3\r\n\r\n",
                "RECORD URL RTSP/1.0\r\nCSeq: 7\r\n\r\n",
                "TEARDOWN URL RTSP/1.0\r\nCSeq: 8\r\n\r\n",
            )
        finally:
            await server.close()

    answers = asyncio.run(main())
    assert [a.split("\r\n")[0].split(" ")[1] for a in answers] == [
        "200",
        "200",
        "404",
        "455",
        "461",
        "200",
        "501",
        "200",
    ]
    assert [f"CSeq: {i + 1}" in a for i, a in enumerate(answers)] == [True] * 8
    description = answers[1]
    sets = description.split("sprop-parameter-sets=")[1].split("\r\n")[0].split(",")
    assert [base64.b64decode(s)[0] & 0x1F for s in sets] == [7, 8]
    assert "interleaved=2-3" in answers[5]


@pytest.mark.parametrize("garbage", [b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b"$\x00\x00\x04abcd", b"x" * 70_000])
def test_garbage_ends_one_connection_and_leaves_the_camera_alone(garbage: bytes) -> None:
    async def main() -> str:
        server = RtspServer("127.0.0.1:0", [CameraModel.from_table({"id": "c"})])
        await server.start()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(garbage)
            writer.write_eof()
            writer.close()
            return (await ask(server, "OPTIONS URL RTSP/1.0\r\nCSeq: 1\r\n\r\n"))[0]
        finally:
            await server.close()

    assert asyncio.run(main()).startswith("RTSP/1.0 200")


def test_a_client_that_does_not_read_loses_pictures_and_holds_nobody_up() -> None:
    async def main() -> tuple[int, int]:
        now = [0.0]
        server = RtspServer("127.0.0.1:0", [CameraModel.from_table({"id": "c", "fps": 30})], elapsed_s=lambda: now[0])
        await server.start()
        try:
            channel = server._channels["c"]
            idle, busy = channel.join(), channel.join()
            got = 0
            for _ in range(40):
                now[0] += 1 / 30
                while (picture := await asyncio.wait_for(busy.queue.get(), 5)) is not None:
                    got += 1
                    break
                assert picture is not None
            assert idle.queue.full()
            return got, server.dropped
        finally:
            await server.close()

    got, dropped = asyncio.run(main())
    assert got == 40
    assert dropped > 0
