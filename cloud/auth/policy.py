"""Who may do what: the one place where it is decided.

Three kinds of action. Most are about a thing that belongs to a department and a district: they need its
:class:`Scope`, or ask whether there is any place at all where the operator may (a list then shows only what he may
see). Some concern the whole city: they need a role that is held for all of it. A few concern the operator himself.
An API token narrows all of this to the actions it was made for.
"""

from __future__ import annotations

from typing import Literal, get_args

from cloud.auth.operator import Operator
from cloud.auth.rules import ANY, CITY, Grant, Scope

__all__ = ["ACTIONS", "ANY", "CITY", "CITY_WIDE", "PERSONAL", "Action", "Scope", "allowed", "anywhere", "places"]

Action = Literal[
    "view",  # gateways, devices, readings, alarms, cases
    "alarm.acknowledge",
    "case.act",
    "evidence.open",  # personal data: a case must ask for it
    "command.send",
    "command.approve",  # the second person of a dangerous command
    "twin.read",
    "twin.write",
    "gateway.enrol",
    "gateway.revoke",
    "device.accept",  # discovered devices
    "update.manage",
    "fleet.bulk",
    "diagnostics.pull",
    "storage.manage",
    "ledger.read",
    "audit.read",
    "operator.manage",
    "token.manage",  # one's own API tokens
]
ACTIONS: tuple[Action, ...] = get_args(Action)
#: Nothing smaller than the city is a sensible place for these: who manages operators could give himself any place.
CITY_WIDE: frozenset[Action] = frozenset(
    {"update.manage", "fleet.bulk", "storage.manage", "audit.read", "operator.manage"}
)
PERSONAL: frozenset[Action] = frozenset({"token.manage"})


def allowed(operator: Operator, action: Action, scope: Scope | None = None) -> bool:
    """Whether he may, with a thing that belongs there. Without a scope: with what concerns the whole city."""
    if operator.only is not None and action not in operator.only:
        return False
    if action in PERSONAL:
        return any(operator.rules.somewhere(grant, action) for grant in operator.grants)
    where = CITY if scope is None or action in CITY_WIDE else scope
    return any(operator.rules.allows(grant, action, where) for grant in operator.grants)


def anywhere(operator: Operator, action: Action) -> bool:
    """Whether there is a place where he may; what he then gets to see is filtered by :func:`cloud.auth.sight.of`."""
    if action in CITY_WIDE:
        return allowed(operator, action)
    return bool(places(operator, action))


def places(operator: Operator, action: Action) -> list[Grant]:
    """His grants that let him do it, in whatever place: the city first, then as they were given."""
    if operator.only is not None and action not in operator.only:
        return []
    return sorted(
        (grant for grant in operator.grants if operator.rules.somewhere(grant, action)),
        key=lambda grant: not grant.city_wide,
    )
