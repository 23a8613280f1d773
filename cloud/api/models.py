"""What crosses the API besides the rows of cloud/query (FastAPI describes those dataclasses by itself)."""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cloud.query import rows
from protocols.vocabulary import departments, districts

ItemT = TypeVar("ItemT")


class PageOut(BaseModel, Generic[ItemT]):
    """One page of a list. Pass ``next_cursor`` back as ``cursor`` to go on; null means the end."""

    items: list[ItemT]
    next_cursor: str | None = None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _known(value: str, names: Container[str], what: str) -> str:
    if value and value not in names:
        raise ValueError(f"no such {what}")
    return value


#: Empty: none, or that of the gateway.
DistrictId = Annotated[str, Field(max_length=40), AfterValidator(lambda v: _known(v, districts(), "district"))]
DepartmentId = Annotated[str, Field(max_length=40), AfterValidator(lambda v: _known(v, departments(), "department"))]


class ActionIn(Strict):
    action: Annotated[str, Field(min_length=1, max_length=40)]
    reason: Annotated[str, Field(max_length=2000)] = ""
    version: Annotated[
        int, Field(ge=1, lt=1 << 31, description="The version the caller has seen; another one gives 409.")
    ]


class ActionOut(BaseModel):
    """What may be done with a case in its state."""

    name: str
    zh: str
    en: str
    to_state: str
    needs_reason: bool


class CaseOut(BaseModel):
    case: rows.Case
    alarms: list[rows.Alarm]
    transitions: list[rows.Transition]
    actions: list[ActionOut]


class Health(BaseModel):
    """``ok`` is false when the database does not answer, its disk is full, or live updates are interrupted."""

    ok: bool
    database: bool
    live: bool
    disk: str = "ok"  # ok | low | full


class PlaceIn(Strict):
    district: DistrictId = ""
    department: DepartmentId = ""


class PlaceOut(BaseModel):
    id: str
    district: str
    department: str


class OpeningIn(Strict):
    """Why evidence is opened unmasked."""

    case_id: Annotated[int, Field(ge=1, lt=1 << 63)]
    reason: Annotated[str, Field(min_length=4, max_length=500, pattern=r"\S", description="Kept in the audit log.")]


class ProblemOut(BaseModel):
    """application/problem+json, RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str | None = None
    errors: list[dict[str, Any]] | None = None
