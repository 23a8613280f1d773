"""Every error has the same form, whoever finds it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.cloud_api.conftest import Core


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status and body["code"] == code and body["type"] == f"urn:citybrain:problem:{code}"
    return body


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nowhere", 404, "not_found"),
        ("/devices/not-there", 404, "not_found"),
        ("/devices?limit=0", 422, "invalid"),
        ("/devices?limit=501", 422, "invalid"),
        ("/devices?state=fine", 422, "invalid"),
        ("/devices?cursor=@@@", 400, "contract.cursor"),
        ("/alarms?cursor=WzFd", 400, "contract.cursor"),
        ("/events?cursor=WyJ4IiwgInkiXQ", 400, "contract.cursor"),
        ("/series/1/readings?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "range"),
        ("/series/1/readings?from=2020-01-02T00:00:00Z", 400, "range"),
        ("/series/99999999/readings", 404, "not_found"),
        ("/series/x/readings", 422, "invalid"),
        ("/cases/999999", 404, "not_found"),
        ("/alarms/none", 404, "not_found"),
        ("/gateways/none", 404, "not_found"),
    ],
)
def test_reads(viewer: httpx.Client, path: str, status: int, code: str) -> None:
    problem(viewer.get(path), status, code)


def test_method_and_body(core: Core, viewer: httpx.Client, operator: httpx.Client) -> None:
    problem(viewer.delete("/devices"), 405, "method_not_allowed")
    body = problem(operator.post("/cases/1/actions", json={"action": "accept"}), 422, "invalid")
    assert body["errors"][0]["where"] == ["body", "version"]
    problem(operator.post("/cases/1/actions", json={"action": "a", "version": 1, "more": 1}), 422, "invalid")
    problem(httpx.post(f"{core.url}/api/v1/login", content=b"{", headers={"content-type": "application/json"}),
            422, "invalid")  # fmt: skip


def test_a_refused_password_is_not_echoed(core: Core) -> None:
    answer = httpx.post(f"{core.url}/api/v1/login", json={"name": "", "password": "secret-of-somebody"})
    problem(answer, 422, "invalid")
    assert "secret-of-somebody" not in answer.text


def test_without_log_in(core: Core) -> None:
    for path in ("/devices", "/alarms", "/stream", "/evidence/" + "0" * 64, "/summary", "/operators"):
        answer = httpx.get(f"{core.url}/api/v1{path}")
        problem(answer, 401, "auth.required")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{core.url}/api/v1/health").json() == {"ok": True, "database": True, "live": True, "disk": "ok"}
