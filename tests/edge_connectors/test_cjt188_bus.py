"""CJ/T 188 meters with their makers' habits on a simulated line: read, told apart, and their valves ordered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge.clock import WallClock
from edge.commands import Desk, Target
from edge.connectors.base import Command, Outcome
from edge.connectors.build import build
from edge.connectors.cjt188_bus import Cjt188Bus
from edge.connectors.config import ConnectorConfig, check
from edge.outbox import Outbox
from firmware_sim.ledger import MemoryLedger
from firmware_sim.rig.virtual_rig import VirtualRig
from protocols.cjt188.endpoint import Cjt188Endpoint
from protocols.cjt188.messages import Read
from protocols.cjt188.slave import Meter, answer
from protocols.cjt188.values import encode
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError
from protocols.core.model import Quality, Sweep
from protocols.devices import load
from tests.support.virtual import RecordingSink, play, running

WATER, HEAT, GAS = "water/cjt188_meter", "heat/cjt188_meter", "gas/cjt188_meter"
ADDRESS = "78330000000161"
BUS = 'id = "s"\n[[bus]]\nid = "line"\nkind = "cjt188"\n'
VOLUME = "volume = { base = 1234.56 }"


def scene(devices: str, bus: str = "") -> str:
    return BUS + bus + devices


def meter(name: str, address: str = ADDRESS, kind: str = WATER, signals: str = VOLUME, more: str = "") -> str:
    head = f'\n[[device]]\nid = "{name}"\ntype = "{kind}"\nbus = "line"\naddress = "{address}"\n'
    return f"{head}signals = {{ {signals} }}\n{more}\n"


def config(*devices: dict[str, Any], **options: Any) -> ConnectorConfig:
    rows = [{"id": "m", "type": WATER, "address": ADDRESS, "poll_s": 60.0, **one} for one in devices or ({},)]
    table = {"id": "c", "kind": "cjt188", "port": "x", "device": rows, **options}
    wanted: ConnectorConfig = msgspec.convert(table, ConnectorConfig)
    return wanted


def run(
    text: str,
    wanted: ConnectorConfig,
    seconds: float = 30,
    body: Callable[[Cjt188Bus, VirtualRig], Awaitable[Any]] | None = None,
) -> tuple[RecordingSink, Any]:
    sink = RecordingSink()

    async def main(rig: VirtualRig) -> Any:
        connector = build(wanted, rig.clock, rig.link_factory("line"))
        assert isinstance(connector, Cjt188Bus)
        async with running([connector], sink):
            result = await body(connector, rig) if body is not None else None
            await rig.until_s(seconds)
        return result

    return sink, play(text, main)


def shown(sink: RecordingSink, device: str = "m", number: int = 0) -> dict[str, float]:
    sweep = [one for one in sink.sweeps if one.device == device][number]
    return dict(zip(sweep.points, sweep.values.tolist(), strict=True))


# -- reading


def test_a_water_meter_is_read() -> None:
    signals = f"{VOLUME}, volume_settlement = {{ base = 1200 }}, battery_low = {{ base = 1 }}"
    sink, _ = run(scene(meter("m", signals=signals)), config())
    assert shown(sink) == {"volume": 1234.56, "volume_settlement": 1200.0, "valve": 0.0, "battery_low": 1.0}
    assert sink.states == [("m", True)]
    assert sink.reports == []
    assert sink.counts["dialects_found"] == 0  # nothing unusual


@pytest.mark.parametrize("options", ["", 'unit_place = "before"', 'layout = "heat_2018"', 'meter_type = "27"'])
def test_a_heat_meter_is_read_whatever_its_layout(options: str) -> None:
    numbers = {
        "heat": 540.6, "heat_settlement": 500.0, "power": 1.23, "flow": 1.2345, "volume": 19.83,
        "supply_temperature": 45.25, "return_temperature": 40.1, "hours": 1234.0,
    }  # fmt: skip
    signals = ", ".join(f"{name} = {{ base = {value} }}" for name, value in numbers.items())
    more = f"options = {{ {options} }}"
    sink, _ = run(scene(meter("m", kind=HEAT, signals=signals, more=more)), config({"type": HEAT}))
    assert shown(sink) == pytest.approx({**numbers, "battery_low": 0.0})
    assert sink.reports == []


def test_no_value_is_missing() -> None:
    sink, _ = run(scene(meter("m", kind=GAS)), config({"type": GAS}))
    (sweep,) = sink.sweeps
    at = sweep.points.index("volume_settlement")
    assert np.isnan(sweep.values[at]) and sweep.quality[at] == Quality.MISSING
    assert shown(sink)["volume"] == 1234.56


@pytest.mark.parametrize("order", ["901F", "1F90"])
def test_the_order_of_the_identifier_is_found_and_said_once(order: str, caplog: pytest.LogCaptureFixture) -> None:
    more = f'options = {{ di_order = "{order}" }}'
    with caplog.at_level(logging.INFO, "citybrain.edge.cjt188"):
        sink, _ = run(scene(meter("m", more=more)), config({"poll_s": 10.0}), seconds=60)
    assert len(sink.sweeps) == 6
    assert sink.counts["polls_missed"] == 0
    said = [record.message for record in caplog.records]
    assert said == ([] if order == "901F" else ['m speaks its own CJ/T 188: di_order = "1F90"'])


def test_a_meter_that_was_exchanged_for_another_makers_is_learnt_anew() -> None:
    old = 'options = { di_order = "1F90" }\n[[device.fault]]\nkind = "silence"\nat_s = 100\n'
    new = 'clash = true\noptions = { di_order = "901F", ser = 1 }\n'
    new += '[[device.fault]]\nkind = "silence"\nfor_s = 200\n'
    text = scene(meter("m", more=old) + meter("new", signals="volume = { base = 0.01 }", more=new))
    sink, _ = run(text, config({"poll_s": 10.0}, slow_poll_s=30.0), seconds=400)
    assert set(sink.values("m", "volume")) == {1234.56, 0.01}
    assert sink.states == [("m", True), ("m", False), ("m", True)]


def test_a_wrong_configured_order_is_not_corrected() -> None:
    sink, _ = run(scene(meter("m", more='options = { di_order = "1F90" }')), config({"di_order": "901F"}))
    assert sink.sweeps == []


def test_a_meter_with_a_fixed_ser_is_believed_after_it_said_so_twice(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "citybrain.edge.cjt188"):
        sink, _ = run(scene(meter("m", more="options = { ser = 1 }")), config({"poll_s": 10.0}), seconds=60)
    assert len(sink.sweeps) == 6
    assert [one.code for one in sink.reports] == ["wrong_ser"]
    assert any('ser = "fixed"' in record.message for record in caplog.records)


def test_a_meter_configured_to_echo_is_not_believed_with_another_ser() -> None:
    sink, _ = run(scene(meter("m", more="options = { ser = 1 }")), config({"ser": "echo"}))
    assert sink.sweeps == []
    assert {one.code for one in sink.reports} == {"wrong_ser"}


def test_a_late_answer_is_never_booked_as_the_answer_to_a_later_question() -> None:
    """Every third answer comes after the next question; the counter would show an old value read now."""
    late = '[[device.fault]]\nkind = "delay"\ndelay_s = 1.6\nevery = 3\n'
    signals = "volume = { counter = { start = 100, per_hour = 36000 } }"  # ten a second
    sink, _ = run(scene(meter("m", signals=signals, more=late)), config({"poll_s": 10.0}), seconds=200)
    start_ms = sink.sweeps[0].seen_ms
    for sweep in sink.sweeps:
        shown_now = 100 + (sweep.seen_ms - start_ms) / 100
        # What the meter reads while it answers: at most one answer's time old, never a whole question's.
        assert shown_now - sweep.values[sweep.points.index("volume")] < 10
    assert len(sink.sweeps) >= 19
    assert sink.states == [("m", True)]


def test_a_sleeping_meter_wants_its_wake_up_bytes() -> None:
    text = scene(meter("m", more="options = { wake_up = 20 }"))
    asleep, _ = run(text, config())
    assert asleep.sweeps == []
    awake, _ = run(text, config(preamble=24))
    assert shown(awake)["volume"] == 1234.56


def test_an_adapter_that_echoes_is_not_believed() -> None:
    sink, _ = run(scene(meter("m"), bus="echo = true\n"), config())
    assert shown(sink)["volume"] == 1234.56
    assert sink.reports == []


def test_two_meters_with_one_number_garble_each_other_and_nothing_is_booked() -> None:
    text = scene(meter("m") + meter("twin", signals="volume = { base = 98765.43 }", more="clash = true"))
    sink, _ = run(text, config())
    assert sink.sweeps == []
    assert {one.code for one in sink.reports} & {"checksum", "end", "short", "length"}
    assert {one.event_type for one in sink.reports} == {"data.rejected"}


def test_an_answer_from_another_address_is_reported_and_not_booked() -> None:
    wrong = '[[device.fault]]\nkind = "wrong_address"\nevery = 2\n'
    sink, _ = run(scene(meter("m", more=wrong)), config({"poll_s": 10.0}), seconds=100)
    assert "wrong_address" in {one.code for one in sink.reports}
    assert set(sink.values("m", "volume")) == {1234.56}
    assert len(sink.sweeps) >= 9


def test_garbled_and_cut_answers_are_asked_again() -> None:
    faults = "".join(
        f'[[device.fault]]\nkind = "{kind}"\nevery = {n}\n' for kind, n in (("garble", 3), ("truncate", 4))
    )
    sink, _ = run(scene(meter("m", more=faults)), config({"poll_s": 10.0}), seconds=200)
    assert len(sink.values("m", "volume")) >= 18
    assert set(sink.values("m", "volume")) == {1234.56}
    assert {"checksum", "short"} & {one.code for one in sink.reports}


def test_a_dead_meter_does_not_hold_up_the_others() -> None:
    other = "78330000000162"
    text = scene(meter("m", more='[[device.fault]]\nkind = "silence"\n') + meter("n", other))
    wanted = config({"poll_s": 10.0}, {"id": "n", "address": other, "poll_s": 10.0})
    sink, _ = run(text, wanted, seconds=200)
    assert len(sink.values("n", "volume")) >= 19
    assert ("m", False) in sink.states


@pytest.mark.parametrize(("set_to", "skewed"), [("1970-01-01T08:00:00+08:00", True), (None, False)])
def test_a_wrong_clock_is_reported_once_and_readings_keep_our_time(set_to: str | None, skewed: bool) -> None:
    more = f'[[device.fault]]\nkind = "clock_step"\nset_to = {set_to}\n' if set_to else ""
    sink, _ = run(scene(meter("m", more=more)), config({"poll_s": 10.0}), seconds=60)
    assert [one.event_type for one in sink.reports] == (["dev.clock_skew"] if skewed else [])
    assert all(one.source_ms == one.seen_ms for one in sink.sweeps)
    assert len(sink.sweeps) == 6


class Waiting(RecordingSink):
    """A sink that says when the first sweep came."""

    def __init__(self) -> None:
        super().__init__()
        self.done = asyncio.Event()

    def sweep(self, sweep: Sweep, on_durable: Callable[[], None] | None = None) -> None:
        super().sweep(sweep, on_durable)
        self.done.set()


def test_a_meter_behind_a_serial_server_on_a_real_socket() -> None:
    heard: list[str] = []

    async def main() -> RecordingSink:
        sink = Waiting()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            endpoint = Cjt188Endpoint(Role.SLAVE)
            data = encode("volume", {"current": Decimal("12.34")}, status=b"\x01\x00")
            while piece := await reader.read(7):  # a serial server cuts where it likes
                for request in endpoint.feed(piece, 0):
                    assert isinstance(request, Read)
                    heard.append(request.di)
                    reply = answer(request, meter=Meter("10", ADDRESS), source=lambda di: data)
                    assert reply is not None
                    for byte in endpoint.send(reply, 0):
                        writer.write(bytes((byte,)))
                        await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connector = build(config(port=f"tcp://127.0.0.1:{port}"), WallClock())
        async with server, asyncio.timeout(20), running([connector], sink):
            await sink.done.wait()
        return sink

    sink = asyncio.run(main())
    assert heard == ["901F"]
    assert shown(sink)["volume"] == 12.34
    assert shown(sink)["valve"] == 1.0


# -- orders


def order(name: str, *, expires_ms: int = 0) -> Command:
    return Command("1", "m", name, expires_ms=expires_ms)


def ordered(text: str, name: str, wanted: ConnectorConfig | None = None) -> tuple[RecordingSink, Outcome]:
    async def body(connector: Cjt188Bus, rig: VirtualRig) -> Outcome:
        await asyncio.sleep(5)
        return await connector.command(order(name))

    return run(text, wanted or config(), seconds=10, body=body)


def test_a_valve_is_closed_and_the_status_shows_it() -> None:
    sink, outcome = ordered(scene(meter("m", more="options = { valve_s = 40 }")), "valve_close")
    assert outcome.state == "done"
    assert outcome.read_back == {"valve": 1.0}
    assert sink.values("m", "valve")[-1] == 1.0  # and the operator sees it, too


def test_a_stuck_valve_is_no_success() -> None:
    sink, outcome = ordered(scene(meter("m", more='[[device.fault]]\nkind = "valve_stuck"\n')), "valve_close")
    assert (outcome.state, outcome.code) == ("failed", "read_back")
    assert outcome.read_back == {"valve": 3.0}
    assert sink.values("m", "valve")[-1] == 3.0


def test_an_order_without_an_answer_is_unknown_and_not_sent_again() -> None:
    more = '[[device.fault]]\nkind = "drop"\nat_s = 4\n'

    async def body(connector: Cjt188Bus, rig: VirtualRig) -> tuple[Outcome, int]:
        await asyncio.sleep(5)
        outcome = await connector.command(order("valve_close"))
        assert isinstance(rig.ledger, MemoryLedger)
        return outcome, sum(entry.get("what") == "A017" for entry in rig.ledger.entries())

    _, (outcome, heard) = run(scene(meter("m", more=more)), config(), seconds=200, body=body)
    assert outcome.state == "unknown"
    assert heard == 1


def test_nothing_is_ordered_of_a_meter_that_never_answered() -> None:
    _, outcome = ordered(scene(meter("m", more="options = { wake_up = 20 }")), "valve_close")
    assert (outcome.state, outcome.code) == ("refused", "no_answer")


def test_an_order_is_put_in_the_order_the_meter_understands() -> None:
    text = scene(meter("m", more='options = { di_order = "1F90", ser = 0 }'))
    _, outcome = ordered(text, "valve_open")
    assert outcome.state == "done"


def test_the_clock_is_set() -> None:
    more = '[[device.fault]]\nkind = "clock_step"\noffset_s = -3600\n'

    async def body(connector: Cjt188Bus, rig: VirtualRig) -> Outcome:
        await asyncio.sleep(5)
        return await connector.command(order("set_clock"))

    sink, outcome = run(scene(meter("m", more=more)), config({"poll_s": 10.0}), seconds=60, body=body)
    assert outcome.state == "done"
    assert [one.event_type for one in sink.reports] == ["dev.clock_skew"]  # before it was set, and not again


def test_read_only_until_the_configuration_allows_it_and_once_per_id(tmp_path: Path) -> None:
    """The whole way: desk, journal, line, meter, read-back."""

    async def body(connector: Cjt188Bus, rig: VirtualRig) -> tuple[list[Outcome], int]:
        await asyncio.sleep(5)
        outbox = Outbox(tmp_path / "outbox.db", now_ms=rig.clock.now_ms(), max_bytes=1 << 20)
        kind = load(WATER)

        def desk(*allow: str) -> Desk:
            targets = {"m": Target(kind, connector, frozenset(allow))}
            return Desk(targets, outbox, rig.clock, lambda *what: None)

        outcomes = [await desk().order(order("valve_close"))]
        allowed = desk("valve_close")
        outcomes += [await allowed.order(order("valve_close")) for _ in range(2)]
        outcomes.append(await desk("valve_close").order(order("valve_close")))  # the agent came again
        assert isinstance(rig.ledger, MemoryLedger)
        return outcomes, sum(entry.get("what") == "A017" for entry in rig.ledger.entries())

    _, (outcomes, heard) = run(scene(meter("m")), config(), seconds=100, body=body)
    assert [one.code or one.state for one in outcomes] == ["not_allowed", "done", "done", "done"]
    assert heard == 1


# -- configuration


def test_what_is_refused_when_checked() -> None:
    check(config({}, {"id": "n", "address": "78330000000162"}))
    with pytest.raises(ConfigError, match="speaks mbus"):
        check(config({"type": "heat/mbus_meter"}))
    with pytest.raises(ConfigError, match="used 2 times"):
        check(config({}, {"id": "n"}))
    check(config({"allow": ["valve_close", "set_clock"]}))
    with pytest.raises(ConfigError, match="allow: water/cjt188_meter has no 'valve_shut'; it has valve_open"):
        check(config({"allow": ["valve_shut"]}))
    with pytest.raises(ConfigError, match="host:port"):
        check(config(port="tcp://10.0.0.9"))


@pytest.mark.parametrize("bad", [{"address": "123"}, {"di_order": "9F01"}, {"ser": "1"}, {"meter_type": "water"}])
def test_what_is_refused_when_read(bad: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        config(bad)
