"""Simulated signal controllers and cameras: what they do when told, and what their faults do to a frame."""

from __future__ import annotations

import random

import pytest

from firmware_sim.devices.gb28181_camera import Gb28181Camera
from firmware_sim.devices.signal_controller import SignalController
from firmware_sim.devices.world import World
from firmware_sim.faults import Faults
from firmware_sim.faults.surgery import operate
from firmware_sim.ledger import MemoryLedger
from firmware_sim.scene import Scene, parse_scene
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, RemoteProtocolError
from protocols.traffic_signal.endpoint import SignalEndpoint
from protocols.traffic_signal.frame import build
from protocols.traffic_signal.messages import Address, Item, Kind, Message, payload_of, query
from tests.support.virtual import MORNING_MS

SIGNAL = """
id = "x"
[[bus]]
id = "b"
kind = "gb20999"
[[device]]
id = "d"
type = "roadside/signal_controller"
bus = "b"
address = 1
options = { controller = 7 }
signals.detectors_faulty = { base = 3.0 }
"""
CAMERA = """
id = "x"
[[bus]]
id = "b"
kind = "gb28181-client"
[[device]]
id = "d"
type = "camera/gb28181"
bus = "b"
address = "34010000001180000001"
options = { server = "34010000002000000001" }
"""


class Still:
    """Time that a test sets."""

    ms = MORNING_MS

    def now_ms(self) -> int:
        return self.ms


def controller(text: str = SIGNAL) -> tuple[SignalController, Still, Scene]:
    scene, clock = parse_scene(text, "x.toml"), Still()
    world = World(clock, MORNING_MS, MemoryLedger())
    (device,) = scene.device
    return SignalController(device, Faults("d", "gb20999", device.fault, 1, world.ledger), world), clock, scene


def told(one: SignalController, request: Message, t_s: float = 0.0) -> Message:
    answer = one.reply(request, t_s)
    assert isinstance(answer, tuple)
    return answer[-1]


def value(one: SignalController, address: str, t_s: float = 0.0) -> bytes:
    return told(one, query(address, controller=7, crossing=1), t_s).items[0].data


def test_stages_run_one_after_the_other() -> None:
    one, _, _ = controller()
    assert [value(one, "13.2.4.1", t)[0] for t in (0, 19, 20, 60, 79, 80)] == [1, 1, 2, 4, 4, 1]


def test_a_stage_by_hand_comes_through_a_transition_and_goes() -> None:
    one, _, _ = controller()
    items = (Item(Address(17, 2, 1, 1), b"\x03"), Item(Address(17, 4, 1, 1), b"\x15"))
    assert told(one, Message(Kind.SET, items, 7, 1), 10).kind is Kind.SET_REPLY
    assert [value(one, "13.2.4.1", t)[0] for t in (11, 13, 100)] == [0, 3, 3]
    told(one, Message(Kind.SET, (Item(Address(17, 4, 1, 1), b"\x21"),), 7, 1), 110)
    assert value(one, "13.2.4.1", 110)[0] == 2 and value(one, "13.2.2.1", 110) == b"\x21"


def test_strange_addresses_and_settings_are_refused_with_their_reason() -> None:
    one, _, _ = controller()
    assert told(one, query("13.9.9.1", controller=7, crossing=1)).failures == {
        Address(13, 9, 9, 1): "value_does_not_exist"
    }
    assert set(told(one, Message(Kind.SET, (Item(Address(9, 2, 3, 1), b"\0"),), 7, 1)).failures.values()) == {
        "read_only"
    }
    assert value(one, "13.1.1") == bytes(7) + b"\x07"  # three detectors: a map of three
    assert one.reply(query("13.2.2.1", controller=8), 0.0) is None  # another controller's
    assert one.reply(query("13.2.2.1", controller=7, crossing=2), 0.0) is None


def test_two_greens_are_reported_once_in_front_of_an_answer() -> None:
    one, _, _ = controller(SIGNAL + '[[device.fault]]\nkind = "green_conflict"\nat_s = 5\nfor_s = 5\n')
    first = one.reply(query("13.2.2.1", controller=7, crossing=1), 6.0)
    assert isinstance(first, tuple) and [m.kind for m in first] == [Kind.REPORT, Kind.QUERY_REPLY]
    second = one.reply(query("13.2.2.1", controller=7, crossing=1), 7.0)
    assert isinstance(second, tuple) and len(second) == 1 and second[0].items[0].data == b"\x31"
    assert value(one, "13.2.2.1", 11.0) == b"\x23"


@pytest.mark.parametrize("data", [b"\x23", b"\x7d\x7e\x5c"])
def test_each_fault_is_noticed_for_what_it_is(data: bytes) -> None:
    message = Message(Kind.QUERY_REPLY, (Item(Address(13, 2, 2, 1), data),), controller=7, sequence=0x7D)
    frame = build(payload_of(message), "stream")

    def read(kind: str) -> Message | RemoteProtocolError:
        damaged = operate(kind, "gb20999", frame, random.Random(1))
        return SignalEndpoint(Role.MASTER, listen=True).feed(damaged, 0)[0]

    wrong = read("wrong_checksum")
    assert isinstance(wrong, RemoteProtocolError) and wrong.reason == "crc"
    other = read("wrong_address")
    assert isinstance(other, Message) and other.controller == 6 and other.items == message.items


def test_a_camera_needs_its_numbers() -> None:
    for old, new in (("34010000001180000001", "1"), ("34010000002000000001", "")):
        (device,) = parse_scene(CAMERA.replace(old, new), "x.toml").device
        world = World(Still(), MORNING_MS, MemoryLedger())
        with pytest.raises(ConfigError, match="20 digits"):
            Gb28181Camera(device, Faults("d", "gb28181-client", (), 1, world.ledger), world)
