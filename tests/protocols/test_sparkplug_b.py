"""Sparkplug B: vectors both ways, what encoders do differently, and both ends against each other."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.sparkplug_b import sparkplug_b_pb2 as pb
from protocols.sparkplug_b import topics
from protocols.sparkplug_b.datatypes import NAMES, DataType, array_from_wire, array_to_wire, integer_from_wire
from protocols.sparkplug_b.explain import explain
from protocols.sparkplug_b.host import BD_SEQ, REBIRTH, Born, Died, HostApplication, Refused, Said, Source
from protocols.sparkplug_b.messages import (
    DataSet,
    Metric,
    Parameter,
    Payload,
    Property,
    Template,
    decode,
    encode,
    typed,
)
from protocols.sparkplug_b.node import EdgeNode, Ordered
from tests.protocols.vectors import vectors

NOW = 1_772_409_600_000
quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


# -- vectors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", vectors("sparkplug_b", "frame"))
def test_frame_vectors_encode_to_the_same_bytes(row: dict[str, Any]) -> None:
    data = bytes.fromhex(row["hex"])
    assert encode(decode(data)) == data


@pytest.mark.parametrize("row", vectors("sparkplug_b", "value"))
def test_array_vectors_encode_to_the_same_bytes(row: dict[str, Any]) -> None:
    expect, data = row["expect"], bytes.fromhex(row["hex"])
    assert NAMES[expect["type_code"]] == expect["type"]
    assert array_to_wire(expect["values"], expect["type_code"]) == data


# -- what the fact sheet warns of --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "kind", "value"),
    [
        (0xFFFFFFFB, DataType.INT8, -5),  # sign-extended to the field
        (0xFB, DataType.INT8, -5),  # the bare byte
        (0xFFFF8AD0, DataType.INT16, -30000),
        (0x8AD0, DataType.INT16, -30000),
        (0xFFFFFFFB, DataType.INT32, -5),
        (0xFFFFFFFFFFFFFFFB, DataType.INT32, -5),  # in the 64-bit field
        (0xFFFFFFFFFFFFFFFB, DataType.INT64, -5),
        (0xFFFFFFFFFFFFFFFB, DataType.UINT64, 0xFFFFFFFFFFFFFFFB),
        (250, DataType.UINT8, 250),
    ],
)
def test_integers_of_all_encoders(raw: int, kind: DataType, value: int) -> None:
    assert integer_from_wire(raw, kind) == value


@pytest.mark.parametrize(
    ("raw", "kind"),
    [(256, DataType.UINT8), (300, DataType.INT8), (1 << 40, DataType.INT32), (1 << 32, DataType.UINT32)],
)
def test_a_number_that_does_not_fit_is_no_number(raw: int, kind: DataType) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        integer_from_wire(raw, kind)
    assert error.value.reason == "range"


@pytest.mark.parametrize(
    ("printed", "kind", "right"),
    [
        ("EF7B", DataType.INT8_ARRAY, (-23, 123)),
        ("3F9D70A442B2AE98", DataType.FLOAT_ARRAY, (1.23, 89.341)),
        ("4028B55B6805A2D7408FF74C6F1C178E", DataType.DOUBLE_ARRAY, (12.354213, 1022.9123213)),
    ],
)
def test_the_misprints_of_the_standard_are_not_followed(printed: str, kind: int, right: tuple[float, ...]) -> None:
    assert array_from_wire(bytes.fromhex(printed), kind) != right
    assert array_from_wire(array_to_wire(right, kind), kind) == right


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("0102030405", DataType.DATE_TIME_ARRAY),  # the misprinted six-byte items end like this
        ("010203", DataType.INT16_ARRAY),
        ("FFFFFFFF00", DataType.BOOLEAN_ARRAY),  # a count of four billion
        ("0C0000", DataType.BOOLEAN_ARRAY),
        ("414243", DataType.STRING_ARRAY),
    ],
)
def test_arrays_of_the_wrong_length(data: str, kind: int) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        array_from_wire(bytes.fromhex(data), kind)
    assert error.value.reason == "array"


def test_one_bad_metric_costs_only_itself() -> None:
    message = pb.Payload(timestamp=NOW, seq=1)
    message.metrics.add(name="good", datatype=10, double_value=2.5)
    message.metrics.add(name="mixed", datatype=12, int_value=7)
    message.metrics.add(name="huge", datatype=5, int_value=70_000)
    message.metrics.add(name="torn", datatype=24, bytes_value=b"\x01\x02\x03")
    message.metrics.add(name="also good", datatype=11, boolean_value=True)
    found = decode(message.SerializeToString()).metrics
    assert [(one.name, one.value, one.fault) for one in found] == [
        ("good", 2.5, ""),
        ("mixed", None, "type_mismatch"),
        ("huge", None, "range"),
        ("torn", None, "array"),
        ("also good", True, ""),
    ]


def test_names_that_are_not_utf8_are_read_as_gb18030() -> None:
    good = encode(Payload(NOW, (Metric("##", 1.0, DataType.DOUBLE),)))
    assert decode(good.replace(b"##", "温".encode("gb18030"))).metrics[0].name == "温"


@pytest.mark.parametrize(("how", "pack"), [("DEFLATE", zlib.compress), ("GZIP", gzip.compress)])
def test_compressed_payloads_are_expanded(how: str, pack: Any) -> None:
    inner = Payload(NOW, (Metric("Level", 4.5, DataType.DOUBLE),), 7)
    algorithm = Metric("algorithm", how, DataType.STRING)
    outer = Payload(NOW, (algorithm,), uuid="SPBV1.0_COMPRESSED", body=pack(encode(inner)))
    assert decode(encode(outer)) == inner
    bomb = Payload(NOW, (algorithm,), uuid="SPBV1.0_COMPRESSED", body=pack(bytes(20 << 20)))
    with pytest.raises(RemoteProtocolError) as error:
        decode(encode(bomb))
    assert error.value.reason == "compression"


def test_text_that_parses_as_protobuf_is_refused() -> None:
    for data, reason in ((b"\x0a" * 30, "protobuf"), (b'{"timestamp": 1}', "protobuf"), (b"\x12\x7f\x0a", "short")):
        with pytest.raises(RemoteProtocolError) as error:
            decode(data)
        assert error.value.reason == reason


def test_a_payload_cut_anywhere_is_short_or_a_shorter_payload() -> None:
    whole = encode(Payload(NOW, tuple(Metric(f"m{n}", n / 2, DataType.DOUBLE) for n in range(20)), 4))
    read = 0
    for length in range(1, len(whole)):
        try:
            read += len(decode(whole[:length]).metrics) < 20
        except RemoteProtocolError as error:
            assert error.reason in ("short", "protobuf")
    assert read > 0  # cut between two metrics nothing tells: that is what seq and births are for


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("spBv1.0/city/NDATA/gw1/m1", "levels"),
        ("spBv1.0/city/DDATA/gw1", "levels"),
        ("spBv1.0/city/DATA/gw1", "type"),
        ("spBv1.0/city//gw1", "type"),
        ("spBv1.0//NDATA/gw1", "id"),
        ("spBv1.0/+/NDATA/gw1", "id"),
        ("spBv1.0/STATE/a/b", "levels"),
        ("spBv1.0", "levels"),
        ("", "namespace"),
    ],
)
def test_topics_that_are_none(topic: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        topics.parse(topic)
    assert error.value.reason == reason


def test_state_of_both_generations() -> None:
    assert topics.parse_state(topics.state_payload(online=True, timestamp_ms=NOW)) == (True, NOW)
    assert topics.parse_state(b"OFFLINE") == (False, None)
    assert topics.parse("STATE/old").host == "old"
    for data in (b"", b"[]", b'{"online": 1}', b"\xff", b"[" * 100_000):
        with pytest.raises(RemoteProtocolError):
            topics.parse_state(data)


# -- anything there and back -------------------------------------------------------------------------------------------

_small = st.text(max_size=8)
_scalars = st.one_of(
    st.tuples(st.just(DataType.INT8), st.integers(-128, 127)),
    st.tuples(st.just(DataType.INT32), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(DataType.INT64), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just(DataType.UINT32), st.integers(0, 2**32 - 1)),
    st.tuples(st.just(DataType.DATE_TIME), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(DataType.DOUBLE), st.floats(allow_nan=False)),
    st.tuples(st.just(DataType.BOOLEAN), st.booleans()),
    st.tuples(st.just(DataType.STRING), _small),
    st.tuples(st.just(DataType.BYTES), st.binary(max_size=9)),
    st.tuples(st.just(DataType.INT16_ARRAY), st.lists(st.integers(-32768, 32767), max_size=5).map(tuple)),
    st.tuples(st.just(DataType.BOOLEAN_ARRAY), st.lists(st.booleans(), max_size=20).map(tuple)),
    st.tuples(st.just(DataType.STRING_ARRAY), st.lists(st.text("ab温", max_size=3), max_size=4).map(tuple)),
)
_table = st.tuples(
    st.just(DataType.DATA_SET),
    st.lists(st.tuples(st.integers(0, 99), st.floats(allow_nan=False) | st.none()), max_size=3).map(
        lambda rows: DataSet(("t", "v"), (DataType.DATE_TIME, DataType.DOUBLE), tuple(rows))
    ),
)
_properties = st.none() | st.dictionaries(
    st.sampled_from(["Quality", "engUnit"]), st.just(Property(192, DataType.INT32)), max_size=2
)


def _metric(kind_and_value: tuple[int, Any], name: str | None, alias: int | None, properties: Any) -> Metric:
    kind, value = kind_and_value
    return Metric(name, value, kind, alias, NOW, properties=properties)


_leaf = st.builds(_metric, _scalars | _table, st.none() | _small, st.none() | st.integers(0, 2**64 - 1), _properties)
_template = st.builds(
    lambda inner, ref: Metric("udt", Template(tuple(inner), (Parameter("p", 12, "x"),), "v1", ref, False), 19),
    st.lists(_leaf, max_size=3),
    _small,
)
_payloads = st.builds(
    Payload, st.none() | st.integers(0, 2**64 - 1), st.lists(_leaf | _template, max_size=5).map(tuple),
    st.none() | st.integers(0, 255),
)  # fmt: skip


@given(payload=_payloads)
@quick
def test_any_payload_there_and_back(payload: Payload) -> None:
    data = encode(payload)
    assert decode(data) == payload
    told = explain(Capture(data, topic="spBv1.0/g/NDATA/n"))
    assert told.ok and told.said()["payload"]["metrics"] is not None


@given(data=st.binary(max_size=200), topic=st.sampled_from(["", "spBv1.0/g/NDATA/n", "spBv1.0/STATE/h", "x"]))
@quick
def test_no_bytes_raise_anything_else(data: bytes, topic: str) -> None:
    explain(Capture(data, topic=topic))
    explain(Capture(data, kind="value", extra={"type_code": 32}))
    host = HostApplication("h")
    host.receive(topic, data, NOW)
    node = EdgeNode("g", "n", primary_host="h")
    node.receive(topic, data, NOW)
    try:
        decode(data)
    except RemoteProtocolError:
        return


def test_illegal_values_are_our_own_fault() -> None:
    for metric in (Metric("a", 300, DataType.INT8), Metric("a", "x", DataType.DOUBLE), Metric("a", 1, DataType.STRING)):
        with pytest.raises(LocalProtocolError):
            encode(Payload(NOW, (metric,)))
    with pytest.raises(LocalProtocolError):
        encode(Payload(NOW, seq=256))


def test_a_type_learnt_later() -> None:
    bare = decode(encode(Payload(NOW, (Metric(alias=3, value=0xFFFFFFFB, held="int"),)))).metrics[0]
    assert (bare.value, bare.datatype) == (0xFFFFFFFB, None)
    assert typed(bare, DataType.INT32).value == -5
    assert typed(bare, DataType.STRING).fault == "type_mismatch"


def test_templates_within_templates_end_somewhere() -> None:
    metric = Metric("leaf", 1.0, DataType.DOUBLE)
    for _ in range(30):
        metric = Metric("udt", Template((metric,)), DataType.TEMPLATE)
    explained = explain(Capture(encode(Payload(NOW, (metric,)))))
    assert explained.ok and "depth" in str(explained.said())


# -- both ends against each other --------------------------------------------------------------------------------------


class Wire:
    """A node and a host with a broker in between that a test may let lose messages."""

    def __init__(self, node: EdgeNode, host: HostApplication) -> None:
        self.node, self.host = node, host
        self.now_ms = NOW
        self.events: list[Any] = []
        self.orders: list[Any] = []
        self.lose: set[int] = set()  # numbers of node messages that never arrive
        self.sent = 0

    def connect(self) -> bytes:
        will = self.node.connecting(self.now_ms)
        self.node.connected(self.now_ms)
        self.flow()
        return will.payload

    def flow(self) -> None:
        for _ in range(6):
            for out in self.node.take_output():
                self.sent += 1
                if self.sent - 1 not in self.lose:
                    self.events += self.host.receive(out.topic, out.payload, self.now_ms)
            for out in self.host.take_output():
                self.orders += self.node.receive(out.topic, out.payload, self.now_ms)

    def said(self) -> list[tuple[str, str, Any]]:
        return [
            (event.source.device, str(one.name), one.value)
            for event in self.events
            if isinstance(event, Said)
            for one in event.metrics
        ]


def _pump(value: float | None = None, on: bool = False) -> list[Metric]:
    return [
        Metric("Level", value, DataType.DOUBLE),
        Metric("On", on, DataType.BOOLEAN),
        Metric("Temp", -5, DataType.INT8),
    ]


def pair(**options: Any) -> Wire:
    node = EdgeNode("city", "gw1", **options)
    node.define("m1", _pump(1.5), NOW)
    return Wire(node, HostApplication("core", rebirth_pause_ms=10_000))


M1 = Source("city", "gw1", "m1")


@pytest.mark.parametrize("aliases", [True, False])
def test_births_then_data_with_the_types_of_the_birth(aliases: bool) -> None:
    wire = pair(aliases=aliases)
    wire.connect()
    births = [event for event in wire.events if isinstance(event, Born)]
    assert [str(birth.source) for birth in births] == ["city/gw1", "city/gw1/m1"]
    assert {one.name: one.value for one in births[1].metrics} == {"Level": 1.5, "On": False, "Temp": -5}
    assert wire.node.update("m1", [Metric("Temp", -7), Metric("Level", 2.5)], NOW)
    wire.flow()
    assert wire.said() == [("m1", "Temp", -7), ("m1", "Level", 2.5)]


def test_seq_runs_over_255() -> None:
    wire = pair()
    wire.connect()
    for n in range(600):
        wire.node.update("m1", [Metric("Level", float(n))], NOW + n)
        wire.flow()
    assert [value for _, _, value in wire.said()] == [float(n) for n in range(600)]
    assert not [event for event in wire.events if isinstance(event, Refused)]


def test_a_missing_message_asks_for_births_once_and_no_alias_is_believed() -> None:
    wire = pair()
    wire.connect()
    wire.lose = {2}
    for n in range(3):
        wire.node.update("m1", [Metric("Level", float(n))], wire.now_ms)
    wire.node.take_output, kept = (lambda: []), wire.node.take_output()
    asked = 0
    for out in kept[1:]:
        wire.events += wire.host.receive(out.topic, out.payload, wire.now_ms)
        asked += sum(b"Rebirth" in one.payload for one in wire.host.take_output())
    assert wire.said() == [] and asked == 1
    reasons = [event.error.reason for event in wire.events if isinstance(event, Refused)]
    assert reasons == ["seq_gap", "unknown_alias", "unknown_alias"]


def test_a_rebirth_brings_the_values_back() -> None:
    wire = pair()
    wire.connect()
    wire.events.clear()
    wire.lose = {2}
    wire.now_ms += 5_000
    for n in range(2):
        wire.node.update("m1", [Metric("Level", 7.0 + n)], wire.now_ms)
    wire.flow()
    born = [event for event in wire.events if isinstance(event, Born) and event.source == M1]
    assert [one.value for one in born[0].metrics if one.name == "Level"] == [8.0]
    wire.node.update("m1", [Metric("Level", 9.0)], wire.now_ms)
    wire.flow()
    assert wire.said()[-1] == ("m1", "Level", 9.0)


def test_rebirths_are_asked_for_less_and_less_often() -> None:
    host = HostApplication("core", rebirth_pause_ms=10_000)
    data = encode(Payload(NOW, (Metric("Level", 1.0, DataType.DOUBLE),), 9))
    asked = []
    for second in range(600):
        host.receive("spBv1.0/city/DDATA/gw1/m1", data, NOW + 1000 * second)
        host.tick(NOW + 1000 * second)
        asked += [second for _ in host.take_output()]
    assert asked == [0, 10, 30, 70, 150, 310]


def test_a_late_will_does_not_bury_a_node_that_is_back() -> None:
    wire = pair()
    old_will = wire.connect()
    wire.node.lost()
    new_will = wire.connect()
    assert old_will != new_will
    wire.events.clear()
    wire.events += wire.host.receive("spBv1.0/city/NDEATH/gw1", old_will, NOW)
    assert [event.error.reason for event in wire.events] == ["bd_seq"]
    died = wire.host.receive("spBv1.0/city/NDEATH/gw1", new_will, NOW)
    assert [str(event.source) for event in died if isinstance(event, Died)] == ["city/gw1/m1", "city/gw1"]


def test_the_two_types_of_bd_seq_are_one_number() -> None:
    host = HostApplication("core")
    host.receive("spBv1.0/g/NBIRTH/n", encode(Payload(NOW, (Metric(BD_SEQ, 3, DataType.INT64),), 0)), NOW)
    death = encode(Payload(NOW, (Metric(BD_SEQ, 3, DataType.UINT64),)))
    assert host.receive("spBv1.0/g/NDEATH/n", death, NOW) == [Died(Source("g", "n"), "NDEATH")]


def test_a_message_delivered_twice_counts_once() -> None:
    wire = pair()
    wire.connect()
    wire.node.update("m1", [Metric("Level", 3.0)], NOW)
    (out,) = wire.node.take_output()
    assert wire.host.receive(out.topic, out.payload, NOW) != []
    assert wire.host.receive(out.topic, out.payload, NOW) == []


def test_devices_die_and_come_back() -> None:
    wire = pair()
    wire.connect()
    wire.node.die("m1", NOW)
    assert not wire.node.update("m1", [Metric("Level", 3.0)], NOW)
    wire.flow()
    assert [event.source for event in wire.events if isinstance(event, Died)] == [M1]
    wire.events.clear()
    wire.node.revive("m1", NOW)
    wire.flow()
    (born,) = [event for event in wire.events if isinstance(event, Born)]
    assert born.source == M1 and 3.0 in [one.value for one in born.metrics]


def test_an_order_goes_to_the_node_with_the_type_of_the_birth() -> None:
    wire = pair()
    wire.connect()
    order = wire.host.write(M1, "Temp", -8.0, NOW)
    (got,) = wire.node.receive(order.topic, order.payload, NOW)
    assert isinstance(got, Ordered) and got.device == "m1"
    assert (got.metrics[0].name, got.metrics[0].value, got.metrics[0].datatype) == ("Temp", -8, DataType.INT8)
    for name, value in (("Nothing", 1), ("Temp", 2.5)):
        with pytest.raises(LocalProtocolError):
            wire.host.write(M1, name, value, NOW)


def test_orders_for_what_is_not_there() -> None:
    wire = pair()
    wire.connect()
    for device, metric in (("m2", Metric("On", True, 11)), ("m1", Metric("Off", True, 11)), ("m1", Metric(alias=99))):
        found = wire.node.receive(f"spBv1.0/city/DCMD/gw1/{device}", encode(Payload(NOW, (metric,))), NOW)
        assert [isinstance(one, RemoteProtocolError) for one in found] == [True]


def test_a_node_with_a_primary_host_waits_for_it() -> None:
    node = EdgeNode("city", "gw1", primary_host="scada")
    node.define("m1", _pump(), NOW)
    node.connecting(NOW)
    node.connected(NOW)
    assert node.take_output() == [] and node.stranded and not node.update("m1", [Metric("Level", 1.0)], NOW)
    node.receive("spBv1.0/STATE/scada", topics.state_payload(online=True, timestamp_ms=NOW), NOW)
    assert len(node.take_output()) == 2 and node.live
    node.receive("spBv1.0/STATE/scada", topics.state_payload(online=False, timestamp_ms=NOW - 1), NOW)
    assert node.live  # a will from before
    node.receive("spBv1.0/STATE/scada", topics.state_payload(online=False, timestamp_ms=NOW), NOW)
    assert node.stranded


def test_a_flood_of_rebirth_orders_gives_few_births() -> None:
    wire = pair()
    wire.connect()
    order = encode(Payload(NOW, (Metric(REBIRTH, True, DataType.BOOLEAN),)))
    births = 0
    for n in range(100):
        wire.node.receive("spBv1.0/city/NCMD/gw1", order, NOW + 50 * n)
        wire.node.tick(NOW + 50 * n)
        births += sum("NBIRTH" in out.topic for out in wire.node.take_output())
    assert births == 4  # five seconds, one a second, the first second is the birth's own


def test_bounds() -> None:
    host = HostApplication("core", max_nodes=2, max_metrics=3)
    birth = encode(Payload(NOW, (Metric(BD_SEQ, 0, DataType.INT64),), 0))
    found = [host.receive(f"spBv1.0/g/NBIRTH/n{n}", birth, NOW)[0] for n in range(3)]
    assert isinstance(found[2], Refused) and found[2].error.reason == "too_many"
    large = encode(Payload(NOW, tuple(Metric(f"m{n}", n, 7) for n in range(4)), 0))
    (refused,) = host.receive("spBv1.0/g/NBIRTH/n0", large, NOW)
    assert isinstance(refused, Refused) and refused.error.reason == "too_many"


def test_template_instances_lie_flat() -> None:
    host = HostApplication("core")
    motor = Template((Metric("Speed", 0, DataType.INT32),), ref="Motor", is_definition=False)
    definition = Metric("Motor", Template((Metric("Speed", None, DataType.INT32),), is_definition=True), 19)
    birth = Payload(NOW, (Metric(BD_SEQ, 0, 4), definition, Metric("M7", motor, DataType.TEMPLATE)), 0)
    (born,) = host.receive("spBv1.0/g/NBIRTH/n", encode(birth), NOW)
    assert [one.name for one in born.metrics] == ["bdSeq", "M7/Speed"]  # type: ignore[union-attr]
    news = Template((Metric("Speed", value=0xFFFFFFFB, held="int"),), ref="Motor", is_definition=False)
    (said,) = host.receive("spBv1.0/g/NDATA/n", encode(Payload(NOW, (Metric("M7", news, 19),), 1)), NOW)
    assert [(one.name, one.value) for one in said.metrics] == [("M7/Speed", -5)]  # type: ignore[union-attr]


def test_a_host_says_again_that_it_is_there_when_its_old_will_arrives() -> None:
    host = HostApplication("core")
    will = host.will(NOW)
    host.connected()
    (online,) = host.take_output()
    assert online.retain and topics.parse_state(online.payload) == (True, NOW)
    assert host.receive(will.topic, will.payload, NOW + 5) == []
    assert host.take_output() == [online]


# -- what the installer sees -------------------------------------------------------------------------------------------


def test_a_packet_or_a_printed_line_is_taken_apart() -> None:
    payload = encode(Payload(NOW, (Metric("Level", 1.5, DataType.DOUBLE),), 3))
    topic = b"spBv1.0/city/DDATA/gw1/m1"
    rest = len(topic).to_bytes(2, "big") + topic + payload
    packet = bytes((0x30, len(rest))) + rest
    for data in (packet, topic + b" " + payload.hex().encode()):
        said = explain(Capture(data)).said()
        assert said["topic"]["device"] == "m1" and said["payload"]["seq"] == 3
    assert explain(Capture(topic)).said()["type"] == "DDATA"
    (told,) = explain(Capture(packet)).frames
    level = next(one for one in told.fields if one.name == "metrics[0]")
    assert level.offset is not None and packet[level.offset] == 0x12


def test_likely_mistakes_are_named() -> None:
    in_seconds = encode(Payload(NOW // 1000, (Metric("Level", 1.5, DataType.DOUBLE),)))
    hints = " ".join(explain(Capture(in_seconds, topic="spBv1.0/city/NBIRTH/gw1")).frames[0].hints)
    assert "seconds" in hints and "bdSeq" in hints and "seq" in hints
    assert "JSON" in explain(Capture(b'{"a": 1}', topic="spBv1.0/city/NDATA/gw1")).frames[0].hints[0]
