"""What crosses the API besides the rows of cloud/query (FastAPI describes those dataclasses by itself)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cloud.query import rows

ItemT = TypeVar("ItemT")


class PageOut(BaseModel, Generic[ItemT]):
    """One page of a list. Pass ``next_cursor`` back as ``cursor`` to go on; null means the end."""

    items: list[ItemT]
    next_cursor: str | None = None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoginIn(Strict):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    password: Annotated[str, Field(min_length=1, max_length=200)]


class LoginOut(BaseModel):
    token: str = Field(description="Send it as `Authorization: Bearer <token>`.")
    expires_at: datetime
    name: str
    role: Literal["viewer", "operator", "admin"]
    must_change: bool = Field(description="Nothing but POST /password and /logout is open until the password changed.")


class PasswordIn(Strict):
    old: Annotated[str, Field(min_length=1, max_length=200)]
    new: Annotated[str, Field(min_length=1, max_length=200)]


class Me(BaseModel):
    name: str
    role: Literal["viewer", "operator", "admin"]
    language: str
    must_change: bool
    csrf: str | None = Field(default=None, description="For unsafe requests by cookie outside a browser page.")


class OperatorIn(Strict):
    name: Annotated[str, Field(pattern=r"^[\w.-]{2,32}$")]
    role: Literal["viewer", "operator", "admin"]


class OperatorOut(BaseModel):
    name: str
    role: Literal["viewer", "operator", "admin"]
    language: str
    must_change: bool


class NewPassword(BaseModel):
    name: str
    password: str = Field(description="Shown this once; must be changed at the first log-in.")


class ActionIn(Strict):
    action: Annotated[str, Field(min_length=1, max_length=40)]
    reason: Annotated[str, Field(max_length=2000)] = ""
    version: Annotated[int, Field(ge=1, description="The version the caller has seen; another one gives 409.")]


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
    """``ok`` is false when the database does not answer or live updates are interrupted."""

    ok: bool
    database: bool
    live: bool


class ProblemOut(BaseModel):
    """application/problem+json, RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str | None = None
    errors: list[dict[str, Any]] | None = None
