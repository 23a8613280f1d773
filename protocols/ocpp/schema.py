"""Is a payload what the standard says? By the library's copy of the official JSON schemas, with our own verdict.

The library's traps that are guarded here (measured with ocpp 2.1.0):
- for 1.6 it answers FormatViolation where the document says FormationViolation, FormatViolation for a value outside
  an enumeration (the document: PropertyConstraintViolation) and ProtocolError for a missing field
  (OccurenceConstraintViolation, with one r);
- its texts of NotImplemented and NotSupported are swapped: an action the receiver does not know is NotImplemented;
- it checks limits as binary floats unless told otherwise, and caches whichever it was told first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

from protocols.core.errors import ConfigError
from protocols.ocpp.frame import Version

_FOLDERS: dict[Version, str] = {"1.6": "v16", "2.0.1": "v201"}


@dataclass(frozen=True, slots=True)
class Violation:
    """``code``: the CALLERROR code of the version; ``path``: where in the payload; ``rule``: of the schema, ``limit``
    its value (the longest text, the enumeration ...)."""

    code: str
    path: str
    rule: str
    text: str
    limit: Any = None


def code_for(rule: str, version: Version) -> str:
    """CALLERROR code of a broken schema rule (OCPP-J 1.6 section 4.2.3; 2.0.1 adds and renames some)."""
    if rule in ("required", "minItems", "maxItems"):
        return "OccurenceConstraintViolation" if version == "1.6" else "OccurrenceConstraintViolation"
    if rule in ("type", "maxLength", "minLength"):
        return "TypeConstraintViolation"
    if rule == "additionalProperties":
        return formation(version)
    return "PropertyConstraintViolation"


def formation(version: Version) -> str:
    """The word for a payload that is no valid structure at all."""
    return "FormationViolation" if version == "1.6" else "FormatViolation"


def _name(action: str, version: Version, result: bool) -> str:
    if result:
        return f"{action}Response"
    return action if version == "1.6" else f"{action}Request"


@cache
def actions(version: Version) -> frozenset[str]:
    """Actions the version knows, both directions."""
    names = {path.name.removesuffix(".json") for path in _folder(version).iterdir() if path.name.endswith(".json")}
    return frozenset(name.removesuffix("Response") for name in names if name.endswith("Response"))


def _folder(version: Version) -> Any:
    try:
        return resources.files(f"ocpp.{_FOLDERS[version]}") / "schemas"
    except ImportError as error:
        raise ConfigError('OCPP needs the package ocpp: pip install "citybrain[chargers]"') from error


@cache
def _validator(action: str, version: Version, result: bool) -> Any:
    # The validator that the library itself uses, with exact numbers.
    from ocpp.messages import Draft4Validator

    text = (_folder(version) / f"{_name(action, version, result)}.json").read_text(encoding="utf-8-sig")
    return Draft4Validator(json.loads(text, parse_float=Decimal))


def _exact(value: Any) -> Any:
    """Floats as the decimals they were meant as: limits have one, and 21.4 is no multiple of 0.1 in binary."""
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, dict):
        return {key: _exact(one) for key, one in value.items()}
    return [_exact(one) for one in value] if isinstance(value, list) else value


def check(action: str, payload: Any, version: Version, *, result: bool = False) -> list[Violation]:
    """What breaks the schema, worst first; [] for nothing. The action must be one of :func:`actions`."""
    if not isinstance(payload, dict):
        return [Violation(formation(version), "", "type", "the payload is no object")]
    found = []
    for error in _validator(action, version, result).iter_errors(_exact(payload)):
        path = ".".join(str(part) for part in error.absolute_path)
        code = code_for(error.validator, version)
        found.append(Violation(code, path, str(error.validator), error.message[:200], error.validator_value))
    order = {"additionalProperties": 0, "required": 1, "type": 2}
    return sorted(found, key=lambda one: (order.get(one.rule, 3), one.path))
