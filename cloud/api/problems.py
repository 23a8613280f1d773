"""Every error of the API as ``application/problem+json`` (RFC 9457), with our stable code in it.

A client needs one way to read errors: what FastAPI finds wrong with a request, what the services refuse and what the
database does not take all come out in the same form.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloud.alarms.errors import AlarmNotFound
from cloud.api.models import ProblemOut
from cloud.auth import errors as auth
from cloud.cases.errors import CaseError, CaseNotFound, IllegalAction, ReasonNeeded
from cloud.commands.service import CommandNotFound, CommandRefused
from cloud.fleet.query import QueryError
from cloud.identity.errors import IdentityRefused
from cloud.twin.service import TwinConflict, TwinInvalid, TwinNotFound
from cloud.updates.service import RolloutError, RolloutInvalid, RolloutNotFound
from protocols.core.errors import CityBrainError, ContractError, StoreError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, code: str, detail: str = "", *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail or code)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers
        self.more = more

    def response(self) -> JSONResponse:
        body: dict[str, Any] = {
            "type": f"urn:citybrain:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
        }
        if self.detail:
            body["detail"] = self.detail
        body |= {key: value for key, value in self.more.items() if value is not None}
        return JSONResponse(body, self.status, self.headers, MEDIA_TYPE)


def not_found(what: str, id_: object) -> Problem:
    return Problem(404, "not_found", f"there is no {what} {id_!s}")


def of(error: CityBrainError) -> Problem:
    """The answer to an error of ours."""
    match error:
        case auth.Locked():
            return Problem(429, error.code, str(error), headers={"Retry-After": str(error.retry_s)})
        case auth.WrongPassword() | auth.SecondFactorNeeded() | auth.WrongCode():
            return Problem(401, error.code, str(error))
        case auth.NoOperator():
            return Problem(404, "not_found", str(error))
        case auth.NotPossible():
            return Problem(409, error.code, str(error), reason=error.reason)
        case auth.AboveOwner():
            return Problem(403, error.code, str(error))
        case auth.WeakPassword():
            return Problem(422, error.code, str(error), reason=error.reason)
        case auth.NameTaken():
            return Problem(409, error.code, str(error))
        case AlarmNotFound():
            return Problem(404, error.code, str(error))
        case CaseError():
            status = {CaseNotFound: 404, ReasonNeeded: 422}.get(type(error), 409)
            allowed = list(error.allowed) if isinstance(error, IllegalAction) else None
            return Problem(status, error.code, str(error), zh=error.zh, allowed=allowed)
        case CommandRefused():
            status = 409 if error.reason in ("state", "second_person") else 422
            return Problem(status, error.code, str(error), reason=error.reason)
        case CommandNotFound() | TwinNotFound() | RolloutNotFound():
            return Problem(404, error.code, str(error))
        case TwinInvalid():
            return Problem(422, error.code, str(error), path=error.path)
        case RolloutInvalid():
            return Problem(422, error.code, str(error))
        case TwinConflict() | RolloutError():
            return Problem(409, error.code, str(error))
        case IdentityRefused():
            headers = {"Retry-After": "30"} if error.reason == "busy" else None
            status = {"request": 422, "busy": 429}.get(error.reason, 403)
            return Problem(status, f"identity.{error.reason}", str(error), headers=headers)
        case QueryError():
            return Problem(422, "fleet.query", str(error), zh=error.zh)
        case ContractError():
            return Problem(400, f"{error.code}.{error.reason}", str(error))
        case StoreError():
            return Problem(503, error.code, "the database does not answer; try again", headers={"Retry-After": "2"})
        case _:
            return Problem(503 if error.retry else 400, error.code, str(error))


def install(app: FastAPI) -> None:
    async def on_problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)  # noqa: S101 - registered for nothing else
        return error.response()

    async def on_ours(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, CityBrainError)  # noqa: S101
        if isinstance(error, StoreError):
            log.warning("%s", error)
        return of(error).response()

    async def on_database(_: Request, error: Exception) -> JSONResponse:
        log.warning("database: %s", error)
        return of(StoreError(str(error))).response()

    async def on_data(_: Request, error: Exception) -> JSONResponse:
        # Text with a NUL, a number beyond its column: the checks in front let it through, the database does not.
        log.info("refused by the database: %s", type(error).__name__)
        return Problem(422, "invalid", "a value that cannot be stored or looked for").response()

    async def on_invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        # What was sent is not echoed: it may be a password.
        wrong = [{"where": [str(p) for p in e["loc"]], "why": e["msg"], "kind": e["type"]} for e in error.errors()]
        return Problem(422, "invalid", "the request does not fit its description", errors=wrong).response()

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
        headers = dict(error.headers) if error.headers else None
        return Problem(error.status_code, code, str(error.detail), headers=headers).response()

    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        # Starlette re-raises after this answer, so the server's log has the traceback.
        return Problem(500, "internal", "the server failed; its log says why").response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(CityBrainError, on_ours)
    app.add_exception_handler(psycopg.OperationalError, on_database)
    app.add_exception_handler(psycopg.DataError, on_data)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_bug)


def describe(app: FastAPI) -> None:
    """Say in the description of the API that every call may answer with a problem, and which."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = plain()
            parts = found.setdefault("components", {}).setdefault("schemas", {})
            parts["Problem"] = ProblemOut.model_json_schema(ref_template="#/components/schemas/{model}")
            for name in ("HTTPValidationError", "ValidationError"):
                parts.pop(name, None)
            content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
            for item in found["paths"].values():
                for operation in item.values():
                    answers = operation["responses"]
                    answers.pop("422", None)
                    answers["4XX"] = {"description": "Refused; `code` says why.", "content": content}
                    answers["503"] = {"description": "Try again: the database does not answer.", "content": content}
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
