"""What somebody may see, as a condition in SQL: lists are filtered where they are read, never afterwards.

A sight is a set of pairs (department, district), ``*`` for any. The same rule decides about single things in
``cloud/auth/rules.py``; a test holds the two together. Somebody who sees everything costs nothing: the condition is
then ``true``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["gateway", "device", "alarm", "case", "event", "dead_letter", "lane"]
ANY = "*"

#: Departments and district of a row whose table is called {x}.
_PLACE: Mapping[Kind, tuple[str, str]] = {
    "gateway": ("array[{x}.department]", "{x}.district"),
    "device": ("departments_of({x}.device_id, {x}.gateway_id)", "district_of({x}.device_id, {x}.gateway_id)"),
    "alarm": (
        "departments_of_alarm({x}.alarm_id, {x}.device_id, {x}.gateway_id)",
        "district_of({x}.device_id, {x}.gateway_id)",
    ),
    "case": ("{x}.department || {x}.support", "district_of({x}.device_id, null)"),
    "event": ("departments_of({x}.device_id, {x}.gateway_id)", "district_of({x}.device_id, {x}.gateway_id)"),
    "dead_letter": ("departments_of({x}.gateway_id, {x}.gateway_id)", "district_of({x}.gateway_id, {x}.gateway_id)"),
    "lane": ("departments_of({x}.gateway_id, {x}.gateway_id)", "district_of({x}.gateway_id, {x}.gateway_id)"),
}


@dataclass(frozen=True, slots=True)
class Sight:
    pairs: frozenset[tuple[str, str]]

    @property
    def everything(self) -> bool:
        return (ANY, ANY) in self.pairs

    def where(self, kind: Kind, x: str) -> str:
        """A condition on a row of table or alias ``x``; needs :attr:`params`."""
        if self.everything:
            return "true"
        departments, district = _PLACE[kind]
        if all(department == ANY for department, _ in self.pairs):
            return f"({district.format(x=x)} = any(%(sight_districts)s::text[]))"  # no need to look departments up
        return (
            f"within_grants(%(sight_departments)s::text[], %(sight_districts)s::text[], "
            f"{departments.format(x=x)}, {district.format(x=x)})"
        )

    @property
    def params(self) -> dict[str, list[str]]:
        if self.everything:
            return {}
        pairs = sorted((d, a) for d, a in self.pairs if d and a)
        return {"sight_departments": [d for d, _ in pairs], "sight_districts": [a for _, a in pairs]}


EVERYTHING = Sight(frozenset({(ANY, ANY)}))
