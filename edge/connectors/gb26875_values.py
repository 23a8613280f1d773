"""From objects of a GB/T 26875.3 data unit to sweeps, and what a state word must make known beside them.

A fire must reach somebody whatever is configured: it is a reading of the component's device, and an event
``fire.alarm`` with the component's text; of a component nobody configured, an event on the transmitter itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edge.connectors.base import Sink
from edge.connectors.station_server import News
from protocols.core.model import Quality, Sweep
from protocols.devices import DeviceType
from protocols.devices.values import reading
from protocols.gb26875 import names
from protocols.gb26875.objects import Object
from protocols.gb26875.points import part_of, said, under_test

#: Bits that are a fault of the fire system, and those that are the transmitter's own.
_FAULTS = ("fault", "shielded", "power_fault", "main_power_fault", "backup_power_fault", "bus_fault")
_OWN_FAULTS = ("fault", "main_power_fault", "backup_power_fault", "link_fault", "panel_fault")
#: Unknown parts that are remembered; a box that invents addresses must not make us remember without end.
MAX_STRAYS = 1_024


@dataclass
class Strays:
    """Parts nobody configured. ``fires``: those in fire now."""

    known: set[str] = field(default_factory=set)
    fires: set[str] = field(default_factory=set)


def columns(
    device: str, kind: DeviceType, values: Mapping[str, float], quality: Quality, source_ms: int, seen_ms: int
) -> Sweep | None:
    """The points of the type that these keys fill; None if it has none of them."""
    points, numbers, grades = [], [], []
    for point in kind.points:
        if point.value is None or point.value.key not in values:
            continue
        number, grade = reading(point, values[point.value.key])
        points.append(point.name)
        numbers.append(number if math.isnan(number) else round(number, point.decimals))
        grades.append(quality if grade is Quality.GOOD else grade)
    if not points:
        return None
    return Sweep(
        device,
        source_ms,
        seen_ms,
        tuple(points),
        np.array(numbers, dtype=np.float64),
        np.array(grades, dtype=np.uint8),
    )


def words_of(one: Object) -> str:
    """What and where an object is: component type, the panel's own text."""
    component = getattr(one, "component", None)
    what = names.COMPONENTS.get(component, (f"部件类型 {component}", ""))[0] if component is not None else ""
    if component is None and (system := getattr(one, "system", None)) is not None:
        what = names.SYSTEMS.get(system, (f"系统类型 {system}", ""))[0]
    return f"{what} {getattr(one, 'text', '')}".strip()


def tell(one: Object, device: str, news: News, sink: Sink, now_ms: int) -> None:
    """Report what a state says: a fire, a fault, a test; each when it begins and once an hour."""
    values = said(one)
    if "state" not in values:
        return
    own = part_of(one) == ""
    text = "用户信息传输装置" if own else words_of(one)
    states = [("fire.alarm", "fire", values.get("state.fire", 0.0) >= 0.5)]
    faults, event = (_OWN_FAULTS, "dev.fault") if own else (_FAULTS, "fire.fault")
    states += [(event, name, values.get(f"state.{name}", 0.0) >= 0.5) for name in faults]
    states.append(("dev.maintenance", "test", under_test(one)))
    for kind, code, on in states:
        key = f"{device}/{code}"  # the news of a transmitter covers all its parts
        if not on:
            news.over(kind, key)
        elif news.fresh(kind, code, key, now_ms):
            sink.report(kind, device, code, text, point="" if own or kind == "dev.maintenance" else code)


def tell_stray(one: Object, transmitter: str, strays: Strays, news: News, sink: Sink, now_ms: int) -> None:
    """A part nobody configured: named once, so that it can be configured; a fire of it is always news."""
    part = part_of(one)
    if not part:
        return
    name = part.replace("/", "-")
    text = words_of(one)
    if part not in strays.known and len(strays.known) < MAX_STRAYS:
        strays.known.add(part)
        sink.count("strangers", connector=transmitter)
        sink.report("data.rejected", transmitter, "unknown_part", f'part = "{part}" {text}', point=name)
    values = said(one)
    if "state.fire" not in values:
        return
    if values["state.fire"] < 0.5:
        strays.fires.discard(part)
        news.over("fire.alarm", part)
        return
    if len(strays.fires) < MAX_STRAYS:
        strays.fires.add(part)
    if news.fresh("fire.alarm", "unconfigured", part, now_ms):
        sink.report("fire.alarm", transmitter, "unconfigured", f"{part} {text}", point=name)
