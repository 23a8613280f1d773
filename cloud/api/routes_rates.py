"""How many calls this process lets through of one caller, and how many it has refused."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cloud.api.deps import AdminDep, ServicesDep

router = APIRouter(tags=["health"])


class BucketOut(BaseModel):
    per_s: float = Field(description="In the long run, of one caller.")
    burst: int = Field(description="At once, after a quiet while.")
    refused: int = Field(description="Calls answered with 429 since this process began.")


class RatesOut(BaseModel):
    """Each process of a core counts for itself."""

    caller: BucketOut
    stranger: BucketOut
    enrol: BucketOut
    costly: BucketOut


@router.get("/rates")
async def rates(_: AdminDep, s: ServicesDep) -> RatesOut:
    """The limits in force here, and what they have refused; by whom stands in the process's log."""
    is_, refused = s.rates.settings, s.rates.refused
    return RatesOut(
        caller=BucketOut(per_s=is_.caller_per_s, burst=is_.caller_burst, refused=refused["caller"]),
        stranger=BucketOut(per_s=is_.stranger_per_s, burst=is_.stranger_burst, refused=refused["stranger"]),
        enrol=BucketOut(per_s=is_.enrol_per_s, burst=is_.enrol_burst, refused=refused["enrol"]),
        costly=BucketOut(per_s=is_.costly_per_min / 60, burst=is_.costly_burst, refused=refused["costly"]),
    )
