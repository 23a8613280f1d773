"""Evidence stills put together from their chunks; kept only if the hash is right and the picture is masked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from protocols.core.errors import ContractError
from protocols.uplink.batch import EvidenceChunk

MAX_EVIDENCE_BYTES = 8 << 20


def take(conn: Connection[Any], chunks: Sequence[EvidenceChunk]) -> None:
    """Raises ContractError ``evidence`` for what may not be stored (unmasked, too big, wrong hash)."""
    for chunk in chunks:
        ref = chunk.ref
        if not ref.masked:
            raise ContractError("an evidence picture that is not masked", reason="unmasked")
        if chunk.total_bytes > MAX_EVIDENCE_BYTES or chunk.offset_bytes + len(chunk.content) > chunk.total_bytes:
            raise ContractError("an evidence chunk outside its picture", reason="evidence")
        conn.execute(
            "insert into evidence (sha256, mime, kind, masked, size_bytes, device_id, ts)"
            " values (%s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0)) on conflict do nothing",
            (ref.sha256, ref.mime, ref.kind, ref.masked, chunk.total_bytes, chunk.device, chunk.ts_ms),
        )
        conn.execute(
            "insert into evidence_chunk values (%s, %s, %s) on conflict do nothing",
            (ref.sha256, chunk.offset_bytes, chunk.content),
        )
        _complete(conn, ref.sha256, chunk.total_bytes)


def _complete(conn: Connection[Any], sha256: str, total: int) -> None:
    row = conn.execute(
        "select sum(length(content)), string_agg(content, '' order by offset_bytes) from evidence_chunk"
        " where sha256 = %s",
        (sha256,),
    ).fetchone()
    if row is None or row[0] != total:
        return
    if hashlib.sha256(row[1]).hexdigest() != sha256:
        raise ContractError("an evidence picture that does not match its hash", reason="evidence_hash")
    conn.execute("update evidence set content = %s where sha256 = %s and content is null", (row[1], sha256))
    conn.execute("delete from evidence_chunk where sha256 = %s", (sha256,))
