"""An operator as one request knows him: who, which roles held where, and what is still asked of him."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from cloud.auth.rules import NO_RULES, Grant, Rules

Role = Literal["admin", "auditor", "dispatcher", "clerk", "operator", "viewer", "installer", "service"]
#: In the order in which they are offered.
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Operator:
    name: str
    role: Role
    language: str
    must_change: bool
    department: str = "*"
    district: str = "*"
    more: tuple[Grant, ...] = ()  # beside the role, department and district of his own row
    second_factor: bool = False  # he has one
    disabled: bool = False
    sso: bool = False  # logs in with the OpenID provider; has no password here
    rules: Rules = field(default=NO_RULES, compare=False, repr=False)
    only: frozenset[str] | None = None  # an API token's actions; None: a log-in, which is not narrowed

    @property
    def grants(self) -> tuple[Grant, ...]:
        return (Grant(self.role, self.department, self.district), *self.more)

    @property
    def must_enrol(self) -> bool:
        """A role of his asks for a second factor and he has none. Whoever vouches for single sign-on asks for his."""
        return (
            not self.second_factor
            and not self.sso
            and self.only is None
            and any(grant.role in self.rules.second_factor for grant in self.grants)
        )

    @property
    def held_up(self) -> bool:
        """Logged in, but something is to be done before anything else is open."""
        return self.must_change or self.must_enrol
