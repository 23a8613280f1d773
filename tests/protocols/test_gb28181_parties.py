"""Platform and camera against each other, without a network: registration, silence, catalogues, orders, streams."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.gb28181 import manscdp, ptz, sdp
from protocols.gb28181.device import Camera, LoggedIn, LoginFailed, Ordered, Streaming
from protocols.gb28181.endpoint import SipEndpoint
from protocols.gb28181.events import Catalogue, Garbled, Gone, Media, Refused, Registered, Said
from protocols.gb28181.frame import SipMessage, build, parse_datagram
from protocols.gb28181.manscdp import Channel
from protocols.gb28181.party import Finished, Party, Peer
from protocols.gb28181.platform import Platform

SERVER, CAMERA, LENS = "34010000002000000001", "34010000001180000001", "34010000001310000001"
START_MS = 1_772_409_600_000
AT_PLATFORM = Peer("10.0.0.1", 5060)
AT_CAMERA = Peer("10.0.0.9", 5061)


def tokens(prefix: str) -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"{prefix}{next(numbers)}"


class Net:
    """Datagrams between the two, in order; ``lose`` says which get lost (counted from 0, both directions)."""

    def __init__(self, *, channels: int = 1, lose: set[int] | None = None, **more: Any) -> None:
        password = more.pop("password", "geheim-01")
        self.platform = Platform(
            SERVER, "3401000000", "10.0.0.1", 5060, {CAMERA: "geheim-01"}, secret=b"s", token=tokens("p"),
            **{key: more.pop(key) for key in ("md5",) if key in more},
        )  # fmt: skip
        names = [Channel(f"340100000013100{n:05d}", f"路口{n}&东", on=n % 3 != 0) for n in range(1, channels + 1)]
        self.camera = Camera(
            CAMERA, password, SERVER, AT_PLATFORM, "10.0.0.9", 5061, token=tokens("c"), channels=names, **more
        )
        self.now_ms = START_MS
        self.sent: list[SipMessage] = []
        self.at_platform: list[Any] = []
        self.at_camera: list[Any] = []
        self._lose = lose or set()
        self._wire = SipEndpoint(Role.MASTER)

    def run(self, for_ms: int) -> None:
        """Let both work until nothing is due any more."""
        until_ms = self.now_ms + for_ms
        self.settle()
        while True:
            due = [at for at in (self.platform.deadline(), self.camera.deadline()) if at is not None]
            if not due or min(due) > until_ms:
                break
            self.now_ms = max(self.now_ms, min(due))
            self.at_platform += self.platform.tick(self.now_ms)
            self.at_camera += self.camera.tick(self.now_ms)
            self.settle()
        self.now_ms = until_ms

    def settle(self) -> None:
        while self._carry(self.camera, self.platform, AT_CAMERA, self.at_platform) + self._carry(
            self.platform, self.camera, AT_PLATFORM, self.at_camera
        ):
            pass

    def _carry(self, sender: Party, receiver: Party, source: Peer, events: list[Any]) -> int:
        out = sender.take_output()
        for _, message in out:
            self.sent.append(message)
            if len(self.sent) - 1 not in self._lose:
                for one in self._wire.feed_datagram(build(message)):
                    assert isinstance(one, SipMessage)
                    events += receiver.feed(one, source, self.now_ms)
        return len(out)

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.at_platform + self.at_camera if isinstance(one, kind)]


def test_a_camera_logs_in_and_learns_the_time() -> None:
    net = Net()
    net.run(1_000)
    (event,) = net.of(Registered)
    assert (event.device, event.expires_s, event.first, event.peer) == (CAMERA, 3_600, True, AT_CAMERA)
    assert net.of(LoggedIn) == [LoggedIn(START_MS)]
    statuses = [message.status or message.method for message in net.sent]
    assert statuses == ["REGISTER", 401, "REGISTER", 200]
    first, second = (message for message in net.sent if message.method == "REGISTER")
    assert first.get("Call-ID") == second.get("Call-ID")
    assert second.cseq[0] == first.cseq[0] + 1
    # The answer goes to where the packet came from, and says so.
    assert "received=10.0.0.9" in net.sent[1].get("Via") and "rport=5061" in net.sent[1].get("Via")


def test_sha256_where_md5_is_switched_off() -> None:
    net = Net(md5=False)
    net.run(1_000)
    assert len(net.of(Registered)) == 1
    assert "algorithm=SHA-256" in net.sent[1].get("WWW-Authenticate")


def test_a_wrong_password_is_locked_out_after_five_tries() -> None:
    net = Net(password="falsch")
    net.run(9 * 60_000)
    assert not net.of(Registered)
    reasons = [one.reason for one in net.of(Refused)]
    assert reasons[:5] == ["password"] * 5 and set(reasons[5:]) == {"locked"}
    assert [one.status for one in net.of(LoginFailed)][:6] == [401] * 5 + [403]
    # No quicker than once a minute.
    assert len([m for m in net.sent if m.method == "REGISTER" and not m.get("Authorization")]) <= 10


def test_a_captured_login_cannot_be_used_again() -> None:
    net = Net()
    net.run(1_000)
    captured = next(m for m in net.sent if m.get("Authorization"))
    thief = Peer("10.6.6.6", 5060)
    moved = replace(captured, headers=tuple((k, v.replace("c", "x") if k == "Via" else v) for k, v in captured.headers))
    (event,) = net.platform.feed(moved, thief, net.now_ms)
    assert event == Refused(CAMERA, thief, "replay")
    assert net.platform.peer_of(CAMERA) == AT_CAMERA
    (_, answer) = net.platform.take_output()[-1]
    assert answer.status == 401 and "stale=true" in answer.get("WWW-Authenticate")


def test_strangers_are_refused_and_told() -> None:
    net = Net()
    net.camera.id = "34010000001180000666"
    net.run(1_000)
    assert [one.reason for one in net.of(Refused)] == ["stranger"]


def test_nobody_speaks_for_a_registered_camera_from_elsewhere() -> None:
    net = Net()
    net.run(1_000)
    body = manscdp.build(manscdp.body("Notify", "Keepalive", 1, CAMERA, Status="ERROR"))
    head = (("From", f"<sip:{CAMERA}@x>;tag=1"), ("Call-ID", "z"), ("CSeq", "1 MESSAGE"))
    forged = SipMessage("MESSAGE", "sip:x", headers=head, body=body)
    elsewhere = Peer("10.6.6.6", 5060)
    assert net.platform.feed(forged, elsewhere, net.now_ms) == [Refused(CAMERA, elsewhere, "moved")]
    # Behind NAT only the port changes: that is the same camera.
    assert len(net.platform.feed(forged, Peer("10.0.0.9", 40_000), net.now_ms)) == 1
    assert net.platform.peer_of(CAMERA) == Peer("10.0.0.9", 40_000)


def test_keepalive_with_the_same_numbers_for_ever_is_alive_each_time() -> None:
    net = Net()
    net.run(181_000)
    alive = [one for one in net.of(Said) if one.body.command == "Keepalive"]
    assert len(alive) == 3
    body = manscdp.build(manscdp.body("Notify", "Keepalive", 43, CAMERA, Status="OK"))
    for n in range(3):  # CSeq 20 and SN 43 every time, as one maker's cameras do
        via = ("Via", f"SIP/2.0/UDP 10.0.0.9:5061;rport;branch=z9hG4bK{n}")
        head = (via, ("From", f"<sip:{CAMERA}@x>;tag=1"), ("Call-ID", "1097651024"), ("CSeq", "20 MESSAGE"))
        message = SipMessage("MESSAGE", "sip:x", headers=head, body=body)
        assert len(net.platform.feed(message, AT_CAMERA, net.now_ms)) == 1
        # The same datagram again (its answer was lost) means nothing new, and is answered again.
        assert net.platform.feed(message, AT_CAMERA, net.now_ms) == []
        assert [m.status for _, m in net.platform.take_output()] == [200, 200]


def test_after_a_restart_of_the_platform_cameras_register_anew() -> None:
    net = Net()
    net.run(1_000)
    net.platform = Platform(
        SERVER, "3401000000", "10.0.0.1", 5060, {CAMERA: "geheim-01"}, secret=b"t", token=tokens("q")
    )
    net.run(62_000)
    assert [one.reason for one in net.of(Refused)] == ["unregistered"]
    assert net.platform.peer_of(CAMERA) == AT_CAMERA


def test_a_registration_runs_out_and_is_refreshed_before() -> None:
    net = Net(expires_s=100)
    net.run(500_000)
    assert not net.of(Gone)
    assert [one.first for one in net.of(Registered)] == [True] + [False] * (len(net.of(Registered)) - 1)
    events = net.platform.tick(net.now_ms + 131_000)  # nothing more is heard of it
    assert Gone(CAMERA, "expired") in events
    with pytest.raises(LocalProtocolError):
        net.platform.query_catalogue(CAMERA, net.now_ms)


def test_logging_off_needs_the_password_too() -> None:
    net = Net()
    net.run(1_000)
    net.camera.log_off(net.now_ms)
    net.settle()
    assert net.of(Gone) == [Gone(CAMERA, "logoff")]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
def test_a_catalogue_in_many_parts(encoding: str) -> None:
    net = Net(channels=11, part=2, encoding=encoding)
    net.run(1_000)
    net.platform.query_catalogue(CAMERA, net.now_ms)
    net.run(2_000)
    (found,) = net.of(Catalogue)
    assert found.complete and found.total == 11
    assert [one.name for one in found.channels] == [f"路口{n}&东" for n in range(1, 12)]
    assert sum(one.on is False for one in found.channels) == 3


def test_a_catalogue_with_a_part_lost_is_published_short() -> None:
    net = Net(channels=4, part=2)
    net.run(1_000)
    net.platform.query_catalogue(CAMERA, net.now_ms)
    net._carry(net.platform, net.camera, AT_PLATFORM, net.at_camera)
    (_, _ok), first, _second = net.camera.take_output()
    net.platform.feed(first[1], AT_CAMERA, net.now_ms)
    net.at_platform += net.platform.tick(net.now_ms + 10_001)
    (found,) = net.of(Catalogue)
    assert not found.complete and len(found.channels) == 2 and found.total == 4


@pytest.mark.parametrize("first_lost", range(6))
def test_lost_datagrams_are_sent_again(first_lost: int) -> None:
    net = Net(channels=3, lose={first_lost, first_lost + 1})
    net.run(5_000)
    assert len(net.of(Registered)) == 1
    net.platform.query_catalogue(CAMERA, net.now_ms)
    net.run(8_000)
    (found,) = net.of(Catalogue)
    assert found.complete


def test_an_order_reaches_the_camera_once_though_its_answer_is_lost() -> None:
    net = Net()
    net.run(1_000)
    net._lose = {len(net.sent) + 1}  # the 200
    word = ptz.build(ptz.Preset("goto", 7))
    net.platform.ask(CAMERA, "Control", "DeviceControl", net.now_ms, "order", target=LENS, PTZCmd=word)
    net.run(2_000)
    assert net.of(Ordered) == [Ordered(LENS, ptz.Preset("goto", 7))]
    assert [one.ok for one in net.of(Finished)] == [True]


def test_an_order_nobody_answers_ends_unknown() -> None:
    net = Net()
    net.run(1_000)
    net._lose = set(range(len(net.sent), 10_000))
    net.platform.ask(CAMERA, "Control", "DeviceControl", net.now_ms, "order", PTZCmd=ptz.build(ptz.STOP))
    net.run(9_000)
    assert [one.status for one in net.of(Finished)] == [0]
    repeats = [m for m in net.sent if m.method == "MESSAGE" and b"PTZCmd" in m.body]
    assert len(repeats) == 5  # at 0, 0.5, 1.5, 3.5, 7.5 s


def test_an_alarm_gets_its_response_besides_the_200() -> None:
    net = Net()
    net.run(1_000)
    net.camera.alarm(LENS, net.now_ms)
    net.run(100)
    (said,) = net.of(Said)
    assert (said.body.command, said.body.text("AlarmMethod"), said.body.device) == ("Alarm", "2", LENS)
    answer = next(m for m in net.sent if m.method == "MESSAGE" and b"<Response>" in m.body)
    assert manscdp.parse(answer.body).text("Result") == "OK"


def test_a_body_nobody_can_read_is_answered_400() -> None:
    net = Net()
    net.run(1_000)
    head = (("From", f"<sip:{CAMERA}@x>;tag=1"), ("Call-ID", "z"), ("CSeq", "1 MESSAGE"))
    (event,) = net.platform.feed(SipMessage("MESSAGE", "sip:x", headers=head, body=b"<Notify>"), AT_CAMERA, net.now_ms)
    assert isinstance(event, Garbled) and event.error.reason == "xml"


OFFER = sdp.Sdp("Play", SERVER, "10.0.0.2", 6000, direction="recvonly", ssrc="0010000001", hint="")


def test_a_stream_begins_and_ends() -> None:
    net = Net()
    net.run(1_000)
    name = net.platform.invite(CAMERA, LENS, OFFER, net.now_ms)
    net.run(100)
    (up,) = net.of(Media)
    assert up.answer is not None and (up.answer.ssrc, up.answer.direction) == ("0010000001", "sendonly")
    assert [m.method for m in net.sent if m.method in ("INVITE", "ACK")] == ["INVITE", "ACK"]
    assert net.of(Streaming)[0].offer == replace(OFFER, rtpmap={96: "PS/90000"})
    net.platform.end(name, net.now_ms)
    net.run(100)
    assert net.of(Media)[-1].reason == "ended"
    assert net.of(Streaming)[-1] == Streaming(LENS, False)
    bye = next(m for m in net.sent if m.method == "BYE")
    assert "tag=" in bye.get("To") and bye.cseq[0] == 2


def test_a_stream_of_a_channel_that_is_not_there() -> None:
    net = Net()
    net.run(1_000)
    net.platform.invite(CAMERA, "34010000001310099999", OFFER, net.now_ms)
    net.run(100)
    assert [(one.answer, one.reason) for one in net.of(Media)] == [(None, "status 404")]


def test_an_ack_that_got_lost_is_given_again() -> None:
    net = Net()
    net.run(1_000)
    net.platform.invite(CAMERA, LENS, OFFER, net.now_ms)
    net.run(100)
    ok = next(m for m in net.sent if m.status == 200 and m.cseq[1] == "INVITE")
    assert net.platform.feed(ok, AT_CAMERA, net.now_ms) == []
    ((_, ack),) = net.platform.take_output()
    assert ack.method == "ACK"


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_said_both_go_on(seed: int) -> None:
    """Real messages with bytes changed, cut out and put in: nothing is raised, nothing grows, and it still works."""
    net = Net(channels=3)
    net.run(1_000)
    net.platform.query_catalogue(CAMERA, net.now_ms)
    net.camera.alarm(LENS, net.now_ms)
    net.platform.invite(CAMERA, LENS, OFFER, net.now_ms)
    net.run(61_000)
    said = [build(message) for message in net.sent]
    chance = random.Random(seed)
    for _ in range(400):
        data = bytearray(chance.choice(said))
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(len(data))
            piece = chance.choice(
                [b"", b"\r\n", b";", b'"', b"=", b"99999999999", b"-1", b"\xff\xfe", b"<", b"&", b"\0"]
            )
            data[at : at + chance.randrange(3)] = piece
        with contextlib.suppress(RemoteProtocolError):
            if (message := parse_datagram(bytes(data))) is not None:
                net.platform.feed(message, AT_CAMERA, net.now_ms)
                net.camera.feed(message, AT_PLATFORM, net.now_ms)
        for _, answer in net.platform.take_output() + net.camera.take_output():
            with contextlib.suppress(LocalProtocolError):
                build(answer)
    # Somebody at the camera's own address may have logged it off; it comes back as after any restart.
    net.run(700_000)
    net.camera.restart(net.now_ms)
    net.run(2_000)
    assert net.platform.peer_of(CAMERA) == AT_CAMERA
    assert len(net.platform._dialogs) < 400 and len(net.platform._open) < 400
