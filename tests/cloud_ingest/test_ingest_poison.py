"""What must not be stored is set aside with its reason, its sender is told, and nobody else notices.

Every poison goes through the real broker into a worker that all of them share: a poison that ends the worker, or stops
a lane, fails the tests after it too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import pytest
import zstandard

from protocols.core.model import EvidenceRef
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import MAX_BATCH_BYTES, MAX_BODY_BYTES, DeviceState, EvidenceChunk, Thinned
from scenarios.binding import ScenarioBinding
from tests.cloud_ingest.site import (
    EPOCH,
    T0_MS,
    Core,
    RawGateway,
    columns,
    declare,
    encode,
    enrol,
    event,
    query,
)
from tests.fixtures.broker import Broker
from tests.fixtures.postgres import Postgres, new_database
from tests.fixtures.wait import until

GOOD, OWNER = ("gw-good", 7), ("gw-owner", 7)
SENDERS = [(f"gw-{n:02d}", 7) for n in range(60)]
SITE = ScenarioBinding(pack="urban_mgmt/construction_site", devices={"crane": ("crane-1",), "dust": ("dust-1",)})
_senders = iter(SENDERS)
_numbers = count(1)


@dataclass
class Place:
    """The shared core and who talks to it."""

    dsn: str
    broker: Broker
    core: Core
    good: RawGateway
    good_seq: int = 1

    def good_once(self) -> bytes:
        self.good_seq += 1
        return encode(self.good_seq, [(0, T0_MS + self.good_seq, self.good_seq)])


@pytest.fixture(scope="module")
def place(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    dsn = new_database(postgres)
    enrol(dsn, GOOD, OWNER, *SENDERS)
    broker = Broker(tmp_path_factory.mktemp("broker"), [GOOD, OWNER, *SENDERS, ("gw-stranger", 7)])
    broker.start()
    try:
        with Core(dsn, broker, scenario=(SITE,)) as core, RawGateway(broker, *GOOD) as good:
            with RawGateway(broker, *OWNER) as owner:
                owner.send("data", encode(1, [(0, T0_MS, 1)], declarations=(declare(0, "owner-1"),)))
                owner.wait_committed("data", 1)
            good.send("data", encode(1, [(0, T0_MS, 1)], declarations=(declare(0, "good-1"),)))
            good.wait_committed("data", 1)
            yield Place(dsn, broker, core, good)
    finally:
        broker.stop()


@pytest.fixture
def sender(place: Place) -> Iterator[RawGateway]:
    with RawGateway(place.broker, *next(_senders)) as gateway:
        yield gateway


def _message(payload: bytes) -> pb.Batch:
    message = pb.Batch()
    message.ParseFromString(payload)
    return message


def _changed(payload: bytes, change: Callable[[pb.Batch], object]) -> bytes:
    message = _message(payload)
    change(message)
    return message.SerializeToString()


def _event(**fields: object) -> bytes:
    """A batch of two events; the second is changed into the poison."""

    def change(message: pb.Batch) -> None:
        for name, value in fields.items():
            setattr(message.events[1], name, value)

    return _changed(encode(2, events=(event(901), event(902))), change)


def _values(text: str) -> bytes:
    return _event(values_json=text)


def _bomb(packed_bytes: int) -> bytes:
    """One zstd frame that unpacks to very much more and does not say so beforehand."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    parts = []
    while sum(map(len, parts)) < packed_bytes:
        parts.append(compressor.compress(bytes(8 << 20)))
    return b"".join([*parts, compressor.flush()])


def _body(seq: int, numbers: bytes) -> bytes:
    return pb.Batch(epoch=EPOCH, seq=seq, readings=numbers).SerializeToString()


def _huge(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


_UNMASKED = EvidenceChunk(EvidenceRef("ab" * 32, masked=False), "cam", T0_MS, 3, 0, b"abc")
_WRONG_HASH = EvidenceChunk(EvidenceRef("ab" * 32), "cam", T0_MS, 3, 0, b"abc")

#: name -> (lane, payload with sequence 2, reason)
POISONS: dict[str, tuple[str, bytes, str]] = {
    "undeclared series": ("data", encode(2, [(41, T0_MS, 1)]), "undeclared_series"),
    "newer version": (
        "data",
        _changed(encode(2, [(0, T0_MS, 1)]), lambda m: setattr(m, "version", 2)),
        "newer_version",
    ),
    "foreign device": (
        "data",
        encode(2, [(1, T0_MS, 1)], declarations=(declare(1, "owner-1", "y"),)),
        "foreign_device",
    ),
    "foreign device, typed": (
        "data",
        encode(2, [(1, T0_MS, 1)], declarations=(declare(1, "owner-1", "y", kind="env/dust_station"),)),
        "foreign_device",
    ),
    "state of a foreign device": (
        "event",
        encode(2, devices=(DeviceState("owner-1", False, T0_MS, ""),)),
        "foreign_device",
    ),
    "alias means something else": (
        "data",
        encode(2, [(0, T0_MS, 1)], declarations=(declare(0, "other"),)),
        "declaration",
    ),
    "declaration without a device": ("data", encode(2, declarations=(declare(3, ""),)), "declaration"),
    "alias beyond int32": ("data", encode(2, declarations=(declare(1 << 31, "mine"),)), "declaration"),
    "device name of 4 KiB": ("data", encode(2, declarations=(declare(3, "d" * 4096),)), "declaration"),
    "NUL in a device name": ("data", encode(2, declarations=(declare(3, "a\0b"),)), "database_refused"),
    "NUL in an event's source": ("event", _event(source="a\0b/c"), "database_refused"),
    "NUL in the values": ("event", _values('{"a":"\\u0000"}'), "database_refused"),
    "lone surrogate in the values": (
        "event",
        _values('{"a":"\\ud800"}'),
        "database_refused",
    ),
    "NUL in a state's detail": (
        "event",
        encode(2, devices=(DeviceState("mine", True, T0_MS, "\0"),)),
        "database_refused",
    ),
    "reading before 1970": ("data", encode(2, [(0, -1, 1)]), "time"),
    "reading in the year 300000": ("data", encode(2, [(0, 9_500_000_000_000_000, 1)]), "time"),
    "reading at the end of int64": ("data", encode(2, [(0, (1 << 63) - 1, 1), (0, -(1 << 63), 2)]), "time"),
    "event in the year 2200": ("event", _event(ts_ms=7_258_118_400_000), "time"),
    "event seen before 1970": ("event", _event(seen_ms=-1), "time"),
    "state in the year 300 million": (
        "event",
        encode(2, devices=(DeviceState("mine", True, (1 << 63) - 1, ""),)),
        "time",
    ),
    "event without a type": ("event", _event(type=""), "event"),
    "event of an unknown level": ("event", _event(level=9), "event"),
    "raise without a key": ("event", _event(state=1), "event"),
    "values are not JSON": ("event", _values("{"), "event"),
    "values are a list": ("event", _values("[1]"), "event"),
    "values nested in values": ("event", _values('{"a":{"b":1}}'), "event"),
    "values nested 100000 deep": ("event", _values("[" * 100_000), "event"),
    "values with NaN": ("event", _values('{"a":NaN}'), "event"),
    "values beyond a double": ("event", _values('{"a":1e999}'), "event"),
    "number of 5000 digits": ("event", _values('{"a":' + "9" * 5000 + "}"), "event"),
    "number of 400 digits": ("event", _values('{"a":' + "9" * 400 + "}"), "event"),
    "place that is no number": ("event", _event(lat=float("nan")), "event"),
    "place beyond the pole": ("event", _event(lat=1e300), "event"),
    "unmasked picture": ("evidence", encode(2, evidence=(_UNMASKED,)), "unmasked"),
    "picture that is another": ("evidence", encode(2, evidence=(_WRONG_HASH,)), "evidence_hash"),
    "thinned beyond bigint": ("data", encode(2, thinned=(Thinned((1 << 64) - 1, "outbox_full", 0, 0),)), "malformed"),
    "zstd bomb": (
        "data",
        pb.Batch(epoch=EPOCH, seq=2, readings_zstd=_bomb(40_000)).SerializeToString(),
        "too_big",
    ),
    "zstd that says 4 GiB": (
        "data",
        pb.Batch(epoch=EPOCH, seq=2, readings_zstd=b"\x28\xb5\x2f\xfd\xa0\xff\xff\xff\xff\x01\0\0").SerializeToString(),
        "too_big",
    ),
    "zstd cut short": (
        "data",
        _changed(
            encode(2, [(0, T0_MS + n * n, n) for n in range(99)]),
            lambda m: setattr(m, "readings_zstd", m.readings_zstd[:-9]),
        ),
        "zstd",
    ),
    "2^40 rows": ("data", _body(2, _huge(1 << 3) + _huge(1 << 40)), "malformed"),
    "2^60 series": ("data", _body(2, _huge(1 << 63) + _huge(1)), "malformed"),
    "a million times a million": (
        "data",
        _body(2, _huge(1 << 3) + _huge(10**6) + _huge(0) + _huge(10**6)),
        "too_many_readings",
    ),
    "numbers that never end": ("data", _body(2, b"\xff" * 300), "truncated"),
    "quality of another world": ("data", encode(2, [(0, T0_MS, 1, 99)]), "malformed"),
}


@pytest.mark.parametrize("name", POISONS)
def test_a_poison_is_set_aside_and_told_and_the_lane_goes_on(place: Place, sender: RawGateway, name: str) -> None:
    lane, poison, reason = POISONS[name]
    mine = (declare(0, f"{sender.name}-m"),)
    sender.send(lane, encode(1, [(0, T0_MS, 1)] if lane == "data" else (), declarations=mine))
    sender.wait_committed(lane, 1)
    # In one burst, so that they are likely to be committed as one group.
    place.good.send("data", place.good_once())
    sender.send(lane, poison)
    sender.send(
        lane, encode(3, [(0, T0_MS + 5, 5)] if lane == "data" else (), events=(event(next(_numbers) + 10_000),))
    )
    place.good.send("data", place.good_once())
    sender.wait_committed(lane, 3)
    place.good.wait_committed("data", place.good_seq)
    place.core.check()
    until(sender.refusals, "the sender is told")
    assert sender.refusals() == [(lane, 2, reason)]
    ((topic, kept_lane, seq, kept_reason, detail, size, payload),) = query(
        place.dsn,
        "select topic, lane, seq, reason, detail, size_bytes, payload from dead_letter where gateway_id = %s",
        sender.name,
    )
    assert (topic, kept_lane, seq, kept_reason) == (f"cb/v1/7/{sender.name}/up/{lane}", lane, 2, reason)
    assert detail and size == len(poison) and payload == poison[: 64 << 10]
    seqs, events = query(place.dsn, "select seq, batches, events from lane_cursor where gateway_id = %s", sender.name)[
        0
    ][::2]
    assert (seqs, events) == (3, 1)
    if lane == "data":
        values = query(
            place.dsn,
            "select value from reading join series using (series_id) where device_id = %s order by ts",
            f"{sender.name}-m",
        )
        assert values == [(0.1,), (0.5,)]


def test_good_data_of_the_same_groups_is_all_there(place: Place) -> None:
    place.good.send("data", place.good_once())
    place.good.wait_committed("data", place.good_seq)
    rows = query(
        place.dsn, "select value from reading join series using (series_id) where device_id = 'good-1' order by ts"
    )
    assert [round(value * 10) for (value,) in rows] == list(range(1, place.good_seq + 1))
    assert not place.good.refusals()


def test_bytes_that_are_no_batch_are_set_aside_and_change_no_lane(place: Place, sender: RawGateway) -> None:
    for payload in (b"", b"\xff" * 40, b"\x00", encode(1)[:-1] + b"\xff", b"x" * (MAX_BATCH_BYTES + 1)):
        sender.send("data", payload)
    sender.send("health", b"\xff\xff")
    sender.send("state", b"\x0a")
    sender.send("data", encode(1, [(0, T0_MS, 1)], declarations=(declare(0, f"{sender.name}-m"),)))
    sender.wait_committed("data", 1)
    found = query(
        place.dsn,
        "select reason, lane, seq, size_bytes, length(payload) from dead_letter where gateway_id = %s order by 1, 4",
        sender.name,
    )
    reasons = sorted(row[0] for row in found)
    assert reasons == [
        "no_sequence",
        "not_protobuf",
        "not_protobuf",
        "not_protobuf",
        "not_protobuf",
        "not_protobuf",
        "too_big",
    ]
    assert next(row for row in found if row[0] == "too_big")[3:] == (MAX_BATCH_BYTES + 1, 64 << 10)
    assert all(row[2] is None for row in found)
    assert not sender.refusals()


def test_a_batch_of_a_newer_version_is_kept_whole(place: Place, sender: RawGateway) -> None:
    import random

    rng = random.Random(7)
    rows = [(0, T0_MS + n, rng.getrandbits(60)) for n in range(20_000)]
    whole = _changed(
        encode(1, rows, declarations=(declare(0, "owner-1"),)), lambda message: setattr(message, "version", 9)
    )
    assert len(whole) > 100_000
    sender.send("backfill", whole)
    sender.wait_committed("backfill", 1)
    assert query(place.dsn, "select payload, reason from dead_letter where gateway_id = %s", sender.name) == [
        (whole, "newer_version")
    ]
    until(lambda: sender.refusals() == [("backfill", 1, "newer_version")], "the sender is told")


def test_one_wrong_device_does_not_take_the_others_with_it(place: Place, sender: RawGateway) -> None:
    mine, foreign = f"{sender.name}-m", "owner-1"
    sender.send(
        "data",
        encode(
            1,
            [(0, T0_MS, 1), (1, T0_MS, 2), (2, T0_MS, 3)],
            declarations=(declare(0, mine), declare(1, foreign, "y"), declare(2, mine, "z")),
        ),
    )
    sender.send("data", encode(2, [(0, T0_MS + 1, 4), (1, T0_MS + 1, 5), (2, T0_MS + 1, 6)]))
    sender.send("data", encode(3, [(0, T0_MS + 2, 7), (2, T0_MS + 2, 8)]))
    sender.send(
        "event",
        encode(
            1,
            events=(
                event(31_337, source=mine),
                event(31_338, source=foreign),
                replace(event(31_339, source=mine), state="clear", key=f"{foreign}/y:limit"),
            ),
            devices=(DeviceState(foreign, False, T0_MS, ""), DeviceState(mine, True, T0_MS, "ok")),
        ),
    )
    sender.wait_committed("data", 3)
    sender.wait_committed("event", 1)
    values = query(
        place.dsn,
        "select point, value from reading join series using (series_id) where device_id = %s order by 2",
        mine,
    )
    assert values == [("x", 0.1), ("z", 0.3), ("x", 0.4), ("z", 0.6), ("x", 0.7), ("z", 0.8)]
    assert query(place.dsn, "select count(*) from series where device_id = %s and point = 'y'", foreign) == [(0,)]
    assert query(place.dsn, "select online from device where device_id = %s", foreign) == [(None,)]
    assert query(place.dsn, "select online from device where device_id = %s", mine) == [(True,)]
    kept = query(place.dsn, "select event_id from event where event_id like 'event-3133%%'")
    assert kept == [("event-31337",)]  # nobody raises or clears in another's name
    reasons = query(
        place.dsn, "select lane, seq, reason from dead_letter where gateway_id = %s order by 1, 2", sender.name
    )
    assert reasons == [("data", 1, "foreign_device"), ("data", 2, "foreign_device"), ("event", 1, "foreign_device")]
    until(lambda: len(sender.refusals()) == 3, "the sender is told of each")


def test_aliases_may_be_any_numbers_and_cost_no_memory(place: Place, sender: RawGateway) -> None:
    aliases = [(1 << 31) - 1, 5, 70_000, (1 << 30) + 7, 65_535, 65_536]
    named = tuple(declare(alias, f"{sender.name}-m", f"p{n}") for n, alias in enumerate(aliases))
    sender.send("data", encode(1, [(alias, T0_MS, n) for n, alias in enumerate(aliases)], declarations=named))
    sender.send("data", encode(2, [(alias, T0_MS + 1, 10 + n) for n, alias in enumerate(aliases[1:], 1)]))
    sender.wait_committed("data", 2)
    found = query(
        place.dsn,
        "select point, value from reading join series using (series_id) where device_id = %s order by ts, point",
        f"{sender.name}-m",
    )
    assert found == [(f"p{n}", n / 10) for n in range(6)] + [(f"p{n}", (10 + n) / 10) for n in range(1, 6)]
    assert not sender.refusals()


def test_a_gateway_nobody_enrolled_is_set_aside_until_it_is(place: Place) -> None:
    with RawGateway(place.broker, "gw-stranger", 7) as stranger:
        first = encode(1, [(0, T0_MS, 1)], declarations=(declare(0, "stranger-1"),))
        stranger.send("data", first)
        until(
            lambda: (
                query(place.dsn, "select reason from dead_letter where topic like '%%gw-stranger%%'") == [("stranger",)]
            ),
            "it is set aside",
        )
        assert not stranger.acks
        enrol(place.dsn, ("gw-stranger", 7))
        stranger.send("data", first)
        stranger.wait_committed("data", 1)


def test_50_mb_are_refused_by_the_broker_and_nobody_else_notices(place: Place, sender: RawGateway) -> None:
    before = query(place.dsn, "select count(*) from dead_letter")
    sender.send("data", bytes(50_000_000))
    assert sender.lost.wait(10), "the broker closes the connection"
    place.good.send("data", place.good_once())
    place.good.wait_committed("data", place.good_seq)
    assert query(place.dsn, "select count(*) from dead_letter") == before
    with RawGateway(place.broker, sender.name, sender.shard, client_id=sender.name + "-again") as again:
        again.send("data", encode(1, [(0, T0_MS, 1)], declarations=(declare(0, f"{sender.name}-m"),)))
        again.wait_committed("data", 1)


def test_the_worker_has_taken_no_memory_for_claims(place: Place) -> None:
    """All the bombs above went through this process."""
    import resource

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # KiB: 1 GiB
    assert MAX_BODY_BYTES == 16 << 20
    assert json.dumps(sorted(place.core.worker.counts))  # counts are there for metrics
    assert len(columns([])) == 0
