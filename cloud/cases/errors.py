"""What a case refuses, in words an operator can act on: both languages, and what would be allowed instead."""

from __future__ import annotations

from collections.abc import Sequence

from protocols.core.errors import CityBrainError


class CaseError(CityBrainError):
    """``str()`` is English, ``zh`` the same in Chinese."""

    code = "case"

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.zh = zh


class CaseNotFound(CaseError):
    code = "case.not_found"

    def __init__(self, case: int | str) -> None:
        super().__init__(f"no case {case}", f"没有案件 {case}")


class IllegalAction(CaseError):
    """The state does not know this action; ``allowed`` are the actions it knows."""

    code = "case.illegal"

    def __init__(self, action: str, state: str, allowed: Sequence[str]) -> None:
        names = ", ".join(allowed)
        super().__init__(
            f"{action} is not possible in state {state}; allowed: {names or 'nothing, the case has ended'}",
            f"状态 {state} 下不能执行 {action}；可执行：{names or '无，案件已终结'}",
        )
        self.action = action
        self.state = state
        self.allowed = tuple(allowed)


class ReasonNeeded(CaseError):
    code = "case.reason"

    def __init__(self, action: str) -> None:
        super().__init__(f"{action} needs a reason", f"{action} 须填写理由")


class Refused(CaseError):
    """The action exists here, but not for this person, not now, or not once more."""

    code = "case.refused"


class CaseConflict(CaseError):
    """Somebody else has changed the case since it was read."""

    code = "case.conflict"

    def __init__(self, number: str, expected: int, actual: int) -> None:
        super().__init__(
            f"{number} has changed meanwhile (version {actual}, you saw {expected}): look again",
            f"{number} 已被他人更新（当前版本 {actual}，您看到的是 {expected}），请刷新后重试",
        )
        self.expected = expected
        self.actual = actual


class PolicyInvalid(CaseError):
    """A pack asks for a case that cannot be opened: unknown type, no process for its flow, a bad limit."""

    code = "case.policy"
