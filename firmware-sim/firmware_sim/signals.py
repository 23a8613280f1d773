"""What a simulated sensor measures at a time: a pure function of the second and the seed.

A signal has one *form* (base, steps, ramp, sine, counter, replay, stuck) and optional noise. ``value(t)`` and
``values([t...])`` agree to the last bit, and asking twice, out of order or in two processes gives the same number:
that is what makes a run repeatable whatever the agent does. The noise is drawn from a hash of (seed, name,
millisecond), not from a generator with state.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from firmware_sim import streams
from protocols.core.errors import ConfigError

Floats = NDArray[np.float64]
Shape = Callable[[Floats], Floats]

_MASK = (1 << 64) - 1
# Increments and multipliers of the splitmix64 finaliser: any two neighbouring milliseconds give unrelated words.
_GAMMA, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORDS = 3  # 3 words x 4 lanes of 16 bits = 12 uniforms; their sum less 6 has variance 1 (Irwin-Hall)
_MEAN, _SPREAD = _WORDS * 4 * 65535 / 2, 65536.0 * math.sqrt(_WORDS * 4 / 12)


class Sine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mean: float
    amplitude: float
    period_s: float
    phase_s: float = 0.0


class Counter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    start: float
    per_hour: float


class SignalSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table of one signal in a scene file; exactly one form besides ``noise`` and ``repeat_s``."""

    base: float | None = None
    steps: tuple[tuple[float, float], ...] | None = None
    ramp: tuple[tuple[float, float], ...] | None = None
    sine: Sine | None = None
    counter: Counter | None = None
    replay: str | None = None
    stuck: float | None = None
    noise: float = 0.0  # standard deviation, in the point's unit
    repeat_s: float | None = None  # steps and ramp start over after so many seconds
    column: str | None = None  # replay: title of the column
    step_s: float = 60.0  # replay: seconds each row holds
    row: int = 0  # replay: row of second 0

    def check(self) -> None:
        """Raise ValueError saying what does not fit together."""
        forms = [name for name in FORMS if getattr(self, name) is not None]
        if len(forms) != 1:
            raise ValueError(f"needs exactly one of {', '.join(FORMS)}; has {', '.join(forms) or 'none'}")
        form = forms[0]
        if self.noise < 0:
            raise ValueError("noise: a standard deviation is not negative")
        if form == "stuck" and self.noise:
            raise ValueError("stuck: a stuck sensor has no noise")
        if self.repeat_s is not None and (form not in ("steps", "ramp") or self.repeat_s <= 0):
            raise ValueError("repeat_s: belongs to steps or ramp and is above 0")
        table = self.steps if form == "steps" else self.ramp
        if form in ("steps", "ramp"):
            if not table:
                raise ValueError(f"{form}: needs at least one [second, value]")
            if any(later[0] < earlier[0] for earlier, later in itertools.pairwise(table)):
                raise ValueError(f"{form}: the seconds must not go back")
        if self.sine is not None and self.sine.period_s <= 0:
            raise ValueError("sine.period_s: must be above 0")
        if (form == "replay") != (self.column is not None):
            raise ValueError("column: belongs to replay, and replay needs it")
        if form == "replay" and (self.step_s <= 0 or self.row < 0):
            raise ValueError("replay: step_s must be above 0 and row not below 0")


FORMS = ("base", "steps", "ramp", "sine", "counter", "replay", "stuck")


class Signal:
    """One signal, ready to be asked. ``name`` (device/point) and ``seed`` decide its noise."""

    def __init__(self, spec: SignalSpec, name: str, seed: int, streams_folder: Path | None = None) -> None:
        try:
            spec.check()
        except ValueError as error:
            raise ConfigError(f"signal {name}: {error}") from error
        self.name = name
        self._shape = _shape(spec, streams_folder)
        self._noise = spec.noise
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "little")

    def value(self, t_s: float) -> float:
        """Value at second ``t_s`` of the scene; NaN where the recording has none."""
        clean = float(self._shape(np.array([t_s], np.float64))[0])
        if not self._noise:
            return clean
        return clean + self._noise * _gauss_one(self._key, round(t_s * 1000.0))

    def values(self, t_s: Floats) -> Floats:
        """The same for many seconds at once."""
        clean = self._shape(np.asarray(t_s, np.float64))
        if not self._noise:
            return clean
        return clean + self._noise * _gauss(self._key, np.rint(t_s * 1000.0).astype(np.int64))


def _gauss(key: int, t_ms: NDArray[np.int64]) -> Floats:
    """Close to standard normal (twelve uniforms, so never beyond 6), a function of its arguments alone."""
    total = np.zeros(t_ms.shape, np.int64)
    with np.errstate(over="ignore"):
        counter = np.uint64(key) + t_ms.astype(np.uint64) * np.uint64(_WORDS)
        for word in range(1, _WORDS + 1):
            mixed = (counter + np.uint64(word)) * np.uint64(_GAMMA)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX1)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MIX2)
            mixed ^= mixed >> np.uint64(31)
            for lane in range(0, 64, 16):
                total += ((mixed >> np.uint64(lane)) & np.uint64(0xFFFF)).astype(np.int64)
    gauss: Floats = (total.astype(np.float64) - _MEAN) / _SPREAD
    return gauss


def _gauss_one(key: int, t_ms: int) -> float:
    """:func:`_gauss` of one millisecond in plain integers: twenty times faster for one value, the same to the bit."""
    total = 0
    for word in range(1, _WORDS + 1):
        mixed = (key + t_ms * _WORDS + word) * _GAMMA & _MASK
        mixed = (mixed ^ (mixed >> 30)) * _MIX1 & _MASK
        mixed = (mixed ^ (mixed >> 27)) * _MIX2 & _MASK
        mixed ^= mixed >> 31
        total += (mixed & 0xFFFF) + (mixed >> 16 & 0xFFFF) + (mixed >> 32 & 0xFFFF) + (mixed >> 48)
    return (total - _MEAN) / _SPREAD


def _shape(spec: SignalSpec, streams_folder: Path | None) -> Shape:
    if spec.base is not None or spec.stuck is not None:
        level = spec.base if spec.base is not None else spec.stuck
        assert level is not None  # noqa: S101 - narrows for the type checker
        return lambda t: np.full(t.shape, level, np.float64)
    if spec.steps is not None:
        at, to = _columns(spec.steps)
        return _repeated(lambda t: to[np.maximum(np.searchsorted(at, t, side="right") - 1, 0)], spec.repeat_s)
    if spec.ramp is not None:
        knots, heights = _columns(spec.ramp)
        return _repeated(lambda t: np.interp(t, knots, heights), spec.repeat_s)
    if spec.sine is not None:
        sine = spec.sine
        turn = 2 * math.pi / sine.period_s
        return lambda t: sine.mean + sine.amplitude * np.sin((t + sine.phase_s) * turn)
    if spec.counter is not None:
        counter = spec.counter
        return lambda t: counter.start + counter.per_hour * (t / 3600.0)
    assert spec.replay is not None and spec.column is not None  # noqa: S101 - check() saw to it
    recorded = streams.column(streams_folder or streams.default_folder(), spec.replay, spec.column)
    first, step_s = spec.row, spec.step_s
    # A recording that has run out starts over: a rig may run longer than the recording.
    return lambda t: recorded[(first + np.floor(t / step_s).astype(np.int64)) % len(recorded)]


def _columns(table: tuple[tuple[float, float], ...]) -> tuple[Floats, Floats]:
    both = np.array(table, np.float64)
    return both[:, 0].copy(), both[:, 1].copy()


def _repeated(shape: Shape, repeat_s: float | None) -> Shape:
    if repeat_s is None:
        return shape
    return lambda t: shape(np.mod(t, repeat_s))
