"""What the drawing of a flow does not say: time windows, counts, and that nobody checks his own work.

A guard gives the reason why an action, possible by the state, is refused now; None lets it pass. The same guards
decide which buttons a console offers and what an action is refused for.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloud.cases.calendar import calendar_of
from cloud.cases.errors import Refused
from cloud.cases.flows import Action
from cloud.cases.model import Case

DAY_MS = 86_400_000
REOPEN_MS = 7 * DAY_MS  # events.md section 4: closed -> reopened once, within 7 days
RETURN_SHARE = 0.1  # section 4: a unit returns a case within 10 % of its limit
RETURNS_BEFORE_MEDIATION = 2  # catalogue, ops_center/collab_management: return twice -> mediation


@dataclass(frozen=True, slots=True)
class Alarms:
    """The alarms of a case, as far as a check by the sensor needs them."""

    total: int
    cleared: int

    @property
    def all_cleared(self) -> bool:
        return self.total > 0 and self.cleared == self.total


def refusal(case: Case, action: Action, who: str | None, now_ms: int | None, alarms: Alarms | None) -> Refused | None:
    """Why not; what is not known (None: nobody in particular, no time) is taken for good."""
    if action.id == "return" and now_ms is not None:
        return _return(case, now_ms)
    if action.id == "dispatch" and case.state == "returned" and case.facts.returns >= RETURNS_BEFORE_MEDIATION:
        return Refused(
            "returned twice: the operation centre mediates before it is dispatched again",
            "案件已两次退回，须经中心协调后再派遣",
        )
    if action.id == "reopen":
        return _reopen(case, now_ms)
    if action.id == "check" and who is not None and alarms is not None:
        return _check(case, who, alarms)
    return None


def _return(case: Case, now_ms: int) -> Refused | None:
    since_ms = case.facts.dispatched_ms
    if since_ms is None:
        return None
    window_ms = case.facts.limits_ms["close"] * RETURN_SHARE
    if calendar_of(case.facts.around_the_clock).between(since_ms, now_ms) <= window_ms:
        return None
    minutes = round(window_ms / 60_000)
    return Refused(
        f"a case can be returned within 10 % of its limit ({minutes} min after dispatch)",
        f"退回须在派遣后时限的 10%（{minutes} 分钟）以内",
    )


def _reopen(case: Case, now_ms: int | None) -> Refused | None:
    if case.facts.reopened:
        return Refused("a case is reopened once", "案件只能重新办理一次")
    if now_ms is not None and case.closed_ms is not None and now_ms - case.closed_ms > REOPEN_MS:
        return Refused("a case is reopened within 7 days of closing", "结案超过 7 天，不能重新办理")
    return None


def _check(case: Case, who: str, alarms: Alarms) -> Refused | None:
    """Another person, or the sensor itself: every alarm of the case has cleared."""
    if alarms.all_cleared:
        return None
    if who.startswith("rule:"):
        return Refused("the sensor still reports it: a rule cannot check the case", "传感器告警未消除，不能自动核查")
    if who == case.facts.fed_back_by:
        return Refused(
            "who fed back does not check: another person does, or the sensor by clearing its alarm",
            "反馈人不能核查本案：须由他人核查，或由传感器告警消除佐证",
        )
    return None
