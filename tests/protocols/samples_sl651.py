"""SL 651 telegrams for the generic suite: reports up, questions and confirmations down, in both encodings."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import strategies as st

from protocols.sl651 import messages as sl651
from protocols.sl651.elements import ELEMENTS, Element, element, rain_series
from protocols.sl651.frame import MAX_HELD, End, Telegram
from protocols.sl651.reading import read

BOUND = MAX_HELD + 2048

station = st.text("0123456789ABCDEF", min_size=10, max_size=10)
_password = st.text("0123456789ABCDEF", min_size=4, max_size=4)
_sent = st.integers(1_700_000_000_000, 1_900_000_000_000).map(sl651.stamp)
_ids = st.sampled_from([one.id for one in ELEMENTS.values() if one.definition and one.id < "70" and one.id != "45"])
_number = st.none() | st.integers(-9, 99).map(Decimal)


@st.composite
def _element(draw: st.DrawFn) -> Element:
    identifier, number = draw(_ids), draw(_number)
    if number is not None and ELEMENTS[identifier].definition >> 3 < 3:
        number = abs(number) % 10  # a byte or two has no room for a sign
    return element(identifier, number)


_group = st.builds(
    sl651.Group,
    _sent.map(lambda digits: digits[:10]),
    st.lists(_element() | st.just(rain_series((None,) * 6 + (Decimal("0.5"),) * 6)), max_size=5).map(tuple),
)
report_message = st.builds(
    sl651.Report, st.integers(0, 0xFFFF), _sent, station, st.sampled_from(["48", "50", "4D"]),
    st.lists(_group, min_size=1, max_size=3).map(tuple),
)  # fmt: skip


@st.composite
def report(draw: st.DrawFn) -> Telegram:
    message = draw(report_message)
    func = draw(st.sampled_from([sl651.TEST, sl651.TIMED, sl651.EXTRA, sl651.HOURLY, sl651.READ_NOW]))
    telegram = Telegram(func, sl651.write(message), message.station, draw(st.integers(0, 255)), draw(_password))
    if draw(st.integers(0, 3)) == 0:
        return replace(telegram, body=sl651.write_ascii(message), ascii=True)
    return telegram


@st.composite
def request(draw: st.DrawFn) -> Telegram:
    serial, sent, wanted = draw(st.integers(0, 0xFFFF)), draw(_sent), (("20", 0x19), ("39", 0x23), ("FF11", 0x23))
    func, message = draw(
        st.sampled_from(
            [
                (sl651.READ_NOW, sl651.Plain(serial, sent)),
                (sl651.SET_CLOCK, sl651.Plain(serial, sent)),
                (sl651.READ_ELEMENTS, sl651.Question(serial, sent, wanted)),
                (sl651.READ_PERIOD, sl651.Question(serial, sent, wanted, sent[:8], sent[:8], "000100")),
            ]
        )
    )
    return sl651.ask(func, message, draw(station), center=draw(st.integers(1, 255)), password=draw(_password))


def answer(asked: Telegram) -> Telegram:
    """A station's answer with one element."""
    message = read(asked)
    assert isinstance(message, (sl651.Plain, sl651.Question))
    group = sl651.Group(message.sent[:10], (element("39", "12.34"),))
    return sl651.reply(asked, sl651.Report(message.serial, message.sent, asked.station, "48", (group,)))


FIRST = sl651.ask(sl651.READ_NOW, sl651.Plain(1, "260302080000"), "0012345678")
assert FIRST.end is End.ENQ
