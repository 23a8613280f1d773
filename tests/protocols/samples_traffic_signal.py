"""What the generic suite needs to know of GB/T 20999: questions of a host, answers and reports of a controller."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from protocols.traffic_signal.frame import MOST_LENGTH
from protocols.traffic_signal.messages import Address, Item, Kind, Message, answer

_byte = st.integers(0, 255)
_address = st.builds(Address, st.integers(1, 18), st.integers(1, 8), st.integers(0, 31), st.integers(0, 64))
#: Delimiters and the escape byte inside the data are the hard part.
_data = st.binary(max_size=60) | st.lists(st.sampled_from([0x7E, 0x7D, 0x5C, 0x00]), max_size=30).map(bytes)


def _message(kinds: list[Kind], data: st.SearchStrategy[bytes]) -> st.SearchStrategy[Message]:
    return st.builds(
        Message,
        st.sampled_from(kinds),
        st.lists(st.builds(Item, _address, data), max_size=6).map(tuple),
        controller=st.integers(0, 0xFFFFFFFF),
        crossing=st.integers(0, 4),
        host=_byte,
        sequence=_byte,
        version=st.sampled_from([0x0100, 0x0102]),
    )


from_controller = _message([Kind.QUERY_REPLY, Kind.QUERY_FAILED, Kind.SET_REPLY, Kind.REPORT], _data)
from_host = _message([Kind.QUERY, Kind.HEARTBEAT], st.just(b"")) | _message([Kind.SET], _data)
FIRST = Message(Kind.QUERY, (Item(Address(13, 2, 2, 1)),), controller=805116, host=5, sequence=1)
#: A stream may escape every byte.
BOUND_DATAGRAM, BOUND_STREAM = MOST_LENGTH + 1028, 2 * MOST_LENGTH + 1028


def controller(request: Any) -> Any:
    kinds = {Kind.QUERY: Kind.QUERY_REPLY, Kind.SET: Kind.SET_REPLY, Kind.HEARTBEAT: Kind.HEARTBEAT_REPLY}
    data = b"\x7d\x7e" if request.kind is Kind.QUERY else b""
    items = () if request.kind is Kind.HEARTBEAT else tuple(Item(item.address, data) for item in request.items)
    return answer(request, kinds[request.kind], items)
