"""Who gets in, who is kept out, and what a browser is allowed to be made to do."""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path

import httpx
import psycopg
import pytest
from starlette.datastructures import Headers

from cloud.auth import passwords
from cloud.auth.guard import from_own_page
from cloud.auth.service import Accounts, Locked, WrongPassword, ensure_first_operator
from cloud.auth.sessions import COOKIE, Sessions, load_key
from cloud.query.pool import Pool
from tests.cloud_api.conftest import NEW_PASSWORD, Core, add_operator, client_of
from tests.cloud_api.test_problems import problem


def test_the_first_password_opens_nothing_but_its_change(core: Core) -> None:
    client = client_of(core, "admin", core.first_password)
    assert client.get("/me").json()["must_change"] is True
    problem(client.get("/devices"), 403, "auth.must_change")
    problem(client.post("/operators", json={"name": "x1", "role": "admin"}), 403, "auth.must_change")
    for new, reason in (("short", "short"), ("administrator-1", "name"), ("aaaaaaaaaaaa", "simple"),
                        (core.first_password, "same")):  # fmt: skip
        body = problem(client.post("/password", json={"old": core.first_password, "new": new}), 422, "auth.weak")
        assert body["reason"] == reason
    problem(client.post("/password", json={"old": "wrong-wrong", "new": NEW_PASSWORD}), 401, "auth.wrong")
    changed = client.post("/password", json={"old": core.first_password, "new": NEW_PASSWORD})
    assert changed.status_code == 200 and changed.json()["must_change"] is False
    problem(client.get("/me"), 401, "auth.required")  # the old token ended with the old password
    client.headers["authorization"] = f"Bearer {changed.json()['token']}"
    assert client.get("/devices").status_code == 200
    with core.db() as conn:
        stored = conn.execute("select password_hash from operator where name = 'admin'").fetchone()
    assert stored is not None and str(stored[0]).startswith("$argon2id$")


def test_five_failures_lock_for_five_minutes(core: Core) -> None:
    add_operator(core, "locked-1", "viewer")
    url = f"{core.url}/api/v1/login"
    for _ in range(5):
        problem(httpx.post(url, json={"name": "locked-1", "password": "not-the-one"}), 401, "auth.wrong")
    answer = httpx.post(url, json={"name": "locked-1", "password": NEW_PASSWORD})  # even the right one
    problem(answer, 429, "auth.locked")
    assert 290 <= int(answer.headers["retry-after"]) <= 300
    with core.db() as conn:
        conn.execute("update operator set locked_until = now() - interval '1 second' where name = 'locked-1'")
    problem(httpx.post(url, json={"name": "locked-1", "password": "not-the-one"}), 401, "auth.wrong")
    assert httpx.post(url, json={"name": "locked-1", "password": NEW_PASSWORD}).status_code == 200


def test_names_that_do_not_exist_lock_alike(core: Core) -> None:
    url = f"{core.url}/api/v1/login"
    for _ in range(5):
        problem(httpx.post(url, json={"name": "nobody-1", "password": "guess"}), 401, "auth.wrong")
    problem(httpx.post(url, json={"name": "nobody-1", "password": "guess"}), 429, "auth.locked")


def test_parallel_guesses_get_no_more_tries(core: Core) -> None:
    add_operator(core, "burst-1", "viewer")

    async def burst() -> list[str]:
        pool = Pool(core.dsn, 12)
        accounts = Accounts(pool, Sessions(b"k" * 32, 1))

        async def guess() -> str:
            try:
                await accounts.login("burst-1", "not-the-one")
            except (WrongPassword, Locked) as error:
                return error.code
            return "in"

        try:
            return await asyncio.gather(*(guess() for _ in range(12)))
        finally:
            await pool.close()

    outcomes = asyncio.run(burst())
    assert sorted(outcomes) == ["auth.locked"] * 7 + ["auth.wrong"] * 5


def test_logging_out_ends_the_token_everywhere(core: Core, viewer: httpx.Client) -> None:
    client = client_of(core, "viewer-1")
    assert client.get("/me").status_code == 200
    assert client.post("/logout").status_code == 204
    problem(client.get("/me"), 401, "auth.required")
    assert viewer.get("/me").status_code == 200  # the same operator's other session goes on


def test_tokens_end_and_cannot_be_forged() -> None:
    sessions = Sessions(b"a" * 32, 1.0)
    text, token = sessions.issue("王敏", "$argon2id$hash", 1_000.0)
    assert sessions.read(text, 4_599.0) == token
    assert sessions.read(text, 4_600.0) is None
    assert Sessions(b"b" * 32, 1.0).read(text, 1_001.0) is None
    assert sessions.read(text[:-2], 1_001.0) is None and sessions.read("", 1_001.0) is None
    assert sessions.fingerprint("$argon2id$hash") != sessions.fingerprint("$argon2id$other")


def test_roles(core: Core, viewer: httpx.Client, operator: httpx.Client) -> None:
    problem(viewer.post("/alarms/alarm-main-2/acknowledge"), 403, "auth.forbidden")
    problem(viewer.post("/cases/1/actions", json={"action": "accept", "version": 1}), 403, "auth.forbidden")
    problem(operator.get("/operators"), 403, "auth.forbidden")
    problem(operator.post("/operators", json={"name": "x1", "role": "viewer"}), 403, "auth.forbidden")


def test_an_administrator_adds_people(core: Core) -> None:
    add_operator(core, "chief", "admin")
    chief = client_of(core, "chief")
    made = chief.post("/operators", json={"name": "周洁", "role": "viewer"})
    assert made.status_code == 201
    problem(chief.post("/operators", json={"name": "周洁", "role": "viewer"}), 409, "auth.name_taken")
    problem(chief.post("/operators", json={"name": "a b", "role": "viewer"}), 422, "invalid")
    new = client_of(core, "周洁", made.json()["password"])
    assert new.get("/me").json()["must_change"] is True
    again = chief.post("/operators/周洁/reset").json()["password"]
    assert again != made.json()["password"]
    problem(new.get("/me"), 401, "auth.required")
    problem(chief.post("/operators/chief/reset"), 409, "auth.self")
    assert {
        "name": "周洁", "role": "viewer", "department": "*", "district": "*", "more": [], "language": "zh-CN",
        "must_change": True, "second_factor": False, "disabled": False, "sso": False,
    } in chief.get("/operators").json()  # fmt: skip


def cookie_client(core: Core, name: str) -> httpx.Client:
    token = client_of(core, name).headers["authorization"].removeprefix("Bearer ")
    return httpx.Client(base_url=f"{core.url}/api/v1", cookies={COOKIE: token}, timeout=20)


def test_a_cookie_alone_changes_nothing(core: Core, operator: httpx.Client) -> None:
    client = cookie_client(core, "王敏")
    assert client.get("/me").status_code == 200
    path = "/alarms/alarm-noise-4/acknowledge"
    problem(client.post(path), 403, "auth.csrf")
    problem(client.post(path, headers={"Sec-Fetch-Site": "cross-site"}), 403, "auth.csrf")
    problem(client.post(path, headers={"Sec-Fetch-Site": "same-site"}), 403, "auth.csrf")
    problem(client.post(path, headers={"Origin": "https://evil.example"}), 403, "auth.csrf")
    problem(client.post(path, headers={"X-CSRF-Token": "0" * 32}), 403, "auth.csrf")
    assert client.post(path, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert client.post(path, headers={"Origin": core.url}).status_code == 200
    csrf = client.get("/me").json()["csrf"]
    assert client.post(path, headers={"X-CSRF-Token": csrf}).status_code == 200
    # A token meant for a page of ours does not help a foreign page that says what it is.
    problem(client.post(path, headers={"X-CSRF-Token": csrf, "Sec-Fetch-Site": "cross-site"}), 403, "auth.csrf")


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, None),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://core:8600", "host": "core:8600"}, True),
        ({"origin": "http://core:8601", "host": "core:8600"}, False),
        ({"origin": "null", "host": "core:8600"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://core:8600", "host": "core:8600"}, False),
    ],
)
def test_where_a_request_comes_from(headers: dict[str, str], own: bool | None) -> None:
    assert from_own_page(Headers(headers)) is own


def test_answers_carry_their_policy(viewer: httpx.Client) -> None:
    headers = viewer.get("/me").headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    first = load_key(tmp_path / "state")
    assert len(first) == 32 and load_key(tmp_path / "state") == first
    assert stat.S_IMODE((tmp_path / "state" / "session.key").stat().st_mode) == 0o600
    (tmp_path / "state" / "session.key").write_bytes(b"short")
    with pytest.raises(ValueError, match="shorter than 32 bytes"):
        load_key(tmp_path / "state")


def test_unknown_names_take_as_long_as_known_ones() -> None:
    known = passwords.hashed("Binhu-lake-7731")

    def seconds(password_hash: str | None) -> float:
        start = time.perf_counter()
        assert passwords.verify("not-the-one", password_hash) is False
        return time.perf_counter() - start

    unknown_s, known_s = min(seconds(None) for _ in range(3)), min(seconds(known) for _ in range(3))
    assert 0.4 < unknown_s / known_s < 2.5


def test_one_first_operator_when_two_processes_start(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as one, psycopg.connect(dsn, autocommit=True) as two:
        made = [ensure_first_operator(one), ensure_first_operator(two)]
        assert [password is None for password in made] == [False, True]
        count = one.execute("select count(*) from operator").fetchone()
    assert count == (1,)
