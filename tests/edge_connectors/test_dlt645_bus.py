"""The meter connector: blocks and their fall-back, rhythm, follow-ups, 32 meters on one slow line."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from edge.clock import LoopClock
from edge.connectors.base import Link
from edge.connectors.build import build
from edge.connectors.config import Dlt645Config, Dlt645Device
from edge.connectors.meter_plan import MeterPlan
from firmware_sim.links.pace import LineTime, PacedLink
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.model import Quality
from protocols.devices import load
from protocols.dlt645.frame import Frame
from protocols.dlt645.frame import build as frame_bytes
from protocols.dlt645.messages import ReadReply
from protocols.dlt645.slave import Source, table_source
from tests.edge_connectors.peers import START_MS, MeterPeer, dialled, serving
from tests.support.virtual import RecordingSink

TYPE = "meter/electricity_three_phase"
NUMBERS: dict[str, Decimal | None] = {
    "00010000": Decimal("123456.78"),
    "02010100": Decimal("231.9"),
    "02010200": Decimal("230.1"),
    "02010300": Decimal("229.7"),
    "02020100": Decimal("4.999"),
    "02020200": Decimal("-11.519"),
    "02020300": Decimal("0.001"),
    "02030000": Decimal("-0.2512"),
    "02060000": Decimal("0.981"),
    "02800002": Decimal("50.03"),
}
FIRST_ROUND = {"0201FF00", "0202FF00", "02030000", "02060000", "02800002", "00010000"}


def address(n: int) -> str:
    return f"{100 + n:012d}"


def meters(count: int, **options: Any) -> Dlt645Config:
    devices = tuple(Dlt645Device(id=f"meter-{n:02d}", type=TYPE, address=address(n)) for n in range(1, count + 1))
    return Dlt645Config(id="meters", port="unused", device=devices, **options)


def play(config: Dlt645Config, peer: MeterPeer, seconds: float, wrap: Any = lambda link: link) -> RecordingSink:
    sink = RecordingSink()

    async def main() -> None:
        async with serving(build(config, LoopClock(START_MS), dialled(peer.serve, wrap)), sink):
            await asyncio.sleep(seconds)

    run_virtual(main(), START_MS)
    return sink


def one(source: Source, seconds: float = 30, **options: Any) -> tuple[RecordingSink, MeterPeer]:
    peer = MeterPeer({address(1): source}, **options)
    return play(meters(1), peer, seconds), peer


def test_blocks_and_exact_values() -> None:
    sink, peer = one(table_source(NUMBERS))
    assert {di for _, di in peer.asked} == FIRST_ROUND
    assert len(peer.asked) == 6  # not ten
    (sweep,) = sink.sweeps
    assert dict(zip(sweep.points, sweep.values.tolist(), strict=True)) == {
        "energy_active": 123456.78,
        "voltage_a": 231.9,
        "voltage_b": 230.1,
        "voltage_c": 229.7,
        "current_a": 4.999,
        "current_b": -11.519,
        "current_c": 0.001,
        "power_active": -0.2512,
        "power_factor": 0.981,
        "frequency": 50.03,
    }
    assert sink.states == [("meter-01", True)]


def test_energy_is_read_rarely() -> None:
    sink, peer = one(table_source(NUMBERS), seconds=60 * 10 + 30)  # rounds 0..10
    asked = Counter(di for _, di in peer.asked)
    assert asked["0201FF00"] == asked["02030000"] == 11
    assert asked["00010000"] == asked["02800002"] == 3  # rounds 0, 5, 10
    assert len(sink.values("meter-01", "voltage_a")) == 11
    assert len(sink.values("meter-01", "energy_active")) == 3


def test_a_meter_without_blocks_is_asked_singly_from_then_on() -> None:
    sink, peer = one(table_source(NUMBERS, blocks=False), seconds=90)
    assert sink.reports == []
    assert [len(sweep.points) for sweep in sink.sweeps] == [10, 7]
    asked = Counter(di for _, di in peer.asked)
    assert asked["0201FF00"] == asked["0202FF00"] == 1
    assert asked["02010300"] == 2


def test_a_quantity_the_meter_does_not_have() -> None:
    without = {di: value for di, value in NUMBERS.items() if di != "02060000"}
    sink, peer = one(table_source(without), seconds=60 * 5 + 30)
    assert [(r.event_type, r.code, r.point) for r in sink.reports] == [("data.rejected", "no_data", "power_factor")]
    assert Counter(di for _, di in peer.asked)["02060000"] == 1
    assert len(sink.sweeps[0].points) == 9


def test_missing_and_damaged_values_are_no_numbers() -> None:
    good = table_source({**NUMBERS, "02020200": None})

    def source(di: str) -> bytes | None:
        return bytes.fromhex("CD22") if di == "02800002" else good(di)

    sink, _ = one(source)
    (sweep,) = sink.sweeps
    at = dict(zip(sweep.points, range(len(sweep.points)), strict=True))
    for point in ("current_b", "frequency"):
        assert np.isnan(sweep.values[at[point]])
        assert sweep.quality[at[point]] == Quality.MISSING
    assert [(r.code, r.point) for r in sink.reports] == [("damaged", "frequency")]


def test_a_shorter_block_leaves_phases_missing() -> None:
    one_phase = {di: value for di, value in NUMBERS.items() if di not in ("02010200", "02010300")}
    sink, _ = one(table_source(one_phase))
    (sweep,) = sink.sweeps
    at = sweep.points.index("voltage_c")
    assert sweep.quality[at] == Quality.MISSING
    assert sink.values("meter-01", "voltage_a") == [231.9]


def test_follow_up_frames_are_joined() -> None:
    good = table_source(NUMBERS)
    peer = MeterPeer({address(1): good})

    def cut(reply: Any, data: bytes) -> bytes:
        # The meter sends the three voltages as two frames: B1, then 92 with SEQ 1.
        if isinstance(reply, ReadReply) and reply.di == "0201FF00":
            di = bytes.fromhex("00FF0102")
            return frame_bytes(Frame(reply.addr, 0xB1, di + reply.data[:2]))
        return data

    peer.spoil = cut
    sink = RecordingSink()

    class Second:
        """Answers the follow-up, which the table does not know."""

        def __init__(self, link: Link) -> None:
            self._link, self.close = link, link.close

        async def read(self) -> bytes:
            while data := await self._link.read():
                if data[4 + 8] != 0x12:
                    return data
                rest = good("0201FF00") or b""
                await self._link.write(
                    frame_bytes(Frame(address(1), 0x92, bytes.fromhex("00FF0102") + rest[2:] + b"\x01"))
                )
            return b""

        async def write(self, data: bytes) -> None:
            await self._link.write(data)

    sink = play(meters(1), peer, 30, Second)
    assert sink.values("meter-01", "voltage_a") == [231.9]
    assert sink.values("meter-01", "voltage_c") == [229.7]
    assert sink.reports == []


def test_answer_of_another_meter_is_not_booked() -> None:
    def stranger(reply: Any, data: bytes) -> bytes:
        if isinstance(reply, ReadReply) and reply.di == "02030000":
            other = Frame(address(7), 0x91, bytes.fromhex("00000302") + bytes.fromhex("999999"))
            return frame_bytes(other)
        return data

    peer = MeterPeer({address(1): table_source(NUMBERS)}, spoil=stranger)
    sink = play(meters(1), peer, 30)
    assert {r.code for r in sink.reports} == {"wrong_address"}
    assert sink.values("meter-01", "power_active") == []


def test_dead_meter_costs_little_and_is_told_once() -> None:
    good = table_source(NUMBERS)
    peer = MeterPeer({address(n): good for n in (1, 2, 3)}, silent={address(2)})
    sink = play(meters(3), peer, 600)
    assert [state for device, state in sink.states if device == "meter-02"] == [False]
    assert len(sink.values("meter-01", "voltage_a")) == len(sink.values("meter-03", "voltage_a")) == 10
    tries = sum(1 for addr, _ in peer.asked if addr == address(2))
    assert tries <= 3 + 2 + 3  # three tries, one at each of two polls, then every 300 s


def test_32_meters_at_2400_baud_keep_their_minute() -> None:
    line: list[LineTime] = []

    def paced(link: Link) -> Link:
        line.append(LineTime(2400, 11))
        return PacedLink(link, line[0])

    peer = MeterPeer({address(n): table_source(NUMBERS) for n in range(1, 33)})
    sink = play(meters(32), peer, 60 * 10, paced)
    assert peer.overlaps == 0  # never two requests on the wire
    rounds = Counter(sweep.device for sweep in sink.sweeps)
    assert len(rounds) == 32
    assert min(rounds.values()) >= 9
    assert sink.reports == []
    share = line[0].busy_s / 600
    assert 0.3 < share < 0.8


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (["voltage_a"], ["02010100"]),  # one point needs no block
        (["voltage_a", "voltage_c"], ["0201FF00"]),
        (["energy_active", "frequency"], ["00010000", "02800002"]),
    ],
)
def test_plan(points: list[str], expected: list[str]) -> None:
    found = load(TYPE)
    assert [q.di for q in MeterPlan([found.point(name) for name in points]).questions] == expected


def test_short_questions_come_first() -> None:
    sizes = [question.reply_bytes for question in MeterPlan(load(TYPE).points).due(0)]
    assert sizes == sorted(sizes)
