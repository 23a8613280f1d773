"""What the generic suite needs to know of each protocol: messages of each direction, and how one side answers.

A new protocol adds one row to SAMPLES; everything in ``test_every_codec.py`` then applies to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from protocols.core.endpoint import Role
from protocols.dlt645 import messages as dlt645
from protocols.dlt645 import slave as dlt645_slave
from protocols.gb26875 import messages as gb26875
from protocols.gb32960 import messages as gb32960
from protocols.hj212 import messages as hj212
from protocols.modbus import messages as modbus
from protocols.modbus import slave as modbus_slave
from tests.protocols import samples_cjt188 as cjt188
from tests.protocols import samples_gb26875 as fire
from tests.protocols import samples_gb28181 as gb28181
from tests.protocols import samples_gb32960 as vehicle
from tests.protocols import samples_jt808 as vehicles
from tests.protocols import samples_mbus as mbus
from tests.protocols import samples_nmea_beidou as space
from tests.protocols import samples_sl651 as hydrology
from tests.protocols import samples_traffic_signal as signal


@dataclass(frozen=True, slots=True)
class Sample:
    """``from_slave`` / ``from_master``: messages as the receiving end gives them back. ``answer``: how a slave answers
    a request. ``bound``: most bytes an endpoint may hold. ``resyncs``: finds frames behind noise without silence."""

    protocol: str
    from_slave: st.SearchStrategy[Any]
    from_master: st.SearchStrategy[Any]
    answer: Callable[[Any], Any]
    bound: int
    resyncs: bool = True
    one_way: bool = False  # the slave pushes: its messages need no request
    first_request: Any = None  # what a half frame is made of; None: the suite has one of its own


# -- HJ 212

_name = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=8)
_number = st.decimals(-1000, 100_000, places=2).map(str) | st.sampled_from(["", "NaN", "0", "1E5"])
_text = st.text("监测站正常 abc", max_size=6).map(lambda text: f"//{text};,{text}//")
_item = st.dictionaries(st.sampled_from(["Rtd", "Avg", "Min", "Max", "Flag", "Info"]), _number | _text, min_size=1)
_time_ms = st.integers(946_684_800_000, 4_102_444_799_999)


@st.composite
def _hj212_upload(draw: st.DrawFn) -> hj212.Packet:
    factors = draw(st.dictionaries(_name.map(lambda n: f"a{n}"), _item, max_size=4))
    packet = hj212.upload(
        draw(st.sampled_from(["2011", "2051", "2061", "2031"])),
        draw(st.text("0123456789ABCDEF", min_size=6, max_size=24)),
        factors,
        data_time_ms=draw(_time_ms),
        qn_ms=draw(_time_ms),
        flag=4,
    )
    gbk = any("//" in value for parts in factors.values() for value in parts.values()) and draw(st.booleans())
    return _with_encoding(packet, "gbk") if gbk else packet


def _with_encoding(packet: hj212.Packet, encoding: str) -> hj212.Packet:
    from dataclasses import replace

    text = hj212.encode_data(packet)
    if text.isascii():
        return packet  # pure ASCII reads as UTF-8
    try:
        text.decode("utf-8").encode("gbk").decode("utf-8")
    except UnicodeDecodeError:
        return replace(packet, encoding=encoding)
    return packet  # bytes that happen to be both


@st.composite
def _hj212_request(draw: st.DrawFn) -> hj212.Packet:
    return hj212.set_clock(draw(st.text("0123456789", min_size=1)), pw="123456", st="39", now_ms=draw(_time_ms))


# -- DL/T 645

_addr = st.text("0123456789", min_size=12, max_size=12)
_di = st.sampled_from(["00010000", "02010100", "0203FF00", "04000101", "9010", "B611"])


@st.composite
def _dlt645_reply(draw: st.DrawFn) -> dlt645.Message:
    addr, di, data = draw(_addr), draw(_di), draw(st.binary(max_size=190))
    seq = draw(st.none() | st.integers(1, 255)) if len(di) == 8 else None
    return draw(
        st.sampled_from(
            [
                dlt645.ReadReply(addr, di, data, draw(st.booleans()), seq),
                dlt645.AddressReply(addr, addr),
                dlt645.Done(addr, dlt645.WRITE),
                dlt645.ErrorReply(addr, dlt645.READ, draw(st.integers(0, 255))),
            ]
        )
    )


_dlt645_request = st.one_of(
    st.builds(dlt645.Read, _addr, _di),
    st.builds(dlt645.ReadMore, _addr, st.just("00010000"), st.integers(1, 255)),
    st.builds(dlt645.ReadAddress, _addr | st.just(dlt645.ANYBODY)),
    st.builds(dlt645.Command, _addr, st.sampled_from([0x14, 0x16, 0x17, 0x1C]), st.binary(max_size=50)),
)


def _meter(request: Any) -> Any:
    numbers = {"00010000": Decimal("1234.56"), "02010100": Decimal("231.9"), "02030000": Decimal("-0.2512")}
    meter = request.addr if "A" not in request.addr else "000000000161"
    return dlt645_slave.answer(request, meter=meter, source=dlt645_slave.table_source(numbers))


# -- Modbus

_unit = st.integers(1, 247)
_words = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=125).map(tuple)


@st.composite
def _modbus_reply(draw: st.DrawFn) -> modbus.Message:
    unit, transaction = draw(_unit), 0
    function = draw(st.sampled_from([1, 2, 3, 4, 23]))
    if draw(st.integers(0, 9)) == 0:
        text = st.binary(max_size=20)
        objects = tuple(enumerate(draw(st.lists(text, min_size=1, max_size=4))))
        return modbus.Identification(unit, 1, objects, draw(st.none() | st.integers(0, 255)))
    if draw(st.integers(0, 4)) == 0:
        return modbus.ExceptionReply(unit, function, draw(st.integers(1, 11)), transaction)
    if function in (1, 2):
        bits = tuple(draw(st.lists(st.booleans(), min_size=8, max_size=64).map(lambda b: b[: len(b) // 8 * 8])))
        return modbus.Reply(unit, function, 0, len(bits), bits=bits, transaction=transaction)
    words = draw(_words)
    return modbus.Reply(unit, function, 0, len(words), registers=words, transaction=transaction)


_modbus_request = st.one_of(
    st.builds(modbus.ReadRequest, _unit, st.sampled_from([3, 4]), st.integers(0, 65_000), st.integers(1, 125)),
    st.builds(modbus.ReadRequest, _unit, st.sampled_from([1, 2]), st.integers(0, 60_000), st.integers(1, 2000)),
    st.builds(modbus.MaskWrite, _unit, st.integers(0, 65_535), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    st.builds(
        modbus.ReadWrite,
        _unit,
        st.integers(0, 60_000),
        st.integers(1, 125),
        st.integers(0, 60_000),
        _words.map(lambda words: words[:121]),
    ),
    st.builds(modbus.Identify, _unit, st.integers(1, 3)),
    st.builds(modbus.WriteRequest, _unit, st.just(6), st.integers(0, 65_535), st.tuples(st.integers(0, 0xFFFF))),
    st.builds(modbus.WriteRequest, _unit, st.just(5), st.integers(0, 65_535), st.tuples(st.integers(0, 1))),
    st.builds(modbus.WriteRequest, _unit, st.just(16), st.integers(0, 60_000), _words.map(lambda words: words[:123])),
    st.builds(
        modbus.WriteRequest,
        _unit,
        st.just(15),
        st.integers(0, 60_000),
        st.lists(st.integers(0, 1), min_size=1, max_size=100).map(tuple),
    ),
)


def _device(request: Any) -> Any:
    def read(function: int, address: int, count: int) -> list[int] | None:
        if address >= 50_000:
            return None
        return [(address + n) % 2 if function in (1, 2) else (address + n) & 0xFFFF for n in range(count)]

    identity = {0: b"citybrain", 1: b"device", 2: b"1.0"}
    return modbus_slave.answer(request, read, lambda function, address, values: address < 50_000, identity=identity)


SAMPLES: dict[str, Sample] = {
    sample.protocol: sample
    for sample in (
        Sample("hj212", _hj212_upload(), _hj212_request(), hj212.request_answer, bound=10_100, one_way=True),
        Sample(
            "sl651",
            hydrology.report(),
            hydrology.request(),
            hydrology.answer,
            bound=hydrology.BOUND,
            one_way=True,
            first_request=hydrology.FIRST,
        ),
        Sample(
            "jt808",
            vehicles.FROM_TERMINAL,
            vehicles.TO_TERMINAL,
            vehicles.answer,
            bound=vehicles.BOUND,
            one_way=True,
            first_request=vehicles.FIRST,
        ),
        Sample(
            "nmea_beidou",
            space.FROM_RECEIVER,
            space.TO_RECEIVER,
            space.answer,
            bound=space.BOUND,
            one_way=True,
            first_request=space.FIRST,
        ),
        Sample("dlt645", _dlt645_reply(), _dlt645_request, _meter, bound=212),
        Sample("mbus", mbus.FROM_METER, mbus.TO_METER, mbus.meter, bound=mbus.BOUND, first_request=mbus.FIRST),
        Sample(
            "cjt188", cjt188.FROM_METER, cjt188.TO_METER, cjt188.meter, bound=cjt188.BOUND, first_request=cjt188.FIRST
        ),
        Sample("modbus-rtu", _modbus_reply(), _modbus_request, _device, bound=256),
        Sample("modbus-tcp", _modbus_reply(), _modbus_request, _device, bound=260, resyncs=False),
        Sample("modbus-ascii", _modbus_reply(), _modbus_request, _device, bound=514),
        Sample(
            "gb26875",
            fire.from_device,
            fire.from_centre,
            gb26875.request_answer,
            bound=fire.BOUND,
            one_way=True,
            first_request=fire.FIRST,
        ),
        Sample(
            "gb32960",
            vehicle.from_vehicle,
            vehicle.from_platform,
            gb32960.request_answer,
            bound=vehicle.BOUND,
            one_way=True,
            first_request=vehicle.FIRST,
        ),
        Sample(
            "gb20999-tcp",
            signal.from_controller,
            signal.from_host,
            signal.controller,
            bound=signal.BOUND_STREAM,
            first_request=signal.FIRST,
        ),
        Sample(
            "gb20999-udp",
            signal.from_controller,
            signal.from_host,
            signal.controller,
            bound=signal.BOUND_DATAGRAM,
            first_request=signal.FIRST,
        ),
        Sample(
            "gb28181",
            gb28181.request() | gb28181.response(),
            gb28181.request(),
            gb28181.answer,
            bound=gb28181.BOUND,
            first_request=gb28181.FIRST,
        ),
    )
}

OTHER = {Role.MASTER: Role.SLAVE, Role.SLAVE: Role.MASTER}
