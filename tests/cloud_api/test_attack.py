"""The API under attack: what the description allows and what it does not, as an administrator, a viewer and nobody.

Nothing may crash it (no 5xx), nothing may answer in a form the description does not know, and nothing on the table of
known tricks may get through. A core of its own, because an administrator who tries everything changes a lot.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cloud.api.limits import HEAD_MAX_BYTES, Hurried
from cloud.app import API, create_app
from cloud.auth.service import ensure_first_operator
from cloud.config import Settings
from tests.cloud_api.conftest import UNHURRIED, Core, add_operator, client_of, serving
from tests.fixtures.postgres import Postgres, new_database

#: Per operation; the administrator gets deepest, the others are mostly refused at the door.
EXAMPLES = {"fuzzer": 4, "looker": 3, "": 2}
#: An endless answer, and the end of the session that asks.
NOT_FUZZED = {"GET /stream", "POST /logout"}
CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def attacked(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    dsn = new_database(postgres)
    with psycopg.connect(dsn, autocommit=True) as conn:
        first = ensure_first_operator(conn)
        conn.execute("insert into gateway (gateway_id, shard, name_zh) values ('gw-1', 1, '甲')")
        conn.execute("insert into device (device_id, gateway_id) values ('d-1', 'gw-1')")
        conn.execute("insert into series (device_id, point) values ('d-1', 'pm10')")
    config = Settings(
        dsn=dsn, state_dir=str(tmp_path_factory.mktemp("state")), console=False, max_body_kb=64,
        login_failures_per_address=100_000,
        rates=UNHURRIED,
    )  # fmt: skip
    with serving(create_app(config)) as url:
        core = Core(url, dsn, None, first or "")  # type: ignore[arg-type]
        add_operator(core, "root-1", "admin")
        add_operator(core, "fuzzer", "admin")  # locks his own account by guessing at his password
        add_operator(core, "looker", "viewer")
        yield core


@pytest.mark.parametrize("who", ["fuzzer", "looker", ""])
def test_whatever_the_description_generates(who: str, attacked: Core) -> None:
    headers = {}
    if who:
        headers["authorization"] = client_of(attacked, who).headers["authorization"]
    schema = schemathesis.openapi.from_url(f"{attacked.url}{API}/openapi.json")
    asked = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if f"{operation.method.upper()} {operation.path.removeprefix(API)}" in NOT_FUZZED:
            continue
        asked += 1

        @settings(
            max_examples=EXAMPLES[who], deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def attack(case: Any) -> None:
            answer = case.call(base_url=attacked.url, headers=headers, timeout=20)
            switched_off = answer.status_code == 503 and answer.json()["code"].endswith(".off")
            assert answer.status_code < 500 or switched_off, answer.text
            case.validate_response(answer, checks=CHECKS)

        attack()
    assert asked > 40


def deep(levels: int) -> bytes:
    return b'{"name": ' + b"[" * levels + b"]" * levels + b', "password": "x"}'


#: what it is, method, path, headers, body, statuses that count as refused
TRICKS: tuple[tuple[str, str, str, dict[str, str], bytes, tuple[int, ...]], ...] = (
    ("path traversal", "GET", "/evidence/../../../../etc/passwd", {}, b"", (404, 422)),
    ("path traversal, encoded", "GET", "/evidence/..%2f..%2f..%2fetc%2fpasswd", {}, b"", (404, 422)),
    ("path traversal, doubly encoded", "GET", "/devices/%252e%252e%252fetc%252fpasswd", {}, b"", (404,)),
    ("path traversal in a device", "GET", "/devices/..%2f..%2fgateways", {}, b"", (404,)),
    ("SQL in an id", "GET", "/gateways/x'%20or%20'1'='1", {}, b"", (404,)),
    ("SQL in an id, stacked", "GET", "/gateways/x;drop%20table%20operator--", {}, b"", (404, 422)),
    ("SQL in a filter", "GET", "/devices?gateway=x'%20or%201=1--", {}, b"", (200,)),
    ("SQL in a search", "GET", "/devices?text=%25'%20union%20select%20password_hash%20from%20operator--", {}, b"",
     (200,)),
    ("SQL in an order", "GET", "/devices?order=id;select%201", {}, b"", (422,)),
    ("SQL in a cursor", "GET", "/alarms?cursor=JyBvciAxPTEtLQ", {}, b"", (400,)),
    ("a huge case", "GET", "/cases/99999999999999999999999", {}, b"", (422,)),
    ("a huge series", "GET", f"/series/{'9' * 400}/readings", {}, b"", (404, 422)),
    ("a negative case", "GET", "/cases/-1", {}, b"", (422,)),
    ("a case in another script", "GET", "/cases/%D9%A1%D9%A2", {}, b"", (404, 422)),
    ("NUL in an id", "GET", "/gateways/gw%00-1", {}, b"", (404, 422)),
    ("NUL in an alarm", "GET", "/alarms/%00", {}, b"", (404, 422)),
    ("NUL in a filter", "GET", "/devices?text=%00", {}, b"", (422,)),
    ("NUL in a name", "POST", "/login", {}, b'{"name": "ro\\u0000ot", "password": "x"}', (401, 422)),
    ("half a surrogate in a name", "POST", "/login", {}, b'{"name": "\\ud800", "password": "x"}', (401, 422)),
    ("half a surrogate in a password", "POST", "/login", {}, b'{"name": "x", "password": "\\udfff"}', (401, 422)),
    ("bytes that are no UTF-8", "POST", "/login", {}, b'{"name": "\xff\xfe", "password": "x"}', (400, 401, 422)),
    ("bytes that are no UTF-8 in a path", "GET", "/gateways/%ff%fe", {}, b"", (404, 422)),
    ("right-to-left marks in an id", "GET", "/gateways/%E2%80%AEgw", {}, b"", (404, 422)),
    ("JSON ten thousand deep", "POST", "/login", {}, deep(10_000), (400, 422)),
    ("JSON a hundred deep", "POST", "/login", {}, deep(100), (422,)),
    ("no JSON", "POST", "/login", {}, b"name=admin&password=x", (422,)),
    ("NaN", "POST", "/login", {}, b'{"name": NaN, "password": Infinity}', (422,)),
    ("a number of a million digits", "POST", "/cases/1/actions", {},
     b'{"action": "a", "version": ' + b"9" * 60_000 + b"}", (400, 422)),
    ("a key twice", "POST", "/login", {}, b'{"name": "x", "name": "y", "password": "x"}', (401,)),
    ("too many fields", "POST", "/login", {}, b'{"name": "x", "password": "x", "role": "admin"}', (422,)),
    ("another content type", "POST", "/login", {"content-type": "text/plain"}, b'{"name": "x", "password": "x"}',
     (415, 422)),
    ("XML", "POST", "/login", {"content-type": "application/xml"},
     b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', (415, 422)),
    ("too large", "POST", "/login", {}, b'{"name": "' + b"x" * 70_000 + b'"}', (413,)),
    ("method override, header", "POST", "/gateways/gw-1", {"x-http-method-override": "DELETE"}, b"", (405,)),
    ("method override, query", "POST", "/gateways/gw-1?_method=DELETE", {}, b"", (405,)),
    ("TRACE", "TRACE", "/gateways", {}, b"", (405,)),
    ("CONNECT as a method", "CONNEXT", "/gateways", {}, b"", (400, 405)),
    ("another host", "GET", "/gateways/none", {"host": "evil.example"}, b"", (404,)),
    ("forged address", "POST", "/login", {"x-forwarded-for": "1.2.3.4"}, b'{"name": "x", "password": "x"}', (401, 429)),
    ("two ways in", "GET", "/audit", {"authorization": "Bearer x", "cookie": "citybrain_session=x"}, b"", (401,)),
    ("a token of nothing", "GET", "/gateways", {"authorization": "Bearer "}, b"", (401,)),
    ("a token as a JSON Web Token without signature", "GET", "/gateways",
     {"authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."}, b"", (401,)),
    ("basic authentication", "GET", "/gateways", {"authorization": "Basic YWRtaW46YWRtaW4="}, b"", (401,)),
    ("a header of 20 000 bytes", "GET", "/gateways/none", {"x-long": "a" * 20_000}, b"", (404, 431)),
    ("a thousand levels in a path", "GET", "/devices/" + "a/" * 1000, {}, b"", (404, 414, 422)),
    ("a thousand parameters", "GET", "/alarms?" + "&".join(f"level=red{n}" for n in range(1000)), {}, b"", (422,)),
    ("a hundred thousand levels asked for", "GET", "/alarms?" + "level=red&" * 5000, {}, b"", (200, 414, 422)),
)  # fmt: skip


@pytest.fixture(scope="module")
def root(attacked: Core) -> Iterator[httpx.Client]:
    client = client_of(attacked, "root-1")
    yield client
    client.close()


@pytest.mark.parametrize(("what", "method", "path", "headers", "body", "refused"), TRICKS, ids=[t[0] for t in TRICKS])
def test_known_tricks(
    root: httpx.Client,
    attacked: Core,
    what: str,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    refused: tuple[int, ...],
) -> None:
    sent = {"content-type": "application/json", "authorization": root.headers["authorization"]} | headers
    answer = raw(attacked.url, method, API + path, sent, body)
    assert answer.status in refused, f"{what}: {answer.status} {answer.text[:300]}"
    if answer.status == 200:
        assert json.loads(answer.text)["items"] == []
    assert "root:" not in answer.text and "Traceback" not in answer.text and "password_hash" not in answer.text
    assert root.get("/me").status_code == 200  # it goes on


class Raw:
    def __init__(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        self.text = body.decode("utf-8", "replace")
        self.status = int(self.head.split(" ", 2)[1]) if self.head.startswith("HTTP/") else 0


def _connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def raw(url: str, method: str, path: str, headers: dict[str, str], body: bytes) -> Raw:
    """A request no well-behaved client would send."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in ({"host": "core"} | headers).items())]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    with _connect(url) as sock:
        sock.sendall("\r\n".join(lines).encode("latin-1") + body)
        return Raw(_read(sock))


def _read(sock: socket.socket) -> bytes:
    data = b""
    while True:
        try:
            more = sock.recv(65536)
        except ConnectionResetError:
            return data
        if not more:
            return data
        data += more


def test_header_injection_comes_back_as_text_or_not_at_all(attacked: Core) -> None:
    for path in (f"{API}/devices/x%0d%0aset-cookie:%20a=b", f"{API}/login?x=%0d%0ax-evil:%201"):
        answer = raw(attacked.url, "GET", path, {}, b"")
        assert answer.status in (401, 404, 405) and "x-evil" not in answer.head and "a=b" not in answer.head


def test_two_lengths_or_smuggled_requests_are_not_taken(attacked: Core) -> None:
    twice = (
        b"POST " + API.encode() + b"/login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 60\r\n\r\nhello"
    )
    both = (
        b"POST " + API.encode() + b"/login HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n"
        b"\r\n0\r\n\r\nGET " + API.encode() + b"/health HTTP/1.1\r\nhost: x\r\n\r\n"
    )
    for request in (twice, both):
        with _connect(attacked.url) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            data = _read(sock)
        assert b" 200 " not in data.split(b"\r\n", 1)[0] and b'"database":true' not in data


def test_a_body_without_a_length_is_cut_off_where_it_is_too_large(attacked: Core) -> None:
    with _connect(attacked.url) as sock:
        sock.sendall(
            f"POST {API}/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        data = b""
        try:
            for _ in range(64):
                sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        data = _read(sock)
    assert not data or Raw(data).status == 413


def test_slow_heads_and_endless_heads_are_dropped(attacked: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hurried, "head_s", 0.3)
    with _connect(attacked.url) as sock:
        sock.sendall(b"GET /api/v1/health HTTP/1.1\r\nhost: x\r\n")
        began = time.monotonic()
        assert _read(sock) == b""
        assert time.monotonic() - began < 10
    with _connect(attacked.url) as sock:  # the second request of a connection is not trusted more than its first
        sock.sendall(b"GET /api/v1/health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in sock.recv(65536)
        sock.sendall(b"GET /api/v1/health HTTP/1.1\r\nx-slow: ")
        assert b"200 OK" not in _read(sock)
    monkeypatch.setattr(Hurried, "head_s", 30.0)
    with _connect(attacked.url) as sock:
        sock.sendall(b"GET /api/v1/health HTTP/1.1\r\nhost: x\r\n")
        sent = 0
        try:
            while sent < 8 * HEAD_MAX_BYTES:
                sock.sendall(b"x-more: " + b"a" * 8000 + b"\r\n")
                sent += 8010
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert b"200 OK" not in _read(sock)
    assert httpx.get(f"{attacked.url}{API}/health").json()["database"] is True


def test_an_address_that_guesses_names_has_to_wait(postgres: Postgres, tmp_path_factory: Any) -> None:
    dsn = new_database(postgres)
    config = Settings(
        dsn=dsn, state_dir=str(tmp_path_factory.mktemp("state")), console=False, login_failures_per_address=4
    )
    with serving(create_app(config)) as url, httpx.Client(base_url=url + API, timeout=20) as client:
        answers = [client.post("/login", json={"name": f"n{n}", "password": "x"}) for n in range(6)]
    assert [a.status_code for a in answers] == [401] * 4 + [429] * 2
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 7


@pytest.mark.parametrize("path", ["/health", "/me", "/nowhere", "/devices"])
def test_every_answer_carries_its_headers(root: httpx.Client, path: str) -> None:
    for answer in (root.get(path), httpx.get(str(root.base_url) + path.removeprefix("/"))):
        headers = answer.headers
        assert headers["content-security-policy"] == (
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        )
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin" and "server" not in headers
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
