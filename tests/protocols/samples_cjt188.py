"""Messages of CJ/T 188 for the generic suite, and a water meter that answers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from protocols.cjt188 import messages as cjt188
from protocols.cjt188.slave import Meter, answer
from protocols.cjt188.values import encode

#: 68, type, address, control, length, 255 data bytes, checksum, 16.
BOUND = 268
FIRST = cjt188.Read("10", "78330011223344", "901F", 7)

_type = st.sampled_from(["10", "11", "20", "27", "30", "49"])
_addr = st.text("0123456789", min_size=14, max_size=14) | st.just("20691530F1FFFF")
_di = st.sampled_from(["901F", "911F", "D120", "810A", "8106", "A017"])
_ser = st.integers(0, 255)
_order: st.SearchStrategy[Any] = st.sampled_from(["901F", "1F90"])
_function = st.sampled_from([cjt188.WRITE, cjt188.READ_KEY, cjt188.WRITE_ADDRESS, cjt188.MOTOR_SYNC])

TO_METER: st.SearchStrategy[Any] = st.one_of(
    st.builds(cjt188.Read, _type, _addr, _di, _ser, _order),
    st.builds(cjt188.ReadAddress, _type | st.just("AA"), _addr | st.just(cjt188.ANYBODY), _ser, _order),
    st.builds(cjt188.Command, _type, _addr, _function, _di, st.binary(max_size=20), _ser, _order),
)
FROM_METER: st.SearchStrategy[Any] = st.one_of(
    st.builds(cjt188.ReadReply, _type, _addr, _di, st.binary(max_size=200), _ser, _order, st.booleans()),
    st.builds(cjt188.AddressReply, _type, _addr, _ser, _order),
    st.builds(cjt188.Done, _type, _addr, _function, _di, st.binary(max_size=4), _ser, _order),
    st.builds(cjt188.ErrorReply, _type, _addr, _function, _ser, st.binary(max_size=2)),
)


def meter(request: Any) -> Any:
    who = Meter("10" if request.type == "AA" else request.type, request.addr.replace("A", "1"))
    data = encode("volume", {"current": Decimal("123.45"), "settlement": Decimal("100")})
    return answer(request, meter=who, source=lambda di: data if di == "901F" else None, obey=lambda _: b"\0\0")
