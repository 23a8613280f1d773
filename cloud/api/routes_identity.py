"""Enrolment of gateways (open to strangers, with limits of its own), claims, revocation, devices that wait."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from cloud.api.deps import Caller, ConnDep, Services, ServicesDep, may, origin_of
from cloud.api.models import DepartmentId, DistrictId
from cloud.api.problems import Problem, not_found
from cloud.api.routes_updates import RepositoryDep
from cloud.auth import policy, sight
from cloud.identity import label
from cloud.identity.claims import Made, Wanted
from cloud.identity.codes import label_text
from cloud.identity.desk import IdentityDesk
from cloud.identity.enrolment import Enrolled
from cloud.query import identity as identity_query
from cloud.updates.repository import Repository
from protocols.core.errors import ConfigError
from protocols.uplink.topics import SHARDS

router = APIRouter(tags=["identity"])
#: The largest body of the open routes, bytes.
MAX_BODY_BYTES = 64 << 10
_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"
GatewayId = Annotated[str, Path(pattern=_ID)]
DeviceId = Annotated[str, Path(min_length=1, max_length=128)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RootOut(BaseModel):
    root_pem: str
    sha256: str
    now_ms: int = Field(description="The core's clock, milliseconds since 1970.")


class EnrolIn(_Strict):
    code: str = Field(max_length=80)
    csr: str = Field(max_length=8192, description="PEM, PKCS #10, elliptic key P-256 or P-384.")


class RenewIn(_Strict):
    certificate: str = Field(max_length=32_768, description="The present one, PEM.")
    csr: str = Field(max_length=8192)
    signature: str = Field(max_length=400, description="Base64: ECDSA, SHA-256, by the present key.")


class EnrolOut(BaseModel):
    gateway: str
    shard: int
    certificate: str = Field(description="PEM, with its chain, without the root.")
    root_pem: str
    broker: str
    not_after: dt.datetime
    now_ms: int
    updates_root: str = Field(default="", description="Trusted root of signed updates (TUF), JSON; empty: none here.")


class ClaimIn(_Strict):
    gateway: str = Field(pattern=_ID)
    shard: int | None = Field(default=None, ge=0, lt=SHARDS, description="Default: the one with the fewest gateways.")
    zh: str = Field(default="", max_length=100)
    en: str = Field(default="", max_length=100)
    lon: float | None = Field(default=None, ge=-180, le=180)
    lat: float | None = Field(default=None, ge=-90, le=90)
    admission: Literal["auto", "accept"] = "auto"
    district: DistrictId = Field(default="", description="Of a new gateway; one that is there stays where it is.")
    department: DepartmentId = ""
    days: float | None = Field(default=None, gt=0, le=365)


class ClaimOut(BaseModel):
    gateway: str
    shard: int
    code: str = Field(description="Shown this once.")
    expires_at: dt.datetime
    label: str = Field(description="What the QR code holds.")
    qr_svg: str


class RevokeIn(_Strict):
    reason: str = Field(min_length=1, max_length=500)


class RevokeOut(BaseModel):
    gateway: str
    certificates: int


class DecisionIn(_Strict):
    decision: Literal["accepted", "rejected"]


class AdmissionIn(_Strict):
    admission: Literal["auto", "accept"]


def desk(request: Request) -> IdentityDesk:
    found: IdentityDesk = request.app.state.identity
    return found


DeskDep = Annotated[IdentityDesk, Depends(desk)]
Enroller = Annotated[Caller, Depends(may("gateway.enrol", filtered=True))]
Revoker = Annotated[Caller, Depends(may("gateway.revoke"))]
Accepter = Annotated[Caller, Depends(may("device.accept"))]
Viewer = Annotated[Caller, Depends(may("view"))]
Seer = Annotated[Caller, Depends(may("view", filtered=True))]


async def small(request: Request) -> None:
    """An open route reads no long bodies: their length is known before a byte of them is."""
    length = request.headers.get("content-length", "")
    if request.method == "POST" and (not length.isascii() or not length.isdecimal() or int(length) > MAX_BODY_BYTES):
        raise Problem(413, "too_large", f"at most {MAX_BODY_BYTES} bytes, with their length said")


def _peer(request: Request) -> str:
    return origin_of(request).address or "?"


def _now_ms() -> int:
    return round(dt.datetime.now(dt.UTC).timestamp() * 1000)


@contextmanager
def _set_up() -> Iterator[None]:
    """A core without an authority says that it has none, to whoever asks."""
    try:
        yield
    except ConfigError as error:
        raise Problem(503, "identity.off", str(error)) from error


@router.get("/enrol/ca")
async def root(found: DeskDep) -> RootOut:
    """The city's root certificate. Believed by a gateway for its fingerprint, which stands on the label."""
    with _set_up():
        pem, fingerprint = await found.root()
    return RootOut(root_pem=pem, sha256=fingerprint, now_ms=_now_ms())


@router.post("/enrol", dependencies=[Depends(small)])
async def enrol(body: EnrolIn, request: Request, found: DeskDep, repository: RepositoryDep) -> EnrolOut:
    """A one-time code and a certificate request for a certificate. Refusals are counted and slowed (429)."""
    with _set_up():
        enrolled = await found.enrol(body.code, body.csr, _peer(request))
    out = await _out(found, enrolled)
    return out.model_copy(update={"updates_root": _updates_root(repository)})


def _updates_root(repository: Repository | None) -> str:
    """What a gateway trusts from now on; a city without signed updates has none to give."""
    try:
        return repository.trusted_root().decode() if repository is not None and repository.exists() else ""
    except (ConfigError, OSError):
        return ""


@router.post("/enrol/renew", dependencies=[Depends(small)])
async def renew(body: RenewIn, request: Request, found: DeskDep) -> EnrolOut:
    """The next certificate, for a request signed by the present one's key: works through any TLS proxy."""
    with _set_up():
        enrolled = await found.renew(body.certificate, body.csr, body.signature, _peer(request))
    return await _out(found, enrolled)


async def _out(found: IdentityDesk, enrolled: Enrolled) -> EnrolOut:
    pem, _ = await found.root()
    return EnrolOut(
        gateway=enrolled.gateway_id,
        shard=enrolled.shard,
        certificate=enrolled.issued.pem,
        root_pem=pem,
        broker=found.settings.broker_url if found.settings else "",
        not_after=enrolled.issued.not_after,
        now_ms=_now_ms(),
    )


async def _place(body: ClaimIn, caller: Caller, s: Services) -> tuple[str, str]:
    """District and department the claim is for, where the caller may enter gateways. A gateway that is there lies where
    it lies; a new one is put where he says, and whoever has one district only must say it."""
    async with s.pool.connection() as conn:
        there = await sight.place(conn, "gateway", body.gateway)
    if there is None:
        caller.require("gateway.enrol", policy.Scope(frozenset({body.department} - {""}), body.district))
        return body.district, body.department
    if not policy.allowed(caller.operator, "view", there):
        raise not_found("gateway", body.gateway)
    caller.require("gateway.enrol", there)
    return body.district or there.district, body.department or next(iter(there.departments), "")


async def _claim(body: ClaimIn, caller: Caller, found: IdentityDesk, s: Services) -> tuple[Made, str, str]:
    """The claim, the core's URL and the root's fingerprint."""
    place = await _place(body, caller, s)
    wanted = Wanted(body.gateway, body.shard, body.zh, body.en, body.lon, body.lat, body.admission, place)
    with _set_up():
        _, fingerprint = await found.root()
    try:
        made = await found.claim(wanted, caller.name, body.days)
    except ConfigError as error:
        raise Problem(409, "identity.claim", str(error)) from error
    return made, found.settings.public_url if found.settings else "", fingerprint


@router.post("/claims", status_code=201)
async def claim(body: ClaimIn, caller: Enroller, found: DeskDep, s: ServicesDep) -> ClaimOut:
    """Say that a gateway may come: its one-time code. Earlier codes of it that nobody used are void. Whoever may enter
    gateways of one district only names it for a new one."""
    made, url, fingerprint = await _claim(body, caller, found, s)
    text = label_text(url, made.code, fingerprint)
    return ClaimOut(
        gateway=made.gateway_id,
        shard=made.shard,
        code=made.code.text,
        expires_at=made.expires_at,
        label=text,
        qr_svg=label.qr_svg(text),
    )


@router.post("/claims/label", status_code=201, response_class=HTMLResponse)
async def claim_label(body: ClaimIn, caller: Enroller, found: DeskDep, s: ServicesDep) -> HTMLResponse:
    """The same as a page to print on the box's label, 80 by 50 mm."""
    made, url, fingerprint = await _claim(body, caller, found, s)
    return HTMLResponse(label.page(made, url, fingerprint, zh=body.zh, en=body.en), 201)


@router.get("/claims")
async def claims_open(caller: Enroller, conn: ConnDep) -> list[identity_query.Claim]:
    """Those nobody has used yet, where the caller may make some; codes are not kept and not shown."""
    return await identity_query.claims(conn, caller.sight)


@router.get("/gateways/{gateway_id}/certificates")
async def certificates(gateway_id: GatewayId, _: Viewer, conn: ConnDep) -> list[identity_query.Certificate]:
    return await identity_query.certificates(conn, gateway_id)


@router.post("/gateways/{gateway_id}/revoke")
async def revoke(gateway_id: GatewayId, body: RevokeIn, caller: Revoker, found: DeskDep) -> RevokeOut:
    """Shut a gateway out, its live session too (within a minute). A new claim lets it back in."""
    ended = await found.revoke(gateway_id, caller.name, body.reason)
    if ended is None:
        raise not_found("gateway", gateway_id)
    return RevokeOut(gateway=gateway_id, certificates=ended)


@router.put("/gateways/{gateway_id}/admission", status_code=204)
async def set_admission(gateway_id: GatewayId, body: AdmissionIn, caller: Accepter, found: DeskDep) -> Response:
    """``accept``: devices of this gateway that nobody entered wait; ``auto``: they enter by themselves."""
    if not await found.set_admission(gateway_id, body.admission, caller.name):
        raise not_found("gateway", gateway_id)
    return Response(status_code=204)


@router.get("/pending-devices")
async def pending(
    caller: Seer,
    conn: ConnDep,
    gateway: Annotated[str, Query(max_length=63)] = "",
    state: Literal["pending", "accepted", "rejected"] = "pending",
) -> list[identity_query.Pending]:
    """Devices that showed themselves and are in no list; the newest 500."""
    return await identity_query.pending(conn, caller.sight, gateway, state)


@router.post("/gateways/{gateway_id}/pending-devices/{device_id}", status_code=204)
async def decide(
    gateway_id: GatewayId, device_id: DeviceId, body: DecisionIn, caller: Accepter, found: DeskDep
) -> Response:
    try:
        known = await found.decide(gateway_id, device_id, body.decision, caller.name)
    except ConfigError as error:
        raise Problem(409, "device.taken", str(error)) from error
    if not known:
        raise not_found("pending device", device_id)
    return Response(status_code=204)
