"""Messages of a user information transmission device and of the centre, for the generic suite."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from protocols.gb26875 import messages as m
from protocols.gb26875 import objects as o
from protocols.gb26875.units import unit

BOUND = 1054

u8, u16 = st.integers(0, 255), st.integers(0, 0xFFFF)
_u32 = st.integers(0, 0xFFFFFFFF)
_i16 = st.integers(-0x8000, 0x7FFF)
_stamp = st.binary(min_size=6, max_size=6)
_text = st.text("一层走廊烟感A1 ", max_size=20).map(o.text_field) | st.binary(min_size=31, max_size=31)

#: Type byte -> strategy of its objects.
OBJECTS: dict[int, st.SearchStrategy[Any]] = {
    1: st.builds(o.SystemState, u8, u8, u16, _stamp),
    2: st.builds(o.ComponentState, u8, u8, u8, _u32, u16, _text, _stamp),
    3: st.builds(o.Analog, u8, u8, u8, _u32, u8, _i16, _stamp),
    4: st.builds(o.Operation, u8, u8, u8, u8, _stamp),
    5: st.builds(o.Version, u8, u8, u8, u8),
    6: st.builds(o.SystemText, u8, u8, st.binary(max_size=40)),
    7: st.builds(o.ComponentText, u8, u8, u8, _u32, _text),
    8: st.builds(o.SystemClock, u8, u8, _stamp),
    21: st.builds(o.TransmitterState, u8, _stamp),
    24: st.builds(o.TransmitterOperation, u8, u8, _stamp),
    25: st.builds(o.TransmitterVersion, u8, u8),
    26: st.builds(o.TransmitterText, st.binary(max_size=40)),
    28: st.builds(o.Clock, _stamp),
    61: st.builds(o.ReadSystem, u8, u8),
    62: st.builds(o.ReadComponent, u8, u8, _u32),
    63: st.builds(o.ReadComponent, u8, u8, _u32),
    64: st.builds(o.ReadOperations, u8, u8, u8, _stamp),
    65: st.builds(o.ReadSystem, u8, u8),
    66: st.builds(o.ReadSystem, u8, u8),
    67: st.builds(o.ReadComponent, u8, u8, _u32),
    68: st.builds(o.ReadSystem, u8, u8),
    81: st.builds(o.ReadTransmitter),
    84: st.builds(o.ReadTransmitterOperations, u8, _stamp),
    85: st.builds(o.ReadTransmitter),
    86: st.builds(o.ReadTransmitter),
    88: st.builds(o.ReadTransmitter),
    89: st.builds(o.ReadTransmitter),
    90: st.builds(o.Clock, _stamp),
    91: st.builds(o.DutyCheck, u8),
}


@st.composite
def _data(draw: st.DrawFn, types: tuple[int, ...]) -> bytes:
    kind = draw(st.sampled_from(types))
    return unit(kind, draw(st.lists(OBJECTS[kind], min_size=1, max_size=3))).data


def _packets(commands: list[int], data: st.SearchStrategy[bytes]) -> st.SearchStrategy[m.Packet]:
    address = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex().upper())
    command = st.sampled_from(commands)
    return st.builds(m.Packet, command, u16, address, address, data, _stamp, st.tuples(u8, u8))


_UP = tuple(kind for kind in OBJECTS if kind < 61)
_DOWN = tuple(kind for kind in OBJECTS if kind >= 61)

from_device = st.one_of(
    _packets([m.SEND, m.REPLY], _data(_UP)),
    _packets([m.SEND, 128], st.binary(max_size=60)),
    _packets([m.CONFIRM, m.DENY], st.just(b"")),
)
from_centre = _packets([m.CONTROL, m.REQUEST], _data(_DOWN))
FIRST = m.Packet(m.REQUEST, 7, "000000000001", "112233445566", b"\x51\x01\x00", b"\x1e\x05\x08\x01\x08\x1a")
