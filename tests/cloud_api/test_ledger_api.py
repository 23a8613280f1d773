"""The ledger over the API: pages, one gateway, and only what the caller may see."""

from __future__ import annotations

from contextlib import closing

import httpx

from tests.cloud_api.conftest import Core, client_of, grant
from tests.cloud_api.test_reads import pages


def test_small_pages_of_the_ledger_give_the_same_list_as_one(viewer: httpx.Client) -> None:
    found = pages(viewer, "/ledger", limit=500)
    assert found and pages(viewer, "/ledger", limit=1) == found
    assert {one["state"] for one in found} <= {"complete", "unknown", "waiting", "explained", "missing"}
    for one in found:
        assert all(finding["zh"] and finding["en"] for finding in one["findings"])


def test_one_gateway_with_its_lanes_and_none_that_is_not_there(viewer: httpx.Client) -> None:
    gateway = pages(viewer, "/gateways")[0]["gateway_id"]
    answer = viewer.get(f"/gateways/{gateway}/ledger")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["gateway"]["gateway_id"] == gateway
    assert {lane["gateway_id"] for lane in body["lanes"]} <= {gateway}
    assert viewer.get("/gateways/gw-nobody/ledger").status_code == 404
    assert viewer.get("/ledger", params={"days": -1}).status_code == 422
    assert viewer.get("/ledger", params={"cursor": "nonsense"}).status_code in (400, 422)


def test_nobody_reads_it_without_a_log_in(core: Core) -> None:
    url = core.url
    assert httpx.get(f"{url}/api/v1/ledger").status_code == 401


def test_who_sees_one_district_sees_its_ledger_alone(core: Core, viewer: httpx.Client) -> None:
    everything = pages(viewer, "/ledger", limit=500)
    with core.db() as conn:
        rows = conn.execute("select gateway_id, district from gateway order by gateway_id").fetchall()
    district = rows[0][1]
    mine = {gateway for gateway, its in rows if its == district}
    grant(core, "ledger-district", "viewer", district=district)
    with closing(client_of(core, "ledger-district")) as client:
        seen = {one["gateway_id"] for one in pages(client, "/ledger", limit=500)}
        assert seen == mine < {one["gateway_id"] for one in everything}
        other = next(gateway for gateway, its in rows if its != district)
        assert client.get(f"/gateways/{other}/ledger").status_code == 404
