"""GB/T 28181 as bytes: what cameras really send, one test a deviation; PTZ words, digests, bodies both ways."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

import pytest

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.gb28181 import digest, headers, manscdp, mansrtsp, ptz, sdp
from protocols.gb28181.endpoint import SipEndpoint
from protocols.gb28181.explain import explain
from protocols.gb28181.frame import SipMessage, build, parse_datagram
from tests.protocols.vectors import Vector, vectors

KEEPALIVE = (
    b'<?xml version="1.0"?>\r\n<Notify>\r\n<CmdType>Keepalive</CmdType>\r\n<SN>43</SN>\r\n'
    b"<DeviceID>34010000001310000001</DeviceID>\r\n<Status>OK</Status>\r\n</Notify>\r\n"
)
HEAD = (
    b"MESSAGE sip:34010000002000000001@3401000000 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9:5060;rport;branch=z9hG4bK1\r\n"
    b"From: <sip:34010000001310000001@3401000000>;tag=1\r\nTo: <sip:34010000002000000001@3401000000>\r\n"
    b"Call-ID: 7\r\nCSeq: 20 MESSAGE\r\nContent-Type: Application/MANSCDP+xml\r\n"
)


def only(data: bytes) -> SipMessage:
    message = parse_datagram(data)
    assert message is not None
    return message


@pytest.mark.parametrize("row", vectors("gb28181", "sip"))
def test_a_message_is_built_again(row: Vector) -> None:
    data = row["text"].encode()
    message = only(data)
    again = only(build(message))
    assert again == message
    # A TCP stream of three is the same three messages.
    found = SipEndpoint(Role.MASTER).feed(build(message) * 3, 0)
    assert found == [message] * 3


@pytest.mark.parametrize("row", vectors("gb28181", "ptz"))
def test_a_ptz_word_is_built_again(row: Vector) -> None:
    if row["expect"]["ok"]:
        read = ptz.parse(row["hex"])
        assert ptz.build(read.order, read.address).lower() == row["hex"]
    else:
        with pytest.raises(RemoteProtocolError):
            ptz.parse(row["hex"])


@pytest.mark.parametrize("row", vectors("gb28181", "sdp"))
def test_sdp_is_built_again(row: Vector) -> None:
    one = sdp.parse(row["text"].encode())
    assert sdp.parse(sdp.build(one)) == one


# -- frames


def test_line_feeds_alone_and_compact_names() -> None:
    text = HEAD.replace(b"\r\n", b"\n").replace(b"Via:", b"v :").replace(b"From:", b"f:").replace(b"Call-ID", b"i")
    message = only(text + b"l:  %d\n\n" % len(KEEPALIVE) + KEEPALIVE)
    assert message.get("Call-ID") == "7" and message.get("from").startswith("<sip:3401")
    via = headers.via(message.get("VIA"))
    assert via is not None and (via.host, via.port, via.branch, via.rport) == ("10.0.0.9", 5060, "z9hG4bK1", None)
    assert manscdp.parse(message.body).command == "Keepalive"


def test_no_content_length_on_udp_takes_the_rest() -> None:
    message = only(HEAD + b"\r\n" + KEEPALIVE)
    assert message.body == KEEPALIVE and message.length_ok


def test_length_counted_in_characters_is_found_out() -> None:
    body = manscdp.build(manscdp.body("Notify", "Keepalive", 1, "34010000001310000001", Info="路口东侧"))
    characters = len(body.decode("gb18030"))
    message = only(HEAD + b"Content-Length: %d\r\n\r\n" % characters + body)
    assert message.body == body and not message.length_ok
    assert manscdp.parse(message.body).text("Info") == "路口东侧"
    told = explain(Capture(HEAD + b"Content-Length: %d\r\n\r\n" % characters + body))
    assert told.ok and "characters" in told.frames[0].hints[0]
    strict = explain(Capture(HEAD + b"Content-Length: %d\r\n\r\n" % characters + body, strict=True))
    assert strict.error == "length"


def test_a_body_cut_off_is_refused_on_udp() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_datagram(HEAD + b"Content-Length: 151\r\n\r\n" + KEEPALIVE[:100])
    assert caught.value.reason == "short"


def test_a_length_too_long_costs_nobody_else_on_tcp() -> None:
    first = HEAD + b"Content-Length: 9000\r\n\r\n" + KEEPALIVE
    good = HEAD + b"Content-Length: %d\r\n\r\n" % len(KEEPALIVE) + KEEPALIVE
    found = SipEndpoint(Role.MASTER).feed(first + good, 0)
    assert [getattr(one, "body", None) for one in found] == [KEEPALIVE, KEEPALIVE]
    assert [one.length_ok for one in found if isinstance(one, SipMessage)] == [False, True]


def test_blank_lines_keep_a_connection_alive_and_mean_nothing() -> None:
    endpoint = SipEndpoint(Role.MASTER)
    assert endpoint.feed(b"\r\n\r\n\0\0", 0) == []
    assert endpoint.feed_datagram(b"\r\n\r\n") == []
    assert len(endpoint.feed(HEAD + b"Content-Length: 0\r\n\r\n", 0)) == 1


def test_a_header_cannot_smuggle_lines_out() -> None:
    with pytest.raises(LocalProtocolError):
        build(SipMessage("MESSAGE", "sip:1@2", headers=(("Subject", "x\r\nExpires: 0"),)))


@pytest.mark.parametrize("unit", [b" ", b"a", b";", b"a=", b'"', b"\\", b",;a=", b"<sip:", b"sip:a@", b"\t:"])
@pytest.mark.parametrize("name", [b"Authorization: Digest ", b"From: <sip:1@2>;", b"Via: SIP/2.0/UDP ", b"To: ", b"X"])
def test_long_lines_take_no_time(name: bytes, unit: bytes) -> None:
    line = name + unit * (12_000 // len(unit))
    began_s = time.process_time()
    explain(Capture(b"REGISTER sip:1@2 SIP/2.0\r\n" + line + b"x\r\n\r\n"))
    assert time.process_time() - began_s < 1.0


def test_a_long_body_takes_no_time() -> None:
    began_s = time.process_time()
    for unit in (b"<!--", b"<a>", b"&", b"<?xml ", b"</", b"\x01"):
        with contextlib.suppress(RemoteProtocolError):
            manscdp.parse(b"<Notify>" + unit * (120_000 // len(unit)))
    assert time.process_time() - began_s < 4.0


def test_rtp_in_the_wrong_socket_is_garbage() -> None:
    told = explain(Capture(bytes.fromhex("80600001000000010000000100") * 20))
    assert told.error == "garbage" and "RTP" in told.frames[0].hints[0]


# -- bodies


@pytest.mark.parametrize(
    ("declared", "codec"),
    [("GB2312", "gbk"), ("GB2312", "utf-8"), ("UTF-8", "gbk"), ("", "gbk"), ("", "utf-8"), ("GBK", "gb18030")],
)
def test_the_encoding_is_found_whatever_is_declared(declared: str, codec: str) -> None:
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else '<?xml version="1.0"?>'
    text = f"{head}\n<Response><CmdType>DeviceInfo</CmdType><DeviceName>长江路口球机</DeviceName></Response>"
    found = manscdp.parse(text.encode(codec)).text("DeviceName")
    if (declared, codec) == ("GB2312", "utf-8"):
        # Both readings are possible bytes: the declaration wins, as the standard says.
        assert found in ("长江路口球机", text.encode().decode("gb18030").split("DeviceName>")[1].removesuffix("</"))
    else:
        assert found == "长江路口球机"


def test_entities_are_refused_unread() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Notify><CmdType>&b;</CmdType></Notify>'
    with pytest.raises(RemoteProtocolError) as caught:
        manscdp.parse(bomb)
    assert caught.value.reason == "entity"


def test_a_bare_ampersand_and_a_control_character_are_repaired() -> None:
    body = "<Notify><CmdType>Catalog</CmdType><SN>1</SN><Name>东&西 \x03路</Name></Notify>".encode()
    assert manscdp.parse(body).text("Name") == "东&西 路"


def test_depth_is_bounded() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        manscdp.parse(b"<Notify>" + b"<a>" * 50 + b"</a>" * 50 + b"</Notify>")
    assert caught.value.reason == "depth"


def test_null_is_no_value() -> None:
    item = {"DeviceID": "34010000001310000001", "Name": "null", "Status": "OFF", "Longitude": "0", "Latitude": "0.0"}
    found = manscdp.channel(item)
    assert found is not None and (found.name, found.on, found.lon) == ("", False, None)
    assert manscdp.channel({"Name": "x"}) is None


# -- PTZ


@pytest.mark.parametrize(
    "order",
    [
        ptz.Motion(1, -1, 0, 31, 200), ptz.Motion(0, 0, -1, zoom_speed=15), ptz.Lens(-1, 1, 9, 8), ptz.STOP,
        ptz.Preset("goto", 255), ptz.Cruise("dwell", 2, value=0xABC), ptz.Cruise("start", 3),
        ptz.Cruise("delete_group", 4), ptz.Scan("right_edge", 1), ptz.Scan("speed", 1, 0xFFF), ptz.Auxiliary(True, 1),
    ],
)  # fmt: skip
def test_orders_come_back(order: ptz.Order) -> None:
    assert ptz.parse(ptz.build(order, 0x9AB)) == ptz.Read(order, 0x9AB, 0)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("a50f010300000000", "checksum"), ("a50f0103000000b8", "conflict"), ("a50f0143000000f8", "conflict"),
        ("a50f01500000000500", "length"), ("a50f015000000005", "command"), ("a50f019000000045", "command"),
        ("a50e0100000000b4", "check"), ("a60f0100000000b6", "start"), ("a50f018200000037", "range"), ("zz", "format"),
    ],
)  # fmt: skip
def test_words_that_are_no_order(word: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        ptz.parse(word)
    assert caught.value.reason == reason


@pytest.mark.parametrize("data", [b"\xa5\x0f\x01\x02\x32", b"A50F010232", bytes.fromhex("a50f0102320000aaee")])
def test_a_word_of_another_length_is_known_for_one(data: bytes) -> None:
    assert explain(Capture(data)).error == "length"


def test_bytes_that_begin_otherwise_are_told_as_bytes() -> None:
    assert explain(Capture(bytes.fromhex("a40f0100000000b4"), kind="ptz")).error == "start"


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_a_pasted_message_without_its_last_line_end_is_read(lost: int) -> None:
    bye = build(SipMessage("BYE", "sip:1@2", headers=(("CSeq", "2 BYE"),)))
    assert explain(Capture(bye[:-lost])).said()["method"] == "BYE"
    assert explain(Capture(bye[:-6])).error == "short"
    body = b"v=0\r\ns=Play\r\nc=IN IP4 1.2.3.4\r\nm=video 9000 RTP/AVP 96\r\n"
    invite = build(SipMessage("INVITE", "sip:1@2", headers=(("Content-Type", "application/sdp"),), body=body))
    told = explain(Capture(invite[:-lost]))
    assert told.said()["sdp"]["port"] == 9000 if lost < 3 else told.error == "short"
    unix = explain(Capture(invite.replace(b"\r\n", b"\n")))
    assert unix.said()["sdp"]["port"] == 9000 and unix.said()["body_bytes"] == len(body)


@pytest.mark.parametrize("listed", ["<DeviceList/>", '<DeviceList Num="0"></DeviceList>', "<DeviceList></DeviceList>"])
def test_an_empty_list_is_a_list(listed: str) -> None:
    body = manscdp.parse(f"<Response><CmdType>Catalog</CmdType><SumNum>0</SumNum>{listed}</Response>".encode())
    assert (body.list_name, body.items) == ("DeviceList", ())


def test_of_two_streams_the_video_is_told() -> None:
    audio, video = (
        b"m=audio 8000 RTP/AVP 8\r\na=setup:active\r\n",
        b"m=video 9000 RTP/AVP 96\r\na=rtpmap:96 PS/90000\r\n",
    )
    for order in (audio + video, video + audio):
        one = sdp.parse(b"v=0\r\ns=Play\r\nc=IN IP4 1.2.3.4\r\nt=0 0\r\n" + order)
        assert (one.media, one.port, one.payloads, one.setup) == ("video", 9000, (96,), "")


def test_left_is_bit_one_whatever_lists_say() -> None:
    assert ptz.parse(ptz.build(ptz.Motion(pan=-1, pan_speed=31))).order == ptz.Motion(-1, pan_speed=31)
    assert ptz.build(ptz.Motion(pan=-1, pan_speed=31)) == "A50F01021F0000D6"


# -- digest


@pytest.mark.parametrize("row", vectors("gb28181", "digest"))
def test_a_digest_fits_its_password_only(row: Vector) -> None:
    given = {key: str(value) for key, value in row.items() if isinstance(value, str)}
    assert digest.fits(row["method"], row["password"], given)
    assert not digest.fits(row["method"], row["password"] + "x", given)


def test_sha256_and_unknown_algorithms() -> None:
    # RFC 7616 section 3.9.1.
    given = {
        "username": "Mufasa", "realm": "http-auth@example.org", "uri": "/dir/index.html", "algorithm": "SHA-256",
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "nc": "00000001", "qop": "auth",
        "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    }  # fmt: skip
    expected = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
    assert digest.response("GET", "Circle of Life", given) == expected
    assert digest.response("GET", "x", {**given, "algorithm": "CRC"}) is None


def test_a_nonce_counts_once_for_its_owner_and_for_a_while() -> None:
    nonces = digest.Nonces(b"secret", life_ms=1_000, keep=2)
    nonce = nonces.issue("a", 5_000)
    assert nonces.use(nonce, "b", 5_000) == "wrong"
    assert nonces.use(nonce, "a", 5_500) == "ok"
    assert nonces.use(nonce, "a", 5_600) == "stale"
    assert nonces.use(nonces.issue("a", 5_000), "a", 6_001) == "stale"
    assert nonces.use("9450c474d1150064", "a", 5_000) == "wrong"
    assert nonces.use("", "a", 5_000) == "wrong"


# -- the rest


def test_steering_a_playback() -> None:
    steer = mansrtsp.Steer("PLAY", cseq=4, scale=2.0, npt="15-")
    assert mansrtsp.parse(mansrtsp.build(steer)) == steer
    assert mansrtsp.parse(b"PAUSE RTSP/1.0\r\nCSeq: 1\r\nPauseTime: now\r\n").method == "PAUSE"
    with pytest.raises(RemoteProtocolError):
        mansrtsp.parse(b"hello")


def test_passwords_in_sdp_are_hidden() -> None:
    assert "geheim" not in sdp.hidden("v=0\r\na=password:geheim\r\n")


def test_an_identity_is_told() -> None:
    said = explain(Capture(b"34010000001320000007")).said()
    assert (said["division"], said["kind"], said["serial"]) == ("34010000", "ip_camera", "000007")


def test_a_factory_password_is_called_out() -> None:
    given = {"username": "1", "realm": "r", "nonce": "n", "uri": "sip:x"}
    response = digest.response("REGISTER", "admin123", given)
    parts = ", ".join(f'{key}="{value}"' for key, value in {**given, "response": response}.items())
    message = SipMessage("REGISTER", "sip:x", headers=(("From", "<sip:1@r>"), ("Authorization", f"Digest {parts}")))
    told = explain(Capture(build(message)))
    assert told.said()["digest_ok_with_password"] == "admin123"
    assert any("change it" in hint for hint in told.frames[0].hints)


def test_two_messages_in_one_capture_are_both_told() -> None:
    message = SipMessage("BYE", "sip:1@2", headers=(("CSeq", "2 BYE"),))
    told = explain(Capture(build(message) + build(replace(message, method="ACK"))))
    assert [one.values["method"] for one in told.frames] == ["BYE", "ACK"]
    assert told.frames[1].offset == len(build(message))


def test_an_answer_in_other_letters_than_ascii_is_a_wrong_answer() -> None:
    # Found by fuzzing: comparing texts in constant time raises for letters beyond ASCII, and anybody may send them.
    asked = {"username": "34020000001320000001", "realm": "3402000000", "nonce": "1", "uri": "sip:x", "response": "ä²"}
    assert digest.fits("REGISTER", "secret", asked) is False
