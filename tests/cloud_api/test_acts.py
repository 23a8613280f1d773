"""Taking alarms and moving cases through the API, and hearing of it live."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx

from tests.cloud_api import city
from tests.cloud_api.conftest import Core
from tests.cloud_api.test_problems import problem


def test_taking_an_alarm_twice_keeps_the_first(operator: httpx.Client, second_operator: httpx.Client) -> None:
    path = f"/alarms/{city.alarm_id('main-2')}/acknowledge"
    first = operator.post(path).json()
    assert (first["state"], first["acked_by"]) == ("acknowledged", "王敏")
    assert first["take_due"] is None
    again = second_operator.post(path).json()
    assert (again["acked_by"], again["acked_at"]) == ("王敏", first["acked_at"])
    problem(operator.post("/alarms/none/acknowledge"), 404, "not_found")


def act(client: httpx.Client, case: dict[str, Any], action: str, reason: str = "") -> httpx.Response:
    body = {"action": action, "reason": reason, "version": case["case"]["version"]}
    return client.post(f"/cases/{case['case']['case_id']}/actions", json=body)


def test_a_case_goes_its_whole_way_and_two_people_are_needed(
    core: Core, operator: httpx.Client, second_operator: httpx.Client
) -> None:
    with core.db() as conn:
        number = city.case_id(conn, "lane-1")
    case = operator.get(f"/cases/{number}").json()
    assert [a["name"] for a in case["actions"]] == ["accept", "not_file", "merge"]
    problem(act(operator, case, "not_file"), 422, "case.reason")
    body = problem(act(operator, case, "close"), 409, "case.illegal")
    assert body["allowed"] == ["accept", "not_file", "merge"] and "可执行" in body["zh"]
    for action, state in (("accept", "accepted"), ("file", "filed"), ("dispatch", "dispatched"),
                          ("start", "in_progress"), ("feed_back", "fed_back")):  # fmt: skip
        answer = act(operator, case, action)
        assert answer.status_code == 200, answer.text
        case = answer.json()
        assert case["case"]["state"] == state
    assert "check" not in [a["name"] for a in case["actions"]]  # nobody checks his own work
    problem(act(operator, case, "check"), 409, "case.refused")
    case = act(second_operator, case, "check").json()
    stale = dict(case)
    case = act(operator, case, "close").json()
    assert case["case"]["state"] == "closed" and case["case"]["closed_at"] is not None
    problem(act(operator, stale, "send_back", "late"), 409, "case.conflict")
    who = [(t["who"], t["to_state"]) for t in case["transitions"]]
    assert who[1:] == [("王敏", "accepted"), ("王敏", "filed"), ("王敏", "dispatched"), ("王敏", "in_progress"),
                       ("王敏", "fed_back"), ("李强", "checked"), ("王敏", "closed")]  # fmt: skip
    with core.db() as conn:
        kept = conn.execute("select count(*) from event where type like 'wf.%'").fetchone()
    assert kept is not None and int(str(kept[0])) == 7  # each move's event is stored with it


class Stream:
    """Reads server-sent events in the background."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.events: list[tuple[str, Any]] = []
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.wait(lambda kind, _: kind == "hello")

    def _read(self) -> None:
        # The stream has no end of its own: it stops with the server, in the middle of a chunk.
        with contextlib.suppress(httpx.HTTPError), self._client.stream("GET", "/stream", timeout=None) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for kind, data in _frames(answer.iter_lines()):
                with self._more:
                    self.events.append((kind, data))
                    self._more.notify_all()

    def wait(self, wanted: Any, timeout_s: float = 20) -> bool:
        with self._more:
            return self._more.wait_for(lambda: any(wanted(k, d) for k, d in self.events), timeout_s)


def _frames(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_the_stream_tells_what_changed(core: Core, viewer: httpx.Client, operator: httpx.Client) -> None:
    stream = Stream(viewer)
    alarm_id = city.alarm_id("crane-2")
    assert operator.post(f"/alarms/{alarm_id}/acknowledge").status_code == 200
    assert stream.wait(lambda k, d: k == "alarm" and d["id"] == alarm_id and d["alarm"]["state"] == "acknowledged")
    with core.db() as conn:
        conn.execute("select pg_notify('citybrain', 'no json')")
        conn.execute("""select pg_notify('citybrain', '{"kind": "weather", "id": 1}')""")
        conn.execute("""select pg_notify('citybrain', '{"kind": "device", "id": "baohe-camera-1"}')""")
        conn.execute("""select pg_notify('citybrain', '{"kind": "gateway", "id": "gw-baohe-01"}')""")
    assert stream.wait(lambda k, d: k == "device" and d["device"]["state"] == "online")
    assert stream.wait(lambda k, d: k == "gateway" and d["gateway"]["lost"] == 0)
    with core.db() as conn:
        # The listener's own connection dies: the stream says that something may have been missed, and goes on.
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and query ilike 'listen %'"
        )
    assert stream.wait(lambda k, _: k == "resync")
    with core.db() as conn:
        conn.execute("""select pg_notify('citybrain', '{"kind": "device", "id": "baohe-camera-2"}')""")
    assert stream.wait(lambda k, d: k == "device" and d["id"] == "baohe-camera-2")
