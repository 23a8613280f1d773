"""Interlocks: what must not be ordered while the street says otherwise. Checked on the gateway, whoever orders.

An interlock names a command and a condition (CEL) over points of devices on the same gateway. It refuses while the
condition holds, and also while one of its points is unknown, bad or older than ``max_age_s``: what cannot be seen is
not taken for safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

import msgspec

from edge.clock import Clock
from protocols.core.errors import ConfigError
from protocols.core.model import Quality, Sweep
from scenarios.blocks.condition import Condition


class InterlockConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``refuse_when`` over the names of ``inputs``: ``{ level = "tank-1/level" }`` and ``level > 3.5``."""

    device: str  # may hold shell wildcards
    command: str  # may hold shell wildcards
    refuse_when: str  # a condition (CEL) over the names of `inputs`: `level > 3.5`
    inputs: dict[str, str]  # name in the condition -> device/point
    max_age_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 120.0  # a point older than this refuses too
    reason: str = ""  # what the person who ordered is told


def check(config: InterlockConfig) -> None:
    """Raises ConfigError."""
    if not config.inputs:
        raise ConfigError("inputs: an interlock looks at one point at least")
    for name, source in config.inputs.items():
        device, slash, point = source.partition("/")
        if not device or not slash or not point or not name.isidentifier():
            raise ConfigError(f'inputs: {name} = {source!r} is not like level = "tank-1/level"')
    try:
        condition = Condition(config.refuse_when, frozenset(config.inputs))
    except ValueError as error:
        raise ConfigError(f"refuse_when: {error}") from error
    if unused := sorted(set(config.inputs) - condition.names):
        raise ConfigError(f"refuse_when does not look at {', '.join(unused)}")


@dataclass(slots=True)
class _Seen:
    seen_ms: int
    value: float
    good: bool


class Interlocks:
    """Hears every sweep, remembers the points it needs, answers the desk."""

    def __init__(self, configs: Sequence[InterlockConfig], clock: Clock) -> None:
        self._clock = clock
        self._rules = [(config, Condition(config.refuse_when, frozenset(config.inputs))) for config in configs]
        self._newest: dict[str, _Seen | None] = {
            source: None for config in configs for source in config.inputs.values()
        }
        self._devices = {source.partition("/")[0] for source in self._newest}

    def see(self, sweep: Sweep) -> None:
        """Cheap for the devices nobody asks about."""
        if sweep.device not in self._devices or sweep.historical:
            return
        for n, point in enumerate(sweep.points):
            source = f"{sweep.device}/{point}"
            if source in self._newest:
                value, quality = float(sweep.values[n]), int(sweep.quality[n])
                self._newest[source] = _Seen(sweep.seen_ms, value, value == value and quality == Quality.GOOD)

    def held(self, device: str, command: str) -> str:
        """Why the command must not be carried out now, "" if it may."""
        now_ms = self._clock.now_ms()
        for config, condition in self._rules:
            if not (fnmatchcase(device, config.device) and fnmatchcase(command, config.command)):
                continue
            values: dict[str, float] = {}
            for name, source in config.inputs.items():
                seen = self._newest[source]
                if seen is None or not seen.good:
                    return f"{config.reason or 'interlock'}: {source} is not known"
                age_s = abs(now_ms - seen.seen_ms) / 1000
                if age_s > config.max_age_s:
                    return f"{config.reason or 'interlock'}: {source} is {age_s:.0f} s old"
                values[name] = seen.value
            failures = condition.failures
            holds = condition.holds(values)
            if condition.failures != failures:
                return f"{config.reason or 'interlock'}: {config.refuse_when} cannot be worked out"
            if holds:
                shown = ", ".join(f"{config.inputs[name]} = {value:g}" for name, value in values.items())
                return f"{config.reason or config.refuse_when} ({shown})"
        return ""
