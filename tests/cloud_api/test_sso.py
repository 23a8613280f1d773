"""Single sign-on against a provider of our own on loopback: the right way in, and every forged one that stays out."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from fastapi import FastAPI, Request
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.responses import JSONResponse, RedirectResponse, Response

from cloud.app import create_app
from cloud.auth.errors import SsoRefused
from cloud.auth.sso_config import SsoGroup, SsoSettings
from cloud.auth.sso_provider import Provider as OurSide
from cloud.config import Settings, load
from protocols.core.errors import ConfigError
from tests.cloud_api.conftest import Core, add_operator, client_of, serving
from tests.cloud_api.test_problems import problem
from tests.fixtures.postgres import Postgres, new_database

CLIENT_ID = "citybrain"
CLIENT_SECRET = "s3cret of the client/+"
Claims = dict[str, Any]


@dataclass
class Provider:
    """An OpenID provider that logs in whoever ``user`` says, and lies where a test asks it to."""

    issuer: str = ""
    key: Any = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}))
    user: Claims = field(default_factory=dict)
    bend: Callable[[Claims], Claims] = field(default=lambda claims: claims)
    #: Makes the token's text out of header and claims; None: signed as it should be.
    sign: Callable[[Claims], str] | None = None
    grants: dict[str, Mapping[str, str]] = field(default_factory=dict)
    keys_asked: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        async def description() -> dict[str, Any]:
            paths = ("authorization_endpoint", "token_endpoint", "jwks_uri", "end_session_endpoint")
            return {"issuer": self.issuer} | {name: f"{self.issuer}/{name}" for name in paths}

        @app.get("/authorization_endpoint")
        async def authorize(request: Request) -> Response:
            asked = dict(request.query_params)
            assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
            code = base64.urlsafe_b64encode(hashlib.sha256(str(len(self.grants)).encode()).digest()).decode()
            self.grants[code] = asked
            back = httpx.URL(asked["redirect_uri"], params={"code": code, "state": asked["state"]})
            return RedirectResponse(str(back), 302)

        @app.post("/token_endpoint")
        async def token(request: Request) -> Response:
            form = {k: v[0] for k, v in parse_qs((await request.body()).decode()).items()}
            basic = httpx.BasicAuth(CLIENT_ID, "s3cret%20of%20the%20client%2F%2B")._auth_header
            asked = self.grants.pop(form["code"], None)
            wrong = (
                asked is None
                or request.headers.get("authorization") != basic
                or create_s256_code_challenge(form["code_verifier"]) != asked["code_challenge"]
                or form["redirect_uri"] != asked["redirect_uri"]
            )
            if wrong or asked is None:
                return JSONResponse({"error": "invalid_grant"}, 400)
            access = "access-token-1"
            half = hashlib.sha256(access.encode()).digest()[:16]
            now = int(time.time())
            claims: Claims = {
                "iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"],
                "at_hash": base64.urlsafe_b64encode(half).decode().rstrip("="),
            }  # fmt: skip
            claims = self.bend(claims | self.user)
            text = self.sign(claims) if self.sign else jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)
            return JSONResponse({"access_token": access, "token_type": "Bearer", "id_token": text})

        @app.get("/jwks_uri")
        async def keys() -> dict[str, Any]:
            self.keys_asked += 1
            return {"keys": [self.key.as_dict(private=False)]}

        return app


@dataclass
class House:
    core: Core
    provider: Provider
    serve: Callable[..., Any]


@pytest.fixture(scope="module")
def house(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    provider, folder = Provider(), tmp_path_factory.mktemp("sso")
    secret = folder / "client.secret"
    secret.write_text(CLIENT_SECRET + "\n")
    dsn = new_database(postgres)
    with serving(provider.app()) as issuer:
        provider.issuer = issuer

        def serve(**more: Any) -> Any:
            sso = SsoSettings(
                issuer=issuer, client_id=CLIENT_ID, client_secret_file=str(secret),
                redirect_url="http://127.0.0.1:1/login/sso/back",
                groups=(
                    SsoGroup(group="cb-duty", role="dispatcher"),
                    SsoGroup(group="cb-housing", role="clerk", department="housing", district="baohe"),
                ),
                **more,
            )  # fmt: skip
            return serving(create_app(Settings(dsn=dsn, state_dir=str(folder / "state"), console=False, sso=sso)))

        with serve() as url:
            core = Core(url, dsn, None, "")  # type: ignore[arg-type]
            add_operator(core, "sso-chief", "admin")
            yield House(core, provider, serve)


@pytest.fixture(autouse=True)
def honest(house: House) -> None:
    """Each test begins with a provider that tells the truth about one user."""
    house.provider.user = {"sub": "u-17", "preferred_username": "陈晨", "groups": ["cb-housing", "others"]}
    house.provider.bend = lambda claims: claims
    house.provider.sign = None


def walk(url: str, browser: httpx.Client, next_: str = "/alarms") -> str:
    """Through the provider and back; where the browser lands. The callback's address in the answer."""
    away = browser.get(f"{url}/login/sso", params={"next": next_})
    assert away.status_code == 303
    there = httpx.get(away.headers["location"])
    assert there.status_code == 302
    return f"{url}/login/sso/back?{urlsplit(there.headers['location']).query}"


def log_in(url: str, next_: str = "/alarms") -> tuple[httpx.Client, httpx.Response]:
    browser = httpx.Client(timeout=20)
    return browser, browser.get(walk(url, browser, next_))


def refused(answer: httpx.Response) -> bool:
    return answer.headers["location"] == "/login?sso=refused" and "citybrain_session" not in answer.cookies


def why(house: House) -> str:
    with house.core.db() as conn:
        row = conn.execute(
            "select detail ->> 'why' from audit_entry where action = 'login.failed' order by entry_id desc limit 1"
        ).fetchone()
    assert row is not None
    return str(row[0])


def waiting_account(house: House, name: str = "陈晨") -> None:
    chief = client_of(house.core, "sso-chief")
    with house.core.db() as conn:
        conn.execute("delete from operator where name = %s", [name])
    made = chief.post("/operators", json={"name": name, "role": "viewer", "sso": True})
    assert made.status_code == 201 and made.json()["password"] == ""


def test_from_the_provider_to_a_session_with_the_roles_of_the_groups(house: House) -> None:
    waiting_account(house)
    browser, answer = log_in(house.core.url)
    assert answer.status_code == 303 and answer.headers["location"] == "/alarms"
    cookie = answer.headers.get_list("set-cookie")
    session = next(c for c in cookie if c.startswith("citybrain_session="))
    assert "HttpOnly" in session and "SameSite=lax" in session
    me = browser.get(f"{house.core.url}/api/v1/me").json()
    assert (me["name"], me["role"], me["department"], me["district"], me["sso"]) == (
        "陈晨", "clerk", "housing", "baohe", True,
    )  # fmt: skip
    house.provider.user["groups"] = ["cb-duty", "cb-housing"]
    browser, _ = log_in(house.core.url)
    me = browser.get(f"{house.core.url}/api/v1/me").json()
    assert me["role"] == "dispatcher" and [g["department"] for g in me["more"]] == ["housing"]
    problem(
        browser.post(f"{house.core.url}/api/v1/password", json={"old": "!", "new": "Something-77"},
                     headers={"Sec-Fetch-Site": "same-origin"}),
        409, "auth.not_possible",
    )  # fmt: skip
    out = browser.get(f"{house.core.url}/login/sso/out")
    assert out.headers["location"].startswith(f"{house.provider.issuer}/end_session_endpoint?client_id=citybrain")
    with house.core.db() as conn:
        factor = conn.execute("select distinct factor from operator_session where name = '陈晨'").fetchall()
    assert factor == [("sso",)]


def test_who_is_in_no_group_or_unknown_stays_outside(house: House) -> None:
    with house.core.db() as conn:
        conn.execute("delete from operator where name = '陈晨'")
    assert refused(log_in(house.core.url)[1]) and "no account waits" in why(house)
    waiting_account(house)
    house.provider.user["groups"] = ["others"]
    assert refused(log_in(house.core.url)[1]) and "none of the groups" in why(house)
    house.provider.user["groups"] = ["cb-duty"]
    assert not refused(log_in(house.core.url)[1])
    # The account now belongs to that subject; another subject of the same name does not get it.
    house.provider.user["sub"] = "u-18"
    assert refused(log_in(house.core.url)[1])
    house.provider.user["sub"] = "u-17"
    with house.core.db() as conn:
        conn.execute("update operator set disabled = true where name = '陈晨'")
    assert refused(log_in(house.core.url)[1]) and "is shut" in why(house)
    # A local account of the same name is nobody's to take.
    house.provider.user |= {"sub": "u-19", "preferred_username": "sso-chief"}
    assert refused(log_in(house.core.url)[1])


def test_accounts_are_made_only_where_the_configuration_says_so(house: House) -> None:
    house.provider.user |= {"sub": "u-30", "preferred_username": "新人", "groups": ["cb-duty"]}
    with house.serve(provision=True) as url:
        browser, answer = log_in(url)
        assert not refused(answer)
        assert browser.get(f"{url}/api/v1/me").json()["role"] == "dispatcher"
        house.provider.user |= {"sub": "u-31", "preferred_username": "sso-chief"}
        assert refused(log_in(url)[1]) and "somebody else" in why(house)
        house.provider.user |= {"sub": "u-32", "preferred_username": "a b\n"}
        assert refused(log_in(url)[1]) and "usable name" in why(house)
        house.provider.user |= {"sub": "u-33", "preferred_username": "路人", "groups": []}
        assert refused(log_in(url)[1])


def _segment(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unsigned(claims: Claims) -> str:
    return f"{_segment({'alg': 'none', 'typ': 'JWT'})}.{_segment(claims)}."


def signed_with_the_clients_secret(claims: Claims) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_SECRET.ljust(64, "x")), algorithms=["HS256"])


def by_another_key(claims: Claims) -> str:
    return jwt.encode({"alg": "RS256", "kid": "one"}, claims, RSAKey.generate_key(2048))


def with_the_public_key_as_a_secret(house: House) -> Callable[[Claims], str]:
    """The old confusion of RS256 and HS256: the public key, which everybody has, used as a shared secret."""
    pem = house.provider.key.as_pem(private=False)

    def sign(claims: Claims) -> str:
        head, body = _segment({"alg": "HS256", "kid": "one"}), _segment(claims)
        mac = hmac.digest(pem, f"{head}.{body}".encode(), "sha256")
        return f"{head}.{body}.{_segment(mac)}"

    return sign


BENT: dict[str, Callable[[Claims], Claims]] = {
    "another audience": lambda c: c | {"aud": "another-client"},
    "many audiences and no authorised party": lambda c: c | {"aud": ["another-client"]},
    "another issuer": lambda c: c | {"iss": "https://evil.example"},
    "expired": lambda c: c | {"exp": int(time.time()) - 120},
    "from the future": lambda c: c | {"nbf": int(time.time()) + 3600},
    "no expiry": lambda c: {k: v for k, v in c.items() if k != "exp"},
    "another nonce": lambda c: c | {"nonce": "x" * 43},
    "no nonce": lambda c: {k: v for k, v in c.items() if k != "nonce"},
    "no subject": lambda c: {k: v for k, v in c.items() if k != "sub"},
    "hash of another access token": lambda c: c | {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    "an expiry that is no number": lambda c: c | {"exp": "tomorrow"},
}


@pytest.mark.parametrize("lie", BENT)
def test_bent_tokens_open_nothing(house: House, lie: str) -> None:
    waiting_account(house)
    house.provider.bend = BENT[lie]
    assert refused(log_in(house.core.url)[1]), lie
    assert why(house).startswith("sso: ID token"), why(house)


@pytest.mark.parametrize(
    "sign", [unsigned, signed_with_the_clients_secret, by_another_key, lambda c: "no.token.atall", lambda c: ""]
)
def test_forged_tokens_open_nothing(house: House, sign: Callable[[Claims], str]) -> None:
    waiting_account(house)
    house.provider.sign = sign
    asked = house.provider.keys_asked
    assert refused(log_in(house.core.url)[1]) and why(house).startswith("sso: ID token"), why(house)
    assert house.provider.keys_asked <= asked + 1  # a forger cannot make us hammer the provider


def test_the_public_key_is_no_secret(house: House) -> None:
    waiting_account(house)
    house.provider.sign = with_the_public_key_as_a_secret(house)
    assert refused(log_in(house.core.url)[1]) and why(house).startswith("sso: ID token"), why(house)


def test_state_code_and_browser_belong_together(house: House) -> None:
    waiting_account(house)
    browser = httpx.Client(timeout=20)
    back = walk(house.core.url, browser)
    # Brought by another browser, as in a forged log-in.
    assert refused(httpx.get(back)) and "no log-in was begun" in why(house)
    wrong_state = back.replace("state=", "state=x")
    kept = dict(browser.cookies)
    assert refused(browser.get(wrong_state)) and why(house) == "sso: state"
    browser.cookies.update(kept)
    assert not refused(browser.get(back))
    browser.cookies.update(kept)
    assert refused(browser.get(back)) and "used before" in why(house)  # replayed with everything it takes
    browser = httpx.Client(timeout=20)
    back = walk(house.core.url, browser)
    assert refused(browser.get(f"{back}&iss=https://evil.example")) and "another issuer" in why(house)
    browser = httpx.Client(timeout=20)
    back = walk(house.core.url, browser)
    assert refused(browser.get(back.partition("?")[0] + "?error=access_denied&" + back.rpartition("&")[2]))
    forged = httpx.Client(cookies={"citybrain_sso": "WyJ4Il0.forged"}, timeout=20)
    assert refused(forged.get(back))


def test_a_provider_that_is_away_is_said_so() -> None:
    settings = SsoSettings(issuer="http://127.0.0.1:1", client_id="x", redirect_url="http://127.0.0.1:1/login/sso/back")
    with pytest.raises(SsoRefused, match="ConnectError"):
        asyncio.run(OurSide(settings).description())


def test_where_to_afterwards_is_only_here(house: House) -> None:
    waiting_account(house)
    for next_ in ("https://evil.example/", "//evil.example", "/\\evil.example", "/login", "/api/v1/me", "/a\r\nb: c"):
        assert log_in(house.core.url, next_)[1].headers["location"] == "/"


def test_configuration_of_single_sign_on(tmp_path: Path) -> None:
    good = '[sso]\nissuer = "https://id.hefei.example"\nclient_id = "citybrain"\n'
    back = 'redirect_url = "https://core.hefei.example/login/sso/back"\n'
    path = tmp_path / "core.toml"
    path.write_text(f'dsn = "x"\n{good}{back}')
    assert load(path).sso is not None
    for text, word in (
        (good.replace("https", "http") + back, "issuer"),
        (good + back.replace("/login/sso/back", "/"), "redirect_url"),
        (good + back + "provision = true\n", "provision"),
        (good + back + 'scopes = ["profile"]\n', "openid"),
        (good + back + '[[sso.groups]]\ngroup = "x"\nrole = "king"\n', "king"),
        (good + back + '[[sso.groups]]\ngroup = "x"\nrole = "clerk"\ndepartment = "moon"\n', "moon"),
        (good + back + '[[sso.groups]]\ngroup = "x"\nrole = "service"\n', "service"),
    ):
        path.write_text(f'dsn = "x"\n{text}')
        with pytest.raises(ConfigError, match=word):
            load(path)
