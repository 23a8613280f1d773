"""deploy/limits.md says what the code does, and names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloud.api import limits, routes_bulk, routes_identity
from cloud.audit import log
from cloud.auth.rates_config import RateSettings
from cloud.commands import service as commands
from cloud.config import Settings
from cloud.fleet import sheet
from cloud.ingest import evidence
from edge import order_socket
from edge.doctor import loglines
from protocols.uplink import batch, columns

ROOT = Path(__file__).parents[2]
RATES = RateSettings()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "deploy" / "limits.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"\| [^|]+ \| \d+ \|", line)
]
IN_CODE = {
    "MQTT message of a gateway": batch.MAX_BATCH_BYTES,
    "readings of a batch, unpacked": batch.MAX_BODY_BYTES,
    "readings in a batch": columns.MAX_READINGS,
    "a picture": evidence.MAX_EVIDENCE_BYTES,
    "a twin document": batch.MAX_DOCUMENT_BYTES,
    "arguments of an order": commands._MAX_ARGUMENTS_BYTES,
    "an order at the local socket": order_socket._MAX_LINE_BYTES,
    "body of an API request": Settings(dsn="x").max_body_kb * 1024,
    "a table over the API": routes_bulk.MAX_BODY,
    "a table at the command line": sheet.MAX_BYTES,
    "head of an API request": limits.HEAD_MAX_BYTES,
    "calls of an operator or API token, at once": RATES.caller_burst,
    "the same, each second": RATES.caller_per_s,
    "calls without a good token from one address, at once": RATES.stranger_burst,
    "the same from there, each second": RATES.stranger_per_s,
    "enrolments from one address, at once": RATES.enrol_burst,
    "enrolments, each second": RATES.enrol_per_s,
    "costly calls of one caller, at once": RATES.costly_burst,
    "costly calls, each minute": RATES.costly_per_min,
    "failed log-ins of one address, at once": Settings(dsn="x").login_failures_per_address,
    "body of an enrolment": routes_identity.MAX_BODY_BYTES,
    "detail of an audit entry": log.MAX_DETAIL_BYTES,
    "log lines a gateway keeps": loglines._MOST_BYTES,
}


def test_the_page_lists_each_limit_once() -> None:
    assert [re.sub(r" [^ -~]+$", "", row[0]) for row in ROWS] == list(IN_CODE)


@pytest.mark.parametrize(("row", "number"), zip(ROWS, IN_CODE.values(), strict=False), ids=lambda part: str(part)[:40])
def test_the_page_says_what_the_code_does(row: list[str], number: float) -> None:
    assert int(row[1]) == number and (ROOT / row[3].strip("`")).exists()
