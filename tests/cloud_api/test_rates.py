"""How often somebody may ask, whom a call is counted for, and whose address is believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psycopg
import pytest

from cloud.api.problems import Problem
from cloud.api.rates import Rates
from cloud.app import create_app
from cloud.auth import passwords
from cloud.auth.errors import Locked
from cloud.auth.proxies import caller, networks
from cloud.auth.rates_config import RateSettings
from cloud.auth.throttle import Addresses, Buckets, household
from cloud.config import Settings
from cloud.identity.limiter import Refusals
from tests.cloud_api.conftest import NEW_PASSWORD, serving
from tests.fixtures.postgres import Postgres, new_database

RATES = RateSettings(
    caller_burst=5, caller_per_s=1, stranger_burst=25, stranger_per_s=1, enrol_burst=4, enrol_per_s=1,
    costly_burst=3, costly_per_min=6,
)  # fmt: skip
PEOPLE = [f"person-{n}" for n in range(10)]


def test_a_bucket_refills_and_forgets_the_longest_unused() -> None:
    buckets = Buckets(2, refill_s=10.0, size=100)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 10.0]
    assert buckets.take("a", 4.0) == pytest.approx(6.0)  # knocking meanwhile costs nothing
    assert buckets.take("a", 10.0) == 0.0 and buckets.take("a", 10.0) == 10.0
    assert buckets.take("a", 5.0) > 0  # a clock that goes back gives nothing away
    assert [buckets.take("a", 1e6) for _ in range(3)] == [0.0, 0.0, 10.0]  # never more than the burst
    for number in range(1000):
        buckets.take(f"b{number}", 1e6)
    assert len(buckets) == 100


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_what_a_stranger_is_counted_by(address: str, counted: str) -> None:
    assert household(address) == counted


def test_log_ins_and_enrolments_that_fail_count_by_household() -> None:
    failures, refusals = Addresses(3, refill_s=10.0), Refusals()
    for number in range(10):
        failures.failed(f"2001:db8::{number:x}", 0.0)
        refusals.refused(f"2001:db8::{number:x}", "code", 0.0)
    with pytest.raises(Locked):
        failures.check("2001:db8::ffff", 0.0)
    failures.check("2001:db8:0:1::1", 0.0)
    assert refusals.wait_s("2001:db8::ffff", 0.0) > 0 and refusals.wait_s("2001:db8:0:1::1", 0.0) == 0


OURS = networks(["10.0.0.0/24", "2001:db8:aa::/48"])


@pytest.mark.parametrize(
    ("peer", "hops", "found"),
    [
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),  # no proxy of ours: its word is worth nothing
        ("10.0.0.8", [], "10.0.0.8"),
        ("10.0.0.8", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.8", ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),  # the left one is what the caller wrote himself
        ("10.0.0.8", ["6.6.6.6", " 203.0.113.9 ", "10.0.0.7"], "203.0.113.9"),
        ("10.0.0.8", ["10.0.0.5", "203.0.113.9"], "203.0.113.9"),  # he says he is one of ours
        ("10.0.0.8", ["10.0.0.5", "10.0.0.7"], "10.0.0.5"),  # from inside
        ("10.0.0.8", ["203.0.113.9", "unknown"], "10.0.0.8"),
        ("10.0.0.8", ["203.0.113.9:4711"], "203.0.113.9"),
        ("2001:db8:aa::1", ["[2001:db8:bb::9]:443"], "2001:db8:bb::9"),
        ("::ffff:10.0.0.8", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.8", [""], "10.0.0.8"),
        ("testclient", ["1.2.3.4"], "testclient"),
    ],
)
def test_the_rightmost_hop_that_is_none_of_ours(peer: str, hops: list[str], found: str) -> None:
    assert caller(peer, hops, OURS) == found


@pytest.mark.parametrize("wrong", ["0.0.0.0/0", "::/0", "10.0.0.1/24", "proxy.example", ""])
def test_networks_that_are_none_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        Settings(dsn="x", trusted_proxies=(wrong,))


def test_tokens_that_nobody_found_good_open_no_buckets_and_take_no_memory() -> None:
    rates = Rates(RateSettings(caller_burst=2, stranger_burst=3), lambda: 0.0)
    for number in range(3):
        rates.call("/api/v1/gateways", f"made-up-{number}", "203.0.113.9")
    with pytest.raises(Problem):
        rates.call("/api/v1/gateways", "made-up-again", "203.0.113.9")
    for number in range(30_000):
        rates.good(f"t-{number}", f"operator {number}")
    assert len(rates._known) == 10_000
    for who in range(30_000):
        rates.call("/api/v1/gateways", "", f"10.{who >> 16}.{who >> 8 & 255}.{who & 255}")
    assert len(rates._strangers) == 10_000
    rates.call("/api/v1/gateways", "t-29999", "203.0.113.9")  # its own, though the address has none left
    rates.bad("t-29999")  # logged out
    rates.call("/api/v1/gateways", "t-29998", "203.0.113.9")
    assert rates.refused == {"stranger": 1}


@dataclass
class House:
    """One application; its clock stands still, so that counts are exact. ``proxied``: 127.0.0.1 is a proxy of ours."""

    dsn: str
    rates: Rates
    clock_s: list[float]
    client: httpx.Client

    def ask(self, path: str, token: str = "", *, address: str = "", **more: str) -> httpx.Response:
        headers = {key.replace("_", "-"): value for key, value in more.items()}
        if token:
            headers["authorization"] = f"Bearer {token}"
        if address:
            headers["x-forwarded-for"] = address
        return self.client.get(path, headers=headers)

    def log_in(self, name: str, address: str) -> str:
        body, headers = {"name": name, "password": NEW_PASSWORD}, {"x-forwarded-for": address}
        answer = self.client.post("/api/v1/login", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])


def _house(dsn: str, state_dir: str, trusted: tuple[str, ...]) -> Iterator[House]:
    settings = Settings(dsn=dsn, state_dir=state_dir, console=False, rates=RATES, trusted_proxies=trusted)
    app = create_app(settings)
    rates, clock_s = app.state.services.rates, [0.0]
    rates.steady_s = lambda: clock_s[0]
    with serving(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield House(dsn, rates, clock_s, client)


@pytest.fixture(scope="module")
def dsn(postgres: Postgres) -> str:
    found = new_database(postgres)
    with psycopg.connect(found, autocommit=True) as conn:
        hashed = passwords.hashed(NEW_PASSWORD)
        conn.cursor().executemany(
            "insert into operator (name, password_hash, role, must_change) values (%s, %s, 'admin', false)",
            [(name, hashed) for name in PEOPLE],
        )
    return found


@pytest.fixture(scope="module")
def proxied(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    yield from _house(dsn, str(tmp_path_factory.mktemp("proxied")), ("127.0.0.1/32",))


@pytest.fixture(scope="module")
def bare(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Nobody is trusted, although the environment tells the server to trust everybody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORWARDED_ALLOW_IPS", "*")
        yield from _house(dsn, str(tmp_path_factory.mktemp("bare")), ())


def test_ten_people_behind_one_address_do_not_slow_each_other(proxied: House) -> None:
    office = "203.0.113.1"
    tokens = [proxied.log_in(name, office) for name in PEOPLE]  # ten calls of the address
    for token in tokens:
        assert proxied.ask("/api/v1/me", token, address=office).status_code == 200  # and ten more: now they are known
    for token in tokens:
        assert [proxied.ask("/api/v1/me", token, address=office).status_code for _ in range(4)] == [200] * 4
    greedy = tokens[0]
    assert proxied.ask("/api/v1/me", greedy, address="198.51.100.7").status_code == 200  # the same from elsewhere
    answer = proxied.ask("/api/v1/me", greedy, address=office)
    assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json" and answer.json()["code"] == "rate.caller"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    again = proxied.log_in(PEOPLE[0], "198.51.100.7")  # a second session of the same account is not a second bucket
    proxied.ask("/api/v1/me", again, address="198.51.100.7")
    assert proxied.ask("/api/v1/me", again, address="198.51.100.7").status_code == 429
    assert proxied.ask("/api/v1/me", tokens[1], address=office).status_code == 200
    proxied.clock_s[0] += 1
    assert proxied.ask("/api/v1/me", greedy, address=office).status_code == 200
    proxied.clock_s[0] += 100
    page = proxied.ask("/api/v1/rates", tokens[1], address=office).json()
    assert page["caller"] == {"per_s": 1.0, "burst": 5, "refused": 2}


def test_strangers_count_by_address_and_by_household(proxied: House) -> None:
    def wrong(address: str, token: str = "") -> int:
        return proxied.ask("/api/v1/gateways", token, address=address).status_code

    assert [wrong("203.0.113.50", f"cbt_{n:016x}_{'x' * 43}") for n in range(26)] == [401] * 25 + [429]
    assert wrong("203.0.113.51") == 401
    assert [wrong(f"2001:db8:5:5::{n:x}") for n in range(1, 27)] == [401] * 25 + [429]
    assert wrong("2001:db8:5:6::1") == 401
    assert proxied.ask("/api/v1/no-such-thing", address="203.0.113.50").status_code == 429
    assert proxied.ask("/updates/metadata/timestamp.json", address="203.0.113.50").status_code == 404  # no call
    # What it calls itself further left is its own affair, whatever stands there.
    assert proxied.ask("/api/v1/gateways", address="9.9.9.9, 203.0.113.50").status_code == 429
    assert proxied.ask("/api/v1/gateways", address="127.0.0.1, 203.0.113.50").status_code == 429
    # A body that is on its way is not waited for.
    large = proxied.client.post("/api/v1/login", content=b"x" * 100_000, headers={"x-forwarded-for": "203.0.113.50"})
    assert large.status_code == 429 and large.headers["connection"] == "close"


def test_gateways_that_enrol_have_a_bucket_of_their_own(proxied: House) -> None:
    def enrol() -> int:
        return proxied.ask("/api/v1/enrol/ca", address="203.0.113.60").status_code

    assert [enrol() for _ in range(5)] == [503] * 4 + [429]  # 503: no authority here
    assert proxied.ask("/api/v1/health", address="203.0.113.60").status_code == 200


def test_what_is_costly_has_a_smaller_bucket(proxied: House) -> None:
    proxied.clock_s[0] += 100
    token = proxied.log_in(PEOPLE[5], "203.0.113.70")
    calls = ("/api/v1/ledger", "/api/v1/fleet/export/gateways", "/api/v1/fleet/export/devices", "/api/v1/ledger")
    answers = [proxied.ask(path, token, address="203.0.113.70") for path in calls]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["code"] == "rate.costly" and answers[-1].headers["retry-after"] == "10"
    pull = {"device": "gw-x", "name": "log_pull"}
    with psycopg.connect(proxied.dsn, autocommit=True) as conn:
        conn.execute("insert into gateway (gateway_id, shard) values ('gw-x', 1)")
    headers = {"authorization": f"Bearer {token}", "x-forwarded-for": "203.0.113.70"}
    answer = proxied.client.post("/api/v1/commands", json=pull, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (429, "rate.costly")
    assert proxied.ask("/api/v1/gateways", token, address="203.0.113.70").status_code == 200  # the rest goes on
    proxied.clock_s[0] += 10
    assert proxied.client.post("/api/v1/commands", json=pull, headers=headers).status_code == 202


def test_nobody_is_believed_who_is_no_proxy_of_ours(proxied: House, bare: House) -> None:
    """The address that log-in, session and audit log keep, and the one the brake counts by."""
    for house, wanted in ((proxied, "203.0.113.99"), (bare, "127.0.0.1")):
        house.clock_s[0] += 100
        house.log_in(PEOPLE[9], "6.6.6.6, 203.0.113.99")
        with psycopg.connect(house.dsn) as conn:
            session = conn.execute("select address from operator_session order by created_at desc limit 1").fetchone()
            entry = conn.execute(
                "select detail ->> 'address' from audit_entry where action = 'login' order by entry_id desc limit 1"
            ).fetchone()
        assert session == entry == (wanted,)
    answers = [bare.ask("/api/v1/gateways", address=f"203.0.113.{n}").status_code for n in range(26)]
    assert answers == [401] * 24 + [429] * 2  # the log-in was the first of the 25


def test_https_is_believed_from_the_same(proxied: House, bare: House) -> None:
    """Where the console sends somebody who left out a slash: only a proxy of ours can make that HTTPS."""
    for house, scheme in ((proxied, "https"), (bare, "http")):
        house.clock_s[0] += 100
        answer = house.ask("/api/v1/gateways/", address="203.0.113.80", x_forwarded_proto="https")
        assert (answer.status_code, answer.headers["location"].partition(":")[0]) == (307, scheme)
