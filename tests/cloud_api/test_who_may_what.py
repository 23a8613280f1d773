"""The table of who may what, asked of the running API: every row is one person, one deed, one place, one answer.

``yes``: let through (what comes of it then is not asked here). ``no``: 403. ``hidden``: 404, as if it were not there.
``out``: 401. ``shown`` and ``not shown``: whether a list holds the thing.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from cloud.identity import claims
from protocols.core.errors import ConfigError
from tests.cloud_api import city
from tests.cloud_api.conftest import Core, a_core, client_of, grant, reopen
from tests.fixtures.postgres import Postgres

TABLE = Path(__file__).with_name("who_may_what.csv")
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))

#: name: role, department, district
PEOPLE = {
    "chief": ("admin", "*", "*"),
    "chief-of-baohe": ("admin", "*", "baohe"),
    "auditor": ("auditor", "*", "*"),
    "dispatcher": ("dispatcher", "*", "*"),
    "dispatcher-of-shushan": ("dispatcher", "*", "shushan"),
    "clerk-of-housing": ("clerk", "housing", "*"),
    "clerk-of-street-in-shushan": ("clerk", "street", "shushan"),
    "clerk-of-street-in-baohe": ("clerk", "street", "baohe"),
    "clerk-of-urban-mgmt": ("clerk", "urban_mgmt", "*"),
    "operator": ("operator", "*", "*"),
    "viewer": ("viewer", "*", "*"),
    "viewer-of-luyang": ("viewer", "*", "luyang"),
    "installer-of-baohe": ("installer", "*", "baohe"),
}
#: place: gateway, device, key of an alarm and its case
PLACES = {
    "baohe": ("gw-baohe-01", "baohe-tower-crane-2", "crane-2"),  # led by housing, urban_mgmt helps
    "shushan": ("gw-shushan-01", "shushan-camera-1", "lane-1"),  # led by street, urban_mgmt helps
    "luyang": ("gw-luyang-01", "luyang-main-pressure-2", "main-2"),  # no case
}


@pytest.fixture(scope="module")
def core(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """A city of its own: fifteen people try everything on the same few alarms and cases."""
    with a_core(postgres, tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def people(core: Core) -> Iterator[dict[str, httpx.Client]]:
    for _, _, key in (PLACES["baohe"], PLACES["shushan"]):
        reopen(core, key)
    clients = {"nobody": httpx.Client(base_url=f"{core.url}/api/v1", timeout=20)}
    for name, (role, department, district) in PEOPLE.items():
        grant(core, name, role, department, district)
        clients[name] = client_of(core, name)
    made = clients["chief"].post("/operators", json={"name": "machine", "role": "service", "district": "baohe"})
    assert made.status_code == 201 and made.json()["password"] == ""
    token = clients["chief"].post(
        "/tokens", json={"owner": "machine", "label": "weather exchange", "actions": ["view", "twin.read"], "days": 1}
    )
    assert token.status_code == 201, token.text
    headers = {"authorization": f"Bearer {token.json()['token']}"}
    clients["token-of-machine-in-baohe"] = httpx.Client(base_url=f"{core.url}/api/v1", headers=headers, timeout=20)
    yield clients
    for client in clients.values():
        client.close()


class World:
    def __init__(self, core: Core) -> None:
        self._core = core

    def case(self, place: str) -> int:
        with self._core.db() as conn:
            return city.case_id(conn, PLACES[place][2])

    def series(self, place: str) -> int:
        with self._core.db() as conn:
            row = conn.execute(
                "select min(s.series_id) from series s join device d using (device_id) where d.gateway_id = %s",
                [PLACES[place][0]],
            ).fetchone()
        assert row is not None and isinstance(row[0], int)
        return row[0]


Deed = Callable[[httpx.Client, World, str], httpx.Response]
DEEDS: dict[str, Deed] = {
    "see the gateway": lambda c, w, p: c.get(f"/gateways/{PLACES[p][0]}"),
    "see the device": lambda c, w, p: c.get(f"/devices/{PLACES[p][1]}"),
    "read a curve": lambda c, w, p: c.get(f"/series/{w.series(p)}/readings"),
    "see the alarm": lambda c, w, p: c.get(f"/alarms/{city.alarm_id(PLACES[p][2])}"),
    "take the alarm": lambda c, w, p: c.post(f"/alarms/{city.alarm_id(PLACES[p][2])}/acknowledge"),
    "see the case": lambda c, w, p: c.get(f"/cases/{w.case(p)}"),
    # A version nobody has seen: whoever gets 409 was let through, and nothing moved.
    "move the case": lambda c, w, p: c.post(f"/cases/{w.case(p)}/actions", json={"action": "accept", "version": 9999}),
    # A hash no case names: whoever gets 409 was let through.
    "open evidence": lambda c, w, p: c.post(
        f"/evidence/{'e' * 64}/open", json={"case_id": w.case(p), "reason": "the plate is needed"}
    ),
    "place the gateway": lambda c, w, p: c.put(f"/gateways/{PLACES[p][0]}/place", json={"district": p}),
    "claim the gateway": lambda c, w, p: c.post("/claims", json={"gateway": PLACES[p][0]}),
    # A name of its own each time: one that another had entered would be his.
    "claim a new gateway": lambda c, w, p: c.post("/claims", json={"gateway": f"gw-{uuid4()}", "district": p}),
    "read the twin": lambda c, w, p: c.get(f"/gateways/{PLACES[p][0]}/twin"),
    # No document: whoever gets 422 was let through.
    "write the twin": lambda c, w, p: c.post(f"/gateways/{PLACES[p][0]}/twin/config", json={}),
    # An order no device knows.
    "give an order": lambda c, w, p: c.post("/commands", json={"device": PLACES[p][1], "name": "no-such-order"}),
    "list operators": lambda c, w, p: c.get("/operators"),
    "change a role": lambda c, w, p: c.put("/roles/viewer", json={"actions": ["no-such-action"]}),
    "read the audit log": lambda c, w, p: c.get("/audit"),
    "make a token": lambda c, w, p: c.post("/tokens", json={"label": "x", "actions": []}),
    "see the summary": lambda c, w, p: c.get("/summary"),
}
LISTS: dict[str, tuple[str, Callable[[World, str], Any], str]] = {
    "list gateways": ("/gateways?limit=500", lambda w, p: PLACES[p][0], "gateway_id"),
    "list devices": ("/devices?limit=500", lambda w, p: PLACES[p][1], "device_id"),
    "list alarms": ("/alarms?limit=500", lambda w, p: city.alarm_id(PLACES[p][2]), "alarm_id"),
    "list cases": ("/cases?limit=500", lambda w, p: w.case(p), "case_id"),
    "list events": ("/events?limit=500", lambda w, p: f"e-{PLACES[p][2]}-raise", "event_id"),
}
ANSWERS = {401: "out", 403: "no", 404: "hidden"}


@pytest.mark.parametrize("who", ["nobody", *PEOPLE, "token-of-machine-in-baohe"])
def test_who_may_what(who: str, core: Core, people: dict[str, httpx.Client]) -> None:
    world, wrong = World(core), []
    for row in (r for r in ROWS if r["who"] == who):
        what, place = row["what"], row["place"]
        if what in LISTS:
            path, wanted, key = LISTS[what]
            answer = people[who].get(path)
            got = ANSWERS.get(answer.status_code, "")
            if not got:
                shown = any(item[key] == wanted(world, place) for item in answer.json()["items"])
                got = "shown" if shown else "not shown"
        else:
            answer = DEEDS[what](people[who], world, place)
            got = ANSWERS.get(answer.status_code, "yes")
        assert answer.status_code < 500, f"{row}: {answer.text}"
        if got != row["answer"]:
            wrong.append(f"{what} {place}: table says {row['answer']}, API says {got} ({answer.text[:120]})")
    assert not wrong, "\n".join(wrong)


def test_the_table_is_whole() -> None:
    """Each person is asked each deed somewhere, and each deed is both allowed and refused to somebody."""
    assert len(ROWS) >= 200
    assert len({(r["who"], r["what"], r["place"]) for r in ROWS}) == len(ROWS)
    assert {r["who"] for r in ROWS} == {"nobody", *PEOPLE, "token-of-machine-in-baohe"}
    assert {r["what"] for r in ROWS} == {*DEEDS, *LISTS}
    answers = Counter((r["what"], r["answer"] in ("yes", "shown")) for r in ROWS)
    assert all(answers[what, allowed] for what in (*DEEDS, *LISTS) for allowed in (True, False))


def test_a_still_is_shown_to_whoever_sees_an_alarm_that_names_it(core: Core, people: dict[str, httpx.Client]) -> None:
    """The camera stands in Shushan and the crane in Baohe: the picture belongs to both, and to the crane's case."""
    with core.db() as conn:
        row = conn.execute(
            "select evidence -> 0 ->> 'sha256' from alarm where alarm_id = %s", [city.alarm_id("crane-2")]
        ).fetchone()
    assert row is not None
    answers = {who: client.get(f"/evidence/{row[0]}").status_code for who, client in people.items()}
    allowed = {
        "chief", "chief-of-baohe", "auditor", "dispatcher", "dispatcher-of-shushan", "clerk-of-housing",
        "clerk-of-urban-mgmt", "operator", "viewer", "installer-of-baohe", "token-of-machine-in-baohe",
        "clerk-of-street-in-shushan",  # its own case's camera
    }  # fmt: skip
    assert {who for who, status in answers.items() if status == 200} == allowed
    assert {answers[who] for who in answers.keys() - allowed - {"nobody"}} == {404} and answers["nobody"] == 401


def test_claims_stay_in_the_district_they_were_made_for(core: Core, people: dict[str, httpx.Client]) -> None:
    """Whoever has one district names it; he renews what lies there; what was moved meanwhile is not his."""
    installer, chief = people["installer-of-baohe"], people["chief"]
    assert installer.post("/claims", json={"gateway": "gw-claim-1"}).status_code == 403  # of no district
    assert installer.post("/claims", json={"gateway": "gw-claim-1", "district": "baohe"}).status_code == 201
    assert installer.post("/claims/label", json={"gateway": "gw-claim-1"}).status_code == 201  # again: it lies there
    assert chief.post("/claims", json={"gateway": "gw-claim-2", "district": "shushan"}).status_code == 201
    seen = {row["gateway_id"] for row in installer.get("/claims").json()}
    assert "gw-claim-1" in seen and "gw-claim-2" not in seen
    assert {"gw-claim-1", "gw-claim-2"} <= {row["gateway_id"] for row in chief.get("/claims").json()}
    there = installer.post("/claims", json={"gateway": "gw-claim-1", "district": "shushan"})
    assert (there.status_code, there.json()["code"]) == (409, "identity.claim")
    with core.db() as conn:
        place = conn.execute("select district, department from gateway where gateway_id = 'gw-claim-1'").fetchone()
        said = conn.execute(
            "select detail ->> 'district' from audit_entry where what = 'gateway/gw-claim-1' order by entry_id"
        ).fetchall()
        # Looked up while it lay in Baohe, made after it was moved.
        conn.execute("update gateway set district = 'luyang' where gateway_id = 'gw-claim-1'")
        with pytest.raises(ConfigError, match="another district"):
            claims.make(conn, claims.Wanted("gw-claim-1", place=("baohe", "")), "x", datetime.now(UTC), 1.0)
    assert place == ("baohe", "") and said == [("baohe",), (None,)]
    assert installer.post("/claims", json={"gateway": "gw-claim-1", "district": "baohe"}).status_code == 404
