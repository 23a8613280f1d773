"""SL 651 against published telegrams: read, and written back to the same bytes."""

from __future__ import annotations

import pytest

from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.core.explain import from_vector
from protocols.sl651.endpoint import Sl651Endpoint
from protocols.sl651.explain import explain
from protocols.sl651.frame import Telegram, build
from protocols.sl651.joiner import GIVE_UP_MS
from protocols.sl651.messages import Report, write, write_ascii
from protocols.sl651.reading import read
from tests.protocols.vectors import Vector, data_of, vectors

#: Its text has no blank between name and serial number as the encoder writes them.
NOT_CANONICAL = {"sl651-062"}


def telegrams(data: bytes) -> list[Telegram | RemoteProtocolError]:
    """All that comes out of the scanner, the line at rest afterwards; packets one by one."""
    endpoint = Sl651Endpoint(Role.MASTER)
    return endpoint._scanner.feed(data) + endpoint._scanner.idle()


@pytest.mark.parametrize("row", vectors("sl651", "frame"))
def test_frame_both_ways(row: Vector) -> None:
    expect, data = row["expect"], data_of(row)
    found = telegrams(data)
    if not expect["ok"]:
        assert [one.reason for one in found if isinstance(one, RemoteProtocolError)] == [expect["error"]]
        return
    (telegram,) = found
    assert isinstance(telegram, Telegram)
    assert build(telegram) == data  # the header ...
    message = read(telegram)
    if row["id"] in NOT_CANONICAL:
        return
    if telegram.ascii:
        assert isinstance(message, Report)
        assert write_ascii(message) == telegram.body
    else:
        assert write(message) == telegram.body  # ... and every byte of the body


@pytest.mark.parametrize("row", vectors("sl651", "stream"))
def test_stream(row: Vector) -> None:
    found = telegrams(data_of(row))
    assert len([one for one in found if isinstance(one, Telegram)]) == row["expect"]["frames"]


def test_a_picture_of_packets_that_never_all_come_is_given_up() -> None:
    rows = {row.values[0]["id"]: row.values[0] for row in vectors("sl651", "frame") if row.values[0]}
    if "sl651-060" not in rows:
        pytest.skip("../shared/protocols/vectors is not here")
    centre = Sl651Endpoint(Role.MASTER)
    assert centre.feed(data_of(rows["sl651-060"]) + data_of(rows["sl651-061"]), 0) == []
    (lost,) = centre.tick(GIVE_UP_MS)
    assert isinstance(lost, RemoteProtocolError)
    assert (lost.reason, "2 of 13" in str(lost)) == ("split_timeout", True)


@pytest.mark.parametrize("row", vectors("sl651", "frame"))
def test_meaning_of_settings_in_words(row: Vector) -> None:
    """The published read-outs put some entries shorter in one place than in another."""
    wanted = row["expect"].get("meaning", {})
    said = explain(from_vector(row)).said().get("meaning", {})
    assert all(said[key].startswith(text) for key, text in wanted.items())
