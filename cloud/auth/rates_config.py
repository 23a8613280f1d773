"""How many calls of the API a caller may make: settings of the core, and what they may be.

There is no way to switch the limits off: a number large enough for the house is found more easily than the one caller
who, by a loop in his program, takes the console away from everybody.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

PerSecond = Annotated[float, msgspec.Meta(ge=0.1, le=100_000)]
Burst = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class RateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[rates]`` of core.toml; each number holds for one caller and one process."""

    caller_per_s: PerSecond = 50.0
    """Calls of one operator, or one API token, in the long run."""
    caller_burst: Burst = 500
    """As many may come at once, after a quiet while."""
    stranger_per_s: PerSecond = 5.0
    """Calls without a good token, from one address (IPv6: one /64): log-ins, the health page, wrong tokens."""
    stranger_burst: Burst = 200
    enrol_per_s: PerSecond = 100.0
    """Enrolments and renewals of gateways from one address; wrong codes are slowed much sooner."""
    enrol_burst: Burst = 10_000
    """A whole city may begin at once behind one address."""
    costly_per_min: Annotated[float, msgspec.Meta(ge=0.1, le=6_000_000)] = 12.0
    """What is costly to answer, of one caller: tables in and out, the city's ledger, logs and check-ups of gateways."""
    costly_burst: Burst = 30
