"""The audit log: entries written, sealed and verified per second.

The limits in the same run: the same rows written without an audit log around them (a bare insert each, grouped
commits),
and SHA-256 alone over the same leaf bytes: what no verification can be faster than.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from cloud.audit import Entry, heads, record
from cloud.audit.log import LEAF_COLUMNS, leaf_bytes
from cloud.audit.sequencer import Sequencer
from cloud.audit.verify import verify
from cloud.store.embedded import prepare
from cloud.store.migrate import migrate

ENTRIES, GROUP = 40_000, 100
T0 = 1_772_400_000_000


def _write(conn: psycopg.Connection[Any]) -> float:
    begun = time.perf_counter()
    for first in range(0, ENTRIES, GROUP):
        with conn.transaction():
            for number in range(first, first + GROUP):
                detail = {"from": "filed", "to": "dispatched", "reason": "管网巡查", "n": number}
                record(conn, Entry("王敏", "case.dispatch", f"case/{number}", detail))
    return time.perf_counter() - begun


def _bare(conn: psycopg.Connection[Any]) -> float:
    conn.execute("create table bare (id bigint generated always as identity, who text, action text, what text, d json)")
    begun = time.perf_counter()
    for first in range(0, ENTRIES, GROUP):
        with conn.transaction():
            for number in range(first, first + GROUP):
                detail = f'{{"from":"filed","n":{number},"reason":"管网巡查","to":"dispatched"}}'
                row = ("王敏", "case.dispatch", f"case/{number}", detail)
                conn.execute("insert into bare (who, action, what, d) values (%s, %s, %s, %s)", row)
    return time.perf_counter() - begun


def _seal(conn: psycopg.Connection[Any], folder: Path) -> tuple[float, heads.Signer]:
    signer = heads.load_signer(folder)
    sequencer = Sequencer(signer, folder, sign_every_s=0.0)
    done = passes = 0
    begun = time.perf_counter()
    while done < ENTRIES:
        done += sequencer.seal(conn, T0 + passes, passes) or 0
        passes += 1
    return time.perf_counter() - begun, signer


def _hash_alone(conn: psycopg.Connection[Any]) -> float:
    rows = conn.execute(f"select {LEAF_COLUMNS} from audit_entry e order by 1".encode()).fetchall()
    data = [b"\x00" + leaf_bytes(*row) for row in rows]
    begun = time.perf_counter()
    for one in data:
        hashlib.sha256(one).digest()
    return time.perf_counter() - begun


def measure(dsn: str, folder: Path) -> dict[str, object]:
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as conn:
        bare_s, write_s = _bare(conn), _write(conn)
        seal_s, signer = _seal(conn, folder)
        begun = time.perf_counter()
        report = verify(conn, [signer.verifier])
        verify_s = time.perf_counter() - begun
        hash_s = _hash_alone(conn)
    if not report.good or report.entries != ENTRIES:
        raise SystemExit(f"the log is not whole: {report.findings[:3]}")
    return {
        "what": "audit log: entries per second",
        "entries": ENTRIES,
        "written_per_s": round(ENTRIES / write_s),
        "bare_inserts_per_s": round(ENTRIES / bare_s),
        "sealed_per_s": round(ENTRIES / seal_s),
        "verified_rows_per_s": round(ENTRIES / verify_s),
        "sha256_alone_per_s": round(ENTRIES / hash_s),
        "cores": os.cpu_count(),
    }


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="citybrain-bench-audit-"))
    root.chmod(0o755)
    embedded = prepare(root / "pg")
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen(embedded.argv, stdout=log, stderr=log, user=embedded.user)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                migrate(embedded.dsn)
                break
            except Exception:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.1)
        print(json.dumps(measure(embedded.dsn, root / "state")))
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
