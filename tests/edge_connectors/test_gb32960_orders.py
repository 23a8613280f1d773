"""The electric vehicle connector: orders with read-back, configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge.clock import LoopClock, WallClock
from edge.connectors.base import Command, Outcome
from edge.connectors.build import build
from edge.connectors.gb_config import Gb32960Device
from protocols.core.errors import ConfigError, LinkDown
from protocols.gb32960 import bodies
from protocols.gb32960 import messages as m
from tests.edge_connectors.peers import START_MS
from tests.edge_connectors.vehicle_peer import VIN, Car, config, play

# -- orders


def give(obey: Callable[[m.Message], m.Message | None], command: Command, edition: Any = "2016") -> Outcome:
    outcomes: list[Outcome] = []

    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        car.obey = obey
        await car.say(m.LOGIN, bodies.login_data(m.stamp_at(START_MS), 1, "1"), edition=edition)
        outcomes.append(await connector.command(command))

    play(body)
    return outcomes[0]


def terminal(shows: int | None = None) -> Callable[[m.Message], m.Message | None]:
    """Keeps parameter 02, or shows another one than it was given."""
    kept = {2: 30}

    def obey(message: m.Message) -> m.Message:
        body = bodies.read(message)
        if isinstance(body, bodies.Parameters):
            kept.update({number: value for number, value in body.values if isinstance(value, int)})
        if isinstance(body, bodies.Query):
            data = bodies.set_data(body.stamp, 2, kept[2] if shows is None else shows, message.edition)
            return m.Message(m.QUERY, message.raw_vin, data, m.OK, message.edition)
        return m.reply(message)

    return obey


@pytest.mark.parametrize("edition", ["2016", "2025"])
def test_a_parameter_is_set_and_read_back(edition: str) -> None:
    outcome = give(terminal(), Command("1", "bus-1", "set_report_period", {"seconds": 10}), edition)
    assert outcome.state == "done" and list(outcome.read_back.values()) == [10]
    outcome = give(terminal(shows=30), Command("1", "bus-1", "set_report_period", {"seconds": 10}), edition)
    assert (outcome.state, outcome.code) == ("failed", "read_back")


def test_orders_refused_unanswered_and_unsayable() -> None:
    reset = Command("1", "bus-1", "reset_terminal", {})
    assert give(terminal(), reset).state == "done"
    assert give(lambda message: m.reply(message, m.ERROR), reset).code == "denied"
    assert give(lambda message: None, reset).state == "unknown"
    assert give(terminal(), Command("1", "bus-1", "fly", {})).code == "unknown_command"
    assert give(terminal(), Command("1", "bus-1", "set_report_period", {"seconds": 600}), "2025").code == "argument"

    async def body(car: Car, clock: LoopClock, connector: Any) -> None:
        with pytest.raises(LinkDown):
            await connector.command(reset)

    play(body)


def test_configuration_is_checked() -> None:
    twice = (
        Gb32960Device(id="a", type="vehicle/electric", vin=VIN),
        Gb32960Device(id="b", type="vehicle/electric", vin=VIN),
    )
    wrong = (Gb32960Device(id="a", type="env/noise_meter", vin=VIN),)
    for devices, match in ((twice, "device.vin"), (wrong, "speaks modbus")):
        with pytest.raises(ConfigError, match=match):
            build(config(device=devices), WallClock())
