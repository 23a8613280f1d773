"""What crosses the API about accounts: log-in, second factor, sessions, tokens, roles, operators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from cloud.api.models import Strict
from cloud.auth.operator import Operator, Role
from cloud.auth.policy import ACTIONS, Action
from cloud.auth.rules import ANY, Grant
from cloud.auth.tokens import MAX_DAYS
from protocols.vocabulary import departments, districts

Name = Annotated[str, Field(pattern=r"^[\w.-]{2,32}$")]
Code = Annotated[str, Field(max_length=20, description="Six digits, or a recovery code.")]
Secret = Annotated[str, Field(min_length=1, max_length=200)]


def _place(value: str, known: object, what: str) -> str:
    if value != ANY and value not in known:  # type: ignore[operator]
        raise ValueError(f"no such {what}, and not * for any")
    return value


class GrantModel(Strict):
    """A role, held for a department and a district; `*` is any."""

    role: Role
    department: Annotated[str, AfterValidator(lambda v: _place(v, departments(), "department"))] = ANY
    district: Annotated[str, AfterValidator(lambda v: _place(v, districts(), "district"))] = ANY

    def grant(self) -> Grant:
        return Grant(self.role, self.department, self.district)


class LoginIn(Strict):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    password: Secret
    code: Code = ""


class LoginOut(BaseModel):
    token: str = Field(description="Send it as `Authorization: Bearer <token>`.")
    expires_at: datetime
    name: str
    role: Role
    must_change: bool = Field(description="Nothing but POST /password and /logout is open until the password changed.")
    must_enrol: bool = Field(description="Nothing else is open until a second factor is set up.")


class PasswordIn(Strict):
    old: Secret
    new: Secret


class OperatorOut(BaseModel):
    name: str
    role: Role
    department: str
    district: str
    more: list[GrantModel] = Field(description="Further roles, each with its place.")
    language: str
    must_change: bool
    second_factor: bool
    disabled: bool
    sso: bool = Field(description="Logs in with the OpenID provider.")

    @classmethod
    def of(cls, o: Operator) -> OperatorOut:
        more = [GrantModel(role=g.role, department=g.department, district=g.district) for g in o.more]  # type: ignore[arg-type]
        return cls(
            name=o.name, role=o.role, department=o.department, district=o.district, more=more, language=o.language,
            must_change=o.must_change, second_factor=o.second_factor, disabled=o.disabled, sso=o.sso,
        )  # fmt: skip


class Me(OperatorOut):
    must_enrol: bool
    actions: list[str] = Field(description="What may be done somewhere; where, the grants say.")
    csrf: str | None = Field(default=None, description="For unsafe requests by cookie outside a browser page.")


class OperatorIn(GrantModel):
    name: Name
    sso: bool = Field(default=False, description="Logs in with the OpenID provider, under this name.")
    more: Annotated[list[GrantModel], Field(max_length=20)] = []


class AccessIn(GrantModel):
    more: Annotated[list[GrantModel], Field(max_length=20)] = []
    disabled: bool = False


class NewPassword(BaseModel):
    name: str
    password: str = Field(description="Shown this once; must be changed at the first log-in. Empty: has none.")


class SetupOut(BaseModel):
    secret: str = Field(description="For typing in, where no camera is at hand.")
    uri: str
    qr: str = Field(description="SVG as a data URI.")
    setup: str = Field(description="Send it back with the first code.")


class SetupIn(Strict):
    setup: Annotated[str, Field(min_length=1, max_length=400)]
    code: Code


class CodeIn(Strict):
    code: Code


class RecoveryOut(BaseModel):
    codes: list[str] = Field(description="Each opens the account once in place of a code. Shown this once.")


class SessionOut(BaseModel):
    session_id: str
    name: str
    factor: str
    address: str
    agent: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    current: bool


class TokenIn(Strict):
    label: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f]+$")]
    actions: Annotated[list[Action], Field(min_length=1, max_length=len(ACTIONS))]
    days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = 90
    owner: Annotated[str, Field(max_length=32, description="Somebody else's account; for administrators.")] = ""


class TokenOut(BaseModel):
    token_id: str
    name: str
    label: str
    actions: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


class NewToken(TokenOut):
    token: str = Field(description="Shown this once. Send it as `Authorization: Bearer cbt_...`.")


class RoleOut(BaseModel):
    role: Role
    zh: str
    en: str
    actions: list[str]
    second_factor: bool = Field(description="Who holds it must have a second factor.")


class RoleIn(Strict):
    actions: list[Action] | Annotated[list[Annotated[str, Field(pattern=r"^\*$")]], Field(max_length=1)]
    second_factor: bool = False
