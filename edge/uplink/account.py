"""The gateway's own books on the wire: state, account and will, so that the core can tell what it has not got."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from edge.outbox import Outbox
from protocols.uplink import uplink_pb2 as pb
from protocols.uplink.batch import WIRE_VERSION

#: reason: (readings, events) that never became a row since the agent started
Losses = Mapping[str, tuple[int, int]]


class Books:
    """``version``: of the agent. The session's name is made once: two that take turns are two boxes."""

    def __init__(self, outbox: Outbox, version: str) -> None:
        self._outbox = outbox
        self._version = version
        self.session = secrets.token_hex(8)

    def state(self, now_ms: int, *, online: bool, farewell: bool = False) -> bytes:
        return pb.State(
            online=online,
            farewell=farewell,
            epoch=self._outbox.epoch,
            at_ms=now_ms,
            agent_version=self._version,
            wire_version=WIRE_VERSION,
            previous_epoch=self._outbox.previous_epoch,
            epoch_reason=self._outbox.epoch_reason,
            session=self.session,
        ).SerializeToString()

    def account(self, now_ms: int, dropped: Losses) -> bytes:
        lanes = [
            pb.LaneAccount(
                lane=lane,
                seq=total["seq"],
                acked=total["acked"],
                readings=total["readings"],
                events=total["events"],
                digest=total["digest"],
                thinned=total["thinned"],
                oldest_ms=total["oldest_ms"],
                waiting_bytes=total["waiting_bytes"],
            )
            for lane, total in self._outbox.totals().items()
        ]
        return pb.Account(
            epoch=self._outbox.epoch,
            at_ms=now_ms,
            lanes=lanes,
            dropped=[
                pb.Dropped(reason=reason, readings=readings, events=events)
                for reason, (readings, events) in sorted(dropped.items())
                if readings or events
            ],
            previous_epoch=self._outbox.previous_epoch,
            epoch_reason=self._outbox.epoch_reason,
            session=self.session,
            ended=[
                pb.EndedLane(epoch=epoch, lane=lane, acked=acked)
                for epoch, own in self._outbox.ended().items()
                for lane, acked in own.items()
            ],
        ).SerializeToString()


#: Counters of the pipeline that say what never became a row, and their names on the wire.
_LOSING = (("dropped_memory", "memory_full"), ("unknown_device", "unknown_device"))


def losses(counters: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """From the pipeline's counters, which count readings; an event always becomes a row."""
    return {reason: (counters[name], 0) for name, reason in _LOSING if counters.get(name)}
