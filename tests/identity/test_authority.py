"""Certificates after openssl's opinion, somebody else's authority, codes and limits, files of each broker."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from citybrain_cli import main as cli
from citybrain_cli.up.broker import binary
from cloud.auth import passwords
from cloud.identity import codes
from cloud.identity.access import Access
from cloud.identity.broker import emqx, mosquitto
from cloud.identity.broker.config import BrokerConfig, load
from cloud.identity.broker.nkeys import AccountKey, claims_of
from cloud.identity.ca import LocalCa, write_private
from cloud.identity.config import IdentitySettings
from cloud.identity.csr import parse
from cloud.identity.limiter import Refusals
from cloud.identity.names import allowed_name, gateway_of, gateway_of_uri, gateway_uri
from cloud.identity.signer import Command, open_signer
from edge.identity.enrol import read_label
from edge.identity.files import new_request
from edge.identity.settings_file import write_settings
from edge.identity.trust import NO_DATES, client_context
from protocols.core.errors import ConfigError, LinkRefused, StoreError
from tests.fixtures.postgres import Postgres, new_database
from tests.identity.city import Web, files_of, utc_now

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="no openssl here")
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def openssl(*arguments: object) -> str:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@needs_openssl
def test_openssl_agrees_with_chain_purpose_and_revocation(tmp_path: Path) -> None:
    now = utc_now()
    ca = LocalCa.create(tmp_path / "ca", "City", now)
    issued = ca.issue_gateway("gw-1", ec.generate_private_key(ec.SECP256R1()).public_key(), now, 7)
    leaf, chain, crl = tmp_path / "leaf.pem", tmp_path / "chain.pem", tmp_path / "crl.pem"
    leaf.write_text(issued.pem)
    chain.write_text(ca.chain_pem())
    check = ("verify", "-x509_strict", "-CAfile", chain)
    assert openssl(*check, "-purpose", "sslclient", leaf).endswith("OK\n")
    assert "unsuitable" in openssl(*check, "-purpose", "sslserver", leaf)
    crl.write_text(ca.crl([("1", now)], now))
    assert openssl(*check, "-crl_check", "-CRLfile", crl, leaf).endswith("OK\n")
    crl.write_text(ca.crl([(issued.serial, now)], now))
    assert "revoked" in openssl(*check, "-crl_check", "-CRLfile", crl, leaf)
    again = LocalCa.create(tmp_path / "ca", "Another name", now)
    assert again.fingerprint == ca.fingerprint  # made once


def test_a_passphrase_is_needed_where_one_was_given(tmp_path: Path) -> None:
    LocalCa.create(tmp_path / "ca", "City", utc_now(), b"correct horse")
    assert b"ENCRYPTED" in (tmp_path / "ca" / "issuing.key").read_bytes()
    for wrong in (None, b"wrong"):
        with pytest.raises(ConfigError, match="issuing key cannot be opened"):
            LocalCa(tmp_path / "ca", wrong)
    assert LocalCa(tmp_path / "ca", b"correct horse").root_pem
    with pytest.raises(ConfigError, match="no certificate authority here"):
        LocalCa(tmp_path / "nowhere")


def test_a_root_in_the_safe_is_not_missed(tmp_path: Path) -> None:
    LocalCa.create(tmp_path / "ca", "City", utc_now())
    (tmp_path / "ca" / "root.key").unlink()
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert LocalCa(tmp_path / "ca").issue_gateway("gw-1", key, utc_now(), 1).serial


SIGN = """#!/bin/sh
# Somebody's own authority: a request comes in, a certificate goes out.
printf 'subjectAltName=URI:urn:citybrain:gateway:%s,DNS:%s\\nextendedKeyUsage=clientAuth\\nkeyUsage=critical,digitalSignature\\nbasicConstraints=critical,CA:FALSE\\nauthorityKeyIdentifier=keyid\\n' "${{AS:-$CITYBRAIN_GATEWAY}}" "$CITYBRAIN_GATEWAY" > {0}/ext
cat > {0}/in.csr
openssl x509 -req -days 7 -in {0}/in.csr -CA {0}/root.pem -CAkey {0}/root.key -set_serial 0x$(openssl rand -hex 12) -subj "/CN=$CITYBRAIN_GATEWAY" -extfile {0}/ext
"""  # noqa: E501


@needs_openssl
def test_somebody_elses_authority(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30, "-subj",
        "/CN=Their root", "-addext", "basicConstraints=critical,CA:TRUE", "-addext",
        "keyUsage=critical,keyCertSign,cRLSign", "-keyout", folder / "root.key", "-out", folder / "root.pem",
    )  # fmt: skip
    script = folder / "sign"
    script.write_text(SIGN.format(folder))
    script.chmod(0o755)
    settings = IdentitySettings(
        broker_url="mqtts://x:1",
        public_url="https://x",
        sign_command=(str(script),),
        sign_roots=str(folder / "root.pem"),
    )
    signer = open_signer(settings, tmp_path, "x", utc_now())
    request = parse(new_request("x").csr_pem)
    issued = signer.issue("gw-1", request, utc_now(), 7)
    assert gateway_of(signer.verify(issued.pem)) == "gw-1"
    with pytest.raises(ValueError, match="does not chain"):
        signer.verify(LocalCa.create(tmp_path / "ours", "x", utc_now()).issue_server(["x"], utc_now())[1].pem)
    for bad in (
        ("/bin/false",),
        ("/bin/cat",),
        ("/nowhere",),
        ("/bin/sh", "-c", f"cat >/dev/null; cat {folder}/root.pem"),
    ):
        with pytest.raises(StoreError):
            Command(bad, folder / "root.pem").issue("gw-1", request, utc_now(), 7)


@given(st.text(LETTERS, min_size=26, max_size=26), st.sampled_from(["", "-", " "]), st.booleans())
def test_a_code_is_read_however_it_is_typed(letters: str, between: str, small: bool) -> None:
    code = codes.Code(letters[:6], letters[6:])
    typed = between.join(letters).replace("0", "O").replace("1", "l")
    assert codes.read(typed.lower() if small else typed) == code
    assert codes.read(code.text) == code
    assert code.proves(code.hash)


@given(st.text(max_size=100))
def test_no_text_breaks_the_reading_of_codes(text: str) -> None:
    code = codes.read(text)
    assert code is None or len(code.selector + code.secret) == 26


def test_new_codes_differ_and_the_label_comes_back() -> None:
    made = {codes.new_code().text for _ in range(200)}
    assert len(made) == 200
    code = codes.new_code()
    label = read_label(codes.label_text("https://core.example:8600", code, "ab" * 32))
    assert (label.core, label.code, label.fingerprint) == ("https://core.example:8600", code.text, "ab" * 32)
    for text in ("", "https://x", "citybrain:enrol", "citybrain:enrol?core=x", "citybrain:other?core=x&code=y&ca=z"):
        with pytest.raises(ConfigError):
            read_label(text)


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True))
def test_names_go_through_the_uri(name: str) -> None:
    assert gateway_of_uri(gateway_uri(name)) == (name if allowed_name(name) else None)
    assert gateway_of_uri(name) is None


def test_a_guesser_waits_and_an_honest_neighbour_does_not() -> None:
    limit = Refusals()
    for _ in range(10):
        assert limit.wait_s("10.0.0.9", 0.0) == 0
        limit.refused("10.0.0.9", "code", 0.0)
    assert limit.wait_s("10.0.0.9", 0.0) == 30
    assert limit.wait_s("10.0.0.8", 0.0) == 0
    assert limit.wait_s("10.0.0.9", 31.0) == 0
    assert limit.refused("10.0.0.9", "code", 31.0) == 2  # one entry stands for the one that was slowed, too
    for n in range(11_000):
        limit.refused(f"host-{n}", "code", 100.0 + n)
    assert len(limit._buckets) <= 10_000


def test_nkeys_are_what_nats_expects(tmp_path: Path) -> None:
    key = AccountKey.open(tmp_path / "seed")
    assert key.public[0] == "A"
    assert len(key.public) == 56
    assert AccountKey.open(tmp_path / "seed").public == key.public
    assert stat.S_IMODE((tmp_path / "seed").stat().st_mode) == 0o600
    # That a broker takes keys of this form is in test_broker_attacks.py; here the form stays what it is.
    assert AccountKey(bytes(32)).public == "AA5WUJ54Z23KILLCUOUNAKTPBVZWKMQVO4O6EQ5GHLAERIMLLHNCS47C"
    said = claims_of(key.sign({"sub": "x"}))
    assert said == {"sub": "x", "iss": key.public}
    for bad in ("", "a.b", "a.b.c", "a.bnVsbA.c"):
        with pytest.raises(ValueError, match=r"."):
            claims_of(bad)


def test_a_clock_before_the_certificate_looks_at_no_dates(tmp_path: Path) -> None:
    now = utc_now()
    ca = LocalCa.create(tmp_path / "ca", "City", now)
    root = tmp_path / "ca" / "root.pem"
    right = client_context(str(root), "", "", now.timestamp())
    wrong = client_context(str(root), "", "", 1000.0)
    assert not right.verify_flags & NO_DATES
    assert wrong.verify_flags & NO_DATES
    with pytest.raises(LinkRefused):
        client_context(str(tmp_path / "none.pem"), "", "", 0.0)
    key, issued = ca.issue_core("core", now + dt.timedelta(days=1), 1)
    write_private(tmp_path / "c.pem", key + issued.pem.encode())
    assert client_context(str(root), str(tmp_path / "c.pem"), "", now.timestamp()).verify_flags & NO_DATES


def test_the_settings_file_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    write_settings(path, {"gateway": {"id": "a", "shard": 1}})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open("a") as file:
        file.write("# first meter\n[[connector]]\nid = 'x'  # mine\n")
    for _ in range(2):
        write_settings(path, {"gateway": {"shard": 2}, "mqtt": {"url": "u", "x": [1, 2.5, True]}})
    text = path.read_text()
    assert text.count("[gateway]") == text.count("# first meter") == text.count("# Written by") == 1
    assert "id = 'x'  # mine" in text
    assert 'id = "a"\nshard = 2\n' in text
    assert path.with_name("gateway.toml.before-enrol").exists()
    path.write_text("[gateway\n")
    with pytest.raises(ConfigError):
        write_settings(path, {"gateway": {}})
    assert path.read_text() == "[gateway\n"
    path.write_text("gateway = 5\n")
    with pytest.raises(ConfigError, match="not a table"):
        write_settings(path, {"gateway": {}})


def _broker(kind: str, tmp_path: Path, **more: object) -> BrokerConfig:
    return BrokerConfig(kind=kind, dsn="x", ca_dir="ca", out=str(tmp_path), **more)  # type: ignore[arg-type]


ACCESS = Access({"gw-1": 5, "gw-2": 63}, {}, (), ("gw-9",))


def test_files_for_mosquitto_and_emqx(tmp_path: Path) -> None:
    acl = mosquitto.acl(ACCESS)
    assert "user gw-2\ntopic write cb/v1/63/gw-2/up/+\ntopic read cb/v1/63/gw-2/down/+" in acl
    assert "gw-9" not in acl
    out = emqx.files(_broker("emqx", tmp_path), tmp_path, ACCESS, "crl")
    assert set(out) == {"emqx.conf", "acl.conf", "banned.jsonl", "revoked.crl"}
    assert out["acl.conf"].rstrip().endswith("{deny, all}.")
    assert all(line.endswith(".") for line in out["acl.conf"].splitlines() if not line.startswith("%%"))
    assert out["emqx.conf"].count("{") == out["emqx.conf"].count("}")
    assert out["emqx.conf"].count("fail_if_no_peer_cert = true") == 2
    assert [json.loads(line)["who"] for line in out["banned.jsonl"].splitlines()] == ["gw-9"]


def test_the_guards_configuration(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    path.write_text('kind = "nats"\ndsn = "x"\nca_dir = "ca"\nout = "rules"\n')
    assert load(path).out == str(tmp_path / "rules")
    for line in ('listen = "x"', "hosts = []", "unknown = 1", "poll_s = 0", "max_sessions = -1"):
        path.write_text(f'kind = "nats"\ndsn = "x"\nca_dir = "ca"\nout = "rules"\n{line}\n')
        with pytest.raises(ConfigError):
            load(path)


def test_by_hand_from_the_first_command_to_the_broker(
    postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ca init`, `ca server`, `claim`, `edge enrol`, `broker-rules`, `revoke`, as one types them; and the API."""
    with Web(new_database(postgres), tmp_path / "core") as web:
        core = tmp_path / "core.toml"
        core.write_text(
            f"dsn = {json.dumps(web.dsn)}\nstate_dir = {json.dumps(str(web.root))}\n[identity]\n"
            f'broker_url = "mqtts://localhost:8883"\npublic_url = "{web.url}"\n'
        )
        assert cli.main(["cloud", "ca", "init", str(core)]) == 0
        assert web.ca.fingerprint in capsys.readouterr().out
        assert (
            cli.main(["cloud", "ca", "server", str(core), "a.example", "10.0.0.1", "--out", str(tmp_path / "tls")]) == 0
        )
        labels = tmp_path / "labels"
        assert (
            cli.main(["cloud", "claim", str(core), "gw-hand", "--zh", "手工网关", "--labels", str(labels), "--plain"])
            == 0
        )
        name, shard, text = capsys.readouterr().out.strip().splitlines()[-1].split(" ", 2)
        assert (name, shard) == ("gw-hand", "0")
        page = (labels / "gw-hand.html").read_text()
        assert "手工网关" in page
        assert read_label(text).code in page
        gateway = tmp_path / "gw-hand" / "gateway.toml"
        gateway.parent.mkdir()
        assert cli.main(["edge", "enrol", str(gateway), "--label", text]) == 0
        assert cli.main(["edge", "enrol", str(gateway), "--label", text]) == 1  # used
        assert cli.main(["edge", "enrol", str(gateway), "--core", web.url]) == 2
        assert cli.main(["edge", "check", str(gateway)]) == 0
        broker = tmp_path / "broker.toml"
        broker.write_text(f'kind = "nats"\ndsn = {json.dumps(web.dsn)}\nca_dir = "core/ca"\nout = "rules"\n')
        assert cli.main(["cloud", "broker-rules", str(broker)]) == 0
        said = subprocess.run(
            [binary(), "-t", "-c", str(tmp_path / "rules" / "nats.conf")], capture_output=True, text=True, check=False
        )
        assert "is valid" in said.stdout + said.stderr
        assert cli.main(["cloud", "revoke", str(core), "gw-hand", "--reason", "test"]) == 0
        assert cli.main(["cloud", "revoke", str(core), "gw-none", "--reason", "test"]) == 2
        with pytest.raises(StoreError):
            files_of(tmp_path / "nowhere").certificate()
        _by_api(web)


def _by_api(web: Web) -> None:
    """The same through the API, and who may."""
    with web.db() as conn:
        for name, role in (("李娜", "admin"), ("旁观", "viewer")):
            conn.execute(
                "insert into operator (name, password_hash, role, must_change) values (%s, %s, %s, false)",
                (name, passwords.hashed("Nanfei-harbour-3105"), role),
            )
    context = ssl.create_default_context(cafile=str(web.root / "ca" / "root.pem"))
    with httpx.Client(base_url=f"{web.url}/api/v1", verify=context, timeout=20) as client:
        tokens = {}
        for name in ("李娜", "旁观"):
            answer = client.post("/login", json={"name": name, "password": "Nanfei-harbour-3105"})
            tokens[name] = {"authorization": f"Bearer {answer.json()['token']}"}
        admin, viewer = tokens["李娜"], tokens["旁观"]
        wish = {"gateway": "gw-api", "admission": "accept"}
        assert client.post("/claims", json=wish, headers=viewer).status_code == 403
        made = client.post("/claims", json=wish, headers=admin)
        assert made.status_code == 201
        assert made.json()["qr_svg"].startswith("<svg")
        assert client.post("/claims", json={**wish, "gateway": "core"}, headers=admin).status_code == 409
        assert client.post("/claims", json={**wish, "shard": 64}, headers=admin).status_code == 422
        label = client.post("/claims/label", json={"gateway": "gw-label"}, headers=admin)
        assert label.headers["content-type"].startswith("text/html")
        assert [one["gateway_id"] for one in client.get("/claims", headers=admin).json()] == ["gw-label", "gw-api"]
        assert made.json()["code"] not in client.get("/claims", headers=admin).text
        body = {"code": made.json()["code"], "csr": new_request("x").csr_pem}
        enrolled = client.post("/enrol", json=body)
        assert x509.load_pem_x509_certificate(enrolled.json()["certificate"].encode())
        listed = client.get("/gateways/gw-api/certificates", headers=admin).json()
        assert [one["state"] for one in listed] == ["current"]
        with web.db() as conn:
            conn.execute("insert into device_pending (gateway_id, device_id) values ('gw-api', 'm-1')")
        assert [one["device_id"] for one in client.get("/pending-devices", headers=admin).json()] == ["m-1"]
        decision = {"decision": "accepted"}
        assert client.post("/gateways/gw-api/pending-devices/m-1", json=decision, headers=viewer).status_code == 403
        assert client.post("/gateways/gw-api/pending-devices/m-1", json=decision, headers=admin).status_code == 204
        assert client.post("/gateways/gw-api/pending-devices/m-2", json=decision, headers=admin).status_code == 404
        mode = {"admission": "auto"}
        assert client.put("/gateways/gw-api/admission", json=mode, headers=admin).status_code == 204
        reason = {"reason": "stolen"}
        assert client.post("/gateways/gw-api/revoke", json=reason, headers=viewer).status_code == 403
        revoked = client.post("/gateways/gw-api/revoke", json=reason, headers=admin)
        assert revoked.json() == {"gateway": "gw-api", "certificates": 1}
        assert client.post("/gateways/gw-none/revoke", json=reason, headers=admin).status_code == 404
