"""The HJ 212 station against the codec's own platform end, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.core.endpoint import Role
from protocols.core.errors import LinkDown, RemoteProtocolError
from protocols.hj212.endpoint import Hj212Endpoint
from protocols.hj212.messages import Packet, data_answer, encode, set_clock
from tests.support.virtual import MORNING_MS, play

MN = "010000A8900016F000169DC0"
SCENE = """
id = "dust"
seed = 5
[[bus]]
id = "hj"
kind = "hj212-client"
[[device]]
id = "dust"
type = "env/dust_station"
bus = "hj"
mn = "010000A8900016F000169DC0"
%s
[device.signals]
pm10 = { steps = [[0, 90.0], [30, 120.04]] }
wind_speed = { base = 3.0, noise = 0.5 }
"""


class Platform:
    """Takes stations and answers 9014, unless told not to."""

    def __init__(self, rig: VirtualRig, answer: Callable[[Packet, float], bool] = lambda _packet, _t_s: True) -> None:
        self.rig = rig
        self.answer = answer
        self.got: list[tuple[float, Packet]] = []
        self.refused: list[str] = []
        self.links = 0
        self.to_say: list[Packet] = []
        self.bytes = b""

    async def run(self) -> None:
        accept = self.rig.link_factory("hj")
        while True:
            link = await accept()
            self.links += 1
            endpoint = Hj212Endpoint(Role.MASTER)
            for packet in self.to_say:
                await link.write(encode(packet))
            self.to_say = []
            try:
                while data := await link.read():
                    self.bytes += data
                    for message in endpoint.feed(data, self.rig.clock.now_ms()):
                        if isinstance(message, RemoteProtocolError):
                            self.refused.append(message.reason)
                            continue
                        self.got.append((self.rig.t_s, message))
                        if message.wants_answer and self.answer(message, self.rig.t_s):
                            await link.write(endpoint.send(data_answer(message), 0))
            except LinkDown:
                continue

    def times(self, cn: str = "2011") -> list[str]:
        return [packet.fields["DataTime"] for _, packet in self.got if packet.cn == cn]


def with_platform(
    until_s: float, more: str = "", *, say: list[Packet] | None = None, **options: Any
) -> tuple[Platform, MemoryLedger]:
    async def body(rig: VirtualRig) -> tuple[Platform, MemoryLedger]:
        platform = Platform(rig, **options)
        platform.to_say = say or []
        task = asyncio.create_task(platform.run())
        await rig.until_s(until_s)
        task.cancel()
        assert isinstance(rig.ledger, MemoryLedger)
        return platform, rig.ledger

    return play(SCENE % more, body)


def test_a_record_a_second_each_answered_once() -> None:
    platform, ledger = with_platform(60.5)
    assert platform.times() == [f"202603020800{second:02d}" for second in range(1, 60)] + ["20260302080100"]
    first, last = platform.got[0][1], platform.got[-1][1]
    assert (first.mn, first.st, first.flag, first.qn) == (MN, "39", 5, "20260302080001000")
    assert first.factors["a34002"] == {"Rtd": "90.0", "Flag": "N"}
    assert last.factors["a34002"] == {"Rtd": "120.0", "Flag": "N"}
    assert set(first.factors) == {"a34002", "a01007"}  # a point without a signal is not there
    dust = ledger.totals()["dust"]
    assert (len(dust.uploads), len(dust.acknowledged), set(dust.sent.values())) == (60, 60, {1})
    assert dust.uploads["2011", "20260302080001"]["pm10"] == "90.0"


def test_what_is_not_answered_is_repeated_unchanged_until_it_is() -> None:
    deaf_until_s = 100.0
    platform, ledger = with_platform(200, answer=lambda _packet, t_s: t_s >= deaf_until_s)
    first = [(t_s, packet) for t_s, packet in platform.got if packet.fields["DataTime"] == "20260302080001"]
    assert [t_s for t_s, _ in first[:4]] == pytest.approx([1, 11, 21, 31], abs=1.01)  # HJ 212: 10 s, 3 repeats
    assert {packet for _, packet in [(t, p.qn) for t, p in first]} == {"20260302080001000"}
    dust = ledger.totals()["dust"]
    # Old records ride along with new ones, twenty a second, so the backlog is gone soon after.
    assert max(int(moment) for _, moment in dust.open) >= 20260302080319 if dust.open else True
    assert len(dust.owed) == 200
    assert len(dust.open) <= 1


def test_nothing_is_lost_while_nobody_listens() -> None:
    async def body(rig: VirtualRig) -> tuple[list[str], MemoryLedger]:
        platform = Platform(rig)
        for begin_s, end_s in ((0.0, 100.0), (1000.0, 1500.0)):
            await rig.until_s(begin_s)
            task = asyncio.create_task(platform.run())
            await rig.until_s(end_s)
            task.cancel()
            await rig.hang_up("hj")  # the agent was killed
        assert isinstance(rig.ledger, MemoryLedger)
        return platform.times(), rig.ledger

    times, ledger = play(SCENE % "", body)
    dust = ledger.totals()["dust"]
    made = {moment for _, moment in dust.uploads}
    assert len(made) >= 1498
    assert made - set(times) <= {moment for _, moment in dust.open}
    assert len(dust.open) <= 1


def test_power_cut_makes_no_records_and_comes_back_by_itself() -> None:
    platform, ledger = with_platform(120, more="", answer=lambda _packet, _t_s: True)
    assert platform.links == 1
    scene = SCENE % "" + '[[device.fault]]\nkind = "restart"\nat_s = 30.5\nfor_s = 20\n'

    async def body(rig: VirtualRig) -> tuple[Platform, MemoryLedger]:
        platform = Platform(rig)
        task = asyncio.create_task(platform.run())
        await rig.until_s(120)
        task.cancel()
        assert isinstance(rig.ledger, MemoryLedger)
        return platform, rig.ledger

    platform, ledger = play(scene, body)
    assert platform.links == 2
    seconds = [int(moment[-4:-2]) * 60 + int(moment[-2:]) for moment in platform.times()]
    assert seconds == [*range(1, 31), *range(51, 120)]
    assert ledger.totals()["dust"].faults == {"restart": 1}


def run(more: str, until_s: float, **options: Any) -> tuple[Platform, MemoryLedger]:
    """Like with_platform, with tables behind the signals."""

    async def body(rig: VirtualRig) -> tuple[Platform, MemoryLedger]:
        platform = Platform(rig, **options)
        task = asyncio.create_task(platform.run())
        await rig.until_s(until_s)
        task.cancel()
        assert isinstance(rig.ledger, MemoryLedger)
        return platform, rig.ledger

    return play(SCENE % "" + more, body)


def test_silence_is_a_cut_cable_records_come_afterwards() -> None:
    platform, ledger = run('[[device.fault]]\nkind = "silence"\nat_s = 30\nfor_s = 60\n', 200.5)
    assert platform.links == 1  # nobody noticed
    assert not [t_s for t_s, _ in platform.got if 30 <= t_s < 90]
    assert set(platform.times()) >= {f"2026030208{s // 60:02d}{s % 60:02d}" for s in range(1, 199)}
    dust = ledger.totals()["dust"]
    assert (len(dust.open), dict(dust.faults)) == (0, {"silence": 1})


def test_wrong_checksum_is_repaired_by_the_repeat() -> None:
    platform, ledger = run('[[device.fault]]\nkind = "wrong_checksum"\nevery = 40\n', 400)
    dust = ledger.totals()["dust"]
    assert platform.refused == ["crc"] * dust.faults["wrong_checksum"]
    assert dust.faults["wrong_checksum"] == sum(dust.sent.values()) // 40 == 10
    late = {moment for _, moment in dust.open}
    assert {moment for _, moment in dust.uploads} - set(platform.times()) == late
    assert all(moment >= "20260302080629" for moment in late)  # only what is younger than one time-out


def test_own_clock_jumps_and_names_stay_unique() -> None:
    platform, ledger = run('[[device.fault]]\nkind = "clock_step"\nat_s = 20\nfor_s = 30\noffset_s = -15\n', 100)
    times = platform.times()
    assert times[:19] == [f"202603020800{second:02d}" for second in range(1, 20)]
    assert times[19] == "20260302080005"  # second 20 less 15
    assert times[49] == "20260302080050"
    assert ledger.totals()["dust"].faults == {"clock_step": 1}


def test_clock_put_back_does_not_reuse_the_name_of_an_open_exchange() -> None:
    deaf = {"answer": lambda _packet, _t_s: False}
    platform, _ = run('[[device.fault]]\nkind = "clock_step"\nat_s = 8\noffset_s = -5\n', 9.5, **deaf)
    assert platform.times() == [f"202603020800{s:02d}" for s in (1, 2, 3, 4, 5, 6, 7, 3, 4)]
    names = [packet.qn for _, packet in platform.got]
    assert (names[2], names[7]) == ("20260302080003000", "20260302080003001")
    assert len(set(names)) == 9


def test_flat_battery_starts_in_1970_and_the_platform_sets_the_clock() -> None:
    fault = '[[device.fault]]\nkind = "clock_step"\nset_to = "1970-01-01T08:00:00+08:00"\n'
    platform, _ = run(fault, 10)
    assert platform.times()[0] == "19700101080001"

    async def body(rig: VirtualRig) -> list[str]:
        platform = Platform(rig)
        platform.to_say = [set_clock(MN, pw="123456", st="39", now_ms=MORNING_MS)]
        task = asyncio.create_task(platform.run())
        await rig.until_s(10)
        task.cancel()
        answers = [(p.cn, p.fields.get("QnRtn") or p.fields.get("ExeRtn")) for _, p in platform.got if p.st == "91"]
        assert answers == [("9011", "1"), ("9012", "1")]
        return platform.times()

    assert play(SCENE % "" + fault, body)[-1].startswith("2026030208000")


def test_platform_is_refused_what_the_station_does_not_do() -> None:
    async def body(rig: VirtualRig) -> list[tuple[str, str]]:
        platform = Platform(rig)
        platform.to_say = [
            Packet(cn="1012", mn=MN, st="39", qn="1", pw="000000", flag=5, fields={"SystemTime": "20260302080000"}),
            Packet(cn="3020", mn=MN, st="39", qn="2", pw="123456", flag=5),
            Packet(cn="1011", mn=MN, st="39", qn="3", pw="123456", flag=5),
        ]
        task = asyncio.create_task(platform.run())
        await rig.until_s(2)
        task.cancel()
        return [
            (p.qn, p.fields.get("QnRtn", p.fields.get("SystemTime", p.cn))) for _, p in platform.got if len(p.qn) < 9
        ]

    assert play(SCENE % "", body) == [("1", "3"), ("2", "8"), ("3", "1"), ("3", "20260302080000"), ("3", "9012")]


def test_item_flags_follow_the_marks() -> None:
    platform, _ = run('[[device.mark]]\npoint = "pm10"\nflag = "C"\nat_s = 10\nfor_s = 5\n', 20)
    flags = [packet.factors["a34002"]["Flag"] for _, packet in platform.got]
    assert "".join(flags) == "N" * 9 + "C" * 5 + "N" * 5
    assert {packet.factors["a01007"]["Flag"] for _, packet in platform.got} == {"N"}


def test_minute_data_average_what_was_sent_and_state_their_start() -> None:
    platform, ledger = with_platform(130, "minute = true\n")
    assert platform.times("2051") == ["20260302080000", "20260302080100"]
    [first, second] = [packet for _, packet in platform.got if packet.cn == "2051"]
    # seconds 1..29 at 90.0, 30..59 at 120.0
    assert first.factors["a34002"] == {
        "Avg": f"{(29 * 90 + 30 * 120) / 59:.2f}",
        "Min": "90.00",
        "Max": "120.00",
        "Flag": "N",
    }
    assert second.factors["a34002"]["Avg"] == "120.00"
    assert len(ledger.totals()["dust"].acknowledged) == 129 + 2


def test_platform_that_never_reads_does_not_stop_the_measuring() -> None:
    async def body(rig: VirtualRig) -> int:
        link = await rig.link_factory("hj")()
        await rig.until_s(3600)  # far more than a memory pipe holds
        assert isinstance(rig.ledger, MemoryLedger)
        await link.close()
        return len(rig.ledger.totals()["dust"].uploads)

    assert play(SCENE % "", body) == 3599


def test_full_store_drops_the_oldest_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware_sim.devices.hj212_station.KEEP_RECORDS", 20)

    async def body(rig: VirtualRig) -> MemoryLedger:
        await rig.until_s(50.5)
        assert isinstance(rig.ledger, MemoryLedger)
        return rig.ledger

    dust = play(SCENE % "", body).totals()["dust"]
    assert len(dust.uploads) == 50
    assert sorted(moment for _, moment in dust.given_up) == [f"202603020800{s:02d}" for s in range(1, 31)]
    assert len(dust.open) == 20


def test_same_seed_same_bytes() -> None:
    faulty = '[[device.fault]]\nkind = "garble"\nevery = 7\n[[device.fault]]\nkind = "truncate"\nevery = 11\n'
    first, _ = run(faulty, 120)
    second, _ = run(faulty, 120)
    assert first.bytes == second.bytes
    assert len(first.bytes) > 10_000
