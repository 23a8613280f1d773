"""From the label on the box to a certificate and to its successor: the honest way, and everybody else's."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cloud.identity import claims, codes, revocation
from cloud.identity.enrolment import MAX_ATTEMPTS, RENEWAL_PREFIX
from cloud.updates.config import UpdatesSettings
from cloud.updates.keys import Keys
from cloud.updates.repository import Repository
from edge.config import load
from edge.identity.core_client import CoreRefused, fetch_root
from edge.identity.enrol import Claim, enrol, read_label
from edge.identity.files import IdentityFiles, new_request
from protocols.core.errors import ConfigError, LinkRefused
from tests.fixtures.postgres import Postgres, new_database
from tests.identity.city import Web, files_of, utc_now


@pytest.fixture(scope="module")
def web(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with Web(new_database(postgres), tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture(autouse=True)
def forgiven(web: Web) -> None:
    """Each test is a stranger from a new address."""
    web.app.state.identity.refusals._buckets.clear()


def post(web: Web, path: str, **body: object) -> httpx.Response:
    context = ssl.create_default_context(cafile=str(web.root / "ca" / "root.pem"))
    with httpx.Client(verify=context) as client:
        return client.post(f"{web.url}/api/v1{path}", json=body)


def refusals(web: Web) -> list[str]:
    with web.db() as conn:
        rows = conn.execute(
            "select detail ->> 'note' from audit_entry where action = 'gateway.enrol.refused' order by entry_id"
        )
        return [row[0] for row in rows]


def test_a_city_with_signed_updates_hands_out_its_trusted_root(dsn: str, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "updates")
    keys = Keys(tmp_path / "offline", b"a passphrase of the city")
    repository.create(keys, utc_now())
    (tmp_path / "core").mkdir()
    with Web(dsn, tmp_path / "core", updates=UpdatesSettings(folder=str(tmp_path / "updates"))) as web:
        web.enrol("gw-u", tmp_path / "gw-u")
        read = load(tmp_path / "gw-u" / "gateway.toml")
        assert Path(read.updates.root_file).read_bytes() == repository.trusted_root()
        assert read.updates.url == web.url + "/updates/"
        assert Path(read.updates.ca_file).read_text() == files_of(tmp_path / "gw-u").ca.read_text()


def test_a_code_whose_short_name_is_taken_is_drawn_again(web: Web) -> None:
    taken, fresh = codes.new_code(), codes.new_code()
    drawn = iter([taken, taken, fresh])
    with web.db() as conn:
        for gateway, wanted in (("gw-drawn-1", taken), ("gw-drawn-2", fresh)):
            made = claims.make(conn, claims.Wanted(gateway), "tester", utc_now(), 1.0, draw=lambda: next(drawn))
            assert made.code == wanted


def test_from_the_label_to_a_configuration(web: Web, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(
        '[gateway]\nid = "new"\nshard = 0\nlocation = [117.3, 31.8]\n\n[mqtt]\nurl = "mqtt://x"\nusername = "u"\n'
        'keepalive_s = 9\n\n# my devices\n[[report]]\ndevice = "*"\n'
    )
    found = enrol(read_label(web.claim("gw-a", 7)), config, time.time())
    assert (found.gateway, found.shard, found.broker) == ("gw-a", 7, "mqtts://localhost:8883")
    read = load(config)
    assert (read.gateway.id, read.gateway.shard, read.gateway.location) == ("gw-a", 7, (117.3, 31.8))
    assert (read.mqtt.keepalive_s, read.mqtt.username) == (9, "")
    assert read.identity is not None
    assert read.identity.core == web.url
    assert "# my devices" in config.read_text()
    files = files_of(tmp_path)
    leaf = files.certificate()
    life = leaf.not_valid_after_utc - utc_now()
    assert dt.timedelta(days=6.9) < life < dt.timedelta(days=7.1)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:citybrain:gateway:gw-a"]
    for path in (files.identity, files.ca, config, *(web.root / "ca").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    with web.db() as conn:
        assert conn.execute(
            "select who, action from audit_entry where what = 'gateway/gw-a' order by 1"
        ).fetchall() == [
            ("gateway:gw-a", "gateway.enrol"),
            ("tester", "gateway.claim"),
        ]
        kept = conn.execute("select selector, secret_hash from gateway_claim where gateway_id = 'gw-a'").fetchone()
    assert kept is not None
    assert len(kept[1]) == 32


def test_a_code_works_once_and_a_lost_answer_is_given_again(web: Web, tmp_path: Path) -> None:
    claim = read_label(web.claim("gw-once"))
    request = new_request("x")
    first = post(web, "/enrol", code=claim.code, csr=request.csr_pem)
    assert first.status_code == 200
    again = post(web, "/enrol", code=claim.code.lower().replace("-", ""), csr=request.csr_pem)
    assert again.json()["certificate"] == first.json()["certificate"]
    other = post(web, "/enrol", code=claim.code, csr=new_request("x").csr_pem)
    assert (other.status_code, other.json()["code"]) == (403, "identity.code")
    assert refusals(web)[-1] == "gw-once: used before"
    with pytest.raises(CoreRefused):
        enrol(claim, tmp_path / "g.toml", time.time())
    assert not (tmp_path / "g.toml").exists()


def test_wrong_expired_and_void_codes_say_the_same(web: Web) -> None:
    good = codes.read(read_label(web.claim("gw-w")).code)
    assert good is not None
    expired = read_label(web.claim("gw-e", days=-1.0)).code
    void = read_label(web.claim("gw-v")).code
    web.claim("gw-v")
    wrong = codes.Code(good.selector, codes.new_code().secret).text
    csr = new_request("x").csr_pem
    said = set()
    for code in (wrong, expired, void, codes.new_code().text, "hello", ""):
        answer = post(web, "/enrol", code=code, csr=csr)
        assert answer.status_code == 403
        said.add(answer.text)
    assert len(said) == 1
    assert refusals(web)[-6:-2] == ["gw-w: wrong secret", "gw-e: expired", "gw-v: void", "no such code"]
    assert post(web, "/enrol", code=good.text, csr=csr).status_code == 200


def test_guessing_burns_the_claim_and_slows_the_guesser(web: Web) -> None:
    good = codes.read(read_label(web.claim("gw-guess")).code)
    assert good is not None
    csr = new_request("x").csr_pem
    for _ in range(MAX_ATTEMPTS):
        answer = post(web, "/enrol", code=codes.Code(good.selector, codes.new_code().secret).text, csr=csr)
        assert answer.status_code == 403
    slowed = post(web, "/enrol", code=good.text, csr=csr)
    assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "30")
    web.app.state.identity.refusals._buckets.clear()
    assert post(web, "/enrol", code=good.text, csr=csr).status_code == 403
    assert refusals(web)[-1] == "gw-guess: too many attempts"


def _rsa_csr() -> str:
    key = rsa.generate_private_key(65537, 2048)
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def _broken_signature() -> str:
    der = bytearray(x509.load_pem_x509_csr(new_request("x").csr_pem.encode()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    body = base64.encodebytes(bytes(der)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


def test_bad_requests_do_not_use_up_the_code(web: Web) -> None:
    code = read_label(web.claim("gw-csr")).code
    good = new_request("x").csr_pem
    for csr in ("", "no request", good[:200], good.replace("-----\nMI", "-----\nMJ"), _rsa_csr(), _broken_signature()):
        answer = post(web, "/enrol", code=code, csr=csr)
        assert (answer.status_code, answer.json()["code"]) == (422, "identity.request"), csr[:80]
    assert post(web, "/enrol", code=code, csr="x" * 9000).status_code == 422
    assert post(web, "/enrol", code=code, csr="x" * 100_000).status_code == 413
    assert post(web, "/enrol", code=code).status_code == 422
    assert post(web, "/enrol", code=code, csr=good).status_code == 200


def test_names_of_the_core_are_nobodys(web: Web) -> None:
    for name in ("core", "cb-core-5", "cb-auth", "Gw", "a/b", ""):
        with pytest.raises(ConfigError):
            web.claim(name)


def test_the_emptiest_shard_is_chosen_and_kept(web: Web) -> None:
    with web.db() as conn:
        for shard in range(64):
            if shard != 23:
                conn.execute("insert into gateway (gateway_id, shard) values (%s, %s)", (f"gw-fill-{shard}", shard))
                conn.execute("insert into gateway (gateway_id, shard) values (%s, %s)", (f"gw-more-{shard}", shard))
    answer = post(web, "/enrol", code=read_label(web.claim("gw-auto")).code, csr=new_request("x").csr_pem)
    assert answer.json()["shard"] == 23
    with pytest.raises(ConfigError, match="lives in shard 23"):
        web.claim("gw-auto", 5)


def test_another_core_than_the_labels_hears_no_code(web: Web, tmp_path: Path) -> None:
    claim = read_label(web.claim("gw-pin"))
    wrong = Claim(claim.core, claim.code, "00" * 32)
    with pytest.raises(LinkRefused, match="another fingerprint"):
        enrol(wrong, tmp_path / "g.toml", time.time())
    with web.db() as conn:
        row = conn.execute("select attempts, used_at from gateway_claim where gateway_id = 'gw-pin'").fetchone()
    assert row == (0, None)
    with pytest.raises(ConfigError):
        fetch_root(web.url, "not hexadecimal")


def test_a_gateway_in_1970_can_enrol(web: Web, tmp_path: Path) -> None:
    assert enrol(read_label(web.claim("gw-1970")), tmp_path / "g.toml", 100.0).gateway == "gw-1970"


def _renewal(web: Web, files: IdentityFiles, csr: str, **more: str) -> httpx.Response:
    der = x509.load_pem_x509_csr(csr.encode()).public_bytes(serialization.Encoding.DER)
    signature = base64.b64encode(files.sign(RENEWAL_PREFIX + der)).decode()
    body = {"certificate": files.certificate_pem(), "csr": csr, "signature": signature, **more}
    return post(web, "/enrol/renew", **body)


def test_renewal_a_lost_answer_and_a_copy_of_the_box(web: Web, tmp_path: Path) -> None:
    web.enrol("gw-renew", tmp_path)
    files = files_of(tmp_path)
    request = new_request("x")
    first = _renewal(web, files, request.csr_pem)
    assert first.status_code == 200
    assert _renewal(web, files, request.csr_pem).json()["certificate"] == first.json()["certificate"]
    copy = _renewal(web, files, new_request("x").csr_pem)  # the old certificate, a new wish: two boxes
    assert (copy.status_code, copy.json()["code"]) == (403, "identity.certificate")
    with web.db() as conn:
        alarm = conn.execute("select state, level from alarm where key = 'gw-renew:cloned'").fetchone()
        event = conn.execute("select \"values\" ->> 'code' from event where type = 'sec.identity.cloned'").fetchone()
    assert alarm == ("raised", "orange")
    assert event == ("renewal",)
    files.take(request, first.json()["certificate"], first.json()["root_pem"])
    assert _renewal(web, files, new_request("x").csr_pem).status_code == 200
    # Given anew, the identity is one box's again: the alarm clears, and what the old box holds is worth nothing.
    web.enrol("gw-renew", tmp_path / "new")
    assert _renewal(web, files, new_request("x").csr_pem).json()["code"] == "identity.revoked"
    with web.db() as conn:
        assert conn.execute("select state from alarm where key = 'gw-renew:cloned'").fetchone() == ("cleared",)


def test_renewals_that_are_refused(web: Web, tmp_path: Path) -> None:
    web.enrol("gw-r1", tmp_path / "1")
    web.enrol("gw-r2", tmp_path / "2")
    mine, theirs = files_of(tmp_path / "1"), files_of(tmp_path / "2")
    csr = new_request("x").csr_pem
    stolen = _renewal(web, mine, csr, certificate=theirs.certificate_pem())  # their certificate, not their key
    assert (stolen.status_code, stolen.json()["code"]) == (403, "identity.certificate")
    for certificate in ("", "junk", (web.root / "ca" / "root.pem").read_text(), _self_signed("gw-r1")):
        assert _renewal(web, mine, csr, certificate=certificate).json()["code"] == "identity.certificate"
    assert _renewal(web, mine, csr, signature="!!").status_code == 403
    with web.db() as conn:
        assert revocation.revoke(conn, "gw-r1", "tester", "stolen from the pole", utc_now()) == 1
        assert revocation.revoke(conn, "gw-none", "tester", "x", utc_now()) is None
    revoked = _renewal(web, mine, csr)
    assert (revoked.status_code, revoked.json()["code"]) == (403, "identity.revoked")
    assert _renewal(web, theirs, new_request("x").csr_pem).status_code == 200


def _self_signed(name: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = utc_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def test_operators_only(web: Web) -> None:
    body = {"gateway": "gw-x"}
    assert post(web, "/claims", **body).status_code == 401
    assert post(web, "/gateways/gw-a/revoke", reason="x").status_code == 401
