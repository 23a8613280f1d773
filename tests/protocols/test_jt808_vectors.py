"""JT/T 808 against frames of other projects and of the field: read, written back, answered, split."""

from __future__ import annotations

import pytest

from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.jt808.endpoint import Jt808Endpoint
from protocols.jt808.frame import build, judge
from protocols.jt808.messages import Message, answer, frames, parse
from protocols.jt808.platform import RegisterAnswer
from tests.protocols.vectors import Vector, vectors

#: Readable, but not in the form the encoder writes: a plate field of NULs only.
NOT_CANONICAL = {"jt808-034-register-2019-imei"}


def stream(row: Vector) -> bytes:
    return b"".join(bytes.fromhex(chunk) for chunk in row["chunks"])


@pytest.mark.parametrize("row", vectors("jt808", "frame"))
def test_frame_and_back(row: Vector) -> None:
    wire = bytes.fromhex(row["hex"])
    found = judge(wire[1:-1])
    if not row["expect"]["ok"]:
        assert isinstance(found, RemoteProtocolError)
        assert found.reason == row["expect"]["error"]
        return
    assert not isinstance(found, RemoteProtocolError)
    assert build(found) == wire  # the frame as it stands
    message = parse(found)
    assert message.msg_id == int(row["expect"]["msg_id"], 16)
    if row["id"] not in NOT_CANONICAL:
        (again,) = frames(message, found.serial, 1023)
        assert build(again) == wire  # and the body from its typed form


@pytest.mark.parametrize("row", vectors("jt808", "stream"))
def test_stream(row: Vector) -> None:
    expect = row["expect"]
    if "encode" in expect:
        wanted = expect["encode"]["body"]
        sender = Jt808Endpoint(Role.MASTER, max_body=expect["encode"]["max_frame_bytes"] - 24)
        body = RegisterAnswer(wanted["ack_sn"], wanted["result"], wanted["auth_code"])
        sent = sender.send(Message("00000000013912344329", body, None, "2019"), 0)
        assert sent == stream(row)
        return
    role = Role.MASTER
    found = Jt808Endpoint(role).feed(stream(row), 0)
    messages = [one for one in found if isinstance(one, Message)]
    if "frames" in expect:
        assert [Jt808Endpoint(Role.SLAVE).send(one, 0).hex() for one in messages] == expect["frames"]
    elif "raw_frames" in expect:
        # Framing only: each piece is judged (and refused) by itself; what stood before the first 7E is noise.
        assert messages == []
        assert len(found) == 1 + len(expect["raw_frames"])
    elif "reply" in expect:
        (message,) = messages
        reply = Jt808Endpoint(role).send(answer(message, expect["reply_result"]), 0)
        assert reply.hex() == expect["reply"]
    else:
        (message,) = messages
        assert f"0x{message.msg_id:04X}" == expect["reassembled"]["msg_id"]
        (whole,) = frames(message, 0, 1023)
        assert whole.body.hex() == expect["body_hex"]
