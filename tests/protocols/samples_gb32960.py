"""Messages of a vehicle's terminal and of the platform, for the generic suite."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from protocols.gb32960 import bodies
from protocols.gb32960 import items as i
from protocols.gb32960 import messages as m

BOUND = 65_556

u8, u16, u32 = st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
stamp = st.binary(min_size=6, max_size=6)
_vin = st.text("ABCDEFGHJKLMNPRSTUVWXYZ0123456789", max_size=17).map(m.vin_bytes) | st.just(
    m.vin_bytes("合肥市监控平台")
)
editions: st.SearchStrategy[Any] = st.sampled_from(["2016", "2025"])


def _raw(size: int, low: int = 0, high: int | None = None) -> st.SearchStrategy[float]:
    return st.integers(low, ((1 << 8 * size) - 3) if high is None else high)


@st.composite
def vehicle(draw: st.DrawFn, edition: i.Edition = "2016") -> i.Item:
    """A vehicle item with values as a car has them, or without one."""
    values: dict[str, Any] = {
        "state": draw(st.sampled_from(["on", "off", "other", "invalid", "abnormal", 9])),
        "speed_kmh": draw(st.none() | _raw(2).map(lambda raw: round(raw * 0.1, 1))),
        "mileage_km": draw(st.sampled_from(["invalid", "abnormal"]) | _raw(4).map(lambda raw: round(raw * 0.1, 1))),
        "current_a": draw(_raw(2).map(lambda raw: round(raw * 0.1 - 1000, 1))) if edition == "2016" else 12.5,
        "soc": draw(st.none() | st.integers(0, 100)),
        "gear_raw": draw(u8),
    }
    return i.item(0x01, values, edition)


@st.composite
def items(draw: st.DrawFn, edition: i.Edition = "2016") -> list[i.Item]:
    """Items of every kind in any order, the same one twice too."""
    known = sorted(i.ITEMS_2016 if edition == "2016" else i.ITEMS_2025)
    kinds = draw(st.lists(st.sampled_from([kind for kind in known if kind not in (0x01, 0xFF)]), max_size=4))
    out = [i.item(kind, {}, edition) for kind in kinds]
    out.append(draw(vehicle(edition)))
    cells = [{"no": 1, "cells_v": draw(st.lists(st.integers(0, 0xFFFD).map(lambda n: round(n / 1000, 3)), max_size=9))}]
    out.append(i.item(0x08 if edition == "2016" else 0x07, {"subsystems": cells}, edition))
    out.append(i.item(draw(st.integers(0x80, 0xFE)), {"hex": draw(st.binary(max_size=30)).hex()}, edition))
    return out


@st.composite
def _upload(draw: st.DrawFn) -> m.Message:
    edition = draw(editions)
    command = draw(st.sampled_from([m.LOGIN, m.REALTIME, m.RESENT, m.LOGOUT, m.HEARTBEAT, m.CLOCK, m.PLATFORM_LOGOUT]))
    when = draw(stamp)
    match command:
        case m.LOGIN:
            iccid = draw(st.text("0123456789", min_size=20, max_size=20))
            codes = draw(st.lists(st.text("ABC123", min_size=3, max_size=3), max_size=3))
            if edition == "2016":
                data = bodies.login_data(when, draw(u16), iccid, codes)
            else:
                data = bodies.login_data_2025(when, draw(u16), iccid, [codes, codes])
        case m.REALTIME | m.RESENT:
            data = bodies.report_data(when, draw(items(edition)))
        case m.LOGOUT | m.PLATFORM_LOGOUT:
            data = when + draw(u16).to_bytes(2, "big")
        case _:
            data = b""
    return m.Message(command, draw(_vin), data, m.IS_COMMAND, edition)


@st.composite
def _sealed(draw: st.DrawFn) -> m.Message:
    data = draw(st.binary(min_size=1, max_size=60))
    return m.Message(m.REALTIME, draw(_vin), data, m.IS_COMMAND, draw(editions), draw(st.integers(2, 5)))


@st.composite
def _order(draw: st.DrawFn) -> m.Message:
    command = draw(st.sampled_from([m.QUERY, m.SET, m.CONTROL]))
    body = {m.QUERY: b"\x02\x01\x09", m.SET: b"\x01\x09\x3c", m.CONTROL: b"\x03"}[command]
    return m.Message(command, draw(_vin), draw(stamp) + body, m.IS_COMMAND, draw(editions))


@st.composite
def _order_done(draw: st.DrawFn) -> m.Message:
    return m.reply(draw(_order()), draw(st.sampled_from([m.OK, m.ERROR])))


from_vehicle = st.one_of(_upload(), _sealed(), _order_done())
from_platform = _order()
FIRST = m.Message(m.QUERY, m.vin_bytes("LFWADRJF011002346"), b"\x1a\x03\x02\x08\x00\x00\x02\x01\x09")
