"""The wave machine: who is offered a change next, and when to stop. Pure: facts and the time go in, decisions come out.

```
 running ──▶ next wave when enough of this one have it ──▶ ... ──▶ done
    │ ▲
    │ └ resume ── paused, stopped (errors above the threshold, or success out of reach)
    └ abort ──▶ aborted: nobody else is offered it; who has not changed over yet is wanted back as he was
```
A gateway that is offline stays ``pending`` and is offered the change when it is back; what is said of a gateway is what
it reported itself.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec

from protocols.core.errors import ContractError

RolloutState = Literal["running", "paused", "stopped", "aborted", "done"]
MemberState = Literal[
    "pending",  # not offered yet
    "offered",  # wanted in its twin; no word from it
    "applying",  # it knows, and is at it
    "applied",
    "refused",
    "failed",
    "rolled_back",
    "timed_out",  # no outcome in time
    "superseded",  # somebody wanted something else of it meanwhile
    "cancelled",  # aborted before it had changed over
]
IN_FLIGHT: frozenset[MemberState] = frozenset({"offered", "applying"})
BAD: frozenset[MemberState] = frozenset({"refused", "failed", "rolled_back", "timed_out"})
NEUTRAL: frozenset[MemberState] = frozenset({"superseded", "cancelled"})
_TOLD: Mapping[str, MemberState] = {
    "received": "applying", "applying": "applying", "applied": "applied", "refused": "refused", "failed": "failed",
    "rolled_back": "rolled_back",
}  # fmt: skip
MAX_WAVES = 20

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``waves``: ``"5"`` gateways or ``"10%"`` of all, each counted from the start; the last one takes the rest."""

    waves: tuple[str, ...] = ("1%", "10%", "50%", "100%")
    success_pct: Percent = 90.0  # of a wave must have it before the next one begins
    error_pct: Percent = 10.0  # of a wave in error: beyond this the rollout stops by itself
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 50  # gateways at it at a time
    timeout_s: Annotated[int, msgspec.Meta(ge=10, le=30 * 86_400)] = 2 * 86_400  # offered, but no outcome
    patience_s: Annotated[int, msgspec.Meta(ge=0, le=30 * 86_400)] = (
        3600  # for how long a wave waits for who is offline
    )


@dataclass(frozen=True, slots=True)
class Rollout:
    state: RolloutState
    wave: int
    wave_at: datetime
    plan: Plan
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    gateway_id: str
    wave: int
    state: MemberState = "pending"
    version: int = 0
    detail: str = ""
    offered_at: datetime | None = None
    forgiven: bool = False  # its error was looked at by whoever resumed

    @property
    def bad(self) -> bool:
        return self.state in BAD and not self.forgiven


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a gateway: connected, the newest version wanted of it, and of which it said what."""

    online: bool
    wanted: int = 0
    version: int = 0
    state: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """``members``: all, as they are now. ``offer``: to be wanted the change now. ``restore``: the document before."""

    rollout: Rollout
    members: tuple[Member, ...]
    offer: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()


def check(plan: Plan) -> None:
    """Raises ContractError ``plan``."""
    if not 1 <= len(plan.waves) <= MAX_WAVES:
        raise ContractError(f"plan: 1 to {MAX_WAVES} waves", reason="plan")
    for wave in plan.waves:
        number = wave.removesuffix("%")
        if not number.isascii() or not number.isdecimal() or not int(number) or len(number) > 6:
            raise ContractError(
                f"plan: wave {wave[:20]!r}: a number of gateways, or a percentage as 10%", reason="plan"
            )
        if wave.endswith("%") and int(number) > 100:
            raise ContractError(f"plan: wave {wave!r}: more than all", reason="plan")


def cut(gateways: Iterable[str], plan: Plan, salt: str) -> list[Member]:
    """Who is in which wave. The order is a hash of ``salt`` and id: the same each time, and no district comes first."""
    check(plan)
    order = sorted(set(gateways), key=lambda g: hashlib.sha256(f"{salt}/{g}".encode()).digest())
    ends: list[int] = []
    for wave in plan.waves:
        count = math.ceil(len(order) * int(wave[:-1]) / 100) if wave.endswith("%") else int(wave)
        ends.append(max(count, ends[-1] if ends else 0))
    ends[-1] = len(order)
    members, wave_no = [], 0
    for place, gateway in enumerate(order):
        while place >= ends[wave_no]:
            wave_no += 1
        members.append(Member(gateway, wave_no))
    return members


def decide(rollout: Rollout, members: Sequence[Member], facts: Mapping[str, Fact], now: datetime) -> Decision:
    """One step: take in what the gateways said, then move on. Calling it twice with the same facts moves on once."""
    known = tuple(_heard(member, facts.get(member.gateway_id, Fact(False)), rollout.plan, now) for member in members)
    if rollout.state == "aborted":
        return _abort(rollout, known)
    if rollout.state != "running":
        return Decision(rollout, known)
    last = max((member.wave for member in known), default=0)
    for wave in range(rollout.wave + 1):
        if reason := _too_many_errors([m for m in known if m.wave == wave], rollout.plan, wave):
            return Decision(replace(rollout, state="stopped", reason=reason), known)
    reason = ""
    while True:
        of_wave = [m for m in known if m.wave == rollout.wave]
        passed = _passed(of_wave, facts, rollout, now)
        if not passed and of_wave and not any(m.state == "pending" or m.state in IN_FLIGHT for m in of_wave):
            reason = f"wave {rollout.wave + 1}: fewer than {rollout.plan.success_pct:g} % have it"
            return Decision(replace(rollout, state="stopped", reason=reason), known)
        if not passed or rollout.wave >= last:
            break
        rollout = replace(rollout, wave=rollout.wave + 1, wave_at=now)
    if not any(m.state == "pending" or m.state in IN_FLIGHT for m in known):
        return Decision(replace(rollout, state="done", reason=""), known)
    room = rollout.plan.concurrency - sum(m.state in IN_FLIGHT for m in known)
    ready = [
        m.gateway_id
        for m in known
        if m.state == "pending" and m.wave <= rollout.wave and facts.get(m.gateway_id, Fact(False)).online
    ]
    if not ready and not any(m.state in IN_FLIGHT for m in known):
        reason = "waits for gateways that are offline"
    return Decision(replace(rollout, reason=reason), known, tuple(ready[: max(0, room)]))


def _heard(member: Member, fact: Fact, plan: Plan, now: datetime) -> Member:
    """The member after what its gateway said last. An outcome that comes after the time was up still counts."""
    if member.state not in IN_FLIGHT and member.state != "timed_out":
        return member
    if fact.version == member.version and (told := _TOLD.get(fact.state)) is not None:
        if member.state != "timed_out" or told != "applying":
            member = replace(member, state=told, detail=fact.detail)
        if told != "applying":
            return member
    if fact.wanted > member.version:
        return replace(member, state="superseded", detail=f"version {fact.wanted} is wanted by now")
    waited = now - member.offered_at if member.offered_at is not None else timedelta()
    if member.state in IN_FLIGHT and waited > timedelta(seconds=plan.timeout_s):
        why = "no outcome in time" if fact.online else "no outcome in time; it is offline"
        return replace(member, state="timed_out", detail=why)
    return member


def _too_many_errors(of_wave: Sequence[Member], plan: Plan, wave: int) -> str:
    bad = sum(m.bad for m in of_wave)
    if bad and 100 * bad > plan.error_pct * len(of_wave):
        return f"wave {wave + 1}: {bad} of {len(of_wave)} in error, above {plan.error_pct:g} %"
    return ""


def _passed(of_wave: Sequence[Member], facts: Mapping[str, Fact], rollout: Rollout, now: datetime) -> bool:
    patient = now - rollout.wave_at < timedelta(seconds=rollout.plan.patience_s)
    counted = [
        m
        for m in of_wave
        if not (m.state in NEUTRAL or m.forgiven)
        and (patient or m.state != "pending" or facts.get(m.gateway_id, Fact(False)).online)
    ]
    have = sum(m.state == "applied" for m in counted)
    if not counted:
        return all(m.state in NEUTRAL or m.forgiven for m in of_wave)
    return have > 0 and 100 * have >= rollout.plan.success_pct * len(counted)


def _abort(rollout: Rollout, members: Sequence[Member]) -> Decision:
    restore = tuple(m.gateway_id for m in members if m.state in IN_FLIGHT)
    after = tuple(
        replace(m, state="cancelled", detail="wanted back as it was" if m.state in IN_FLIGHT else "never offered")
        if m.state in IN_FLIGHT or m.state == "pending"
        else m
        for m in members
    )
    return Decision(rollout, after, (), restore)
