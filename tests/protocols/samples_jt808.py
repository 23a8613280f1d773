"""JT/T 808 messages of both directions for the generic suite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from protocols.jt808 import media, parameters, platform, position, terminal
from protocols.jt808.body import Body, Opaque
from protocols.jt808.frame import MAX_ESCAPED
from protocols.jt808.messages import Message, reply, terminal_answer

#: Both kinds of delimiters may hold a piece until the first good frame.
BOUND = 2 * MAX_ESCAPED

_u8, _u16, _u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
_text = st.text("皖A测试abcXYZ0123456789", min_size=1, max_size=6)
_moment_ms = st.integers(946_699_200, 4_102_415_999).map(lambda s: s * 1000)

_extras = st.lists(st.tuples(_u8, st.binary(max_size=12)), max_size=5).map(tuple)
_position = st.builds(
    position.make,
    lat=st.floats(-90, 90),
    lon=st.floats(-180, 180),
    time_ms=_moment_ms,
    speed_kmh=st.floats(0, 200),
    direction=st.integers(0, 359),
    altitude_m=st.integers(-400, 9000),
    status=_u32,
    alarm=_u32,
    extras=_extras,
)

_bodies_up: st.SearchStrategy[Body] = st.one_of(
    st.just(terminal.Heartbeat()),
    st.builds(terminal.TerminalAnswer, _u16, _u16, st.integers(0, 4)),
    st.builds(terminal.PositionReport, _position),
    st.builds(terminal.PositionAnswer, _u16, _position),
    st.builds(
        terminal.BatchReport,
        st.builds(position.Batch, st.lists(_position, max_size=4).map(tuple), st.integers(0, 1)),
    ),
    st.builds(terminal.Transparent, _u8, st.binary(max_size=60)),
    # Long enough for sub-packages.
    st.builds(
        media.MediaData, _u32, _u8, _u8, _u8, _u8, _position.map(lambda p: replace(p, extras=())),
        st.binary(min_size=1_100, max_size=2_400),
    ),
    st.builds(Opaque, st.integers(0x0F00, 0x0FFF), st.binary(max_size=40)),
)  # fmt: skip

_bodies_down: st.SearchStrategy[Body] = st.one_of(
    st.just(platform.QueryPosition()),
    st.just(platform.QueryAllParameters()),
    st.builds(platform.PlatformAnswer, _u16, _u16, st.integers(0, 4)),
    st.builds(platform.RegisterAnswer, _u16, st.just(0), _text),
    st.builds(platform.TerminalControl, st.integers(1, 7), _text),
    st.builds(platform.Follow, _u16, _u32),
    st.builds(
        platform.SetParameters,
        st.lists(st.builds(parameters.Parameter, _u32, st.binary(max_size=20)), max_size=4).map(tuple),
    ),
    st.builds(
        media.TakePhoto, _u8, _u16, _u16, _u8, _u8, _u8, _u8, _u8, _u8, _u8
    ),
)  # fmt: skip


@st.composite
def _message(draw: st.DrawFn, bodies: st.SearchStrategy[Body]) -> Message:
    body, serial = draw(bodies), draw(_u16)
    if draw(st.booleans()):
        return Message(draw(st.text("0123456789", min_size=20, max_size=20)), body, serial, "2019", draw(_u8))
    return Message(draw(st.text("0123456789", min_size=12, max_size=12)), body, serial)


FROM_TERMINAL = _message(_bodies_up)
TO_TERMINAL = _message(_bodies_down)
FIRST = Message("013912344323", platform.TerminalControl(4), 7)


def answer(heard: Any) -> Message:
    """What a terminal says to that."""
    if isinstance(heard.body, platform.QueryPosition):
        return reply(heard, terminal.PositionAnswer(heard.serial, position.Position()), 12)
    if isinstance(heard.body, platform.QueryAllParameters):
        return reply(heard, terminal.ParameterAnswer(heard.serial, (parameters.Parameter(1, b"\0\0\0\x3c"),)), 13)
    return replace(terminal_answer(heard), serial=14)
