"""The gateways' own books, as they send them on ``up/account``, and the moment at which both books are compared.

An account says what a lane held when row n was its last one. The core compares at exactly that row: at once if it has
come that far, else when the lane passes it. So a lane that never rests is proved every minute, readings, events and
digest, without reading a single row again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from psycopg import Connection

from cloud.ingest.group import LaneKey, LaneTotals
from cloud.ledger import forgotten
from protocols.core.errors import ContractError
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.digest import add, to_signed
from protocols.uplink.topics import LANES

_LATEST_MS = 4_102_444_800_000  # 2100-01-01
_MOST_DROPS = 64  # reasons
_MOST_ENDED = 64  # lanes of epochs that are over
_MOST = 1 << 63


@dataclass(frozen=True, slots=True)
class LaneBook:
    """What the gateway says its lane held, in this epoch, when ``seq`` was its last row."""

    seq: int
    readings: int
    events: int
    digest: int


def compare(book: LaneBook, found: LaneTotals) -> str:
    """Of a lane that stands at the book's row: ``equal``, ``differs`` or ``not_comparable``."""
    if found.unproven:
        return "not_comparable"
    same = (
        found.readings + found.thinned == book.readings
        and found.events == book.events
        and add(found.digest, found.thinned_digest) == book.digest
    )
    return "equal" if same else "differs"


class Accounts:
    """Books not compared yet, one a lane at most. Lost with the worker: the next account comes within a minute."""

    def __init__(self) -> None:
        self._open: dict[LaneKey, LaneBook] = {}
        self._results: list[tuple[LaneKey, int, str]] = []

    def forget(self) -> None:
        """The transaction failed: what it compared is compared again."""
        self._results.clear()

    def forget_gateways(self, gateways: Iterable[str]) -> None:
        gone = set(gateways)
        self._open = {key: book for key, book in self._open.items() if key[0] not in gone}

    def take(self, conn: Connection[Any], gateway_id: str, payload: bytes) -> list[tuple[LaneKey, LaneBook]]:
        """Store an account; returns the lanes' books. Raises ContractError ``not_protobuf`` or ``account``."""
        account = pb.Account()
        try:
            account.ParseFromString(payload)
        except DecodeError as error:
            raise ContractError("the payload is no account", reason="not_protobuf") from error
        _check(account)
        place = (gateway_id, account.epoch)
        epoch(conn, gateway_id, account.epoch, account.previous_epoch, account.epoch_reason)
        fresh = conn.execute(
            "update outbox_epoch set accounted_at = to_timestamp(%s / 1000.0), account_heard_at = now()"
            " where gateway_id = %s and epoch = %s returning 1",
            (account.at_ms, *place),
        ).fetchone()
        assert fresh is not None  # noqa: S101 - made just before
        with conn.cursor() as cursor:
            cursor.executemany(
                # Accounts of one epoch only grow; one that says less is an old one that came late.
                "insert into lane_account as a (gateway_id, epoch, lane, seq, acked, readings, events, digest, thinned,"
                " oldest_at, waiting_bytes) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0), %s)"
                " on conflict (gateway_id, epoch, lane) do update set seq = excluded.seq, acked = excluded.acked,"
                " readings = excluded.readings, events = excluded.events, digest = excluded.digest,"
                " thinned = excluded.thinned, oldest_at = excluded.oldest_at, waiting_bytes = excluded.waiting_bytes"
                " where excluded.seq >= a.seq",
                [
                    (
                        *place, lane.lane, lane.seq, lane.acked, lane.readings, lane.events, to_signed(lane.digest),
                        lane.thinned, lane.oldest_ms or None, lane.waiting_bytes,
                    )
                    for lane in account.lanes
                ],
            )  # fmt: skip
            cursor.executemany(
                "insert into dropped_account as d (gateway_id, epoch, reason, readings, events)"
                " values (%s, %s, %s, %s, %s) on conflict (gateway_id, epoch, reason) do update set"
                " readings = excluded.readings, events = excluded.events, changed_at = now()"
                " where (d.readings, d.events) <> (excluded.readings, excluded.events)",
                [(*place, drop.reason[:64], drop.readings, drop.events) for drop in account.dropped],
            )
        forgotten.note(conn, gateway_id, account)
        return [
            ((*place, lane.lane), LaneBook(lane.seq, lane.readings, lane.events, lane.digest)) for lane in account.lanes
        ]

    def expect(self, key: LaneKey, book: LaneBook, found: LaneTotals) -> None:
        """A new book; ``found``: the lane as it stands in the running transaction."""
        if book.seq >= found.seq:
            self._open[key] = book
            self.passed(key, found)

    def waits(self, key: LaneKey) -> int:
        """The row at which this lane is to be compared; 0: none."""
        book = self._open.get(key)
        return book.seq if book is not None else 0

    def passed(self, key: LaneKey, found: LaneTotals) -> None:
        """The lane has come to ``found`` within the running transaction."""
        book = self._open.get(key)
        if book is not None and book.seq == found.seq:
            self._results.append((key, book.seq, compare(book, found)))

    def write(self, conn: Connection[Any]) -> None:
        """What was compared, in the transaction of the rows it was compared with."""
        if not self._results:
            return
        with conn.cursor() as cursor:
            cursor.executemany(
                "update lane_account set checked_seq = %s, checked_at = now(), content = %s"
                " where gateway_id = %s and epoch = %s and lane = %s",
                [(seq, content, *key) for key, seq, content in self._results],
            )

    def committed(self) -> None:
        for key, seq, _ in self._results:
            book = self._open.get(key)
            if book is not None and book.seq == seq:
                del self._open[key]
        self._results.clear()


def epoch(conn: Connection[Any], gateway_id: str, number: int, previous: int, reason: str) -> None:
    """A gateway says which life its outbox has, and perhaps why it began."""
    conn.execute(
        "insert into outbox_epoch as o (gateway_id, epoch, previous_epoch, reason) values (%s, %s, %s, %s)"
        " on conflict (gateway_id, epoch) do update set previous_epoch = excluded.previous_epoch,"
        " reason = excluded.reason where o.previous_epoch = 0 and o.reason = ''"
        " and (excluded.previous_epoch <> 0 or excluded.reason <> '')",
        (gateway_id, number, previous, reason.replace("\x00", "")[:32]),
    )


def _check(account: pb.Account) -> None:
    if not account.epoch or not 0 <= account.at_ms <= _LATEST_MS:
        raise ContractError("an account without an epoch or out of time", reason="account")
    names = [lane.lane for lane in account.lanes]
    if len(set(names)) != len(names) or not set(names) <= set(LANES):
        raise ContractError(f"an account of lanes {names[:8]}", reason="account")
    for lane in account.lanes:
        numbers = (lane.seq, lane.acked, lane.readings, lane.events, lane.thinned, lane.waiting_bytes)
        if max(numbers) >= _MOST or lane.acked > lane.seq or not 0 <= lane.oldest_ms <= _LATEST_MS:
            raise ContractError(f"an impossible account of lane {lane.lane}", reason="account")
    ended = {(lane.epoch, lane.lane) for lane in account.ended}
    if (
        len(ended) != len(account.ended)
        or len(ended) > _MOST_ENDED
        or any(
            not lane.epoch or lane.epoch == account.epoch or lane.lane not in LANES or lane.acked >= _MOST
            for lane in account.ended
        )
    ):
        raise ContractError("an impossible account of epochs that are over", reason="account")
    if len(account.dropped) > _MOST_DROPS or len({d.reason for d in account.dropped}) != len(account.dropped):
        raise ContractError("an account with too many reasons, or one twice", reason="account")
    if any("\x00" in d.reason or max(d.readings, d.events) >= _MOST for d in account.dropped):
        raise ContractError("an impossible count of what was dropped", reason="account")
