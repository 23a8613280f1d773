"""The SL 651 connector at its edges: confirmations, strangers, addresses in the wrong order, bodies nobody can read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from edge.clock import LoopClock, WallClock
from edge.connectors.base import Command, Link, Outcome
from edge.connectors.build import build
from edge.connectors.config import check
from edge.connectors.hydrology_config import Sl651Device, Sl651ServerConfig
from edge.connectors.links import tcp_client
from firmware_sim.rig.virtual_loop import run_virtual
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, LinkDown, TransportError
from protocols.core.model import Quality
from protocols.sl651 import messages as sl651
from protocols.sl651.elements import Element, element, rain_series
from protocols.sl651.endpoint import Sl651Endpoint
from protocols.sl651.frame import End, Telegram, crc
from protocols.sl651.frame import build as wire
from protocols.sl651.reading import read
from tests.edge_connectors.peers import START_MS, Door, loop_ms, serving
from tests.support.virtual import RecordingSink

STATION, OTHER = "0012345678", "AB00000001"


class Peer:
    """A station's connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.endpoint = Sl651Endpoint(Role.SLAVE)
        self.heard: list[Telegram] = []
        self.news = asyncio.Event()
        self.on_question: Callable[[Telegram], Telegram | None] = lambda asked: None
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        with contextlib.suppress(TransportError):
            while data := await self.link.read():
                for one in self.endpoint.feed(data, loop_ms()):
                    if isinstance(one, Telegram):
                        self.heard.append(one)
                        self.news.set()
                        answer = self.on_question(one) if one.end is End.ENQ else None
                        if answer is not None:
                            await self.link.write(self.endpoint.send(answer, loop_ms()))

    async def push(self, telegram: Telegram | bytes) -> None:
        data = telegram if isinstance(telegram, bytes) else self.endpoint.send(telegram, loop_ms())
        await self.link.write(data)
        await asyncio.sleep(0.01)

    @property
    def ends(self) -> list[End]:
        return [one.end for one in self.heard]


def config(kind: str = "hydro/river_station", **device: Any) -> Sl651ServerConfig:
    return Sl651ServerConfig(
        id="hydro",
        listen="127.0.0.1:9651",
        device=(
            Sl651Device(id="river-1", type=kind, station=STATION, **device),
            Sl651Device(id="river-2", type=kind, station=OTHER, password="1234"),
        ),
    )


Body = Callable[[Door, LoopClock, Any], Awaitable[None]]


def play(body: Body, *, settings: Sl651ServerConfig | None = None, sink: RecordingSink | None = None) -> RecordingSink:
    kept = sink or RecordingSink()

    async def main() -> None:
        door, clock = Door(), LoopClock(START_MS)
        connector = build(settings or config(), clock, door.accept)
        async with serving(connector, kept):
            await asyncio.sleep(0)
            await body(door, clock, connector)

    run_virtual(main(), START_MS)
    return kept


def report(
    *elements: Element,
    ms: int = START_MS,
    serial: int = 1,
    func: int = sl651.TIMED,
    station: str = STATION,
    **more: Any,
) -> Telegram:
    group = sl651.Group(sl651.stamp(ms, 10), elements or (element("39", "12.34"),))
    message = sl651.Report(serial, sl651.stamp(ms), station, "48", (group,), **more)
    return Telegram(func, sl651.write(message), station, 1, "04D2")


def pushed(*telegrams: Telegram | bytes, **options: Any) -> tuple[RecordingSink, list[Telegram]]:
    heard: list[Telegram] = []

    async def body(door: Door, clock: LoopClock, connector: Any) -> None:
        peer = Peer(door.dial())
        for telegram in telegrams:
            await peer.push(telegram)
        heard.extend(peer.heard)

    return play(body, **options), heard


def test_a_report_becomes_a_sweep_and_is_confirmed() -> None:
    sink, heard = pushed(report(element("39", "12.34"), element("26", "120.5"), element("77", "1", 0x19)))
    (sweep,) = sink.sweeps
    assert (sweep.points, sweep.values.tolist()) == (("level", "rain_total"), [12.34, 120.5])
    assert (sweep.source_ms, sweep.exchange) == (START_MS, f"{STATION}/32/1/260302080000/0/2603020800")
    assert sink.counts["elements_unmapped"] == 1
    (answer,) = heard
    message = read(answer)
    assert (answer.func, answer.end, answer.center, answer.password) == (sl651.TIMED, End.EOT, 1, "04D2")
    assert isinstance(message, sl651.Plain) and (message.serial, message.sent) == (1, "260302080000")


@pytest.mark.parametrize(("confirm", "ends"), [("ESC", [End.ESC]), ("ACK", [End.ACK]), ("none", [])])
def test_how_reports_are_answered_is_the_stations_setting(confirm: str, ends: list[End]) -> None:
    _, heard = pushed(report(), settings=config(confirm=confirm))
    assert [one.end for one in heard] == ends


def test_a_confirmation_only_when_every_time_of_it_is_durable() -> None:
    sink = RecordingSink(durable=False)

    async def body(door: Door, clock: LoopClock, connector: Any) -> None:
        peer = Peer(door.dial())
        slots = rain_series((Decimal("0.5"), None, Decimal("1.0"), *(None,) * 9))
        groups = (
            sl651.Group(sl651.stamp(START_MS - 3_300_000, 10), (slots,)),
            sl651.Group(sl651.stamp(START_MS, 10), (element("39", "1.5"),)),
        )
        body = sl651.write(sl651.Report(3, sl651.stamp(START_MS), STATION, "48", groups))
        await peer.push(Telegram(sl651.HOURLY, body, STATION))
        assert len(sink.pending) == 3  # two slots with a value, one level
        for pending in sink.pending[:2]:
            pending()
        await asyncio.sleep(1)
        assert peer.heard == []
        sink.pending[2]()
        await asyncio.sleep(1)
        assert peer.ends == [End.EOT]

    play(body, sink=sink)
    assert [sweep.source_ms - START_MS for sweep in sink.sweeps] == [-3_300_000, -2_700_000, 0]


def test_values_behind_a_time_step_are_readings_of_their_own_times() -> None:
    hour_ms = 3_600_000
    first_ms = START_MS - 3 * hour_ms
    opening = "0001" + sl651.stamp(START_MS) + "F1F1" + STATION + "48" + "F0F0" + sl651.stamp(first_ms, 10)
    body = bytes.fromhex(opening + "0418000100" + "3923" + "00000122" + "FFFFFFFF" + "00010491")
    sink, heard = pushed(Telegram(sl651.EVEN, body, STATION, 1, "04D2"))
    found = {sweep.source_ms: sweep.values.tolist() for sweep in sink.sweeps}
    assert found == {first_ms: [0.122], first_ms + 2 * hour_ms: [10.491]}  # the slot without a value makes nothing
    assert len(heard) == 1


def test_a_repeat_has_the_same_names() -> None:
    sink, heard = pushed(report(), report())
    assert len(sink.sweeps) == 2
    assert len({sweep.exchange for sweep in sink.sweeps}) == 1
    assert len(heard) == 2


def test_keep_alive_is_a_sign_of_life_and_gets_no_answer() -> None:
    alive = Telegram(sl651.KEEP_ALIVE, sl651.write(sl651.Plain(1, sl651.stamp(START_MS))), STATION)
    sink, heard = pushed(alive)
    assert (sink.states, heard, sink.sweeps) == ([("river-1", True)], [], [])


def test_strangers_and_wrong_passwords() -> None:
    sink, heard = pushed(report(station="9999999999"), report(station=OTHER))
    assert [(r.device, r.code) for r in sink.reports] == [
        ("hydro", "stranger"),
        ("hydro", "9999999999"),
        ("river-2", "password"),
    ]
    assert (heard, sink.sweeps) == ([], [])
    assert "1234" not in sink.reports[2].detail


def test_the_other_order_of_addresses_is_understood() -> None:
    data = bytearray(wire(report())[:-2])
    data[2:8] = bytes.fromhex(STATION) + b"\x01"
    sink, _ = pushed(bytes(data) + crc(bytes(data)).to_bytes(2, "big"))
    assert [sweep.device for sweep in sink.sweeps] == ["river-1"]


def test_fill_values_are_missing() -> None:
    sink, _ = pushed(report(element("39", "9999.999"), element("26", None)))
    (sweep,) = sink.sweeps
    assert sweep.quality.tolist() == [Quality.MISSING, Quality.MISSING]


def test_values_made_by_hand_are_marked() -> None:
    body = sl651.write(sl651.Report(1, sl651.stamp(START_MS), manual=b" PJ 02 Z 3.25 XX 9 "))
    sink, heard = pushed(Telegram(sl651.MANUAL, body, STATION))
    (sweep,) = sink.sweeps
    assert dict(zip(sweep.points, sweep.values.tolist(), strict=True)) == {"rain_day": 2.0, "level": 3.25}
    assert set(sweep.quality.tolist()) == {Quality.MANUAL}
    assert len(heard) == 1


def test_a_picture_is_confirmed_and_not_kept() -> None:
    picture = report(func=sl651.PICTURE, picture=b"\xff\xd8" + bytes(1_500))
    sink, heard = pushed(picture)
    assert sink.counts["pictures"] == 1
    assert [one.end for one in heard] == [End.EOT]


def test_what_cannot_be_read_is_told_and_the_rest_is_kept() -> None:
    whole = report(element("26", "1.0"), element("39", "2.0"))
    sink, heard = pushed(
        replace(whole, body=whole.body[:-1]), replace(report(serial=2), body=b"\x00\x01"), report(serial=3)
    )
    assert [r.code for r in sink.reports] == ["format", "format"]
    assert [sweep.points for sweep in sink.sweeps] == [("rain_total",), ("level",)]
    assert len(heard) == 2


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("00000080", []),
        ("00000000", [("dev.tamper", "door_open")]),
        ("00000081", [("dev.fault", "mains_off")]),
        ("000000C0", [("dev.fault", "level_gauge")]),
        ("00000183", [("dev.fault", "mains_off"), ("dev.low_battery", "battery"), ("dev.fault", "memory")]),
    ],
)
def test_status_bits(status: str, told: list[tuple[str, str]]) -> None:
    element_45 = Element("45", 0x20, bytes.fromhex(status))
    sink, _ = pushed(*(report(element_45, serial=n, ms=START_MS + n * 1000) for n in range(3)))
    assert [(r.event_type, r.code) for r in sink.reports] == told  # when it began, not with every report


def test_ascii_telegrams_are_the_same_to_us() -> None:
    message = sl651.Report(
        7, sl651.stamp(START_MS), STATION, "48", (sl651.Group(sl651.stamp(START_MS, 10), (element("39", "12.34"),)),)
    )
    sink, heard = pushed(Telegram(sl651.TIMED, sl651.write_ascii(message), STATION, ascii=True))
    assert sink.values("river-1", "level") == [12.34]
    assert [(one.ascii, one.end) for one in heard] == [(True, End.EOT)]
    assert heard[0].body == b"0007260302080000"


# -- orders


def test_an_order_makes_the_station_stay_on_line() -> None:
    got: list[Outcome] = []

    async def body(door: Door, clock: LoopClock, connector: Any) -> None:
        async def give() -> None:
            got.append(await connector.command(Command("1", "river-1", "read_clock", {}, clock.now_ms() + 600_000)))

        giving = asyncio.create_task(give())
        await asyncio.sleep(60)
        peer = Peer(door.dial())
        peer.on_question = lambda asked: sl651.reply(asked, sl651.Plain(9, sl651.stamp(clock.now_ms()), STATION))
        await peer.push(report(ms=clock.now_ms()))
        await giving
        assert peer.ends == [End.ESC, End.ENQ]  # confirmed and told to stay, then asked
        await peer.push(report(ms=clock.now_ms(), serial=2))
        assert peer.ends[-1] is End.EOT  # nothing waits any more

    play(body)
    assert (got[0].state, got[0].read_back["time"]) == ("done", "2026-03-02T08:01:00")


def test_an_answer_that_shows_something_else_is_a_failure() -> None:
    got: list[Outcome] = []

    async def body(door: Door, clock: LoopClock, connector: Any) -> None:
        peer = Peer(door.dial())
        peer.on_question = lambda asked: sl651.reply(
            asked, sl651.Settings(1, sl651.stamp(START_MS), (sl651.Setting("38", 0x12, b"\x01\x00"),), STATION)
        )
        await peer.push(report())
        got.append(await connector.command(Command("1", "river-1", "set_alarm_level", {"metres": 6.5})))

    play(body)
    assert (got[0].state, got[0].code, got[0].read_back) == ("failed", "read_back", {"38": "1.00"})


def test_orders_that_cannot_be() -> None:
    async def body(door: Door, clock: LoopClock, connector: Any) -> None:
        peer = Peer(door.dial())
        await peer.push(report())
        for name, arguments, code in (
            ("open_gate", {}, "unknown_command"),
            ("fetch_history", {"begin": "2026-03-02T09:00", "end": "2026-03-02T08:00"}, "argument"),
            ("fetch_history", {"begin": "x", "end": "y"}, "argument"),
        ):
            outcome = await connector.command(Command("1", "river-1", name, arguments))
            assert (outcome.state, outcome.code) == ("refused", code)
        assert (await connector.command(Command("1", "nobody", "read_now", {}))).code == "unknown_command"

    play(body)
    with pytest.raises(LinkDown):
        run_virtual(_never_run(), START_MS)


async def _never_run() -> None:
    connector: Any = build(config(), LoopClock(START_MS), Door().accept)
    await connector.command(Command("1", "river-1", "read_now", {}))


def test_over_real_tcp() -> None:
    sink = RecordingSink()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def main() -> list[End]:
        settings = Sl651ServerConfig(id="hydro", listen=f"127.0.0.1:{port}", device=config().device)
        async with serving(build(settings, WallClock()), sink):
            link = None
            async with asyncio.timeout(10):
                while link is None:
                    try:
                        link = await tcp_client("127.0.0.1", port)()
                    except LinkDown:
                        await asyncio.sleep(0)  # not listening yet
                peer = Peer(link)
                await peer.push(report(ms=WallClock().now_ms()))
                await peer.news.wait()
            await link.close()
            return peer.ends

    assert asyncio.run(main()) == [End.EOT]
    assert sink.values("river-1", "level") == [12.34]


# -- configuration


def test_configuration_is_checked() -> None:
    check(config())
    with pytest.raises(ConfigError, match="used 2 times"):
        check(replace_device(config(), station=OTHER))
    with pytest.raises(ConfigError, match="speaks hj212"):
        check(config("env/dust_station"))
    with pytest.raises(ConfigError, match="host:port"):
        check(Sl651ServerConfig(id="x", listen="nowhere", device=()))


def replace_device(settings: Sl651ServerConfig, **more: Any) -> Sl651ServerConfig:
    import msgspec

    first = msgspec.structs.replace(settings.device[0], **more)
    return msgspec.structs.replace(settings, device=(first, *settings.device[1:]))
