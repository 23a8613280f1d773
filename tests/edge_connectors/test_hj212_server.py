"""The HJ 212 connector: many stations, 9014 only for what is durable, flags, clocks, strangers, silence."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.clock import LoopClock, WallClock
from edge.connectors.build import build
from edge.connectors.config import Hj212Device, Hj212ServerConfig
from edge.connectors.links import tcp_client
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.errors import LinkDown
from protocols.core.model import Quality
from protocols.hj212.frame import build as frame_bytes
from protocols.hj212.messages import Packet, encode, format_time, split, upload
from tests.edge_connectors.peers import START_MS, Door, StationPeer, serving
from tests.support.virtual import RecordingSink

MN = "010000A8900016F000169DC0"
OTHER_MN = "010000A8900016F000169DC1"


def config(**options: Any) -> Hj212ServerConfig:
    devices = (
        Hj212Device(id="dust-1", type="env/dust_station", mn=MN),
        Hj212Device(id="dust-2", type="env/dust_station", mn=OTHER_MN, password="654321"),
    )
    return Hj212ServerConfig(**{"id": "dust", "listen": "127.0.0.1:9001", "device": devices, **options})


def pm10(
    time_ms: int, text: str = "85.4", *, mn: str = MN, qn_ms: int | None = None, flag: str = "N", **options: Any
) -> Packet:
    """A real-time upload with one factor."""
    factors = {"a34002": {"Rtd": text, "Flag": flag}}
    told_ms = time_ms if qn_ms is None else qn_ms
    return upload("2011", mn, factors, data_time_ms=time_ms, qn_ms=told_ms, **options)


Body = Callable[[Door, LoopClock], Awaitable[None]]


def play(body: Body, *, settings: Hj212ServerConfig | None = None, sink: RecordingSink | None = None) -> RecordingSink:
    kept = sink or RecordingSink()

    async def main() -> None:
        door, clock = Door(), LoopClock(START_MS)
        async with serving(build(settings or config(), clock, door.accept), kept):
            await body(door, clock)

    run_virtual(main(), START_MS)
    return kept


def test_an_upload_becomes_one_sweep() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        factors = {"a34002": {"Rtd": "85.4", "Flag": "N"}, "a01007": {"Rtd": "2.3"}, "a99999": {"Rtd": "1"}}
        now_ms = clock.now_ms()
        await station.push(upload("2011", MN, factors, data_time_ms=now_ms - 5_000, qn_ms=now_ms))

    sink = play(body)
    (sweep,) = sink.sweeps
    assert (sweep.device, sweep.points, sweep.values.tolist()) == ("dust-1", ("pm10", "wind_speed"), [85.4, 2.3])
    assert sweep.source_ms == START_MS - 5_000
    assert sweep.seen_ms == START_MS
    assert sweep.exchange == f"{MN}/2011/{format_time(START_MS - 5_000)}"
    assert sweep.quality.tolist() == [Quality.GOOD, Quality.GOOD]
    assert sink.counts["factors_unmapped"] == 1
    assert sink.states == [("dust-1", True)]


def test_9014_only_when_durable() -> None:
    kept = RecordingSink(durable=False)

    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        packet = pm10(clock.now_ms())
        await station.push(packet)
        await asyncio.sleep(5)
        assert station.answered == []
        assert station.endpoint.unanswered == (packet,)
        kept.pending[0]()
        await asyncio.sleep(0.1)
        assert station.answered == [packet.qn]
        assert station.endpoint.unanswered == ()

    play(body, sink=kept)


def test_no_answer_where_none_is_wanted() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        factors = {"a34002": {"Rtd": "1"}}
        now_ms = clock.now_ms()
        await station.push(upload("2011", MN, factors, data_time_ms=now_ms, qn_ms=now_ms, flag=4))
        assert station.heard == []

    assert len(play(body).sweeps) == 1


def test_a_repeat_has_the_same_exchange() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        await station.push(pm10(clock.now_ms()))
        await asyncio.sleep(10.1)
        await station.tick()  # no 9014 within 10 s

    sink = play(body, sink=RecordingSink(durable=False))
    first, second = sink.sweeps
    assert first.exchange == second.exchange
    assert first.source_ms == second.source_ms


def test_answer_goes_to_a_connection_that_is_gone_without_harm() -> None:
    kept = RecordingSink(durable=False)

    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        await station.push(pm10(clock.now_ms()))
        await station.link.close()
        await asyncio.sleep(1)
        kept.pending[0]()
        again = StationPeer(door.dial(), station.endpoint)
        station.endpoint.connected(clock.now_ms())
        await again.write(station.endpoint.take_output())
        kept.pending[1]()
        await asyncio.sleep(0.1)
        assert len(again.answered) == 1

    play(body, sink=kept)
    assert len({sweep.exchange for sweep in kept.sweeps}) == 1


def test_several_stations_on_one_and_on_two_connections() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        one, two = StationPeer(door.dial()), StationPeer(door.dial())
        await one.push(pm10(clock.now_ms()))
        await one.push(pm10(clock.now_ms(), mn=OTHER_MN, pw="654321"))  # a forwarder
        await two.push(pm10(clock.now_ms() + 1000, mn=OTHER_MN, pw="654321"))
        await one.link.close()
        await two.push(pm10(clock.now_ms() + 2000, mn=OTHER_MN, pw="654321"))

    sink = play(body)
    assert [sweep.device for sweep in sink.sweeps] == ["dust-1", "dust-2", "dust-2", "dust-2"]


def test_a_stranger_is_reported_and_not_answered() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        await station.push(pm10(clock.now_ms(), mn="STRANGER"))
        await station.push(pm10(clock.now_ms()))
        assert len(station.answered) == 1

    sink = play(body)
    assert [(r.event_type, r.device, r.code) for r in sink.reports] == [
        ("data.rejected", "dust", "stranger"),
        ("device.unlisted", "dust", "STRANGER"),
    ]
    assert "STRANGER" in sink.reports[0].detail
    assert sink.counts["strangers"] == 1
    assert [sweep.device for sweep in sink.sweeps] == ["dust-1"]


def test_a_wrong_password_is_refused() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        await station.push(pm10(clock.now_ms(), mn=OTHER_MN, pw="000000"))
        assert station.heard == []

    sink = play(body)
    assert [(r.device, r.code) for r in sink.reports] == [("dust-2", "password")]
    assert sink.sweeps == []
    assert "654321" not in sink.reports[0].detail


def test_bad_frames_are_reported_and_hide_nothing() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        good, bad = encode(pm10(clock.now_ms())), encode(pm10(clock.now_ms() + 1000))
        await station.write(good + bad.replace(b"85.4", b"95.4") + b"\xff\x00junk" + encode(pm10(START_MS + 2000)))

    sink = play(body)
    assert len(sink.sweeps) == 2
    codes = [(r.device, r.code) for r in sink.reports]
    assert ("dust-1", "checksum") in codes
    assert set(codes) <= {("dust-1", "checksum"), ("dust-1", "garbage")}


@pytest.mark.parametrize(
    ("flag", "text", "quality", "event", "code"),
    [
        ("N", "12.5", Quality.GOOD, "", ""),
        ("C", "12.5", Quality.CALIBRATING, "dev.maintenance", "calibrating"),
        ("M", "12.5", Quality.MAINTENANCE, "dev.maintenance", "maintenance"),
        ("F", "12.5", Quality.MAINTENANCE, "dev.maintenance", "stopped"),
        ("D", "12.5", Quality.BAD, "dev.fault", "faulty"),
        ("T", "12.5", Quality.BAD, "dev.fault", "over_range"),
        ("B", "12.5", Quality.BAD, "dev.fault", "no_contact"),
        ("S", "12.5", Quality.MANUAL, "", ""),
        ("X", "12.5", Quality.SUSPECT, "", ""),
        ("N", "", Quality.MISSING, "", ""),
        ("N", "NaN", Quality.MISSING, "", ""),
        ("N", "--", Quality.MISSING, "", ""),
        ("D", "", Quality.MISSING, "dev.fault", "faulty"),
    ],
)
def test_item_flags(flag: str, text: str, quality: Quality, event: str, code: str) -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        for n in range(3):
            await station.push(pm10(clock.now_ms() + n, text, flag=flag))

    sink = play(body)
    assert {int(sweep.quality[0]) for sweep in sink.sweeps} == {quality}
    assert all(np.isnan(sweep.values[0]) == (quality is Quality.MISSING) for sweep in sink.sweeps)
    told = [(r.event_type, r.code, r.point) for r in sink.reports]
    assert told == ([(event, code, "pm10")] if event else [])  # once, not with every packet


def test_a_flag_that_comes_back_is_told_again() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        for n, flag in enumerate("CCNCD"):
            await station.push(pm10(clock.now_ms() + n, flag=flag))

    assert [r.code for r in play(body).reports] == ["calibrating", "calibrating", "faulty"]


# -- clocks


def skews(sink: RecordingSink) -> list[str]:
    return [r.code for r in sink.reports if r.event_type == "dev.clock_skew"]


@pytest.mark.parametrize("offset_s", [121, 3_600, -21 * 86_400, -20_000 * 86_400])
def test_a_clock_that_cannot_be_right(offset_s: int) -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        for n in range(3):
            await station.push(pm10(clock.now_ms() + offset_s * 1000, str(n)))
            await asyncio.sleep(1)

    sink = play(body)
    assert skews(sink) == ["offset"]
    assert all(sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps)
    assert all(sweep.quality[0] == Quality.GOOD for sweep in sink.sweeps)
    assert len({sweep.exchange for sweep in sink.sweeps}) == 3


@pytest.mark.parametrize("offset_s", [-120, 0, 119])
def test_a_clock_within_tolerance(offset_s: int) -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        await StationPeer(door.dial()).push(pm10(clock.now_ms() + offset_s * 1000))

    sink = play(body)
    assert skews(sink) == []
    assert sink.sweeps[0].source_ms == START_MS + offset_s * 1000


def test_what_was_kept_during_an_outage_keeps_its_time() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        begin_ms = clock.now_ms()
        await station.push(pm10(begin_ms))
        await asyncio.sleep(900)
        # 15 minutes without a link: what was measured meanwhile comes at once, with its old names, then live data.
        for n in range(1, 900):
            await station.push(pm10(begin_ms + 1000 * n, str(n)))
        await station.push(pm10(clock.now_ms()))

    sink = play(body)
    assert skews(sink) == []
    assert [sweep.source_ms - START_MS for sweep in sink.sweeps[:900]] == [1000 * n for n in range(900)]


def test_old_data_under_a_new_name_are_no_skew() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        for n in range(10):
            now_ms = clock.now_ms()
            await station.push(pm10(now_ms - 3_600_000, str(n), qn_ms=now_ms))
            await asyncio.sleep(1)

    sink = play(body)
    assert skews(sink) == []
    assert sink.sweeps[-1].source_ms < START_MS - 3_500_000


def test_a_slow_clock_is_found_by_its_steady_lag() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        for n in range(10):
            await station.push(pm10(clock.now_ms() - 600_000, str(n)))
            await asyncio.sleep(1)

    sink = play(body)
    assert skews(sink) == ["offset"]
    assert [sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps] == [False] * 3 + [True] * 7


def test_a_clock_put_back_is_found_at_once() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        for n in range(400):
            now_ms = clock.now_ms() // 1000 * 1000
            told_ms = now_ms if n < 300 else now_ms - 200_000
            await station.push(pm10(told_ms, str(n)))
            await asyncio.sleep(0.99)

    sink = play(body)
    assert skews(sink) == ["offset"]
    assert len(sink.sweeps) == 400
    assert len({sweep.exchange for sweep in sink.sweeps}) == 400  # nothing is taken for a repeat
    assert all(sweep.source_ms == sweep.seen_ms for sweep in sink.sweeps[300:])


def test_hourly_data_are_old_by_nature() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        factors = {"a34002": {"Avg": "80"}}
        for n in range(6):
            begin_ms = clock.now_ms() - 3_600_000
            packet = upload("2061", MN, factors, data_time_ms=begin_ms, qn_ms=clock.now_ms())
            await station.push(packet)
            await asyncio.sleep(3_600)
            assert len(station.answered) == n + 1

    sink = play(body)
    assert skews(sink) == []
    # The type keeps real-time data only: answered, so that the station does not send it for ever, and counted.
    assert sink.sweeps == []
    assert sink.counts["uploads_unmapped"] == 6


def test_clock_is_set_where_configured() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        await station.push(pm10(clock.now_ms()))
        await station.push(pm10(clock.now_ms() + 1000))
        sent = [packet for packet in station.heard if packet.cn == "1012"]
        assert [packet.fields["SystemTime"] for packet in sent] == [format_time(START_MS)]

    play(body, settings=config(set_clock=True))


# -- whatever a station may send

_wild = st.text("ab01=&-,#// .\x00中;", max_size=12)

_nasty = st.sampled_from(["a34002-Rtd=1_0", "a34002-Rtd=1e999", "a34002-Rtd=9", "DataTime=00010101000000"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    qn=_wild | st.sampled_from(["", "00010101000000", "99991231235959999"]),
    pw=_wild,
    body=st.lists(
        _wild | st.sampled_from(["a34002-Rtd=1_0", "a34002-Rtd=1e999", "DataTime=00010101000000"]), max_size=6
    ),
    flag=st.sampled_from(["0", "5", "7", "9", "", "x"]),
)
def test_no_packet_ends_the_connector(qn: str, pw: str, body: list[str], flag: str) -> None:
    head = f"QN={qn};ST=39;CN=2011;PW={pw};MN={MN};Flag={flag};CP=&&"
    wild = frame_bytes((head + ";".join(body) + "&&").encode())

    async def play_it(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        await station.write(wild)
        await asyncio.sleep(60)  # half frames are given up
        await station.push(pm10(clock.now_ms(), "7.5"))

    sink = play(play_it)
    assert sink.values("dust-1", "pm10")[-1] == 7.5  # still there
    assert all(np.isnan(v) or abs(v) < 1e300 for sweep in sink.sweeps for v in sweep.values)
    assert all(abs(sweep.seen_ms - sweep.source_ms) < 2**31 for sweep in sink.sweeps)


# -- links


def test_silence_is_told_once_and_so_is_the_return() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        await station.push(pm10(clock.now_ms()))
        await asyncio.sleep(300)
        await station.push(pm10(clock.now_ms()))

    sink = play(body, settings=config(silent_s=60.0))
    assert [s for s in sink.states if s[0] == "dust-1"] == [("dust-1", True), ("dust-1", False), ("dust-1", True)]
    assert [s for s in sink.states if s[0] == "dust-2"] == [("dust-2", False)]  # never came


def test_split_upload_is_one_sweep_and_one_answer() -> None:
    factors = {code: {"Rtd": str(n), "Flag": "N"} for n, code in enumerate(["a34002", "a34004", "a34001", "a01001"])}

    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        whole = upload("2011", MN, factors, data_time_ms=clock.now_ms(), qn_ms=clock.now_ms())
        parts = split(whole, limit=200)
        assert len(parts) > 1
        for part in reversed(parts):
            await station.push(part)
        assert station.answered == [whole.qn]
        assert station.endpoint.unanswered == ()

    sink = play(body)
    (sweep,) = sink.sweeps
    assert dict(zip(sweep.points, sweep.values.tolist(), strict=True)) == {
        "pm10": 0.0,
        "pm25": 1.0,
        "tsp": 2.0,
        "temperature": 3.0,
    }


def test_other_checksum_rules_are_found() -> None:
    async def body(door: Door, clock: LoopClock) -> None:
        station = StationPeer(door.dial())
        for n in range(4):
            await station.push(replace(pm10(clock.now_ms() + n), crc_variant="modbus-swapped"))
        assert len(station.answered) == 4  # answered in the station's own rule
        assert {packet.crc_variant for packet in station.heard} == {"modbus-swapped"}
        await station.push(pm10(clock.now_ms() + 10))  # after three good ones the rule is held

    sink = play(body)
    assert len(sink.sweeps) == 4
    assert [r.code for r in sink.reports] == ["checksum"]


def test_over_real_tcp() -> None:
    sink = RecordingSink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def main() -> None:
        settings = config(listen=f"127.0.0.1:{port}")
        async with serving(build(settings, WallClock()), sink) as server:
            link = None
            async with asyncio.timeout(10):
                while link is None:
                    try:
                        link = await tcp_client("127.0.0.1", port)()
                    except LinkDown:
                        await asyncio.sleep(0)  # not listening yet
                station = StationPeer(link)
                packet = pm10(WallClock().now_ms())
                await station.push(packet)
                await station.news.wait()
            assert station.answered == [packet.qn]
            assert not server.done()
            await link.close()

    asyncio.run(main())
    assert [sweep.device for sweep in sink.sweeps] == ["dust-1"]


def test_a_port_in_use_is_a_lost_link() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = config(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(LinkDown):
            asyncio.run(build(settings, WallClock()).run(RecordingSink()))
