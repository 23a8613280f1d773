"""Each thing that goes wrong on a site, made to go wrong, and what the doctor calls it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from citybrain_cli.main import main
from edge.clock_kernel import Kept
from edge.config import load
from edge.doctor import broker, lines, machine, work
from edge.doctor.examine import examine, look
from edge.doctor.finding import Finding
from edge.doctor.loglines import LogLines
from edge.doctor.redact import Redactor
from tests.fixtures.broker import StartBroker

NOW_MS = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1000)


def codes(findings: object) -> list[str]:
    return [finding.code for finding in findings if finding.level != "ok"]  # type: ignore[attr-defined]


def config_text(url: str, extra: str = "", gateway: str = "gw-t", shard: int = 3) -> str:
    return (
        f'[gateway]\nid = "{gateway}"\nshard = {shard}\nstatus_listen = ""\n\n[mqtt]\nurl = "{url}"\n'
        f'username = "{gateway}"\npassword_file = "password"\n{extra}'
    )


def broker_findings(folder: Path, text: str, password: str = "", now_ms: int = NOW_MS) -> list[Finding]:
    (folder / "password").write_text(password, encoding="utf-8")
    path = folder / "agent.toml"
    path.write_text(text, encoding="utf-8")

    async def run() -> list[Finding]:
        return [finding async for finding in broker.check(load(path), folder, now_ms, log_in=True)]

    return asyncio.run(run())


# -- the box ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("year", "kernel", "code"),
    [
        (1970, Kept(True, 3), "clock.unset"),
        (2199, None, "clock.unset"),
        (2026, None, "clock.unasked"),
        (2026, Kept(False, 16_000), "clock.free"),
        (2026, Kept(True, 9_000), "clock.loose"),
        (2026, Kept(True, 9), "clock.kept"),
    ],
)
def test_the_clock(year: int, kernel: Kept | None, code: str) -> None:
    now_ms = int(datetime(year, 3, 2, tzinfo=UTC).timestamp() * 1000)
    assert [finding.code for finding in machine.clock(now_ms, kernel)] == [code]


def test_the_state_folder(tmp_path: Path) -> None:
    assert codes(machine.disk(tmp_path / "none", 1 << 20)) == ["disk.no_folder"]
    assert codes(machine.disk(tmp_path, 1 << 20)) == []
    assert codes(machine.disk(tmp_path, 1 << 60)) == ["disk.low"]
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
    assert "disk.not_writable" in codes(machine.disk(Path("/proc/self"), 1 << 20))


# -- the lines --------------------------------------------------------------------------------------------------------


def test_serial_ports(tmp_path: Path) -> None:
    assert codes(lines.serial("bus", str(tmp_path / "ttyUSB0"), frozenset(), tmp_path)) == ["serial.missing"]
    (tmp_path / "ttyUSB1").touch()
    missing = next(lines.serial("bus", str(tmp_path / "ttyUSB0"), frozenset(), tmp_path))
    assert str(tmp_path / "ttyUSB1") in missing.en  # what there is instead
    assert codes(lines.serial("bus", str(tmp_path / "ttyUSB1"), frozenset())) == ["serial.no_device"]
    ours, theirs = pty.openpty()
    port = os.ttyname(theirs)
    os.close(theirs)
    assert codes(lines.serial("bus", port, frozenset())) == []
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import sys\nheld = open({port!r}, 'rb+', 0)\nprint(1, flush=True)\nsys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        busy = list(lines.serial("bus", port, frozenset()))
        assert codes(busy) == ["serial.busy"] and str(holder.pid) in busy[0].en
        assert codes(lines.serial("bus", port, frozenset({holder.pid}))) == []  # our own agent
    finally:
        holder.communicate()
        os.close(ours)


def test_addresses_to_dial_and_to_listen_on() -> None:
    async def reach(port: int) -> list[Finding]:
        return [finding async for finding in lines.reach("bus", [("127.0.0.1", port)])]

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert codes(asyncio.run(reach(port))) == []
        assert codes(lines.listens("dust", f"127.0.0.1:{port}")) == ["listen.busy"]
    assert codes(asyncio.run(reach(port))) == ["dial.refused"]
    assert codes(lines.listens("dust", f"127.0.0.1:{port}")) == []
    assert codes(lines.listens("dust", "192.0.2.1:9000")) == ["listen.failed"]  # not an address of ours


def test_where_connectors_dial(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        config_text("mqtt://127.0.0.1:1")
        + """
[[connector]]
id = "tcp"
kind = "modbus-tcp"
address = "192.0.2.7:502"
[[connector.device]]
id = "a"
type = "gas/combustible"
unit = 1
[[connector]]
id = "server"
kind = "modbus-rtu"
port = "tcp://192.0.2.8:4001"
[[connector.device]]
id = "b"
type = "gas/combustible"
unit = 1
[[connector]]
id = "serial"
kind = "modbus-rtu"
port = "/dev/ttyUSB0"
[[connector.device]]
id = "c"
type = "gas/combustible"
unit = 1
""",
        encoding="utf-8",
    )
    connectors = load(path).connector
    assert [lines.dialled(one) for one in connectors] == [[("192.0.2.7", 502)], [("192.0.2.8", 4001)], []]
    assert [lines.serial_port(one) for one in connectors] == [None, None, "/dev/ttyUSB0"]


# -- the way to the core ----------------------------------------------------------------------------------------------


def test_the_log_in(tmp_path: Path, start_broker: StartBroker) -> None:
    server = start_broker([("gw-t", 3)])
    good = server.password("gw-t")
    assert codes(broker_findings(tmp_path, config_text(server.url), good)) == ["broker.plain"]
    wrong = broker_findings(tmp_path, config_text(server.url), "another-word")
    assert codes(wrong) == ["broker.plain", "broker.login"]
    assert not any("another-word" in finding.en + finding.zh for finding in wrong)
    moved = broker_findings(tmp_path, config_text(server.url, shard=4), good)
    assert codes(moved) == ["broker.plain", "broker.rights"]
    (tmp_path / "password").unlink()
    path = tmp_path / "agent.toml"
    report = asyncio.run(look(load(path), tmp_path, None, NOW_MS))
    assert "broker.password" in [finding.code for finding in report.findings]


def test_names_and_ports_that_lead_nowhere(tmp_path: Path) -> None:
    assert codes(broker_findings(tmp_path, config_text("mqtt://no-such-host.invalid:1883"))) == ["broker.dns"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "broker.tcp" in codes(broker_findings(tmp_path, config_text(f"mqtt://127.0.0.1:{port}")))
    with serving(None, b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "broker.mqtt" in codes(broker_findings(tmp_path, config_text(f"mqtt://127.0.0.1:{port}")))
        assert "broker.tls" in codes(broker_findings(tmp_path, config_text(f"mqtts://127.0.0.1:{port}")))
    with serving(None, b"") as port:  # takes the connection and closes it
        assert "broker.tcp" in codes(broker_findings(tmp_path, config_text(f"mqtt://127.0.0.1:{port}")))


class Authority:
    """Certificates as good or as bad as a test wants them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key.public_key(), timedelta(days=3650), None)
        self.file = folder / f"{name}.crt"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str, left: timedelta) -> Path:
        """Key and certificate in one file; ``left``: its life from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        certificate = self._sign(name, key.public_key(), left, host)
        file = self.folder / f"{host}-{left.days}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return file

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, left: timedelta, host: str | None
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=400)).not_valid_after(now + left)
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )  # fmt: skip
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@contextmanager
def serving(certificate: Path | None, answer: bytes) -> Iterator[int]:
    """A server that gives one answer to whatever it is sent. Yields its port."""
    server = socket.create_server(("127.0.0.1", 0))
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    def run() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            try:
                peer.settimeout(5)
                if context is not None:
                    peer = context.wrap_socket(peer, server_side=True)
                if answer:
                    peer.recv(1000)
                    peer.sendall(answer)
                    peer.recv(1000)
            except OSError:
                pass
            finally:
                peer.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


def test_certificates(tmp_path: Path) -> None:
    ours, strange = Authority(tmp_path, "ours"), Authority(tmp_path, "strange")
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    connack = b"\x20\x02\x00\x05"
    for authority, host, left, expected in (
        (ours, "localhost", timedelta(days=300), "broker.login"),
        (ours, "localhost", timedelta(days=9), "broker.server_certificate"),
        (ours, "localhost", timedelta(days=-1), "broker.certificate"),
        (ours, "elsewhere.example", timedelta(days=300), "broker.certificate"),
        (strange, "localhost", timedelta(days=300), "broker.certificate"),
    ):
        with serving(authority.issue(host, left), connack) as port:
            text = config_text(f"mqtts://localhost:{port}", 'ca_file = "ours.crt"\n')
            found = broker_findings(tmp_path, text, now_ms=now_ms)
            assert expected in codes(found), (host, left, found)
            bad = [finding for finding in found if finding.code == "broker.certificate"]
            if left.days < 0:
                assert "dates" in bad[0].en
            elif host != "localhost":
                assert "is not for localhost" in bad[0].en
            elif authority is strange:
                assert "authority" in bad[0].en
    ours.issue("gw-t", timedelta(days=2)).rename(tmp_path / "own.pem")
    with serving(ours.issue("localhost", timedelta(days=300)), connack) as port:
        text = config_text(f"mqtts://localhost:{port}", 'ca_file = "ours.crt"\ncert_file = "own.pem"\n')
        own = [f for f in broker_findings(tmp_path, text, now_ms=now_ms) if f.code == "broker.own_certificate"]
        assert [f.level for f in own] == ["bad"]
        missing = broker_findings(tmp_path, text.replace("ours.crt", "none.crt"), now_ms=now_ms)
        assert codes(missing) == ["broker.files"]


# -- what the agent says ----------------------------------------------------------------------------------------------


def test_what_the_agent_says() -> None:
    values = {"link_up": 1.0, "uptime_s": 900.0, "outbox_oldest_s": 4000.0, "outbox_data_batches": 12.0,
              "thinned_readings": 7.0}  # fmt: skip
    found = list(work.check(values, {"connector_bus": "no port"}, {"a": True, "b": False}, frozenset("abc")))
    assert codes(found) == ["outbox.waits", "outbox.thinned", "connector.down", "device.silent", "device.never"]
    assert {finding.about for finding in found if finding.area == "device"} == {"b", ""}
    quiet = {"link_up": 1.0, "outbox_oldest_s": 0.2}
    assert codes(work.check(quiet, {}, {"a": True}, frozenset("a"))) == []
    assert codes(work.check({"link_up": 0.0}, {"link": "refused"}, {}, frozenset())) == ["link.down"]


def test_a_wrong_configuration_is_the_first_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[gateway]\nid = 'gw'\nshard = 99\n", encoding="utf-8")
    assert main(["edge", "doctor", str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["findings"][0]["code"] == "config.wrong" and "shard" in told["findings"][0]["en"]
    assert examine(tmp_path / "none.toml").worst == "bad"
    path.write_text(config_text("mqtt://127.0.0.1:1"), encoding="utf-8")
    assert main(["edge", "doctor", str(path)]) == 1
    said = capsys.readouterr().out
    assert "代理没有在运行" in said and "the agent does not run" in said and "→" in said


def test_every_finding_has_both_languages_and_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(config_text("mqtts://127.0.0.1:1"), encoding="utf-8")
    for finding in examine(path).findings:
        assert finding.zh and finding.en and bool(finding.todo_zh) == bool(finding.todo_en)
        if finding.level in ("warn", "bad"):
            assert finding.todo_zh, finding


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "password=Hunter-2-hunter", "PASSWORD: Hunter-2-hunter", '{"token": "Hunter-2-hunter"}',
        "api_key=Hunter-2-hunter",
        "mqtt://gw:Hunter-2-hunter@broker:1883", "Authorization: Bearer Hunter-2-hunter", "密码：Hunter-2-hunter",
        "sent cbt_Hunter-2-hunter", "-----BEGIN EC PRIVATE KEY-----\nHunter-2-hunter\n-----END EC PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nHunter-2-hunter", "the word is Hunter-2-hunter indeed",
    ],
)  # fmt: skip
def test_secrets_do_not_leave(text: str) -> None:
    hidden = Redactor(["Hunter-2-hunter"] if "indeed" in text else [])(text)
    assert "unter" not in hidden.replace("hunter-2", "") and "***" in hidden, hidden


@given(st.text(alphabet="abc .*+[](){}\\|^$", min_size=6, max_size=12), st.text(max_size=20), st.text(max_size=20))
def test_a_known_secret_never_leaves_whatever_it_is_made_of(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor([secret])(before + secret + after).replace("***", "\x00")


def test_what_is_no_secret_stays() -> None:
    for text in (
        "2026-03-02 link lost: 192.0.2.1:1883",
        "token bucket of 4 MiB",
        "device gas-01 timeout after 3 tries",
    ):
        assert Redactor(["hunter"])(text) == text


def test_log_lines_are_bounded_and_clean() -> None:
    import logging

    kept = LogLines(Redactor(["geheim-wort"]))
    log = logging.getLogger("tests.doctor")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    log.addHandler(kept)
    try:
        for number in range(9_000):
            log.info("line %d %s", number, "x" * 400)
        log.warning("log-in with %s", "geheim-wort")
        log.error("boom %s", "y" * 9_000)
        log.info("wrong %d", "number")
    finally:
        log.removeHandler(kept)
    assert len(kept.newest(10_000, 0, "")) < 4_001
    assert kept.newest(5, logging.WARNING, "log-in")[0].endswith("log-in with ***")
    assert len(kept.newest(1, logging.ERROR, "")[0]) <= 2_000
    assert kept.newest(2, logging.INFO, "line 8999")[0].count("8999") == 1
