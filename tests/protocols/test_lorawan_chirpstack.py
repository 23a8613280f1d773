"""LoRaWAN by ChirpStack: the sheet's rules one by one, commands, radio frames, TLV; nothing raises anything else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.explain import Capture
from protocols.lorawan_chirpstack import downlink, events, lwm2m, payloads, phy, times
from protocols.lorawan_chirpstack.downlink import Downlink
from protocols.lorawan_chirpstack.explain import explain
from tests.protocols.vectors import data_of, vectors

quick = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
EUI = "0101010101010101"
UP = f"application/17c82e96-be03-4f38-aef3-f83d48582d97/device/{EUI}/event/up"


def event(kind: str, found: Any) -> Any:
    return events.parse(UP.replace("/up", f"/{kind}"), json.dumps(found).encode())


def refused(kind: str, data: bytes, topic: str = "") -> str:
    with pytest.raises(RemoteProtocolError) as error:
        events.parse(topic or UP.replace("/up", f"/{kind}"), data)
    return error.value.reason


# -- vectors that also go the other way --------------------------------------------------------------------------------


@pytest.mark.parametrize("row", vectors("lorawan-chirpstack", "mqtt-json-out"))
def test_commands_are_sent_as_documented(row: dict[str, Any]) -> None:
    wanted = row["input"]
    application = row["topic"].split("/")[1]
    order = Downlink(application, wanted["dev_eui"], wanted["f_port"], bytes.fromhex(wanted["payload_hex"]))
    assert order.topic == row["topic"]
    assert json.loads(downlink.encode(order)) == row["expect"]["json"]


@pytest.mark.parametrize("row", vectors("lorawan-chirpstack", "lwm2m-tlv"))
def test_tlv_encodes_to_the_same_bytes(row: dict[str, Any]) -> None:
    assert lwm2m.encode(lwm2m.decode(data_of(row))) == data_of(row)


# -- the sheet's rules -------------------------------------------------------------------------------------------------


def test_missing_null_and_empty_are_the_same() -> None:
    bare = event("up", {})
    assert (bare.f_cnt, bare.f_port, bare.dr, bare.adr, bare.confirmed, bare.payload) == (0, 0, 0, False, False, b"")
    assert bare.best is None and bare.head.time is None
    nothing = {"fCnt": None, "fPort": None, "data": "", "object": None, "rxInfo": [], "txInfo": None, "deviceInfo": {}}
    assert event("up", nothing) == bare


def test_the_topic_says_the_kind_not_the_keys() -> None:
    merged = {
        "margin": 0,
        "batteryLevel": 0.0,
        "acknowledged": False,
        "data": "qg==",
        "fPort": 1,
        "devAddr": "00189440",
    }
    assert event("up", merged).payload == b"\xaa"
    assert event("join", merged).dev_addr == "00189440"
    assert event("status", merged).battery_percent == 0.0


def test_a_time_of_nine_decimals_is_cut_to_six() -> None:
    assert times.text_of(times.parse("2022-07-18T09:34:15.775023242+00:00")) == "2022-07-18T09:34:15.775023Z"
    assert times.text_of(times.parse("2022-07-18T17:34:15.7+08:00")) == "2022-07-18T09:34:15.700000Z"
    assert times.to_ms(times.parse("2022-07-18T09:34:15Z")) == 1_658_136_855_000
    for text in ("", None, 5, "yesterday", "2022-13-18T09:34:15Z", "2022-07-18"):
        assert times.parse(text) is None


def test_the_best_gateway_has_the_highest_snr_then_the_highest_rssi() -> None:
    heard = [
        {"gatewayId": "0000000000000001", "rssi": -30, "snr": 5},
        {"gatewayId": "0000000000000002", "rssi": -90, "snr": 9.5},
        {"gatewayId": "0000000000000003", "rssi": -80, "snr": 9.5},
        {"gatewayId": "0000000000000004", "rssi": -20},
    ]
    best = event("up", {"rxInfo": heard}).best
    assert best is not None and best.gateway == "0000000000000003"


def test_positions_off_the_earth_are_none() -> None:
    there = {"gatewayId": "0000000000000001", "location": {"latitude": 110.77, "longitude": 31.8}}
    found = event("up", {"rxInfo": [there]}).receptions[0]
    assert found.position is None and found.misplaced
    here = {"gatewayId": "0000000000000001", "location": {"latitude": 31.8, "longitude": 117.2}}
    assert event("up", {"rxInfo": [here]}).receptions[0].position == (117.2, 31.8)
    nowhere = {"gatewayId": "0000000000000001", "location": {}}
    assert not event("up", {"rxInfo": [nowhere]}).receptions[0].misplaced
    assert event("location", {"location": {"latitude": 110.77, "longitude": 31.8}}).misplaced


def test_battery_on_mains_is_no_percentage() -> None:
    assert event("status", {"externalPowerSource": True, "batteryLevel": 0}).battery_percent is None
    assert event("status", {"batteryLevelUnavailable": True}).battery_percent is None


def test_numbers_as_text_and_numbers_that_are_none() -> None:
    assert event("up", {"fCnt": "12", "fPort": True, "dr": "x"}).f_cnt == 12
    assert event("up", {"fPort": True}).f_port == 0
    huge = b'{"fCnt": 1e999, "rxInfo": [{"rssi": NaN, "snr": -Infinity}], "fPort": ' + b"9" * 500 + b"}"
    found = events.parse(UP, huge)
    assert isinstance(found, events.Uplink) and found.f_cnt == 0 and found.f_port == 0


def test_the_third_generation() -> None:
    topic = f"application/123/device/{EUI}/event/up"
    old = {
        "applicationID": "123",
        "applicationName": "t",
        "deviceName": "lamp",
        "devEUI": base64.b64encode(bytes.fromhex(EUI)).decode(),
        "rxInfo": [{"gatewayID": "ABbAAfFToUw=", "time": "2020-01-01T00:00:00.123456789Z", "rssi": -57, "loRaSNR": 10}],
        "txInfo": {"frequency": 868100000, "dr": 5, "loRaModulationInfo": {"bandwidth": 125, "spreadingFactor": 7}},
        "fCnt": 10,
        "fPort": 5,
        "data": "qg==",
        "objectJSON": '{"t": 21.5}',
    }
    found = events.parse(topic, json.dumps(old).encode())
    assert isinstance(found, events.Uplink) and found.best is not None
    assert (found.head.generation, found.head.dev_eui, found.dr, found.bandwidth_hz) == (3, EUI, 5, 125_000)
    assert (found.best.gateway, found.best.snr, found.object) == ("0016c001f153a14c", 10, {"t": 21.5})
    assert times.text_of(found.head.time) == "2020-01-01T00:00:00.123456Z"
    assert events.parse_topic(f"application/123/device/{EUI}/rx").kind == "up"
    said = explain(Capture(json.dumps(old).encode(), topic=topic))
    assert "third" in " ".join(said.frames[0].hints)


def test_what_is_refused_and_why() -> None:
    assert refused("up", b"{") == "not_json"
    assert refused("up", b"[1]") == "not_json"
    assert refused("up", b"[" * 200_000) == "not_json"
    assert refused("up", b" " * (2 << 20)) == "length"
    assert refused("up", b'{"data": "q"}') == "base64"
    assert refused("up", b'{"deviceInfo": {"devEui": "0202020202020202"}}') == "dev_eui"
    assert refused("down", b"{}") == "event"
    assert refused("", b"{}", "gateway/0016c001f153a14c/event/up") == "topic"
    assert refused("", b"{}", "application/1/device/xyz/event/up") == "dev_eui"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"f_port": 0}, "f_port"),
        ({"f_port": 224}, "f_port"),
        ({"dev_eui": "0101"}, "dev_eui"),
        ({"dev_eui": "ABABABABABABABAB"}, "dev_eui"),
        ({"payload": b""}, "payload"),
        ({"payload": bytes(243)}, "payload"),
        ({"object": {"on": True}}, "payload"),
        ({"application": "a/b"}, "application"),
    ],
)
def test_commands_the_server_would_drop_are_not_sent(change: dict[str, Any], reason: str) -> None:
    from dataclasses import replace

    good = Downlink("app", EUI, 10, b"\x01")
    with pytest.raises(LocalProtocolError) as error:
        downlink.encode(replace(good, **change))
    assert error.value.reason == reason


def test_a_command_seen_on_the_wire_is_judged() -> None:
    topic = f"application/app/device/{EUI}/command/down"
    good = downlink.encode(Downlink("app", EUI, 10, b"\x01"))
    assert explain(Capture(good, topic=topic)).said()["payload_hex"] == "01"
    assert explain(Capture(good.replace(EUI.encode(), b"0" * 16), topic=topic)).error == "dev_eui"
    assert explain(Capture(good.replace(b":10,", b":0,"), topic=topic)).error == "f_port"


def test_a_printed_line_and_a_body_without_topic() -> None:
    body = json.dumps({"deviceInfo": {"devEui": EUI}, "fPort": 2, "data": "Af8=", "rxInfo": []}).encode()
    line = explain(Capture(UP.encode() + b" " + body))
    assert line.said()["payload_hex"] == "01ff" and line.said()["application_id"]
    bare = explain(Capture(body))
    assert bare.said()["event"] == "up" and "guess" in bare.frames[0].hints[0]
    assert explain(Capture(b'{"a": 1}')).error == "topic"


# -- radio frames ------------------------------------------------------------------------------------------------------

NWK, APP = bytes(range(1, 17)), bytes(range(16, 0, -1))
FRAME = bytes.fromhex("80040302010300000673070ae264d4f7e117d2c0")


def test_a_wrong_key_is_a_wrong_mic() -> None:
    capture = Capture(FRAME, kind="lorawan-phy", extra={"keys": {"nwk_s_key": APP.hex()}})
    told = explain(capture)
    assert told.error == "mic" and told.frames[0].checksum is not None and not told.frames[0].checksum.ok
    assert told.frames[0].values["dev_addr"] == "01020304"


def test_without_keys_the_shape_is_told() -> None:
    told = explain(Capture(FRAME))
    assert told.ok and told.said()["f_port"] == 10 and told.said()["dev_status"] == {"battery": 115, "margin": 7}
    assert told.frames[0].checksum is None


def test_a_counter_beyond_16_bits_is_found_by_its_mic() -> None:
    counter = 3 << 16 | 7
    head = bytes((0x40, 4, 3, 2, 1, 0, 7, 0))
    body = head + bytes((5,)) + phy._crypt(APP, b"\x2a\x2b", True, head[1:5], counter)
    mic = phy.cmac(NWK, phy._block(0x49, True, head[1:5], counter, len(body)) + body)[:4]
    frame = phy.decode(body + mic, phy.Keys(nwk_s_key=NWK, app_s_key=APP))
    assert frame.mic_ok and frame.fields["f_cnt"] == counter and frame.fields["payload_hex"] == "2a2b"


def test_a_join_accept_of_1_1_is_signed_over_the_request() -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    plain = bytes.fromhex("010101020202040302018003")
    join_eui = bytes.fromhex("0807060504030201")
    signed = b"\xff" + join_eui[::-1] + (771).to_bytes(2, "little") + b"\x20" + plain
    body = plain + phy.cmac(NWK, signed)[:4]
    made = Cipher(AES(NWK), ECB()).decryptor()  # noqa: S305
    wire = b"\x20" + made.update(body) + made.finalize()
    frame = phy.decode(wire, phy.Keys(app_key=NWK, join_eui=join_eui, dev_nonce=771))
    assert frame.mic_ok and frame.fields["opt_neg"] is True and frame.fields["rx_delay"] == 3


DOWN_1_1 = bytes.fromhex("600403020103000022ac0a01f0b468ddaa5ed13a")
KEYS_1_1 = phy.Keys(
    app_s_key=bytes.fromhex("100f0e0d0c0b0a090807060504030201"),
    s_nwk_s_int_key=bytes.fromhex("01010101010101010101010101010100"),
    nwk_s_enc_key=bytes.fromhex("01010101010101010101010101010200"),
)


def test_a_downlink_of_1_1_hides_its_mac_commands() -> None:
    frame = phy.decode(DOWN_1_1, KEYS_1_1)
    assert frame.mic_ok and frame.fields["payload_hex"] == "01020304"
    assert frame.fields["f_opts_hex"] == "020701" and frame.fields["link_check"] == {"margin": 7, "gw_cnt": 1}
    assert not phy.decode(DOWN_1_1[:-1] + b"\x3b", KEYS_1_1).mic_ok


def test_of_an_uplink_of_1_1_the_half_that_any_network_can_check_is_checked() -> None:
    key = bytes(range(16))
    body = bytes.fromhex("40040302010001000a01")
    right = phy.cmac(key, phy._block(0x49, True, body[1:5], 1, len(body)) + body)[:2]
    assert phy.decode(body + b"\xaa\xbb" + right, phy.Keys(f_nwk_s_int_key=key)).mic_ok
    wrong = bytes((right[0] ^ 1, right[1]))
    assert phy.decode(body + b"\xaa\xbb" + wrong, phy.Keys(f_nwk_s_int_key=key)).mic_ok is False


def test_a_tlv_without_a_word_about_it_is_told_as_one() -> None:
    told = explain(Capture(bytes.fromhex("8606410001410105")))
    assert told.said()["tlv"][0]["kind"] == "multiple_resource"
    assert explain(Capture(bytes.fromhex("c800144f70656e"))).error == "version"


def test_what_a_maker_sends_has_neither_mic_nor_length() -> None:
    frame = phy.decode(bytes.fromhex("e0010203"))
    assert (frame.mtype, frame.fields, frame.mic) == ("proprietary", {"payload_hex": "010203"}, "")


def test_a_join_accept_that_a_wrong_key_turns_into_nonsense_is_refused() -> None:
    wire = bytes.fromhex("2023cf335489aae3183c0be0baa8dee5f3")
    wrong = bytes.fromhex("0102030405060708090a0b0c0d0e0f11")  # makes it look like 1.1, with a delay of 20
    assert phy.decode(wire, phy.Keys(app_key=wrong)).mic_ok is False


# -- payloads, TLV, noise ----------------------------------------------------------------------------------------------


def test_the_parking_sensor() -> None:
    startup = payloads.bosch_tps110(3, bytes(12) + bytes((0, 23, 2, 3, 1)))
    assert (startup["firmware"], startup["reset_cause"], startup["occupied"]) == ("0.23.2", 3, True)
    for port, data in ((1, b""), (2, b"\x01"), (3, b"\x01"), (9, b"\x01")):
        with pytest.raises(RemoteProtocolError):
            payloads.bosch_tps110(port, data)


@pytest.mark.parametrize("data", ["c8", "c80014", "c1", "08000f", "86", "0800"])
def test_a_tlv_that_ends_early(data: str) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        lwm2m.decode(bytes.fromhex(data))
    assert error.value.reason == "short"


def test_a_tlv_of_impossible_structure() -> None:
    inside = lwm2m.encode((lwm2m.Node("object_instance", 1, b"", (), 0, 0),))
    wrong = bytes((0x08 | 0, 0, len(inside))) + inside
    with pytest.raises(RemoteProtocolError) as error:
        lwm2m.decode(wrong)
    assert error.value.reason == "structure"


_leaf = st.builds(
    lambda number, value: lwm2m.Node("resource", number, value, (), 0, 0),
    st.integers(0, 65535),
    st.binary(max_size=300),
)


@given(leaves=st.lists(_leaf, max_size=4))
@quick
def test_any_tlv_there_and_back(leaves: list[lwm2m.Node]) -> None:
    tree = (lwm2m.Node("object_instance", 3, b"", tuple(leaves), 0, 0),)
    found = lwm2m.decode(lwm2m.encode(tree))
    assert [(node.id, node.value) for node in found[0].children] == [(node.id, node.value) for node in leaves]


_kinds = st.sampled_from(["", "mqtt-json", "mqtt-json-out", "lorawan-phy", "lora-payload", "lwm2m-tlv"])
_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(kind=_kinds, data=st.binary(max_size=60), keyed=st.booleans())
@quick
def test_no_bytes_raise_anything(kind: str, data: bytes, keyed: bool) -> None:
    extra = {"keys": {"nwk_s_key": NWK.hex(), "app_s_key": APP.hex(), "app_key": NWK.hex()}} if keyed else {}
    explain(Capture(data, kind=kind, extra={**extra, "f_port": 2}))
    explain(Capture(data, topic=UP, kind="" if kind == "mqtt-json-out" else kind))


@given(
    kind=st.sampled_from([*events.KINDS, "rx", "error"]),
    found=st.dictionaries(
        st.sampled_from(
            [
                "data",
                "fCnt",
                "fPort",
                "dr",
                "rxInfo",
                "txInfo",
                "deviceInfo",
                "object",
                "objectJSON",
                "devEUI",
                "location",
                "time",
                "tags",
                "context",
            ]
        ),
        _json
        | st.dictionaries(st.sampled_from(["latitude", "modulation", "lora", "devEui", "tags"]), _json, max_size=3),
        max_size=6,
    ),
)
@quick
def test_no_json_raises_anything(kind: str, found: dict[str, Any]) -> None:
    explain(Capture(json.dumps(found).encode(), topic=UP.replace("/up", f"/{kind}")))
    explain(Capture(json.dumps({**found, "devEUI": EUI}).encode()))
