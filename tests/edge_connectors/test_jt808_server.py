"""The JT/T 808 connector message by message: who may speak, what is answered and when, what stays out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.clock import LoopClock, WallClock
from edge.connectors.base import Command
from edge.connectors.build import build
from edge.connectors.fleet_config import Jt808Device, Jt808ServerConfig
from edge.connectors.jt808_server import Jt808Server
from edge.connectors.jt808_values import getter
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, LinkDown, TransportError
from protocols.core.model import Quality
from protocols.jt808 import media, platform, terminal
from protocols.jt808.body import Body, Opaque
from protocols.jt808.endpoint import Jt808Endpoint
from protocols.jt808.fields import time_text
from protocols.jt808.frame import Frame
from protocols.jt808.frame import build as frame_bytes
from protocols.jt808.messages import Message
from protocols.jt808.position import Batch, Position, make
from tests.edge_connectors.peers import START_MS, Door, loop_ms, serving
from tests.support.virtual import RecordingSink

PHONE, OTHER = "013912344323", "013912344324"


def config(**options: Any) -> Jt808ServerConfig:
    devices = (
        Jt808Device(id="truck", type="vehicle/terminal", phone=PHONE.lstrip("0")),
        Jt808Device(id="taxi", type="vehicle/terminal_gcj02", phone=OTHER, auth_code="given-elsewhere"),
    )
    return Jt808ServerConfig(**{"id": "fleet", "listen": "127.0.0.1:808", "device": devices, **options})


class Peer:
    """One terminal's connection."""

    def __init__(self, door: Door, phone: str = PHONE, **endpoint: Any) -> None:
        self.link = door.dial()
        self.phone = phone
        self.endpoint = Jt808Endpoint(Role.SLAVE, **endpoint)
        self.heard: list[Body] = []
        self.closed = False
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(TransportError):
            while data := await self.link.read():
                found = self.endpoint.feed(data, loop_ms())
                self.heard += [one.body for one in found if isinstance(one, Message)]
        self.closed = True

    async def say(self, body: Body, serial: int | None = None, version: Any = "2013") -> None:
        phone = self.phone if version == "2013" else self.phone.rjust(20, "0")
        with contextlib.suppress(TransportError):
            await self.link.write(self.endpoint.send(Message(phone, body, serial, version), loop_ms()))
        await asyncio.sleep(0.01)

    async def log_in(self) -> str:
        await self.say(terminal.Register(34, 100, "M", "T", "1", 2, "皖A1"))
        (answer,) = [one for one in self.heard if isinstance(one, platform.RegisterAnswer)]
        await self.say(terminal.Authenticate(answer.auth_code))
        return answer.auth_code

    def answers(self, msg_id: int) -> list[int]:
        """Results of the general answers to messages of that id."""
        return [one.result for one in self.heard if isinstance(one, platform.PlatformAnswer) and one.ack_id == msg_id]


def here(offset_s: float = 0.0, **options: Any) -> Position:
    return make(lat=31.82, lon=117.22, time_ms=START_MS + round(offset_s * 1000), **options)


Run = Callable[[Door, Jt808Server], Awaitable[Any]]


def play(body: Run, *, sink: RecordingSink | None = None, settings: Jt808ServerConfig | None = None) -> RecordingSink:
    kept = sink or RecordingSink()

    async def main() -> None:
        door, clock = Door(), LoopClock(START_MS)
        connector = build(settings or config(), clock, door.accept)
        assert isinstance(connector, Jt808Server)
        async with serving(connector, kept):
            await body(door, connector)

    run_virtual(main(), START_MS)
    return kept


def test_a_position_becomes_one_sweep_and_8001_waits_for_the_disk() -> None:
    kept = RecordingSink(durable=False)

    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door)
        await peer.log_in()
        await peer.say(terminal.PositionReport(here(speed_kmh=36.5, extras=((0x01, (123456).to_bytes(4, "big")),))))
        assert peer.answers(0x0200) == []
        for done in kept.pending:
            done()
        await asyncio.sleep(0.01)
        assert peer.answers(0x0200) == [0]

    play(body, sink=kept)
    (sweep,) = kept.sweeps
    said = dict(zip(sweep.points, sweep.values.tolist(), strict=True))
    assert (said["lat"], said["lon"], said["speed"], said["mileage"]) == (31.82, 117.22, 36.5, 12345.6)
    assert np.isnan(said["fuel"])
    assert dict(zip(sweep.points, sweep.quality.tolist(), strict=True))["fuel"] == Quality.MISSING
    assert (sweep.source_ms, sweep.historical) == (START_MS, False)


def test_a_place_that_is_not_believed_is_missing() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door)
        await peer.log_in()
        await peer.say(terminal.PositionReport(here(status=0b01)))
        await peer.say(terminal.PositionReport(replace(here(1), lat_raw=117_220_000, lon_raw=31_820_000)))

    sink = play(body)
    assert len(sink.sweeps) == 2
    assert all(np.isnan(value) for value in sink.values("truck", "lat") + sink.values("truck", "lon"))


def test_a_batch_is_answered_when_all_of_it_is_durable() -> None:
    kept = RecordingSink(durable=False)

    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door, max_body=60)
        await peer.log_in()
        await peer.say(terminal.BatchReport(Batch(tuple(here(-600 + n) for n in range(5)), kind=1)), 100)
        for number, done in enumerate(kept.pending):
            assert peer.answers(0x0704) == [0, 0]  # the first two of three parts
            done()
            await asyncio.sleep(0.01)
            assert number < 4 or peer.answers(0x0704) == [0, 0, 0]
        assert [one.ack_sn for one in peer.heard if isinstance(one, platform.PlatformAnswer)][-1] == 102

    play(body, sink=kept)
    assert [sweep.source_ms - START_MS for sweep in kept.sweeps] == [-600_000 + 1000 * n for n in range(5)]
    assert all(sweep.historical for sweep in kept.sweeps)


def test_strangers_get_no_place_and_are_reported_without_their_number() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door, "013999999999")
        await peer.say(terminal.PositionReport(here()))
        assert peer.heard == []
        await peer.say(terminal.Register(34, 100, "M", "T", "1", 2, "皖A1"))
        assert [one.result for one in peer.heard if isinstance(one, platform.RegisterAnswer)] == [4]

    sink = play(body)
    assert not sink.sweeps
    assert {report.code for report in sink.reports} == {"stranger"}
    assert not any("13999999999" in report.detail for report in sink.reports)


def test_wrong_codes_end_the_connection() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door)
        for n in range(4):
            await peer.say(terminal.Authenticate(f"guess-{n}"))
        assert peer.answers(0x0102) == [1, 1, 1] or peer.answers(0x0102) == [1, 1]
        await asyncio.sleep(0.1)
        assert peer.closed

    sink = play(body)
    assert sink.counts["authentications_refused"] == 3
    assert sink.states == []


def test_a_socket_without_the_code_takes_no_terminals_place() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        real, thief = Peer(door), Peer(door)
        await real.log_in()
        await thief.say(terminal.PositionReport(here()))
        await thief.say(terminal.Authenticate("guess"))
        station = connector._by_device["truck"]
        assert station.connection is not None
        await real.say(terminal.PositionReport(here(1)))
        assert real.answers(0x0200) == [0]
        assert thief.answers(0x0200) == []
        assert not real.closed

    assert len(play(body).sweeps) == 1


def test_the_one_with_the_code_replaces_the_old_connection() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        old = Peer(door)
        code = await old.log_in()
        new = Peer(door)
        await new.say(terminal.Authenticate(code))
        await asyncio.sleep(0.1)
        assert old.closed
        await new.say(terminal.Heartbeat())
        assert new.answers(0x0002) == [0]

    assert play(body).states == [("truck", True)]


def test_parts_before_authentication_are_not_even_held() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door, max_body=60)
        await peer.say(terminal.BatchReport(Batch(tuple(here(n) for n in range(5)))))
        assert peer.heard == []

    sink = play(body)
    assert not sink.sweeps
    assert {report.code for report in sink.reports} == {"unauthenticated"}


def test_what_is_unknown_or_broken_is_said_so() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door)
        await peer.log_in()
        await peer.say(Opaque(0x0F01, b"abc"))
        assert peer.answers(0x0F01) == [3]
        await peer.say(Opaque(0x0200, b"abc"))
        assert peer.answers(0x0200) == [2]
        await peer.say(media.MediaEvent(1, 0, 0, 1, 1))
        assert peer.answers(0x0800) == [3]  # an "ok" would let it forget the picture
        await peer.say(terminal.Transparent(0xF0, b"x"))
        assert peer.answers(0x0900) == [0]  # not kept, by configuration
        await peer.say(terminal.BatchReport(Batch(())))
        assert peer.answers(0x0704) == [0]

    sink = play(body)
    assert [report.code for report in sink.reports] == ["body"]


def test_time_is_told_in_utc_and_farewell_ends_trust() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door)
        await peer.log_in()
        await peer.say(terminal.TimeQuery())
        (told,) = [one for one in peer.heard if isinstance(one, platform.ServerTime)]
        assert time_text(told.time) == "2026-03-02 00:00:00"
        await peer.say(terminal.Deregister())
        assert peer.answers(0x0003) == [0]
        await peer.say(terminal.PositionReport(here()))
        assert peer.answers(0x0200) == []

    assert not play(body).sweeps


def test_codes_are_stable_with_a_key_and_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef")
    settings = config(auth_key_file=str(key))
    codes: list[str] = []

    async def body(door: Door, connector: Jt808Server) -> None:
        codes.append(await Peer(door).log_in())

    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            play(body, settings=settings)
        play(body)
    assert codes[0] == codes[1] != codes[2]
    assert len(set(codes[0])) > 4
    assert not any(code in caplog.text for code in codes)


def test_a_code_given_elsewhere_is_taken() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door, OTHER)
        await peer.say(terminal.Authenticate("given-elsewhere"))
        assert peer.answers(0x0102) == [0]
        await peer.say(terminal.Heartbeat())

    assert play(body).states == [("taxi", True)]


def test_an_unset_clock_is_told_once_and_identical_reports_stay_apart() -> None:
    parked = replace(here(), time=bytes(6))

    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door)
        await peer.log_in()
        for _ in range(3):
            await peer.say(terminal.PositionReport(parked))

    sink = play(body)
    assert len({sweep.exchange for sweep in sink.sweeps}) == 3
    assert all(sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps)
    assert [(report.event_type, report.code) for report in sink.reports] == [("dev.clock_skew", "unset")]


def test_noise_and_text_on_the_port_cost_nothing() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        peer = Peer(door)
        await peer.link.write(b"(0123,BASE,2,TIME)\x00\xff")
        await peer.log_in()
        await peer.link.write(frame_bytes(Frame(0x0200, PHONE, 9, b""))[:-3] + b"\x7e")
        await peer.say(terminal.PositionReport(here()))
        assert peer.answers(0x0200) == [0]

    sink = play(body)
    assert len(sink.sweeps) == 1
    assert sink.counts["frames_rejected"] >= 2


def test_a_power_cut_that_ends_brings_hundreds_at_once() -> None:
    many = tuple(Jt808Device(id=f"v{n}", type="vehicle/terminal", phone=f"{139_0000_0000 + n}") for n in range(400))

    async def body(door: Door, connector: Jt808Server) -> None:
        peers = [Peer(door, device.phone.rjust(12, "0")) for device in many]
        await asyncio.gather(*(peer.log_in() for peer in peers))
        await asyncio.gather(*(peer.say(terminal.PositionReport(here())) for peer in peers))
        assert all(peer.answers(0x0200) == [0] for peer in peers)

    sink = play(body, settings=config(device=many))
    assert len(sink.sweeps) == 400


def test_orders_need_a_connection() -> None:
    async def body(door: Door, connector: Jt808Server) -> None:
        with pytest.raises(LinkDown):
            await connector.command(Command("1", "truck", "send_text", {"text": "x"}))

    play(body)


def test_configuration_that_cannot_be() -> None:
    twice = tuple(Jt808Device(id=f"t{n}", type="vehicle/terminal", phone="0" * n + PHONE) for n in (1, 2))
    with pytest.raises(ConfigError, match=r"device\.phone"):
        build(config(device=twice), WallClock())
    with pytest.raises(ConfigError, match="auth_key_file"):
        build(config(auth_key_file="/nowhere/key"), WallClock())
    with pytest.raises(ConfigError, match="jt808 key"):
        getter("status.engine")
