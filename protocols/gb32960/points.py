"""What the items of a report are called as points.

Keys: ``<item>.<field>`` (``vehicle.speed_kmh``, ``position.lon``, ``alarm.level``), ``motor.<number>.<field>`` and
``motor.max.<field>``, ``alarm.bit.<n>``, ``alarm.faults``. Extremes that a vehicle does not send (the 2025 issue has no
such item) are worked out from its lists of cells and probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from protocols.gb32960.fields import ABNORMAL, INVALID
from protocols.gb32960.items import Item

Raw = float | int | bool | str | None

_FAULTS = ("battery_faults", "motor_faults", "engine_faults", "other_faults")


def said(items: Sequence[Item]) -> dict[str, Raw]:
    """Keys and values; the words "invalid" and "abnormal" stay, None is no value. What comes twice: the last one."""
    out: dict[str, Raw] = {}
    cells: list[Any] = []
    probes: list[Any] = []
    for one in items:
        values = one.values
        match one.name:
            case "motor":
                out |= _motors(values["motors"])
            case "position":
                out |= _position(values)
            case "alarm":
                out |= _alarm(values)
            case "cell_voltages":
                cells += [cell for system in values["subsystems"] for cell in system["cells_v"]]
            case "probe_temps":
                probes += [probe for system in values["subsystems"] for probe in system["temps_c"]]
            case _:
                out |= {f"{one.name}.{name}": value for name, value in values.items() if _scalar(value)}
    for key, list_of, choose in (
        ("extremes.max_v", cells, max),
        ("extremes.min_v", cells, min),
        ("extremes.max_t_c", probes, max),
        ("extremes.min_t_c", probes, min),
    ):
        if key not in out and list_of:
            out[key] = _chosen(list_of, choose)
    return out


def _scalar(value: Any) -> bool:
    return not isinstance(value, list | dict)


def _chosen(values: Iterable[Any], choose: Callable[[list[float]], float]) -> Raw:
    numbers = [value for value in values if not isinstance(value, str)]
    return choose(numbers) if numbers else INVALID


def _motors(motors: Sequence[dict[str, Any]]) -> dict[str, Raw]:
    out: dict[str, Raw] = {f"motor.{motor['no']}.{name}": motor[name] for motor in motors for name in motor}
    for name in ("temp_c", "controller_temp_c"):
        if motors:
            out[f"motor.max.{name}"] = _chosen((motor.get(name, INVALID) for motor in motors), max)
    return out


def _position(values: Any) -> dict[str, Raw]:
    lon, lat = values["lon"], values["lat"]
    # "Valid" at 0,0 has been seen: a receiver without a fix.
    known = values["valid"] and not isinstance(lon, str) and not isinstance(lat, str) and (lon, lat) != (0, 0)
    out: dict[str, Raw] = {
        "position.valid": bool(known),
        "position.lon": lon if known else None,
        "position.lat": lat if known else None,
    }
    if "datum" in values:
        out["position.datum"] = str(values["datum"])
    return out


def _alarm(values: Any) -> dict[str, Raw]:
    raw = values["flags_raw"]
    out: dict[str, Raw] = {f"alarm.bit.{n}": bool(raw >> n & 1) for n in range(32)}
    # A terminal that does not know its alarms fills the word with ones.
    out["alarm.flags_raw"] = INVALID if raw == 0xFFFFFFFF else ABNORMAL if raw == 0xFFFFFFFE else raw
    out["alarm.level"] = values["level"]
    out["alarm.faults"] = sum(len(values[name]) for name in _FAULTS)
    return out
