"""Codes, recovery codes, sessions and tokens: each opens what it should, once where it should, and never more."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from datetime import datetime
from typing import Any

import httpx
import pyotp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.auth.errors import Locked
from cloud.auth.second_factor import STEP_S, SecondFactor
from cloud.auth.throttle import Addresses, Strangers
from tests.cloud_api import city
from tests.cloud_api.conftest import NEW_PASSWORD, Core, add_operator, client_of, grant, reopen
from tests.cloud_api.test_problems import problem

FACTOR = SecondFactor(b"k" * 32)
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


@settings(max_examples=60)
@given(st.integers(10**6, 4 * 10**9), st.integers(-400, 400))
def test_a_code_is_good_for_its_step_and_one_beside_it(now_s: int, off_s: int) -> None:
    code = pyotp.TOTP(SECRET).at(now_s + off_s)
    step = FACTOR.step(SECRET, code, now_s)
    distance = (now_s + off_s) // STEP_S - now_s // STEP_S
    if abs(distance) <= 1:
        assert step is not None and pyotp.TOTP(SECRET).generate_otp(step) == code
    elif step is not None:  # one in a million codes is another step's as well
        assert pyotp.TOTP(SECRET).generate_otp(step) == code


@pytest.mark.parametrize(
    ("at_s", "code"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (2000000000, "279037")]
)
def test_vectors_of_rfc_6238(at_s: int, code: str) -> None:
    """RFC 6238 appendix B, SHA-1, the last six of its eight digits."""
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    assert FACTOR.step(secret, code, at_s) == at_s // STEP_S


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "12 34 5", "-12345", "1e5000"])
def test_what_is_no_code(code: str) -> None:
    assert FACTOR.step(SECRET, code, 1_700_000_000) is None


def test_a_sealed_secret_is_bound_to_its_owner_and_key() -> None:
    sealed = FACTOR.seal(SECRET, "王敏")
    code = pyotp.TOTP(SECRET).at(1_700_000_000)
    assert FACTOR.step_of(sealed, "王敏", code, 1_700_000_000) == 1_700_000_000 // STEP_S
    assert FACTOR.step_of(sealed, "李强", code, 1_700_000_000) is None
    assert SecondFactor(b"j" * 32).step_of(sealed, "王敏", code, 1_700_000_000) is None
    assert FACTOR.step_of(sealed[:-1] + b"x", "王敏", code, 1_700_000_000) is None
    assert FACTOR.step_of(b"", "王敏", code, 1_700_000_000) is None
    setup = FACTOR.setup("王敏", 1000.0)
    assert FACTOR.read_setup(setup.sealed, "王敏", 1599.0) == setup.secret
    assert FACTOR.read_setup(setup.sealed, "王敏", 1601.0) is None
    assert FACTOR.read_setup(setup.sealed, "李强", 1001.0) is None
    for bad in ("", "x", "é", urlsafe_b64encode(b"0" * 40).decode()):
        assert FACTOR.read_setup(bad, "王敏", 1001.0) is None
    assert FACTOR.setup("王敏", 1100.0, setup.sealed).secret == setup.secret  # a mistyped code does not start anew
    assert setup.qr.startswith("data:image/svg+xml") and "citybrain" in setup.uri


def test_addresses_are_slowed_and_forgiven_in_bounded_memory() -> None:
    brake = Addresses(3, refill_s=10.0, size=100)
    for _ in range(3):
        brake.check("10.0.0.1", 0.0)
        brake.failed("10.0.0.1", 0.0)
    with pytest.raises(Locked) as raised:
        brake.check("10.0.0.1", 0.0)
    assert raised.value.retry_s == 11
    brake.check("10.0.0.2", 0.0)
    brake.check("10.0.0.1", 10.0)
    brake.failed("10.0.0.1", 10.0)
    with pytest.raises(Locked):
        brake.check("10.0.0.1", 11.0)
    for number in range(500):
        brake.failed(f"10.1.{number // 256}.{number % 256}", 12.0)
    assert len(brake) == 100
    strangers = Strangers(size=10)
    for number in range(1000):
        strangers.count(f"name-{number}", 0.0)
    assert len(strangers._seen) == 10


class Telephone:
    """Makes codes of one secret, each of a step of its own, as if time went on."""

    def __init__(self, secret: str) -> None:
        self._totp = pyotp.TOTP(secret)
        self._step = 0

    def code(self) -> str:
        """Of now, or of the next step where now's was taken: within the drift that is forgiven."""
        self._step = max(self._step + 1, int(time.time()) // STEP_S - 1)
        return self._totp.generate_otp(self._step)


def enrol(client: httpx.Client) -> tuple[Telephone, list[str]]:
    setup = client.post("/me/second-factor").json()
    telephone = Telephone(setup["secret"])
    answer = client.post("/me/second-factor/confirm", json={"setup": setup["setup"], "code": telephone.code()})
    assert answer.status_code == 200, answer.text
    return telephone, answer.json()["codes"]


def log_in(core: Core, name: str, code: str = "") -> httpx.Response:
    body = {"name": name, "password": NEW_PASSWORD, "code": code}
    return httpx.post(f"{core.url}/api/v1/login", json=body, timeout=20)


def forget_failures(core: Core, name: str) -> None:
    with core.db() as conn:
        conn.execute("update operator set failed = 0, locked_until = null where name = %s", [name])


def test_the_second_factor_from_set_up_to_removal(core: Core) -> None:
    add_operator(core, "totp-1", "viewer")
    client, other = client_of(core, "totp-1"), client_of(core, "totp-1")
    setup = client.post("/me/second-factor").json()
    assert set(setup) == {"secret", "uri", "qr", "setup"}
    problem(client.post("/me/second-factor/confirm", json={"setup": setup["setup"], "code": "000000"}), 401,
            "auth.wrong_code")  # fmt: skip
    assert log_in(core, "totp-1").status_code == 200  # nothing was kept
    telephone, codes = enrol(client)
    assert len(set(codes)) == 10
    problem(other.get("/me"), 401, "auth.required")  # the other sessions ended
    assert client.get("/me").json()["second_factor"] is True
    problem(client.post("/me/second-factor"), 409, "auth.not_possible")
    with core.db() as conn:
        kept: Any = conn.execute(
            "select totp_secret, array(select code_hash from operator_recovery r where r.name = o.name) "
            "from operator o where name = 'totp-1'"
        ).fetchone()
    assert setup["secret"].encode() not in bytes(kept[0])
    assert not any(code.encode() in bytes(h) for code in codes for h in kept[1])

    problem(log_in(core, "totp-1"), 401, "auth.second_factor")
    code = telephone.code()
    assert log_in(core, "totp-1", code).status_code == 200
    problem(log_in(core, "totp-1", code), 401, "auth.wrong_code")  # taken once
    assert log_in(core, "totp-1", codes[0]).status_code == 200
    problem(log_in(core, "totp-1", codes[0]), 401, "auth.wrong_code")
    assert log_in(core, "totp-1", codes[1].upper().replace("-", " ")).status_code == 200
    with core.db() as conn:
        factors = conn.execute(
            "select factor from operator_session where name = 'totp-1' order by created_at desc limit 3"
        ).fetchall()
    assert factors == [("recovery",), ("recovery",), ("totp",)]

    problem(client.post("/me/second-factor/remove", json={"code": "000000"}), 401, "auth.wrong_code")
    renewed = client.post("/me/second-factor/codes", json={"code": codes[2]}).json()["codes"]
    problem(log_in(core, "totp-1", codes[3]), 401, "auth.wrong_code")  # replaced
    assert client.post("/me/second-factor/remove", json={"code": renewed[0]}).status_code == 204
    assert log_in(core, "totp-1").status_code == 200


def test_guessing_codes_locks_and_a_right_password_does_not_forgive_it(core: Core) -> None:
    add_operator(core, "totp-2", "viewer")
    telephone, _ = enrol(client_of(core, "totp-2"))
    for _ in range(5):
        problem(log_in(core, "totp-2"), 401, "auth.second_factor")
        problem(log_in(core, "totp-2", "000000"), 401, "auth.wrong_code")
    problem(log_in(core, "totp-2", telephone.code()), 429, "auth.locked")


def test_a_role_can_ask_for_the_second_factor(core: Core) -> None:
    grant(core, "must-1", "auditor", "housing")
    chief = _chief(core)
    asked = {r["role"]: r for r in chief.get("/roles").json()}
    before = asked["auditor"]["actions"]
    assert not any(r["second_factor"] for r in asked.values())
    assert chief.put("/roles/auditor", json={"actions": before, "second_factor": True}).status_code == 204
    try:
        client = client_of(core, "must-1")
        me = client.get("/me").json()
        assert me["must_enrol"] is True
        problem(client.get("/devices"), 403, "auth.must_enrol")
        _, codes = enrol(client)
        assert client.get("/devices").status_code == 200
        problem(client.post("/me/second-factor/remove", json={"code": codes[0]}), 409, "auth.not_possible")
    finally:
        assert chief.put("/roles/auditor", json={"actions": before, "second_factor": False}).status_code == 204
    assert chief.post("/operators/must-1/second-factor/reset").status_code == 204
    problem(client.get("/me"), 401, "auth.required")


def _chief(core: Core) -> httpx.Client:
    add_operator(core, "chief-2", "admin")
    return client_of(core, "chief-2")


def test_roles_change_at_once_and_for_every_process(core: Core) -> None:
    grant(core, "viewer-9", "viewer")
    chief, viewer = _chief(core), client_of(core, "viewer-9")
    assert viewer.get("/devices").status_code == 200
    actions = next(r["actions"] for r in chief.get("/roles").json() if r["role"] == "viewer")
    less = [a for a in actions if a != "view"]
    assert chief.put("/roles/viewer", json={"actions": less}).status_code == 204
    try:
        problem(viewer.get("/devices"), 403, "auth.forbidden")
    finally:
        assert chief.put("/roles/viewer", json={"actions": actions}).status_code == 204
    assert viewer.get("/devices").status_code == 200
    with core.db() as conn:  # another process changes a line
        conn.execute("delete from access_rule where role = 'viewer' and action = 'view'")
    problem(viewer.get("/devices"), 403, "auth.forbidden")
    with core.db() as conn:
        conn.execute("insert into access_rule values ('viewer', 'view')")
    assert viewer.get("/devices").status_code == 200
    problem(chief.put("/roles/admin", json={"actions": ["view"]}), 409, "auth.not_possible")


def test_access_changes_at_once_and_one_administrator_remains(core: Core) -> None:
    chief = _chief(core)
    grant(core, "mover", "clerk", "housing")
    mover = client_of(core, "mover")
    assert len(mover.get("/cases?limit=500").json()["items"]) > 0
    body = {"role": "clerk", "department": "sports", "more": [{"role": "viewer", "district": "luyang"}]}
    assert chief.put("/operators/mover/access", json=body).status_code == 204
    cases = mover.get("/cases?limit=500").json()["items"]
    assert cases and {c["department"] for c in cases} == {"operator"}  # of Luyang, as a viewer
    problem(chief.put("/operators/mover/access", json={"role": "clerk", "department": "nowhere"}), 422, "invalid")
    problem(chief.put("/operators/mover/access", json={"role": "service"}), 409, "auth.not_possible")
    problem(chief.put("/operators/nobody-here/access", json={"role": "viewer"}), 404, "not_found")
    problem(chief.put("/operators/chief-2/access", json={"role": "viewer"}), 409, "auth.self")
    assert chief.put("/operators/mover/access", json={"role": "clerk", "disabled": True}).status_code == 204
    problem(mover.get("/me"), 401, "auth.required")
    problem(log_in(core, "mover"), 401, "auth.wrong")
    forget_failures(core, "mover")
    assert chief.put("/operators/mover/access", json={"role": "clerk"}).status_code == 204
    assert log_in(core, "mover").status_code == 200


def test_sessions_are_listed_ended_and_fall_asleep(core: Core) -> None:
    add_operator(core, "sleeper", "viewer")
    one, two = client_of(core, "sleeper"), client_of(core, "sleeper")
    listed = one.get("/me/sessions").json()
    assert len(listed) == 2 and [s["current"] for s in listed].count(True) == 1
    assert {s["address"] for s in listed} == {"127.0.0.1"} and {s["factor"] for s in listed} == {"password"}
    other = next(s["session_id"] for s in listed if not s["current"])
    grant(core, "stranger-2", "viewer")
    problem(client_of(core, "stranger-2").delete(f"/me/sessions/{other}"), 404, "not_found")
    assert one.delete(f"/me/sessions/{other}").status_code == 204
    problem(two.get("/me"), 401, "auth.required")
    problem(one.delete(f"/me/sessions/{other}"), 404, "not_found")
    chief = _chief(core)
    mine = next(s for s in chief.get("/sessions").json() if s["name"] == "sleeper")
    assert chief.delete(f"/sessions/{mine['session_id']}").status_code == 204
    problem(one.get("/me"), 401, "auth.required")
    three = client_of(core, "sleeper")
    with core.db() as conn:
        conn.execute("update operator_session set seen_at = now() - interval '239 min' where name = 'sleeper'")
    assert three.get("/me").status_code == 200  # and that was use
    with core.db() as conn:
        awake = conn.execute(
            "select bool_or(seen_at > now() - interval '1 min') from operator_session where name = 'sleeper'"
        ).fetchone()
        conn.execute("update operator_session set seen_at = now() - interval '241 min' where name = 'sleeper'")
    assert awake == (True,)
    problem(three.get("/me"), 401, "auth.required")


def make_token(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/tokens", json={"label": "exchange", "actions": ["view"], "days": 30} | body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def with_token(core: Core, token: str) -> httpx.Client:
    return httpx.Client(base_url=f"{core.url}/api/v1", headers={"authorization": f"Bearer {token}"}, timeout=20)


def test_tokens_do_what_they_are_for_and_no_more(core: Core) -> None:
    grant(core, "owner", "operator")
    owner, chief = client_of(core, "owner"), _chief(core)
    made = make_token(owner, actions=["view", "alarm.acknowledge"])
    token = with_token(core, made["token"])
    assert token.get("/devices").status_code == 200
    assert token.post(f"/alarms/{city.alarm_id('noise-4')}/acknowledge").status_code == 200
    problem(token.get("/cases/1/actions"), 405, "method_not_allowed")
    problem(token.post("/cases/1/actions", json={"action": "accept", "version": 1}), 403, "auth.forbidden")
    problem(token.post("/tokens", json={"label": "more", "actions": ["view"]}), 403, "auth.forbidden")
    for path, body in (("/logout", None), ("/password", {"old": NEW_PASSWORD, "new": "Another-one-44"}),
                       ("/me/second-factor", None)):  # fmt: skip
        problem(token.post(path, json=body), 403, "auth.session_only")
    me = token.get("/me").json()
    assert me["actions"] == ["view", "alarm.acknowledge"] and me["csrf"] is None
    problem(owner.post("/tokens", json={"label": "x", "actions": ["audit.read"]}), 403, "auth.token_above")
    problem(owner.post("/tokens", json={"label": "x", "actions": ["token.manage"]}), 403, "auth.token_above")
    problem(chief.post("/tokens", json={"label": "x", "actions": ["operator.manage"]}), 403, "auth.token_above")
    problem(owner.post("/tokens", json={"label": "x", "actions": ["view"], "owner": "chief-2"}), 403,
            "auth.forbidden")  # fmt: skip
    problem(owner.post("/tokens", json={"label": "x", "actions": ["view"], "days": 400}), 422, "invalid")
    with core.db() as conn:
        stored = conn.execute("select t::text from api_token t where token_id = %s", [made["token_id"]]).fetchone()
    assert made["token"].rpartition("_")[2] not in str(stored)
    listed = owner.get("/tokens").json()
    assert [t["token_id"] for t in listed] == [made["token_id"]] and listed[0]["used_at"] is not None
    assert "token" not in listed[0]
    # Never above the owner: what he loses, it loses.
    assert chief.put("/operators/owner/access", json={"role": "viewer"}).status_code == 204
    problem(token.post(f"/alarms/{city.alarm_id('noise-4')}/acknowledge"), 403, "auth.forbidden")
    assert chief.put("/operators/owner/access", json={"role": "operator", "disabled": True}).status_code == 204
    problem(token.get("/devices"), 401, "auth.required")
    assert chief.put("/operators/owner/access", json={"role": "operator"}).status_code == 204
    assert token.get("/devices").status_code == 200
    problem(client_of(core, "chief-2").delete("/tokens/0000000000000000"), 404, "not_found")
    owner = client_of(core, "owner")
    assert owner.delete(f"/tokens/{made['token_id']}").status_code == 204
    problem(token.get("/devices"), 401, "auth.required")


def test_tokens_end_and_cannot_be_guessed(core: Core) -> None:
    grant(core, "owner-2", "viewer")
    owner = client_of(core, "owner-2")
    made = make_token(owner, days=1)
    left = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert abs(left.total_seconds() - 86_400) < 60
    good = made["token"]
    swapped = good[:-1] + ("A" if good[-1] != "A" else "B")
    for bad in (swapped, good[:-1], good + "A", "cbt_", "cbt__", f"cbt_{'0' * 16}_{'A' * 43}", good.upper()):
        problem(with_token(core, bad).get("/devices"), 401, "auth.required")
    # A cookie is for browsers and their rules against forged requests; a token is none.
    by_cookie = httpx.get(f"{core.url}/api/v1/me", cookies={"citybrain_session": good})
    problem(by_cookie, 401, "auth.required")
    with core.db() as conn:
        conn.execute("update api_token set expires_at = now() where token_id = %s", [made["token_id"]])
    problem(with_token(core, good).get("/devices"), 401, "auth.required")


def test_a_machine_has_no_log_in(core: Core) -> None:
    chief = _chief(core)
    made = chief.post("/operators", json={"name": "machine-2", "role": "service"})
    assert made.status_code == 201 and made.json()["password"] == ""
    for password in ("!", "", NEW_PASSWORD):
        answer = httpx.post(f"{core.url}/api/v1/login", json={"name": "machine-2", "password": password or "x"})
        problem(answer, 401, "auth.wrong")
    problem(chief.post("/operators/machine-2/reset"), 409, "auth.not_possible")


def test_evidence_is_opened_for_a_case_and_that_is_kept(core: Core) -> None:
    grant(core, "opener", "clerk", "street")
    opener, case = client_of(core, "opener"), reopen(core, "lane-1")
    with core.db() as conn:
        masked = conn.execute(
            "select evidence -> 0 ->> 'sha256' from alarm where alarm_id = %s", [city.alarm_id("lane-1")]
        ).fetchone()
        unmasked = conn.execute("select sha256 from evidence where not masked").fetchone()
        assert masked is not None and unmasked is not None
        conn.execute(
            "update alarm set evidence = evidence || jsonb_build_array(jsonb_build_object('sha256', %s::text, "
            "'kind', 'still', 'masked', false, 'mime', 'image/jpeg')) where alarm_id = %s",
            [unmasked[0], city.alarm_id("lane-1")],
        )
    path, reason = f"/evidence/{unmasked[0]}/open", "消防要求核对车牌"
    problem(opener.get(f"/evidence/{unmasked[0]}"), 403, "evidence.unmasked")
    for bad in ("", "   ", "x"):
        problem(opener.post(path, json={"case_id": case, "reason": bad}), 422, "invalid")
    problem(opener.post(path, json={"reason": reason}), 422, "invalid")
    answer = opener.post(path, json={"case_id": case, "reason": reason})
    assert answer.status_code == 200 and answer.content[:3] == b"\xff\xd8\xff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"].startswith("attachment")
    with core.db() as conn:
        other = city.case_id(conn, "lane-3")
        entry = conn.execute(
            "select who, what, detail from audit_entry where action = 'evidence.open' order by entry_id desc"
        ).fetchone()
    problem(opener.post(path, json={"case_id": other, "reason": reason}), 409, "evidence.not_of_case")
    assert entry is not None and entry[:2] == ("opener", f"evidence/{unmasked[0]}")
    detail = entry[2] if isinstance(entry[2], dict) else json.loads(str(entry[2]))
    assert detail["case"] == case and detail["reason"] == reason


def test_what_was_done_to_accounts_is_in_the_audit_log(core: Core) -> None:
    with core.db() as conn:
        before = conn.execute("select coalesce(max(entry_id), 0) from audit_entry").fetchone()
    chief = _chief(core)
    made = chief.post("/operators", json={"name": "audited", "role": "viewer", "district": "baohe"}).json()
    client = client_of(core, "audited", made["password"])
    changed = client.post("/password", json={"old": made["password"], "new": NEW_PASSWORD}).json()
    client.headers["authorization"] = f"Bearer {changed['token']}"
    enrol(client)
    token = make_token(client)
    client.delete(f"/tokens/{token['token_id']}")
    log_in(core, "audited", "000000")
    httpx.post(f"{core.url}/api/v1/login", json={"name": "audited\x1b[31m", "password": "x"})
    client.post("/logout")
    chief.put("/operators/audited/access", json={"role": "clerk", "department": "housing", "disabled": True})
    with core.db() as conn:
        rows = conn.execute(
            "select who, action, what, detail::text from audit_entry where entry_id > %s order by entry_id", before
        ).fetchall()
    told = [(who, action) for who, action, what, _ in rows if "audited" in str(what) or str(what).startswith("token/")]
    assert told == [
        ("chief-2", "operator.add"), ("audited", "login"), ("audited", "password.change"), ("audited", "login"),
        ("audited", "totp.enrol"), ("audited", "token.make"), ("audited", "token.revoke"),
        ("stranger", "login.failed"), ("stranger", "login.failed"), ("audited", "logout"),
        ("chief-2", "operator.access"), ("chief-2", "operator.disable"),
    ]  # fmt: skip
    text = json.dumps([[str(c) for c in row] for row in rows], ensure_ascii=False)
    assert made["password"] not in text and NEW_PASSWORD not in text and "\x1b" not in text
    assert token["token"].rpartition("_")[2] not in text
