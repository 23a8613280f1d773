"""Modbus units on a line or behind a TCP address: whoever answers a read, with a value or with a refusal, is there.

What kind of device it is nobody says; of the known device types those are tried whose registers it has, and the one
whose values all lie within their physical range is offered, as a guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache

from edge.probe.asking import Asker
from edge.probe.found import Found, Place
from protocols.core.endpoint import Role
from protocols.devices import DeviceType, all_types
from protocols.modbus.endpoint import ModbusEndpoint
from protocols.modbus.messages import (
    ILLEGAL_ADDRESS,
    READ_COILS,
    READ_HOLDING,
    READ_INPUT_REGISTERS,
    READ_INPUTS,
    ExceptionReply,
    Identification,
    Identify,
    ReadRequest,
    Reply,
)
from protocols.modbus.plan import Block, Plan
from protocols.modbus.points import decode_one

Tell = Callable[[str], None]

#: Exceptions by which a gateway says that nobody is there.
_NOBODY = (10, 11)
#: A unit that answers is asked again this often before "silent" is believed.
_TRIES = 2
_MOST_OTHERS = 3


@cache
def _candidates() -> tuple[DeviceType, ...]:
    """Modbus types, those with most registers first: they are the hardest to mistake."""
    types = [kind for kind in all_types() if kind.protocol == "modbus"]
    return tuple(sorted(types, key=lambda kind: -len(kind.points)))


class UnitSearch:
    """``framing`` of the endpoint decides between a line and a TCP host."""

    def __init__(
        self, asker: Asker, place: Place, tell: Tell, found: list[Found], *, wait_s: float, endpoint: ModbusEndpoint
    ) -> None:
        self._asker = asker
        self._place = place
        self._tell = tell
        self._found = found
        self._wait_s = wait_s
        self._endpoint = endpoint

    async def run(self, units: Iterable[int], each: Callable[[int], None]) -> None:
        """``each`` is told before a unit is asked. Raises TransportError."""
        for unit in units:
            each(unit)
            if await self._there(unit):
                first, *others = await self._types(unit) or [""]
                also, says = tuple(others[:_MOST_OTHERS]), await self._says(unit)
                found = Found(self._place, "modbus", str(unit), first, says, also=also)
                self._found.append(found)
                self._tell(f"Modbus {unit}  {found.type}  {found.about}".rstrip())

    async def _there(self, unit: int) -> bool:
        for function in (READ_HOLDING, READ_INPUT_REGISTERS):
            heard = await self._asker.ask(self._endpoint, ReadRequest(unit, function, 0, 1), self._wait_s)
            if isinstance(heard.message, ExceptionReply) and heard.message.code in _NOBODY:
                return False
            if heard.message is not None:
                return True
            if heard.noise:
                self._tell(f"Modbus {unit}: bytes that are no answer 有应答但无法识别")
                return False
        return False

    async def _says(self, unit: int) -> str:
        """Function 43/14, where the device has it."""
        heard = await self._asker.ask(self._endpoint, Identify(unit), self._wait_s)
        if not isinstance(heard.message, Identification):
            return ""
        return " ".join(text.decode("utf-8", "replace") for _, text in heard.message.objects if text)

    async def _types(self, unit: int) -> list[str]:
        """The types that fit, the one with most points that say something first."""
        fits = [(await self._fits(unit, kind), kind.id) for kind in _candidates()]
        return [kind for telling, kind in sorted(fits, key=lambda fit: -fit[0]) if telling]

    async def _fits(self, unit: int, kind: DeviceType) -> int:
        """How many points have a value other than 0; 0 if a register is missing or a value cannot be."""
        plan = Plan(kind.points)
        pending, telling = list(plan.blocks), 0
        while pending:
            block = pending.pop(0)
            reply = await self._block(unit, block)
            if isinstance(reply, ExceptionReply) and reply.code == ILLEGAL_ADDRESS and len(block.points) > 1:
                before = set(plan.blocks)
                plan.refuse(block)  # a hole between its registers
                pending = [new for new in plan.blocks if new not in before] + pending
                continue
            if not isinstance(reply, Reply):
                return 0
            bits = block.function in (READ_COILS, READ_INPUTS)
            words = reply.bits if bits else reply.registers
            for point in block.points:
                value = decode_one(words[block.words_of(point)], point)
                low, high = point.range
                if not math.isnan(value) and not low <= value <= high:
                    return 0
                telling += bits or not (math.isnan(value) or value == 0)  # a device of zeros would pass for anything
        return telling

    async def _block(self, unit: int, block: Block) -> object:
        request = ReadRequest(unit, block.function, block.address, block.count)
        for _ in range(_TRIES):
            heard = await self._asker.ask(self._endpoint, request, self._wait_s)
            if not heard.silent:
                break
        return heard.message


def rtu() -> ModbusEndpoint:
    return ModbusEndpoint(Role.MASTER, framing="rtu")


def tcp() -> ModbusEndpoint:
    return ModbusEndpoint(Role.MASTER, framing="tcp")
