"""Casbin's part: whether a role, held for a place, allows an action on a thing that belongs to a place.

RBAC with domains. The policy lines are (role, action) out of the tables ``access_role`` and ``access_rule``; what an
operator holds (role, department, district) comes with him on each request, so a grant that is taken away is gone at
once and no process has to be told. Lines change rarely: a counter in the database says when to read them again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import casbin  # type: ignore[import-untyped]
from casbin.model import Model  # type: ignore[import-untyped]

ANY = "*"

_MODEL = """
[request_definition]
r = role, held_department, held_district, action, departments, district

[policy_definition]
p = role, action

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = r.role == p.role && (p.action == "*" || r.action == p.action) && \
within(r.held_department, r.held_district, r.departments, r.district)
"""
_MEMO_MAX = 20_000
logging.getLogger("casbin").setLevel(logging.WARNING)  # it tells its model at every start


@dataclass(frozen=True, slots=True)
class Grant:
    """A role held for a place; ``*`` is any department or district."""

    role: str
    department: str = ANY
    district: str = ANY

    @property
    def city_wide(self) -> bool:
        return self.department == ANY and self.district == ANY


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a thing belongs. Nothing in it: to the city as a whole, so only city-wide grants reach it.

    ``departments`` own or lead it; ``support`` help with it and therefore see it, no more.
    """

    departments: frozenset[str] = frozenset()
    district: str = ""
    support: frozenset[str] = field(default_factory=frozenset)


CITY = Scope()


def within(held_department: str, held_district: str, departments: Iterable[str], district: str) -> bool:
    """Whether a grant for a place reaches a thing's place; the SQL function ``within_grants`` says the same of rows."""
    return (held_department == ANY or (held_department != "" and held_department in departments)) and (
        held_district == ANY or (held_district != "" and held_district == district)
    )


class Rules:
    """The policy lines of one moment. Not changed once made: a new version is a new object."""

    def __init__(
        self, lines: Iterable[tuple[str, str]], *, version: int = 0, second_factor: Iterable[str] = ()
    ) -> None:
        model = Model()
        model.load_model_from_text(_MODEL)
        self._enforcer: Any = casbin.Enforcer(model)
        self._enforcer.add_function("within", within)
        self.lines = frozenset(lines)
        for role, action in sorted(self.lines):
            self._enforcer.add_policy(role, action)
        self.version = version
        self.second_factor = frozenset(second_factor)
        self._memo: dict[tuple[Grant, str, frozenset[str], str], bool] = {}

    def allows(self, grant: Grant, action: str, scope: Scope) -> bool:
        departments = scope.departments | scope.support if action == "view" else scope.departments
        key = (grant, action, departments, scope.district)
        known = self._memo.get(key)
        if known is None:
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            known = self._memo[key] = bool(
                self._enforcer.enforce(
                    grant.role, grant.department, grant.district, action, tuple(sorted(departments)), scope.district
                )
            )
        return known

    def somewhere(self, grant: Grant, action: str) -> bool:
        """Whether the grant allows the action on things of its own place."""
        own = Scope(frozenset({grant.department}), grant.district)
        return self.allows(grant, action, own)


#: What may be done before anything was read: nothing.
NO_RULES = Rules(())
