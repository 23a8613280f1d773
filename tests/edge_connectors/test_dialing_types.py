"""Device types of stations that dial in: every key names something, every command can be said."""

from __future__ import annotations

from decimal import Decimal

import pytest

from edge.connectors.hj212_orders import request_of
from edge.connectors.sl651_orders import order_of
from protocols.devices import Argument, CommandType, DeviceType, Point, all_types
from protocols.hj212.names import COMMANDS, FACTORS, SUFFIXES
from protocols.sl651.elements import ELEMENTS, STATUS_BITS, element, series_width

STATIONS = [kind for kind in all_types() if kind.protocol in ("sl651", "hj212")]
SAMPLE = {"begin": "2026-03-02T00:00", "end": "2026-03-02T08:00", "factor": "w01018", "info": "i12001"}


def pairs(protocol: str, what: str) -> list[object]:
    return [
        pytest.param(kind, one, id=f"{kind.id}/{one.name}")
        for kind in STATIONS
        if kind.protocol == protocol
        for one in getattr(kind, what)
    ]


def argument(one: Argument) -> float | str:
    return SAMPLE[one.name] if one.range is None else one.range[0]


@pytest.mark.parametrize(("kind", "point"), pairs("sl651", "points"))
def test_a_hydrology_point_is_an_element_that_can_carry_it(kind: DeviceType, point: Point) -> None:
    assert point.value is not None
    key, dot, bit = point.value.key.partition(".")
    known = ELEMENTS[key]
    if dot:
        assert key == "45" and 0 <= int(bit) < len(STATUS_BITS)
        return
    if series_width(key):
        return
    assert known.unit == point.unit
    # At the point's own resolution, somewhere within its range.
    middle = Decimal(str(round(sum(point.range) / 7, min(point.decimals, known.definition & 7))))
    assert Decimal(str(element(key, middle).value)) == middle


@pytest.mark.parametrize(("kind", "point"), pairs("hj212", "points"))
def test_an_environment_point_is_a_factor_of_the_table(kind: DeviceType, point: Point) -> None:
    assert point.hj212 is not None
    assert point.hj212.factor in FACTORS
    assert point.hj212.suffix in SUFFIXES
    assert COMMANDS[point.hj212.cn].kind == "upload"


@pytest.mark.parametrize(("kind", "command"), pairs("sl651", "commands"))
def test_a_hydrology_command_can_be_said(kind: DeviceType, command: CommandType) -> None:
    order = order_of(command, {one.name: argument(one) for one in command.argument})
    assert not command.street  # nothing that moves something is known well enough to be sent
    message = order.message(1, 1_772_424_000_000)
    assert getattr(message, "serial", None) == 1
    assert (order.read_back is not None) == command.name.startswith("set_")


@pytest.mark.parametrize(("kind", "command"), pairs("hj212", "commands"))
def test_an_environment_command_can_be_said(kind: DeviceType, command: CommandType) -> None:
    cn, fields = request_of(command, {one.name: argument(one) for one in command.argument}, 1_772_424_000_000)
    assert cn in COMMANDS
    assert COMMANDS[cn].street == command.street
    assert all(value and "{" not in value for value in fields.values())
