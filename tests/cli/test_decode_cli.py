"""`citybrain decode`: whatever is pasted, and what comes out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citybrain_cli import decode
from citybrain_cli.hexinput import from_argument, parse_hex, to_bytes
from citybrain_cli.main import main
from protocols.core.errors import ConfigError
from protocols.core.explain import Capture
from protocols.registry import FAMILIES
from tests.protocols.vectors import HERE

FRAME = "fefefe6861010000000068910833333433593333338a16"
DATA = bytes.fromhex(FRAME)


def xxd(data: bytes) -> str:
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        pairs = " ".join(row[n : n + 2].hex() for n in range(0, len(row), 2))
        lines.append(f"{at:08x}: {pairs:<39}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}")
    return "\n".join(lines) + "\n"


def hexdump(data: bytes) -> str:
    lines = [f"{at:08x}  {data[at : at + 16].hex(' '):<48} |" + "." * 16 + "|" for at in range(0, len(data), 16)]
    return "\n".join([*lines, f"{len(data):08x}"]) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        FRAME,
        FRAME.upper(),
        DATA.hex(" "),
        DATA.hex(":"),
        DATA.hex("-"),
        ", ".join(f"0x{byte:02X}" for byte in DATA),
        "".join(f"\\x{byte:02x}" for byte in DATA),
        "[" + ",".join(f"0x{byte:02x}" for byte in DATA) + "]",
        DATA[:9].hex(" ") + "\n" + DATA[9:].hex(" ") + "\n",
        xxd(DATA),
        hexdump(DATA),
    ],
)
def test_hex_in_any_dress_is_the_same_bytes(text: str) -> None:
    assert to_bytes(text.encode()) == DATA


@settings(derandomize=True)
@given(data=st.binary(min_size=1, max_size=70))
def test_dumps_are_read_back(data: bytes) -> None:
    assert parse_hex(xxd(data)) == data
    assert parse_hex(hexdump(data)) == data
    assert parse_hex(data.hex(" ")) == data


@pytest.mark.parametrize(
    "text", ["##0011QN=1&&1C80\r\n", ":010300000001FB\r\n", "$GPGGA,1*00", '[2,"a","B",{}]', "68 1g"]
)
def test_text_frames_stay_text(text: str) -> None:
    assert to_bytes(text.encode()) == text.encode()


def test_line_ends_in_letters_are_line_ends() -> None:
    assert to_bytes(rb"##0001A&&1C80\r\n") == b"##0001A&&1C80\r\n"


def test_forms_can_be_forced() -> None:
    assert to_bytes(b"6861", "text") == b"6861"
    assert to_bytes(b"6861", "raw") == b"6861"
    with pytest.raises(ConfigError, match="not hex"):
        to_bytes(b"hello", "hex")


@settings(derandomize=True)
@given(data=st.binary(max_size=300))
def test_no_input_is_too_odd(data: bytes) -> None:
    assert isinstance(to_bytes(data), bytes)


def test_a_file_standard_input_or_the_frame_itself(tmp_path: Path) -> None:
    file = tmp_path / "frame.bin"
    file.write_bytes(DATA)
    for given_as in (str(file), "-", None, FRAME):
        assert from_argument(given_as, io.BytesIO(FRAME.encode())) == DATA


def test_a_frame_longer_than_a_file_name_is_a_frame() -> None:
    frame = "##0457QN=1;" + "a" * 5_000
    assert from_argument(frame, io.BytesIO()) == frame.encode()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["decode", *arguments])
    return code, capsys.readouterr().out


def test_a_good_frame_is_told_and_exit_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "dlt645", FRAME, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["ok"] is True
    assert (told["addr"], told["di"], told["value"]) == ("000000000161", "00010000", "0.26")
    assert told["explained"][0]["checksum"]["ok"] is True
    offsets = [(field["offset"], field["length"]) for field in told["explained"][0]["fields"] if "offset" in field]
    assert offsets
    assert all(at + size <= len(DATA) for at, size in offsets)


@pytest.mark.parametrize(("lang", "word"), [("zh", "偏移"), ("en", "offset")])
def test_the_table_speaks_both_languages(capsys: pytest.CaptureFixture[str], lang: str, word: str) -> None:
    code, out = run(capsys, "dlt645", FRAME, "--lang", lang)
    assert code == 0
    assert word in out
    assert "000000000161" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "dlt645", FRAME),
        ("dlt645", "--json", FRAME),
        ("dlt645", "--json", "--as", "hex", "--", FRAME),
        ("dlt645", "--lang", "zh", "--json", FRAME),
    ],
)
def test_options_stand_anywhere(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    code, out = run(capsys, *arguments)
    assert (code, json.loads(out)["addr"]) == (0, "000000000161")


def test_a_bad_frame_gives_its_reason_and_exit_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "dlt645", FRAME[:-4] + "8b16", "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["ok"], told["error"]) == (False, "checksum")
    assert told["detail"]


def test_a_wrong_question_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decode", "dlt64", "68"]) == 2
    assert "dlt645" in capsys.readouterr().err
    assert main(["decode", "dlt645", "hello", "--as", "hex"]) == 2


@pytest.mark.parametrize("name", ["dlt645", "modbus", "gb28181"])  # the last two hold line ends in letters
def test_a_file_of_vectors_is_told_row_by_row(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out = run(capsys, name, str(HERE / f"{name}.json"), "--json")
    told = json.loads(out)
    rows: list[dict[str, Any]] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    assert [one["id"] for one in told] == [row["id"] for row in rows]
    assert code == (0 if all(one["ok"] for one in told) else 1)


EXAMPLES = {
    "dlt645": FRAME,
    "modbus": "010300000002c40b",
    "hj212": "##0087QN=20160801085857223;ST=32;CN=1062;PW=100000;MN=010000A8900016F000169DC0;Flag=5;"
    "CP=&&RtdInterval=30&&1C80\\r\\n",
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_auto_finds_the_protocol(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out = run(capsys, "auto", EXAMPLES[name], "--json")
    assert json.loads(out)["protocol"] == name
    assert code == 0


def test_auto_refuses_what_nobody_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "auto", "00" * 40)
    assert code == 1
    assert "refused" in out


@pytest.mark.parametrize("name", [one.name for one in FAMILIES.values() if one.explain])
@settings(derandomize=True, deadline=None, max_examples=60)
@given(data=st.binary(max_size=120), cut=st.integers(0, 60))
def test_explaining_never_raises_and_can_be_shown(name: str, data: bytes, cut: int) -> None:
    for capture in (
        Capture(data),
        Capture(DATA[:cut] + data, strict=True),
        Capture(data, kind="value", extra={"payload": data.hex()}),
        Capture(data, topic=data[:20].decode("latin-1"), request=data[:cut]),
    ):
        told = decode.tell(name, capture)
        json.dumps(decode.as_json(told), ensure_ascii=False)
        for lang in ("zh", "en"):
            assert decode.as_text(told, lang)
        assert told.ok or (told.error and told.detail)


#: What fuzzing has found, so that it stays found: protocol and the bytes.
FOUND = [
    ("nmea_beidou", b"$GNGSA,A,1,,,,,,,,,,,,,99.99,99.99,94999,.*36"),
    ("nmea_beidou", b"203.05,06,07280,0,-\x00$GPZDA,010203.05,06,07,27777777770,3+0"),
    ("nmea_beidou", "$GPZDA,172809.0²,12,07,1996,00,00\r\n".encode("latin-1")),
    ("modbus", bytes.fromhex("000100000006ff0201021008")),
    ("lorawan-chirpstack", bytes.fromhex("40f17dbe4900020001954378762b11ff0d") + bytes(300)),
    ("v2x", bytes.fromhex("001e120000000005e9c040010828058082300000006cc0408c006614839fc06000040ba000")),
]


@pytest.mark.parametrize(("name", "data"), FOUND, ids=[f"{name}-{n}" for n, (name, _) in enumerate(FOUND)])
def test_what_fuzzing_found_stays_found(name: str, data: bytes) -> None:
    for strict in (False, True):
        told = decode.tell(name, Capture(data, strict=strict))
        assert told.ok or (told.error and told.detail)
