"""What logging in, changing an account and using a token may be refused for."""

from __future__ import annotations

from protocols.core.errors import CityBrainError


class AuthError(CityBrainError):
    code = "auth"


class WrongPassword(AuthError):
    code = "auth.wrong"


class Locked(AuthError):
    """Too many failures; ``retry_s`` says for how long."""

    code = "auth.locked"

    def __init__(self, retry_s: int, why: str = "too many failures") -> None:
        super().__init__(f"locked for {retry_s} s: {why}")
        self.retry_s = retry_s


class WeakPassword(AuthError):
    code = "auth.weak"

    def __init__(self, reason: str) -> None:
        super().__init__(f"password refused: {reason}")
        self.reason = reason


class NameTaken(AuthError):
    code = "auth.name_taken"


class SecondFactorNeeded(AuthError):
    """The password is right and a code is still to come. ``pending`` stands for the password for five minutes."""

    code = "auth.second_factor"

    def __init__(self, pending: str) -> None:
        super().__init__("a code of the second factor is needed")
        self.pending = pending


class WrongCode(AuthError):
    """Wrong, used before, or of another minute; which of them is not said."""

    code = "auth.wrong_code"


class NoOperator(AuthError):
    code = "auth.no_operator"


class NotPossible(AuthError):
    """An account cannot be changed like that: ``reason`` says why, as a short word."""

    code = "auth.not_possible"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class AboveOwner(AuthError):
    """A token may not do what its owner may not."""

    code = "auth.token_above"


class SsoRefused(AuthError):
    """The provider's word was not good enough; ``reason`` is for the log and the audit, not for the browser."""

    code = "auth.sso"

    def __init__(self, reason: str) -> None:
        super().__init__(f"single sign-on refused: {reason}")
        self.reason = reason
