"""A user information transmission device with the components of its fire panel (GB/T 26875.3).

In a scene the transmitter is a device with ``address = "112233445566"``; its parts are devices of their own on the same
bus with ``"112233445566/1/1"`` (a system) or ``"112233445566/1/1/131082"`` (a component). Every ``interval_s`` the
transmitter tells its own state (its heartbeat) and the analogue values; the state of a part when it changes.

Options of a part: ``text``, ``component`` (its type byte); of a transmitter: ``layout = "ascii8"``, ``guard = false``
(nobody answers a duty check). Faults of its own: ``resend`` (each upload twice, same serial), ``ack_lost``
(confirmations do not arrive), ``no_time`` (clock unset), ``private`` (objects and heartbeats of the maker's own),
``stray`` (a component nobody configured is in fire), ``sticky`` (three frames in one segment).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from firmware_sim.devices.dialing import KEEP_RECORDS, DialingStation
from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.cutter import Cut
from protocols.core.endpoint import Role
from protocols.core.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from protocols.gb26875 import messages as m
from protocols.gb26875 import names
from protocols.gb26875 import objects as o
from protocols.gb26875.endpoint import Gb26875Endpoint
from protocols.gb26875.frame import Scanner
from protocols.gb26875.points import COMPONENT_KEYS, SYSTEM_KEYS, TRANSMITTER_KEYS, parse_part, word_of
from protocols.gb26875.units import Unit, content, unit, unit_from

#: Component types of the device types, where the scene does not say.
_COMPONENTS = {
    "fire/smoke_detector": 42, "fire/manual_call_point": 23, "fire/heat_detector": 31, "fire/residual_current": 17,
    "fire/water_pressure": 99, "fire/tank_level": 92, "fire/pump": 91,
}  # fmt: skip
_OBJECTS_A_PACKET = 20
_STICKY_FRAMES = 3
#: Seconds until the guard presses the key.
_GUARD_S = 20.0
_STRAY = o.ComponentState(1, 9, 40, 999, 3, o.text_field("未登记部件"))

Label = tuple[str, str, str]  # device, type byte, time: how the ledger names a record


class _Part:
    """A system or component of the panel."""

    def __init__(self, device: Device, where: str, world: World) -> None:
        try:
            self.numbers = parse_part(where)
        except ValueError as error:
            raise ConfigError(f"device {device.id}: address: {error}") from error
        self.id = device.id
        self.senses = Senses(device, world)
        self.component = int(device.options.get("component", _COMPONENTS.get(device.type, 0)))
        self.text = str(device.options.get("text", ""))
        self.told: int | None = None  # the state word told last

    @property
    def keys(self) -> tuple[str, ...]:
        return {0: TRANSMITTER_KEYS, 2: SYSTEM_KEYS}.get(len(self.numbers), COMPONENT_KEYS)

    def values(self, t_s: float) -> dict[str, float]:
        """Key -> value of every point that has a signal."""
        return {
            point.value.key: self.senses(point.name, t_s)
            for point in self.senses.type.points
            if point.value is not None and self.senses.has(point.name)
        }

    def word(self, t_s: float) -> int:
        return word_of({"state.running": 1.0, **self.values(t_s)}, self.keys)

    def state(self, t_s: float, stamp: bytes, layout: str) -> o.Object:
        word = self.word(t_s)
        if not self.numbers:
            return o.TransmitterState(word, stamp)
        system, address = self.numbers[:2]
        if len(self.numbers) == 2:
            return o.SystemState(system, address, word, stamp)
        number = self.numbers[2]
        if layout == "ascii8":
            digits, text = f"{number:08d}".encode(), o.text_field(self.text, 32)
            return o.NumberedComponentState(system, address, self.component, digits, word & 0xFF, text, stamp)
        return o.ComponentState(system, address, self.component, number, word, o.text_field(self.text), stamp)

    def analogs(self, t_s: float, stamp: bytes) -> list[o.Object]:
        out: list[o.Object] = []
        for key, value in self.values(t_s).items():
            if key.startswith("analog.") and len(self.numbers) == 3 and not math.isnan(value):
                kind = int(key.removeprefix("analog."))
                raw = max(-0x8000, min(0x7FFF, round(value / float(names.ANALOGS[kind][2]))))
                system, address, number = self.numbers
                out.append(o.Analog(system, address, self.component, number, kind, raw, stamp))
        return out


class Gb26875Transmitter(DialingStation):
    """One transmitter and its parts. What was not confirmed survives a restart."""

    def __init__(self, device: Device, parts: Sequence[Device], faults: Faults, world: World) -> None:
        super().__init__(device, faults, world)
        self.address = str(device.address).upper()
        if len(self.address) != 12:
            raise ConfigError(f'device {device.id}: address: 12 hex digits in quotes, e.g. "112233445566"')
        self._own = _Part(device, "", world)
        self._parts = [_Part(part, str(part.address).partition("/")[2], world) for part in parts]
        self._layout = str(device.options.get("layout", "standard"))
        self._endpoint = Gb26875Endpoint(Role.SLAVE, keep=KEEP_RECORDS)
        self._records: dict[int, list[Label]] = {}  # by serial number, until confirmed
        self._held: list[bytes] = []  # sticky: frames that wait for company
        self._guard_due_s: float | None = None

    @classmethod
    def gather(
        cls, devices: Sequence[Device], faults_of: Callable[[Device], Faults], world: World
    ) -> list[DialingStation]:
        """Stations of a bus: a transmitter takes the parts that stand behind its address."""
        out: list[DialingStation] = []
        own = {str(device.address).upper() for device in devices if "/" not in str(device.address)}
        for device in devices:
            address, slash, _ = str(device.address).partition("/")
            if slash and address.upper() not in own:
                raise ConfigError(f"device {device.id}: address: there is no transmitter {address} on this bus")
            if not slash:
                parts = [d for d in devices if str(d.address).upper().startswith(address.upper() + "/")]
                out.append(cls(device, parts, faults_of(device), world))
        return out

    # -- life ---------------------------------------------------------------------------------------------------
    def power_lost(self) -> None:
        for part in (self._own, *self._parts):
            part.told = None  # a panel that starts tells the state of everything
        self._held.clear()
        self._guard_due_s = None

    def dialled(self, now_ms: int) -> None:
        self._endpoint.connected(now_ms)
        self._put_all(self._endpoint.take_output())

    def tick(self, now_ms: int) -> None:
        self._endpoint.tick(now_ms)
        self._put_all(self._endpoint.take_output())
        t_s = self.world.t_s(now_ms)
        if self._guard_due_s is not None and t_s >= self._guard_due_s:
            self._guard_due_s = None
            self._send(24, [o.TransmitterOperation(1 << 5, 1, self._stamp(now_ms, t_s))], [self._own.id], now_ms)

    # -- out ----------------------------------------------------------------------------------------------------
    def record(self, t_s: float, now_ms: int) -> None:
        stamp = self._stamp(now_ms, t_s)
        if self.faults.on("private", t_s, now_ms):
            self._put_all(m.encode(self._packet(m.SEND, Unit(10, 0).data, now_ms)))
            self._put_all(m.encode(self._packet(m.SEND, unit(150, [o.Raw(bytes(range(16)))]).data, now_ms)))
        self._send(21, [self._own.state(t_s, stamp, self._layout)], [self._own.id], now_ms)
        for kind, parts in ((1, self._of_length(2)), (2, self._of_length(3))):
            changed = [part for part in parts if part.word(t_s) != part.told]
            for at in range(0, len(changed), _OBJECTS_A_PACKET):
                some = changed[at : at + _OBJECTS_A_PACKET]
                self._send(kind, [p.state(t_s, stamp, self._layout) for p in some], [p.id for p in some], now_ms)
                for part in some:
                    part.told = part.word(t_s)
        for part in self._of_length(3):
            if analogs := part.analogs(t_s, stamp):
                self._send(3, analogs, [part.id], now_ms)
        if self.faults.on("stray", t_s, now_ms):
            self._put_all(m.encode(self._packet(m.SEND, unit(2, [_STRAY]).data, now_ms)))

    def _of_length(self, count: int) -> list[_Part]:
        return [part for part in self._parts if len(part.numbers) == count]

    def _stamp(self, now_ms: int, t_s: float) -> bytes:
        if self.faults.on("no_time", t_s, now_ms):
            return m.NO_TIME
        try:
            return m.stamp_at(self.clock_ms(now_ms))
        except LocalProtocolError:
            return m.NO_TIME  # 1970: the byte counts from 2000

    def _packet(self, command: int, data: bytes, now_ms: int) -> m.Packet:
        stamp = self._stamp(now_ms, self.world.t_s(now_ms))
        return m.Packet(command, self._endpoint.next_serial(), self.address, "000000000001", data, stamp, (1, 1))

    def _send(self, kind: int, objects: Sequence[o.Object], devices: Sequence[str], now_ms: int) -> None:
        packet = self._packet(m.SEND, unit(kind, objects).data, now_ms)
        moment = f"{now_ms}/{packet.serial}"
        labels = [(device, str(kind), moment) for device in devices]
        for device, cn, dt in labels:
            self.world.ledger.write("up", device, now_ms, cn=cn, dt=dt, v={})
        self._records[packet.serial] = labels
        dropped = self._endpoint.dropped
        data = self._endpoint.send(packet, now_ms)
        for _ in range(self._endpoint.dropped - dropped):
            for device, cn, dt in self._records.pop(next(iter(self._records))):
                self.world.ledger.write("gave_up", device, now_ms, cn=cn, dt=dt)
        self._put_all(data)
        if self.faults.on("resend", self.world.t_s(now_ms), now_ms):
            self._put_all(data)

    def _put_all(self, data: bytes) -> None:
        now_ms, t_s = self.now()
        frames = [one.data for one in Scanner().feed(data) if isinstance(one, Cut)]
        if not self.faults.on("sticky", t_s, now_ms):
            frames, self._held = [*self._held, *frames], []
        else:
            self._held += frames
            if len(self._held) < _STICKY_FRAMES:
                return
            frames, self._held = [b"".join(self._held)], []
        for frame in frames:
            self.put(frame)

    def sent(self, frame: bytes, now_ms: int, *, intact: bool) -> None:
        for device, cn, dt in self._records.get(m.parse(frame).serial, []):
            self.world.ledger.write("sent", device, now_ms, cn=cn, dt=dt, intact=intact)

    # -- in -----------------------------------------------------------------------------------------------------
    def heard(self, data: bytes, now_ms: int) -> None:
        t_s = self.world.t_s(now_ms)
        if self.faults.on("ack_lost", t_s, now_ms):
            return
        for packet in self._endpoint.feed(data, now_ms):
            if not isinstance(packet, RemoteProtocolError):
                self._heard(packet, now_ms, t_s)
        self._put_all(self._endpoint.take_output())

    def _heard(self, packet: m.Packet, now_ms: int, t_s: float) -> None:
        if packet.command == m.CONFIRM:
            for device, cn, dt in self._records.pop(packet.serial, []):
                self.world.ledger.write("ack", device, now_ms, cn=cn, dt=dt)
        elif packet.command in (m.CONTROL, m.REQUEST) and packet.destination == self.address:
            asked = unit_from(packet.data)
            reply = None if asked is None else self._obey(asked, now_ms, t_s)
            if reply is None:
                self._put_all(m.encode(m.answer(packet, m.DENY, stamp=self._stamp(now_ms, t_s))))
                return
            command = m.CONFIRM if packet.command == m.CONTROL else m.REPLY
            answer = m.answer(packet, command, data=reply, stamp=self._stamp(now_ms, t_s))
            self._put_all(m.encode(answer))

    def _obey(self, asked: Unit, now_ms: int, t_s: float) -> bytes | None:
        """The data of the answer; None for what it does not know."""
        stamp = self._stamp(now_ms, t_s)
        one = next(iter(content(asked).objects), None)
        match asked.type, one:
            case o.SET_CLOCK, o.Clock(stamp=told) if (moment_ms := m.time_ms(told)) is not None:
                self.set_ms += moment_ms - self.clock_ms(now_ms)
                return b""
            case o.INITIALISE, _:
                self.power_lost()
                return b""
            case o.DUTY_CHECK, o.DutyCheck():
                if self.device.options.get("guard", True):
                    self._guard_due_s = t_s + _GUARD_S
                return b""
            case 81, _:
                return unit(21, [self._own.state(t_s, stamp, self._layout)]).data
            case 88, _:
                return unit(28, [o.Clock(stamp)]).data
            case 61, o.ReadSystem(system=system, address=address):
                return self._state_of((system, address), 1, t_s, stamp)
            case 62, o.ReadComponent(system=system, address=address, number=number):
                return self._state_of((system, address, number), 2, t_s, stamp)
            case 63, o.ReadComponent(system=system, address=address, number=number):
                part = self._part((system, address, number))
                return unit(3, part.analogs(t_s, stamp)).data if part is not None else None
        return None

    def _part(self, numbers: tuple[int, ...]) -> _Part | None:
        return next((part for part in self._parts if part.numbers == numbers), None)

    def _state_of(self, numbers: tuple[int, ...], kind: int, t_s: float, stamp: bytes) -> bytes | None:
        part = self._part(numbers)
        return None if part is None else unit(kind, [part.state(t_s, stamp, self._layout)]).data
