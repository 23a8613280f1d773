"""The two case flows as tables: which states there are, which action leads where, who acts, what needs a reason.

The moves themselves are drawn in ``bpmn/*.bpmn`` and executed from there; this table gives them their words and their
rules, and a test holds both against each other and against events.md section 4. What a drawing does not say (time
windows, counts, who may check) is in ``guards.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from protocols.core.model import Level

Actor = Literal["desk", "unit", "centre", "checker"]


@dataclass(frozen=True, slots=True)
class State:
    id: str
    zh: str
    en: str
    ended: bool = False  # nothing more is expected of anybody
    stopped: bool = False  # the three clocks stand still


@dataclass(frozen=True, slots=True)
class Action:
    """A move out of a state, with the words for its button."""

    id: str
    from_state: str
    to_state: str
    zh: str
    en: str
    actor: Actor
    reason: bool = False


@dataclass(frozen=True, slots=True)
class Flow:
    id: str
    first: str
    states: Mapping[str, State]
    moves: Mapping[tuple[str, str], Action]  # (state, action)

    def actions(self, state: str) -> list[Action]:
        return [move for (source, _), move in self.moves.items() if source == state]


#: Grade of an incident and so of the response to it, from the level (events.md section 2).
GRADE_OF_LEVEL: Mapping[Level, int] = {"red": 1, "orange": 2, "yellow": 3, "blue": 4, "info": 4}


def _flow(id: str, first: str, states: list[State], moves: list[Action]) -> Flow:
    return Flow(id, first, {s.id: s for s in states}, {(m.from_state, m.id): m for m in moves})


EVENT = _flow(
    "event",
    "reported",
    [
        State("reported", "上报", "Reported"),
        State("accepted", "受理", "Accepted"),
        State("filed", "立案", "Filed"),
        State("dispatched", "派遣", "Dispatched"),
        State("returned", "退回", "Returned"),
        State("mediated", "协调", "In mediation", stopped=True),
        State("in_progress", "处置中", "In progress"),
        State("suspended", "挂账", "Suspended", stopped=True),
        State("fed_back", "反馈", "Fed back"),
        State("checked", "核查", "Checked"),
        State("closed", "结案", "Closed", ended=True),
        State("reopened", "重新办理", "Reopened"),
        State("not_filed", "不予立案", "Not filed", ended=True),
        State("merged", "合并", "Merged", ended=True),
        # events.md names it, but no move of its table leads here; cases taken over from another system may be in it.
        State("void", "作废", "Void", ended=True),
    ],
    [
        Action("accept", "reported", "accepted", "受理", "Accept", "desk"),
        Action("not_file", "reported", "not_filed", "不予立案", "Do not file", "desk", reason=True),
        Action("merge", "reported", "merged", "合并", "Merge", "desk", reason=True),
        Action("file", "accepted", "filed", "立案", "File", "desk"),
        Action("not_file", "accepted", "not_filed", "不予立案", "Do not file", "desk", reason=True),
        Action("merge", "accepted", "merged", "合并", "Merge", "desk", reason=True),
        Action("dispatch", "filed", "dispatched", "派遣", "Dispatch", "desk"),
        Action("start", "dispatched", "in_progress", "到场处置", "Start on site", "unit"),
        Action("return", "dispatched", "returned", "退回", "Return", "unit", reason=True),
        Action("dispatch", "returned", "dispatched", "重新派遣", "Dispatch again", "desk"),
        Action("mediate", "returned", "mediated", "提请协调", "Mediate", "centre", reason=True),
        Action("dispatch", "mediated", "dispatched", "协调后派遣", "Dispatch as agreed", "centre"),
        Action("feed_back", "in_progress", "fed_back", "反馈结果", "Feed back", "unit"),
        Action("suspend", "in_progress", "suspended", "挂账缓办", "Suspend", "unit", reason=True),
        Action("resume", "suspended", "in_progress", "恢复处置", "Resume", "unit"),
        Action("check", "fed_back", "checked", "核查通过", "Check", "checker"),
        Action("send_back", "fed_back", "in_progress", "核查不通过", "Send back", "checker", reason=True),
        Action("close", "checked", "closed", "结案", "Close", "desk"),
        Action("send_back", "checked", "in_progress", "退回处置", "Send back", "desk", reason=True),
        Action("reopen", "closed", "reopened", "重新办理", "Reopen", "desk", reason=True),
        Action("dispatch", "reopened", "dispatched", "派遣", "Dispatch", "desk"),
    ],
)

_GRADES = {1: ("一级", "I"), 2: ("二级", "II"), 3: ("三级", "III"), 4: ("四级", "IV")}


def _responses() -> list[Action]:
    """From the confirmed incident into any grade, between the grades (down only with a reason), and to controlled."""
    moves = []
    for grade, (zh, en) in _GRADES.items():
        target = f"responding_{grade}"
        moves.append(Action(f"respond_{grade}", "confirmed", target, f"启动{zh}响应", f"Respond, grade {en}", "centre"))
        for other in _GRADES:
            if other != grade:
                source, lowers = f"responding_{other}", grade > other
                zh_verb, en_verb = ("降为", "Lower to") if lowers else ("升为", "Raise to")
                moves.append(
                    Action(
                        f"respond_{grade}",
                        source,
                        target,
                        f"{zh_verb}{zh}响应",
                        f"{en_verb} grade {en}",
                        "centre",
                        lowers,
                    )
                )
        moves.append(Action("control", target, "controlled", "险情受控", "Under control", "unit"))
    return moves


EMERGENCY = _flow(
    "emergency",
    "candidate",
    [
        State("candidate", "待核实", "Candidate"),
        State("confirmed", "已确认", "Confirmed"),
        *(State(f"responding_{n}", f"{zh}响应", f"Responding, grade {en}") for n, (zh, en) in _GRADES.items()),
        State("controlled", "已受控", "Controlled"),
        State("recovering", "恢复中", "Recovering"),
        State("reviewed", "已评估", "Reviewed"),
        State("closed", "结案", "Closed", ended=True),
        State("false_alarm", "误报", "False alarm", ended=True),
    ],
    [
        Action("confirm", "candidate", "confirmed", "确认", "Confirm", "desk"),
        Action("false_alarm", "candidate", "false_alarm", "误报", "False alarm", "desk", reason=True),
        Action("false_alarm", "confirmed", "false_alarm", "误报", "False alarm", "desk", reason=True),
        *_responses(),
        Action("recover", "controlled", "recovering", "转入恢复", "Recover", "unit"),
        Action("review", "recovering", "reviewed", "总结评估", "Review", "centre"),
        Action("close", "reviewed", "closed", "结案", "Close", "desk"),
    ],
)

FLOWS: Mapping[str, Flow] = {flow.id: flow for flow in (EVENT, EMERGENCY)}

ENDED: tuple[str, ...] = tuple(sorted({s.id for flow in FLOWS.values() for s in flow.states.values() if s.ended}))
