"""Who may do what: the one place where it is decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from cloud.auth.service import Operator, Role

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

_LEAST: Mapping[str, Role] = {
    "view": "viewer",
    "twin.read": "viewer",
    "ledger.read": "viewer",
    "token.manage": "viewer",
    "alarm.acknowledge": "operator",
    "case.act": "operator",
    "evidence.open": "operator",
    "command.send": "operator",
    "command.approve": "operator",
    "diagnostics.pull": "operator",
}


def allowed(operator: Operator, action: Action) -> bool:
    return operator.may(_LEAST.get(action, "admin"))
