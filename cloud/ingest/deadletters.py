"""What must not be stored, or cannot be opened: kept with its reason, as far as anybody will ever read it.

A gateway that sends nonsense for a month fills no disk: of each gateway and reason the first letters are kept, the
rest are counted. A batch of a newer agent is another matter, for a later core can read it: a far wider bound.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from psycopg import Connection

from cloud.ingest.group import Group, Inbound
from cloud.ledger.gaps import WHOLE_LANE, Piece
from protocols.core.errors import ContractError
from protocols.uplink import batch as wire
from protocols.uplink.topics import UpTopic

log = logging.getLogger("citybrain.cloud.ingest")

_LETTERS = 100
_LETTER_BYTES = 64 << 10
_ALL_BYTES = 4 << 20
_NEWER_LETTERS = 10_000
_NEWER_BYTES = 256 << 20
NEWER = "newer_version"


class DeadLetters:
    """``counts`` is the committer's, for the metrics."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def keep(
        self,
        conn: Connection[Any],
        group: Group,
        message: Inbound,
        topic: UpTopic | None,
        envelope: wire.Envelope | None,
        error: ContractError,
    ) -> int:
        """In the caller's transaction. ``topic`` None: from nobody we know. Returns how many letters of this gateway
        and reason there have been, this one counted."""
        reason = error.reason
        self._counts["dead_letters"] += 1
        self._counts[f"dead_letter_{reason}"] += 1
        gateway = topic.gateway if topic else ""
        most, most_bytes, letter = (
            (_NEWER_LETTERS, _NEWER_BYTES, wire.MAX_BATCH_BYTES)
            if reason == NEWER
            else (_LETTERS, _ALL_BYTES, _LETTER_BYTES)
        )
        payload = message.payload[:letter]
        row = conn.execute(
            "insert into dead_letter_tally as t (gateway_id, reason, letters, kept, kept_bytes, last_kept)"
            " values (%(g)s, %(r)s, 1, 1, %(b)s, true) on conflict (gateway_id, reason) do update set"
            " (letters, last_at, kept, kept_bytes, last_kept) = (select t.letters + 1, now(), n.kept + n.room::int,"
            " n.kept_bytes + n.room::int * %(b)s, n.room from (select s.*, s.kept < %(most)s"
            " and s.kept_bytes + %(b)s <= %(bytes)s as room from (select"
            # After a quiet day it is another story, and begins anew.
            " case when t.last_at < now() - interval '1 day' then 0 else t.kept end as kept,"
            " case when t.last_at < now() - interval '1 day' then 0 else t.kept_bytes end as kept_bytes) s) n)"
            " returning letters, last_kept",
            {"g": gateway, "r": reason, "b": len(payload), "most": most, "bytes": most_bytes},
        ).fetchone()
        letters, kept = (int(row[0]), bool(row[1])) if row else (1, True)
        if kept or not letters & (letters - 1):  # once full, the log hears of it at each power of two
            log.warning(
                "set aside (%d of its kind): %s: %s (%s, %d bytes)",
                letters, message.topic[:120], error, reason, len(message.payload),
            )  # fmt: skip
        if kept:
            conn.execute(
                "insert into dead_letter (topic, gateway_id, epoch, lane, seq, reason, detail, size_bytes, payload)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    message.topic[:500].replace("\x00", ""),
                    topic.gateway if topic else None,
                    envelope.epoch if envelope else None,
                    topic.channel if topic else None,
                    envelope.seq if envelope else None,
                    reason,
                    str(error)[:500].replace("\x00", ""),
                    len(message.payload),
                    payload,
                ),
            )
        if topic is not None and topic.lane is not None and envelope is not None:
            place = (topic.gateway, envelope.epoch, topic.lane)
            group.gaps.append(Piece(*place, "rejected", reason, WHOLE_LANE, envelope.seq, envelope.seq, 0))
        return letters
