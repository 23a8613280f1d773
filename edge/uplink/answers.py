"""What the core's acknowledgements mean here: what may be deleted, what goes again, and when the epoch is over.

Two things end an epoch. The core asks again and again for rows that were deleted because it had them: its database came
back from a backup. Or it has rows that were never sent: an old copy of this outbox was put back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from google.protobuf.message import DecodeError

from edge.clock import Clock
from edge.outbox import NeverWritten, Outbox
from edge.uplink.sender import Sender
from protocols.core.errors import ContractError, StoreError
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.topics import LANES, Lane

log = logging.getLogger("citybrain.edge.uplink")

_FORGOT_TIMES = 3  # and for three timeouts
_READINGS: tuple[Lane, ...] = ("data", "backfill")
#: Reasons for which saying the declarations again would change nothing.
_DECLARED_ALL_THE_SAME = ("foreign_device", "newer_version")


class Answers:
    """One a connection. ``behind``, which outlives it: since when (ms) and how often the core has asked for what is
    gone, by lane. ``new_epoch`` says why the connection must begin anew, once an epoch has ended."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        clock: Clock,
        ack_timeout_s: float,
        rejected: Callable[[Lane, int, str], None],
        behind: dict[Lane, tuple[int, int]],
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._ack_timeout_s = ack_timeout_s
        self._rejected = rejected
        self._behind = behind
        self._ending_ms = 0  # since when nothing new goes, because the epoch is about to end; 0: it is not
        self._limits: dict[Lane, int] = {}
        self.new_epoch = ""
        self.not_kept = 0  # acknowledgements that the disk did not take

    async def take(self, payload: bytes, now_ms: int) -> bool:
        """One message of ``down/ack``; ``now_ms`` monotonic. True if the core has answered for this epoch."""
        ack = pb.Ack()
        try:
            ack.ParseFromString(payload)
            lane = _lane(ack.lane)
            if ack.epoch != self._outbox.epoch:
                await self._earlier(ack.epoch, lane, ack.committed)
                return False
            if ack.committed > self._outbox.sent(lane):
                raise NeverWritten(f"{lane} up to {ack.committed}", reason="ack")
            await asyncio.to_thread(self._outbox.acknowledge, ack.epoch, lane, ack.committed)
            self._notice_a_core_that_forgot(ack, lane, now_ms)
            await self._end_when_quiet(now_ms)
            if ack.rejected_seq:
                self._rejected(lane, ack.rejected_seq, ack.reason)
                if ack.reason not in _DECLARED_ALL_THE_SAME:
                    await asyncio.to_thread(self._outbox.declare_again, lane)
        except NeverWritten as error:
            log.error("the core has rows that were never sent (%s): an old copy of the outbox came back", error)
            await self._begin_again("restored", "an old copy of the outbox was put back; a new epoch begins")
            return False
        except (DecodeError, ContractError) as error:
            log.warning("an acknowledgement that makes no sense: %s", error)
            return False
        except StoreError as error:
            if not error.retry:
                raise
            self.not_kept += 1  # what it frees is sent again, and acknowledged again
            return False
        held = [(one.first, one.last) for one in ack.held if ack.committed < one.first <= one.last]
        self._sender.acknowledged(lane, ack.committed, resend=ack.resend, now_ms=now_ms, held=held)
        return True

    async def _earlier(self, epoch: int, lane: Lane, committed: int) -> None:
        """An answer for an epoch before this one: what the broker kept for us, or what was asked for."""
        if (epoch, lane) not in self._outbox.parked():
            return
        carried = await asyncio.to_thread(self._outbox.carry_over, epoch, lane, committed, self._clock.now_ms())
        log.info("the core has %s of epoch %d up to %d; %d rows go on in this epoch", lane, epoch, committed, carried)

    def _notice_a_core_that_forgot(self, ack: pb.Ack, lane: Lane, now_ms: int) -> None:
        """Its database came back from a backup: it asks for rows that were deleted here because it had them.

        An old acknowledgement, kept by the broker while we were away, says the same, once and not for long."""
        if not ack.resend or ack.committed >= self._outbox.acked(lane):
            self._behind.pop(lane, None)
            return
        since_ms, times = self._behind.get(lane, (now_ms, 0))
        self._behind[lane] = (since_ms, times + 1)
        if times >= _FORGOT_TIMES and now_ms - since_ms >= 3000 * self._ack_timeout_s:
            if self._ending_ms:
                return
            acked = self._outbox.acked(lane)
            log.error(
                "the core has %s up to %d, it had acknowledged %d: a new epoch begins", lane, ack.committed, acked
            )
            self._ending_ms = now_ms
            self._limits = {lane: self._outbox.sent(lane) for lane in _READINGS}
            self._sender.go_no_further(self._limits)

    async def _end_when_quiet(self, now_ms: int) -> None:
        """Lanes in which the core lost nothing still flow. What is on its way there must be acknowledged first, or it
        would go again in the new epoch and be there twice. (Events and pictures are known by what they are.)"""
        if not self._ending_ms:
            return
        if not self._behind:  # the broker had the rows after all
            self._ending_ms = 0
            self._sender.go_no_further({})
            return
        flows = [lane for lane in _READINGS if lane not in self._behind]
        quiet = all(self._outbox.acked(lane) >= self._limits[lane] for lane in flows)
        if quiet or now_ms - self._ending_ms >= 3000 * self._ack_timeout_s:
            why = "the core has lost what it had acknowledged; everything that waits goes in a new epoch"
            await self._begin_again("core_forgot", why)

    async def _begin_again(self, reason: str, why: str) -> None:
        def renew() -> None:
            self._outbox.begin_again(self._clock.now_ms(), reason, unknown=True)

        await asyncio.to_thread(renew)
        self.new_epoch = why


def _lane(name: str) -> Lane:
    for lane in LANES:
        if lane == name:
            return lane
    raise ContractError(f"no lane {name!r}", reason="ack")
