"""What holds for every codec in the registry: cutting, noise, damage, memory, both ends against each other.

Seeds are fixed (derandomize): the same examples on every machine.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.core.endpoint import Endpoint, Role
from protocols.core.errors import ConfigError, RemoteProtocolError
from protocols.registry import PROTOCOLS, protocol
from tests.protocols.samples import OTHER, SAMPLES, Sample

NAMES = sorted(PROTOCOLS)
ROLES = [Role.MASTER, Role.SLAVE]
#: Far beyond every silence and time-out of a codec.
AFTER_ALL_MS = 10_000_000

quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
cases = pytest.mark.parametrize("name", NAMES)
receivers = pytest.mark.parametrize("receiver", ROLES, ids=["to_master", "to_slave"])


def receiving(name: str, role: Role) -> Endpoint[Any]:
    """An endpoint of that role that takes messages although it asked for nothing."""
    return protocol(name).listener() if role is Role.MASTER else protocol(name).endpoint(role)


def messages_for(sample: Sample, receiver: Role, at_least: int = 1) -> st.SearchStrategy[list[Any]]:
    one = sample.from_slave if receiver is Role.MASTER else sample.from_master
    return st.lists(one, min_size=at_least, max_size=4)


def encoded(name: str, receiver: Role, messages: list[Any]) -> list[bytes]:
    sender = protocol(name).endpoint(OTHER[receiver])
    return [sender.send(message, 0) for message in messages]


def plain(found: list[Any]) -> list[Any]:
    """The messages without transaction numbers (the sender gives them) and without errors."""
    kept = [one for one in found if not isinstance(one, RemoteProtocolError)]
    return [_no_transaction(one) for one in kept]


def _no_transaction(message: Any) -> Any:
    from dataclasses import replace

    return replace(message, transaction=0) if hasattr(message, "transaction") else message


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(n % (len(data) + 1) for n in at)})
    return [data[a:b] for a, b in pairwise(edges)]


def test_every_protocol_has_a_sample() -> None:
    assert set(SAMPLES) == set(PROTOCOLS)


def test_unknown_protocol_is_named() -> None:
    with pytest.raises(ConfigError, match="modbus-rtu"):
        protocol("modbus")


@cases
@receivers
@given(data=st.data())
@quick
def test_round_trip_however_cut(name: str, receiver: Role, data: st.DataObject) -> None:
    messages = data.draw(messages_for(SAMPLES[name], receiver))
    stream = b"".join(encoded(name, receiver, messages))
    whole = receiving(name, receiver).feed(stream, 0)
    assert plain(whole) == plain(messages)
    assert len(whole) == len(messages)  # and nothing was reported as wrong
    for pieces in (
        [bytes((byte,)) for byte in stream],
        cut(stream, data.draw(st.lists(st.integers(0, 10_000), max_size=12))),
    ):
        endpoint = receiving(name, receiver)
        found = [one for piece in pieces for one in endpoint.feed(piece, 0)]
        assert found == whole


@cases
@receivers
@given(data=st.data())
@quick
def test_noise_hides_nothing(name: str, receiver: Role, data: st.DataObject) -> None:
    sample = SAMPLES[name]
    messages = data.draw(messages_for(sample, receiver))
    endpoint = receiving(name, receiver)
    found: list[Any] = []
    now_ms = 0
    for frame in encoded(name, receiver, messages):
        noise = data.draw(st.binary(max_size=40))
        found += endpoint.feed(noise, now_ms)
        if not sample.resyncs:
            # No checksum to find a frame by: silence must part noise and frame.
            now_ms += AFTER_ALL_MS
            found += endpoint.tick(now_ms)
        found += endpoint.feed(frame, now_ms)
    found += endpoint.tick(now_ms + AFTER_ALL_MS)
    kept = plain(found)
    wanted = plain(messages)
    assert [one for one in kept if one in wanted] == wanted


@cases
@receivers
@given(data=st.data())
@quick
def test_a_damaged_frame_hides_no_other(name: str, receiver: Role, data: st.DataObject) -> None:
    sample = SAMPLES[name]
    messages = data.draw(messages_for(sample, receiver, at_least=3))
    frames = encoded(name, receiver, messages)
    victim = data.draw(st.integers(0, len(frames) - 2))
    # Modbus TCP has no checksum: its header must stay whole for the next one to be found.
    at = data.draw(st.integers(7 if name == "modbus-tcp" else 0, len(frames[victim]) - 1))
    flipped = frames[victim][at] ^ data.draw(st.integers(1, 255))
    frames[victim] = frames[victim][:at] + bytes((flipped,)) + frames[victim][at + 1 :]
    endpoint = receiving(name, receiver)
    kept = plain(endpoint.feed(b"".join(frames), 0) + endpoint.tick(AFTER_ALL_MS))
    wanted = plain([m for n, m in enumerate(messages) if n != victim])
    rest = iter(kept)
    assert all(one in rest for one in wanted)  # all of them, in order


@cases
@receivers
@given(pieces=st.lists(st.binary(max_size=200), max_size=12))
@quick
def test_random_bytes_raise_nothing(name: str, receiver: Role, pieces: list[bytes]) -> None:
    endpoint = receiving(name, receiver)
    for n, piece in enumerate(pieces):
        for one in endpoint.feed(piece, 100 * n):
            assert not isinstance(one, Exception) or isinstance(one, RemoteProtocolError)
        endpoint.tick(100 * n + 60)
    endpoint.tick(AFTER_ALL_MS)
    assert endpoint.deadline() is None


HOSTILE = [
    b"##9999" * 3_000,
    b"##9999QN=1;CN=2011;Flag=7;PNUM=9999;PNO=1;CP=&&" * 400,
    b"\x68" * 20_000,
    (b"\x68" + b"\xaa" * 6 + b"\x68\x91\xc8") * 2_000,
    b"\x01\x03\xfa" * 7_000,
    b"\x00\x01\x00\x00\x00\xfe" * 4_000,
    b":" + b"0" * 20_000,
    b"\xfe" * 20_000,
]


@cases
@receivers
@pytest.mark.parametrize("stream", HOSTILE, ids=lambda s: s[:6].hex())
def test_memory_is_bounded(name: str, receiver: Role, stream: bytes) -> None:
    endpoint = receiving(name, receiver)
    held = endpoint._scanner  # type: ignore[attr-defined]
    for at in range(0, len(stream), 997):
        endpoint.feed(stream[at : at + 997], at)
        size = held.held if isinstance(held.held, int) else len(held.held)
        assert size <= SAMPLES[name].bound
    endpoint.tick(AFTER_ALL_MS)
    assert endpoint.deadline() is None


@cases
@given(data=st.data())
@quick
def test_master_against_slave(name: str, data: st.DataObject) -> None:
    sample = SAMPLES[name]
    master, slave = protocol(name).endpoint(Role.MASTER), protocol(name).endpoint(Role.SLAVE)
    for n, request in enumerate(data.draw(st.lists(sample.from_master, min_size=1, max_size=5))):
        now_ms = 1_000 * n
        (heard,) = slave.feed(master.send(request, now_ms), now_ms)
        assert plain([heard]) == plain([request])
        reply = sample.answer(heard)
        (answer,) = master.feed(slave.send(reply, now_ms), now_ms)
        assert answer == reply


@cases
def test_half_a_frame_waits_and_is_given_up(name: str) -> None:
    receiver = Role.SLAVE
    message = _first_request(name)
    frame = encoded(name, receiver, [message])[0]
    endpoint = receiving(name, receiver)
    assert endpoint.feed(frame[: len(frame) // 2], 1_000) == []
    deadline_ms = endpoint.deadline()
    assert deadline_ms is not None and deadline_ms > 1_000
    assert endpoint.tick(deadline_ms - 1) == []
    (error,) = endpoint.tick(deadline_ms)
    assert isinstance(error, RemoteProtocolError)
    # The next frame is read as if nothing had been.
    assert plain(endpoint.feed(frame, deadline_ms + 1)) == plain([message])


def _first_request(name: str) -> Any:
    from protocols.dlt645.messages import Read
    from protocols.hj212.messages import set_clock
    from protocols.modbus.messages import ReadRequest

    if SAMPLES[name].first_request is not None:
        return SAMPLES[name].first_request
    if name == "hj212":
        return set_clock("0100", pw="123456", st="39", now_ms=1_772_409_600_000)
    return Read("000000000161", "00010000") if name == "dlt645" else ReadRequest(4, 3, 0, 3)
