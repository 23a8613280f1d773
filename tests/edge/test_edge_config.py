"""A configuration written by hand beside a road: each mistake is found at the desk, with file, line and key."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from citybrain_cli.main import main
from edge.config import load, read_secret
from edge.devices import Devices
from edge.mqtt_url import split_url
from protocols.core import tomlfile
from protocols.core.errors import ConfigError
from tests.edge.gateway import CONFIG

SCENARIO = '\n[[scenario]]\npack = "urban_mgmt/construction_site"\n[scenario.devices]\ndust = ["dust-1"]\n'

#: (what is replaced, by what, line, what the message names)
MISTAKES: list[tuple[str, str, int, str]] = [
    ('id = "gw-t"', 'id = "GW T"', 3, "gateway.id"),
    ("shard = 3", "shard = 64", 4, "gateway.shard"),
    ("shard = 3", 'shard = "3"', 4, "gateway.shard"),
    ("shard = 3\n", "", 2, "`shard`"),
    ("shard = 3", "shard = 3\nshrad = 4", 5, "`shrad`"),
    ("[117.3, 31.8]", "[117.3]", 5, "gateway.location"),
    ("[117.3, 31.8]", "[31.8, 117.3]", 5, "gateway.location"),
    ("[117.3, 31.8]", "[nan, 31.8]", 5, "gateway.location"),
    ('status_listen = ""', 'status_listen = "8080"', 6, "gateway.status_listen"),
    ("mqtt://127.0.0.1:1", "http://127.0.0.1", 9, "mqtt.url"),
    ("mqtt://127.0.0.1:1", "mqtt://127.0.0.1:99999", 9, "mqtt.url"),
    ("mqtt://127.0.0.1:1", "mqtt://", 9, "mqtt.url"),
    ("[mqtt]", "[mqqt]", 8, "`mqqt`"),
    ('kind = "modbus-rtu"', 'kind = "modbus"', 22, "connector[1].kind"),
    ('type = "gas/combustible"', 'type = "gas/nothing"', 20, "gas/nothing"),
    ('type = "gas/combustible"', 'type = "env/dust_station"', 20, "speaks hj212"),
    ("unit = 11", "unit = 300", 27, "connector[1].device[0].unit"),
    ("unit = 11", "unit = 11\npoll = 3", 28, "connector[1].device[0].poll"),
    ('id = "gas-1"', 'id = "dust-1"', 25, "'dust-1' is used twice"),
    ('id = "gas"', 'id = "dust"', 21, "'dust' is used twice"),
    ('mode = "all"', 'mode = "some"', 31, "report[0].mode"),
    ('mode = "all"', 'mode = "all"\ndeadband = -1', 32, "report[0].deadband"),
    ('mode = "all"', 'mode = "all"\nsnapshot_s = inf', 32, "report[0].snapshot_s"),
    ("lon = 117.31", "lon = 217.31", 35, "place[0].lon"),
    ('device = "gas-1"\nlon', 'device = "gas-9"\nlon', 34, "no device 'gas-9'"),
    ("[gateway]", "[gateway", 2, "line 2"),
    ("shard = 3", "shard = 3\nshard = 4", 5, "line 5"),
    ("urban_mgmt/construction_site", "urban_mgmt/nothing", 39, "no such pack"),
    ("urban_mgmt/construction_site", "../../etc/passwd", 39, "<domain>/<scenario>"),
    ("dust = [", "dsut = [", 39, "no such role"),
    ('dust = ["dust-1"]', 'dust = ["dust-1", "dust-2"]', 41, "no device 'dust-2'"),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "named"), MISTAKES, ids=[f"{n}: {m[1]!r}" for n, m in enumerate(MISTAKES)]
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, named: str) -> None:
    path = tmp_path / "agent.toml"
    whole = CONFIG + SCENARIO
    assert old in whole
    path.write_text(whole.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load(path)
    message = str(refused.value)
    assert message.startswith(f"{path}:{line}: ") or f"line {line}" in message, message
    assert str(path) in message and named in message, message
    assert main(["edge", "check", str(path)]) == 2


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00", b"= 3", b"[[[", b"a = 1", b"[gateway]\nid = 1\n" * 2])
def test_what_is_no_configuration_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"agent\.toml"):
        load(path)


@pytest.mark.parametrize("where", ["nothing.toml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, where: str) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path / where)


def test_check_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No socket, no serial port, no file but the configuration: a laptop in a hotel may check it."""
    import serial

    path = tmp_path / "agent.toml"
    path.write_text(CONFIG + SCENARIO, encoding="utf-8")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(serial.Serial, "open", refuse)
    assert main(["edge", "check", str(path)]) == 0
    assert "gw-t (shard 3): 2 connectors, 2 devices" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["agent.toml"]


def test_secrets_come_from_their_own_file_and_never_into_a_message(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("  hunter2\n")
    assert read_secret(Path("secret"), tmp_path) == "hunter2"
    assert read_secret(tmp_path / "secret", Path("/elsewhere")) == "hunter2"
    (tmp_path / "odd").write_bytes(b"hunter2\xff")
    for name in ("missing", "odd"):
        with pytest.raises(ConfigError) as refused:
            read_secret(Path(name), tmp_path)
        assert name in str(refused.value) and "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker", (False, "broker", 1883)),
        ("mqtts://broker", (True, "broker", 8883)),
        ("mqtts://10.0.0.1:443", (True, "10.0.0.1", 443)),
        ("mqtt://[::1]:1884", (False, "::1", 1884)),
    ],
)
def test_broker_addresses(url: str, expected: tuple[bool, str, int]) -> None:
    assert split_url(url) == expected


def test_later_report_rules_win_and_types_give_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    rules = '\n[[report]]\ndevice = "gas-*"\npoint = "ch4_*"\nmode = "swinging-door"\ndeadband = 2.5\nsnapshot_s = 30\n'
    path.write_text(CONFIG + rules, encoding="utf-8")
    devices = Devices(load(path))
    gas = devices.policy(devices.series("gas-1", "ch4_lel"))
    decimals = devices.series("gas-1", "ch4_lel").decimals
    assert (gas.mode, gas.deadband, gas.snapshot_ms) == ("swinging-door", round(2.5 * 10**decimals), 30_000)
    assert devices.policy(devices.series("dust-1", "pm10")).mode == "all"
    assert devices.location("gas-1") == (117.31, 31.81) and devices.location("dust-1") == (117.3, 31.8)
    unknown = devices.series("dust-1", "a_point_of_tomorrow")
    assert (unknown.decimals, unknown.unit) == (3, "")
    with pytest.raises(KeyError):
        devices.series("nobody", "x")


@pytest.mark.parametrize(
    ("text", "path", "key", "line"),
    [
        ("a = 1\nb = 2\n", "$", "b", 2),
        ("[x]\na = 1\n[y]\na = 2\n", "$.y", "a", 4),
        ("[[x]]\na = 1\n[[x]]\na = 2\n", "$.x[1]", "a", 4),
        ("[[x]]\n[[x.y]]\na = 1\n[[x]]\n[[x.y]]\na = 2\n[[x.y]]\na = 3\n", "$.x[1].y[1]", "a", 8),
        ("[[x]]\n[x.t]\na = 1\n[[x]]\n[x.t]\na = 2\n", "$.x[1].t", "a", 6),
        ('[x]\n"a b" = 1\n', "$.x", "a b", 2),
        ("x.y.z = 1\n", "$.x.y", "z", 1),
        ("[x]\na = 1\n", "$.x", "missing", 1),
        ("[x]\na = 1\n", "$.nowhere", "b", None),
        ("# [x]\n[x] # a = 0\n a = 1\n", "$.x", "a", 3),
    ],
)
def test_lines_are_found(text: str, path: str, key: str, line: int | None) -> None:
    assert tomlfile.locate(text, path, key) == line
