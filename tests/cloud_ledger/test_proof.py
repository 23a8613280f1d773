"""`citybrain proof` on a gateway's real outbox and a real database: sound, and then spoiled by one row at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from citybrain_cli.main import main
from citybrain_cli.proof import broker
from citybrain_cli.proof.books import read_outbox
from cloud.ingest.committer import Committer
from cloud.ingest.group import Inbound
from cloud.ingest.rules import Rules
from edge.outbox import Outbox, Pending
from protocols.core.model import SeriesInfo
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.topics import LANES
from tests.cloud_ingest.site import T0_MS, columns, enrol, event

GATEWAY, SHARD = "gw-t-01", 3


class Line:
    """An outbox and a committer; what lies between them is this test."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.path = folder / "outbox.db"
        self.outbox = Outbox(self.path, now_ms=T0_MS)
        self.conn = psycopg.connect(dsn, autocommit=True)
        self.committer = Committer(self.conn, Rules([]), {}, lambda: T0_MS)
        self.ts_ms = T0_MS

    def feed(self, rows: int) -> None:
        aliases = [self.outbox.alias(SeriesInfo(f"meter-{n}", "power", "W", 1), 0) for n in range(2)]
        for _ in range(rows):
            self.ts_ms += 1000
            cut = columns([(alias, self.ts_ms, self.ts_ms % 997 + alias) for alias in aliases])
            self.outbox.commit(
                [Pending("data", cut), Pending("event", events=[event(self.ts_ms - T0_MS)])], now_ms=self.ts_ms
            )

    def drain(self, *, keep: int = 0, account: bool = True) -> None:
        """Everything but the last ``keep`` rows of each lane, straight to the committer."""
        said = [("state", pb.State(online=True, epoch=self.outbox.epoch).SerializeToString())]
        if account:
            totals = self.outbox.totals()
            lanes = [
                pb.LaneAccount(
                    lane=lane,
                    seq=own["seq"],
                    acked=own["acked"],
                    readings=own["readings"],
                    events=own["events"],
                    digest=own["digest"],
                )
                for lane, own in totals.items()
            ]
            book = pb.Account(epoch=self.outbox.epoch, at_ms=self.ts_ms, lanes=lanes)
            said.append(("account", book.SerializeToString()))
        for lane in LANES:
            rows = self.outbox.rows(lane, self.outbox.acked(lane), limit=10_000)
            said += [(lane, row.payload) for row in rows[: len(rows) - keep]]
        inbound = [Inbound(f"cb/v1/{SHARD}/{GATEWAY}/up/{channel}", payload, lambda: None) for channel, payload in said]
        for reply in self.committer.commit(self.conn, inbound):
            self.outbox.acknowledge(reply.ack.epoch, reply.ack.lane, reply.ack.committed)  # type: ignore[arg-type]


@pytest.fixture
def line(dsn: str, tmp_path: Path) -> Line:
    enrol(dsn, (GATEWAY, SHARD))
    return Line(dsn, tmp_path)


@pytest.fixture
def proof(line: Line, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    def run(*more: str, outbox: bool = True) -> tuple[int, dict[str, Any]]:
        where = ["--outbox", str(line.path), "--gateway", GATEWAY] if outbox else []
        code = main(["proof", "--dsn", line.dsn, *where, *more, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_sound_line_is_proved_by_outbox_or_by_account(
    line: Line, proof: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    line.feed(30)
    line.drain()
    for outbox in (True, False):
        code, found = proof(outbox=outbox)
        (gateway,) = found["gateways"]
        assert (code, found["sound"], gateway["problems"]) == (0, True, [])
        lanes = {lane["lane"]: lane for lane in gateway["lanes"] if lane["produced_rows"]}
        assert {name: lane["source"] for name, lane in lanes.items()} == dict.fromkeys(
            ("data", "event"), "outbox" if outbox else "account"
        )
        assert all(lane["content"] == "equal" for lane in lanes.values())
        figures = ("produced", "committed", "rows", "waiting_rows", "lost", "duplicated", "reordered")
        assert [gateway[name] for name in figures] == [60, 60, 60, 0, 0, 0, 0]
        assert not found["broker"]["looked"]


def test_rows_that_wait_are_named_and_nothing_is_missing(
    line: Line, proof: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    line.feed(10)
    line.drain(keep=4)
    code, found = proof()
    (gateway,) = found["gateways"]
    assert (code, gateway["waiting_rows"]) == (0, 8)
    assert {r for lane in gateway["lanes"] for r in lane["ranges"]} == {"rows 7-10 wait on the gateway"}


_DATA = "select ctid, tableoid from reading order by ts, series_id limit 1 offset 17"


@pytest.mark.parametrize(
    ("spoil", "problem", "figure"),
    [
        (f"delete from reading r using ({_DATA}) x where (r.ctid, r.tableoid) = (x.ctid, x.tableoid)",
         "1 rows fewer than were committed", ("lost", 1)),
        (f"insert into reading select r.* from reading r,({_DATA}) x where (r.ctid, r.tableoid) = (x.ctid, x.tableoid)",
         "1 rows more than were committed", ("duplicated", 1)),
        (f"update reading r set value = value + 0.1 from ({_DATA}) x where (r.ctid, r.tableoid) = (x.ctid, x.tableoid)",
         "as many rows as were committed, but other ones", ("lost", 0)),
        ("with gone as (delete from reading where ts = (select min(ts) from reading) returning *)"
         " insert into reading select * from gone", "2 rows were stored after newer ones of their series",
         ("reordered", 2)),
        ("update lane_cursor set digest = digest + 1 where lane = 'data'",
         "data: outbox and database differ at row 30", ("duplicated", 0)),
        ("update lane_cursor set seq = seq + 1 where lane = 'event'", "events: 1 rows unaccounted for", ("lost", 1)),
    ],
)  # fmt: skip
def test_one_row_spoiled_is_found_and_the_exit_code_says_so(
    line: Line,
    proof: Callable[..., tuple[int, dict[str, Any]]],
    spoil: str,
    problem: str,
    figure: tuple[str, int],
) -> None:
    line.feed(30)
    line.drain()
    line.conn.execute(spoil.encode())
    code, found = proof()
    (gateway,) = found["gateways"]
    assert code == 1 and problem in gateway["problems"], gateway["problems"]
    assert gateway[figure[0]] == figure[1]


def test_a_database_that_went_back_is_found_before_its_gateway_has_said_so(
    line: Line, proof: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    line.feed(30)
    line.drain(account=False)
    line.conn.execute("update lane_cursor set seq = 25, batches = 25 where lane = 'event'")
    code, found = proof("--books-only")
    (gateway,) = found["gateways"]
    assert (code, gateway["lost"], gateway["waiting_rows"]) == (1, 5, 0)
    assert gateway["problems"] == ["event: 5 rows had been acknowledged, are not there, and the core was not told yet"]
    (ranges,) = [lane["ranges"] for lane in gateway["lanes"] if lane["lane"] == "event"]
    assert ranges == ["rows 26-30 lost: acknowledged once and not here, no restore on record"]


def test_what_the_storage_policy_has_removed_is_not_called_lost(
    line: Line, proof: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    from cloud.audit.log import Entry, record

    line.feed(30)
    line.drain()
    line.conn.execute(
        "delete from reading where ts < (select percentile_disc(0.5) within group (order by ts) from reading)"
    )
    with line.conn.transaction():
        record(line.conn, Entry("system", "retention.remove", "reading", {"rows": 30}))
    code, found = proof()
    assert code == 0
    assert any("storage policy has removed" in note for note in found["gateways"][0]["notes"])


def test_the_text_says_it_in_plain_words(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    line.feed(5)
    line.drain()
    assert main(["proof", "--dsn", line.dsn]) == 0
    text = capsys.readouterr().out
    assert f"{GATEWAY}: readings 10 produced, 10 committed (10 rows in the table)" in text
    assert "nothing is missing without a reason 账目相符" in text
    assert main(["proof", "--dsn", line.dsn, "--gateway", "gw-nobody"]) == 2
    assert main(["proof", "--dsn", "host=/nonexistent dbname=x"]) == 1
    assert main(["proof", "--state", str(line.path.parent / "none")]) == 2


def test_an_outbox_that_is_no_database_is_an_error_and_none_is_none(tmp_path: Path, line: Line) -> None:
    assert read_outbox(tmp_path / "nothing.db") is None
    (tmp_path / "garbage.db").write_bytes(b"not a database at all" * 400)
    assert main(["proof", "--dsn", line.dsn, "--gateway", GATEWAY, "--outbox", str(tmp_path / "garbage.db")]) == 1


@pytest.mark.parametrize(
    ("page", "looked"),
    [
        (b"{}", True),
        (b"not json", False),
        (b"[]", False),
        (b'{"account_details": [{"stream_detail": [{"name": "$MQTT_msgs"}]}]}', False),
    ],
)
def test_a_monitoring_page_of_any_kind_is_survived(page: bytes, looked: bool) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        assert broker.look(f"http://127.0.0.1:{server.server_port}").looked is looked
    finally:
        thread.join(5)
        server.server_close()


def test_nobody_looks_at_a_broker_that_is_not_there() -> None:
    assert not broker.look("").looked
    assert not broker.look("file:///etc/passwd").looked
    assert not broker.look("http://127.0.0.1:1").looked
