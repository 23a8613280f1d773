"""A traffic signal controller (GB/T 20999-2017): stages that run, a mode that can be set, faults that it reports.

One device is one crossing (``address`` its number). It shows its stages one after the other, 20 s each; held by hand it
goes to the stage wanted through a transition of 3 s. Options: ``controller`` its number, ``stages`` (4), ``plan`` (1).
Faults of its own: ``busy`` (answers "general error"), ``repeat`` (every answer comes twice), ``refuse_set``,
``green_conflict`` (reports it unasked and goes to yellow flash).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from firmware_sim.devices.world import Senses, World
from firmware_sim.faults import Faults
from firmware_sim.scene import Device
from protocols.core.errors import ConfigError
from protocols.traffic_signal import objects
from protocols.traffic_signal.endpoint import SignalEndpoint
from protocols.traffic_signal.messages import Address, Item, Kind, Message

STAGE_S = 20.0
TRANSITION_S = 3.0
LOCAL, BY_HAND, FLASH = 0x23, 0x15, 0x31
_ABSENT, _BUSY, _FAILED, _READ_ONLY = 0x30, 0x40, 0x50, 0x20
#: Where the two makers' ways of central control keep stage, plan and mode.
_CONTROL = {(17, 2, 1): "stage", (17, 1, 2): "stage", (17, 3, 1): "plan", (17, 1, 3): "plan", (17, 4, 1): "mode",
            (17, 1, 4): "mode"}  # fmt: skip


class ControllerEndpoint(SignalEndpoint):
    """Says several messages at a time: a report in front of an answer, an answer twice."""

    def send(self, message: Message | tuple[Message, ...], now_ms: int) -> bytes:
        parts = message if isinstance(message, tuple) else (message,)
        return b"".join(super(ControllerEndpoint, self).send(part, now_ms) for part in parts)


class SignalController:
    def __init__(self, device: Device, faults: Faults, world: World) -> None:
        if not isinstance(device.address, int) or not 1 <= device.address <= 16:
            raise ConfigError(f"device {device.id}: address: the crossing's number, 1 to 16")
        self.id = device.id
        self.faults = faults
        self._world = world
        self._senses = Senses(device, world)
        self._crossing = device.address
        self._controller = int(device.options.get("controller", 0))
        self._stages = int(device.options.get("stages", 4))
        self._plan = int(device.options.get("plan", 1))
        self._mode = LOCAL
        self._held: tuple[int, float] | None = None  # stage by hand, since
        self._sequence = 0
        self._flashing = False
        self._bindings = {
            point.value.key.replace("{crossing}", str(self._crossing)): point
            for point in self._senses.type.points
            if point.value is not None
        }

    def describe(self, request: Message | tuple[Message, ...]) -> str:
        first = request[0] if isinstance(request, tuple) else request
        return f"{first.kind.name.lower()} {', '.join(str(item.address) for item in first.items[:4])}"

    def reply(self, request: Message | tuple[Message, ...], t_s: float) -> Message | tuple[Message, ...] | None:
        if isinstance(request, tuple) or request.crossing not in (0, self._crossing):
            return None
        if request.controller not in (0, self._controller):
            return None
        now_ms = self._world.clock.now_ms()
        reports = self._reports(t_s, now_ms, request)
        busy = self.faults.on("busy", t_s, now_ms)
        answer = self._refusal(request, _BUSY) if busy else self._answer(request, t_s)
        if answer is None:
            return None
        out = [*reports, answer]
        if self.faults.on("repeat", t_s, now_ms):
            out.append(answer)
        return tuple(replace(one, sequence=self._next(), controller=self._controller) for one in out)

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) % 256
        return self._sequence

    def _refusal(self, request: Message, code: int) -> Message:
        kind = Kind.SET_FAILED if request.kind is Kind.SET else Kind.QUERY_FAILED
        return replace(request, kind=kind, items=tuple(replace(i, data=bytes((code,))) for i in request.items))

    def _answer(self, request: Message, t_s: float) -> Message | None:
        match request.kind:
            case Kind.HEARTBEAT:
                return replace(request, kind=Kind.HEARTBEAT_REPLY)
            case Kind.QUERY:
                values = [(item, self._value(item.address, t_s)) for item in request.items]
                if refused := [replace(item, data=bytes((_ABSENT,))) for item, value in values if value is None]:
                    return replace(request, kind=Kind.QUERY_FAILED, items=tuple(refused))
                told = tuple(replace(item, data=value or b"") for item, value in values)
                return replace(request, kind=Kind.QUERY_REPLY, items=told)
            case Kind.SET:
                return self._set(request, t_s)
        return None

    # -- state ----------------------------------------------------------------------------------------------------
    def stage(self, t_s: float) -> int:
        if self._held is not None and self._mode == BY_HAND:
            stage, since_s = self._held
            return stage if t_s - since_s >= TRANSITION_S else 0
        return 1 + int(t_s // STAGE_S) % self._stages

    def _value(self, address: Address, t_s: float) -> bytes | None:
        if (address.cls, address.obj) == (13, 2) and address.element in (0, self._crossing):
            if self._flashing and address.attr == 2:
                return bytes((FLASH,))
            own = {1: self._crossing, 2: self._mode, 3: self._plan, 4: self.stage(t_s)}.get(address.attr)
            return None if own is None else bytes((own,))
        if address == Address(13, 1, 10):
            offset_ms = self.faults.clock_offset_ms(t_s, self._world.clock.now_ms(), self._world.start_ms)
            moment = datetime.fromtimestamp((self._world.clock.now_ms() + offset_ms) / 1000, UTC)
            return objects.moment_bytes(moment.replace(tzinfo=None))
        point = next((p for key, p in self._bindings.items() if Address.of(key) == address), None)
        if point is None or not self._senses.has(point.name):
            return None
        found = objects.find(address)
        number = round(self._senses(point.name, t_s))
        if found is not None and found.form is objects.bits:
            return objects.bits_bytes(list(range(1, number + 1)), found.width)
        return number.to_bytes((found.width if found else 0) or 1, "big", signed=number < 0)

    def _set(self, request: Message, t_s: float) -> Message:
        now_ms = self._world.clock.now_ms()
        if self.faults.on("refuse_set", t_s, now_ms):
            return self._refusal(request, _FAILED)
        wanted: dict[str, int] = {}
        for item in request.items:
            address = item.address
            name = _CONTROL.get((address.cls, address.obj, address.attr))
            if name is None or len(item.data) != 1 or address.element not in (0, self._crossing):
                return self._refusal(request, _READ_ONLY)
            wanted[name] = item.data[0]
        if not 0 <= wanted.get("stage", 1) <= self._stages:
            return self._refusal(request, 0x12)
        self._mode = wanted.get("mode", self._mode)
        self._plan = wanted.get("plan", self._plan)
        if "stage" in wanted:
            self._held = (wanted["stage"], t_s)
        return replace(request, kind=Kind.SET_REPLY)

    def _reports(self, t_s: float, now_ms: int, request: Message) -> list[Message]:
        flashing = self.faults.on("green_conflict", t_s, now_ms)
        begins, self._flashing = flashing and not self._flashing, flashing
        if not begins:
            return []
        items = (
            Item(Address(16, 2, 1, 1), (1).to_bytes(4, "big")),
            Item(Address(16, 2, 2, 1), b"\x10"),
            Item(Address(16, 2, 4, 1), b"\x10"),
            Item(Address(13, 2, 2, self._crossing), bytes((FLASH,))),
        )
        return [Message(Kind.REPORT, items, self._controller, self._crossing, request.host)]
