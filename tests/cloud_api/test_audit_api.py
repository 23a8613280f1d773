"""The audit log and bulk work through the API: read by those who may, proven to those who doubt."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from cloud.audit import heads, merkle
from cloud.audit.heads import Verifier
from cloud.audit.proofs import check_proof
from tests.cloud_api import city
from tests.cloud_api.conftest import Core, add_operator, client_of
from tests.cloud_api.test_problems import problem
from tests.fixtures.wait import until


@pytest.fixture(scope="module")
def auditor(core: Core) -> Iterator[httpx.Client]:
    add_operator(core, "赵审", "auditor")
    client = client_of(core, "赵审")
    yield client
    client.close()


@pytest.fixture(scope="module")
def admin(core: Core) -> Iterator[httpx.Client]:
    add_operator(core, "孙管", "admin")
    client = client_of(core, "孙管")
    yield client
    client.close()


def test_deeds_are_in_the_log_sealed_and_proven(core: Core, operator: httpx.Client, auditor: httpx.Client) -> None:
    alarm = city.alarm_id("main-2")
    assert operator.post(f"/alarms/{alarm}/acknowledge").status_code == 200
    page = auditor.get("/audit", params={"action": "alarm.*", "what": alarm}).json()
    (entry,) = page["items"]
    assert (entry["who"], entry["action"], entry["what"]) == ("王敏", "alarm.acknowledge", f"alarm/{alarm}")
    path = f"/audit/{entry['entry_id']}/proof"
    proof = until(lambda: (a := auditor.get(path)).status_code == 200 and a.text, "the entry is sealed and signed")
    note = auditor.get("/audit/head").text
    state = auditor.get("/audit/state").json()
    assert (
        state["entries"] >= state["signed"] > 0
        and state["problem"] == ""
        and heads.read_head(note).size <= state["signed"]
    )
    keys = [Verifier.parse(auditor.get("/audit/key").text)]
    assert check_proof(proof, keys) == ""
    assert check_proof(proof.replace("王敏", "王洋"), keys)
    size = json.loads(proof)["size"]
    told = auditor.get("/audit/consistency", params={"old": 1, "new": size}).json()
    hashes = [bytes.fromhex(text) for text in told["path"]]
    roots = bytes.fromhex(told["old_root"]), bytes.fromhex(told["new_root"])
    assert merkle.check_consistency(1, size, *roots, hashes)


def test_case_moves_are_in_it_page_by_page(core: Core, operator: httpx.Client, auditor: httpx.Client) -> None:
    seen: list[int] = []
    cursor: str | None = None
    while True:
        params: dict[str, str | int] = {"limit": 7, "action": "case.*"}
        if cursor:
            params["cursor"] = cursor
        page = auditor.get("/audit", params=params).json()
        seen += [item["entry_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen, reverse=True) and len(seen) == len(set(seen)) > 7
    with core.db() as conn:
        row = conn.execute("select count(*) from case_transition").fetchone()
    assert row is not None and row[0] == len(seen)  # every transition, whoever or whatever made it
    logged = auditor.get("/audit", params={"who": "王敏", "action": "login"}).json()["items"]
    assert logged and all(item["who"] == "王敏" for item in logged)


def test_who_may_not_read_it(operator: httpx.Client, viewer: httpx.Client) -> None:
    for client in (operator, viewer):
        for path in ("/audit", "/audit/head", "/audit/state", "/audit/consistency?old=1", "/audit/1/proof"):
            problem(client.get(path), 403, "auth.forbidden")
        problem(client.get("/fleet/export/gateways"), 403, "auth.forbidden")
        problem(client.post("/fleet/import/gateways", content=b"gateway_id\n"), 403, "auth.forbidden")


def test_what_is_asked_wrongly(auditor: httpx.Client) -> None:
    problem(auditor.get("/audit/999999999/proof"), 404, "not_found")
    problem(auditor.get("/audit/consistency", params={"old": 1 << 40}), 422, "audit.size")
    problem(auditor.get("/audit", params={"cursor": "AAAA"}), 400, "contract.cursor")
    problem(auditor.get("/audit", params={"limit": 0}), 422, "invalid")


def test_tables_in_and_out(core: Core, admin: httpx.Client, auditor: httpx.Client) -> None:
    table = "网关编号,中文名,标签\ngw-bulk-1,=1+1,夜间\ngw-bulk-2,二号,夜间\n".encode("gbk")
    dry = admin.post("/fleet/import/gateways", params={"dry_run": True}, content=table).json()
    assert (dry["new"], dry["written"], dry["dry_run"]) == (2, False, True)
    done = admin.post("/fleet/import/gateways", content=table, headers={"content-type": "text/csv"}).json()
    assert (done["new"], done["written"], done["errors"]) == (2, True, [])
    out = admin.get("/fleet/export/gateways", params={"query": "tag:夜间"})
    assert out.text.startswith("\ufeff网关编号") and "'=1+1" in out.text  # no spreadsheet runs it
    assert out.headers["content-disposition"].startswith("attachment")
    assert admin.post("/fleet/import/gateways", content=out.content).json()["same"] == 2
    wrong = admin.post("/fleet/import/gateways", content="gateway_id,lon\nGW,999\n").json()
    assert not wrong["written"] and {error["column"] for error in wrong["errors"]} == {"gateway_id", "lon"}
    body = problem(admin.post("/fleet/import/gateways", content=b"colour\nred"), 422, "fleet.table")
    assert "未知的列" in body["zh"]
    problem(admin.post("/fleet/import/streets", content=b""), 422, "invalid")
    big = admin.post("/fleet/import/gateways", content=b"gateway_id\n" + b"x" * (9 << 20))
    assert big.status_code == 413
    with core.db() as conn:  # others count the gateways of this city
        conn.execute("delete from gateway where gateway_id like 'gw-bulk-%'")
    (entry,) = auditor.get("/audit", params={"action": "fleet.import", "limit": 1}).json()["items"]
    assert entry["who"] == "孙管" and entry["detail"]["same"] == 2


def test_questions_tags_and_groups(admin: httpx.Client) -> None:
    query = {"query": "id:gw-baohe-*,gw-shushan-*"}
    assert admin.get("/fleet/count/gateways", params=query).json() == {"picked": 2}
    assert admin.get("/fleet/count/devices", params={"query": "district:baohe type:camera"}).json() == {"picked": 2}
    body = problem(admin.get("/fleet/count/gateways", params={"query": "colour:red"}), 422, "fleet.query")
    assert "没有字段" in body["zh"]
    assert admin.post("/fleet/tags/gateways", json={**query, "add": ["south"]}).json() == {"picked": 2}
    assert admin.put("/fleet/groups/south", json={"kind": "gateways", "query": "tag:south"}).status_code == 204
    assert admin.get("/fleet/groups/south/members").json() == ["gw-baohe-01", "gw-shushan-01"]
    assert [group["members"] for group in admin.get("/fleet/groups").json() if group["name"] == "south"] == [2]
    assert admin.delete("/fleet/groups/south").status_code == 204
    problem(admin.delete("/fleet/groups/south"), 404, "not_found")
    problem(admin.put("/fleet/groups/south", json={"query": "colour:red"}), 422, "fleet.query")
    admin.post("/fleet/tags/gateways", json={**query, "remove": ["south"]})
